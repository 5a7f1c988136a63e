//! How new images come in, whether pulled, loaded or built: layers are unpacked and verified first, the record follows.

use std::collections::HashSet;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};

use crate::db::{Db, Garbage, Layer, Naming, Record};
use crate::digest::Digest;
use crate::error::ImageError;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::{ImageStore, Inner, Pin, blocking};

/// Names that one archive may give.
const MOST_NAMES: usize = 10_000;

/// Layers that are asked for at once; how many are unpacked at once is the store's to say.
const AT_ONCE: usize = 64;

/// An image whose blobs are in the store and pinned.
pub(crate) struct Candidate {
    pub(crate) record: Record,
    /// Names to give it, with the digest they have at their registry.
    pub(crate) names: Vec<(Reference, Option<Digest>)>,
}

/// Keeps the layers of images from being deleted while they are not recorded yet; deletes them if they never are.
pub(crate) struct GcGuard {
    inner: Arc<Inner>,
    pins: Vec<Pin>,
    claimed: Garbage,
}

impl GcGuard {
    pub(crate) fn new(inner: &Arc<Inner>) -> Self {
        Self { inner: inner.clone(), pins: Vec::new(), claimed: Garbage::default() }
    }

    /// To be called before looking whether the blob is there.
    pub(crate) fn blob(&mut self, digest: &Digest) {
        self.pins.push(self.inner.pin(digest));
        self.claimed.blobs.push(digest.clone());
    }

    pub(crate) fn layer(&mut self, diff_id: &Digest) {
        self.pins.push(self.inner.pin(diff_id));
        self.claimed.diff_ids.push(diff_id.clone());
    }

    /// The same once more, for work that may outlast this one.
    fn again(&self) -> Self {
        let mut again = Self::new(&self.inner);
        self.claimed.blobs.iter().for_each(|digest| again.blob(digest));
        self.claimed.diff_ids.iter().for_each(|digest| again.layer(digest));
        again
    }

    /// A layer as it was fetched or made, and as it is unpacked.
    pub(crate) fn both(&mut self, layer: &Layer) {
        self.blob(&layer.blob.digest);
        self.layer(&layer.diff_id);
    }
}

impl Drop for GcGuard {
    fn drop(&mut self) {
        self.pins.clear();
        // What was recorded meanwhile is in use and stays.
        let (inner, claimed) = (self.inner.clone(), std::mem::take(&mut self.claimed));
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || inner.discard(&claimed))),
            Err(_) => inner.discard(&claimed),
        }
    }
}

impl ImageStore {
    /// Unpacks the layers of all candidates, sees to it that their blobs are what unpacks to them, and records them
    /// together.
    pub(crate) async fn admit(&self, candidates: Vec<Candidate>, claim: &mut GcGuard) -> Result<(), ImageError> {
        let names = || candidates.iter().flat_map(|candidate| &candidate.names);
        check_names(names().count())?;
        for (name, _) in names() {
            name.check_tag()?;
        }
        for candidate in &candidates {
            for layer in &candidate.record.layers {
                claim.layer(&layer.diff_id);
                self.inner.check_size(layer)?;
            }
        }
        let images = candidates.iter().filter(|candidate| candidate.record.artifact_type.is_none());
        let mut seen = HashSet::new();
        let layers: Vec<Layer> = images
            .flat_map(|image| &image.record.layers)
            .filter(|layer| seen.insert((&layer.diff_id, &layer.blob.digest, &layer.blob.media_type)))
            .cloned()
            .collect();
        let unpackings = futures::stream::iter(layers.into_iter().map(|layer| {
            let inner = self.inner.clone();
            async move { inner.accepted(&layer).await }
        }));
        unpackings.buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
        let inner = self.inner.clone();
        // It goes on when nobody waits for it any more, and what it records must be there then.
        let held = claim.again();
        blocking("record an image", move || {
            let _held = held;
            record(&inner.db, &candidates)?;
            inner.note_generation();
            inner.sync_layers_later();
            Ok(())
        })
        .await
    }
}

/// # Errors
/// When one archive gives so many names.
pub(crate) fn check_names(names: usize) -> Result<(), ImageError> {
    if names <= MOST_NAMES {
        return Ok(());
    }
    let reason = format!("it gives its images {names} names, and at most {MOST_NAMES} are taken");
    Err(ImageError::malformed("what was sent", reason))
}

fn record(db: &Db, candidates: &[Candidate]) -> Result<(), ImageError> {
    let records: Vec<&Record> = candidates.iter().map(|candidate| &candidate.record).collect();
    let mut given: HashSet<String> = HashSet::new();
    let mut namings = Vec::new();
    for candidate in candidates {
        for (reference, digest) in &candidate.names {
            // The further platforms of a name given in this very change join the first.
            let keep_others = !given.insert(reference.key());
            namings.push(Naming {
                reference,
                platform: &candidate.record.platform,
                image: &candidate.record.id,
                digest: digest.as_ref(),
                keep_others,
            });
        }
    }
    db.add(&records, &namings)
}

/// The platform an image is recorded with: its configuration's, else the one its index gives.
pub(crate) fn settled(own: Platform, listed: Option<&Platform>, artifact: bool) -> Platform {
    if !own.os.is_empty() && !own.architecture.is_empty() {
        return own;
    }
    match listed {
        Some(listed) => listed.clone(),
        None if artifact => Platform::wasm(),
        None => Platform::host(),
    }
}
