//! `bireme store`: the key-value stores that components leave behind.

use bireme_api::v1::Store;
use bireme_core::size;

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
    let stores: Vec<Store> = context.client.get("/bireme/v1/stores").read().await?;
    let rows: Vec<Row> = stores
        .into_iter()
        .map(|store| {
            let changed = units::seconds(&store.changed).map(units::ago).unwrap_or_default();
            Row::default()
                .with("Name", store.name)
                .with("Size", size::decimal_short(store.size as f64))
                .with("Changed", changed)
                .with("InUse", if store.in_use { "yes" } else { "no" })
        })
        .collect();
    LISTING.print(&context.printer, &rows, args.format.format.as_deref(), args.quiet)?;
    Ok(0)
}
