//! `bireme store`: the key-value stores that components leave behind.

use serde_json::Value;

use super::each::each;
use crate::cli::{StoreCommand, StoreLsArgs};
use crate::context::Context;
use crate::error::Outcome;
use crate::listing::{Listing, Row};
use crate::units;

const LISTING: Listing<'static> = Listing {
    columns: &[("Name", "STORES"), ("Size", "SIZE"), ("Changed", "CHANGED"), ("InUse", "IN USE")],
    shown: &["Name", "Size", "Changed", "InUse"],
    key: "Name",
};

pub(super) async fn store(context: &Context, command: StoreCommand) -> Outcome {
    match command {
        StoreCommand::Ls(args) => ls(context, &args).await,
        StoreCommand::Rm(args) => {
            each(context, &args.names, |name| context.client.delete(format!("/bireme/v1/stores/{name}")).done()).await
        }
        StoreCommand::Prune(args) => super::prune::stores(context, &args).await,
    }
}

async fn ls(context: &Context, args: &StoreLsArgs) -> Outcome {
    let answer: Value = context.client.get("/bireme/v1/stores").read().await?;
    let rows: Vec<Row> = answer
        .as_array()
        .into_iter()
        .flatten()
        .map(|store| {
            let text = |key: &str| store[key].as_str().unwrap_or_default();
            let changed = units::seconds(text("Changed")).map(units::ago).unwrap_or_default();
            Row::default()
                .with("Name", text("Name"))
                .with("Size", units::human_size(store["Size"].as_f64().unwrap_or(0.0)))
                .with("Changed", changed)
                .with("InUse", if store["InUse"].as_bool().unwrap_or_default() { "yes" } else { "no" })
        })
        .collect();
    LISTING.print(&context.printer, &rows, args.format.format.as_deref(), args.quiet)?;
    Ok(0)
}
