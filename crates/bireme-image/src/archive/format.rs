//! The tables of contents of an archive.
//!
//! Source: github.com/moby/docker-image-spec, `v1.2.md`; OCI image specification, `image-layout.md`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::ImageError;
use crate::reference::Reference;

/// An entry of `manifest.json`. Source: github.com/moby/docker-image-spec, `v1.2.md`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SaveEntry {
    pub(crate) config: String,
    #[serde(default)]
    pub(crate) repo_tags: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) layers: Option<Vec<String>>,
}

/// `index.json` of a layout: as any index, but what matters are the names in its annotations.
#[derive(Deserialize)]
pub(super) struct LayoutIndex {
    #[serde(default)]
    pub(super) manifests: Vec<LayoutEntry>,
}

#[derive(Deserialize)]
pub(super) struct LayoutEntry {
    pub(super) digest: Digest,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

/// The name a layout gives to one of its entries.
pub(super) fn layout_names(entry: &LayoutEntry) -> Result<Vec<Reference>, ImageError> {
    let annotation = |key: &str| entry.annotations.as_ref().and_then(|all| all.get(key)).map(String::as_str);
    let name = annotation("io.containerd.image.name").or_else(|| {
        // By the specification a free text; some writers put a whole reference there, others only a tag.
        annotation("org.opencontainers.image.ref.name").filter(|name| *name != "latest")
    });
    match name {
        Some(name) => Ok(vec![Reference::parse(name)?]),
        None => Ok(Vec::new()),
    }
}

/// Where a layout has a blob.
pub(crate) fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
