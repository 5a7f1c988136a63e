//! The functions of templates. Source: the package documentation of `text/template` and docker's `templates` package.

use std::cmp::Ordering;

use serde_json::Value;

use super::values::{kind, truth};
use super::{Answer, refuse};
use crate::template::printf::{print, printf, show};

/// Applies the function `name`; `and` and `or`, which do not look at everything, are not among them.
pub(super) fn call(name: &str, args: Vec<Value>) -> Answer<Value> {
    let text = |at: usize| args.get(at).map(|value| show(value, true)).unwrap_or_default();
    let count = |at: usize| args.get(at).and_then(Value::as_u64).unwrap_or(0) as usize;
    let need = |least: usize| {
        if args.len() < least {
            refuse(format!("{name} needs {least} argument{}", if least == 1 { "" } else { "s" }))
        } else {
            Ok(())
        }
    };
    let string = |text: String| Ok(Value::String(text));
    match name {
        "json" => {
            need(1)?;
            string(args[0].to_string())
        }
        "lower" => string(text(0).to_lowercase()),
        "upper" => string(text(0).to_uppercase()),
        "title" => {
            // Every word, as Go's `strings.Title`.
            let mut inside = false;
            let capital = text(0).chars().fold(String::new(), |mut out, letter| {
                if inside {
                    out.push(letter)
                } else {
                    out.extend(letter.to_uppercase())
                }
                inside = letter.is_alphanumeric() || letter == '_' || letter == '\'';
                out
            });
            string(capital)
        }
        "join" => {
            need(2)?;
            let items = args[0].as_array().map(Vec::as_slice).unwrap_or_default();
            string(items.iter().map(|item| show(item, true)).collect::<Vec<_>>().join(&text(1)))
        }
        "split" => {
            need(2)?;
            Ok(text(0).split(&text(1)).map(Value::from).collect())
        }
        "pad" => {
            need(3)?;
            string(format!("{}{}{}", " ".repeat(count(1).min(1000)), text(0), " ".repeat(count(2).min(1000))))
        }
        "truncate" => {
            need(2)?;
            string(text(0).chars().take(count(1)).collect())
        }
        "print" => string(print(&args)),
        "println" => string(args.iter().map(|value| show(value, true)).collect::<Vec<_>>().join(" ") + "\n"),
        "printf" => {
            need(1)?;
            string(printf(&text(0), &args[1..]))
        }
        "len" => {
            need(1)?;
            match &args[0] {
                Value::String(text) => Ok(text.len().into()),
                Value::Array(items) => Ok(items.len().into()),
                Value::Object(map) => Ok(map.len().into()),
                other => refuse(format!("{} has no length", kind(other))),
            }
        }
        "index" => {
            need(1)?;
            let mut args = args.into_iter();
            let mut value = args.next().unwrap_or(Value::Null);
            for key in args {
                value = index(value, &key)?;
            }
            Ok(value)
        }
        "slice" => {
            need(1)?;
            let length = match &args[0] {
                Value::Array(items) => items.len(),
                _ => text(0).chars().count(),
            };
            let from = count(1);
            let to = if args.len() > 2 { count(2) } else { length };
            if from > to || to > length {
                return refuse(format!("slice {from}:{to} is out of range: the length is {length}"));
            }
            match &args[0] {
                Value::Array(items) => Ok(Value::Array(items[from..to].to_vec())),
                _ => string(text(0).chars().skip(from).take(to - from).collect()),
            }
        }
        "not" => {
            need(1)?;
            Ok(Value::Bool(!truth(&args[0])))
        }
        "html" => string(
            print(&args)
                .replace('&', "&amp;")
                .replace('<', "&lt;")
                .replace('>', "&gt;")
                .replace('"', "&#34;")
                .replace('\'', "&#39;"),
        ),
        "eq" => {
            need(2)?;
            Ok(Value::Bool(args[1..].iter().any(|other| compare(&args[0], other) == Some(Ordering::Equal))))
        }
        "ne" | "lt" | "le" | "gt" | "ge" => {
            need(2)?;
            let order = compare(&args[0], &args[1]);
            Ok(Value::Bool(match name {
                "ne" => order != Some(Ordering::Equal),
                "lt" => order == Some(Ordering::Less),
                "le" => matches!(order, Some(Ordering::Less | Ordering::Equal)),
                "gt" => order == Some(Ordering::Greater),
                _ => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
            }))
        }
        other => refuse(format!("function {other:?} is not known")),
    }
}

fn compare(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64()?.partial_cmp(&right.as_f64()?),
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (left, right) => (left == right).then_some(Ordering::Equal),
    }
}

/// What Go has for a key that is not in a map: nothing, of the kind that the others are.
fn zero(map: &serde_json::Map<String, Value>) -> Value {
    match map.values().next() {
        None | Some(Value::String(_)) => Value::String(String::new()),
        Some(Value::Array(_) | Value::Null) => Value::Array(Vec::new()),
        Some(Value::Number(_)) => Value::from(0),
        Some(Value::Bool(_)) => Value::Bool(false),
        Some(Value::Object(_)) => Value::Null,
    }
}

fn index(value: Value, key: &Value) -> Answer<Value> {
    match (value, key) {
        (Value::Object(mut map), Value::String(key)) => Ok(map.remove(key).unwrap_or_else(|| zero(&map))),
        (Value::Array(mut items), Value::Number(at)) => match at.as_u64().map(|at| at as usize) {
            Some(at) if at < items.len() => Ok(items.swap_remove(at)),
            _ => refuse(format!("index {at} is out of range: there are {} elements", items.len())),
        },
        (Value::Null, _) => Ok(Value::Null),
        (value, key) => refuse(format!("cannot index {} with {}", kind(&value), kind(key))),
    }
}
