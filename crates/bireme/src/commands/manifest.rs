//! `bireme manifest`: what registries have, read without pulling.

use serde_json::Value;

use crate::cli::{ManifestCommand, ManifestInspectArgs, ManifestReferrersArgs};
use crate::context::Context;
use crate::error::Outcome;
use crate::{listing, registry};

pub(super) async fn manifest(context: &Context, command: ManifestCommand) -> Outcome {
    match command {
        ManifestCommand::Inspect(args) => inspect(context, &args).await,
        ManifestCommand::Referrers(args) => referrers(context, &args).await,
    }
}

async fn inspect(context: &Context, args: &ManifestInspectArgs) -> Outcome {
    let name = registry::with_tag(&args.image);
    let auth = registry::auth_header(&name);
    let manifest = context.client.get(format!("/bireme/v1/manifests/{name}"));
    let manifest = manifest.header("x-registry-auth", auth.as_str()).bytes().await?;
    let text = String::from_utf8_lossy(&manifest);
    if !args.verbose {
        // As it is, byte by byte: its digest is that of these bytes.
        context.printer.line(text.trim_end_matches('\n'))?;
        return Ok(0);
    }
    let about = context.client.get(format!("/distribution/{name}/json"));
    let about: Value = about.header("x-registry-auth", auth).read().await?;
    let whole = format!("{{\"Ref\":{},\"Descriptor\":{},\"Raw\":{text}}}", Value::from(name), about["Descriptor"]);
    context.printer.line(listing::indent(&whole, 2))?;
    Ok(0)
}

async fn referrers(context: &Context, args: &ManifestReferrersArgs) -> Outcome {
    let name = registry::with_tag(&args.image);
    let call = context.client.get(format!("/bireme/v1/referrers/{name}"));
    let call = call.query_some("artifactType", args.artifact_type.as_deref());
    let found: Value = call.header("x-registry-auth", registry::auth_header(&name)).read().await?;
    context.printer.line(listing::indent(&found.to_string(), 2))?;
    Ok(0)
}
