//! What requests for images, builds and commits have in common.

use std::collections::BTreeMap;

use axum::body::Body;
use bireme_core::clock::now_nanos;
use bireme_engine::Event;
use bireme_image::{Platform, Reference};
use bytes::Bytes;
use futures::StreamExt as _;
use serde_json::Value;
use tokio_util::io::StreamReader;

use crate::app::App;
use crate::convert::image;
use crate::error::ApiError;
use crate::extract::Query;

/// The platform of a query: `os/arch[/variant]`, or as JSON since 1.48.
pub(super) fn platform(query: &Query) -> Result<Option<Platform>, ApiError> {
    let Some(text) = query.get("platform") else { return Ok(None) };
    let text = match serde_json::from_str::<BTreeMap<String, Value>>(text) {
        Ok(parts) => ["os", "architecture", "variant"]
            .iter()
            .filter_map(|part| parts.get(*part).and_then(Value::as_str))
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join("/"),
        Err(_) => text.to_owned(),
    };
    text.parse().map(Some).map_err(|error| ApiError::invalid(format!("{error}")))
}

/// Tells of something that happened to an image.
pub(super) fn emit(app: &App, action: &str, id: &str, name: &str) {
    app.engine.emit(Event {
        kind: "image",
        action: action.to_owned(),
        id: id.to_owned(),
        attributes: [("name".to_owned(), name.to_owned())].into(),
        time: now_nanos(),
    });
}

/// The bytes of a body as a reader, for archives.
pub(super) fn reader(body: Body) -> impl tokio::io::AsyncRead + Send + Unpin + 'static {
    let pieces = body.into_data_stream();
    StreamReader::new(pieces.map(|piece: Result<Bytes, axum::Error>| piece.map_err(std::io::Error::other)))
}

/// Names to give to what is built.
pub(super) fn tags<'a>(names: impl Iterator<Item = &'a str>) -> Result<Vec<Reference>, ApiError> {
    names.map(|name| image::pull_reference(name, "").map_err(ApiError::from)).collect()
}
