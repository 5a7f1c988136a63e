//! How a service's image is built.

use std::collections::BTreeMap;

use serde::Serialize;

use super::form::{self, is_false};
use crate::keys::reason::{BUILDKIT, WINDOWS};
use crate::read::keyed;
use crate::read::value::{boolean, bytes, string, strings, texts};

keyed! {
    /// How an image is built; what the classic builder takes.
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    pub struct Build = "build" {
        /// An absolute folder, or a URL.
        pub context: String => required(string, "has no context; name the folder to build from"),
        /// Relative to the context, or absolute; absent when `dockerfile_inline` is there.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub dockerfile: Option<String> => opt(string),
        /// The Dockerfile itself; excludes `dockerfile`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub dockerfile_inline: Option<String> => opt(string),
        /// Arguments of the build, those without a value resolved from the variables or left out.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub args: BTreeMap<String, String> => later,
        /// Images whose layers may be reused.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub cache_from: Vec<String> => or_default(strings),
        /// `name=address` pairs for the commands of the build.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub extra_hosts: Vec<String> => or_default(strings),
        /// Of the image that is built.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub labels: BTreeMap<String, String> => or_default(texts),
        /// Which network the commands of the build have, such as `none` or `host`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub network: Option<String> => opt(string),
        /// Runs every step again.
        #[serde(skip_serializing_if = "is_false")]
        pub no_cache: bool => or_default(boolean),
        /// Such as `linux/arm64`.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub platforms: Vec<String> => or_default(strings),
        /// Fetches base images even when the store has them.
        #[serde(skip_serializing_if = "is_false")]
        pub pull: bool => or_default(boolean),
        /// Bytes.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "form::bytes")]
        pub shm_size: Option<i64> => opt(bytes),
        /// Names of the image besides that of the service.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub tags: Vec<String> => or_default(strings),
        /// The stage at which the build ends; absent: the last.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub target: Option<String> => opt(string),
    }
    refused:
        "additional_contexts" => BUILDKIT,
        "cache_to" => BUILDKIT,
        "entitlements" => BUILDKIT,
        "isolation" => WINDOWS,
        "privileged" => BUILDKIT,
        "provenance" => BUILDKIT,
        "sbom" => BUILDKIT,
        "secrets" => BUILDKIT,
        "ssh" => BUILDKIT,
        "ulimits" => "limits of build steps are not offered; leave it out";
}
