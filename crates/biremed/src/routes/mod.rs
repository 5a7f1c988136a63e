//! One file per resource. A handler reads its request, asks the engine, and puts the answer on the wire; it decides
//! nothing.

mod archive;
mod attach;
mod bireme;
mod build;
mod buildkit;
mod commit;
mod containers;
mod diagnose;
mod events;
mod exec;
mod image_parts;
mod images;
mod logs;
mod networks;
mod refused;
mod stats;
mod system;
mod volumes;

use axum::Router;
use axum::response::{IntoResponse as _, Response};
use bireme_core::clock::now_nanos;
use bireme_engine::Event;
use http::{HeaderValue, StatusCode, header};
use serde_json::Value;

use crate::app::App;
use crate::error::ApiError;

/// What a handler answers.
type Answer = Result<Response, ApiError>;

/// Every path that is served, without version prefix.
pub fn router(app: App) -> Router {
    Router::new()
        .merge(system::router())
        .merge(containers::router())
        .merge(logs::router())
        .merge(stats::router())
        .merge(archive::router())
        .merge(attach::router())
        .merge(exec::router())
        .merge(images::router())
        .merge(build::router())
        .merge(buildkit::router(app.clone()))
        .merge(commit::router())
        .merge(networks::router())
        .merge(volumes::router())
        .merge(events::router())
        .merge(bireme::router())
        .merge(diagnose::router())
        .merge(refused::router())
        // dockerd does not tell a wrong method from a wrong path.
        .method_not_allowed_fallback(async || ApiError::no_such_page())
        .fallback(async || ApiError::no_such_page())
        .with_state(app)
}

/// A JSON answer, with the line end that Go's encoder writes.
fn json(status: StatusCode, value: &Value) -> Response {
    let mut response = (status, format!("{value}\n")).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// `200` with JSON.
fn ok(value: &Value) -> Answer {
    Ok(json(StatusCode::OK, value))
}

/// `204`.
fn done() -> Answer {
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Tells that what was unused of a kind is gone.
fn pruned(app: &App, kind: &'static str, freed: u64) {
    let attributes = [("reclaimed".to_owned(), freed.to_string())].into();
    app.engine.emit(Event { kind, action: "prune".to_owned(), id: String::new(), attributes, time: now_nanos() });
}
