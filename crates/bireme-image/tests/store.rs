//! Names, removal, and what a store keeps.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use bireme_core::ErrorKind;
use bireme_image::{Platform, Reference, RegistrySettings, Removed};
use common::*;

#[tokio::test(flavor = "multi_thread")]
async fn names_and_removal_follow_docker() {
    let (made, tars) = two_layers();
    let place = place().await;
    let id = load(&place, docker_archive(&made, &tars, &["one:1"])).await.unwrap().remove(0).id;
    let two = Reference::parse("two").unwrap();
    place.store.tag("one:1", &two).await.unwrap();
    assert_eq!(place.store.resolve(id.short(), None).await.unwrap().references, ["one:1", "two:latest"]);
    assert_eq!(place.store.resolve(id.as_str(), None).await.unwrap().id, id);
    assert_eq!(place.store.resolve("nope", None).await.unwrap_err().to_string(), "No such image: nope:latest");
    assert_eq!(place.store.tag("nope", &two).await.unwrap_err().kind(), ErrorKind::NotFound);

    let error = place.store.remove(id.short(), false, &|_| None).await.unwrap_err();
    assert!(error.to_string().contains("referenced in multiple repositories"), "{error}");
    let removed = place.store.remove("one:1", false, &|_| None).await.unwrap();
    assert_eq!(removed, [Removed::Untagged("one:1".to_owned())]);
    let used = |_: &bireme_image::ImageId| Some("container 1234567890ab".to_owned());
    let error = place.store.remove("two", false, &used).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("must force) - container 1234567890ab is using"), "{error}");
    assert_eq!(place.store.remove(id.short(), true, &used).await.unwrap_err().kind(), ErrorKind::Conflict);
    // Forced, it loses its name; its files stay for the container.
    assert_eq!(place.store.remove("two", true, &used).await.unwrap(), [Removed::Untagged("two:latest".to_owned())]);
    assert_eq!(place.store.layers(&id).await.unwrap().len(), 2);
    let removed = place.store.remove(id.short(), false, &|_| None).await.unwrap();
    assert_eq!(removed, [Removed::Deleted(id.to_string())]);
    assert_eq!(place.count("blobs/sha256") + place.count("layers/sha256"), 0);
    assert_eq!(place.store.remove("two", false, &|_| None).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_layers_stay_as_long_as_one_image_has_them() {
    let shared = tar_of(&[("base", "shared")]);
    let one = image(&Platform::host().to_string(), &[shared.clone(), tar_of(&[("a", "1")])], serde_json::json!({}));
    let two = image(&Platform::host().to_string(), &[shared, tar_of(&[("a", "2")])], serde_json::json!({}));
    let place = place().await;
    load(&place, oci_archive_of(&one, Some("one"))).await.unwrap();
    load(&place, oci_archive_of(&two, Some("two"))).await.unwrap();
    assert_eq!(place.count("layers/sha256"), 3);
    place.store.remove("one", false, &|_| None).await.unwrap();
    assert_eq!((place.count("layers/sha256"), place.count("blobs/sha256")), (2, 2));
    let found = place.store.resolve("two", None).await.unwrap();
    assert_eq!(read(&place.store.layers(&found.id).await.unwrap(), "base").unwrap(), "shared");
    // The same name for another image leaves the first without one.
    load(&place, oci_archive_of(&one, Some("two"))).await.unwrap();
    assert_eq!(place.store.list().await.unwrap().iter().filter(|image| image.references.is_empty()).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_leaves_nothing_half_made() {
    let (made, tars) = two_layers();
    let first = place().await;
    let id = load(&first, docker_archive(&made, &tars, &["x:1"])).await.unwrap().remove(0).id;
    let root = first.folder.path();
    // As a crash could leave them: files without a row, half an unpacking, a row without its folder.
    let stray = "0".repeat(64);
    std::fs::write(root.join("blobs/sha256").join(&stray), "x").unwrap();
    std::fs::create_dir_all(root.join("layers/sha256").join(&stray).join("deep")).unwrap();
    std::fs::create_dir_all(root.join("ingest/layer-half/deep")).unwrap();
    std::fs::write(root.join("ingest/blob-half"), "x").unwrap();
    let lost = first.store.layers(&id).await.unwrap()[0].clone();
    std::fs::remove_dir_all(&lost).unwrap();
    drop(first.store);

    let store = bireme_image::ImageStore::open(root, RegistrySettings::default()).await.unwrap();
    let count = |part: &str| std::fs::read_dir(root.join(part)).unwrap().count();
    assert_eq!((count("ingest"), count("blobs/sha256"), count("layers/sha256")), (0, 2, 1));
    let layers = store.layers(&id).await.unwrap();
    assert_eq!(read(&layers, "etc/one").unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_in_layers_are_closed_to_users_of_the_machine() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = place().await;
    for part in ["layers", "ingest"] {
        let mode = place.folder.path().join(part).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{part}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_may_ask_for_the_same_layers_at_once() {
    let (made, tars) = two_layers();
    let place = place().await;
    let loads = (0..8).map(|at| load(&place, docker_archive(&made, &tars, &[&format!("x:{at}")])));
    for loaded in futures::future::join_all(loads).await {
        assert_eq!(loaded.unwrap()[0].id.as_str(), made.config.digest().as_str());
    }
    assert_eq!((place.count("layers/sha256"), place.count("blobs/sha256"), place.count("ingest")), (2, 2, 0));
    let removals = (0..8).map(|at| {
        let store = place.store.clone();
        async move { store.remove(&format!("x:{at}"), false, &|_| None).await }
    });
    for removed in futures::future::join_all(removals).await {
        removed.unwrap();
    }
    assert_eq!((place.count("layers/sha256"), place.count("blobs/sha256")), (0, 0));
}
