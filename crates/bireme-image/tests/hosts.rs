//! Registries as the folders of the machine's owner describe them: mirrors, private certificates, what else is sent.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use bireme_core::ErrorKind;
use bireme_image::{ImageError, PushRequest, Reference, RegistryAuth, RegistrySettings};
use common::*;

/// A folder of registries' folders.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn put(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self
    }

    /// The `hosts.toml` of a registry with a port.
    fn hosts(&self, registry: &str, content: &str) -> &Self {
        let (host, port) = registry.rsplit_once(':').unwrap();
        self.put(&format!("{host}_{port}_/hosts.toml"), content)
    }

    async fn place(&self) -> Place {
        place_with(RegistrySettings { config_dirs: vec![self.0.path().to_owned()], ..RegistrySettings::default() })
            .await
    }
}

fn reference(host: &str, rest: &str) -> Reference {
    Reference::parse(&format!("{host}/{rest}")).unwrap()
}

async fn pull(place: &Place, name: &Reference) -> Result<(), ImageError> {
    place.store.pull(name, None, None, &quiet).await.map(|_| ())
}

/// Where nobody listens.
fn nobody() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_is_trusted_where_its_certificate_lies() {
    let tls = Certificates::make();
    let registry = Registry::asking(Asks { tls: Some(&tls), ..Asks::default() }).await;
    registry.push("x", "1", &one_layer()).await;
    let name = reference(&registry.host, "x:1");
    let ca = tls.content("ca.pem");
    // As Docker has it, and as containerd has it; a name relative to the file, and an absolute one.
    let docker = Folder::new();
    docker.put(&format!("{}/ca.crt", registry.host), &ca);
    pull(&docker.place().await, &name).await.unwrap();
    let relative = Folder::new();
    relative.put("authority.pem", &ca).hosts(&registry.host, "ca = \"../authority.pem\"");
    pull(&relative.place().await, &name).await.unwrap();
    let absolute = Folder::new();
    let (host, path) = (&registry.host, tls.file("ca.pem"));
    absolute.hosts(host, &format!("server = \"https://{host}\"\nca = [{path:?}]"));
    pull(&absolute.place().await, &name).await.unwrap();
    let trusting = Folder::new();
    trusting.hosts(host, "skip_verify = true");
    pull(&trusting.place().await, &name).await.unwrap();
    // Another authority is none.
    let other = Folder::new();
    other.put(&format!("{host}/ca.crt"), Certificates::make().content("ca.pem"));
    let error = pull(&other.place().await, &name).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
    let broken = Folder::new();
    broken.put(&format!("{host}/ca.crt"), "no certificate");
    let error = pull(&broken.place().await, &name).await.unwrap_err();
    assert!(error.to_string().contains("ca.crt: there is no certificate in it"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_and_a_password_go_together() {
    let tls = Certificates::make();
    let registry = Registry::asking(Asks { tls: Some(&tls), password: true, ..Asks::default() }).await;
    registry.push("x", "1", &one_layer()).await;
    let (host, name) = (&registry.host, reference(&registry.host, "x:1"));
    let folder = Folder::new();
    folder.put(&format!("{host}/ca.crt"), tls.content("ca.pem"));
    let place = folder.place().await;
    let with = |password: &str| Some(RegistryAuth::Basic(USER.0.to_owned(), password.to_owned()));
    for auth in [None, with("wrong")] {
        let error = place.store.pull(&name, None, auth, &quiet).await.unwrap_err();
        assert!(error.to_string().contains("authentication required"), "{error}");
    }
    place.store.pull(&name, None, with(USER.1), &quiet).await.unwrap();
    let pushed = PushRequest { auth: with(USER.1), ..PushRequest::new(name.clone()) };
    place.store.push(&pushed, &quiet, &|_| ()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_is_shown_to_who_wants_one() {
    let tls = Certificates::make();
    let registry = Registry::asking(Asks { tls: Some(&tls), client: true, ..Asks::default() }).await;
    registry.push("x", "1", &one_layer()).await;
    let (host, name) = (&registry.host, reference(&registry.host, "x:1"));
    let docker = Folder::new();
    docker.put(&format!("{host}/ca.crt"), tls.content("ca.pem"));
    pull(&docker.place().await, &name).await.unwrap_err();
    docker.put(&format!("{host}/me.cert"), tls.content("client.pem"));
    docker.put(&format!("{host}/me.key"), tls.content("client.key"));
    pull(&docker.place().await, &name).await.unwrap();
    let (ca, both) = (tls.file("ca.pem"), tls.file("client.both"));
    let (certificate, key) = (tls.file("client.pem"), tls.file("client.key"));
    for client in [format!("{both:?}"), format!("[[{certificate:?}, {key:?}]]")] {
        let containerd = Folder::new();
        containerd.hosts(host, &format!("ca = {ca:?}\nclient = {client}"));
        let place = containerd.place().await;
        pull(&place, &name).await.unwrap();
        place.store.check_credentials(host, &RegistryAuth::Basic("me".to_owned(), "x".to_owned())).await.unwrap();
    }
    docker.put(&format!("{host}/me.key"), "no key");
    let error = pull(&docker.place().await, &name).await.unwrap_err();
    assert!(error.to_string().contains("me.cert: it and its key are no certificate"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_are_asked_in_order_and_the_registry_last() {
    let (registry, mirror) = (Registry::start(false).await, Registry::start(false).await);
    let (old, new) = (image_with("old"), image_with("new"));
    registry.push("x", "1", &new).await;
    registry.push("only/here", "1", &new).await;
    mirror.push("x", "1", &old).await;
    let folder = Folder::new();
    let (dead, mirror_host) = (nobody(), &mirror.host);
    folder.hosts(
        &registry.host,
        &format!("[host.\"http://{dead}\"]\n[host.\"http://{mirror_host}\"]\ncapabilities = [\"pull\", \"resolve\"]"),
    );
    let place = folder.place().await;
    // One that is down costs no patience.
    let started = Instant::now();
    let pulled = place.store.pull(&reference(&registry.host, "x:1"), None, None, &quiet).await.unwrap();
    assert_eq!(pulled.digest, old.manifest.digest(), "the mirror was believed");
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
    let missing = reference(&registry.host, "only/here:1");
    assert_eq!(place.store.pull(&missing, None, None, &quiet).await.unwrap().digest, new.manifest.digest());
    assert_eq!(place.store.look_up(&missing, None).await.unwrap().digest, new.manifest.digest());
    // One that may not resolve is not asked what a tag means, and gives what is asked for by digest.
    folder.hosts(&registry.host, &format!("[host.\"http://{mirror_host}\"]\ncapabilities = [\"pull\"]"));
    let place = folder.place().await;
    let pulled = place.store.pull(&reference(&registry.host, "x:1"), None, None, &quiet).await.unwrap();
    assert_eq!(pulled.digest, new.manifest.digest());
    // Where nothing else is to be asked, the registry is not.
    folder.hosts(&registry.host, &format!("server = \"http://{dead}\""));
    assert_eq!(
        pull(&folder.place().await, &reference(&registry.host, "x:1")).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    for settings in ["_default/hosts.toml", "docker.io/hosts.toml"] {
        let folder = Folder::new();
        folder.put(settings, format!("[host.\"http://{mirror_host}\"]"));
        mirror.push("library/thing", "latest", &old).await;
        pull(&folder.place().await, &Reference::parse("thing").unwrap()).await.unwrap();
    }
}

fn image_with(content: &str) -> TestImage {
    let platform = bireme_image::Platform::host().to_string();
    // Large enough for the proxies to think it a layer.
    let noise: String = (0..4000_u32).map(|at| format!("{:x}", at.wrapping_mul(2_654_435_761))).collect();
    image(&platform, &[tar_of(&[("a", content), ("noise", &noise)])], serde_json::json!({}))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_mirror_has_wrong_comes_from_the_next_place() {
    let registry = Registry::start(false).await;
    let made = image_with("right");
    registry.push("x", "1", &made).await;
    let lying = Proxy::start(&registry, Mischief::Lie).await;
    let folder = Folder::new();
    folder.hosts(&registry.host, &format!("[host.\"http://{}\"]", lying.host));
    let place = folder.place().await;
    let pulled = place.store.pull(&reference(&registry.host, "x:1"), None, None, &quiet).await.unwrap();
    let layers = place.store.layers(&pulled.id).await.unwrap();
    assert_eq!(read(&layers, "a").as_deref(), Some("right"));
    assert_eq!(place.count("ingest"), 0);
    // A mirror that lost a layer.
    let half = Registry::start(false).await;
    half.push("x", "1", &made).await;
    std::fs::remove_file(half.stored(&made.layers[0].digest())).unwrap();
    folder.hosts(&registry.host, &format!("[host.\"http://{}\"]", half.host));
    pull(&folder.place().await, &reference(&registry.host, "x:1")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_serves_a_registry_and_pushes_go_past_it() {
    let registry = Registry::start(false).await;
    let made = image_with("cached");
    registry.push("x", "1", &made).await;
    let cache = Registry::asking(Asks { cache_of: Some(&registry.host), ..Asks::default() }).await;
    let folder = Folder::new();
    let mirror = format!("[host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]", cache.host);
    folder.hosts(&registry.host, &mirror);
    let place = folder.place().await;
    let name = reference(&registry.host, "x:1");
    pull(&place, &name).await.unwrap();
    // A cache stores a blob after it has sent it.
    let stored = cache.stored(&made.layers[0].digest());
    for _ in 0..100 {
        if stored.exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(stored.exists(), "it came through the cache");
    place.store.tag(&name.familiar(), &name.with_tag("2")).await.unwrap();
    place.store.push(&PushRequest::new(name.with_tag("2")), &quiet, &|_| ()).await.unwrap();
    assert_eq!(registry.manifest("x", "2").await, made.manifest.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_is_told_what_its_owner_wrote_and_no_mirror_a_password() {
    let made = one_layer();
    let parts = made.layers.iter().chain([&made.config]).cloned().collect();
    let mirror = Fake::registry(vec![("1".to_owned(), made.manifest.clone())], parts).await;
    let folder = Folder::new();
    folder.put(
        "reg.example/hosts.toml",
        format!(
            "[host.\"http://{0}/deep\"]\noverride_path = true\n[host.\"http://{0}/deep\".header]\nx-who = [\"me\"]",
            mirror.host
        ),
    );
    let auth = RegistryAuth::Basic("me".to_owned(), "secret".to_owned());
    let place = folder.place().await;
    place.store.pull(&Reference::parse("reg.example/x:1").unwrap(), None, Some(auth), &quiet).await.unwrap();
    let asked = mirror.asked();
    assert!(asked.len() >= 4, "{asked:?}");
    for (path, head) in asked {
        assert!(head.contains("x-who: me") && !head.contains("authorization:"), "{head}");
        assert!(path.starts_with("/deep/"), "{path}");
        assert!(path == "/deep/" || path.ends_with("?ns=reg.example"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_used_is_named_and_nothing_is_asked() {
    let registry = Registry::start(false).await;
    registry.push("x", "1", &one_layer()).await;
    let folder = Folder::new();
    folder.hosts(&registry.host, "[host.\"http://a\"]\ncapabilities = \"pull\"");
    let error = pull(&folder.place().await, &reference(&registry.host, "x:1")).await.unwrap_err();
    assert!(error.to_string().contains("hosts.toml") && error.to_string().contains("mend it"), "{error}");
    assert!(Path::new(folder.0.path()).exists());
    folder.hosts(
        &registry.host,
        "[host.\"http://127.0.0.1:1\"]\n[host.\"http://127.0.0.1:1\".header]\n\"bad name\" = \"x\"",
    );
    let error = pull(&folder.place().await, &reference(&registry.host, "x:1")).await.unwrap_err();
    assert!(error.to_string().contains("is no name of a header"), "{error}");
}
