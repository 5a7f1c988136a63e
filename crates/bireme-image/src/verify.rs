//! Holding what is stored against its name: every blob, component, manifest and configuration is hashed again, and layers
//! that an older version took in without looking are unpacked to see what they are.
//!
//! Nothing is changed: what is damaged may be all that is left of an image, and what becomes of it is its owner's choice.
//! Unpacked layers have no digest of their own to be held against; removing an image and pulling it again makes them anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use crate::blocking::blocking;
use crate::digest::Digest;
use crate::error::{ImageError, StoreContext as _};
use crate::layers::prove;
use crate::record::Layer;
use crate::store::ImageStore;
use crate::wanted::while_wanted;

/// Something in the store that is not what its name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// `layer`, `component` or `configuration`.
    pub kind: &'static str,
    /// What it should be.
    pub digest: Digest,
    /// A sentence.
    pub problem: String,
    /// Names, else IDs, of the images that need it; empty for what only the cache of builds needs.
    pub images: Vec<String>,
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.kind, self.digest, self.problem)?;
        match &self.images[..] {
            [] => write!(f, "; no image needs it: it goes with \"builder prune\""),
            images => write!(f, "; {} needs it: remove the image and pull, load or build it again", images.join(", ")),
        }
    }
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Configurations, layers and components.
    pub checked: u64,
    /// Bytes.
    pub size: u64,
    /// How many things were told as damaged.
    pub damaged: u64,
}

/// Who needs a blob, and as what.
#[derive(Default)]
struct Needed {
    images: BTreeSet<String>,
    layers: Vec<Layer>,
}

/// A file and what should be in it.
struct Claimed {
    kind: &'static str,
    digest: Digest,
    path: PathBuf,
}

impl ImageStore {
    /// Hashes everything that is stored and tells what is not what its name says, or not what it stands for. Reads all of it,
    /// one file at a time.
    ///
    /// # Errors
    /// `Database`, `Store` where a folder of the store cannot be listed. A single file that cannot be read is damage.
    /// # Cancel safety
    /// Dropping the future ends it.
    pub async fn verify(&self, tell: &(dyn Fn(Damaged) + Send + Sync)) -> Result<Verified, ImageError> {
        let mut verified = Verified::default();
        let mut needed: BTreeMap<Digest, Needed> = BTreeMap::new();
        for id in self.inner.db.ids()? {
            let Some(record) = self.inner.db.record(&id)? else { continue };
            let names = self.inner.db.names(&id)?;
            let names: Vec<String> = match names.len() {
                0 => vec![id.to_string()],
                _ => names.iter().map(|(name, _)| crate::store::familiar(name)).collect(),
            };
            // An artifact is known by its manifest, an image by its configuration.
            let document = if record.artifact_type.is_some() { &record.manifest } else { &record.config };
            verified.checked += 1;
            verified.size += document.len() as u64;
            let actual = Digest::of(document);
            if actual != id.0 {
                verified.damaged += 1;
                let problem = format!("has the digest {actual} now");
                tell(Damaged { kind: "configuration", digest: id.0.clone(), problem, images: names.clone() });
            }
            for layer in &record.layers {
                let needed = needed.entry(layer.blob.digest.clone()).or_default();
                needed.images.extend(names.iter().cloned());
                let known = needed
                    .layers
                    .iter()
                    .any(|known| known.diff_id == layer.diff_id && known.blob.media_type == layer.blob.media_type);
                if record.artifact_type.is_none() && !known {
                    needed.layers.push(layer.clone());
                }
            }
        }
        for claimed in self.claimed().await? {
            let Needed { images, layers } = needed.remove(&claimed.digest).unwrap_or_default();
            let images: Vec<String> = images.into_iter().collect();
            let Claimed { kind, digest, path } = claimed;
            let (size, found) = while_wanted("verify a file of the store", move |wanted| {
                let size = std::fs::metadata(&path).map_or(0, |about| about.len());
                let found = std::fs::File::open(&path).and_then(|file| Digest::of_all(wanted.lend(file)));
                Ok((size, found))
            })
            .await?;
            verified.checked += 1;
            verified.size += size;
            let problem = match found {
                Ok(actual) if actual == digest => {
                    for layer in layers {
                        let Some(problem) = self.misnamed(layer).await? else { continue };
                        verified.damaged += 1;
                        tell(Damaged { kind, digest: digest.clone(), problem, images: images.clone() });
                    }
                    continue;
                }
                Ok(actual) => format!("has the digest {actual} now"),
                // Removed with its image since the list was made.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && !self.inner.db.uses_blob(&digest)? => {
                    continue;
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => "is missing".to_owned(),
                Err(error) => format!("cannot be read: {error}"),
            };
            verified.damaged += 1;
            tell(Damaged { kind, digest, problem, images });
        }
        Ok(verified)
    }

    /// What is wrong with the layer that a whole blob stands for.
    async fn misnamed(&self, layer: Layer) -> Result<Option<String>, ImageError> {
        if self.inner.db.proven(&layer)? {
            return Ok(None);
        }
        let (inner, diff_id) = (self.inner.clone(), layer.diff_id.clone());
        match while_wanted("look at a layer", move |wanted| prove(&inner, &layer, wanted)).await {
            Ok(()) => Ok(None),
            Err(ImageError::DigestMismatch { actual, .. }) => {
                Ok(Some(format!("unpacks to {actual} and stands for {diff_id}")))
            }
            Err(error @ (ImageError::BadLayer { .. } | ImageError::Bomb { .. })) => {
                Ok(Some(format!("stands for {diff_id} and cannot be unpacked: {error}")))
            }
            Err(error) => Err(error),
        }
    }

    /// All that should be there, and all that is.
    async fn claimed(&self) -> Result<Vec<Claimed>, ImageError> {
        let inner = self.inner.clone();
        blocking("list what is stored", move || {
            let mut blobs: BTreeSet<Digest> = inner.db.referenced()?.blobs.into_iter().collect();
            blobs.extend(named(&inner.root.join("blobs/sha256"), "")?);
            let components = named(&inner.root.join("components"), ".wasm")?;
            let blobs = blobs.into_iter().map(|digest| {
                let path = inner.blob_path(&digest);
                Claimed { kind: "layer", digest, path }
            });
            let components = components.into_iter().map(|digest| {
                let path = inner.component_path(&digest);
                Claimed { kind: "component", digest, path }
            });
            Ok(blobs.chain(components).collect())
        })
        .await
    }
}

/// The digests that files of a folder are named by.
fn named(folder: &Path, suffix: &str) -> Result<Vec<Digest>, ImageError> {
    let mut digests = Vec::new();
    for entry in std::fs::read_dir(folder).during("list", folder)? {
        let name = entry.during("list", folder)?.file_name();
        let hex = name.to_str().and_then(|name| name.strip_suffix(suffix));
        digests.extend(hex.and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok()));
    }
    Ok(digests)
}
