//! `prune` of containers, networks, volumes and key-value stores.

use std::io::{BufRead, IsTerminal};

use bireme_api::answers::Pruned;
use bireme_api::answers::image::Removed;
use bireme_api::v1::PrunedStores;
use bireme_core::size;
use serde_json::{Value, json};

use crate::cli::{BuilderPruneArgs, PruneArgs, StorePruneArgs, SystemPruneArgs, VolumePruneArgs};
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::listing;

/// Asks before removing, unless forced.
pub(super) fn confirm(context: &Context, force: bool, what: &str) -> anyhow::Result<bool> {
    if force {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(format!("this removes {what}, and there is no terminal to ask at"))
            .hint("pass --force")
            .into());
    }
    context.printer.note(format!("WARNING! This will remove {what}.\nAre you sure you want to continue? [y/N] "))?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// The last line of every prune.
pub(super) fn reclaimed(context: &Context, bytes: u64) -> Outcome {
    context.printer.line(format!("Total reclaimed space: {}", size::decimal(bytes as f64)))?;
    Ok(0)
}

fn list(context: &Context, heading: &str, names: &[String]) -> anyhow::Result<()> {
    if !names.is_empty() {
        context.printer.line(format!("{heading}:\n{}\n", names.join("\n")))?;
    }
    Ok(())
}

pub(super) async fn containers(context: &Context, args: &PruneArgs) -> Outcome {
    if !confirm(context, args.force, "all stopped containers")? {
        return Ok(0);
    }
    let call = context.client.post("/containers/prune").query_some("filters", listing::filters(&args.filter)?);
    let removed: Pruned = call.read().await?;
    list(context, "Deleted Containers", &removed.containers_deleted)?;
    reclaimed(context, removed.space_reclaimed)
}

pub(super) async fn networks(context: &Context, args: &PruneArgs) -> Outcome {
    if !confirm(context, args.force, "all custom networks not used by at least one container")? {
        return Ok(0);
    }
    let call = context.client.post("/networks/prune").query_some("filters", listing::filters(&args.filter)?);
    let removed: Pruned = call.read().await?;
    list(context, "Deleted Networks", &removed.networks_deleted)?;
    Ok(0)
}

pub(super) async fn volumes(context: &Context, args: &VolumePruneArgs) -> Outcome {
    let which = if args.all { "all volumes" } else { "anonymous local volumes" };
    if !confirm(context, args.force, &format!("{which} not used by at least one container"))? {
        return Ok(0);
    }
    let mut filters = listing::filters(&args.filter)?.unwrap_or_else(|| json!({}));
    if args.all {
        filters["all"] = json!(["true"]);
    }
    let removed: Pruned = context.client.post("/volumes/prune").query("filters", filters).read().await?;
    list(context, "Deleted Volumes", &removed.volumes_deleted)?;
    reclaimed(context, removed.space_reclaimed)
}

pub(super) async fn stores(context: &Context, args: &StorePruneArgs) -> Outcome {
    if !confirm(context, args.force, "the key-value stores of all components that are gone")? {
        return Ok(0);
    }
    let removed: PrunedStores = context.client.post("/bireme/v1/stores/prune").read().await?;
    list(context, "Deleted Stores", &removed.stores_deleted)?;
    reclaimed(context, removed.space_reclaimed)
}

pub(super) async fn builder(context: &Context, args: &BuilderPruneArgs) -> Outcome {
    let which = if args.all { "all build cache" } else { "all dangling build cache" };
    if !confirm(context, args.force, which)? {
        return Ok(0);
    }
    let removed: Pruned = context
        .client
        .post("/build/prune")
        .query("all", u8::from(args.all))
        .query_some("filters", listing::filters(&args.filter)?)
        .query_some("keep-storage", args.keep_storage)
        .read()
        .await?;
    list(context, "Deleted build cache objects", &removed.caches_deleted)?;
    reclaimed(context, removed.space_reclaimed)
}

pub(super) async fn system(context: &Context, args: &SystemPruneArgs) -> Outcome {
    let mut what = vec!["all stopped containers", "all networks not used by at least one container"];
    if args.volumes {
        what.push("all anonymous volumes not used by at least one container");
    }
    what.push(if args.all {
        "all images without at least one container associated to them"
    } else {
        "all dangling images"
    });
    what.push("unused build cache");
    if !confirm(context, args.force, &format!("\n  - {}\n", what.join("\n  - ")))? {
        return Ok(0);
    }
    let filters = listing::filters(&args.filter)?;
    let post = |path: &str, filters: Option<Value>| context.client.post(path).query_some("filters", filters);
    let mut bytes = 0u64;

    let removed: Pruned = post("/containers/prune", filters.clone()).read().await?;
    list(context, "Deleted Containers", &removed.containers_deleted)?;
    bytes = bytes.saturating_add(removed.space_reclaimed);
    let removed: Pruned = post("/networks/prune", filters.clone()).read().await?;
    list(context, "Deleted Networks", &removed.networks_deleted)?;
    if args.volumes {
        let removed: Pruned = post("/volumes/prune", filters.clone()).read().await?;
        list(context, "Deleted Volumes", &removed.volumes_deleted)?;
        bytes = bytes.saturating_add(removed.space_reclaimed);
    }
    let mut of_images = filters.clone().unwrap_or_else(|| json!({}));
    of_images["dangling"] = json!([(!args.all).to_string()]);
    let removed: Pruned = post("/images/prune", Some(of_images)).read().await?;
    deleted(context, &removed.images_deleted)?;
    bytes = bytes.saturating_add(removed.space_reclaimed);
    let removed: Pruned = post("/build/prune", filters).query("all", u8::from(args.all)).read().await?;
    list(context, "Deleted build cache objects", &removed.caches_deleted)?;
    bytes = bytes.saturating_add(removed.space_reclaimed);
    reclaimed(context, bytes)
}

/// The names and ids that a prune of images took away.
pub(super) fn deleted(context: &Context, removed: &[Removed]) -> anyhow::Result<()> {
    if removed.is_empty() {
        return Ok(());
    }
    context.printer.line("Deleted Images:")?;
    for one in removed {
        for (name, word) in [(&one.untagged, "untagged"), (&one.deleted, "deleted")] {
            if let Some(name) = name {
                context.printer.line(format!("{word}: {name}"))?;
            }
        }
    }
    context.printer.line("")?;
    Ok(())
}
