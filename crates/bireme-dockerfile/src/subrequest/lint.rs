//! `frontend.lint`: what the linter says.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt::Write;

use serde::Serialize;

use super::{Answer, Location, json};
use crate::error::ParseError;
use crate::excerpt::excerpt;
use crate::lint::Warning;

#[derive(Serialize)]
struct Results<'a> {
    warnings: Option<Vec<Found<'a>>>,
    sources: Vec<Source<'a>>,
    #[serde(rename = "buildError", skip_serializing_if = "Option::is_none")]
    error: Option<BuildError<'a>>,
}

#[derive(Serialize)]
struct Found<'a> {
    #[serde(rename = "ruleName")]
    rule: &'a str,
    description: &'a str,
    url: &'a str,
    detail: &'a str,
    location: Location,
}

#[derive(Serialize)]
struct Source<'a> {
    filename: &'a str,
    #[serde(skip_serializing_if = "String::is_empty")]
    data: String,
    language: &'static str,
}

#[derive(Serialize)]
struct BuildError<'a> {
    message: &'a str,
    location: Location,
}

/// Answers the request for a file. `error` is why it cannot be built, or what [`crate::lint::lint`] says.
pub fn lint(filename: &str, text: &str, warnings: &[Warning], error: Option<&ParseError>) -> Answer {
    let found = warnings.iter().map(|warning| Found {
        rule: warning.rule,
        description: warning.description,
        url: &warning.url,
        detail: &warning.detail,
        location: Location::of(&[warning.lines]),
    });
    let results = Results {
        warnings: (!warnings.is_empty()).then(|| found.collect()),
        sources: vec![Source { filename, data: STANDARD.encode(text), language: "Dockerfile" }],
        error: error.map(|error| BuildError { message: &error.message, location: Location::of(&error.lines) }),
    };
    let mut sorted: Vec<&Warning> = warnings.iter().collect();
    sorted.sort_by_key(|warning| warning.lines.first);
    let mut out = String::new();
    for Warning { rule, url, detail, lines, .. } in sorted {
        // Writing to a string does not fail.
        let _ = write!(out, "\nWARNING: {rule} - {url}\n{detail}\n{}", excerpt(filename, text, &[*lines]));
    }
    let bad = error.is_some() || !warnings.is_empty();
    Answer { json: json(&results), text: Some(out), status: Some(u8::from(bad)) }
}
