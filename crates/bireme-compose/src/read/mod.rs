//! Reading nodes: a mapping key by key ([`Reader`], [`keyed!`]), and the values that stand in it ([`value`]).
//!
//! Whatever reads takes a node and the path of its key (`services.web.ports[0]`), and refuses with both.

mod keyed;
pub(crate) mod value;

use std::collections::BTreeMap;

pub(crate) use keyed::keyed;
use serde_json::Value as Json;

use crate::error::ComposeError;
use crate::keys::{Keys, check_keys};
use crate::yaml::{Map, Node, Value};

pub(crate) type Result<T> = std::result::Result<T, ComposeError>;

/// A mapping being read: the checks of its keys are done.
pub(crate) struct Reader<'a> {
    pub(crate) node: &'a Node,
    pub(crate) map: &'a Map,
    pub(crate) path: &'a str,
}

impl<'a> Reader<'a> {
    /// # Errors
    /// `node` is no mapping, or has a key that is not in `keys`.
    pub(crate) fn new(node: &'a Node, keys: &Keys, path: &'a str) -> Result<Self> {
        let map = value::members(node, path)?;
        check_keys(map, keys, path)?;
        Ok(Self { node, map, path })
    }

    /// The value of `key`, if it is there and not empty.
    pub(crate) fn opt<T>(&self, key: &str, read: impl FnOnce(&Node, &str) -> Result<T>) -> Result<Option<T>> {
        match self.map.get(key) {
            None => Ok(None),
            Some(node) if node.value == Value::Null => Ok(None),
            Some(node) => read(node, &format!("{}.{key}", self.path)).map(Some),
        }
    }

    pub(crate) fn or<T>(&self, key: &str, read: impl FnOnce(&Node, &str) -> Result<T>, absent: T) -> Result<T> {
        self.opt(key, read).map(|value| value.unwrap_or(absent))
    }

    pub(crate) fn or_default<T: Default>(&self, key: &str, read: impl FnOnce(&Node, &str) -> Result<T>) -> Result<T> {
        self.opt(key, read).map(Option::unwrap_or_default)
    }

    /// The value of a key that must be there; `missing` is the whole reason otherwise: "has no …".
    pub(crate) fn required<T>(
        &self,
        key: &str,
        read: impl FnOnce(&Node, &str) -> Result<T>,
        missing: &str,
    ) -> Result<T> {
        self.opt(key, read)?.ok_or_else(|| self.node.invalid(self.path, missing))
    }

    pub(crate) fn extensions(&self) -> BTreeMap<String, Json> {
        extensions(self.map)
    }
}

/// The `x-…` keys of a mapping.
pub(crate) fn extensions(map: &Map) -> BTreeMap<String, Json> {
    map.iter().filter(|(key, _)| key.starts_with("x-")).map(|(key, node)| (key.clone(), json(node))).collect()
}

fn json(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::from(*value),
        Value::Int(value) => Json::from(*value),
        Value::Float(value) => Json::from(*value),
        Value::Text(value) => Json::from(value.as_str()),
        Value::List(items) => Json::Array(items.iter().map(json).collect()),
        Value::Map(map) => Json::Object(map.iter().map(|(key, value)| (key.clone(), json(value))).collect()),
    }
}
