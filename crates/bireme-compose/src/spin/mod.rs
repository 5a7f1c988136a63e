//! Spin's manifests (`spin.toml`, versions 1 and 2) as Compose files: one service for each component.
//!
//! ```text
//! toml       text → nodes that know their line
//! manifest   nodes of either version → one app
//! variables  what {{ templates }} stand for: the environment, .env, defaults
//! allow      allowed_outbound_hosts → bireme.allow
//! files      files, exclude_files → mounts, or a Dockerfile
//! project    the app → the nodes of a Compose file
//! ```
//!
//! What a manifest says of building and watching is Spin's and has no effect here; what gives a component something that
//! this engine does not have is refused by name. See decision 21.
//!
//! Source: Spin's documentation, "Spin Application Manifest Reference", versions 1 and 2.

mod allow;
mod files;
mod manifest;
mod project;
mod toml;
mod variables;

use std::path::Path;

use crate::error::ComposeError;
use crate::yaml::Node;

/// Whether the file at `path` is a manifest, by its name.
pub(crate) fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "toml")
}

/// The Compose file that the manifest `bytes` of the file `path` stands for. `lookup` answers what an environment variable
/// holds.
///
/// # Errors
/// What is malformed, what is not offered, and variables that must be set and are not, each with its line.
pub(crate) fn compose(
    bytes: &[u8],
    path: &Path,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Node, ComposeError> {
    let tree = toml::parse(bytes, path)?;
    let app = manifest::read(&tree)?;
    project::compose(&tree, &app, path.parent().unwrap_or(Path::new("/")), lookup)
}

#[cfg(test)]
mod tests;
