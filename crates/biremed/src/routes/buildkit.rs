//! `/grpc` and `/session`: the connections of BuildKit's clients.

use std::io::Cursor;

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse as _;
use axum::routing::post;
use bireme_buildkit::{Server, SessionHeaders};
use http::{HeaderMap, header};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

use super::Answer;
use crate::app::App;
use crate::buildkit;
use crate::error::ApiError;
use crate::hijack::{Client, Hijack};

pub(super) fn router(app: App) -> Router<App> {
    let server = buildkit::server(app);
    let sessions = server.clone();
    Router::new()
        .route("/grpc", post(async move |State(app): State<App>, headers: HeaderMap| grpc(app, server, &headers)))
        .route(
            "/session",
            post(async move |State(app): State<App>, headers: HeaderMap| session(app, sessions, &headers)),
        )
}

/// Source: moby, `api/server/router/grpc`.
fn grpc(app: App, server: Server, headers: &HeaderMap) -> Answer {
    upgraded(headers, "/grpc")?;
    Ok(Hijack::with_head(head(), async move |client| {
        let ended = tokio::select! {
            ended = server.serve(connection(client)) => ended,
            () = app.stop.cancelled() => return,
        };
        if let Err(error) = ended {
            tracing::debug!(error = %bireme_core::error::chain(&error), "a connection of a BuildKit client broke off");
        }
    })
    .into_response())
}

/// Source: moby, `api/server/router/session`.
fn session(app: App, server: Server, headers: &HeaderMap) -> Answer {
    upgraded(headers, "/session")?;
    let said = SessionHeaders::from_http(headers).map_err(|error| ApiError::invalid(error.to_string()))?;
    Ok(Hijack::with_head(head(), async move |client| {
        let ended = tokio::select! {
            ended = server.sessions().attach(said, connection(client)) => ended,
            () = app.stop.cancelled() => return,
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a session of a BuildKit client broke off");
        }
    })
    .into_response())
}

fn upgraded(headers: &HeaderMap, path: &str) -> Result<(), ApiError> {
    let h2c = headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"h2c"));
    match h2c {
        true => Ok(()),
        false => Err(ApiError::invalid(format!("{path} is a connection of gRPC: ask to upgrade to h2c"))),
    }
}

fn head() -> String {
    "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n".to_owned()
}

/// A connection that was taken over, beginning with what its client had sent ahead.
fn connection(client: Client) -> impl AsyncRead + AsyncWrite + Unpin + Send + 'static {
    let Client { reader, writer, sent_ahead } = client;
    tokio::io::join(Cursor::new(sent_ahead).chain(reader), writer)
}
