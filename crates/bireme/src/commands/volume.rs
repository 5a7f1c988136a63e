//! `bireme volume`.

use bireme_api::models::VolumeCreateRequest;
use serde_json::Value;

use super::each::each;
use crate::cli::{VolumeCommand, VolumeCreateArgs, VolumeLsArgs};
use crate::context::Context;
use crate::error::Outcome;
use crate::listing::{self, Listing, Row};
use crate::request;

const LISTING: Listing<'static> = Listing {
    columns: &[
        ("Driver", "DRIVER"),
        ("Name", "VOLUME NAME"),
        ("Scope", "SCOPE"),
        ("Mountpoint", "MOUNTPOINT"),
        ("Labels", "LABELS"),
        ("CreatedAt", "CREATED AT"),
    ],
    shown: &["Driver", "Name"],
    key: "Name",
};

pub(super) async fn volume(context: &Context, command: VolumeCommand) -> Outcome {
    match command {
        VolumeCommand::Create(args) => create(context, &args).await,
        VolumeCommand::Ls(args) => ls(context, &args).await,
        VolumeCommand::Inspect(args) => {
            super::inspect::of_kind(context, Some("volume"), &args.names, args.format.as_deref(), false).await
        }
        VolumeCommand::Rm(args) => {
            let force = u8::from(args.force);
            each(context, &args.names, |name| {
                context.client.delete(format!("/volumes/{name}")).query("force", force).done()
            })
            .await
        }
        VolumeCommand::Prune(args) => super::prune::volumes(context, &args).await,
    }
}

async fn create(context: &Context, args: &VolumeCreateArgs) -> Outcome {
    let request = VolumeCreateRequest {
        name: args.name.clone(),
        driver: Some(args.driver.clone()),
        driver_opts: Some(request::pairs("--opt", &args.opt)?),
        labels: Some(request::pairs("--label", &args.label)?),
        ..VolumeCreateRequest::default()
    };
    let created: Value = context.client.post("/volumes/create").json(&request).read().await?;
    context.printer.line(created["Name"].as_str().unwrap_or_default())?;
    Ok(0)
}

async fn ls(context: &Context, args: &VolumeLsArgs) -> Outcome {
    let call = context.client.get("/volumes").query_some("filters", listing::filters(&args.filter.filter)?);
    let answer: Value = call.read().await?;
    let mut volumes: Vec<&Value> = answer["Volumes"].as_array().into_iter().flatten().collect();
    volumes.sort_by(|left, right| left["Name"].as_str().cmp(&right["Name"].as_str()));
    let rows: Vec<Row> = volumes
        .iter()
        .map(|volume| {
            let text = |key: &str| volume[key].as_str().unwrap_or_default().to_owned();
            Row::default()
                .with("Driver", text("Driver"))
                .with("Name", text("Name"))
                .with("Scope", text("Scope"))
                .with("Mountpoint", text("Mountpoint"))
                .with("CreatedAt", text("CreatedAt"))
                .with_labels(&volume["Labels"])
        })
        .collect();
    LISTING.print(&context.printer, &rows, args.format.format.as_deref(), args.quiet)?;
    Ok(0)
}
