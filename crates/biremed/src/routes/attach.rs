//! `/containers/{id}/attach`.

use axum::Router;
use axum::extract::{Path, State};
use axum::response::IntoResponse as _;
use axum::routing::{get, post};
use bireme_core::BoxFuture;
use bireme_engine::AttachSession;
use bireme_engine::request::Attach;
use futures::StreamExt as _;
use http::{HeaderMap, Method};
use tokio::io::AsyncWriteExt as _;

use super::{Answer, logs};
use crate::app::App;
use crate::error::ApiError;
use crate::extract::Query;
use crate::hijack::{self, Client, Hijack, Only};
use crate::version::ApiVersion;
use crate::websocket;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/containers/{name}/attach", post(attach))
        .route("/containers/{name}/attach/ws", get(web_socket))
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
    let how = asked(&query);
    let keys = detach_keys(query.get("detachKeys"))?;
    let session = app.engine.attach(&name, how).await?;
    let tty = session.tty;
    Ok(Hijack::new(&headers, version, tty, serve(session, how, keys, tty)).into_response())
}

/// What of a workload a client asks for.
fn asked(query: &Query) -> Attach {
    Attach {
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        logs: query.flag("logs"),
        stream: query.flag("stream"),
    }
}

/// What a client gets of a session, its output raw or in frames.
fn serve(
    session: AttachSession,
    how: Attach,
    keys: Vec<u8>,
    raw: bool,
) -> impl FnOnce(Client) -> BoxFuture<'static, ()> + Send + 'static {
    move |client| Box::pin(run(session, how, keys, raw, client))
}

async fn run(session: AttachSession, how: Attach, keys: Vec<u8>, raw: bool, mut client: Client) {
    let tty = session.tty;
    let keys = if tty && how.stdin { keys } else { Vec::new() };
    if let Some(mut logged) = session.logged {
        while let Some(Ok(record)) = logged.next().await {
            if client.writer.write_all(&logs::piece(&record, raw, false, None)).await.is_err() {
                return;
            }
        }
    }
    if !how.stream {
        return;
    }
    match session.stream.await {
        Ok(Some(stream)) => {
            let only = Only::formed(how.stdout, how.stderr, tty, raw);
            hijack::carry(client, stream, how.stdin, keys, only, std::future::ready(())).await;
        }
        Ok(None) => {}
        Err(error) => {
            tracing::debug!(error = %crate::error::chain(&error), "attach ended before the workload began")
        }
    }
}

/// The same for browsers, whose output is always raw.
async fn web_socket(
    State(app): State<App>,
    Path(name): Path<String>,
    method: Method,
    headers: HeaderMap,
    query: Query,
) -> Answer {
    // Asked first, so that a name that is none has its status.
    app.engine.inspect(&name)?;
    let accept = websocket::accept(&method, &headers)?;
    let how = asked(&query);
    let keys = detach_keys(query.get("detachKeys"))?;
    let session = app.engine.attach(&name, how).await?;
    Ok(websocket::hijack(&accept, serve(session, how, keys, true)))
}
