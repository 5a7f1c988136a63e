//! `GET /events`.

use bireme_engine::Event;
use serde_json::{Value, json};

use super::{Filters, time};

/// One event.
pub fn show(event: &Event) -> Value {
    let mut wire = json!({
        "Type": event.kind,
        "Action": event.action,
        "Actor": { "ID": event.id, "Attributes": event.attributes },
        "scope": "local",
        "time": time::seconds(event.time),
        "timeNano": event.time,
    });
    // The names of long ago, which docker-py and others still read.
    if matches!(event.kind, "container" | "image") {
        wire["status"] = json!(event.action);
        wire["id"] = json!(event.id);
        if let Some(image) = event.attributes.get("image").filter(|_| event.kind == "container") {
            wire["from"] = json!(image);
        }
    }
    wire
}

/// Whether `event` passes.
///
/// Source: `Filter.Include` of moby.
pub fn passes(event: &Event, filters: &Filters) -> bool {
    let named = |filter: &str, matches: &dyn Fn(&str) -> bool| {
        let values = filters.get(filter);
        values.is_empty() || values.iter().any(|value| matches(value))
    };
    // In the ID and at the beginning of the name, of whatever type the event is.
    let actor = |filter: &str| {
        named(filter, &|value| {
            event.id.starts_with(value) || event.attributes.get("name").is_some_and(|name| name.starts_with(value))
        })
    };
    named("event", &|value| event.action == value || event.action.split(':').next() == Some(value))
        && filters.admits("type", event.kind)
        && filters.admits("scope", "local")
        && ["config", "container", "daemon", "network", "node", "plugin", "secret", "service", "volume"]
            .iter()
            .all(|filter| actor(filter))
        && named("image", &|value| image_matches(event, value))
        && filters.labels_match(&event.attributes)
}

fn image_matches(event: &Event, wanted: &str) -> bool {
    let name = match event.kind {
        "image" => event.attributes.get("name").map_or(event.id.as_str(), String::as_str),
        "container" => event.attributes.get("image").map_or("", String::as_str),
        _ => return false,
    };
    let untagged = name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(name, |(name, _)| name);
    name == wanted || untagged == wanted || (event.kind == "image" && event.id == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            kind: "container",
            action: "exec_create: sh".to_owned(),
            id: "abc123".to_owned(),
            attributes: [("image", "busybox:1"), ("name", "web"), ("a", "b")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            time: 1_700_000_000_000_000_005,
        }
    }

    #[test]
    fn an_event_has_dockers_shape() {
        insta::assert_json_snapshot!(show(&event()));
    }

    fn check(filters: &str, expected: bool) {
        assert_eq!(passes(&event(), &Filters::any(filters).unwrap()), expected, "{filters}");
    }

    #[test]
    fn filters_narrow() {
        check("", true);
        check(r#"{"event":["exec_create"]}"#, true);
        check(r#"{"event":["start"]}"#, false);
        check(r#"{"container":["web"]}"#, true);
        check(r#"{"container":["abc"]}"#, true);
        check(r#"{"container":["other","web"],"type":["container"]}"#, true);
        check(r#"{"network":["we"]}"#, true);
        check(r#"{"network":["eb"]}"#, false);
        check(r#"{"image":["busybox"]}"#, true);
        check(r#"{"image":["redis"]}"#, false);
        check(r#"{"label":["a=b"]}"#, true);
        check(r#"{"label":["a=c"]}"#, false);
        check(r#"{"service":["x"]}"#, false);
    }
}
