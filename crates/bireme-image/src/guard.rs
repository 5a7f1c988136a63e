//! Layers of images that are being made, kept from garbage collection.

use std::sync::Arc;

use crate::db::Garbage;
use crate::digest::Digest;
use crate::record::Layer;
use crate::store::{Inner, Part, Pin};

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
        self.pins.push(self.inner.pin(Part::Blob, digest));
        self.claimed.blobs.push(digest.clone());
    }

    pub(crate) fn layer(&mut self, diff_id: &Digest) {
        self.pins.push(self.inner.pin(Part::Folder, diff_id));
        self.claimed.diff_ids.push(diff_id.clone());
    }

    /// The same once more, for work that may outlast this one.
    pub(crate) fn again(&self) -> Self {
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
