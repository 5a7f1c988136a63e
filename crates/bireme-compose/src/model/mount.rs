//! What is mounted into a container.

use std::collections::BTreeMap;

use serde::Serialize;

use super::form::{self, is_false};
use crate::read::value::{boolean, bytes, one_of, permissions, string, texts};
use crate::read::{Result, keyed};
use crate::yaml::Node;

const NO_TARGET: &str = "has no target; name the folder in the container";

keyed! {
    /// One entry of a service's `volumes`.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
    pub struct Mount = "a mount" {
        #[serde(rename = "type")]
        pub kind: MountKind => "type": required(MountKind::read, "has no type; write bind, volume or tmpfs"),
        /// An absolute path for a bind, the key of a volume, or absent (tmpfs, anonymous volume).
        #[serde(skip_serializing_if = "Option::is_none")]
        pub source: Option<String> => opt(string),
        pub target: String => required(string, NO_TARGET),
        #[serde(skip_serializing_if = "is_false")]
        pub read_only: bool => or_default(boolean),
        #[serde(skip_serializing_if = "Option::is_none")]
        pub consistency: Option<String> => opt(string),
        #[serde(skip_serializing_if = "Option::is_none")]
        pub bind: Option<BindOptions> => opt(BindOptions::read),
        #[serde(skip_serializing_if = "Option::is_none")]
        pub volume: Option<VolumeOptions> => opt(VolumeOptions::read),
        #[serde(skip_serializing_if = "Option::is_none")]
        pub tmpfs: Option<TmpfsOptions> => opt(TmpfsOptions::read),
    }
    refused:
        "image" => "images cannot be mounted; copy the files into a volume";
}

impl Mount {
    pub(super) fn checked(node: &Node, path: &str) -> Result<Self> {
        let mount = Self::read(node, path)?;
        if mount.target.is_empty() {
            return Err(node.invalid(path, NO_TARGET));
        }
        if !mount.target.starts_with('/') {
            return Err(
                node.invalid(path, format!("target {:?} is not an absolute path; begin it with /", mount.target))
            );
        }
        match (mount.kind, &mount.source) {
            (MountKind::Bind, None) => {
                Err(node.invalid(path, "is a bind without a source; name the folder of the host"))
            }
            (MountKind::Tmpfs, Some(_)) => Err(node.invalid(path, "is a tmpfs with a source; remove the source")),
            _ => Ok(mount),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MountKind {
    Bind,
    Volume,
    Tmpfs,
}

impl MountKind {
    fn read(node: &Node, path: &str) -> Result<Self> {
        if let Some(word @ ("npipe" | "cluster" | "image")) = node.as_str() {
            let reason = format!("mounts of type {word} are not offered; use bind, volume or tmpfs");
            return Err(node.unsupported(path, reason));
        }
        Ok(match one_of(&["bind", "volume", "tmpfs"])(node, path)?.as_str() {
            "bind" => Self::Bind,
            "tmpfs" => Self::Tmpfs,
            _ => Self::Volume,
        })
    }
}

keyed! {
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
    pub struct BindOptions = "bind" {
        #[serde(skip_serializing_if = "Option::is_none")]
        pub propagation: Option<String> => opt(one_of(&["private", "rprivate", "shared", "rshared", "slave", "rslave"])),
        /// Make the folder on the host when it is missing.
        #[serde(skip_serializing_if = "is_false")]
        pub create_host_path: bool => or_default(boolean),
        #[serde(skip_serializing_if = "Option::is_none")]
        pub recursive: Option<String> => opt(one_of(&["enabled", "disabled", "writable", "readonly"])),
        #[serde(skip_serializing_if = "Option::is_none")]
        pub selinux: Option<String> => opt(one_of(&["z", "Z"])),
    }
}

keyed! {
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
    pub struct VolumeOptions = "volume" {
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub labels: BTreeMap<String, String> => or_default(texts),
        #[serde(skip_serializing_if = "is_false")]
        pub nocopy: bool => or_default(boolean),
        #[serde(skip_serializing_if = "Option::is_none")]
        pub subpath: Option<String> => opt(string),
    }
}

keyed! {
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
    pub struct TmpfsOptions = "tmpfs" {
        /// Bytes.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "form::bytes")]
        pub size: Option<i64> => opt(bytes),
        #[serde(skip_serializing_if = "Option::is_none")]
        pub mode: Option<u32> => opt(permissions),
    }
}
