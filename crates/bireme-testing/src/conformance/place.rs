//! Places in a JSON value: `.a[0]["b.c"][*].d`.

use serde_json::Value;

/// The value at a place; with `[*]`, the array of all that are there. `None` when nothing is.
pub(crate) fn look<'a>(value: &'a Value, place: &str) -> Result<Option<std::borrow::Cow<'a, Value>>, String> {
    use std::borrow::Cow;
    let mut here = value;
    let mut rest = place;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("[*]") {
            let each: Vec<&Value> = match here {
                Value::Array(list) => list.iter().collect(),
                Value::Object(map) => map.values().collect(),
                _ => return Ok(None),
            };
            let mut all = Vec::new();
            for one in each {
                if let Some(found) = look(one, after)? {
                    all.push(found.into_owned());
                }
            }
            return Ok(Some(Cow::Owned(Value::Array(all))));
        }
        let next;
        if let Some(after) = rest.strip_prefix("[\"") {
            let (key, after) = after.split_once("\"]").ok_or_else(|| format!("{place}: `[\"` without `\"]`"))?;
            (next, rest) = (here.get(key), after);
        } else if let Some(after) = rest.strip_prefix('[') {
            let (index, after) = after.split_once(']').ok_or_else(|| format!("{place}: `[` without `]`"))?;
            let index: usize = index.parse().map_err(|_| format!("{place}: {index} is no index"))?;
            (next, rest) = (here.get(index), after);
        } else if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            let (key, after) = after.split_at(end);
            (next, rest) = (if key.is_empty() { Some(here) } else { here.get(key) }, after);
        } else {
            return Err(format!("{place}: a place begins with `.` or `[`"));
        }
        match next {
            Some(next) => here = next,
            None => return Ok(None),
        }
    }
    Ok(Some(Cow::Borrowed(here)))
}

/// Whether `text` has the form of `pattern`, in which `*` stands for anything.
pub(crate) fn like(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(first) = parts.next() else { return text.is_empty() };
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

pub(crate) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use serde_json::json;

    use super::*;

    #[test]
    fn places_are_found() {
        let value = json!({"a": [{"b": 1}, {"b": 2}], "c.d": {"e": null}});
        let at = |place: &str| look(&value, place).unwrap().map(std::borrow::Cow::into_owned);
        assert_eq!(at(".a[1].b"), Some(json!(2)));
        assert_eq!(at(".a[*].b"), Some(json!([1, 2])));
        assert_eq!(at(r#".["c.d"].e"#), Some(Value::Null));
        assert_eq!(at(".a[2]"), None);
        assert_eq!(at("."), Some(value.clone()));
        assert!(look(&value, "a").is_err());
    }

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, text, expected) in [
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*a", "a", false),
            ("*b*", "abc", true),
            ("abc", "abcd", false),
            ("*x*y*", "aybx", false),
        ] {
            assert_eq!(like(pattern, text), expected, "{pattern} {text}");
        }
    }
}
