//! Values as Go sees them: what is true, what a range goes through, what a value is called in messages.

use serde_json::Value;

use super::{Answer, refuse};

/// Most rounds of a range over a number.
const MAX_ROUNDS: u64 = 1_000_000;

/// What a range goes through: positions or keys, and values.
pub(super) fn elements(value: Value) -> Answer<Vec<(Value, Value)>> {
    Ok(match value {
        Value::Null => Vec::new(),
        Value::Array(items) => items.into_iter().enumerate().map(|(at, item)| (Value::from(at), item)).collect(),
        Value::Object(map) => map.into_iter().map(|(key, item)| (Value::String(key), item)).collect(),
        Value::Number(number) if number.is_i64() || number.is_u64() => match number.as_u64() {
            Some(rounds) if rounds > MAX_ROUNDS => return refuse(format!("range over {rounds} is too long")),
            rounds => (0..rounds.unwrap_or(0)).map(|at| (Value::from(at), Value::from(at))).collect(),
        },
        other => return refuse(format!("cannot range over {}", kind(&other))),
    })
}

pub(super) fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}
