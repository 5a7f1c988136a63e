//! `frontend.targets`: the stages that one may end with.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::{Answer, Location, json, table};
use crate::dockerfile::Dockerfile;

#[derive(Serialize)]
struct List<'a> {
    targets: Vec<Target<'a>>,
    sources: Vec<String>,
}

#[derive(Serialize)]
struct Target<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    default: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    base: &'a str,
    location: Location,
}

/// Answers the request for a file; `text` is what it was read from.
pub fn targets(file: &Dockerfile, text: &str) -> Answer {
    let last = file.stages.len().saturating_sub(1);
    let targets = file.stages.iter().enumerate().map(|(number, stage)| Target {
        name: stage.name.as_deref(),
        default: number == last,
        description: stage.description.as_deref(),
        base: &stage.from.image,
        location: Location::of(&[stage.from.instruction.lines]),
    });
    let list = List { targets: targets.collect(), sources: vec![STANDARD.encode(text)] };
    let mut rows = vec![["TARGET", "DESCRIPTION"].map(str::to_owned).to_vec()];
    rows.extend(list.targets.iter().map(|target| {
        let name = match (target.name, target.default) {
            (Some(name), true) => format!("{name} (default)"),
            (None, true) => "(default)".to_owned(),
            (name, false) => name.unwrap_or_default().to_owned(),
        };
        vec![name, target.description.unwrap_or_default().to_owned()]
    }));
    Answer { json: json(&list), text: Some(table(&rows, 1)), status: None }
}
