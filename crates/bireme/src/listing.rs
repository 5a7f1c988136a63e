//! Lists of things: Docker's tables, `--format` and `--quiet`.

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde_json::{Map, Value};

use crate::error::Failure;
use crate::printer::Printer;
use crate::template::Template;

/// One column: the field's name in templates and its heading.
pub type Column = (&'static str, &'static str);

/// One thing of a list: its fields as text, and its labels for `.Label`.
#[derive(Clone, Debug, Default)]
pub struct Row {
    fields: Map<String, Value>,
    labels: BTreeMap<String, String>,
}

impl Row {
    /// Adds a field.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(field.to_owned(), value.into());
        self
    }

    /// Sets the labels, as `.Labels` (one text) and for `.Label "key"`.
    #[must_use]
    pub fn with_labels(mut self, labels: &BTreeMap<String, String>) -> Self {
        self.labels.clone_from(labels);
        let text: Vec<String> = self.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        self.with("Labels", text.join(","))
    }

    /// A field as text.
    pub fn text(&self, field: &str) -> String {
        match self.fields.get(field) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        }
    }

    fn render(&self, template: &Template) -> anyhow::Result<String> {
        let value = Value::Object(self.fields.clone());
        let methods = |name: &str, args: &[Value]| match (name, args) {
            ("Label", [Value::String(key)]) => Some(self.labels.get(key).cloned().unwrap_or_default().into()),
            _ => None,
        };
        Ok(template.render_with(&value, &methods)?)
    }
}

/// A kind of list.
pub struct Listing<'a> {
    /// Every field that has a heading; those not shown by default come after the others.
    pub columns: &'a [Column],
    /// Fields shown when nobody says otherwise.
    pub shown: &'a [&'a str],
    /// The field `--quiet` prints.
    pub key: &'a str,
}

impl Listing<'_> {
    /// Prints `rows` as `--format` and `--quiet` ask.
    pub fn print(&self, printer: &Printer, rows: &[Row], format: Option<&str>, quiet: bool) -> anyhow::Result<()> {
        if let Some(text) = self.render(rows, format, quiet)? {
            printer.raw(text.as_bytes())?;
        }
        Ok(())
    }

    /// The text that [`Self::print`] prints.
    pub fn render(&self, rows: &[Row], format: Option<&str>, quiet: bool) -> anyhow::Result<Option<String>> {
        let heading = |field: &str| {
            self.columns
                .iter()
                .find(|(known, _)| *known == field)
                .map_or_else(|| field.to_uppercase(), |(_, text)| (*text).to_owned())
        };
        let mut out = String::new();
        match format.map(str::trim) {
            None | Some("") | Some("table") if quiet => {
                for row in rows {
                    out.push_str(&row.text(self.key));
                    out.push('\n');
                }
            }
            None | Some("") | Some("table") => {
                let mut table = vec![self.shown.iter().map(|field| heading(field)).collect::<Vec<_>>()];
                table.extend(rows.iter().map(|row| self.shown.iter().map(|field| row.text(field)).collect()));
                out = align(&table);
            }
            Some("json") => {
                for row in rows {
                    out.push_str(&serde_json::to_string(&row.fields)?);
                    out.push('\n');
                }
            }
            Some(format) => {
                let (table, text) = match format.strip_prefix("table ") {
                    Some(text) => (true, text.trim()),
                    None => (false, format),
                };
                let template = parse(text)?;
                if table {
                    let mut head = Row::default();
                    for (field, text) in self.columns {
                        head = head.with(field, *text);
                    }
                    let mut lines = vec![head.render(&template).unwrap_or_default()];
                    for row in rows {
                        lines.push(row.render(&template)?);
                    }
                    let cells: Vec<Vec<String>> =
                        lines.iter().map(|line| line.split('\t').map(str::to_owned).collect()).collect();
                    out = align(&cells);
                } else {
                    for row in rows {
                        out.push_str(&row.render(&template)?);
                        out.push('\n');
                    }
                }
            }
        }
        Ok((!out.is_empty()).then_some(out))
    }
}

/// Reads a template, with the exit code and hint of a wrong `--format`.
pub fn parse(text: &str) -> anyhow::Result<Template> {
    Template::parse(text).map_err(|error| {
        Failure::new(format!("--format: {error}")).hint("a Go template such as '{{.Names}}', or json").code(64).into()
    })
}

/// Columns ten wide at least and three spaces apart; the last one is not padded.
/// Source: docker's `tabwriter.NewWriter(out, 10, 1, 3, ' ', 0)`.
pub fn align(rows: &[Vec<String>]) -> String {
    align_to(rows, 10)
}

/// The same with another least width.
pub fn align_to(rows: &[Vec<String>], least: usize) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| visible(cell)).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|at| {
            let padded = rows.iter().filter(|row| at + 1 < row.len());
            (padded.map(|row| row[at].chars().count()).max().unwrap_or(0) + 3).max(least)
        })
        .collect();
    let mut out = String::new();
    for row in &rows {
        for (at, cell) in row.iter().enumerate() {
            out.push_str(cell);
            if at + 1 < row.len() {
                out.extend(std::iter::repeat_n(' ', widths[at] - cell.chars().count()));
            }
        }
        out.push('\n');
    }
    out
}

/// A cell without what would move the cursor or speak to the terminal: commands, labels and the like are written by
/// whoever made the image or the container.
fn visible(cell: &str) -> String {
    cell.chars().fold(String::with_capacity(cell.len()), |mut out, letter| {
        match letter {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            letter if letter.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(letter))),
            letter => out.push(letter),
        }
        out
    })
}

/// `KEY=VALUE` flags as the engine's `filters` parameter; `None` when there are none.
pub fn filters(flags: &[String]) -> anyhow::Result<Option<Value>> {
    if flags.is_empty() {
        return Ok(None);
    }
    let mut filters: Map<String, Value> = Map::new();
    for flag in flags {
        let (key, value) = flag
            .split_once('=')
            .with_context(|| format!("invalid filter {flag:?}: expected KEY=VALUE, such as status=running"))?;
        let values = filters.entry(key.trim().to_lowercase()).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(values) = values {
            values.push(value.trim().into());
        }
    }
    Ok(Some(Value::Object(filters)))
}

/// JSON text with Docker's indentation of four spaces and the order of fields as the engine sent them.
pub fn indent(json: &str, step: usize) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0usize;
    let mut letters = json.chars().peekable();
    let newline = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', depth * step));
    };
    while let Some(c) = letters.next() {
        match c {
            '"' => {
                out.push('"');
                while let Some(c) = letters.next() {
                    out.push(c);
                    match c {
                        '\\' => out.extend(letters.next()),
                        '"' => break,
                        _ => {}
                    }
                }
            }
            '{' | '[' => {
                while letters.next_if(|c| c.is_whitespace()).is_some() {}
                out.push(c);
                match letters.next_if(|next| matches!(next, '}' | ']')) {
                    Some(close) => out.push(close),
                    None => {
                        depth += 1;
                        newline(&mut out, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                newline(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                newline(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_whitespace() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const LISTING: Listing<'static> =
        Listing { columns: &[("ID", "CONTAINER ID"), ("Names", "NAMES")], shown: &["ID", "Names"], key: "ID" };

    fn check(format: Option<&str>, quiet: bool, expected: &str) {
        let rows = [
            Row::default()
                .with("ID", "0123456789ab")
                .with("Names", "web")
                .with_labels(&BTreeMap::from([("a".to_owned(), "1".to_owned())])),
            Row::default().with("ID", "ba9876543210").with("Names", "a-longer-name").with_labels(&BTreeMap::new()),
        ];
        let text = LISTING.render(&rows, format, quiet).unwrap().unwrap();
        assert_eq!(text, expected, "{format:?}");
    }

    #[test]
    fn lists_print_as_dockers() {
        check(None, false, "CONTAINER ID   NAMES\n0123456789ab   web\nba9876543210   a-longer-name\n");
        check(None, true, "0123456789ab\nba9876543210\n");
        check(Some("{{.Names}} {{.Label \"a\"}}"), false, "web 1\na-longer-name \n");
        check(
            Some("table {{.Names}}\\t{{.ID}}"),
            false,
            "NAMES           CONTAINER ID\nweb             0123456789ab\na-longer-name   ba9876543210\n",
        );
        check(
            Some("json"),
            false,
            "{\"ID\":\"0123456789ab\",\"Labels\":\"a=1\",\"Names\":\"web\"}\n{\"ID\":\"ba9876543210\",\"Labels\":\"\",\"Names\":\"a-longer-name\"}\n",
        );
    }

    #[test]
    fn narrow_columns_are_ten_wide() {
        let rows = [vec!["A".to_owned(), "B".to_owned()], vec!["x".to_owned(), "y".to_owned()]];
        assert_eq!(align(&rows), "A         B\nx         y\n");
    }

    #[test]
    fn a_cell_cannot_speak_to_the_terminal() {
        let rows = [vec!["A".to_owned()], vec!["\u{1b}]0;owned\u{7}\u{9b}2J\r\n".to_owned()]];
        assert_eq!(align(&rows), "A\n\\x1b]0;owned\\x07\\x9b2J\\r\\n\n");
    }

    #[test]
    fn filters_are_grouped() {
        let flags = ["label=a=b".to_owned(), "label=c".to_owned(), "Status=running".to_owned()];
        assert_eq!(filters(&flags).unwrap(), Some(json!({"label": ["a=b", "c"], "status": ["running"]})));
        assert!(filters(&["x".to_owned()]).is_err());
    }

    #[test]
    fn json_is_indented_in_its_own_order() {
        let text = r#"{"b":1,"a":{"x":[],"y":["q:,{\"",2]},"c":{}}"#;
        let expected = "{\n    \"b\": 1,\n    \"a\": {\n        \"x\": [],\n        \"y\": [\n            \"q:,{\\\"\",\n            2\n        ]\n    },\n    \"c\": {}\n}";
        assert_eq!(indent(text, 4), expected);
    }
}
