//! The forms that images and components have in registries, written and read by others: skopeo, ORAS, and a second registry.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use bireme_core::WorkloadKind;
use bireme_image::{Commit, Digest, Packing, Platform, PushRequest, Reference};
use common::*;
use serde_json::{Value, json};

const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

fn reference(host: &str, rest: &str) -> Reference {
    Reference::parse(&format!("{host}/{rest}")).unwrap()
}

async fn run(program: impl AsRef<std::ffi::OsStr>, args: &[&str], folder: &Path) -> String {
    let done = tokio::process::Command::new(program).args(args).current_dir(folder).output().await.unwrap();
    assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

async fn import(place: &Place, files: &[(&str, &str)], change: &str, platform: Option<Platform>, name: &Reference) {
    let mut commit = Commit::import(std::io::Cursor::new(tar_of(files)), vec![change.to_owned()]);
    commit.name = Some(name.clone());
    commit.platform = platform;
    place.store.commit(commit).await.unwrap();
}

async fn push(place: &Place, request: PushRequest) {
    place.store.push(&request, &quiet, &|_| ()).await.unwrap();
}

async fn sent(registry: &Registry, repository: &str, version: &str) -> Value {
    serde_json::from_slice(&registry.manifest(repository, version).await).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_are_packed_with_zstd_on_request_and_the_image_stays_the_same() {
    let registry = Registry::start(false).await;
    let (here, there) = (place().await, place().await);
    let name = reference(&registry.host, "packed:1");
    import(&here, &[("etc/motd", &"hello ".repeat(10_000))], "CMD [\"/x\"]", None, &name).await;
    push(&here, PushRequest::new(name.clone())).await;
    for (tag, packing, kind) in
        [("zstd", Packing::Zstd(3), ZSTD), ("small", Packing::Zstd(19), ZSTD), ("gzip", Packing::Gzip, GZIP)]
    {
        here.store.tag(&name.familiar(), &name.with_tag(tag)).await.unwrap();
        push(&here, PushRequest { packing, ..PushRequest::new(name.with_tag(tag)) }).await;
        let manifest = sent(&registry, "packed", tag).await;
        assert_eq!(manifest["layers"][0]["mediaType"], kind);
        let pulled = there.store.pull(&name.with_tag(tag), None, None, &quiet).await.unwrap();
        assert_eq!(pulled.id, here.store.resolve(&name.familiar(), None).await.unwrap().id);
        let layers = there.store.layers(&pulled.id).await.unwrap();
        assert_eq!(read(&layers, "etc/motd").unwrap(), "hello ".repeat(10_000));
    }
    // What came with gzip is packed anew, and others read it.
    let name = name.with_tag("gzip");
    push(&there, PushRequest { packing: Packing::Zstd(3), ..PushRequest::new(name.clone()) }).await;
    let folder = tempfile::tempdir().unwrap();
    let from = format!("docker://{name}");
    run("skopeo", &["--insecure-policy", "copy", "--src-tls-verify=false", &from, "dir:copied"], folder.path()).await;
    let inspected: Value =
        serde_json::from_str(&run("skopeo", &["inspect", "--raw", "--tls-verify=false", &from], folder.path()).await)
            .unwrap();
    assert_eq!(inspected["layers"][0]["mediaType"], ZSTD);
    assert_eq!(here.count("ingest") + there.count("ingest"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_that_can_be_read_in_parts_are_read_whole() {
    let registry = Registry::start(false).await;
    let tar = tar_of(&[("a", &"1".repeat(5000)), ("stargz.index.json", "{\"version\":1,\"entries\":[]}")]);
    // A member for each part, and a footer that is an empty one with a field of its own, as eStargz has them.
    let footer = [
        &[0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 26, 0, b'S', b'G', 22, 0][..],
        b"0000000000001000STARGZ",
        &[1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0],
    ];
    let stargz = [gzip(&tar[..1000]), gzip(&tar[1000..]), footer.concat()].concat();
    // As zstd:chunked: frames, and what no reader of zstd looks at.
    let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0][..], b"toc!"].concat();
    let frame = |bytes: &[u8]| zstd::encode_all(bytes, 3).unwrap();
    let chunked = [frame(&tar[..1000]), skipped.clone(), frame(&tar[1000..]), skipped].concat();
    let made = image(&Platform::host().to_string(), &[tar], json!({}));
    for (tag, layer) in [("stargz", Blob::new(GZIP, stargz)), ("chunked", Blob::new(ZSTD, chunked))] {
        let image = with_manifest(&made.platform, made.config.clone(), vec![layer], None);
        registry.push("parts", tag, &image).await;
        let place = place().await;
        let pulled = place.store.pull(&reference(&registry.host, &format!("parts:{tag}")), None, None, &quiet).await;
        let layers = place.store.layers(&pulled.unwrap().id).await.unwrap();
        assert_eq!(read(&layers, "a").unwrap(), "1".repeat(5000), "{tag}");
    }
}

/// A component that exports one thing and imports another.
fn component() -> Vec<u8> {
    let named = |name: &str, after: &[u8]| [&[0, name.len() as u8], name.as_bytes(), after].concat();
    let part = |id: u8, entry: Vec<u8>| [vec![id, entry.len() as u8 + 1, 1], entry].concat();
    let imports = part(10, named("wasi:clocks/wall-clock@0.2.0", &[5, 0]));
    let exports = part(11, named("wasi:cli/run@0.2.0", &[5, 1, 0]));
    [&b"\0asm\x0d\0\x01\0"[..], &imports, &exports].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_goes_as_an_artifact_and_comes_back_as_the_same_component() {
    let registry = Registry::start(false).await;
    let (here, there) = (place().await, place().await);
    let name = reference(&registry.host, "component:1");
    let content = String::from_utf8(component()).unwrap();
    let change = "ENTRYPOINT [\"/app.wasm\"]";
    import(&here, &[("app.wasm", &content)], change, Some(Platform::wasm()), &name).await;
    push(&here, PushRequest { artifact: true, ..PushRequest::new(name.clone()) }).await;
    let manifest = sent(&registry, "component", "1").await;
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.wasm.config.v0+json");
    assert_eq!(manifest["layers"][0]["mediaType"], "application/wasm");
    assert_eq!(manifest["layers"][0]["digest"], Digest::of(&component()).as_str());
    let config = registry.stored(&manifest["config"]["digest"].as_str().unwrap().parse().unwrap());
    let config: Value = serde_json::from_slice(&std::fs::read(config).unwrap()).unwrap();
    assert_eq!((&config["architecture"], &config["os"]), (&json!("wasm"), &json!("wasip2")));
    assert_eq!(config["layerDigests"], json!([Digest::of(&component())]));
    let world = json!({ "imports": ["wasi:clocks/wall-clock@0.2.0"], "exports": ["wasi:cli/run@0.2.0"] });
    assert_eq!(config["component"], world);

    let pulled = there.store.pull(&name, None, None, &quiet).await.unwrap();
    let found = there.store.image(&pulled.id).unwrap();
    assert_eq!(found.kind(), WorkloadKind::Component);
    let (path, _) = there.store.component(&pulled.id, "").await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), component());
    // An artifact goes as it came, asked for or not.
    for artifact in [false, true] {
        let again = reference(&registry.host, "again:1");
        there.store.tag(&name.familiar(), &again).await.unwrap();
        push(&there, PushRequest { artifact, ..PushRequest::new(again) }).await;
        assert_eq!(sent(&registry, "again", "1").await, manifest);
    }
    // What is none is not made one.
    let other = reference(&registry.host, "linux:1");
    import(&here, &[("a", "b")], "CMD [\"/a\"]", None, &other).await;
    let request = PushRequest { artifact: true, ..PushRequest::new(other.clone()) };
    let error = here.store.push(&request, &quiet, &|_| ()).await.unwrap_err();
    assert!(error.to_string().contains("no matching manifest for wasi/wasm"), "{error}");
    let module = reference(&registry.host, "text:1");
    import(&here, &[("app.wasm", "text")], change, Some(Platform::wasm()), &module).await;
    let request = PushRequest { artifact: true, ..PushRequest::new(module) };
    let error = here.store.push(&request, &quiet, &|_| ()).await.unwrap_err();
    assert!(error.to_string().contains("is no WebAssembly"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn components_of_other_makers_are_read() {
    let registry = Registry::start(false).await;
    let place = place().await;
    let wasm = |kind: &str| Blob::new(kind, component());
    let spin = json!({
        "spin_lock_version": 1, "metadata": { "name": "hello" },
        "triggers": [{ "id": "http", "trigger_type": "http", "trigger_config": { "component": "hello", "route": "/..." } }],
        "components": [{ "id": "hello", "source": { "content_type": "application/wasm" }, "env": { "GREETING": "hi" } }],
    });
    let spin = || Blob::new("application/vnd.fermyon.spin.application.v1+config", spin.to_string());
    let spin_layer = "application/vnd.wasm.content.layer.v1+wasm";
    for (tag, config, layer, artifact_type) in [
        ("spin", spin(), spin_layer, None),
        (
            "wasmcloud",
            Blob::new("application/vnd.wasmcloud.actor.archive.config", "{}"),
            "application/vnd.module.wasm.content.layer.v1+wasm",
            None,
        ),
        (
            "wash",
            Blob::new("application/vnd.wasm.config.v0+json", r#"{"architecture":"wasm","os":"wasip2"}"#),
            "application/wasm",
            None,
        ),
        (
            "empty",
            Blob::new("application/vnd.oci.empty.v1+json", "{}"),
            "application/wasm",
            Some("application/vnd.example.component"),
        ),
    ] {
        let made = with_manifest("wasi/wasm", config, vec![wasm(layer)], artifact_type);
        registry.push("other", tag, &made).await;
        let name = reference(&registry.host, &format!("other:{tag}"));
        let pulled = place.store.pull(&name, None, None, &quiet).await.unwrap();
        let found = place.store.image(&pulled.id).unwrap();
        assert_eq!(found.kind(), WorkloadKind::Component, "{tag}");
        assert_eq!(found.config.env, if tag == "spin" { vec!["GREETING=hi".to_owned()] } else { vec![] });
        let (path, _) = place.store.component(&pulled.id, "").await.unwrap();
        assert_eq!(std::fs::read(path).unwrap(), component(), "{tag}");
    }
    let data = Blob::new("application/vnd.wasm.content.layer.v1+data", "a file");
    for (tag, layers, words) in [
        ("files", vec![wasm(spin_layer), data], "files beside its component"),
        ("two", vec![wasm(spin_layer), Blob::new(spin_layer, WASM)], "a Spin app of 2 components"),
    ] {
        registry.push("other", tag, &with_manifest("wasi/wasm", spin(), layers, None)).await;
        let name = reference(&registry.host, &format!("other:{tag}"));
        let error = place.store.pull(&name, None, None, &quiet).await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn oras_pushes_what_is_pulled_and_pulls_what_is_pushed() {
    let registry = Registry::start(false).await;
    let folder = tempfile::tempdir().unwrap();
    let oras = tool("oras");
    std::fs::write(folder.path().join("app.wasm"), component()).unwrap();
    std::fs::write(folder.path().join("config.json"), r#"{"architecture":"wasm","os":"wasip2"}"#).unwrap();
    let to = format!("{}/oras:1", registry.host);
    let config = "config.json:application/vnd.wasm.config.v0+json";
    let layer = "app.wasm:application/wasm";
    run(&oras, &["push", "--plain-http", "--config", config, &to, layer], folder.path()).await;
    let here = place().await;
    let name = reference(&registry.host, "oras:1");
    let pulled = here.store.pull(&name, None, None, &quiet).await.unwrap();
    let (path, _) = here.store.component(&pulled.id, "").await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), component());
    // And back, under another name: annotations, which tell oras the file's name, are kept.
    let back = reference(&registry.host, "back:1");
    here.store.tag(&name.familiar(), &back).await.unwrap();
    push(&here, PushRequest::new(back.clone())).await;
    let elsewhere = tempfile::tempdir().unwrap();
    run(&oras, &["pull", "--plain-http", &back.to_string()], elsewhere.path()).await;
    assert_eq!(std::fs::read(elsewhere.path().join("app.wasm")).unwrap(), component());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_refers_to_an_image_is_listed_whether_or_not_the_registry_lists_it() {
    let folder = tempfile::tempdir().unwrap();
    let oras = tool("oras");
    std::fs::write(folder.path().join("sbom.json"), "{}").unwrap();
    let (old, new) = (Registry::start(false).await, Crane::start().await);
    for host in [&old.host, &new.host] {
        let here = place().await;
        let name = reference(host, "subject:1");
        import(&here, &[("a", "b")], "CMD [\"/a\"]", None, &name).await;
        push(&here, PushRequest::new(name.clone())).await;
        assert!(here.store.referrers(&name, None, None).await.unwrap().is_empty(), "{host}");
        for kind in ["application/vnd.example.sbom", "application/vnd.example.signature"] {
            let args = ["attach", "--plain-http", "--artifact-type", kind, &name.to_string(), "sbom.json"];
            run(&oras, &args, folder.path()).await;
        }
        let all = here.store.referrers(&name, None, None).await.unwrap();
        assert_eq!(all.len(), 2, "{host}: {all:?}");
        let wanted = here.store.referrers(&name, Some("application/vnd.example.sbom"), None).await.unwrap();
        assert_eq!(wanted.len(), 1, "{host}");
        assert_eq!(wanted[0]["artifactType"], "application/vnd.example.sbom");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_a_subject_is_listed_where_oras_finds_it() {
    let oras = tool("oras");
    let (old, new) = (Registry::start(false).await, Crane::start().await);
    let from = Registry::start(false).await;
    let here = place().await;
    // A component that refers to another: as a newer form of it would.
    let subject = one_layer();
    let mut made = with_manifest(
        "wasi/wasm",
        Blob::new("application/vnd.oci.empty.v1+json", "{}"),
        vec![Blob::new("application/wasm", component())],
        Some("application/vnd.example.form"),
    );
    let mut manifest: Value = serde_json::from_slice(&made.manifest.bytes).unwrap();
    manifest["subject"] = subject.manifest.descriptor();
    made.manifest = Blob::new(OCI_MANIFEST, manifest.to_string());
    from.push("form", "1", &made).await;
    here.store.pull(&reference(&from.host, "form:1"), None, None, &quiet).await.unwrap();
    for host in [&old.host, &new.host] {
        let (name, form) = (reference(host, "app:1"), reference(host, "app:form"));
        let archive = oci_archive_of(&subject, Some(&name.familiar()));
        load(&here, archive).await.unwrap();
        push(&here, PushRequest::new(name.clone())).await;
        here.store.tag(&reference(&from.host, "form:1").familiar(), &form).await.unwrap();
        push(&here, PushRequest::new(form)).await;
        let folder = tempfile::tempdir().unwrap();
        let found =
            run(&oras, &["discover", "--plain-http", "--format", "json", &name.to_string()], folder.path()).await;
        assert!(found.contains("application/vnd.example.form"), "{host}: {found}");
        assert!(found.contains(made.manifest.digest().as_str()), "{host}: {found}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_registry_takes_and_gives_the_same() {
    let crane = Crane::start().await;
    let (here, there) = (place().await, place().await);
    let name = reference(&crane.host, "deep/er/name:1");
    import(&here, &[("etc/motd", "hello")], "CMD [\"/x\"]", None, &name).await;
    push(&here, PushRequest::new(name.clone())).await;
    push(&here, PushRequest { packing: Packing::Zstd(3), ..PushRequest::new(name.clone()) }).await;
    let pulled = there.store.pull(&name, None, None, &quiet).await.unwrap();
    assert_eq!(read(&there.store.layers(&pulled.id).await.unwrap(), "etc/motd").as_deref(), Some("hello"));
    let second = reference(&crane.host, "other:1");
    there.store.tag(&name.familiar(), &second).await.unwrap();
    push(&there, PushRequest::new(second.clone())).await;
    assert_eq!(here.store.pull(&second, None, None, &quiet).await.unwrap().digest, pulled.digest);
    let raw = here.store.manifest(&second, None).await.unwrap();
    assert_eq!((Digest::of(&raw.bytes), raw.media_type.as_str()), (pulled.digest, OCI_MANIFEST));
    // Read by its own client.
    let folder = tempfile::tempdir().unwrap();
    let read = run(tool("crane"), &["--insecure", "manifest", &second.to_string()], folder.path()).await;
    assert_eq!(read.trim_end().as_bytes(), raw.bytes);
    let missing = here.store.pull(&reference(&crane.host, "no/such:1"), None, None, &quiet).await.unwrap_err();
    assert_eq!(missing.kind(), bireme_core::ErrorKind::NotFound, "{missing}");
}

/// The registry of go-containerregistry.
struct Crane {
    child: tokio::process::Child,
    host: String,
}

impl Crane {
    async fn start() -> Self {
        for _ in 0..5 {
            let host = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
            let mut child = tokio::process::Command::new(tool("crane"))
                .args(["registry", "serve", "--address", &host])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .unwrap();
            for _ in 0..500 {
                if child.try_wait().unwrap().is_some() {
                    break;
                }
                if tokio::net::TcpStream::connect(&host).await.is_ok() {
                    return Self { child, host };
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
        panic!("crane did not start a registry");
    }
}

impl Drop for Crane {
    fn drop(&mut self) {
        // One that ended by itself is gone.
        let _ = self.child.start_kill();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_is_told_from_a_component() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(WASM).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    assert!(!bireme_image::world::world(&mut file).unwrap().unwrap().component);
}
