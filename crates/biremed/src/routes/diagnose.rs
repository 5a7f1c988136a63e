//! Looking into components that run.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use axum::routing::get;
use bireme_api::v1;
use bireme_core::error::one_line;
use bireme_core::{CoreDump, ErrorKind, Profile};
use serde_json::json;
use tokio_util::io::ReaderStream;

use super::{Answer, ok};
use crate::app::App;
use crate::error::ApiError;
use crate::extract::Query;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/bireme/v1/workloads/{name}/profile", get(profile))
        .route("/bireme/v1/workloads/{name}/core", get(core_dump))
}

/// The longest that is looked or waited.
const LONGEST: u64 = 600;
/// The most bytes of a sentence in a header.
const SENTENCE: usize = 1024;

/// How long is looked or waited; `usual` where nothing is said.
fn time(query: &Query, usual: u64) -> Result<Duration, ApiError> {
    let seconds = query.number::<u64>("seconds")?.unwrap_or(usual);
    if !(1..=LONGEST).contains(&seconds) {
        return Err(ApiError::invalid(format!("seconds is {seconds}: from 1 to {LONGEST}")));
    }
    Ok(Duration::from_secs(seconds))
}

async fn profile(State(app): State<App>, Path(name): Path<String>, query: Query) -> Answer {
    let Profile { interval, samples, stacks } = app.engine.profile(&name, time(&query, 5)?).await?;
    ok(&json!(v1::Profile { interval, samples, stacks }))
}

async fn core_dump(State(app): State<App>, Path(name): Path<String>, query: Query) -> Answer {
    let time = time(&query, 60)?;
    let Some((dump, file)) = app.engine.core_dump(&name, time).await? else {
        let text = format!("no instance of {name} trapped within {} s", time.as_secs());
        return Err(ApiError::new(ErrorKind::NotFound, text));
    };
    let CoreDump { reason, size } = dump;
    let reason = one_line(&reason, SENTENCE);
    if size == 0 {
        return Err(ApiError::new(ErrorKind::Conflict, format!("an instance of {name} trapped: {reason}")));
    }
    let mut response =
        Response::new(Body::from_stream(ReaderStream::with_capacity(tokio::fs::File::from_std(file), 64 << 10)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, size.into());
    let plain: String = reason.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').collect();
    if let Ok(reason) = HeaderValue::from_str(&plain) {
        headers.insert("Bireme-Reason", reason);
    }
    Ok(response)
}
