//! Writing images as an archive that is an OCI layout and what `docker load` reads at once.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::format::{SaveEntry, blob_name};
use crate::digest::{Digest, Summed};
use crate::error::{ImageError, StoreContext as _};
use crate::model::{Descriptor, index_entry, index_of};
use crate::record::Record;
use crate::reference::Reference;
use crate::store::Inner;

/// An image in an archive.
pub(super) struct Saved {
    pub(super) record: Record,
    pub(super) name: Option<Reference>,
}

/// Writes images as they are stored.
pub(super) fn write_archive(inner: &Inner, images: &[Saved], out: impl io::Write) -> Result<(), ImageError> {
    let mut out = ArchiveWriter::new(out);
    let mut index: Vec<serde_json::Value> = Vec::new();
    let mut saved: Vec<SaveEntry> = Vec::new();
    for Saved { record: image, name: reference } in images {
        for layer in &image.layers {
            let path = inner.blob_path(&layer.blob.digest);
            let file = std::fs::File::open(&path).during("open the layer", &path)?;
            out.add_layer(&layer.blob, file)?;
        }
        let config = Digest::of(&image.config);
        out.add_blob(&image.config)?;
        out.add_blob(&image.manifest)?;
        let named = reference.iter().flat_map(name_annotations).map(|(key, value)| (key.to_owned(), value)).collect();
        let entry = index_entry(&image.manifest, &image.platform, &named);
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
    out.add_document("index.json", index_of(&index, &BTreeMap::new()))?;
    let saved = serde_json::to_vec(&saved);
    out.add_document("manifest.json", saved.map_err(|error| ImageError::malformed("manifest.json", error))?)?;
    out.finish()
}

/// What the index of a layout says of an image that has a name.
pub(crate) fn name_annotations(name: &Reference) -> [(&'static str, String); 2] {
    let tag = name.tag().unwrap_or_default().to_owned();
    [("io.containerd.image.name", name.to_string()), ("org.opencontainers.image.ref.name", tag)]
}

/// Writes a layout as an archive, each file once.
pub(crate) struct ArchiveWriter<W: io::Write> {
    tar: tar::Builder<W>,
    written: HashSet<String>,
}

impl<W: io::Write> ArchiveWriter<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { tar: tar::Builder::new(out), written: HashSet::new() }
    }

    /// Adds a document by its digest.
    pub(crate) fn add_blob(&mut self, document: &[u8]) -> Result<(), ImageError> {
        self.add(&blob_name(&Digest::of(document)), document.len() as u64, document)
    }

    /// Adds a document by its name.
    pub(crate) fn add_document(&mut self, name: &str, document: Vec<u8>) -> Result<(), ImageError> {
        self.add(name, document.len() as u64, document.as_slice())
    }

    /// Says which layout it is, and ends the archive.
    pub(crate) fn finish(mut self) -> Result<(), ImageError> {
        self.add_document("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())?;
        let mut inner = self.tar.into_inner().map_err(|source| ImageError::Output { source })?;
        inner.flush().map_err(|source| ImageError::Output { source })
    }

    /// Adds a layer's blob, and sees whether it is what it is called: nobody could load an archive with another in it.
    pub(crate) fn add_layer(&mut self, blob: &Descriptor, content: impl io::Read) -> Result<(), ImageError> {
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
