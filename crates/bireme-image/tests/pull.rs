//! Pulling from a real registry, also through proxies that misbehave.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::atomic::Ordering;

use bireme_core::{ErrorKind, WorkloadKind};
use bireme_image::{ImageError, Platform, Reference, RegistryAuth, RegistrySettings};
use common::*;

fn reference(host: &str, rest: &str) -> Reference {
    Reference::parse(&format!("{host}/{rest}")).unwrap()
}

fn noise(length: usize) -> String {
    // Not compressible, so that layers keep their size.
    let mut state = 12345_u64;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(33 + ((state >> 33) % 90) as u8)
        })
        .collect()
}

fn big_image() -> TestImage {
    let tars = [tar_of(&[("a", &noise(200_000))]), tar_of(&[("b", &noise(50_000))]), busybox()];
    image(&Platform::host().to_string(), &tars, serde_json::json!({ "Cmd": ["/bin/sh"] }))
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_verifies_and_unpacks() {
    let registry = Registry::start(false).await;
    registry.push("busy/box", "1", &big_image()).await;
    let place = place().await;
    let (name, lines) = (reference(&registry.host, "busy/box:1"), Lines::default());
    let pulled = place.store.pull(&name, None, None, &lines.taker()).await.unwrap();
    assert!(!pulled.up_to_date);
    assert_eq!(pulled.digest, big_image().manifest.digest());
    for status in [
        "Pulling from busy/box",
        "Pulling fs layer",
        "Downloading",
        "Verifying Checksum",
        "Download complete",
        "Extracting",
        "Pull complete",
        "Digest: sha256:",
        "Status: Downloaded newer image for",
    ] {
        assert!(lines.has(status), "{status}");
    }
    let found = place.store.resolve(&name.familiar(), None).await.unwrap();
    assert_eq!((found.id.clone(), found.kind()), (pulled.id.clone(), WorkloadKind::Container));
    assert_eq!(found.config.cmd.as_deref(), Some(["/bin/sh".to_owned()].as_slice()));
    assert_eq!(found.repo_digests, [format!("{}@{}", name.familiar_name(), pulled.digest)]);
    let layers = place.store.layers(&pulled.id).await.unwrap();
    assert_eq!(std::fs::read(layers[2].join("bin/busybox")).unwrap(), std::fs::read("/bin/busybox").unwrap());
    assert_eq!(place.count("ingest"), 0);

    let again = Lines::default();
    assert!(place.store.pull(&name, None, None, &again.taker()).await.unwrap().up_to_date);
    assert!(again.has("Status: Image is up to date for") && !again.has("Pulling fs layer"));
    let by_digest = reference(&registry.host, &format!("busy/box@{}", pulled.digest));
    assert_eq!(place.store.pull(&by_digest, None, None, &quiet).await.unwrap().id, pulled.id);
    assert_eq!(place.store.resolve(&by_digest.familiar(), None).await.unwrap().id, pulled.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn takes_up_a_broken_connection_where_it_broke() {
    let registry = Registry::start(false).await;
    registry.push("x", "1", &big_image()).await;
    for mischief in [Mischief::Cut { after: 20_000, times: 6 }, Mischief::CutWithoutRange { after: 20_000 }] {
        let proxy = Proxy::start(&registry, mischief).await;
        let place = place().await;
        let pulled = place.store.pull(&reference(&proxy.host, "x:1"), None, None, &quiet).await.unwrap();
        let layers = place.store.layers(&pulled.id).await.unwrap();
        assert_eq!(read(&layers, "a").unwrap(), noise(200_000));
        assert!(proxy.resumed.load(Ordering::SeqCst) >= 1, "{mischief:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn asks_again_when_the_registry_is_busy() {
    let registry = Registry::start(false).await;
    registry.push("x", "1", &big_image()).await;
    let proxy = Proxy::start(&registry, Mischief::Busy { times: 2 }).await;
    let place = place().await;
    place.store.pull(&reference(&proxy.host, "x:1"), None, None, &quiet).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_registry_is_left_alone_for_as_long_as_it_says() {
    let registry = Registry::start(false).await;
    registry.push("x", "1", &one_layer()).await;
    let proxy = Proxy::start(&registry, Mischief::TooMany { times: 2 }).await;
    let place = place().await;
    let started = std::time::Instant::now();
    place.store.pull(&reference(&proxy.host, "x:1"), None, None, &quiet).await.unwrap();
    assert!(started.elapsed() >= std::time::Duration::from_secs(2), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hands_out_a_token_by_drips_is_given_up() {
    let registry = Registry::start(false).await;
    registry.push("x", "1", &one_layer()).await;
    let proxy = Proxy::start(&registry, Mischief::DrippingToken).await;
    let place = place().await;
    let started = std::time::Instant::now();
    let error = place.store.pull(&reference(&proxy.host, "x:1"), None, None, &quiet).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(started.elapsed() < std::time::Duration::from_secs(45), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_token_is_exchanged_for_others() {
    let registry = Registry::start(false).await;
    registry.push("x", "1", &one_layer()).await;
    let proxy = Proxy::start(&registry, Mischief::Identity).await;
    let place = place().await;
    let basic = RegistryAuth::Basic(USER.0.to_owned(), USER.1.to_owned());
    let token = place.store.check_credentials(&proxy.host, &basic).await.unwrap().unwrap();
    assert_eq!(token, "kept&secret");
    let identity = RegistryAuth::Identity(token);
    assert!(!format!("{identity:?}").contains("kept"));
    let name = reference(&proxy.host, "x:1");
    place.store.pull(&name, None, Some(identity.clone()), &quiet).await.unwrap();
    assert_eq!(place.store.check_credentials(&proxy.host, &identity).await.unwrap(), None);
    let other = RegistryAuth::Identity("other".to_owned());
    assert_eq!(place.store.pull(&name, None, Some(other), &quiet).await.unwrap_err().kind(), ErrorKind::Denied);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pulls_of_one_layer_fetch_it_once() {
    let registry = Registry::start(false).await;
    registry.push("one", "1", &big_image()).await;
    registry.push("two", "1", &big_image()).await;
    // Slow enough that the second comes while the first is under way.
    let proxy = Proxy::start(&registry, Mischief::Slow).await;
    let place = place().await;
    let (first, second) = (reference(&proxy.host, "one:1"), reference(&proxy.host, "two:1"));
    let lines = Lines::default();
    let taker = lines.taker();
    let (one, two) =
        tokio::join!(place.store.pull(&first, None, None, &quiet), place.store.pull(&second, None, None, &taker),);
    assert_eq!(one.unwrap().id, two.unwrap().id);
    assert_eq!(proxy.layers.load(Ordering::SeqCst), big_image().layers.len(), "each layer came once");
    assert!(lines.has("Downloading") && lines.has("Pull complete"), "who waits is told");
    // One that gives up leaves the other nothing to wait for.
    let fresh = tempfile::Builder::new().prefix("bireme-image-").tempdir_in("/var/tmp").unwrap();
    let store = bireme_image::ImageStore::open(fresh.path(), RegistrySettings::default()).await.unwrap();
    let place = Place { folder: fresh, store };
    let given_up =
        tokio::time::timeout(std::time::Duration::from_millis(300), place.store.pull(&first, None, None, &quiet));
    let (given_up, second) = tokio::join!(given_up, place.store.pull(&second, None, None, &quiet));
    assert!(given_up.is_err());
    assert_eq!(read(&place.store.layers(&second.unwrap().id).await.unwrap(), "a").unwrap(), noise(200_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_nothing_of_a_registry_that_lies() {
    let registry = Registry::start(false).await;
    registry.push("x", "1", &big_image()).await;
    let place = place().await;
    let lying = Proxy::start(&registry, Mischief::Lie).await;
    let error = place.store.pull(&reference(&lying.host, "x:1"), None, None, &quiet).await.unwrap_err();
    assert!(matches!(error, ImageError::DigestMismatch { .. }), "{error}");
    let endless = Proxy::start(&registry, Mischief::Endless).await;
    let error = place.store.pull(&reference(&endless.host, "x:1"), None, None, &quiet).await.unwrap_err();
    assert!(matches!(error, ImageError::TooLarge { .. }), "{error}");
    let longer = Proxy::start(&registry, Mischief::Longer).await;
    // What is beyond the promised size is not read, or it is refused; the content is right either way.
    match place.store.pull(&reference(&longer.host, "x:1"), None, None, &quiet).await {
        Ok(pulled) => assert_eq!(pulled.digest, big_image().manifest.digest()),
        Err(error) => assert!(matches!(error, ImageError::SizeMismatch { .. }), "{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_pull_leaves_nothing() {
    let registry = Registry::start(false).await;
    let mut image = big_image();
    registry.push("x", "1", &image).await;
    // A layer whose content is as promised, but whose unpacked digest is not.
    let wrong = tar_of(&[("other", "content")]);
    image.layers[1] = Blob::new(GZIP, gzip(&wrong));
    let image = with_manifest(&image.platform, image.config, image.layers, None);
    registry.push("x", "2", &image).await;
    let place = place().await;
    let error = place.store.pull(&reference(&registry.host, "x:2"), None, None, &quiet).await.unwrap_err();
    assert!(matches!(error, ImageError::DigestMismatch { .. }), "{error}");
    assert!(place.store.list().await.unwrap().is_empty());
    wait_until(|| place.count("blobs/sha256") + place.count("layers/sha256") + place.count("ingest") == 0).await;
}

async fn wait_until(done: impl Fn() -> bool) {
    for _ in 0..500 {
        if done() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("it did not become true");
}

#[tokio::test(flavor = "multi_thread")]
async fn says_in_dockers_words_what_is_not_there() {
    let registry = Registry::start(false).await;
    registry.push("x", "1", &big_image()).await;
    let place = place().await;
    let error = place.store.pull(&reference(&registry.host, "x:nope"), None, None, &quiet).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("manifest for {}/x:nope not found: manifest unknown: manifest unknown", registry.host)
    );
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let wanted: Platform = "linux/s390x".parse().unwrap();
    let error = place.store.pull(&reference(&registry.host, "x:1"), Some(&wanted), None, &quiet).await.unwrap_err();
    assert!(matches!(error, ImageError::NoPlatform { .. }), "{error}");
    // A layer that the registry lost.
    std::fs::remove_file(registry.stored(&big_image().layers[0].digest())).unwrap();
    let error = place.store.pull(&reference(&registry.host, "x:1"), None, None, &quiet).await.unwrap_err();
    assert!(matches!(error, ImageError::MissingBlob { .. }), "{error}");
    // Nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = place.store.pull(&reference(&free.to_string(), "x:1"), None, None, &quiet).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn shows_who_asks() {
    let registry = Registry::start(true).await;
    registry.push("x", "1", &big_image()).await;
    let basic = |password: &str| Some(RegistryAuth::Basic(USER.0.to_owned(), password.to_owned()));
    let place = place().await;
    let name = reference(&registry.host, "x:1");
    for auth in [None, basic("wrong")] {
        let error = place.store.pull(&name, None, auth, &quiet).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(error.to_string().contains("authentication required"), "{error}");
    }
    place.store.pull(&name, None, basic(USER.1), &quiet).await.unwrap();

    let open = Registry::start(false).await;
    open.push("x", "1", &big_image()).await;
    let proxy = Proxy::start(&open, Mischief::Bearer).await;
    let name = reference(&proxy.host, "x:1");
    assert_eq!(place.store.pull(&name, None, None, &quiet).await.unwrap_err().kind(), ErrorKind::Denied);
    place.store.pull(&name, None, basic(USER.1), &quiet).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn registries_are_asked_for_credentials() {
    let closed = Registry::start(true).await;
    let open = Registry::start(false).await;
    let bearer = Proxy::start(&open, Mischief::Bearer).await;
    let place = place().await;
    let basic = |name: &str, password: &str| RegistryAuth::Basic(name.to_owned(), password.to_owned());
    for host in [&closed.host, &bearer.host] {
        place.store.check_credentials(&format!("http://{host}/v2/"), &basic(USER.0, USER.1)).await.unwrap();
        let error = place.store.check_credentials(host, &basic(USER.0, "wrong")).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("Get \"http://{host}/v2/\": unauthorized: incorrect username or password")
        );
    }
    // One that wants none takes any, as with Docker.
    assert_eq!(place.store.check_credentials(&open.host, &basic("anybody", "")).await.unwrap(), None);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = place.store.check_credentials(&free.to_string(), &basic(USER.0, USER.1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let error = place.store.search(&format!("{}/x", open.host), 25, None).await.unwrap_err();
    assert!(error.to_string().contains("Unexpected status code 404"), "a registry is no index: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn asks_mirrors_of_docker_hub_first() {
    let registry = Registry::start(false).await;
    registry.push("library/thing", "latest", &big_image()).await;
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = RegistrySettings {
        mirrors: vec![format!("http://{dead}"), registry.host.clone()],
        ..RegistrySettings::default()
    };
    let place = place_with(settings).await;
    place.store.pull(&Reference::parse("thing").unwrap(), None, None, &quiet).await.unwrap();
    assert_eq!(place.store.resolve("thing", None).await.unwrap().references, ["thing:latest"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_name_keeps_several_platforms() {
    let registry = Registry::start(false).await;
    let linux = image(&Platform::host().to_string(), &[tar_of(&[("x", "linux")])], serde_json::json!({}));
    let wasm_tar = tar_of(&[("app.wasm", std::str::from_utf8(WASM).unwrap())]);
    let wasm = image("wasi/wasm", &[wasm_tar], serde_json::json!({ "Entrypoint": ["/app.wasm"] }));
    let arm = image("linux/s390x", &[tar_of(&[("x", "other")])], serde_json::json!({}));
    for one in [&linux, &wasm, &arm] {
        for blob in one.layers.iter().chain([&one.config]) {
            registry.push_blob("both", blob).await;
        }
        registry.push_manifest("both", one.manifest.digest().as_str(), &one.manifest).await;
    }
    registry.push_manifest("both", "1", &index(&[arm, linux, wasm])).await;
    let place = place().await;
    let name = reference(&registry.host, "both:1");
    let first = place.store.pull(&name, None, None, &quiet).await.unwrap();
    let second = place.store.pull(&name, Some(&Platform::wasm()), None, &quiet).await.unwrap();
    assert_ne!(first.id, second.id);
    let resolve = async |platform: Option<&str>| {
        let platform: Option<Platform> = platform.map(|text| text.parse().unwrap());
        place.store.resolve(&name.familiar(), platform.as_ref()).await
    };
    assert_eq!(resolve(None).await.unwrap().kind(), WorkloadKind::Container);
    let component = resolve(Some("wasi/wasm")).await.unwrap();
    assert_eq!(component.kind(), WorkloadKind::Component);
    assert!(matches!(resolve(Some("linux/arm64")).await, Err(ImageError::NoPlatform { .. })));
    let (path, digest) = place.store.component(&component.id, "/app.wasm").await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), WASM);
    assert_eq!(digest, bireme_image::Digest::of(WASM).as_str());
    let removed = place.store.remove(&name.familiar(), false, &|_| None).await.unwrap();
    assert!(place.store.list().await.unwrap().is_empty(), "{removed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_is_asked_without_pulling() {
    let registry = Registry::start(false).await;
    registry.push("busy/box", "1", &big_image()).await;
    let place = place().await;
    let name = reference(&registry.host, "busy/box:1");
    let found = place.store.look_up(&name, None).await.unwrap();
    let manifest = big_image().manifest;
    assert_eq!((found.digest, found.size), (manifest.digest(), manifest.bytes.len() as u64));
    assert!(found.media_type.ends_with("manifest.v1+json") || found.media_type.ends_with("manifest.v2+json"));
    assert_eq!(found.platforms.len(), 1);
    assert_eq!(found.platforms[0]["os"], "linux");
    assert!(place.store.list().await.unwrap().is_empty(), "nothing is stored");
    let error = place.store.look_up(&reference(&registry.host, "busy/box:2"), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_what_skopeo_pushed() {
    let registry = Registry::start(false).await;
    let tars = [busybox(), tar_of(&[("etc/motd", "hello")])];
    let made = image(&Platform::host().to_string(), &tars, serde_json::json!({}));
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("image.tar");
    std::fs::write(&archive, docker_archive(&made, &tars, &["a/b:c"])).unwrap();
    let copied = tokio::process::Command::new("skopeo")
        .args(["--insecure-policy", "copy", "--dest-tls-verify=false"])
        .arg(format!("docker-archive:{}", archive.display()))
        .arg(format!("docker://{}/skopeo:1", registry.host))
        .output()
        .await
        .unwrap();
    assert!(copied.status.success(), "{copied:?}");
    let place = place().await;
    let pulled = place.store.pull(&reference(&registry.host, "skopeo:1"), None, None, &quiet).await.unwrap();
    let layers = place.store.layers(&pulled.id).await.unwrap();
    assert_eq!(read(&layers, "etc/motd").unwrap(), "hello");
}
