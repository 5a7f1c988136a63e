//! What a registry has under a name, without pulling it.

use serde_json::Value;

use crate::error::ImageError;
use crate::pull::RegistryAuth;
use crate::reference::Reference;
use crate::registry::Remote;
use crate::{Digest, ImageStore};

/// A manifest or index as a registry has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    pub media_type: String,
    pub digest: Digest,
    /// Bytes of the manifest itself.
    pub size: u64,
    /// What it can run on, each as the image specification has it; empty for artifacts that do not say.
    pub platforms: Vec<Value>,
}

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

impl ImageStore {
    /// Asks the registry of `reference`, mirrors first.
    ///
    /// # Errors
    /// `NotFound` when it has no such name; `Denied` when it wants to know who asks; those of reaching it.
    /// # Cancel safety
    /// Nothing is stored.
    ///
    /// Source: Docker Engine API, `DistributionInspect`.
    pub async fn look_up(&self, reference: &Reference, auth: Option<RegistryAuth>) -> Result<Distribution, ImageError> {
        let mut last = None;
        for remote in Remote::all(&self.inner.settings, reference, auth.as_ref())? {
            match look_up_at(&remote, reference).await {
                Ok(found) => return Ok(found),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or(ImageError::NotFound { name: reference.familiar() }))
    }
}

async fn look_up_at(remote: &Remote, reference: &Reference) -> Result<Distribution, ImageError> {
    let (bytes, digest) = remote.manifest(reference.version()).await?;
    let bad = |reason: String| ImageError::Registry {
        registry: remote.host().to_owned(),
        attempt: format!("read the manifest of {}", reference.familiar()),
        reason,
    };
    let manifest: Value = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
    let listed = manifest["manifests"].as_array();
    let media_type =
        manifest["mediaType"].as_str().unwrap_or(if listed.is_some() { INDEX } else { MANIFEST }).to_owned();
    let platforms = match listed {
        Some(listed) => listed.iter().map(|one| one["platform"].clone()).filter(Value::is_object).collect(),
        None => {
            let config = &manifest["config"];
            let place: Digest = config["digest"]
                .as_str()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| bad("it names no configuration".to_owned()))?;
            let size = config["size"].as_u64().unwrap_or(0);
            let config = remote.document(&place, size, "the configuration").await?;
            let config: Value = serde_json::from_slice(&config).map_err(|error| bad(error.to_string()))?;
            let mut platform = serde_json::Map::new();
            for key in ["architecture", "os", "os.version", "os.features", "variant"] {
                if let Some(value) = config.get(key).filter(|value| !value.is_null()) {
                    platform.insert(key.to_owned(), value.clone());
                }
            }
            Vec::from_iter((!platform.is_empty()).then_some(Value::Object(platform)))
        }
    };
    Ok(Distribution { media_type, digest, size: bytes.len() as u64, platforms })
}
