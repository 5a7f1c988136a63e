//! What a registry has under a name, without pulling it.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::auth::RegistryAuth;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::model::First;
use crate::reference::Reference;
use crate::registry::Sources;
use crate::store::ImageStore;

/// A manifest or index as a registry has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// Of the manifest or index: what it says of itself, else its kind in the OCI specification.
    pub media_type: String,
    /// Of the manifest or index.
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
        let sources = Sources::of(&self.inner.settings, reference, auth.as_ref())?;
        let (bytes, digest) = sources.manifest(reference.version()).await?;
        told(&sources, reference, &bytes, digest).await
    }

    /// The manifest or index that a registry has under a name, mirrors first, as it is.
    ///
    /// # Errors
    /// As [`Self::look_up`].
    /// # Cancel safety
    /// Nothing is stored.
    pub async fn manifest(&self, reference: &Reference, auth: Option<RegistryAuth>) -> Result<Raw, ImageError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Kind {
            media_type: Option<String>,
            manifests: Option<IgnoredAny>,
        }
        let sources = Sources::of(&self.inner.settings, reference, auth.as_ref())?;
        let (bytes, digest) = sources.manifest(reference.version()).await?;
        let what = format!("the manifest of {}", reference.familiar());
        let kind: Kind = serde_json::from_slice(&bytes).map_err(|error| ImageError::malformed(what, error))?;
        let otherwise = if kind.manifests.is_some() { INDEX } else { MANIFEST };
        let plain = |kind: &String| kind.bytes().all(|byte| byte.is_ascii_graphic());
        let media_type = kind.media_type.filter(plain).unwrap_or_else(|| otherwise.to_owned());
        Ok(Raw { media_type, digest, bytes })
    }

    /// What refers to a manifest, as an index lists it: signatures, inventories and the like. Of a registry that keeps no such
    /// list, the one that clients keep under a tag of its own.
    ///
    /// # Errors
    /// As [`Self::look_up`].
    /// # Cancel safety
    /// Nothing is stored.
    ///
    /// Source: OCI distribution specification 1.1, "Listing Referrers".
    pub async fn referrers(
        &self,
        reference: &Reference,
        artifact_type: Option<&str>,
        auth: Option<RegistryAuth>,
    ) -> Result<Vec<Value>, ImageError> {
        let sources = Sources::of(&self.inner.settings, reference, auth.as_ref())?;
        let digest = match reference.digest() {
            Some(digest) => digest.clone(),
            None => sources.manifest(reference.version()).await?.1,
        };
        let listed = sources.referrers(&digest, artifact_type).await?;
        let entries: Referrers =
            serde_json::from_slice(&listed).map_err(|error| ImageError::malformed("the list of referrers", error))?;
        // A registry need not narrow it.
        let of_type = |entry: &Value| artifact_type.is_none_or(|wanted| entry["artifactType"].as_str() == Some(wanted));
        Ok(entries.manifests.0.into_iter().filter(of_type).collect())
    }
}

/// Of a manifest or index no more than what is told of it: all of it as JSON would be a hundred times as large in memory.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listing {
    media_type: Option<String>,
    manifests: Option<First<Entry, MOST_LISTED>>,
    config: Option<Config>,
}

/// A manifest or index, as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw {
    /// What it says of itself, else its kind in the OCI specification.
    pub media_type: String,
    /// Of the bytes.
    pub digest: Digest,
    /// JSON.
    pub bytes: Vec<u8>,
}

#[derive(Deserialize)]
struct Referrers {
    #[serde(default)]
    manifests: First<Value, MOST_LISTED>,
}

/// Platforms of one index that are told of.
const MOST_LISTED: usize = 1000;

#[derive(Deserialize)]
struct Entry {
    platform: Option<Told>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    digest: String,
    size: u64,
}

/// A platform, in the words of the image specification.
#[derive(Serialize, Deserialize)]
struct Told {
    #[serde(skip_serializing_if = "Option::is_none")]
    architecture: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    os: Option<String>,
    #[serde(rename = "os.version", skip_serializing_if = "Option::is_none")]
    os_version: Option<String>,
    #[serde(rename = "os.features", skip_serializing_if = "Option::is_none")]
    os_features: Option<First<String, 100>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
}

async fn told(
    sources: &Sources,
    reference: &Reference,
    bytes: &[u8],
    digest: Digest,
) -> Result<Distribution, ImageError> {
    let bad = |reason: String| ImageError::Registry {
        registry: reference.registry().to_owned(),
        attempt: format!("read the manifest of {}", reference.familiar()),
        reason,
    };
    let manifest: Listing = serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
    let kind = if manifest.manifests.is_some() { INDEX } else { MANIFEST };
    let media_type = manifest.media_type.unwrap_or_else(|| kind.to_owned());
    let platforms = match manifest.manifests {
        Some(listed) => listed.0.into_iter().filter_map(|one| one.platform).collect(),
        None => {
            let config = manifest.config.unwrap_or_default();
            let place: Digest = config.digest.parse().map_err(|_| bad("it names no configuration".to_owned()))?;
            let config = sources.document(&place, config.size, "the configuration").await?;
            let platform: Told = serde_json::from_slice(&config).map_err(|error| bad(error.to_string()))?;
            vec![platform]
        }
    };
    let shown = platforms.iter().map(|platform| serde_json::to_value(platform).unwrap_or_default());
    let platforms = shown.filter(|platform| platform.as_object().is_some_and(|parts| !parts.is_empty())).collect();
    Ok(Distribution { media_type, digest, size: bytes.len() as u64, platforms })
}
