//! `/containers/{id}/stats`.

use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use bireme_core::clock::now_nanos;
use bireme_core::{ErrorKind, Stats};
use serde_json::Value;

use super::{Answer, ok};
use crate::app::App;
use crate::convert::stats::{Sample, show, show_idle};
use crate::error::ApiError;
use crate::extract::Query;
use crate::stream;

/// How often a stream brings a reading, as in Docker.
const INTERVAL: Duration = Duration::from_secs(1);

pub(super) fn router() -> Router<App> {
    Router::new().route("/containers/{name}/stats", get(stats))
}

async fn stats(State(app): State<App>, Path(name): Path<String>, query: Query) -> Answer {
    let container = app.engine.inspect(&name)?;
    let id = container.id().to_owned();
    if !query.flag_or("stream", true) {
        let first = read(&app, &id).await?;
        if query.flag("one-shot") {
            return ok(&line(&app, &id, first.as_ref(), None));
        }
        tokio::time::sleep(INTERVAL).await;
        let second = read(&app, &id).await?;
        return ok(&line(&app, &id, second.as_ref(), first.as_ref()));
    }
    let (state, stop) = ((app.clone(), id, None::<Sample>, false), app.stop.clone());
    let lines = futures::stream::unfold(state, |(app, id, before, begun)| async move {
        if begun {
            tokio::time::sleep(INTERVAL).await;
        }
        // The stream ends with the workload's removal.
        let sample = read(&app, &id).await.ok()?;
        let line = line(&app, &id, sample.as_ref(), before.as_ref());
        Some((line, (app, id, sample, true)))
    });
    Ok(stream::json_lines(lines, &stop))
}

/// A reading, or `None` for a workload that does not run.
async fn read(app: &App, id: &str) -> Result<Option<Sample>, ApiError> {
    let stats: Stats = match app.engine.stats(id).await {
        Ok(stats) => stats,
        Err(error) if error.kind() == ErrorKind::Conflict => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(Some(Sample {
        stats,
        read: now_nanos(),
        system_cpu: app.host.system_cpu(),
        online_cpus: app.host.processors,
        machine_memory: app.host.memory,
    }))
}

fn line(app: &App, id: &str, sample: Option<&Sample>, before: Option<&Sample>) -> Value {
    let name = app.engine.inspect(id).map(|container| container.name).unwrap_or_default();
    match sample {
        Some(sample) => show(id, &name, sample, before),
        None => show_idle(id, &name),
    }
}
