//! `prune` of containers, networks, volumes and key-value stores.

use std::io::{BufRead, IsTerminal};

use serde_json::{Value, json};

use crate::cli::{BuilderPruneArgs, PruneArgs, StorePruneArgs, SystemPruneArgs, VolumePruneArgs};
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::{listing, units};

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
pub(super) fn reclaimed(context: &Context, removed: &Value) -> Outcome {
    let bytes = removed["SpaceReclaimed"].as_f64().unwrap_or(0.0);
    context.printer.line(format!("Total reclaimed space: {}", units::human_total(bytes)))?;
    Ok(0)
}

fn list(context: &Context, heading: &str, names: &Value) -> anyhow::Result<()> {
    let names: Vec<&str> = names.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
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
    let removed: Value = call.read().await?;
    list(context, "Deleted Containers", &removed["ContainersDeleted"])?;
    reclaimed(context, &removed)
}

pub(super) async fn networks(context: &Context, args: &PruneArgs) -> Outcome {
    if !confirm(context, args.force, "all custom networks not used by at least one container")? {
        return Ok(0);
    }
    let call = context.client.post("/networks/prune").query_some("filters", listing::filters(&args.filter)?);
    let removed: Value = call.read().await?;
    list(context, "Deleted Networks", &removed["NetworksDeleted"])?;
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
    let removed: Value = context.client.post("/volumes/prune").query("filters", filters).read().await?;
    list(context, "Deleted Volumes", &removed["VolumesDeleted"])?;
    reclaimed(context, &removed)
}

pub(super) async fn stores(context: &Context, args: &StorePruneArgs) -> Outcome {
    if !confirm(context, args.force, "the key-value stores of all components that are gone")? {
        return Ok(0);
    }
    let removed: Value = context.client.post("/bireme/v1/stores/prune").read().await?;
    list(context, "Deleted Stores", &removed["StoresDeleted"])?;
    reclaimed(context, &removed)
}

pub(super) async fn builder(context: &Context, args: &BuilderPruneArgs) -> Outcome {
    let which = if args.all { "all build cache" } else { "all dangling build cache" };
    if !confirm(context, args.force, which)? {
        return Ok(0);
    }
    let removed: Value = context
        .client
        .post("/build/prune")
        .query("all", u8::from(args.all))
        .query_some("filters", listing::filters(&args.filter)?)
        .query_some("keep-storage", args.keep_storage)
        .read()
        .await?;
    list(context, "Deleted build cache objects", &removed["CachesDeleted"])?;
    reclaimed(context, &removed)
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
    let mut bytes = 0.0;
    let mut take = |removed: &Value| bytes += removed["SpaceReclaimed"].as_f64().unwrap_or(0.0);

    let removed: Value = post("/containers/prune", filters.clone()).read().await?;
    list(context, "Deleted Containers", &removed["ContainersDeleted"])?;
    take(&removed);
    let removed: Value = post("/networks/prune", filters.clone()).read().await?;
    list(context, "Deleted Networks", &removed["NetworksDeleted"])?;
    if args.volumes {
        let removed: Value = post("/volumes/prune", filters.clone()).read().await?;
        list(context, "Deleted Volumes", &removed["VolumesDeleted"])?;
        take(&removed);
    }
    let mut of_images = filters.clone().unwrap_or_else(|| json!({}));
    of_images["dangling"] = json!([(!args.all).to_string()]);
    let removed: Value = post("/images/prune", Some(of_images)).read().await?;
    deleted(context, &removed)?;
    take(&removed);
    let removed: Value = post("/build/prune", filters).query("all", u8::from(args.all)).read().await?;
    list(context, "Deleted build cache objects", &removed["CachesDeleted"])?;
    take(&removed);
    reclaimed(context, &json!({"SpaceReclaimed": bytes}))
}

/// The names and ids that a prune of images took away.
pub(super) fn deleted(context: &Context, removed: &Value) -> anyhow::Result<()> {
    let mut said = false;
    for one in removed["ImagesDeleted"].as_array().into_iter().flatten() {
        if !said {
            context.printer.line("Deleted Images:")?;
            said = true;
        }
        for (key, word) in [("Untagged", "untagged"), ("Deleted", "deleted")] {
            if let Some(name) = one[key].as_str() {
                context.printer.line(format!("{word}: {name}"))?;
            }
        }
    }
    if said {
        context.printer.line("")?;
    }
    Ok(())
}
