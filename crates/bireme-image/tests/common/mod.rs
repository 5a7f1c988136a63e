//! What the tests of the image library share: images made by hand, a real registry, and proxies that misbehave.

#![allow(dead_code, unused_imports, reason = "each test binary uses its own part")]

mod archives;
mod builds;
mod fake;
mod images;
mod members;
mod proxy;
mod registry;
mod tls;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bireme_image::{ImageStore, Progress, RegistrySettings};

pub(crate) use archives::{docker_archive, load, oci_archive, oci_archive_of, raw_tar};
pub(crate) use builds::{DEFAULT_PATH, build, build_of, no_change};
pub(crate) use fake::Fake;
pub(crate) use images::{
    Blob, GZIP, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, TestImage, WASM, busybox, gzip, image, index, one_layer, tar_of,
    two_layers, with_manifest,
};
pub(crate) use members::{Member, device, file, folder, hard_link, image_with, record, symlink, tar_with, unpacked};
pub(crate) use proxy::{Mischief, Proxy};
pub(crate) use registry::{Asks, Registry, USER, tool};
pub(crate) use tls::Certificates;

/// A store in a folder of its own, on a filesystem that keeps extended attributes.
pub(crate) struct Place {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) store: ImageStore,
}

pub(crate) async fn place() -> Place {
    place_with(RegistrySettings::default()).await
}

pub(crate) async fn place_with(settings: RegistrySettings) -> Place {
    let folder = tempfile::Builder::new().prefix("bireme-image-").tempdir_in("/var/tmp").unwrap();
    let store = ImageStore::open(folder.path(), settings).await.unwrap();
    Place { folder, store }
}

impl Place {
    /// Waits until the store keeps so many blobs and unpacked layers, and nothing half-made.
    #[track_caller]
    pub(crate) fn settles_to(&self, blobs: usize, layers: usize) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let counts = || (self.count("blobs/sha256"), self.count("layers/sha256"), self.count("ingest"));
            for _ in 0..500 {
                if counts() == (blobs, layers, 0) {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            panic!("{caller}: blobs, layers and half-made things are {:?}, not {:?}", counts(), (blobs, layers, 0));
        }
    }

    /// How many files or folders are kept in one part of the store.
    pub(crate) fn count(&self, part: &str) -> usize {
        std::fs::read_dir(self.folder.path().join(part)).unwrap().count()
    }
}

/// Collects progress lines.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines(pub(crate) Arc<Mutex<Vec<Progress>>>);

impl Lines {
    pub(crate) fn taker(&self) -> impl Fn(Progress) + Send + Sync + use<> {
        let lines = self.0.clone();
        move |line| lines.lock().unwrap().push(line)
    }

    pub(crate) fn has(&self, status: &str) -> bool {
        self.0.lock().unwrap().iter().any(|line| line.status.contains(status))
    }
}

pub(crate) fn quiet(_: Progress) {}

/// Reads a file of an unpacked image, the uppermost layer first.
pub(crate) fn read(layers: &[PathBuf], path: &str) -> Option<String> {
    layers.iter().rev().find_map(|layer| std::fs::read_to_string(layer.join(path)).ok())
}

pub(crate) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
