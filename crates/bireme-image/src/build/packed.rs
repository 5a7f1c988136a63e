//! The images of a build as others get them: layers packed, and documents that say how.
//!
//! Source: BuildKit, `exporter/oci/export.go`; OCI image specification, `image-layout.md`.

use std::io::Write;
use std::sync::Arc;

use serde_json::{Value, json};

use super::annotations::{Annotations, Pairs};
use super::output::BuildOutput;
use crate::archive::{ArchiveWriter, SaveEntry, blob_name, name_annotations};
use crate::blocking::blocking;
use crate::content_store::ContentStore;
use crate::digest::Digest;
use crate::error::{ImageError, StoreContext as _};
use crate::guard::GcGuard;
use crate::model::{Descriptor, OCI_INDEX, index_entry, index_of};
use crate::push::{Packing, Ready, repacked};
use crate::reference::Reference;

/// The images of a build with their layers packed.
pub struct PackedOutput {
    images: Vec<Packed>,
    /// What names stand for, where that is several images.
    index: Option<Vec<u8>>,
    /// Of the image, or of the index of several.
    descriptor: Value,
    annotations: Annotations,
    _claims: Vec<GcGuard>,
}

struct Packed {
    layers: Vec<Ready>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

/// Whom an archive is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveFor {
    /// Whoever reads OCI layouts.
    Oci,
    /// `docker load`, too.
    Docker,
}

impl BuildOutput {
    /// Packs its layers and makes the documents that say how.
    ///
    /// # Errors
    /// What reading layers gives; `NoSpace`.
    /// # Cancel safety
    /// Dropping the future, or what it answers, deletes what was packed.
    pub async fn packed(&self, packing: Packing) -> Result<PackedOutput, ImageError> {
        let (mut images, mut entries) = (Vec::new(), Vec::new());
        for stage in &self.stages {
            let record = self.finished(stage)?;
            let mut layers = Vec::new();
            for layer in &record.layers {
                layers.push(Ready::of(&self.store.inner, layer, packing).await?);
            }
            let blobs: Vec<Descriptor> = layers.iter().map(|layer| layer.blob.clone()).collect();
            let manifest = repacked(&record.manifest, &blobs);
            entries.push(index_entry(&manifest, &record.platform, &self.annotations.of_descriptor(&record.platform)));
            images.push(Packed { layers, config: record.config, manifest });
        }
        let annotations = self.annotations.clone();
        let (index, descriptor) = match &entries[..] {
            [image] => (None, image.clone()),
            several => {
                let index = index_of(several, &annotations.index);
                let descriptor = json!({ "mediaType": OCI_INDEX, "digest": Digest::of(&index), "size": index.len() });
                (Some(index), descriptor)
            }
        };
        Ok(PackedOutput { images, index, descriptor, annotations, _claims: self.claims() })
    }
}

impl PackedOutput {
    /// Describes what names stand for, as in an index: the image, or the index of several.
    pub fn descriptor(&self) -> &Value {
        &self.descriptor
    }

    /// Of the configuration of the one image that there is.
    pub fn config_digest(&self) -> Option<Digest> {
        match &self.images[..] {
            [image] => Some(Digest::of(&image.config)),
            _ => None,
        }
    }

    /// Writes all images as an archive that is an OCI layout.
    ///
    /// # Errors
    /// `Output` if `out` fails; `DigestMismatch` and `SizeMismatch` for a layer that is damaged.
    /// # Cancel safety
    /// Dropping the future does not end the writing: it ends with `out`, or when `out` fails.
    pub async fn write_archive(
        self: Arc<Self>,
        names: &[Reference],
        whom: ArchiveFor,
        out: impl Write + Send + 'static,
    ) -> Result<(), ImageError> {
        let names = names.to_vec();
        blocking("write images", move || self.write(&names, whom, out)).await
    }

    fn write(&self, names: &[Reference], whom: ArchiveFor, out: impl Write) -> Result<(), ImageError> {
        let mut out = ArchiveWriter::new(out);
        for image in &self.images {
            for layer in &image.layers {
                let file = std::fs::File::open(&layer.path).during("open the layer", &layer.path)?;
                out.add_layer(&layer.blob, file)?;
            }
            out.add_blob(&image.config)?;
            out.add_blob(&image.manifest)?;
        }
        if let Some(index) = &self.index {
            out.add_blob(index)?;
        }
        let named = names.iter().map(|name| {
            let mut entry = self.descriptor.clone();
            for (key, value) in name_annotations(name) {
                entry["annotations"][key] = value.into();
            }
            entry
        });
        let entries = if names.is_empty() { vec![self.descriptor.clone()] } else { named.collect() };
        // Of several images, their own index says it.
        let said = if self.index.is_none() { self.annotations.index.clone() } else { Pairs::new() };
        out.add_document("index.json", index_of(&entries, &said))?;
        if let (ArchiveFor::Docker, [image]) = (whom, &self.images[..]) {
            let entry = SaveEntry {
                config: blob_name(&Digest::of(&image.config)),
                repo_tags: Some(names.iter().map(Reference::familiar).collect()),
                layers: Some(image.layers.iter().map(|layer| blob_name(&layer.blob.digest)).collect()),
            };
            let saved = serde_json::to_vec(&[entry]);
            out.add_document("manifest.json", saved.map_err(|error| ImageError::malformed("manifest.json", error))?)?;
        }
        out.finish()
    }

    /// Writes all images to a client's content store; who reads it finds them by [`Self::descriptor`].
    ///
    /// # Errors
    /// What reading layers gives, and what the client answers.
    /// # Cancel safety
    /// Dropping the future leaves layers that nothing refers to.
    pub async fn write_to(&self, store: &dyn ContentStore) -> Result<(), ImageError> {
        for image in &self.images {
            for Ready { blob, path, .. } in &image.layers {
                if !store.has(&blob.digest).await? {
                    let file = tokio::fs::File::open(path).await.during("open the layer", path)?;
                    store.write(&blob.digest, blob.size, Box::new(file)).await?;
                }
            }
        }
        let documents = self.images.iter().flat_map(|image| [&image.config, &image.manifest]);
        for document in documents.chain(&self.index) {
            let (digest, content) = (Digest::of(document), std::io::Cursor::new(document.clone()));
            store.write(&digest, document.len() as u64, Box::new(content)).await?;
        }
        Ok(())
    }
}
