//! Writing images as an archive that is an OCI layout and what `docker load` reads at once.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::format::{SaveEntry, blob_name};
use crate::digest::{Digest, Summed};
use crate::error::{ImageError, StoreContext as _};
use crate::model::{Descriptor, OCI_INDEX, OCI_MANIFEST};
use crate::record::Record;
use crate::reference::Reference;
use crate::store::Inner;

/// An image in an archive.
#[derive(Clone)]
pub(crate) struct Saved {
    pub(crate) record: Record,
    pub(crate) name: Option<Reference>,
    /// What the index of the archive says of it beside its name.
    pub(crate) annotations: BTreeMap<String, String>,
}

/// `annotations` is what the index of the archive says of the whole.
pub(crate) fn write_archive(
    inner: &Inner,
    images: &[Saved],
    annotations: &BTreeMap<String, String>,
    out: impl io::Write,
) -> Result<(), ImageError> {
    let mut out = Out { tar: tar::Builder::new(out), written: HashSet::new() };
    let mut index: Vec<serde_json::Value> = Vec::new();
    let mut saved: Vec<SaveEntry> = Vec::new();
    for Saved { record: image, name: reference, annotations: said } in images {
        for layer in &image.layers {
            let path = inner.blob_path(&layer.blob.digest);
            let file = std::fs::File::open(&path).during("open the layer", &path)?;
            out.add_layer(&layer.blob, file)?;
        }
        let manifest = Digest::of(&image.manifest);
        let config = Digest::of(&image.config);
        out.add(&blob_name(&config), image.config.len() as u64, image.config.as_slice())?;
        out.add(&blob_name(&manifest), image.manifest.len() as u64, image.manifest.as_slice())?;
        let mut said = said.clone();
        if let Some(reference) = reference {
            let tag = reference.tag().unwrap_or_default().to_owned();
            said.insert("io.containerd.image.name".to_owned(), reference.to_string());
            said.insert("org.opencontainers.image.ref.name".to_owned(), tag);
        }
        let mut platform = serde_json::json!({ "os": image.platform.os, "architecture": image.platform.architecture });
        if !image.platform.variant.is_empty() {
            platform["variant"] = image.platform.variant.clone().into();
        }
        let mut entry = serde_json::json!({
            "mediaType": OCI_MANIFEST, "digest": manifest, "size": image.manifest.len(), "platform": platform,
        });
        if !said.is_empty() {
            entry["annotations"] = serde_json::json!(said);
        }
        if !index.contains(&entry) {
            index.push(entry);
        }
        if image.artifact_type.is_none() {
            let config = blob_name(&config);
            let tag = reference.as_ref().map(Reference::familiar);
            match saved.iter_mut().find(|entry| entry.config == config) {
                Some(entry) => entry.repo_tags.get_or_insert_default().extend(tag),
                None => saved.push(SaveEntry {
                    config,
                    repo_tags: Some(tag.into_iter().collect()),
                    layers: Some(image.layers.iter().map(|layer| blob_name(&layer.blob.digest)).collect()),
                }),
            }
        }
    }
    let mut index = serde_json::json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": index });
    if !annotations.is_empty() {
        index["annotations"] = serde_json::json!(annotations);
    }
    let documents = [
        ("index.json", serde_json::to_vec(&index)),
        ("manifest.json", serde_json::to_vec(&saved)),
        ("oci-layout", Ok(br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())),
    ];
    for (name, bytes) in documents {
        let bytes = bytes.map_err(|error| ImageError::malformed(name, error))?;
        out.add(name, bytes.len() as u64, bytes.as_slice())?;
    }
    let mut inner = out.tar.into_inner().map_err(|source| ImageError::Output { source })?;
    inner.flush().map_err(|source| ImageError::Output { source })
}

struct Out<W: io::Write> {
    tar: tar::Builder<W>,
    written: HashSet<String>,
}

impl<W: io::Write> Out<W> {
    /// Adds a layer's blob, and sees whether it is what it is called: nobody could load an archive with another in it.
    fn add_layer(&mut self, blob: &Descriptor, content: impl io::Read) -> Result<(), ImageError> {
        let name = blob_name(&blob.digest);
        if self.written.contains(&name) {
            return Ok(());
        }
        let mut sum = Sha256::new();
        self.add(&name, blob.size, Summed { from: content, sum: &mut sum })?;
        let actual = Digest::from_hash(sum);
        if actual != blob.digest {
            return Err(ImageError::DigestMismatch {
                what: format!("layer {}", blob.digest),
                expected: blob.digest.clone(),
                actual,
            });
        }
        Ok(())
    }

    /// Content that is not as long as is said would be read as something else, or something else as it.
    fn add(&mut self, name: &str, size: u64, content: impl io::Read) -> Result<(), ImageError> {
        if !self.written.insert(name.to_owned()) {
            return Ok(());
        }
        let mut header = tar::Header::new_ustar();
        header.set_size(size);
        header.set_mode(0o644);
        header.set_mtime(0);
        let mut content = content.take(size);
        self.tar
            .append_data(&mut header, Path::new(name), &mut content)
            .map_err(|source| ImageError::Output { source })?;
        match content.limit() {
            0 => Ok(()),
            short => Err(ImageError::SizeMismatch { what: name.to_owned(), expected: size, actual: size - short }),
        }
    }
}
