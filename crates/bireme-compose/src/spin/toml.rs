//! TOML text → nodes.

use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{ComposeError, Place};
use crate::yaml::{MAX_BYTES, Map, Mark, Node, Value};

/// Where lines begin, for the places of values.
struct Lines<'a> {
    file: Arc<Path>,
    begins: Vec<usize>,
    text: &'a str,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str, file: &Path) -> Self {
        let begins = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { file: Arc::from(file), begins, text }
    }

    fn node(&self, value: Value, at: usize) -> Node {
        let line = self.begins.partition_point(|begin| *begin <= at.min(self.text.len()));
        Node { value, mark: Mark::Merge, file: Arc::clone(&self.file), line }
    }
}

/// # Errors
/// What is not TOML, and what is too large to be a manifest.
pub(super) fn parse(bytes: &[u8], path: &Path) -> Result<Node, ComposeError> {
    let refused = |line: Option<usize>, reason: String| ComposeError::Invalid {
        place: Box::new(Place { file: Some(path.to_path_buf()), line, key: String::new() }),
        reason,
    };
    if bytes.len() > MAX_BYTES {
        return Err(refused(None, format!("is larger than {MAX_BYTES} bytes, the most a manifest may have")));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| refused(None, "is not UTF-8".to_owned()))?;
    let lines = Lines::of(text, path);
    let table = DeTable::parse(text).map_err(|error| {
        let line = error.span().map(|span| lines.node(Value::Null, span.start).line);
        refused(line, format!("is no TOML: {}", error.message()))
    })?;
    Ok(of_table(table.get_ref(), table.span().start, &lines))
}

fn of_table(table: &DeTable<'_>, at: usize, lines: &Lines<'_>) -> Node {
    let map: Map = table
        .iter()
        .map(|(key, value)| {
            let mut node = of_value(value, lines);
            // A table stands where its name does.
            node.line = node.line.min(lines.node(Value::Null, key.span().start).line);
            (key.get_ref().to_string(), node)
        })
        .collect();
    lines.node(Value::Map(map), at)
}

fn of_value(value: &Spanned<DeValue<'_>>, lines: &Lines<'_>) -> Node {
    let at = value.span().start;
    let plain = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Int(number),
            Err(_) => Value::Text(number.as_str().to_owned()),
        },
        DeValue::Float(number) => match number.as_str().parse() {
            Ok(number) => Value::Float(number),
            Err(_) => Value::Text(number.as_str().to_owned()),
        },
        DeValue::Datetime(time) => Value::Text(time.to_string()),
        DeValue::Array(items) => Value::List(items.iter().map(|item| of_value(item, lines)).collect()),
        DeValue::Table(table) => return of_table(table, at, lines),
    };
    lines.node(plain, at)
}
