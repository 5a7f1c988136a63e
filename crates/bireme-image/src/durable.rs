//! What a power cut or an older database leave of the store.
//!
//! Blobs are on the disk before they are recorded. Unpacked layers are many small files, and to wait for all of them would
//! make every pull wait for the disk: they are on it some seconds later. Until then they are noted, with the boot of the
//! machine that they were unpacked in. After another boot such a layer is unpacked anew from its blob: its files may be
//! empty.
//!
//! A database that lost its newest changes is as sound as any other. So the number of its changes is written beside it: where
//! that is ahead, files that the database does not know may be in use.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::digest::Digest;
use crate::error::{ImageError, StoreContext as _};
use crate::store::Inner;
use crate::wanted::Wanted;

/// How long after an image was recorded its layers are brought to the disk, with those of others that came meanwhile.
const LATER: Duration = Duration::from_secs(5);

/// Which boot of the machine this is.
///
/// Source: `random(4)`, `/proc/sys/kernel/random/boot_id`.
pub(crate) fn boot() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
    })
}

impl Inner {
    fn generation_path(&self) -> PathBuf {
        self.root.join("generation")
    }

    /// Whether the database is older than it was: changes that had been made are not in it. To be asked once, at open.
    pub(crate) fn was_rolled_back(&self) -> Result<bool, ImageError> {
        let written =
            std::fs::read_to_string(self.generation_path()).ok().and_then(|text| text.trim().parse::<i64>().ok());
        let known = self.db.generation()?;
        if written != Some(known) {
            self.write_generation(known);
        }
        Ok(written.is_some_and(|written| written > known))
    }

    /// Notes how many changes the database has, after the last of them is on the disk.
    pub(crate) fn note_generation(&self) {
        match self.db.generation() {
            Ok(number) => self.write_generation(number),
            Err(error) => tracing::warn!(%error, "the number of changes of the image database is not known"),
        }
    }

    fn write_generation(&self, number: i64) {
        let path = self.generation_path();
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(&self.root)?;
            writeln!(file, "{number}")?;
            file.as_file().sync_all()?;
            file.persist(&path).map(drop).map_err(|error| error.error)
        };
        if let Err(error) = write() {
            // A smaller number than there is does no harm.
            tracing::warn!(path = %path.display(), %error, "the number of changes of the image database is not noted");
        }
    }

    /// Has the unpacked layers be on the disk in a while, off the caller's path.
    pub(crate) fn sync_layers_later(self: &Arc<Self>) {
        if self.syncing.swap(true, Ordering::AcqRel) {
            return;
        }
        let inner = Arc::downgrade(self);
        // A thread of its own: it only waits, and a store may be open without a runtime.
        let waiting = std::thread::Builder::new().name("sync-layers".to_owned()).spawn(move || {
            std::thread::sleep(LATER);
            let Some(inner) = inner.upgrade() else { return };
            inner.syncing.store(false, Ordering::Release);
            if let Err(error) = inner.sync_layers() {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "unpacked layers are not known to be on the disk"
                );
            }
        });
        if waiting.is_err() {
            self.syncing.store(false, Ordering::Release);
        }
    }

    /// Waits until the unpacked layers that there are now are on the disk. Blocking.
    pub(crate) fn sync_layers(&self) -> Result<(), ImageError> {
        let noted = self.db.unsynced()?;
        if noted.is_empty() {
            return Ok(());
        }
        let layers = self.root.join("layers");
        let folder = std::fs::File::open(&layers).during("open", &layers)?;
        rustix::fs::syncfs(folder).map_err(std::io::Error::from).during("bring to the disk", &layers)?;
        self.db.synced(&noted)
    }

    /// Unpacks those layers anew that an earlier boot of the machine may have left without their content. Those where that
    /// fails stay noted: they count as not unpacked, and the next start tries again. Blocking.
    pub(crate) fn mend_layers(self: &Arc<Self>) {
        let noted = match self.db.unsynced() {
            Ok(noted) => noted,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "it is not known which layers a power cut may have damaged"
                );
                return;
            }
        };
        for (diff_id, of) in noted {
            if of == boot() {
                continue;
            }
            if let Err(error) = self.mend_layer(&diff_id, of) {
                tracing::error!(
                    layer = %diff_id,
                    error = &error as &dyn std::error::Error,
                    "a layer may be damaged and could not be unpacked anew: make room, or pull or load its images again, \
                     and start the engine again"
                );
            }
        }
        self.sync_layers_later();
    }

    fn mend_layer(self: &Arc<Self>, diff_id: &Digest, of: String) -> Result<(), ImageError> {
        let Some(layer) = self.db.layer_of(diff_id)? else {
            // Nobody has it any more.
            self.db.forget_unpacked(diff_id)?;
            return self.db.synced(&[(diff_id.clone(), of)]);
        };
        tracing::warn!(layer = %diff_id, "the machine went down before a layer was on its disk: it is unpacked anew");
        self.unpack_blocking(&layer, &Wanted::default()).map(drop)
    }
}
