//! What a front end answers when it is not to build: `docker build --call=outline|targets|check`.
//!
//! Source: github.com/moby/buildkit, `frontend/subrequests`; the answers are, byte for byte, those of BuildKit.

mod lint;
mod outline;
mod targets;

use std::fmt::Write;

use serde::Serialize;

use crate::error::Lines;

pub use lint::lint;
pub use outline::outline;
pub use targets::targets;

/// The requests that are known, as `requestid` names them.
pub const REQUESTS: [&str; 4] =
    ["frontend.outline", "frontend.targets", "frontend.lint", "frontend.subrequests.describe"];

/// An answer, as metadata of a result without files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `result.json`.
    pub json: String,
    /// `result.txt`.
    pub text: Option<String>,
    /// `result.statuscode`: what the client shall end with.
    pub status: Option<u8>,
}

impl Answer {
    /// The metadata by their keys.
    pub fn metadata(&self) -> Vec<(&'static str, Vec<u8>)> {
        let mut all = vec![("result.json", self.json.clone().into_bytes()), ("version", b"1.0.0".to_vec())];
        all.extend(self.text.iter().map(|text| ("result.txt", text.clone().into_bytes())));
        all.extend(self.status.map(|status| ("result.statuscode", status.to_string().into_bytes())));
        all
    }
}

#[derive(Serialize)]
struct Request {
    name: &'static str,
    version: &'static str,
    r#type: &'static str,
    description: &'static str,
    opts: Option<Vec<Named>>,
    inputs: Option<Vec<Named>>,
    metadata: Vec<Named>,
    refs: Option<Vec<Named>>,
}

#[derive(Serialize)]
struct Named {
    name: &'static str,
    description: &'static str,
}

/// Answers `frontend.subrequests.describe`. As with BuildKit, the check is not among what it names.
pub fn describe() -> Answer {
    let request = |name, description, opts| Request {
        name,
        version: "1.0.0",
        r#type: "rpc",
        description,
        opts,
        inputs: None,
        metadata: ["result.json", "result.txt"].map(|name| Named { name, description: "" }).into(),
        refs: None,
    };
    let target = Named { name: "target", description: "Target build stage" };
    let all = [
        request("frontend.outline", "List all parameters current build target supports", Some(vec![target])),
        request("frontend.targets", "List all targets current build supports", Some(Vec::new())),
        request("frontend.subrequests.describe", "List available subrequest types", None),
    ];
    let mut rows = vec![["NAME", "VERSION", "DESCRIPTION"].map(str::to_owned).to_vec()];
    rows.extend(all.iter().map(|request| {
        let name = request.name.trim_start_matches("frontend.");
        [name, request.version, request.description].map(str::to_owned).to_vec()
    }));
    Answer { json: json(&all), text: Some(table(&rows, 1)), status: None }
}

/// Where something stands: each line is a range.
#[derive(Serialize)]
struct Location {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ranges: Vec<Range>,
}

#[derive(Serialize)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Serialize)]
struct Position {
    line: usize,
}

impl Location {
    fn of(lines: &[Lines]) -> Self {
        let each = lines.iter().flat_map(|lines| lines.each());
        Self { ranges: each.map(|line| Range { start: Position { line }, end: Position { line } }).collect() }
    }
}

/// As Go writes it: some letters that mean something to browsers are escaped.
fn json(value: &impl Serialize) -> String {
    // Nothing here fails to be written: all keys are strings.
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// Columns as wide as their widest cell and `padding` spaces, but for the last.
fn table(rows: &[Vec<String>], padding: usize) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default() + padding;
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let width = if column + 1 == columns { 0 } else { widths[column] };
            // Writing to a string does not fail.
            let _ = write!(out, "{cell:width$}");
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_all_metadata_that_clients_ask_for() {
        let keys: Vec<_> = describe().metadata().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["result.json", "version", "result.txt"]);
        assert!(describe().json.contains("\"type\": \"rpc\""));
    }
}
