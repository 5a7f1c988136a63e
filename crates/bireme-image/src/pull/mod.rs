//! Pulling: from a reference to a recorded image whose layers are unpacked.
//!
//! Each layer goes its own way, several at once: fetched to a file aside (a broken connection is taken up where it
//! broke), verified, renamed into place, unpacked. Only when all are there is the image recorded.

mod download;
mod offer;
mod origin;

use std::collections::HashSet;

use futures::{StreamExt as _, TryStreamExt as _};

use crate::admit::Candidate;
use crate::digest::{Digest, ImageId};
use crate::error::ImageError;
use crate::events::{OnProgress, Progress};
use crate::guard::GcGuard;
use crate::layers;
use crate::platform::Platform;
use crate::record::{Layer, Record, make_record};
use crate::reference::Reference;
use crate::registry::Sources;
use crate::store::ImageStore;

use offer::offer;

pub use crate::auth::RegistryAuth;
pub(crate) use origin::Origin;

/// Layers that one pull fetches, unpacks or waits for at once.
const AT_ONCE: usize = 16;

/// What a pull brought.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The image of the platform that was asked for.
    pub id: ImageId,
    /// What the name stands for at the registry: the digest of the index or manifest.
    pub digest: Digest,
    /// Everything was here already.
    pub up_to_date: bool,
}

impl ImageStore {
    /// Fetches an image from its registry, or from a mirror of it, and gives it its name.
    ///
    /// With `platform` `None`, an index gives Linux on this machine, else `wasi/wasm`. Other platforms of the same index
    /// that were pulled before keep the name.
    ///
    /// # Errors
    /// `ManifestUnknown`, `PullDenied`, `Unauthorized`, `NoPlatform`; `Registry` after all retries; what checking and
    /// unpacking refuse; `NoSpace`. Nothing is recorded then.
    /// # Cancel safety
    /// Dropping the future records nothing and deletes what was fetched.
    pub async fn pull(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        auth: Option<RegistryAuth>,
        progress: OnProgress<'_>,
    ) -> Result<Pulled, ImageError> {
        let mut claim = GcGuard::new(&self.inner);
        Ok(self.pull_held(reference, platform, auth, &mut claim, progress).await?.0)
    }

    /// [`Self::pull`], with the layers as the registry has them, which `claim` keeps: where the image was here before, it may
    /// have others.
    pub(crate) async fn pull_held(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        auth: Option<RegistryAuth>,
        claim: &mut GcGuard,
        progress: OnProgress<'_>,
    ) -> Result<(Pulled, Vec<Layer>), ImageError> {
        let origin = Origin::Registry(Sources::of(&self.inner.settings, reference, auth.as_ref())?);
        let mut first = Progress::whole(format!("Pulling from {}", reference.repository()));
        first.id = Some(reference.tag().unwrap_or(reference.version()).to_owned());
        progress(first);
        let (record, digest, index) = described(&origin, &reference.familiar(), reference.version(), platform).await?;
        check_platform(&record, &reference.familiar(), platform)?;
        let id = record.id.clone();
        let up_to_date = self.inner.db.record(&id)?.is_some()
            && match reference.digest() {
                None => self.inner.db.name_digest(reference, &id)?.as_deref() == Some(digest.as_str()),
                Some(_) => self.inner.db.by_name(reference)?.iter().any(|(_, known)| *known == id),
            };

        self.fetch_layers(&origin, &record, up_to_date, claim, progress).await?;
        let offered = record.layers.clone();
        let candidate = Candidate { record, names: vec![(reference.clone(), Some(digest.clone()))] };
        self.admit(vec![candidate], claim).await?;
        if let Some(index) = &index {
            self.inner.db.keep_index(&digest, index)?;
        }

        progress(Progress::whole(format!("Digest: {digest}")));
        let what = if up_to_date { "Image is up to date" } else { "Downloaded newer image" };
        progress(Progress::whole(format!("Status: {what} for {}", reference.familiar())));
        Ok((Pulled { id, digest, up_to_date }, offered))
    }

    /// Fetches an image whose layers `claim` keeps, and records nothing.
    pub(crate) async fn fetch_image(
        &self,
        origin: &Origin,
        name: &str,
        version: &str,
        platform: Option<&Platform>,
        claim: &mut GcGuard,
        progress: OnProgress<'_>,
    ) -> Result<Record, ImageError> {
        let (record, ..) = described(origin, name, version, platform).await?;
        check_platform(&record, name, platform)?;
        self.fetch_layers(origin, &record, true, claim, progress).await?;
        Ok(record)
    }

    async fn fetch_layers(
        &self,
        origin: &Origin,
        record: &Record,
        quiet: bool,
        claim: &mut GcGuard,
        progress: OnProgress<'_>,
    ) -> Result<(), ImageError> {
        let artifact = record.artifact_type.is_some();
        let mut seen = HashSet::new();
        let mut layers: Vec<&Layer> = Vec::new();
        for layer in &record.layers {
            claim.both(layer);
            if seen.insert(&layer.blob.digest) {
                layers.push(layer);
            }
        }
        if !quiet {
            layers.iter().for_each(|layer| progress(Progress::of(layer.blob.digest.short(), "Pulling fs layer")));
        }
        let fetching = layers.into_iter().map(|layer| self.fetch_layer(origin, layer, artifact, quiet, progress));
        futures::stream::iter(fetching).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
        Ok(())
    }

    /// Brings one layer: fetched, verified, and unpacked unless it is a component. Whoever calls has claimed it.
    pub(crate) async fn fetch_layer(
        &self,
        origin: &Origin,
        layer: &Layer,
        artifact: bool,
        quiet: bool,
        progress: OnProgress<'_>,
    ) -> Result<(), ImageError> {
        let id = layer.blob.digest.short();
        let here = || self.has_whole(layer);
        let was_here = here()?;
        if was_here && (artifact || self.inner.db.unpacked(&layer.diff_id)?.is_some()) {
            if !quiet {
                progress(Progress::of(id, "Already exists"));
            }
            return Ok(());
        }
        if !was_here {
            match origin {
                Origin::Registry(sources) => {
                    download::fetched(&self.inner, sources, &layer.blob, here, progress).await?;
                }
                Origin::Client(store) => download::copied(&self.inner, &**store, &layer.blob).await?,
            }
            progress(Progress::of(id, "Download complete"));
        }
        if !artifact {
            progress(Progress::counted(id, "Extracting", layer.blob.size, layer.blob.size));
            layers::unpacked(&self.inner, layer).await?;
        }
        progress(Progress::of(id, "Pull complete"));
        Ok(())
    }

    /// Whether a layer's blob is stored. One that is not as long as it was, as after a power cut, is fetched anew. What its
    /// manifest says is seen later.
    fn has_whole(&self, layer: &Layer) -> Result<bool, ImageError> {
        let whole = self.inner.db.size_of_blob(&layer.blob.digest)?.unwrap_or(layer.blob.size);
        let there = std::fs::symlink_metadata(self.inner.blob_path(&layer.blob.digest));
        Ok(there.is_ok_and(|about| about.is_file() && about.len() == whole))
    }
}

/// The image that a name stands for on a platform, as its documents describe it; with the digest of what the name stands for, and
/// the index, if that is one.
pub(crate) async fn described(
    origin: &Origin,
    name: &str,
    version: &str,
    platform: Option<&Platform>,
) -> Result<(Record, Digest, Option<Vec<u8>>), ImageError> {
    let offer = offer(origin, name, version, platform).await?;
    let record = make_record(offer.manifest_bytes, &offer.manifest, offer.config, offer.listed.as_ref())?;
    Ok((record, offer.digest, offer.index))
}

fn check_platform(record: &Record, name: &str, platform: Option<&Platform>) -> Result<(), ImageError> {
    match platform {
        Some(wanted) if !record.platform.serves(wanted) => Err(ImageError::NoPlatform {
            name: name.to_owned(),
            wanted: wanted.clone(),
            offered: record.platform.to_string(),
        }),
        _ => Ok(()),
    }
}
