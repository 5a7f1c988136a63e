//! Networks, volumes, secrets and configs of the top level; which names they have for the engine.

use crate::keys::Keys;
use crate::model::{FileObject, Network, SECRET, Volume};
use crate::read::value::{boolean, string};
use crate::read::{Reader, Result};
use crate::yaml::{Node, Value};

pub(crate) fn network(key: &str, node: &Node, path: &str, project: &str) -> Result<Network> {
    if node.value == Value::Null {
        return Ok(Network { name: format!("{project}_{key}"), ..Network::default() });
    }
    let r = Reader::new(node, &Network::KEYS, path)?;
    let (external, name) = external_and_name(&r, key, project)?;
    Ok(Network { name, external, extensions: r.extensions(), ..Network::decode(&r)? })
}

pub(crate) fn volume(key: &str, node: &Node, path: &str, project: &str) -> Result<Volume> {
    if node.value == Value::Null {
        return Ok(Volume { name: format!("{project}_{key}"), ..Volume::default() });
    }
    let r = Reader::new(node, &Volume::KEYS, path)?;
    let (external, name) = external_and_name(&r, key, project)?;
    Ok(Volume { name, external, extensions: r.extensions(), ..Volume::decode(&r)? })
}

/// Whether another made it, and what the engine calls it: what the file says, else its key (with the project's name
/// before it if the project makes it).
fn external_and_name(r: &Reader<'_>, key: &str, project: &str) -> Result<(bool, String)> {
    let (external, old_name) = external(r)?;
    if external {
        only_name(r)?;
    }
    let name = r.opt("name", string)?.or(old_name);
    Ok((external, name.unwrap_or_else(|| if external { key.to_owned() } else { format!("{project}_{key}") })))
}

/// `external`, and the name that its old form (`external: {name: …}`) gives.
fn external(r: &Reader<'_>) -> Result<(bool, Option<String>)> {
    match r.map.get("external") {
        Some(node) if node.as_map().is_some() => {
            let path = format!("{}.external", r.path);
            let inner = Reader::new(node, &Keys { what: "external", done: &["name"], refused: &[] }, &path)?;
            Ok((true, inner.opt("name", string)?))
        }
        _ => Ok((r.or_default("external", boolean)?, None)),
    }
}

/// What an external network or volume may not have.
fn only_name(r: &Reader<'_>) -> Result<()> {
    match r.map.iter().find(|(key, value)| {
        !matches!(key.as_str(), "name" | "external")
            && !key.starts_with("x-")
            && value.value != Value::Null
            && value.as_map().is_none_or(|map| !map.is_empty())
    }) {
        None => Ok(()),
        Some((key, _)) => Err(r
            .node
            .invalid(r.path, format!("is external and has {key:?}; whoever made it decides that, so remove it"))),
    }
}

/// A secret (`config` false) or a config.
pub(crate) fn file_object(
    key: &str,
    node: &Node,
    path: &str,
    project: &str,
    config: bool,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<FileObject> {
    let r = Reader::new(node, if config { &FileObject::KEYS } else { &SECRET }, path)?;
    let object = FileObject {
        name: r.opt("name", string)?.unwrap_or_else(|| format!("{project}_{key}")),
        extensions: r.extensions(),
        ..FileObject::decode(&r)?
    };
    let sources = [object.file.is_some(), object.environment.is_some(), object.content.is_some()];
    if sources.into_iter().filter(|there| *there).count() != 1 {
        let choice = if config { "file, environment or content" } else { "file or environment" };
        return Err(node.invalid(path, format!("must have exactly one of {choice}")));
    }
    let environment_value = object.environment.as_deref().and_then(lookup);
    Ok(FileObject { environment_value, ..object })
}
