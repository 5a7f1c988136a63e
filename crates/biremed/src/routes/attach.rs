//! `/containers/{id}/attach`.

use axum::Router;
use axum::extract::{Path, State};
use axum::response::IntoResponse as _;
use axum::routing::{get, post};
use bireme_core::BoxFuture;
use bireme_core::detach_keys::DetachKeys;
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

/// The keys that leave a terminal, as a client names them. Of none, Docker's own.
pub(super) fn detach_keys(text: &str) -> Result<DetachKeys, ApiError> {
    DetachKeys::parse(text)
        .map_err(|_| ApiError::invalid(format!("Invalid escape keys ({text}) provided: write them as ctrl-p,ctrl-q")))
}

async fn attach(
    State(app): State<App>,
    Path(name): Path<String>,
    version: ApiVersion,
    headers: HeaderMap,
    query: Query,
) -> Answer {
    let how = asked(&query);
    let keys = detach_keys(query.get("detachKeys").unwrap_or_default())?;
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
    keys: DetachKeys,
    raw: bool,
) -> impl FnOnce(Client) -> BoxFuture<'static, ()> + Send + 'static {
    move |client| Box::pin(run(session, how, keys, raw, client))
}

async fn run(session: AttachSession, how: Attach, keys: DetachKeys, raw: bool, mut client: Client) {
    let tty = session.tty;
    let keys = if tty && how.stdin { keys } else { DetachKeys::none() };
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
            tracing::debug!(error = %bireme_core::error::chain(&error), "attach ended before the workload began")
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
    let keys = detach_keys(query.get("detachKeys").unwrap_or_default())?;
    let session = app.engine.attach(&name, how).await?;
    Ok(websocket::hijack(&accept, serve(session, how, keys, true)))
}
