//! `/events`.

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use bireme_engine::EventQuery;
use futures::StreamExt as _;

use super::Answer;
use crate::app::App;
use crate::convert::event;
use crate::extract::Query;
use crate::stream;

pub(super) fn router() -> Router<App> {
    Router::new().route("/events", get(events))
}

/// Past events, then live ones as they happen; the head goes out at once.
async fn events(State(app): State<App>, query: Query) -> Answer {
    let filters = query.filters(event::FILTERS)?;
    // Zero is a time here: everything that is kept.
    let since = match query.get("since") {
        Some("0") => Some(0),
        _ => query.time("since")?,
    };
    let asked = EventQuery { since, until: query.time("until")? };
    let lines = app.engine.events(asked).filter_map(move |event| {
        let line = event::passes(&event, &filters).then(|| event::show(&event));
        async { line }
    });
    Ok(stream::json_lines(lines, &app.stop))
}
