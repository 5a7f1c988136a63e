//! Bringing unpacked layers to the disk.
//!
//! Blobs are on the disk before they are recorded. Unpacked layers are many small files, and to wait for all of them would
//! make every pull wait for the disk: they are on it some seconds later. Until then they are noted, with the boot of the
//! machine that they were unpacked in. After another boot such a layer is unpacked anew from its blob (see [`crate::mend`]):
//! its files may be empty.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::error::{ImageError, StoreContext as _};
use crate::store::Inner;

/// How long after an image was recorded its layers are brought to the disk, with those of others that came meanwhile.
const LATER: Duration = Duration::from_secs(5);

/// Has the unpacked layers be on the disk in a while, off the caller's path.
pub(crate) fn sync_layers_later(inner: &Arc<Inner>) {
    if inner.syncing.swap(true, Ordering::AcqRel) {
        return;
    }
    let waiting = Arc::downgrade(inner);
    // A thread of its own: it only waits, and a store may be open without a runtime.
    let started = std::thread::Builder::new().name("sync-layers".to_owned()).spawn(move || {
        std::thread::sleep(LATER);
        let Some(inner) = waiting.upgrade() else { return };
        inner.syncing.store(false, Ordering::Release);
        if let Err(error) = sync_layers(&inner) {
            tracing::warn!(error = &error as &dyn std::error::Error, "unpacked layers are not known to be on the disk");
        }
    });
    if started.is_err() {
        inner.syncing.store(false, Ordering::Release);
    }
}

/// Waits until the unpacked layers that there are now are on the disk. Blocking.
fn sync_layers(inner: &Inner) -> Result<(), ImageError> {
    let noted = inner.db.unsynced()?;
    if noted.is_empty() {
        return Ok(());
    }
    let layers = inner.root.join("layers");
    let folder = std::fs::File::open(&layers).during("open", &layers)?;
    rustix::fs::syncfs(folder).map_err(std::io::Error::from).during("bring to the disk", &layers)?;
    inner.db.synced(&noted)
}
