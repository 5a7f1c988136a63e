//! `bireme stop`, `restart`, `kill`, `pause`, `unpause`, `rename` and `wait`: one request each.

use std::collections::BTreeSet;

use anyhow::Context as _;

use super::each::each;
use crate::app;
use crate::attach;
use crate::cli::{AppArgs, KillArgs, PauseArgs, RenameArgs, RestartArgs, StopArgs, UnpauseArgs, WaitArgs};
use crate::context::Context;
use crate::error::Outcome;

pub(super) async fn stop(context: &Context, args: &StopArgs) -> Outcome {
    let mut names = app::targets(context, &args.names, &args.project).await?;
    if args.names.is_empty() {
        // What depends on others stops before them.
        names.reverse();
    }
    signal_all(context, "stop", &names, args.signal.as_deref(), args.timeout, args.names.is_empty()).await
}

pub(super) async fn restart(context: &Context, args: &RestartArgs) -> Outcome {
    let names = app::targets(context, &args.names, &args.project).await?;
    let in_order = args.names.is_empty();
    // Who shares the namespaces of what is restarted stands on ones that are gone, and ends with them or goes on.
    let app = AppArgs::from(&args.project).over(&context.app);
    let after = if in_order { Vec::new() } else { followers(context, &names, &app).await? };
    let done = signal_all(context, "restart", &names, args.signal.as_deref(), args.timeout, in_order).await?;
    let followed = signal_all(context, "restart", &after, args.signal.as_deref(), args.timeout, true).await?;
    Ok(done.max(followed))
}

/// The running containers of the app here that are restarted when those called `restarted` are.
async fn followers(context: &Context, restarted: &[String], app: &AppArgs) -> anyhow::Result<Vec<String>> {
    let project = match app::try_load(app) {
        Ok(Some(project)) => project,
        Ok(None) => return Ok(Vec::new()),
        // A broken file must not stop `bireme restart NAME`, unless it was asked for.
        Err(error) if app.names_one() => return Err(error),
        Err(_) => return Ok(Vec::new()),
    };
    let members = app::members(context, &project, &[]).await?;
    let services: BTreeSet<String> = members
        .iter()
        .filter(|member| restarted.contains(&member.name) || restarted.contains(&member.id))
        .map(|member| member.service.clone())
        .collect();
    let after = project.restart_after(&services)?;
    Ok(after
        .iter()
        .flat_map(|service| members.iter().filter(move |member| member.service == *service && member.running))
        .map(|member| member.name.clone())
        .collect())
}

async fn signal_all(
    context: &Context,
    verb: &str,
    names: &[String],
    signal: Option<&str>,
    timeout: Option<i64>,
    in_order: bool,
) -> Outcome {
    let work = |name: String| {
        context
            .client
            .post(format!("/containers/{name}/{verb}"))
            .query_some("t", timeout)
            .query_some("signal", signal)
            .done()
    };
    if in_order {
        for name in names {
            each(context, std::slice::from_ref(name), work).await?;
        }
        return Ok(0);
    }
    each(context, names, work).await
}

pub(super) async fn kill(context: &Context, args: &KillArgs) -> Outcome {
    let signal = args.signal.as_deref();
    let names = app::resolve_all(context, &args.names).await?;
    each(context, &names, |name| {
        context.client.post(format!("/containers/{name}/kill")).query_some("signal", signal).done()
    })
    .await
}

pub(super) async fn pause(context: &Context, args: &PauseArgs) -> Outcome {
    let names = app::resolve_all(context, &args.names).await?;
    each(context, &names, |name| context.client.post(format!("/containers/{name}/pause")).done()).await
}

pub(super) async fn unpause(context: &Context, args: &UnpauseArgs) -> Outcome {
    let names = app::resolve_all(context, &args.names).await?;
    each(context, &names, |name| context.client.post(format!("/containers/{name}/unpause")).done()).await
}

pub(super) async fn rename(context: &Context, args: &RenameArgs) -> Outcome {
    let new_name = args.new_name.trim();
    let name = app::resolve(context, &args.name).await?;
    context.client.post(format!("/containers/{name}/rename")).query("name", new_name).done().await?;
    Ok(0)
}

pub(super) async fn wait(context: &Context, args: &WaitArgs) -> Outcome {
    for name in &app::resolve_all(context, &args.names).await? {
        let exit = attach::begin_wait(&context.client, name, "not-running").await?;
        let code = exit.await.with_context(|| format!("waiting for {name}"))?;
        context.printer.line(code.to_string())?;
    }
    Ok(0)
}
