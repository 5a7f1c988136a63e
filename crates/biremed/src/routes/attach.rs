//! `/containers/{id}/attach`.

use axum::Router;
use axum::extract::{Path, State};
use axum::response::IntoResponse as _;
use axum::routing::{get, post};
use bireme_engine::request::Attach;
use futures::StreamExt as _;
use http::HeaderMap;
use tokio::io::AsyncWriteExt as _;

use super::{Answer, logs};
use crate::app::App;
use crate::error::ApiError;
use crate::extract::Query;
use crate::hijack::{self, Client, Hijack, Only};
use crate::version::ApiVersion;

pub(super) fn router() -> Router<App> {
    Router::new().route("/containers/{name}/attach", post(attach)).route("/containers/{name}/attach/ws", get(websocket))
}

/// The keys that leave a terminal, from the query or Docker's own.
pub(super) fn detach_keys(keys: Option<&str>) -> Result<Vec<u8>, ApiError> {
    match keys {
        None => Ok(hijack::DEFAULT_DETACH.to_vec()),
        Some(keys) => Ok(hijack::parse_detach_keys(keys)?),
    }
}

async fn attach(
    State(app): State<App>,
    Path(name): Path<String>,
    version: ApiVersion,
    headers: HeaderMap,
    query: Query,
) -> Answer {
    let how = Attach {
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        logs: query.flag("logs"),
        stream: query.flag("stream"),
    };
    let keys = detach_keys(query.get("detachKeys"))?;
    let session = app.engine.attach(&name, how).await?;
    let tty = session.tty;
    let keys = if tty && how.stdin { keys } else { Vec::new() };
    let run = async move |mut client: Client| {
        if let Some(mut logged) = session.logged {
            while let Some(Ok(record)) = logged.next().await {
                if client.writer.write_all(&logs::piece(&record, tty, false, None)).await.is_err() {
                    return;
                }
            }
        }
        if !how.stream {
            return;
        }
        match session.stream.await {
            Ok(Some(stream)) => {
                let only = Only::of(how.stdout, how.stderr, tty);
                hijack::carry(client, stream, how.stdin, keys, only, std::future::ready(())).await;
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(error = %crate::error::chain(&error), "attach ended before the workload began")
            }
        }
    };
    Ok(Hijack::new(&headers, version, tty, run).into_response())
}

async fn websocket(Path(_): Path<String>) -> ApiError {
    ApiError::unsupported("attaching over a web socket is not offered: use POST /containers/{id}/attach")
}
