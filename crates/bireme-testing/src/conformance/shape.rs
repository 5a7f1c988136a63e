//! Two engines' answers to the same request, compared key by key.
//!
//! What differs from run to run (IDs, times, the case's own names) is put into one form first. The reference engine's
//! answers are kept as `tests/api/shapes/*.json`, so that a run against one engine alone compares too.

use std::collections::BTreeMap;

use serde_json::Value;

use super::place::type_of;

/// `value` with its IDs, times and the case's own names in one form.
pub(crate) fn settle(value: &Value, own: &str) -> Value {
    match value {
        Value::Object(map) => {
            Value::Object(map.iter().map(|(key, value)| (text(key, own), settle(value, own))).collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(|value| settle(value, own)).collect()),
        Value::String(string) => Value::String(text(string, own)),
        other => other.clone(),
    }
}

fn text(string: &str, own: &str) -> String {
    let mut out = String::new();
    // Whole words only: what is neither a digit nor a letter ends one.
    let mut word = String::new();
    for c in string.replace(own, "<own>").chars().chain([' ']) {
        if c.is_ascii_alphanumeric() {
            word.push(c);
            continue;
        }
        let hex = word.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        out.push_str(match word.len() {
            64 if hex => "<id>",
            12 if hex => "<short id>",
            _ => &word,
        });
        word.clear();
        out.push(c);
    }
    out.pop();
    if is_time(&out) { "<time>".to_owned() } else { out }
}

fn is_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 20
        && !text.starts_with("0001-01-01")
        && bytes[4] == b'-'
        && bytes[7] == b'-'
        && bytes[10] == b'T'
        && bytes[..4].iter().all(u8::is_ascii_digit)
}

/// `value` with nothing but types at the places in `varies`, so that what is kept changes only when Docker does.
pub(crate) fn blank(value: &Value, varies: &[String]) -> Value {
    blank_at(value, String::new(), varies)
}

fn blank_at(value: &Value, at: String, varies: &[String]) -> Value {
    let free = is_free(&at, varies);
    match value {
        Value::Object(_) if free => Value::Object(serde_json::Map::new()),
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| (key.clone(), blank_at(value, format!("{at}.{key}"), varies)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::Array(list) if free => list.first().map(|first| blank_at(first, at, varies)).into_iter().collect(),
        Value::Array(list) => {
            let each = list.iter().enumerate();
            each.map(|(index, value)| blank_at(value, format!("{at}[{index}]"), varies)).collect()
        }
        Value::String(_) if free => Value::String("varies".to_owned()),
        Value::Number(_) if free => Value::from(0),
        Value::Bool(_) if free => Value::Bool(false),
        other => other.clone(),
    }
}

fn is_free(at: &str, varies: &[String]) -> bool {
    varies.iter().any(|place| place == at || super::place::like(place, at))
}

/// Where `ours` is not as `theirs`, with a sentence each. At the places in `varies` types alone are compared.
pub(crate) fn differences(theirs: &Value, ours: &Value, varies: &[String]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    walk(theirs, ours, String::new(), varies, &mut found);
    found
}

fn walk(theirs: &Value, ours: &Value, at: String, varies: &[String], found: &mut BTreeMap<String, String>) {
    let free = is_free(&at, varies);
    let mut tell = |at: &str, what: String| {
        found.insert(at.to_owned(), what);
    };
    match (theirs, ours) {
        (Value::Object(theirs), Value::Object(ours)) => {
            if free {
                return;
            }
            for (key, value) in theirs {
                let at = format!("{at}.{key}");
                match ours.get(key) {
                    Some(ours) => walk(value, ours, at, varies, found),
                    None => {
                        found.insert(at, format!("is missing; Docker has {}", brief(value)));
                    }
                }
            }
            for (key, value) in ours.iter().filter(|(key, _)| !theirs.contains_key(*key)) {
                found.insert(format!("{at}.{key}"), format!("is {}; Docker has no such key", brief(value)));
            }
        }
        (Value::Array(theirs), Value::Array(ours)) => {
            if free {
                if let (Some(theirs), Some(ours)) = (theirs.first(), ours.first()) {
                    if type_of(theirs) != type_of(ours) {
                        tell(&at, format!("holds {}s; Docker's {}s", type_of(ours), type_of(theirs)));
                    }
                }
                return;
            }
            if theirs.len() != ours.len() {
                tell(
                    &at,
                    format!(
                        "is {}; Docker has {}",
                        brief(&Value::Array(ours.clone())),
                        brief(&Value::Array(theirs.clone()))
                    ),
                );
            }
            for (index, (theirs, ours)) in theirs.iter().zip(ours).enumerate() {
                walk(theirs, ours, format!("{at}[{index}]"), varies, found);
            }
        }
        (theirs, ours) if type_of(theirs) != type_of(ours) => {
            tell(&at, format!("is {}; Docker has {}", brief(ours), brief(theirs)));
        }
        (theirs, ours) if !free && theirs != ours => {
            tell(&at, format!("is {}; Docker has {}", brief(ours), brief(theirs)));
        }
        _ => {}
    }
}

fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(200) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_differs_from_run_to_run_is_put_into_one_form() {
        let id = "0123456789abcdef".repeat(4);
        let value =
            json!({"Id": id, "Names": ["/case7a"], "At": "2026-11-21T15:00:00Z", "Never": "0001-01-01T00:00:00Z"});
        assert_eq!(
            settle(&value, "case7"),
            json!({"Id": "<id>", "Names": ["/<own>a"], "At": "<time>", "Never": "0001-01-01T00:00:00Z"})
        );
    }

    #[test]
    fn every_difference_is_named() {
        let theirs = json!({"a": 1, "b": "x", "c": [1], "d": null, "e": {"f": 5}});
        let ours = json!({"a": 2, "b": 3, "c": [1, 2], "d": null, "g": true, "e": {"f": 6}});
        let found = differences(&theirs, &ours, &[".e.f".to_owned()]);
        assert_eq!(found.keys().collect::<Vec<_>>(), [".a", ".b", ".c", ".g"]);
    }
}
