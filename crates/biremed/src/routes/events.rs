//! `/events`.

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use bireme_core::clock::now_nanos;
use bireme_engine::EventQuery;
use futures::StreamExt as _;

use super::Answer;
use crate::app::App;
use crate::convert::{Filters, event};
use crate::error::ApiError;
use crate::extract::Query;
use crate::stream;

pub(super) fn router() -> Router<App> {
    Router::new().route("/events", get(events))
}

/// Past events, then live ones as they happen; the head goes out at once.
async fn events(State(app): State<App>, query: Query) -> Answer {
    // Docker takes filters of any name here.
    let filters = Filters::any(query.get("filters").unwrap_or_default())?;
    // Zero is a time here: for `since`, everything that is kept; for `until`, all of that and nothing to wait for.
    let time = |name: &str| match query.get(name) {
        Some("0") => Ok(Some(0)),
        _ => query.time(name),
    };
    let mut asked = EventQuery { since: time("since")?, until: time("until")? };
    if let (Some(since), Some(until)) = (asked.since, asked.until)
        && since > until
    {
        return Err(ApiError::invalid("`since` time cannot be after `until` time"));
    }
    if asked.until == Some(0) {
        asked.until = Some(now_nanos());
    }
    let lines = app.engine.events(asked).filter_map(move |event| {
        let line = event::passes(&event, &filters).then(|| event::show(&event));
        async { line }
    });
    Ok(stream::json_lines(lines, &app.stop))
}
