//! Which manifest and configuration a name stands for on a platform.

use crate::digest::Digest;
use crate::error::ImageError;
use crate::model::{Descriptor, Document, Manifest};
use crate::platform::Platform;
use crate::store::offered;

use super::origin::Origin;

/// A manifest as a registry has it.
pub(super) struct Offer {
    /// Of what the name stands for.
    pub(super) digest: Digest,
    /// The index that the name stands for, if it is one.
    pub(super) index: Option<Vec<u8>>,
    pub(super) manifest_bytes: Vec<u8>,
    pub(super) manifest: Manifest,
    /// The platform an index gives it.
    pub(super) listed: Option<Platform>,
    pub(super) config: Vec<u8>,
}

/// Finds the manifest and configuration for the platform. `name` is what the image is called in errors, `version` its tag or
/// digest.
pub(super) async fn offer(
    origin: &Origin,
    name: &str,
    version: &str,
    platform: Option<&Platform>,
) -> Result<Offer, ImageError> {
    let (mut bytes, digest) = origin.manifest(version).await?;
    let (mut listed, mut index) = (None, None);
    let what = format!("manifest of {name}");
    let manifest = match Document::parse(&bytes, &what)? {
        Document::Manifest(manifest) => manifest,
        Document::Index(entries) => {
            let (entry, entry_platform) = choose(&entries, platform, name)?;
            let what = format!("manifest {}", entry.digest);
            let (entry_bytes, _) = origin.manifest(entry.digest.as_str()).await?;
            if entry_bytes.len() as u64 != entry.size {
                let (expected, actual) = (entry.size, entry_bytes.len() as u64);
                return Err(ImageError::SizeMismatch { what, expected, actual });
            }
            let Document::Manifest(manifest) = Document::parse(&entry_bytes, &what)? else {
                return Err(ImageError::malformed(what, "an index within an index cannot be pulled"));
            };
            index = Some(std::mem::replace(&mut bytes, entry_bytes));
            listed = entry_platform;
            manifest
        }
    };
    let config = &manifest.config;
    let what = format!("configuration {}", config.digest);
    let config = origin.document(&config.digest, config.size, &what).await?;
    Ok(Offer { digest, index, manifest_bytes: bytes, manifest, listed, config })
}

fn choose(
    entries: &[(Descriptor, Option<Platform>)],
    platform: Option<&Platform>,
    name: &str,
) -> Result<(Descriptor, Option<Platform>), ImageError> {
    let wanted: Vec<Platform> = match platform {
        Some(platform) => vec![platform.clone()],
        None => vec![Platform::host(), Platform::wasm()],
    };
    let serves = |wanted: &Platform| entries.iter().find(|(_, own)| own.as_ref().is_some_and(|own| own.serves(wanted)));
    if let Some((entry, own)) = wanted.iter().find_map(serves) {
        return Ok((entry.clone(), own.clone()));
    }
    // An index that does not say what its only entry runs on: its configuration will.
    if let [(entry, None)] = entries {
        return Ok((entry.clone(), None));
    }
    let platforms = entries.iter().filter_map(|(_, own)| own.as_ref()).filter(|own| own.os != "unknown");
    Err(ImageError::NoPlatform {
        name: name.to_owned(),
        wanted: platform.cloned().unwrap_or_else(Platform::host),
        offered: offered(platforms),
    })
}
