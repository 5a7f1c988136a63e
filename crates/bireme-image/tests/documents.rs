//! Manifests, indexes and configurations that lie, loop, are wide, deep or huge, or have the wrong types.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::{Duration, Instant};

use bireme_core::ErrorKind;
use bireme_image::{Digest, ImageError, Platform};
use common::*;
use serde_json::{Value, json};

/// What of a document, pulled and loaded, is refused with; both in little time.
async fn refusals(top: &Blob, others: &[Blob]) -> [ImageError; 2] {
    let place = place().await;
    let begun = Instant::now();
    let manifests = [("1".to_owned(), top.clone()), (top.digest().to_string(), top.clone())];
    let others_by_digest = others.iter().map(|blob| (blob.digest().to_string(), blob.clone()));
    let fake = Fake::registry(manifests.into_iter().chain(others_by_digest).collect(), others.to_vec()).await;
    let pulled = place.store.pull(&fake.name(), None, None, &quiet).await.expect_err("its pull is refused");
    let archive = oci_archive(&[(top, Some("x:1"))], &others.iter().collect::<Vec<_>>());
    let loaded = load(&place, archive).await.expect_err("its archive is refused");
    assert!(begun.elapsed() < Duration::from_secs(20), "{pulled}, {loaded}");
    for error in [&pulled, &loaded] {
        // A client shows it, and a log keeps it.
        assert!(error.to_string().len() < 4096, "{}…", &error.to_string()[..400]);
    }
    assert!(place.store.list().await.unwrap().is_empty());
    place.settles_to(0, 0).await;
    [pulled, loaded]
}

fn blobs_of(image: &TestImage) -> Vec<Blob> {
    image.layers.iter().chain([&image.config, &image.manifest]).cloned().collect()
}

fn changed(document: &Blob, change: impl FnOnce(&mut Value)) -> Blob {
    let mut value: Value = serde_json::from_slice(&document.bytes).unwrap();
    change(&mut value);
    Blob::new(&document.media_type, value.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_names_itself_is_no_loop() {
    // It cannot have its own digest in it, but whoever serves it may lie.
    let claimed = Digest::of(b"an index");
    let entry = json!({
        "mediaType": OCI_INDEX, "digest": claimed, "size": 1000,
        "platform": { "os": "linux", "architecture": Platform::host().architecture },
    });
    let looped =
        Blob::new(OCI_INDEX, json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry] }).to_string());
    let place = place().await;
    let manifests = vec![("1".to_owned(), looped.clone()), (claimed.to_string(), looped.clone())];
    let fake = Fake::registry(manifests, Vec::new()).await;
    let error = place.store.pull(&fake.name(), None, None, &quiet).await.unwrap_err();
    assert!(matches!(error, ImageError::DigestMismatch { .. }), "{error}");
    assert!(fake.asked().len() < 10, "{:?}", fake.asked());
    // In an archive, under the path of the digest that it has in it.
    let mut files = std::collections::BTreeMap::new();
    files.insert("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
    files.insert(format!("blobs/sha256/{}", claimed.hex()), looped.bytes.clone());
    files.insert("index.json".to_owned(), looped.bytes.clone());
    let error = load(&place, raw_tar(&files)).await.unwrap_err();
    assert!(matches!(error, ImageError::DigestMismatch { .. }), "{error}");
    // And through links of the archive that lead to each other.
    let mut archive = raw_tar(&files);
    archive.truncate(archive.len() - 1024);
    let path = format!("blobs/sha256/{}", claimed.hex());
    archive.extend(tar_with(&[symlink(&path, "../../a"), symlink("a", "b"), hard_link("b", "a")]));
    assert!(load(&place, archive).await.is_err());
    place.settles_to(0, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_a_hundred_thousand_manifests_is_too_large() {
    let entries: Vec<Value> = (0..100_000_u32)
        .map(|at| json!({ "mediaType": OCI_MANIFEST, "digest": Digest::of(&at.to_le_bytes()), "size": 1 }))
        .collect();
    let wide =
        Blob::new(OCI_INDEX, json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries }).to_string());
    for error in refusals(&wide, &[]).await {
        assert!(error.to_string().contains("is larger than 4194304 bytes"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_as_wide_as_is_read_is_refused_in_a_sentence() {
    let entries: Vec<Value> = (0..15_000_u32)
        .map(|at| {
            json!({
                "mediaType": OCI_MANIFEST, "digest": Digest::of(&at.to_le_bytes()), "size": 1,
                "platform": { "os": "linux", "architecture": format!("machine-{at}") },
            })
        })
        .collect();
    let wide =
        Blob::new(OCI_INDEX, json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries }).to_string());
    let [pulled, loaded] = refusals(&wide, &[]).await;
    assert!(matches!(pulled, ImageError::NoPlatform { .. }), "{pulled}");
    assert!(matches!(loaded, ImageError::MissingBlob { .. }), "{loaded}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_within_an_index_is_not_followed_without_end() {
    let made = one_layer();
    let mut levels = vec![made.manifest.clone()];
    for _ in 0..8 {
        let mut entry = levels.last().unwrap().descriptor();
        entry["platform"] = json!({ "os": "linux", "architecture": Platform::host().architecture });
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry] });
        levels.push(Blob::new(OCI_INDEX, index.to_string()));
    }
    let top = levels.pop().unwrap();
    let others: Vec<Blob> = levels.into_iter().chain(blobs_of(&made)).collect();
    let [pulled, loaded] = refusals(&top, &others).await;
    assert!(pulled.to_string().contains("an index within an index cannot be pulled"), "{pulled}");
    assert!(loaded.to_string().contains("nested too deeply"), "{loaded}");
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_beyond_the_bound_are_refused() {
    let made = one_layer();
    let padding = " ".repeat(5 << 20);
    let text = String::from_utf8(made.manifest.bytes.clone()).unwrap();
    let huge = Blob::new(OCI_MANIFEST, format!("{text}{padding}"));
    for error in refusals(&huge, &blobs_of(&made)).await {
        assert!(error.to_string().contains("is larger than 4194304 bytes"), "{error}");
    }
    let text = String::from_utf8(made.config.bytes.clone()).unwrap();
    let config = Blob::new(OCI_CONFIG, format!("{text}{padding}"));
    let huge = with_manifest(&made.platform, config, made.layers, None);
    for error in refusals(&huge.manifest.clone(), &blobs_of(&huge)).await {
        assert!(error.to_string().contains("is larger than 4194304 bytes"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_are_no_documents_are_refused() {
    let deep = |count: usize| format!("{}{}", "[".repeat(count), "]".repeat(count));
    let made = one_layer();
    let text = String::from_utf8(made.manifest.bytes.clone()).unwrap();
    for bytes in [
        b"".to_vec(),
        b"null".to_vec(),
        b"[]".to_vec(),
        b"{}".to_vec(),
        b"\xff\xfe".to_vec(),
        b"\xef\xbb\xbf{}".to_vec(),
        deep(1_000_000).into_bytes(),
        format!("{{\"schemaVersion\":2,\"annotations\":{}}}", deep(1_000_000)).into_bytes(),
        text.replace("\"schemaVersion\":2", "\"schemaVersion\":1").into_bytes(),
        text.replace("\"schemaVersion\":2", "\"schemaVersion\":2.0").into_bytes(),
        text.replace("\"schemaVersion\":2", "\"schemaVersion\":\"2\"").into_bytes(),
        text.replace("\"layers\":[", "\"layers\":[null,").into_bytes(),
        text.replace("\"layers\":[", "\"layers\":[{},").into_bytes(),
        format!("{text}{text}").into_bytes(),
        text.as_bytes()[..text.len() - 1].to_vec(),
        // Twice the same key: which of them counts is another reader's choice.
        text.replacen('{', "{\"layers\":[],", 1).into_bytes(),
        text.replacen('{', "{\"config\":null,", 1).into_bytes(),
    ] {
        let start: String = String::from_utf8_lossy(&bytes).chars().take(80).collect();
        for error in refusals(&Blob::new(OCI_MANIFEST, bytes), &blobs_of(&made)).await {
            assert!(matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Unsupported), "{start}: {error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_and_digests_that_are_none_are_refused() {
    let made = one_layer();
    let digest = made.layers[0].digest().to_string();
    for (pointer, value) in [
        ("/layers/0/size", json!(-1)),
        ("/layers/0/size", json!(1.5)),
        ("/layers/0/size", json!("7")),
        ("/layers/0/size", json!(1e30)),
        ("/layers/0/size", json!(u64::MAX)),
        ("/config/size", json!(-1)),
        ("/config/size", json!(u64::MAX)),
        ("/layers/0/digest", json!("")),
        ("/layers/0/digest", json!("sha256:")),
        ("/layers/0/digest", json!("sha256:zz")),
        ("/layers/0/digest", json!("../../../etc/passwd")),
        ("/layers/0/digest", json!(format!("sha256:{}/../x", "a".repeat(64)))),
        ("/layers/0/digest", json!(digest.to_uppercase())),
        ("/layers/0/digest", json!(format!("{digest}0"))),
        ("/layers/0/digest", json!(format!("md5:{}", "a".repeat(32)))),
        ("/layers/0/digest", json!(format!("sha512:{}", "a".repeat(128)))),
        ("/config/digest", json!("sha256:..")),
        ("/config/mediaType", json!("text/plain")),
        ("/config/mediaType", json!("")),
        ("/mediaType", json!("application/vnd.docker.distribution.manifest.v1+prettyjws")),
        ("/mediaType", json!(OCI_INDEX)),
    ] {
        let lying = changed(&made.manifest, |manifest| *manifest.pointer_mut(pointer).unwrap() = value.clone());
        for error in refusals(&lying, &blobs_of(&made)).await {
            let kind = error.kind();
            let known = matches!(kind, ErrorKind::Invalid | ErrorKind::Unsupported | ErrorKind::NotFound);
            assert!(known, "{pointer} {value}: {kind:?} {error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_does_not_fit_its_manifest_is_refused() {
    let (made, tars) = two_layers();
    let diff_ids: Vec<Digest> = tars.iter().map(|tar| Digest::of(tar)).collect();
    for (ids, words) in [
        (json!([]), "it lists 0 layers where the manifest has 2"),
        (json!([diff_ids[0]]), "it lists 1 layers where the manifest has 2"),
        (json!([diff_ids[0], diff_ids[1], diff_ids[1]]), "it lists 3 layers where the manifest has 2"),
        (json!([diff_ids[1], diff_ids[0]]), "is not what its digest says"),
        (json!([diff_ids[0], diff_ids[0]]), "is not what its digest says"),
        (json!([diff_ids[0], made.layers[1].digest()]), "is not what its digest says"),
        (json!([diff_ids[0], Digest::of(b"")]), "is not what its digest says"),
    ] {
        let config = changed(&made.config, |config| config["rootfs"]["diff_ids"] = ids.clone());
        let lying = with_manifest(&made.platform, config, made.layers.clone(), None);
        for error in refusals(&lying.manifest.clone(), &blobs_of(&lying)).await {
            assert!(error.to_string().contains(words), "{ids}: {error}");
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        }
    }
    for broken in ["", "null", "[]", "{", "\"x\"", "{\"rootfs\":7}", "{\"rootfs\":{\"diff_ids\":[7,7]}}"] {
        let lying = with_manifest(&made.platform, Blob::new(OCI_CONFIG, broken), made.layers.clone(), None);
        for error in refusals(&lying.manifest.clone(), &blobs_of(&lying)).await {
            assert_eq!(error.kind(), ErrorKind::Invalid, "{broken}: {error}");
        }
    }
}

/// A registry may send another document for the tag each time it is asked; what is kept is one of them, whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_changes_while_it_is_pulled_is_one_image() {
    let images: Vec<TestImage> = (0..4).map(|at| image_with(&[tar_of(&[("which", &at.to_string())])])).collect();
    let turn = std::sync::atomic::AtomicUsize::new(0);
    let served = images.clone();
    let fake = Fake::start(move |path, _| {
        if path == "/v2/" {
            return ("200 OK", String::new(), b"{}".to_vec());
        }
        if path.contains("/manifests/1") {
            let at = turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % served.len();
            let manifest = &served[at].manifest;
            return ("200 OK", format!("content-type: {}\r\n", manifest.media_type), manifest.bytes.clone());
        }
        let name = path.rsplit('/').next().unwrap_or_default();
        let all = served.iter().flat_map(blobs_of).find(|blob| blob.digest().to_string() == name);
        match all {
            Some(blob) => ("200 OK", format!("content-type: {}\r\n", blob.media_type), blob.bytes),
            None => ("404 Not Found", String::new(), b"{}".to_vec()),
        }
    })
    .await;
    let place = place().await;
    let name = fake.name();
    let pulls = (0..8).map(|_| place.store.pull(&name, None, None, &quiet));
    for pulled in futures::future::join_all(pulls).await {
        let pulled = pulled.unwrap();
        let layers = place.store.layers(&pulled.id).await;
        // Another pull may have taken the name from it, and with the last name an image is still there.
        let which = read(&layers.unwrap(), "which").unwrap();
        assert_eq!(images[which.parse::<usize>().unwrap()].manifest.digest(), pulled.digest);
    }
    assert_eq!(place.store.verify(&|damage| panic!("{damage}")).await.unwrap().damaged, 0);
}
