//! An image as it is recorded, and how one is made of its documents, which strangers wrote and which have to fit each other.

use crate::digest::{Digest, ImageId};
use crate::error::ImageError;
use crate::model::{ConfigFile, Counts, Descriptor, Manifest, OCI_LAYER, SPIN_CONFIG, spin_config};
use crate::platform::Platform;

/// An image as it is recorded.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) id: ImageId,
    pub(crate) manifest: Vec<u8>,
    pub(crate) config: Vec<u8>,
    pub(crate) config_media_type: String,
    pub(crate) artifact_type: Option<String>,
    pub(crate) platform: Platform,
    pub(crate) layers: Vec<Layer>,
}

impl Record {
    pub(crate) fn config_file(&self) -> Result<ConfigFile, ImageError> {
        if self.config_media_type == SPIN_CONFIG {
            return Ok(spin_config(&self.config));
        }
        let parsed = ConfigFile::parse(&self.config, self.id.as_str());
        // The configuration of an artifact may be anything; where it is an image's, it is read as one.
        if self.artifact_type.is_some() { Ok(parsed.unwrap_or_default()) } else { parsed }
    }
}

/// A layer of an image: the blob as it was fetched, and the digest of what it unpacks to.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) diff_id: Digest,
    pub(crate) blob: Descriptor,
}

impl Layer {
    /// A layer that is stored as it is, so that it unpacks to what its blob's name says.
    pub(crate) fn plain(digest: Digest, size: u64) -> Self {
        let blob = Descriptor { media_type: OCI_LAYER.to_owned(), digest: digest.clone(), size };
        Self { diff_id: digest, blob }
    }
}

/// Layers of one image. Source: the kernel's overlayfs takes 500.
pub(crate) const MAX_LAYERS: usize = 500;

/// An image as it will be recorded, from its documents; checks that they fit each other.
pub(crate) fn make_record(
    manifest_bytes: Vec<u8>,
    manifest: &Manifest,
    config: Vec<u8>,
    listed: Option<&Platform>,
) -> Result<Record, ImageError> {
    let digest = &manifest.config.digest;
    if Digest::of(&config) != *digest {
        return Err(ImageError::DigestMismatch {
            what: format!("configuration {digest}"),
            expected: digest.clone(),
            actual: Digest::of(&config),
        });
    }
    let artifact = manifest.is_wasm_artifact();
    let file = if artifact {
        ConfigFile::of_artifact(&config)
    } else {
        let malformed = |reason: String| ImageError::malformed(format!("configuration {digest}"), reason);
        let counts = Counts::of(&config).map_err(|error| malformed(error.to_string()))?;
        counts.check().map_err(malformed)?;
        ConfigFile::parse(&config, digest.as_str())?
    };
    let (id, diff_ids) = if artifact {
        // Configurations of artifacts are often all the same, `{}`; the one layer is what it is.
        (ImageId(Digest::of(&manifest_bytes)), manifest.layers.iter().map(|layer| layer.digest.clone()).collect())
    } else {
        (ImageId(digest.clone()), file.rootfs.diff_ids.clone())
    };
    if diff_ids.len() != manifest.layers.len() {
        return Err(ImageError::malformed(
            format!("configuration {digest}"),
            format!("it lists {} layers where the manifest has {}", diff_ids.len(), manifest.layers.len()),
        ));
    }
    if diff_ids.len() > MAX_LAYERS {
        return Err(ImageError::malformed(format!("configuration {digest}"), too_many_layers(diff_ids.len())));
    }
    let layers = diff_ids.into_iter().zip(&manifest.layers);
    let platform = settled(file.platform(), listed, artifact);
    if !platform.is_plain() {
        let reason = format!("its platform {:?} is none: write os/architecture[/variant]", platform.to_string());
        return Err(ImageError::malformed(format!("configuration {digest}"), reason));
    }
    Ok(Record {
        id,
        platform,
        artifact_type: artifact
            .then(|| manifest.artifact_type.clone().unwrap_or_else(|| manifest.config.media_type.clone())),
        config_media_type: manifest.config.media_type.clone(),
        layers: layers.map(|(diff_id, blob)| Layer { diff_id, blob: blob.clone() }).collect(),
        manifest: manifest_bytes,
        config,
    })
}

pub(crate) fn too_many_layers(listed: usize) -> String {
    format!("it lists {listed} layers, and no image may have more than {MAX_LAYERS}")
}

/// The platform an image is recorded with: its configuration's, else the one its index gives.
fn settled(own: Platform, listed: Option<&Platform>, artifact: bool) -> Platform {
    if !own.os.is_empty() && !own.architecture.is_empty() {
        return own;
    }
    match listed {
        Some(listed) => listed.clone(),
        None if artifact => Platform::wasm(),
        None => Platform::host(),
    }
}
