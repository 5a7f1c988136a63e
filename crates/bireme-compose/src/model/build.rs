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
        #[serde(skip_serializing_if = "Option::is_none")]
        pub dockerfile_inline: Option<String> => opt(string),
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub args: BTreeMap<String, String> => later,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub cache_from: Vec<String> => or_default(strings),
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub extra_hosts: Vec<String> => or_default(strings),
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub labels: BTreeMap<String, String> => or_default(texts),
        #[serde(skip_serializing_if = "Option::is_none")]
        pub network: Option<String> => opt(string),
        #[serde(skip_serializing_if = "is_false")]
        pub no_cache: bool => or_default(boolean),
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub platforms: Vec<String> => or_default(strings),
        #[serde(skip_serializing_if = "is_false")]
        pub pull: bool => or_default(boolean),
        /// Bytes.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "form::bytes")]
        pub shm_size: Option<i64> => opt(bytes),
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub tags: Vec<String> => or_default(strings),
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
