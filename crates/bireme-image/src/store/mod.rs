//! The store: where images lie on disk, what names they have, and how they go.
//!
//! ```text
//! ROOT/images.db          names, manifests, configurations; an image is in it whole or not at all
//! ROOT/blobs/sha256/HEX   layers as they were fetched, verified
//! ROOT/layers/sha256/HEX  layers unpacked, by diff ID, in overlayfs's form; shared, never written to
//! ROOT/components/HEX     components taken out of images with a root filesystem
//! ROOT/folders/NAME       what builds keep beside layers: mounts of type cache, contexts
//! ROOT/ingest/            whatever is being made; emptied at every open
//! ```
//!
//! Files come first and are renamed into place, the database row comes last. What a crash leaves between the two is
//! swept at the next open.

mod holders;
mod lookup;
mod pins;
mod remove;
pub(crate) mod sweep;
mod tag;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::sync::{OnceCell, Semaphore};

use crate::db::Db;
use crate::digest::Digest;
use crate::error::{ImageError, StoreContext as _};

pub use crate::settings::{Limits, RegistrySettings};
pub use remove::Removed;

pub(crate) use holders::Holders;
pub(crate) use lookup::{familiar, offered};
pub(crate) use pins::{Part, Pin};

/// All images of one engine. Clones share everything.
#[derive(Clone)]
pub struct ImageStore {
    pub(crate) inner: Arc<Inner>,
}

/// What the operations on images stand on: folders, database, and what must not be deleted now.
pub(crate) struct Inner {
    pub(crate) root: PathBuf,
    pub(crate) db: Db,
    pub(crate) settings: RegistrySettings,
    /// Blobs and diff IDs that running work relies on and that no removal may delete.
    pins: Mutex<HashMap<(Part, Digest), usize>>,
    /// One unpacking per layer at a time; the others wait for it.
    pub(crate) unpacking: Mutex<HashMap<Digest, Arc<OnceCell<u64>>>>,
    /// One fetching per blob at a time; the others wait for it.
    pub(crate) fetching: Mutex<HashMap<Digest, Arc<Fetching>>>,
    /// Unpacking is bound by processor and disk: as many at once as there are processors.
    pub(crate) unpack_slots: Arc<Semaphore>,
    /// Layers fetched at once from one registry, over all pulls: a slow one holds up nobody else's.
    download_slots: Mutex<HashMap<String, Arc<Semaphore>>>,
    /// Held from the question who uses an image to its end, and while somebody says that he does.
    removing: Mutex<()>,
    /// Who has which folder of builds.
    pub(crate) holders: Holders,
    /// Folders of builds: when each was last used as it was measured, and the bytes it had.
    pub(crate) sizes: Mutex<HashMap<String, (i64, u64)>>,
    /// Steps of builds that are being carried out: whoever comes to the same one waits.
    pub(crate) turns: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
    /// Layers will be brought to the disk soon.
    pub(crate) syncing: AtomicBool,
}

/// Layers fetched at once from one registry, over all pulls.
const DOWNLOADS: usize = 8;

/// A blob that is being fetched.
#[derive(Default)]
pub(crate) struct Fetching {
    /// Held by the one who fetches it.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// Bytes that are there.
    pub(crate) done: AtomicU64,
}

impl ImageStore {
    /// Where what is being made is put; emptied at every open.
    pub fn ingest_folder(&self) -> PathBuf {
        self.inner.ingest()
    }

    /// Writes a copy of the database, which stands in for it should it be lost. Blocking.
    ///
    /// # Errors
    /// `Open`.
    pub fn back_up(&self) -> Result<(), ImageError> {
        self.inner.db.back_up()
    }
}

impl Inner {
    pub(crate) fn new(root: &Path, db: Db, settings: RegistrySettings) -> Self {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            root: root.to_owned(),
            db,
            settings,
            pins: Mutex::default(),
            unpacking: Mutex::default(),
            fetching: Mutex::default(),
            unpack_slots: Arc::new(Semaphore::new(processors)),
            download_slots: Mutex::default(),
            removing: Mutex::default(),
            holders: Holders::default(),
            sizes: Mutex::default(),
            turns: Mutex::default(),
            syncing: AtomicBool::default(),
        }
    }

    /// The places for downloads from `registry`.
    pub(crate) fn download_slots(&self, registry: &str) -> Arc<Semaphore> {
        let mut known = self.download_slots.lock();
        // Registries of which nothing is fetched now are forgotten.
        known.retain(|name, slots| name == registry || Arc::strong_count(slots) > 1);
        let slots = known.entry(registry.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(DOWNLOADS)));
        Arc::clone(slots)
    }

    pub(crate) fn ingest(&self) -> PathBuf {
        self.root.join("ingest")
    }

    /// A new folder for what is being made, deleted when it is dropped.
    pub(crate) fn aside(&self, prefix: &str) -> Result<TempDir, ImageError> {
        let ingest = self.ingest();
        tempfile::Builder::new().prefix(prefix).tempdir_in(&ingest).during("create a folder in", &ingest)
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// The folder of an unpacked layer.
    pub(crate) fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.root.join("layers/sha256").join(diff_id.hex())
    }

    pub(crate) fn component_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("components").join(format!("{}.wasm", digest.hex()))
    }
}
