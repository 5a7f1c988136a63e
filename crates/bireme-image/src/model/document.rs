//! Manifests and indexes, read and checked.
//!
//! Source: OCI image specification, `manifest.md`, `image-index.md` and `descriptor.md`.

use oci_spec::image::{ImageIndex, ImageManifest};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::media_type::{DOCKER_LIST, DOCKER_MANIFEST, LayerForm, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST};
use super::spin::{self, SPIN_CONFIG};
use crate::digest::Digest;
use crate::error::ImageError;
use crate::platform::Platform;

/// Largest manifest, index or configuration that is read, in bytes. Source: the limit of distribution and containerd.
pub(crate) const DOCUMENT_LIMIT: u64 = 4 << 20;

/// Content by name, type and length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

impl Descriptor {
    /// How the layer is wrapped that it describes.
    ///
    /// # Errors
    /// `MediaType` for what is no layer we know.
    pub(crate) fn form(&self) -> Result<LayerForm, ImageError> {
        LayerForm::of(&self.media_type).ok_or_else(|| ImageError::MediaType {
            what: format!("layer {}", self.digest),
            media_type: self.media_type.clone(),
        })
    }

    fn from_oci(oci: &oci_spec::image::Descriptor) -> Result<Self, ImageError> {
        Ok(Self {
            media_type: oci.media_type().to_string(),
            digest: oci.digest().to_string().parse()?,
            size: oci.size(),
        })
    }
}

/// A manifest or an index, read and checked.
#[derive(Clone, Debug)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Vec<(Descriptor, Option<Platform>)>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
    /// Declared for artifacts, else the configuration's type if it is none of an image.
    pub(crate) artifact_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<u32>,
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
}

impl Document {
    /// Reads a manifest or index. `what` names it in errors.
    pub(crate) fn parse(bytes: &[u8], what: &str) -> Result<Self, ImageError> {
        if bytes.len() as u64 > DOCUMENT_LIMIT {
            return Err(ImageError::TooLarge { what: what.to_owned(), limit: DOCUMENT_LIMIT });
        }
        let shape: Shape = serde_json::from_slice(bytes).map_err(|error| ImageError::malformed(what, error))?;
        if shape.schema_version != Some(2) {
            let found = shape.schema_version.map_or("none".to_owned(), |version| version.to_string());
            return Err(ImageError::malformed(what, format!("schema version is {found}, only 2 is supported")));
        }
        // Two readers would see two images under one digest. Source: CVE-2021-41190.
        if shape.manifests.is_some() && (shape.config.is_some() || shape.layers.is_some()) {
            return Err(ImageError::malformed(what, "it is a manifest and an index at once"));
        }
        let is_index = match shape.media_type.as_deref() {
            Some(OCI_INDEX | DOCKER_LIST) => true,
            Some(OCI_MANIFEST | DOCKER_MANIFEST) => false,
            None => shape.manifests.is_some(),
            Some(other) => {
                return Err(ImageError::MediaType { what: what.to_owned(), media_type: other.to_owned() });
            }
        };
        if is_index {
            let index = ImageIndex::from_reader(bytes).map_err(|error| ImageError::malformed(what, error))?;
            let mut entries = Vec::new();
            for entry in index.manifests() {
                let platform = entry.platform().as_ref().map(|platform| {
                    Platform::new(
                        &platform.os().to_string(),
                        &platform.architecture().to_string(),
                        platform.variant().as_deref().unwrap_or_default(),
                    )
                });
                entries.push((Descriptor::from_oci(entry)?, platform));
            }
            return Ok(Self::Index(entries));
        }
        let manifest = ImageManifest::from_reader(bytes).map_err(|error| ImageError::malformed(what, error))?;
        let config = Descriptor::from_oci(manifest.config())?;
        let layers = manifest.layers().iter().map(Descriptor::from_oci).collect::<Result<_, _>>()?;
        let artifact_type = manifest.artifact_type().as_ref().map(ToString::to_string);
        Manifest { config, layers, artifact_type }.checked(what).map(Self::Manifest)
    }
}

impl Manifest {
    /// Whether it is a component in the form of an artifact rather than of an image with a root filesystem.
    pub(crate) fn is_wasm_artifact(&self) -> bool {
        self.config.media_type.starts_with("application/vnd.wasm.config.")
            || self.layers.iter().any(|layer| layer.form().is_ok_and(|form| form == LayerForm::Wasm))
    }

    /// The manifest of an image as bytes, always the same for the same content.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        let descriptor = |descriptor: &Descriptor| {
            serde_json::json!({
                "mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size,
            })
        };
        let layers: Vec<_> = self.layers.iter().map(descriptor).collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(&self.config), "layers": layers,
        });
        manifest.to_string().into_bytes()
    }

    fn checked(self, what: &str) -> Result<Self, ImageError> {
        if self.config.media_type == SPIN_CONFIG {
            let is_component = |layer: &&Descriptor| layer.form().is_ok_and(|form| form == LayerForm::Wasm);
            let components = self.layers.iter().filter(is_component).count();
            spin::check(components, self.layers.len() - components, what)?;
        }
        for layer in &self.layers {
            layer.form()?;
        }
        if self.config.size > DOCUMENT_LIMIT {
            return Err(ImageError::TooLarge { what: format!("the configuration of {what}"), limit: DOCUMENT_LIMIT });
        }
        if self.is_wasm_artifact() {
            if self.layers.len() != 1 {
                return Err(ImageError::malformed(
                    what,
                    format!("a Wasm artifact has one layer, the component; this one has {}", self.layers.len()),
                ));
            }
            self.layers[0].form().and_then(|form| match form {
                LayerForm::Wasm => Ok(()),
                _ => Err(ImageError::malformed(what, "the layer of a Wasm artifact must be of type application/wasm")),
            })?;
        } else if !matches!(
            self.config.media_type.as_str(),
            OCI_CONFIG | "application/vnd.docker.container.image.v1+json"
        ) {
            return Err(ImageError::MediaType {
                what: format!("the configuration of {what}"),
                media_type: self.config.media_type,
            });
        }
        Ok(self)
    }
}
