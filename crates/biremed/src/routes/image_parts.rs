//! What requests for images, builds and commits have in common.

use std::collections::{BTreeMap, BTreeSet};

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

/// The platforms that one build makes images for, under the same names. Several, with commas between them, are an addition
/// of ours: Docker's classic builder knows one.
pub(super) fn platforms(query: &Query) -> Result<Vec<Platform>, ApiError> {
    let several = query.get("platform").filter(|text| !text.starts_with('{') && text.contains(','));
    let Some(text) = several else { return Ok(platform(query)?.into_iter().collect()) };
    let platforms: BTreeSet<&str> = text.split(',').map(str::trim).collect();
    if platforms.len() > MOST_PLATFORMS {
        return Err(ApiError::invalid(format!(
            "{} platforms in one build are too many: {MOST_PLATFORMS} are the most, build the others under another name",
            platforms.len()
        )));
    }
    let mut listed = Vec::new();
    for one in text.split(',').map(str::trim) {
        let one: Platform = one.parse().map_err(|error| ApiError::invalid(format!("{error}")))?;
        if !listed.contains(&one) {
            listed.push(one);
        }
    }
    Ok(listed)
}

/// Of one build: more than there are architectures that anybody builds for.
const MOST_PLATFORMS: usize = 32;

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
