//! `bireme stop`, `restart`, `kill`, `pause`, `unpause`, `rename` and `wait`: one request each.

use anyhow::Context as _;

use super::each::each;
use crate::app;
use crate::attach;
use crate::cli::{KillArgs, PauseArgs, RenameArgs, RestartArgs, StopArgs, UnpauseArgs, WaitArgs};
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
    signal_all(context, "restart", &names, args.signal.as_deref(), args.timeout, args.names.is_empty()).await
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
    each(context, &args.names, |name| {
        context.client.post(format!("/containers/{name}/kill")).query_some("signal", signal).done()
    })
    .await
}

pub(super) async fn pause(context: &Context, args: &PauseArgs) -> Outcome {
    each(context, &args.names, |name| context.client.post(format!("/containers/{name}/pause")).done()).await
}

pub(super) async fn unpause(context: &Context, args: &UnpauseArgs) -> Outcome {
    each(context, &args.names, |name| context.client.post(format!("/containers/{name}/unpause")).done()).await
}

pub(super) async fn rename(context: &Context, args: &RenameArgs) -> Outcome {
    let new_name = args.new_name.trim();
    context.client.post(format!("/containers/{}/rename", args.name)).query("name", new_name).done().await?;
    Ok(0)
}

pub(super) async fn wait(context: &Context, args: &WaitArgs) -> Outcome {
    for name in &args.names {
        let exit = attach::begin_wait(&context.client, name, "not-running").await?;
        let code = exit.await.with_context(|| format!("waiting for {name}"))?;
        context.printer.line(code.to_string())?;
    }
    Ok(0)
}
