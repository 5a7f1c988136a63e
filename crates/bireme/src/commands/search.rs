//! `bireme search`.

use bireme_api::answers::image::Found;

use crate::cli::SearchArgs;
use crate::context::Context;
use crate::error::Outcome;
use crate::listing::{self, Listing, Row};
use crate::{registry, units};

const LISTING: Listing<'static> = Listing {
    columns: &[
        ("Name", "NAME"),
        ("Description", "DESCRIPTION"),
        ("StarCount", "STARS"),
        ("IsOfficial", "OFFICIAL"),
        ("IsAutomated", "AUTOMATED"),
    ],
    shown: &["Name", "Description", "StarCount", "IsOfficial"],
    key: "Name",
};

/// Characters of a description that are shown. Source: docker/cli, `command/registry/formatter_search.go`.
const SHOWN: usize = 45;

pub(super) async fn search(context: &Context, args: &SearchArgs) -> Outcome {
    let found: Option<Vec<Found>> = context
        .client
        .get("/images/search")
        .query("term", &args.term)
        .query_some("limit", args.limit)
        .query_some("filters", listing::filters(&args.filter.filter)?)
        .header("x-registry-auth", registry::auth_header(&args.term))
        .read()
        .await?;
    let mut found = found.unwrap_or_default();
    found.sort_by_key(|one| std::cmp::Reverse(one.star_count));
    let rows: Vec<Row> = found.iter().map(|one| row(one, args.no_trunc)).collect();
    LISTING.print(&context.printer, &rows, args.format.format.as_deref(), false)?;
    Ok(0)
}

fn row(one: &Found, whole: bool) -> Row {
    let description = one.description.replace(['\n', '\r'], " ");
    let yes = |flag: bool| if flag { "[OK]" } else { "" };
    Row::default()
        .with("Name", one.name.as_str())
        .with("Description", if whole { description } else { units::ellipsis(&description, SHOWN) })
        .with("StarCount", one.star_count.to_string())
        .with("IsOfficial", yes(one.is_official))
        .with("IsAutomated", yes(one.is_automated))
}
