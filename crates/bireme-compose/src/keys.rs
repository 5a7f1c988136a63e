//! The keys that a mapping of a Compose file may have, and what is said of the others.

use bireme_core::nearest::nearest;

use crate::error::ComposeError;
use crate::yaml::{Map, Node};

/// The keys of one kind of mapping.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    /// What the mapping is, for refusals.
    pub what: &'static str,
    /// Read and obeyed.
    pub done: &'static [&'static str],
    /// Known and refused: key and what to do instead.
    pub refused: &'static [(&'static str, &'static str)],
}

/// Why keys are refused that several mappings have.
pub(crate) mod reason {
    pub(crate) const BUILDKIT: &str = "needs BuildKit; leave it out, or build with another tool and name the image";
    pub(crate) const SWARM: &str = "belongs to Swarm; leave it out";
    pub(crate) const WINDOWS: &str = "exists on Windows only; leave it out";
}

/// Checks the keys of the mapping at `path`; `x-…` may stand anywhere.
///
/// # Errors
/// The first key that is refused or unknown.
pub(crate) fn check_keys(map: &Map, keys: &Keys, path: &str) -> Result<(), ComposeError> {
    for (key, node) in map {
        if key.starts_with("x-") || keys.done.contains(&key.as_str()) {
            continue;
        }
        return Err(refusal(node, key, keys, path));
    }
    Ok(())
}

fn refusal(node: &Node, key: &str, keys: &Keys, path: &str) -> ComposeError {
    let at = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    if let Some((_, instead)) = keys.refused.iter().find(|(refused, _)| *refused == key) {
        return node.unsupported(at, format!("is not offered by this engine: {instead}"));
    }
    // By the alphabet, so that of two that are as near the hint does not depend on the order of the fields.
    let mut done = keys.done.to_vec();
    done.sort_unstable();
    let known = done.into_iter().chain(keys.refused.iter().map(|(key, _)| *key));
    let hint = match nearest(key, known) {
        Some(near) => format!("did you mean {near:?}?"),
        None => "remove it, or begin it with x- if another program reads it".to_owned(),
    };
    node.invalid(at, format!("is not a key of {}; {hint}", keys.what))
}
