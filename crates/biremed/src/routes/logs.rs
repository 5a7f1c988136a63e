//! `/containers/{id}/logs`.

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use bireme_core::log_line::{Record, format_time};
use bireme_engine::request::LogQuery;
use bytes::Bytes;
use futures::StreamExt as _;

use super::Answer;
use crate::app::App;
use crate::error::ApiError;
use crate::extract::Query;
use crate::stream;
use crate::version::ApiVersion;

pub(super) fn router() -> Router<App> {
    Router::new().route("/containers/{name}/logs", get(logs))
}

async fn logs(State(app): State<App>, Path(name): Path<String>, version: ApiVersion, query: Query) -> Answer {
    let (stdout, stderr) = (query.flag("stdout"), query.flag("stderr"));
    if !stdout && !stderr {
        return Err(ApiError::invalid("Bad parameters: you must choose at least one stream"));
    }
    let tail = match query.get("tail") {
        None | Some("all") => None,
        // As Docker: what is no number, or is negative, means all.
        Some(text) => text.parse::<usize>().ok(),
    };
    let timestamps = query.flag("timestamps");
    let details = if query.flag("details") { Some(app.engine.log_details(&name)?) } else { None };
    let tty = app.engine.inspect(&name)?.config.spec.tty;
    let records = app
        .engine
        .logs(
            &name,
            LogQuery {
                stdout,
                stderr,
                follow: query.flag("follow"),
                since: query.time("since")?,
                until: query.time("until")?,
                tail,
            },
        )
        .await?;
    let kind = match tty || version < ApiVersion::MULTIPLEXED_TYPE {
        true => "application/vnd.docker.raw-stream",
        false => "application/vnd.docker.multiplexed-stream",
    };
    let pieces = records.map(move |record| match record {
        Ok(record) => piece(&record, tty, timestamps, details.as_deref()),
        Err(error) => {
            let message = format!("Error grabbing logs: {}\n", bireme_core::error::chain(&error));
            // Stream 3 is Docker's for errors of the system.
            if tty { Bytes::from(message) } else { stream::frame(3, message.as_bytes()) }
        }
    });
    Ok(stream::bytes(kind, pieces, &app.stop))
}

/// A record as it goes out: framed, or raw where a terminal has mixed the streams anyway.
pub(super) fn piece(record: &Record, tty: bool, timestamps: bool, details: Option<&str>) -> Bytes {
    let mut text = String::with_capacity(record.text.len() + 32);
    if timestamps {
        text.push_str(&format_time(record.time));
        text.push(' ');
    }
    if let Some(details) = details {
        text.push_str(details);
        text.push(' ');
    }
    text.push_str(&record.text);
    if tty { Bytes::from(text) } else { stream::frame(record.stream.number(), text.as_bytes()) }
}
