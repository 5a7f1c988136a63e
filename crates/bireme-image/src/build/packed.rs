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
use crate::model::{Descriptor, OCI_INDEX, OCI_MANIFEST};
use crate::platform::Platform;
use crate::push::{Packing, Ready, repacked};
use crate::reference::Reference;

/// The images of a build with their layers packed.
pub struct PackedOutput {
    images: Vec<Packed>,
    /// What names stand for, where that is several images.
    index: Option<Vec<u8>>,
    annotations: Annotations,
    _claims: Vec<GcGuard>,
}

struct Packed {
    platform: Platform,
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
        let mut images = Vec::new();
        for stage in &self.stages {
            let record = self.finished(stage)?;
            let mut layers = Vec::new();
            for layer in &record.layers {
                layers.push(Ready::of(&self.store.inner, layer, packing).await?);
            }
            let blobs: Vec<Descriptor> = layers.iter().map(|layer| layer.blob.clone()).collect();
            let manifest = repacked(&record.manifest, &blobs);
            images.push(Packed { platform: record.platform, layers, config: record.config, manifest });
        }
        let annotations = self.annotations.clone();
        let index =
            (images.len() > 1).then(|| index(images.iter().map(|image| image.entry(&annotations)), &annotations.index));
        Ok(PackedOutput { images, index, annotations, _claims: self.claims() })
    }
}

impl Packed {
    /// What an index says of it.
    fn entry(&self, annotations: &Annotations) -> Value {
        let mut entry = json!({
            "mediaType": OCI_MANIFEST, "digest": Digest::of(&self.manifest), "size": self.manifest.len(),
            "platform": self.platform.to_oci(),
        });
        let said = annotations.of_descriptor(&self.platform);
        if !said.is_empty() {
            entry["annotations"] = json!(said);
        }
        entry
    }
}

fn index(entries: impl Iterator<Item = Value>, annotations: &Pairs) -> Vec<u8> {
    let mut document = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries.collect::<Vec<_>>() });
    if !annotations.is_empty() {
        document["annotations"] = json!(annotations);
    }
    document.to_string().into_bytes()
}

impl PackedOutput {
    /// Describes what names stand for, as in an index: the image, or the index of several.
    pub fn descriptor(&self) -> Value {
        match (&self.index, &self.images[..]) {
            (None, [image]) => image.entry(&self.annotations),
            (index, _) => {
                let index = index.as_deref().unwrap_or_default();
                json!({ "mediaType": OCI_INDEX, "digest": Digest::of(index), "size": index.len() })
            }
        }
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
        let descriptor = self.descriptor();
        let named = names.iter().map(|name| {
            let mut entry = descriptor.clone();
            for (key, value) in name_annotations(name) {
                entry["annotations"][key] = value.into();
            }
            entry
        });
        let entries = if names.is_empty() { vec![descriptor.clone()] } else { named.collect() };
        // Of several images, their own index says it.
        let said = if self.index.is_none() { self.annotations.index.clone() } else { Pairs::new() };
        out.add_document("index.json", index(entries.into_iter(), &said))?;
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
