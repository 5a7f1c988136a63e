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
        /// What is mounted.
        #[serde(rename = "type")]
        pub kind: MountKind => "type": required(MountKind::read, "has no type; write bind, volume or tmpfs"),
        /// An absolute path for a bind, the key of a volume, or absent (tmpfs, anonymous volume).
        #[serde(skip_serializing_if = "Option::is_none")]
        pub source: Option<String> => opt(string),
        /// Absolute path in the container.
        pub target: String => required(string, NO_TARGET),
        /// Refuses writes through this mount.
        #[serde(skip_serializing_if = "is_false")]
        pub read_only: bool => or_default(boolean),
        /// `consistent`, `cached` or `delegated`; without effect on Linux.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub consistency: Option<String> => opt(string),
        /// For binds only.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub bind: Option<BindOptions> => opt(BindOptions::read),
        /// For volumes only.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub volume: Option<VolumeOptions> => opt(VolumeOptions::read),
        /// For tmpfs only.
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

/// What a mount shows in the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MountKind {
    /// A file or folder of the host.
    Bind,
    /// A volume of the engine, named or anonymous.
    Volume,
    /// Memory, gone with the container.
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
    /// How a file or folder of the host is mounted.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
    pub struct BindOptions = "bind" {
        /// How mounts made below it pass between host and container: `rprivate`, `rshared`, `rslave`, or one of these
        /// without the `r`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub propagation: Option<String> => opt(one_of(&["private", "rprivate", "shared", "rshared", "slave", "rslave"])),
        /// Make the folder on the host when it is missing.
        #[serde(skip_serializing_if = "is_false")]
        pub create_host_path: bool => or_default(boolean),
        /// What becomes of mounts below the source: `enabled`, `disabled`, `writable` or `readonly`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub recursive: Option<String> => opt(one_of(&["enabled", "disabled", "writable", "readonly"])),
        /// `z` (shared) or `Z` (private): labels the source anew for SELinux.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub selinux: Option<String> => opt(one_of(&["z", "Z"])),
    }
}

keyed! {
    /// How a volume is mounted.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
    pub struct VolumeOptions = "volume" {
        /// Of an anonymous volume that is made for the mount.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub labels: BTreeMap<String, String> => or_default(texts),
        /// Leaves an empty volume empty instead of copying the image's files into it.
        #[serde(skip_serializing_if = "is_false")]
        pub nocopy: bool => or_default(boolean),
        /// A folder in the volume, relative, to mount instead of all of it.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub subpath: Option<String> => opt(string),
    }
}

keyed! {
    /// How memory is mounted.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
    pub struct TmpfsOptions = "tmpfs" {
        /// Bytes.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "form::bytes")]
        pub size: Option<i64> => opt(bytes),
        /// Permission bits of its root folder.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub mode: Option<u32> => opt(permissions),
    }
}
