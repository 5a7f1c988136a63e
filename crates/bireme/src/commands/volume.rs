//! `bireme volume`.

use bireme_api::answers::volume::{Volume, Volumes};
use bireme_api::models::VolumeCreateRequest;

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
    let created: Volume = context.client.post("/volumes/create").json(&request).read().await?;
    context.printer.line(created.name)?;
    Ok(0)
}

async fn ls(context: &Context, args: &VolumeLsArgs) -> Outcome {
    let call = context.client.get("/volumes").query_some("filters", listing::filters(&args.filter.filter)?);
    let Volumes { mut volumes } = call.read().await?;
    volumes.sort_by(|left, right| left.name.cmp(&right.name));
    let rows: Vec<Row> = volumes
        .into_iter()
        .map(|volume| {
            Row::default()
                .with("Driver", volume.driver)
                .with("Name", volume.name)
                .with("Scope", volume.scope)
                .with("Mountpoint", volume.mountpoint)
                .with("CreatedAt", volume.created_at)
                .with_labels(&volume.labels)
        })
        .collect();
    LISTING.print(&context.printer, &rows, args.format.format.as_deref(), args.quiet)?;
    Ok(0)
}
