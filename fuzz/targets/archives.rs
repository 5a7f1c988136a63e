//! Archives that `docker load` takes, put aside and looked through.

#![no_main]

use std::sync::OnceLock;

use bireme_image::{ImageStore, Limits, RegistrySettings, fuzz};
use libfuzzer_sys::fuzz_target;

struct Place {
    store: ImageStore,
    folder: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

fn place() -> &'static Place {
    static PLACE: OnceLock<Place> = OnceLock::new();
    PLACE.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime can be made");
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let limits = Limits { layer_bytes: 4 << 20, ratio: 100, ratio_floor: 4 << 20, ..Limits::default() };
        let settings = RegistrySettings { limits, ..RegistrySettings::default() };
        let store = runtime.block_on(ImageStore::open(folder.path(), settings)).expect("a store can be opened");
        Place { store, folder, _runtime: runtime }
    })
}

fuzz_target!(|bytes: &[u8]| {
    let place = place();
    fuzz::archive(&place.store, bytes);
    let left = std::fs::read_dir(place.folder.path().join("ingest")).map(Iterator::count).unwrap_or_default();
    assert_eq!(left, 0, "what was put aside is gone");
});
