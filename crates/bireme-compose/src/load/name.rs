//! What a project is called.

use std::path::Path;

use super::discover::Found;
use super::{LoadOptions, Loader};
use crate::error::ComposeError;
use crate::interpolate::interpolate;
use crate::yaml::Node;

impl Loader<'_> {
    pub(super) fn project_name(&self, options: &LoadOptions, found: &Found) -> Result<String, ComposeError> {
        let checked = |name: &str, from: &str| {
            if !name.is_empty() && normalise(name) == name {
                Ok(name.to_owned())
            } else {
                Err(ComposeError::invalid(
                    "name",
                    format!(
                        "{name:?} ({from}) is not a project name; use lower-case letters, digits, - and _, beginning with a letter or digit"
                    ),
                ))
            }
        };
        if let Some(name) = options.project_name.as_deref().filter(|name| !name.is_empty()) {
            return checked(name, "from -p");
        }
        if let Some(name) = found.env.get("COMPOSE_PROJECT_NAME").filter(|name| !name.is_empty()) {
            return checked(name, "from COMPOSE_PROJECT_NAME");
        }
        for path in found.files.iter().rev().filter(|path| *path != Path::new("-")) {
            for document in self.read(path)?.iter().rev() {
                if let Some(name) = document.get("name").and_then(Node::as_str) {
                    let lookup = |variable: &str| found.env.get(variable).cloned();
                    if let Ok(name) = interpolate(name, &lookup, &mut |_| {})
                        && !normalise(&name).is_empty()
                    {
                        return Ok(normalise(&name));
                    }
                }
            }
        }
        let name =
            normalise(&found.folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default());
        if name.is_empty() {
            return Err(ComposeError::invalid(
                "name",
                "the project has no name: its folder gives none; pass one with -p",
            ));
        }
        Ok(name)
    }
}

/// Lower case, and only what a project name may have.
fn normalise(name: &str) -> String {
    let kept: String = name
        .to_lowercase()
        .chars()
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'))
        .collect();
    kept.trim_start_matches(['-', '_']).to_owned()
}
