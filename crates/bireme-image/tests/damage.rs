//! What power cuts, flipped bits and lost databases leave of a store.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Mutex;

use bireme_image::{ImageStore, Platform, RegistrySettings};
use common::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_in_the_store_is_named_and_kept() {
    let made = one_layer();
    let place = place().await;
    place.store.load(std::io::Cursor::new(oci_archive_of(&made, Some("me/app:1"))), &quiet).await.unwrap();
    let verify = async || {
        let found = Mutex::new(Vec::new());
        let verified = place.store.verify(&|damaged| found.lock().unwrap().push(damaged)).await.unwrap();
        (verified, found.into_inner().unwrap())
    };
    let (verified, found) = verify().await;
    assert_eq!((verified.checked, verified.damaged, found), (2, 0, Vec::new()));
    let blob = place.folder.path().join("blobs/sha256").join(made.layers[0].digest().hex());
    std::fs::write(&blob, "not what it was").unwrap();
    let (verified, found) = verify().await;
    assert_eq!((verified.damaged, found.len()), (1, 1));
    let text = found[0].to_string();
    assert!(text.starts_with(&format!("layer {} has the digest sha256:", made.layers[0].digest())), "{text}");
    assert!(text.ends_with("me/app:1 needs it: remove the image and pull, load or build it again"), "{text}");
    assert_eq!(std::fs::read(&blob).unwrap(), b"not what it was", "nothing is removed unasked");
    std::fs::remove_file(&blob).unwrap();
    let (_, found) = verify().await;
    assert!(found[0].to_string().contains(" is missing; me/app:1 needs it"), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_is_fetched_again_where_it_came_from() {
    let (made, _) = two_layers();
    let blobs: Vec<Blob> = made.layers.iter().chain([&made.config]).cloned().collect();
    let digest = made.manifest.digest().to_string();
    let manifests = vec![("1".to_owned(), made.manifest.clone()), (digest, made.manifest.clone())];
    let fake = Fake::registry(manifests, blobs).await;
    let place = place().await;
    let pulled = place.store.pull(&fake.name(), None, None, &quiet).await.unwrap();
    let damaged = async || {
        let found = Mutex::new(Vec::new());
        place.store.verify(&|damaged| found.lock().unwrap().push(damaged)).await.unwrap();
        found.into_inner().unwrap()
    };
    let path = |layer: &Blob| place.folder.path().join("blobs/sha256").join(layer.digest().hex());
    // A bit that flipped, and a file that is not there.
    let mut flipped = made.layers[0].bytes.clone();
    flipped[20] ^= 0x10;
    std::fs::write(path(&made.layers[0]), &flipped).unwrap();
    std::fs::remove_file(path(&made.layers[1])).unwrap();
    let found = damaged().await;
    assert_eq!(found.len(), 2, "{found:?}");
    for one in &found {
        place.store.refetch(one).await.unwrap();
    }
    assert_eq!(damaged().await, []);
    assert_eq!(std::fs::read(path(&made.layers[0])).unwrap(), made.layers[0].bytes);
    assert_eq!(place.count("ingest"), 0);
    // The image is what it was, and has the names that it had.
    assert_eq!(place.store.list().await.unwrap().len(), 1);
    assert_eq!(read(&place.store.layers(&pulled.id).await.unwrap(), "etc/two").as_deref(), Some("2"));
    place.store.save(&[fake.name().familiar()], tokio::io::sink()).await.unwrap();
    // Where nobody has it any more, what is left of it stays.
    drop(fake);
    std::fs::write(path(&made.layers[0]), &flipped).unwrap();
    let found = damaged().await;
    place.store.refetch(&found[0]).await.unwrap_err();
    assert_eq!(std::fs::read(path(&made.layers[0])).unwrap(), flipped);
    assert_eq!(place.count("ingest"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_from_no_registry_is_not_fetched() {
    let (place, made) = (place().await, one_layer());
    load(&place, oci_archive_of(&made, Some("me/app:1"))).await.unwrap();
    let blob = place.folder.path().join("blobs/sha256").join(made.layers[0].digest().hex());
    std::fs::write(&blob, "damaged").unwrap();
    let found = Mutex::new(Vec::new());
    place.store.verify(&|damaged| found.lock().unwrap().push(damaged)).await.unwrap();
    let found = found.into_inner().unwrap();
    let error = place.store.refetch(&found[0]).await.unwrap_err().to_string();
    assert!(error.contains("no image that needs it came from a registry: load or build it again"), "{error}");
    assert_eq!(std::fs::read(&blob).unwrap(), b"damaged");
}

/// What a power cut leaves of files that were written a moment before: their names, and nothing in them.
#[tokio::test(flavor = "multi_thread")]
async fn layers_that_the_disk_never_had_are_unpacked_anew() {
    let made = one_layer();
    let place = place().await;
    let loaded = place.store.load(std::io::Cursor::new(oci_archive_of(&made, Some("me/app:1"))), &quiet).await.unwrap();
    let layers = place.store.layers(&loaded[0].id).await.unwrap();
    let Place { folder, store } = place;
    drop(store);
    let path = folder.path().join("images.db");
    let boot = |boot: &str| {
        let db = rusqlite::Connection::open(&path).unwrap();
        let layer = format!("sha256:{}", layers[0].file_name().unwrap().to_str().unwrap());
        db.execute("INSERT OR REPLACE INTO unsynced VALUES (?1, ?2)", [layer.as_str(), boot]).unwrap();
    };
    let content = || read(&layers, "a");
    let whole = content().unwrap();
    // Of the boot that this is, the page cache has it.
    boot(std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim());
    std::fs::write(layers[0].join("a"), "").unwrap();
    drop(ImageStore::open(folder.path(), RegistrySettings::default()).await.unwrap());
    assert_eq!(content().as_deref(), Some(""));
    boot("another");
    // Where that cannot be, it is neither taken for sound nor forgotten.
    let (blobs, away) = (folder.path().join("blobs"), folder.path().join("away"));
    std::fs::rename(&blobs, &away).unwrap();
    let store = ImageStore::open(folder.path(), RegistrySettings::default()).await.unwrap();
    store.layers(&loaded[0].id).await.unwrap_err();
    drop(store);
    std::fs::remove_dir_all(&blobs).unwrap();
    std::fs::rename(&away, &blobs).unwrap();
    assert_eq!(content().as_deref(), Some(""));
    let store = ImageStore::open(folder.path(), RegistrySettings::default()).await.unwrap();
    assert_eq!(content(), Some(whole));
    assert_eq!(store.layers(&loaded[0].id).await.unwrap(), layers);
}

/// As with images, so with what only the cache of builds has.
#[tokio::test(flavor = "multi_thread")]
async fn layers_of_the_build_cache_that_the_disk_never_had_are_unpacked_anew() {
    let tar = tar_of(&[("tool", "content")]);
    let made = image(&Platform::host().to_string(), std::slice::from_ref(&tar), serde_json::json!({}));
    let place = place().await;
    let loaded = place.store.load(std::io::Cursor::new(oci_archive_of(&made, Some("me/app:1"))), &quiet).await.unwrap();
    let layers = place.store.layers(&loaded[0].id).await.unwrap();
    let Place { folder, store } = place;
    drop(store);
    let hex = layers[0].file_name().unwrap().to_str().unwrap();
    std::fs::write(folder.path().join("blobs/sha256").join(hex), &tar).unwrap();
    let db = rusqlite::Connection::open(folder.path().join("images.db")).unwrap();
    let layer = format!("sha256:{hex}");
    db.execute("PRAGMA foreign_keys = ON", []).unwrap();
    db.execute(
        "INSERT INTO steps (key, diff_id, size, last_used) VALUES ('key', ?1, ?2, 0)",
        rusqlite::params![layer, i64::try_from(tar.len()).unwrap()],
    )
    .unwrap();
    db.execute("INSERT OR REPLACE INTO unsynced VALUES (?1, 'another')", [&layer]).unwrap();
    db.execute("DELETE FROM images", []).unwrap();
    drop(db);
    std::fs::write(layers[0].join("tool"), "").unwrap();
    drop(ImageStore::open(folder.path(), RegistrySettings::default()).await.unwrap());
    assert_eq!(read(&layers, "tool").as_deref(), Some("content"));
}

/// Writes what only the log beside a database has into the database: a store that was dropped may have work left that holds
/// its connection.
fn fold_log(database: &std::path::Path) {
    let database = rusqlite::Connection::open(database).unwrap();
    database.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(())).unwrap();
}

/// An older copy of the database, or one that lost its newest pages, is as sound as any.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_database_costs_no_layer() {
    let place = place().await;
    let load = async |store: &ImageStore, name: &str| {
        let made = image(&Platform::host().to_string(), &[tar_of(&[("f", name)])], serde_json::json!({}));
        let loaded = store.load(std::io::Cursor::new(oci_archive_of(&made, Some(name))), &quiet).await.unwrap();
        store.layers(&loaded[0].id).await.unwrap()
    };
    load(&place.store, "old:1").await;
    let Place { folder, store } = place;
    drop(store);
    let path = folder.path().join("images.db");
    fold_log(&path);
    let older = std::fs::read(&path).unwrap();
    let store = ImageStore::open(folder.path(), RegistrySettings::default()).await.unwrap();
    let layers = load(&store, "new:1").await;
    drop(store);
    // Nothing of it is only in the log beside it.
    fold_log(&path);
    for beside in ["images.db-wal", "images.db-shm"] {
        let _ = std::fs::remove_file(folder.path().join(beside));
    }
    let store = ImageStore::open(folder.path(), RegistrySettings::default()).await.unwrap();
    assert_eq!(store.list().await.unwrap().len(), 2);
    drop(store);
    std::fs::write(&path, older).unwrap();
    for _ in 0..2 {
        let store = ImageStore::open(folder.path(), RegistrySettings::default()).await.unwrap();
        assert_eq!(store.list().await.unwrap().len(), 1);
        assert_eq!(read(&layers, "f").unwrap(), "new:1");
    }
}

/// Of a bit that flips on the disk, no check of the pages alone sees anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_of_the_database_costs_no_layer_and_no_start() {
    let place = place().await;
    let made = image(&Platform::host().to_string(), &[tar_of(&[("f", "content")])], serde_json::json!({}));
    let loaded = place.store.load(std::io::Cursor::new(oci_archive_of(&made, Some("one:1"))), &quiet).await.unwrap();
    let layers = place.store.layers(&loaded[0].id).await.unwrap();
    place.store.back_up().unwrap();
    let Place { folder, store } = place;
    drop(store);
    let path = folder.path().join("images.db");
    fold_log(&path);
    let whole = std::fs::read(&path).unwrap();
    let hex = layers[0].file_name().unwrap().to_str().unwrap().as_bytes();
    // Not within the documents of the image, which say what they are themselves.
    let column = |at: usize| whole[at - 8] != b'"';
    let places = whole.windows(64).enumerate().filter(|(at, text)| *text == hex && column(*at));
    let places: Vec<usize> = places.map(|(at, _)| at).collect();
    assert!(places.len() > 3, "{places:?}");
    for at in places {
        for bit in [1, 0x10] {
            for beside in ["images.db-wal", "images.db-shm"] {
                let _ = std::fs::remove_file(folder.path().join(beside));
            }
            let mut flipped = whole.clone();
            flipped[at + 7] ^= bit;
            std::fs::write(&path, flipped).unwrap();
            let store = ImageStore::open(folder.path(), RegistrySettings::default()).await.unwrap();
            let images = store.list().await.unwrap();
            assert_eq!((images.len(), &images[0].id), (1, &loaded[0].id), "{at} {bit}");
            assert_eq!(store.layers(&loaded[0].id).await.unwrap(), layers);
            assert_eq!(read(&layers, "f").as_deref(), Some("content"), "{at} {bit}");
            store.save(&["one:1".to_owned()], tokio::io::sink()).await.unwrap();
        }
    }
}
