//! How new images come in, whether pulled, loaded or built: layers are unpacked and verified first, the record follows.

use std::collections::HashSet;

use futures::{StreamExt as _, TryStreamExt as _};

use crate::blocking::blocking;
use crate::db::{Db, Naming};
use crate::digest::Digest;
use crate::error::ImageError;
use crate::guard::GcGuard;
use crate::record::{Layer, Record};
use crate::reference::Reference;
use crate::store::ImageStore;
use crate::{durable, generation, layers};

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
                layers::check_size(&self.inner, layer)?;
            }
        }
        let images = candidates.iter().filter(|candidate| candidate.record.artifact_type.is_none());
        let mut seen = HashSet::new();
        let unpacked: Vec<Layer> = images
            .flat_map(|image| &image.record.layers)
            .filter(|layer| seen.insert((&layer.diff_id, &layer.blob.digest, &layer.blob.media_type)))
            .cloned()
            .collect();
        let unpackings = futures::stream::iter(unpacked.into_iter().map(|layer| {
            let inner = self.inner.clone();
            async move { layers::accept(&inner, &layer).await }
        }));
        unpackings.buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
        let inner = self.inner.clone();
        // It goes on when nobody waits for it any more, and what it records must be there then.
        let held = claim.again();
        blocking("record an image", move || {
            let _held = held;
            record(&inner.db, &candidates)?;
            generation::note(&inner);
            durable::sync_layers_later(&inner);
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
