//! Registries and archives that lie, each lie by name. What they answer is written here by hand.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::sync::Mutex;

use bireme_core::ErrorKind;
use bireme_image::{Digest, ImageError, Platform, PushRequest, Reference, RegistryAuth};
use common::*;

fn parts(image: &TestImage) -> Vec<Blob> {
    image.layers.iter().chain([&image.config]).cloned().collect()
}

async fn pull(fake: &Fake, auth: Option<RegistryAuth>) -> Result<Place, ImageError> {
    let place = place().await;
    match place.store.pull(&fake.name(), None, auth, &quiet).await {
        Ok(_) => Ok(place),
        Err(error) => {
            assert!(place.store.list().await.unwrap().is_empty(), "nothing is recorded");
            Err(error)
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fake_registry_is_one() {
    let made = one_layer();
    let fake = Fake::registry(vec![("1".to_owned(), made.manifest.clone())], parts(&made)).await;
    pull(&fake, None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_is_manifest_and_index_at_once_is_refused() {
    // CVE-2021-41190: one digest, and two readers that see two images.
    let (made, other) = (one_layer(), image("linux/s390x", &[tar_of(&[("x", "y")])], serde_json::json!({})));
    for media_type in [Some(OCI_MANIFEST), Some(OCI_INDEX), None] {
        let mut both: serde_json::Value = serde_json::from_slice(&made.manifest.bytes).unwrap();
        both["manifests"] = serde_json::json!([other.manifest.descriptor()]);
        both.as_object_mut().unwrap().remove("mediaType");
        if let Some(media_type) = media_type {
            both["mediaType"] = media_type.into();
        }
        let both = Blob::new(media_type.unwrap_or(OCI_MANIFEST), both.to_string());
        let fake = Fake::registry(vec![("1".to_owned(), both.clone())], parts(&made)).await;
        let error = pull(&fake, None).await.err().unwrap();
        assert!(error.to_string().contains("it is a manifest and an index at once"), "{error}");
        let blobs = parts(&made);
        let archive = oci_archive(&[(&both, Some("x:1"))], &blobs.iter().collect::<Vec<_>>());
        let error = place().await.store.load(std::io::Cursor::new(archive), &quiet).await.unwrap_err();
        assert!(error.to_string().contains("it is a manifest and an index at once"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_calls_itself_something_else_is_refused() {
    let made = one_layer();
    let lying = Blob::new(OCI_INDEX, made.manifest.bytes.clone());
    let fake = Fake::registry(vec![("1".to_owned(), lying)], parts(&made)).await;
    let error = pull(&fake, None).await.err().unwrap();
    assert!(error.to_string().contains("and it calls itself"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_of_another_digest_is_refused() {
    let (made, other) = (one_layer(), image("linux/amd64", &[tar_of(&[("x", "y")])], serde_json::json!({})));
    // Asked for by digest.
    let digest = made.manifest.digest().to_string();
    let fake = Fake::registry(vec![(digest.clone(), other.manifest.clone())], parts(&other)).await;
    let place = place().await;
    let name = Reference::parse(&format!("{}/x@{digest}", fake.host)).unwrap();
    let error = place.store.pull(&name, None, None, &quiet).await.unwrap_err();
    assert!(matches!(error, ImageError::DigestMismatch { .. }), "{error}");
    // Named by an index.
    let list = index(std::slice::from_ref(&made));
    let manifests = vec![("1".to_owned(), list), (digest, other.manifest.clone())];
    let fake = Fake::registry(manifests, parts(&other)).await;
    let error = pull(&fake, None).await.err().unwrap();
    assert!(matches!(error, ImageError::DigestMismatch { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_that_are_not_as_promised_are_refused() {
    let made = one_layer();
    let digest = made.manifest.digest().to_string();
    // Of a manifest in an index.
    let mut list: serde_json::Value = serde_json::from_slice(&index(std::slice::from_ref(&made)).bytes).unwrap();
    list["manifests"][0]["size"] = 7.into();
    let list = Blob::new(OCI_INDEX, list.to_string());
    let fake = Fake::registry(vec![("1".to_owned(), list), (digest, made.manifest.clone())], parts(&made)).await;
    let error = pull(&fake, None).await.err().unwrap();
    assert!(matches!(error, ImageError::SizeMismatch { .. }), "{error}");
    // Of a layer, and of a configuration.
    for (pointer, size) in [("/layers/0/size", 7), ("/config/size", 7)] {
        let mut manifest: serde_json::Value = serde_json::from_slice(&made.manifest.bytes).unwrap();
        *manifest.pointer_mut(pointer).unwrap() = size.into();
        let manifest = Blob::new(OCI_MANIFEST, manifest.to_string());
        let fake = Fake::registry(vec![("1".to_owned(), manifest)], parts(&made)).await;
        let error = pull(&fake, None).await.err().unwrap();
        assert!(matches!(error, ImageError::SizeMismatch { .. }), "{pointer}: {error}");
    }
    // A configuration that is said to be larger than any.
    let mut manifest: serde_json::Value = serde_json::from_slice(&made.manifest.bytes).unwrap();
    manifest["config"]["size"] = (1_u64 << 40).into();
    let manifest = Blob::new(OCI_MANIFEST, manifest.to_string());
    let fake = Fake::registry(vec![("1".to_owned(), manifest)], parts(&made)).await;
    for error in
        [pull(&fake, None).await.err().unwrap(), place().await.store.look_up(&fake.name(), None).await.unwrap_err()]
    {
        assert!(matches!(error, ImageError::TooLarge { .. }), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_of_another_digest_is_refused() {
    let made = one_layer();
    let mut wrong = made.layers[0].bytes.clone();
    *wrong.last_mut().unwrap() ^= 1;
    let (layer, manifest) = (made.layers[0].digest().to_string(), made.manifest.bytes.clone());
    let config = made.config.bytes.clone();
    let fake = Fake::start(move |path, _| {
        let body = match path {
            "/v2/" => b"{}".to_vec(),
            _ if path.contains("/manifests/") => manifest.clone(),
            _ if path.ends_with(&layer) => wrong.clone(),
            _ => config.clone(),
        };
        ("200 OK", String::new(), body)
    })
    .await;
    let error = pull(&fake, None).await.err().unwrap();
    assert!(matches!(error, ImageError::DigestMismatch { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_do_not_follow_a_redirect() {
    let made = one_layer();
    let blobs: BTreeMap<_, _> = parts(&made).into_iter().map(|blob| (blob.digest().to_string(), blob.bytes)).collect();
    let elsewhere = Fake::start(move |path, _| {
        let name = path.rsplit('/').next().unwrap_or_default();
        ("200 OK", String::new(), blobs.get(name).cloned().unwrap_or_default())
    })
    .await;
    let (place, manifest) = (elsewhere.host.clone(), made.manifest.bytes.clone());
    let registry = Fake::start(move |path, head| {
        if !head.to_ascii_lowercase().contains("authorization: basic bwu6vspv") {
            return ("401 Unauthorized", "www-authenticate: Basic realm=\"x\"\r\n".to_owned(), Vec::new());
        }
        match path.contains("/blobs/") {
            true => ("307 Temporary Redirect", format!("location: http://{place}{path}\r\n"), Vec::new()),
            false => ("200 OK", String::new(), manifest.clone()),
        }
    })
    .await;
    let auth = RegistryAuth::Basic(USER.0.to_owned(), USER.1.to_owned());
    pull(&registry, Some(auth)).await.unwrap();
    assert!(registry.asked().iter().any(|(path, head)| path.contains("/blobs/") && head.contains("authorization:")));
    let asked = elsewhere.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked.iter().all(|(_, head)| !head.contains("authorization")), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_not_shown_where_a_layer_is_to_be_sent_to() {
    let elsewhere = Fake::start(|_, _| ("201 Created", String::new(), Vec::new())).await;
    let place_of_uploads = elsewhere.host.clone();
    let registry = Fake::start(move |path, head| {
        if !head.to_ascii_lowercase().contains("authorization: basic") {
            return ("401 Unauthorized", "www-authenticate: Basic realm=\"x\"\r\n".to_owned(), Vec::new());
        }
        match path {
            _ if head.starts_with("HEAD") => ("404 Not Found", String::new(), Vec::new()),
            _ if path.ends_with("/blobs/uploads/") => {
                ("202 Accepted", format!("location: http://{place_of_uploads}/up?x=1\r\n"), Vec::new())
            }
            _ => ("201 Created", String::new(), Vec::new()),
        }
    })
    .await;
    let place = place().await;
    let archive = oci_archive_of(&one_layer(), Some(&registry.name().familiar()));
    place.store.load(std::io::Cursor::new(archive), &quiet).await.unwrap();
    let auth = RegistryAuth::Basic("me".to_owned(), "secret".to_owned());
    let request = PushRequest { auth: Some(auth), ..PushRequest::new(registry.name()) };
    place.store.push(&request, &quiet, &|_| {}).await.unwrap();
    let asked = elsewhere.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked.iter().all(|(path, _)| path.starts_with("/up?x=1&digest=sha256%3A")), "{asked:?}");
    assert!(asked.iter().all(|(_, head)| !head.contains("authorization")), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_a_manifest_gives_for_its_layers_are_not_asked() {
    let elsewhere = Fake::start(|_, _| ("200 OK", String::new(), Vec::new())).await;
    let made = one_layer();
    let mut manifest: serde_json::Value = serde_json::from_slice(&made.manifest.bytes).unwrap();
    manifest["layers"][0]["urls"] = serde_json::json!([format!("http://{}/layer", elsewhere.host)]);
    let with_urls = Blob::new(OCI_MANIFEST, manifest.to_string());
    // The registry has the layer: it comes from there. It has not: it is missing.
    let fake = Fake::registry(vec![("1".to_owned(), with_urls.clone())], parts(&made)).await;
    pull(&fake, None).await.unwrap();
    let fake = Fake::registry(vec![("1".to_owned(), with_urls)], vec![made.config.clone()]).await;
    let error = pull(&fake, None).await.err().unwrap();
    assert!(matches!(error, ImageError::MissingBlob { .. }), "{error}");
    // The type that is made for it is no layer here.
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    manifest["layers"][0]["mediaType"] = foreign.into();
    let manifest = Blob::new(OCI_MANIFEST, manifest.to_string());
    let fake = Fake::registry(vec![("1".to_owned(), manifest)], parts(&made)).await;
    let error = pull(&fake, None).await.err().unwrap();
    assert!(error.to_string().contains(foreign), "{error}");
    assert_eq!(elsewhere.asked(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_says_nothing_is_named_with_the_image() {
    for status in ["403 Forbidden", "407 Proxy Authentication Required"] {
        let fake = Fake::start(move |_, _| (status, String::new(), Vec::new())).await;
        let error = pull(&fake, None).await.err().unwrap();
        let code = &status[..3];
        assert_eq!(
            error.to_string(),
            format!(
                "cannot reach registry {0} for {0}/x:1: it answered with status {code} and nothing else",
                fake.host
            )
        );
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let name = Reference::parse(&format!("{free}/app:2")).unwrap();
    let error = place().await.store.pull(&name, None, None, &quiet).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot reach registry {free} for {free}/app:2: ")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_path_written_twice_puts_nothing_under_another_digest() {
    // The old attack: `blobs/sha256/A` with A's content, then the same path with B's.
    let one = image(&Platform::host().to_string(), &[tar_of(&[("f", "one")])], serde_json::json!({}));
    let two = image(&Platform::host().to_string(), &[tar_of(&[("f", "two")])], serde_json::json!({}));
    let (layer, other) = (&one.layers[0], &two.layers[0]);
    let path = format!("blobs/sha256/{}", layer.digest().hex());
    let again = raw_tar(&BTreeMap::from([(path.clone(), other.bytes.clone())]));
    let honest = oci_archive_of(&one, Some("one:1"));
    // Without its end mark, so that more can follow; and the other way round.
    let end = honest.len() - 1024;
    let last = [&honest[..end], &again].concat();
    let first = [&again[..again.len() - 1024], &honest].concat();
    let place = place().await;
    let error = place.store.load(std::io::Cursor::new(last), &quiet).await.unwrap_err();
    assert!(matches!(error, ImageError::DigestMismatch { .. }), "{error}");
    assert!(place.store.list().await.unwrap().is_empty());
    // The honest one comes last here, and is what is taken.
    let loaded = place.store.load(std::io::Cursor::new(first), &quiet).await.unwrap();
    let layers = place.store.layers(&loaded[0].id).await.unwrap();
    assert_eq!(read(&layers, "f").unwrap(), "one");
    for file in std::fs::read_dir(place.folder.path().join("blobs/sha256")).unwrap() {
        let file = file.unwrap();
        let digest = Digest::of(&std::fs::read(file.path()).unwrap());
        assert_eq!(digest.hex(), file.file_name().to_str().unwrap());
    }
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// An image that says of `blob` that it unpacks to `tar`.
fn claiming(tar: &[u8], blob: Blob, label: &str) -> TestImage {
    let config = serde_json::json!({ "Labels": { "l": label } });
    let made = image(&Platform::host().to_string(), &[tar.to_vec()], config);
    with_manifest(&made.platform, made.config, vec![blob], None)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_stands_for_nothing_but_what_it_unpacks_to() {
    const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
    let place = place().await;
    let (good, evil) = (tar_of(&[("a", "good")]), tar_of(&[("a", "evil")]));
    let honest = claiming(&good, Blob::new(GZIP, gzip(&good)), "honest");
    place.store.load(std::io::Cursor::new(oci_archive_of(&honest, Some("honest:1"))), &quiet).await.unwrap();
    // The layer that it claims to be is unpacked already, so that nobody needs to unpack this one.
    for (label, blob) in [
        ("lie", Blob::new(GZIP, gzip(&evil))),
        ("lie", Blob::new(ZSTD, zstd(&evil))),
        ("lie", Blob::new(TAR, evil.clone())),
        // Of the very image that is stored.
        ("honest", Blob::new(GZIP, gzip(&evil))),
        // What unpacks to it, said to be something else.
        ("lie", Blob::new(TAR, gzip(&good))),
    ] {
        let lying = claiming(&good, blob.clone(), label);
        let mut errors = Vec::new();
        errors.push(place.store.load(std::io::Cursor::new(oci_archive_of(&lying, Some("lie:1"))), &quiet).await.err());
        let fake = Fake::registry(vec![("1".to_owned(), lying.manifest.clone())], parts(&lying)).await;
        errors.push(place.store.pull(&fake.name(), None, None, &quiet).await.err());
        // Beside an honest one, in one archive.
        let blobs: Vec<&Blob> =
            [&honest, &lying].iter().flat_map(|image| image.layers.iter().chain([&image.config])).collect();
        let both = oci_archive(&[(&honest.manifest, Some("both:1")), (&lying.manifest, Some("both:2"))], &blobs);
        errors.push(place.store.load(std::io::Cursor::new(both), &quiet).await.err());
        for error in errors {
            let error = error.unwrap_or_else(|| panic!("{} {}", blob.media_type, blob.digest()));
            assert!(matches!(error, ImageError::DigestMismatch { .. }), "{error}");
            assert!(error.to_string().contains("unpacked, is not what its digest says"), "{error}");
        }
        assert_eq!(place.store.list().await.unwrap().len(), 1);
    }
    // Packed another way, it is the same layer.
    let other = claiming(&good, Blob::new(ZSTD, zstd(&good)), "other");
    place.store.load(std::io::Cursor::new(oci_archive_of(&other, Some("other:1"))), &quiet).await.unwrap();
    let fake = Fake::registry(vec![("1".to_owned(), other.manifest.clone())], parts(&other)).await;
    place.store.pull(&fake.name(), None, None, &quiet).await.unwrap();
    assert_eq!(place.store.verify(&|damage| panic!("{damage}")).await.unwrap().damaged, 0);
    for _ in 0..500 {
        if place.count("blobs/sha256") == 2 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("what was refused was kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_there_has_the_size_that_is_said_of_it() {
    let (place, made) = (place().await, one_layer());
    place.store.load(std::io::Cursor::new(oci_archive_of(&made, Some("honest:1"))), &quiet).await.unwrap();
    // Saved under a smaller size, the rest of it would be read as further members of the archive.
    for size in [7_u64, 1 << 40] {
        let config = claiming(&tar_of(&[("a", "b")]), made.layers[0].clone(), "other").config;
        let mut lying = with_manifest(&made.platform, config, made.layers.clone(), None);
        let mut manifest: serde_json::Value = serde_json::from_slice(&lying.manifest.bytes).unwrap();
        manifest["layers"][0]["size"] = size.into();
        lying.manifest = Blob::new(OCI_MANIFEST, manifest.to_string());
        let fake = Fake::registry(vec![("1".to_owned(), lying.manifest.clone())], parts(&lying)).await;
        let error = place.store.pull(&fake.name(), None, None, &quiet).await.unwrap_err();
        assert!(matches!(error, ImageError::SizeMismatch { .. }), "{error}");
        assert_eq!(place.store.list().await.unwrap().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_an_older_version_took_in_anothers_name_is_told_and_replaced() {
    let (place, made) = (place().await, one_layer());
    let archive = oci_archive_of(&made, Some("old:1"));
    place.store.load(std::io::Cursor::new(archive.clone()), &quiet).await.unwrap();
    // As an older version left it.
    let evil = Blob::new(GZIP, gzip(&tar_of(&[("a", "evil")])));
    std::fs::write(place.folder.path().join("blobs/sha256").join(evil.digest().hex()), &evil.bytes).unwrap();
    let db = rusqlite::Connection::open(place.folder.path().join("images.db")).unwrap();
    let size = i64::try_from(evil.bytes.len()).unwrap();
    let digest = evil.digest();
    db.execute("UPDATE layers SET blob = ?1, size = ?2", rusqlite::params![digest.as_str(), size]).unwrap();
    let _ = db.execute("DELETE FROM proven", []);
    let told = Mutex::new(Vec::new());
    let verified = place.store.verify(&|damage| told.lock().unwrap().push(damage.to_string())).await.unwrap();
    let told = told.into_inner().unwrap();
    assert_eq!(verified.damaged, 1, "{told:?}");
    let diff_id = Digest::of(&tar_of(&[("a", "b")]));
    let evil_id = Digest::of(&tar_of(&[("a", "evil")]));
    assert_eq!(
        told,
        [format!(
            "layer {digest} unpacks to {evil_id} and stands for {diff_id}; old:1 needs it: remove the image and pull, load \
             or build it again"
        )]
    );
    // The same image, loaded again, is whole.
    place.store.load(std::io::Cursor::new(archive), &quiet).await.unwrap();
    assert_eq!(place.store.verify(&|damage| panic!("{damage}")).await.unwrap().damaged, 0);
    let blob: String = db.query_row("SELECT blob FROM layers", [], |row| row.get(0)).unwrap();
    assert_eq!(blob, made.layers[0].digest().as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_for_a_machine_nobody_knows_is_listed_and_removed() {
    let place = place().await;
    for (at, architecture) in ["alpha", "loongarch64", "x1.y_z-9"].into_iter().enumerate() {
        let made = image(&format!("linux/{architecture}"), &[tar_of(&[("f", architecture)])], serde_json::json!({}));
        let name = format!("odd:{at}");
        place.store.load(std::io::Cursor::new(oci_archive_of(&made, Some(&name))), &quiet).await.unwrap();
        let found = place.store.list().await.unwrap();
        assert_eq!(found.len(), at + 1);
        assert!(found.iter().any(|image| image.platform.architecture == architecture));
    }
    for odd in ["..", "a b", "a\n"] {
        let made = image("linux/PLACE", &[tar_of(&[("f", odd)])], serde_json::json!({}));
        let text = String::from_utf8(made.config.bytes.clone()).unwrap();
        let text = text.replace("PLACE", &odd.replace('\n', "\\n").replace("..", "../../x"));
        let config = Blob::new(OCI_CONFIG, text);
        let made = with_manifest("linux/amd64", config, made.layers, None);
        let error =
            place.store.load(std::io::Cursor::new(oci_archive_of(&made, Some("bad:1"))), &quiet).await.unwrap_err();
        assert!(error.to_string().contains("its platform"), "{error}");
    }
    place.store.verify(&|_| {}).await.unwrap();
    for at in 0..3 {
        place.store.remove(&format!("odd:{at}"), true, &|_| None).await.unwrap();
    }
    assert!(place.store.list().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_has_no_more_of_anything_than_is_of_use() {
    let place = place().await;
    let many = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
    let labels: std::collections::BTreeMap<String, &str> = many(10_001).into_iter().map(|n| (n, "")).collect();
    for (what, config) in [
        ("10001 labels", serde_json::json!({ "Labels": labels })),
        ("10001 variables", serde_json::json!({ "Env": many(10_001) })),
        ("10001 words of its commands", serde_json::json!({ "Cmd": many(10_000), "Entrypoint": ["x"] })),
        ("1001 ONBUILD triggers", serde_json::json!({ "OnBuild": many(1_001) })),
    ] {
        let made = image(&Platform::host().to_string(), &[tar_of(&[("f", "x")])], config);
        let error = place.store.load(std::io::Cursor::new(oci_archive_of(&made, None)), &quiet).await.unwrap_err();
        assert!(error.to_string().contains(&format!("it has {what}, and no image may have more")), "{error}");
    }
    let names: Vec<String> = (0..10_001).map(|n| format!("a:{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let archive = docker_archive(&one_layer(), &[tar_of(&[("a", "b")])], &names);
    let error = place.store.load(std::io::Cursor::new(archive), &quiet).await.unwrap_err();
    assert!(error.to_string().contains("10001 names"), "{error}");
    assert!(place.store.list().await.unwrap().is_empty());
}
