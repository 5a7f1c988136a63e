//! The values of a Compose file: strings, numbers, sizes, durations, words, and lists and mappings of them.
//!
//! Values in quotes may be numbers and booleans too, as with Compose; where a string is asked for, a bare number is
//! refused, since YAML may have changed it (`08`, `1e3`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bireme_core::nearest::nearest;

use super::Result;
use crate::error::ComposeError;
use crate::scalar::{parse_bytes, parse_duration, split_command};
use crate::yaml::{Map, Node, Value};

pub(crate) fn wrong(node: &Node, path: &str, expected: &str) -> ComposeError {
    node.invalid(path, format!("must be {expected}, but is {}", node.kind()))
}

pub(crate) fn string(node: &Node, path: &str) -> Result<String> {
    node.as_str().map(str::to_owned).ok_or_else(|| wrong(node, path, "a string (put it in quotes)"))
}

/// A string, number or boolean, as text.
pub(crate) fn scalar(node: &Node, path: &str) -> Result<String> {
    node.scalar().ok_or_else(|| wrong(node, path, "a single value"))
}

pub(crate) fn boolean(node: &Node, path: &str) -> Result<bool> {
    match &node.value {
        Value::Bool(value) => Ok(*value),
        Value::Text(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "y" | "yes" | "on" | "1" => Ok(true),
            "false" | "n" | "no" | "off" | "0" => Ok(false),
            _ => Err(node.invalid(path, format!("must be true or false, but is {text:?}"))),
        },
        _ => Err(wrong(node, path, "true or false")),
    }
}

pub(crate) fn integer(node: &Node, path: &str) -> Result<i64> {
    match &node.value {
        Value::Int(value) => Ok(*value),
        Value::Text(text) => {
            text.trim().parse().map_err(|_| node.invalid(path, format!("must be a whole number, but is {text:?}")))
        }
        _ => Err(wrong(node, path, "a whole number")),
    }
}

pub(crate) fn count(node: &Node, path: &str) -> Result<u32> {
    let value = integer(node, path)?;
    u32::try_from(value).map_err(|_| node.invalid(path, format!("must be from 0 to {}, but is {value}", u32::MAX)))
}

pub(crate) fn number(node: &Node, path: &str) -> Result<f64> {
    let value = match &node.value {
        #[expect(clippy::cast_precision_loss, reason = "bounded below to far less than 2^53")]
        Value::Int(value) => *value as f64,
        Value::Float(value) => *value,
        Value::Text(text) => {
            text.trim().parse().map_err(|_| node.invalid(path, format!("must be a number, but is {text:?}")))?
        }
        _ => return Err(wrong(node, path, "a number")),
    };
    if (0.0..=1_000_000.0).contains(&value) {
        Ok(value)
    } else {
        Err(node.invalid(path, format!("must be a number of processors from 0 to 1000000, but is {value}")))
    }
}

pub(crate) fn bytes(node: &Node, path: &str) -> Result<i64> {
    match &node.value {
        Value::Int(value) if *value >= -1 => Ok(*value),
        Value::Int(value) => Err(node.invalid(path, format!("must not be negative, but is {value}"))),
        Value::Text(text) => parse_bytes(text).map_err(|reason| node.invalid(path, reason)),
        _ => Err(wrong(node, path, "a size such as 512m")),
    }
}

pub(crate) fn duration(node: &Node, path: &str) -> Result<Duration> {
    let text = string(node, path)?;
    parse_duration(&text).map_err(|reason| node.invalid(path, reason))
}

pub(crate) fn list<'a>(node: &'a Node, path: &str) -> Result<&'a [Node]> {
    match &node.value {
        Value::List(items) => Ok(items),
        _ => Err(wrong(node, path, "a list")),
    }
}

/// A list whose items `read` reads.
pub(crate) fn list_of<T>(read: impl Fn(&Node, &str) -> Result<T>) -> impl Fn(&Node, &str) -> Result<Vec<T>> {
    move |node, path| {
        list(node, path)?.iter().enumerate().map(|(index, item)| read(item, &format!("{path}[{index}]"))).collect()
    }
}

pub(crate) fn strings(node: &Node, path: &str) -> Result<Vec<String>> {
    list_of(string)(node, path)
}

pub(crate) fn string_set(node: &Node, path: &str) -> Result<BTreeSet<String>> {
    Ok(strings(node, path)?.into_iter().collect())
}

pub(crate) fn scalars(node: &Node, path: &str) -> Result<Vec<String>> {
    list_of(|node: &Node, path: &str| match node.value {
        Value::Bool(_) => Err(wrong(node, path, "a string or number")),
        _ => scalar(node, path),
    })(node, path)
}

pub(crate) fn members<'a>(node: &'a Node, path: &str) -> Result<&'a Map> {
    node.as_map().ok_or_else(|| wrong(node, path, "a mapping"))
}

/// A mapping whose keys are names and whose values `read` reads.
pub(crate) fn members_of<T>(
    read: impl Fn(&Node, &str) -> Result<T>,
) -> impl Fn(&Node, &str) -> Result<BTreeMap<String, T>> {
    move |node, path| {
        members(node, path)?
            .iter()
            .map(|(key, value)| read(value, &format!("{path}.{key}")).map(|value| (key.clone(), value)))
            .collect()
    }
}

/// What may be absent although its key is there.
pub(crate) fn maybe<T>(read: impl Fn(&Node, &str) -> Result<T>) -> impl Fn(&Node, &str) -> Result<Option<T>> {
    move |node, path| if node.value == Value::Null { Ok(None) } else { read(node, path).map(Some) }
}

pub(crate) fn some<T>(read: impl Fn(&Node, &str) -> Result<T>) -> impl Fn(&Node, &str) -> Result<Option<T>> {
    move |node, path| read(node, path).map(Some)
}

/// Values may be absent: then they are empty, as in labels.
pub(crate) fn texts(node: &Node, path: &str) -> Result<BTreeMap<String, String>> {
    members_of(|node: &Node, path: &str| maybe(scalar)(node, path).map(Option::unwrap_or_default))(node, path)
}

pub(crate) fn maybe_texts(node: &Node, path: &str) -> Result<BTreeMap<String, Option<String>>> {
    members_of(maybe(scalar))(node, path)
}

/// One of `words`; a refusal names the nearest.
pub(crate) fn one_of(words: &'static [&'static str]) -> impl Fn(&Node, &str) -> Result<String> {
    move |node, path| {
        let word = string(node, path)?;
        if words.contains(&word.as_str()) {
            return Ok(word);
        }
        let hint =
            nearest(&word, words.iter().copied()).map(|near| format!("; did you mean {near:?}?")).unwrap_or_default();
        Err(node.invalid(path, format!("must be one of {}, but is {word:?}{hint}", words.join(", "))))
    }
}

/// A whole number from `least` to `most`.
pub(crate) fn bounded(least: i64, most: i64) -> impl Fn(&Node, &str) -> Result<i64> {
    move |node, path| {
        let value = integer(node, path)?;
        if (least..=most).contains(&value) {
            Ok(value)
        } else {
            Err(node.invalid(path, format!("must be from {least} to {most}, but is {value}")))
        }
    }
}

pub(crate) fn command(node: &Node, path: &str) -> Result<Vec<String>> {
    match &node.value {
        Value::Text(line) => split_command(line).map_err(|reason| node.invalid(path, reason)),
        _ => strings(node, path),
    }
}

/// Permission bits: a number that YAML has read (`0440`), or octal digits in a string.
pub(crate) fn permissions(node: &Node, path: &str) -> Result<u32> {
    let mode = match &node.value {
        Value::Int(value) => u32::try_from(*value).ok(),
        Value::Text(text) => u32::from_str_radix(text.trim_start_matches("0o"), 8).ok(),
        _ => None,
    };
    mode.filter(|mode| *mode <= 0o7777).ok_or_else(|| node.invalid(path, "must be permission bits such as 0440"))
}
