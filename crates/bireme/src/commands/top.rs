//! `bireme top`.

use std::time::Duration;

use anyhow::Context as _;
use bireme_api::answers::container::Processes;
use futures::StreamExt;

use crate::cli::TopArgs;
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::listing;
use crate::top::{self, History};

pub(super) async fn top(context: &Context, args: &TopArgs) -> Outcome {
    if let Some((name, ps_args)) = args.name_and_args.split_first() {
        let names = crate::app::resolve_all(context, std::slice::from_ref(name)).await?;
        for (at, name) in names.iter().enumerate() {
            // Several containers of a service are told apart.
            if names.len() > 1 {
                context.printer.line(format!("{}{name}", if at == 0 { "" } else { "\n" }))?;
            }
            processes(context, name, ps_args).await?;
        }
        return Ok(0);
    }
    let filters = listing::filters(&args.filter)?;
    let interval = Duration::try_from_secs_f64(args.interval)
        .ok()
        .filter(|interval| *interval >= Duration::from_millis(100))
        .context("--interval: at least 0.1 seconds")?;
    if args.format.is_none() && !args.no_stream && context.printer.out_is_terminal {
        return top::live::run(context, filters.as_ref(), interval).await;
    }
    let mut samples = context.client.watch_workloads(filters.as_ref(), interval).await.map_err(only_here)?;
    let mut history = History::default();
    // Rates need two samples.
    for _ in 0..2 {
        let sample = samples.next().await.context("the engine sent no sample")??;
        history.push(std::time::Instant::now(), sample);
    }
    let rows = history.rows();
    match args.format.as_deref() {
        Some("json") => {
            for row in &rows {
                context.printer.line(row.to_json().to_string())?;
            }
        }
        _ => context.printer.raw(top::plain(&rows).as_bytes())?,
    }
    Ok(0)
}

/// Docker's own engine has no such list.
pub(crate) fn only_here(error: bireme_api::ClientError) -> anyhow::Error {
    if error.is_not_found() {
        return Failure::new("this engine does not tell what its workloads do")
            .hint("it is not Bireme; `bireme stats` works with every engine")
            .into();
    }
    error.into()
}

async fn processes(context: &Context, name: &str, ps_args: &[String]) -> anyhow::Result<()> {
    let mut call = context.client.get(format!("/containers/{name}/top"));
    if !ps_args.is_empty() {
        call = call.query("ps_args", ps_args.join(" "));
    }
    let Processes { titles, processes } = call.read().await?;
    let mut rows = vec![titles];
    rows.extend(processes);
    // Docker's columns are wider here than anywhere else.
    context.printer.raw(listing::align_to(&rows, 20).as_bytes())?;
    Ok(())
}
