//! Volumes of the top level.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value as Json;

use super::form::is_false;
use crate::read::keyed;
use crate::read::value::{string, texts};

keyed! {
    /// A volume of the top level.
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    pub struct Volume = "a volume" {
        /// The engine's name for it: `<project>_<key>` unless given.
        pub name: String => later,
        /// Absent: `local`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub driver: Option<String> => opt(string),
        /// Options as the driver knows them.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub driver_opts: BTreeMap<String, String> => or_default(texts),
        /// Made by someone else: must exist, is never created or removed.
        #[serde(skip_serializing_if = "is_false")]
        pub external: bool => later,
        /// Of the volume, besides those that mark it as the project's.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub labels: BTreeMap<String, String> => or_default(texts),
        /// Every `x-…` key.
        #[serde(flatten)]
        pub extensions: BTreeMap<String, Json>,
    }
}
