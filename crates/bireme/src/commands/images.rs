//! `bireme images`, `tag`, `rmi` and `image prune`.

use bireme_api::answers::Pruned;
use bireme_api::answers::image::{ImageSummary, Removed};
use bireme_core::error::chain;
use bireme_core::size;
use serde_json::json;

use crate::cli::{ImagePruneArgs, ImagesArgs, RmiArgs, TagArgs};
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::listing::{self, Listing, Row};
use crate::units;

const LISTING: Listing<'static> = Listing {
    columns: &[
        ("Repository", "REPOSITORY"),
        ("Tag", "TAG"),
        ("Digest", "DIGEST"),
        ("ID", "IMAGE ID"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("Size", "SIZE"),
        ("Platform", "PLATFORM"),
    ],
    shown: &["Repository", "Tag", "ID", "CreatedSince", "Size"],
    key: "ID",
};

pub(super) async fn images(context: &Context, args: &ImagesArgs) -> Outcome {
    let mut flags = args.filter.filter.clone();
    flags.extend(args.reference.iter().map(|reference| format!("reference={reference}")));
    let mut call = context.client.get("/images/json").query_some("filters", listing::filters(&flags)?);
    if args.all {
        call = call.query("all", 1);
    }
    if args.digests {
        call = call.query("digests", 1);
    }
    let mut images: Vec<ImageSummary> = call.read().await?;
    images.sort_by_key(|image| std::cmp::Reverse(image.created));
    let rows: Vec<Row> = images.iter().flat_map(|image| rows(image, args)).collect();
    let shown: &[&str] =
        if args.digests { &["Repository", "Tag", "Digest", "ID", "CreatedSince", "Size"] } else { LISTING.shown };
    Listing { shown, ..LISTING }.print(&context.printer, &rows, args.format.format.as_deref(), args.quiet)?;
    Ok(0)
}

/// One row per name; an image without a name has one of its own.
fn rows(image: &ImageSummary, args: &ImagesArgs) -> Vec<Row> {
    let named = |names: &[String]| -> Vec<String> {
        names.iter().filter(|name| !name.starts_with("<none>")).cloned().collect()
    };
    let (tags, digests) = (named(&image.repo_tags), named(&image.repo_digests));
    let digest_of = |repository: &str| {
        let found = digests.iter().find_map(|digest| digest.strip_prefix(repository)?.strip_prefix('@'));
        found.unwrap_or("<none>").to_owned()
    };
    let mut names: Vec<(String, String, String)> = tags
        .iter()
        .filter_map(|name| name.rsplit_once(':'))
        .map(|(repository, tag)| (repository.to_owned(), tag.to_owned(), digest_of(repository)))
        .collect();
    if names.is_empty() {
        names = match digests.first().and_then(|digest| digest.split_once('@')) {
            Some((repository, digest)) => vec![(repository.to_owned(), "<none>".to_owned(), digest.to_owned())],
            None => vec![("<none>".to_owned(), "<none>".to_owned(), "<none>".to_owned())],
        };
    }
    if args.quiet {
        names.truncate(1);
    }
    let (id, created) = (&image.id, image.created);
    names
        .into_iter()
        .map(|(repository, tag, digest)| {
            Row::default()
                .with("Repository", repository)
                .with("Tag", tag)
                .with("Digest", digest)
                .with("ID", if args.no_trunc { id.clone() } else { units::short_id(id) })
                .with("CreatedSince", if created <= 0 { "N/A".to_owned() } else { units::ago(created) })
                .with("CreatedAt", units::local_time(created))
                .with("Size", size::decimal_short(image.size as f64))
                .with_labels(&image.labels)
        })
        .collect()
}

pub(super) async fn tag(context: &Context, args: &TagArgs) -> Outcome {
    let target = crate::registry::with_tag(&args.target);
    let (repository, tag) = target.rsplit_once(':').unwrap_or((&target, "latest"));
    context
        .client
        .post(format!("/images/{}/tag", args.source))
        .query("repo", repository)
        .query("tag", tag)
        .done()
        .await?;
    Ok(0)
}

pub(super) async fn rmi(context: &Context, args: &RmiArgs) -> Outcome {
    let mut failures = Vec::new();
    for name in &args.images {
        let answer = context
            .client
            .delete(format!("/images/{name}"))
            .query("force", u8::from(args.force))
            .query("noprune", u8::from(args.no_prune))
            .read::<Vec<Removed>>()
            .await;
        match answer {
            Ok(removed) => {
                for one in &removed {
                    if let Some(name) = &one.untagged {
                        context.printer.line(format!("Untagged: {name}"))?;
                    }
                    if let Some(id) = &one.deleted {
                        context.printer.line(format!("Deleted: {id}"))?;
                    }
                }
            }
            Err(error) if args.force && error.is_not_found() => {}
            Err(error) => failures.push(chain(&error)),
        }
    }
    if failures.is_empty() { Ok(0) } else { Err(Failure::new(failures.join("\n")).into()) }
}

pub(super) async fn prune(context: &Context, args: &ImagePruneArgs) -> Outcome {
    let what =
        if args.all { "all images without at least one container associated to them" } else { "all dangling images" };
    if !super::prune::confirm(context, args.force, what)? {
        return Ok(0);
    }
    let mut filters = listing::filters(&args.filter)?.unwrap_or_else(|| json!({}));
    filters["dangling"] = json!([(!args.all).to_string()]);
    let removed: Pruned = context.client.post("/images/prune").query("filters", filters).read().await?;
    super::prune::deleted(context, &removed.images_deleted)?;
    super::prune::reclaimed(context, removed.space_reclaimed)
}
