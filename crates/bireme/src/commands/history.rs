//! `bireme history`.

use bireme_api::answers::image::HistoryStep;
use bireme_core::size;

use crate::cli::HistoryArgs;
use crate::context::Context;
use crate::error::Outcome;
use crate::listing::{Listing, Row};
use crate::units;

const LISTING: Listing<'static> = Listing {
    columns: &[
        ("ID", "IMAGE"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
        ("Size", "SIZE"),
        ("Comment", "COMMENT"),
    ],
    shown: &["ID", "CreatedSince", "CreatedBy", "Size", "Comment"],
    key: "ID",
};

/// Characters of a command that are shown. Source: docker/cli, `command/formatter/history`.
const SHOWN: usize = 45;

pub(super) async fn history(context: &Context, args: &HistoryArgs) -> Outcome {
    let steps: Vec<HistoryStep> = context.client.get(format!("/images/{}/history", args.image)).read().await?;
    let rows: Vec<Row> = steps.iter().map(|step| row(step, args.no_trunc)).collect();
    LISTING.print(&context.printer, &rows, args.format.format.as_deref(), args.quiet)?;
    Ok(0)
}

fn row(step: &HistoryStep, whole: bool) -> Row {
    let (id, created) = (&step.id, step.created);
    let by = step.created_by.replace('\t', " ");
    let shortened = match by.char_indices().nth(SHOWN - 1) {
        Some((at, _)) if !whole && by.chars().count() > SHOWN => format!("{}…", &by[..at]),
        _ => by,
    };
    Row::default()
        .with("ID", if whole || id == "<missing>" { id.clone() } else { units::short_id(id) })
        .with("CreatedSince", if created <= 0 { "N/A".to_owned() } else { units::ago(created) })
        .with("CreatedAt", units::local_time(created))
        .with("CreatedBy", shortened)
        .with("Size", size::decimal_short(step.size as f64))
        .with("Comment", step.comment.as_str())
}
