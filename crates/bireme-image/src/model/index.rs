//! Indexes of images.
//!
//! Source: OCI image specification, `image-index.md`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::media_type::{OCI_INDEX, OCI_MANIFEST};
use crate::digest::Digest;
use crate::platform::Platform;

/// The entry of an image in an index.
pub(crate) fn index_entry(manifest: &[u8], platform: &Platform, annotations: &BTreeMap<String, String>) -> Value {
    let mut entry = json!({
        "mediaType": OCI_MANIFEST, "digest": Digest::of(manifest), "size": manifest.len(), "platform": platform.to_oci(),
    });
    if !annotations.is_empty() {
        entry["annotations"] = json!(annotations);
    }
    entry
}

/// An index of these entries.
pub(crate) fn index_of(entries: &[Value], annotations: &BTreeMap<String, String>) -> Vec<u8> {
    let mut index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries });
    if !annotations.is_empty() {
        index["annotations"] = json!(annotations);
    }
    index.to_string().into_bytes()
}
