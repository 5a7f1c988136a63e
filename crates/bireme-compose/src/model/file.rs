//! Secrets and configs: what they hold, and where a service wants them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value as Json;

use super::form;
use crate::keys::Keys;
use crate::read::value::{permissions, scalar, string, texts};
use crate::read::{Result, keyed};
use crate::yaml::Node;

keyed! {
    /// Where a service wants a secret or config.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
    pub struct FileReference = "a secret or config of a service" {
        /// Key of the secret or config.
        pub source: String => required(string, "has no source; name one of the top level"),
        /// Path in the container, or a name in `/run/secrets` (a secret) or `/` (a config); absent: `source` there.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub target: Option<String> => opt(string),
        /// Owner in the container, a number in text.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub uid: Option<String> => opt(scalar),
        /// Group in the container, a number in text.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub gid: Option<String> => opt(scalar),
        /// Permission bits; absent: 0444.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "form::file_mode")]
        pub mode: Option<u32> => opt(permissions),
    }
}

const STORE: &str = "secrets and configs come from files, variables or the Compose file; use `file` or `environment`";

keyed! {
    /// A secret or config of the top level.
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    pub struct FileObject = "a config" {
        /// `<project>_<key>` unless given.
        pub name: String => later,
        /// Absolute path.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub file: Option<PathBuf> => opt(file_path),
        /// Name of the variable that holds it.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub environment: Option<String> => opt(string),
        /// The content itself; of configs only.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub content: Option<String> => opt(string),
        /// Kept and printed only.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub labels: BTreeMap<String, String> => or_default(texts),
        /// The value of the variable named by `environment`, when it is set. May be a password: never printed.
        #[serde(skip)]
        pub environment_value: Option<String>,
        /// Every `x-…` key.
        #[serde(flatten)]
        pub extensions: BTreeMap<String, Json>,
    }
    refused:
        "external" => STORE,
        "template_driver" => STORE;
}

/// Those of a secret, whose content never stands in the Compose file.
pub(crate) const SECRET: Keys = Keys {
    what: "a secret",
    done: &["environment", "file", "labels", "name"],
    refused: &[("driver", STORE), ("driver_opts", STORE), ("external", STORE), ("template_driver", STORE)],
};

fn file_path(node: &Node, path: &str) -> Result<PathBuf> {
    string(node, path).map(PathBuf::from)
}
