//! `bireme inspect`, of every kind of thing.

use bireme_api::ClientError;
use bytes::Bytes;
use serde_json::Value;

use crate::cli::InspectWorldArgs;
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::listing;

/// Where each kind is asked for, in the order in which a name is looked up.
const KINDS: &[(&str, &str, &str)] = &[
    ("container", "/containers/", "/json"),
    ("image", "/images/", "/json"),
    ("network", "/networks/", ""),
    ("volume", "/volumes/", ""),
];

pub(super) async fn inspect(context: &Context, args: &InspectWorldArgs) -> Outcome {
    let InspectWorldArgs { inspect: args, world } = args;
    if *world {
        return super::world::worlds(context, args.kind.as_deref(), &args.names).await;
    }
    of_kind(context, args.kind.as_deref(), &args.names, args.format.as_deref(), args.size).await
}

/// Prints what the engine says of each name, as a list or through a template.
pub(super) async fn of_kind(
    context: &Context,
    kind: Option<&str>,
    names: &[String],
    format: Option<&str>,
    size: bool,
) -> Outcome {
    let template = match format {
        None | Some("json") => None,
        Some(format) => Some(listing::parse(format)?),
    };
    let mut found = Vec::new();
    let mut failures = Vec::new();
    let names = if kind.is_none_or(|kind| kind == "container") {
        crate::app::resolve_all(context, names).await?
    } else {
        names.to_vec()
    };
    for name in &names {
        match look_up(context, kind, name, size).await {
            Ok(bytes) => match &template {
                Some(template) => {
                    let value: Value = serde_json::from_slice(&bytes)?;
                    match template.render(&value) {
                        Ok(text) => context.printer.line(text)?,
                        Err(error) => failures.push(format!("{name}: {error}")),
                    }
                }
                None => found.push(String::from_utf8_lossy(&bytes).trim().to_owned()),
            },
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    if template.is_none() {
        let list = format!("[{}]", found.join(","));
        context.printer.line(if format == Some("json") { list } else { listing::indent(&list, 4) })?;
    }
    if failures.is_empty() { Ok(0) } else { Err(Failure::new(failures.join("\n")).into()) }
}

async fn look_up(context: &Context, kind: Option<&str>, name: &str, size: bool) -> anyhow::Result<Bytes> {
    for (known, before, after) in KINDS.iter().filter(|(known, ..)| kind.is_none_or(|kind| kind == *known)) {
        let mut call = context.client.get(format!("{before}{name}{after}"));
        if size && *known == "container" {
            call = call.query("size", 1);
        }
        match call.bytes().await {
            Err(error) if error.is_not_found() && kind.is_none() => {}
            // A name that is malformed for one kind may be another's.
            Err(ClientError::Refused { status, .. }) if status == http::StatusCode::BAD_REQUEST && kind.is_none() => {}
            answer => return Ok(answer?),
        }
    }
    Err(Failure::new(format!("No such object: {name}")).into())
}
