//! `bireme history`.

use serde_json::Value;

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
    let steps: Vec<Value> = context.client.get(format!("/images/{}/history", args.image)).read().await?;
    let rows: Vec<Row> = steps.iter().map(|step| row(step, args.no_trunc)).collect();
    LISTING.print(&context.printer, &rows, args.format.format.as_deref(), args.quiet)?;
    Ok(0)
}

fn row(step: &Value, whole: bool) -> Row {
    let text = |field: &str| step[field].as_str().unwrap_or_default().to_owned();
    let (id, by) = (text("Id"), text("CreatedBy").replace('\t', " "));
    let created = step["Created"].as_i64().unwrap_or(0);
    let shortened = match by.char_indices().nth(SHOWN - 1) {
        Some((at, _)) if !whole && by.chars().count() > SHOWN => format!("{}…", &by[..at]),
        _ => by,
    };
    Row::default()
        .with("ID", if whole || id == "<missing>" { id } else { units::short_id(&id) })
        .with("CreatedSince", if created <= 0 { "N/A".to_owned() } else { units::ago(created) })
        .with("CreatedAt", units::local_time(created))
        .with("CreatedBy", shortened)
        .with("Size", units::human_size(step["Size"].as_f64().unwrap_or(0.0)))
        .with("Comment", text("Comment"))
}
