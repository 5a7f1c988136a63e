//! Loading and saving; Wasm images in all their forms.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::io::Write as _;

use bireme_core::{ErrorKind, WorkloadKind};
use bireme_image::{Digest, ImageError, Limits, Platform, RegistrySettings};
use common::*;

fn host() -> String {
    Platform::host().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn loads_every_form_of_archive() {
    let (made, tars) = two_layers();
    let old = docker_archive(&made, &tars, &["old:1", "old:2"]);
    let layout = oci_archive_of(&made, Some("docker.io/library/new:1"));
    let mut packed = zstd::Encoder::new(Vec::new(), 1).unwrap();
    packed.write_all(&layout).unwrap();
    for (archive, names) in [
        (old.clone(), vec!["old:1", "old:2"]),
        (gzip(&old), vec!["old:1", "old:2"]),
        (layout, vec!["new:1"]),
        (packed.finish().unwrap(), vec!["new:1"]),
    ] {
        let place = place().await;
        let lines = Lines::default();
        let loaded = place.store.load(std::io::Cursor::new(archive), &lines.taker()).await.unwrap();
        assert_eq!((loaded.len(), &loaded[0].references), (1, &names.iter().map(ToString::to_string).collect()));
        assert!(lines.has(&format!("Loaded image: {}", names[0])));
        assert_eq!(loaded[0].id.as_str(), made.config.digest().as_str());
        let found = place.store.resolve(names[0], None).await.unwrap();
        assert_eq!((found.config.env, found.config.labels["k"].as_str()), (vec!["A=b".to_owned()], "v"));
        let layers = place.store.layers(&loaded[0].id).await.unwrap();
        assert_eq!(read(&layers, "etc/two").unwrap(), "2");
        assert!(exists(&layers[1].join("gone")), "a mark of the deletion");
        assert_eq!(place.count("ingest"), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_saved_can_be_loaded() {
    let (made, tars) = two_layers();
    let wasm = image("wasi/wasm", &[tar_of(&[("a.wasm", "x")])], serde_json::json!({ "Entrypoint": ["a.wasm"] }));
    let both = index(&[made.clone(), wasm.clone()]);
    let parts: Vec<&Blob> =
        [&made, &wasm].iter().flat_map(|image| image.layers.iter().chain([&image.config, &image.manifest])).collect();
    let first = place().await;
    assert_eq!(load(&first, oci_archive(&[(&both, Some("docker.io/me/both:1"))], &parts)).await.unwrap().len(), 2);
    load(&first, docker_archive(&made, &tars, &["old:1"])).await.unwrap();

    let file = first.folder.path().join("saved.tar");
    let out = tokio::fs::File::create(&file).await.unwrap();
    first.store.save(&["me/both:1".to_owned(), "old:1".to_owned()], out).await.unwrap();
    let second = place().await;
    let loaded = load(&second, std::fs::read(&file).unwrap()).await.unwrap();
    // The image that has two names is one.
    assert_eq!((loaded.len(), loaded.iter().map(|image| image.references.len()).sum::<usize>()), (2, 3));
    let wanted = Platform::wasm();
    assert_eq!(second.store.resolve("me/both:1", Some(&wanted)).await.unwrap().kind(), WorkloadKind::Component);
    assert_eq!(second.store.resolve("me/both:1", None).await.unwrap().kind(), WorkloadKind::Container);
    assert_eq!(second.store.resolve("old:1", None).await.unwrap().id.as_str(), made.config.digest().as_str());

    // Others read it as well.
    let checked = std::process::Command::new("skopeo")
        .args(["--insecure-policy", "inspect"])
        .arg(format!("docker-archive:{}:old:1", file.display()))
        .output()
        .unwrap();
    assert!(checked.status.success(), "{checked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_what_is_no_image_and_keeps_nothing() {
    let (made, tars) = two_layers();
    let place = place().await;
    let raw = |files: &[(&str, &str)]| {
        let files: BTreeMap<_, _> =
            files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect();
        raw_tar(&files)
    };
    let with_manifest_json = |text: &str| raw(&[("manifest.json", text)]);
    let layout = oci_archive_of(&made, None);
    let mut lying = layout.clone();
    // The last letter of a layer's content, in the middle of the archive.
    let at = lying.windows(8).position(|window| window == &made.layers[0].bytes[20..28]).unwrap();
    lying[at] ^= 1;
    let escape = {
        let tar = docker_archive(&made, &tars, &["x:1"]);
        let text = String::from_utf8_lossy(&tar).into_owned();
        assert!(text.contains("layer0/layer.tar"));
        let evil = tar_of(&[("a", "b")]);
        let mut evil_tar = evil.clone();
        evil_tar[..4].copy_from_slice(b"../a");
        let sum: u32 = evil_tar[..512]
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
            .sum();
        evil_tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let evil_image = image(&host(), std::slice::from_ref(&evil_tar), serde_json::json!({}));
        docker_archive(&evil_image, &[evil_tar], &["x:1"])
    };
    let oversized = format!("[{}", " ".repeat(5 << 20));
    let unknown_layer = with_manifest(
        &host(),
        made.config.clone(),
        made.layers.iter().map(|layer| Blob::new("application/x-unknown", layer.bytes.clone())).collect(),
        None,
    );
    let one_layer_less = with_manifest(&host(), made.config.clone(), made.layers[..1].to_vec(), None);
    let missing = oci_archive(&[(&made.manifest, None)], &[&made.config]);
    let no_tar_inside = docker_archive(
        &image(&host(), &[b"not a tar at all".to_vec()], serde_json::json!({})),
        &[b"not a tar at all".to_vec()],
        &[],
    );
    for (what, archive, expected) in [
        ("noise", vec![7; 5000], "is not a tar archive"),
        ("nothing", Vec::new(), "neither a manifest.json nor"),
        ("another tar", raw(&[("hello", "x")]), "neither a manifest.json nor"),
        ("cut off", layout[..layout.len() / 2].to_vec(), "cut off"),
        ("manifest.json that is none", with_manifest_json("{"), "malformed manifest.json"),
        ("empty list", with_manifest_json("[]"), "lists no image"),
        (
            "missing config",
            with_manifest_json(r#"[{"Config":"a.json","Layers":[]}]"#),
            "configuration a.json is missing",
        ),
        ("path trick", with_manifest_json(r#"[{"Config":"../../etc/passwd","Layers":[]}]"#), "it leads out by"),
        ("bad name", with_manifest_json(r#"[{"Config":"a","RepoTags":["UPPER"]}]"#), "is missing"),
        ("too large", with_manifest_json(&oversized), "larger than 4194304 bytes"),
        ("lying blob", lying, "not what its digest says"),
        ("escape", escape, "it leads out by"),
        ("unknown layer", oci_archive_of(&unknown_layer, None), "application/x-unknown"),
        ("a layer less", oci_archive_of(&one_layer_less, None), "lists 2 layers where the manifest has 1"),
        ("missing layer", missing, "is missing"),
        ("layer that is no tar", no_tar_inside, "cannot be read"),
    ] {
        let error = load(&place, archive).await.expect_err(what);
        assert!(error.to_string().contains(expected), "{what}: {error}");
    }
    assert!(place.store.list().await.unwrap().is_empty());
    for _ in 0..500 {
        if place.count("blobs/sha256") + place.count("layers/sha256") + place.count("ingest") == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("something was left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_decompression_bombs() {
    let limits = Limits { ratio: 10, ratio_floor: 1 << 20, ..Limits::default() };
    let place = place_with(RegistrySettings { limits, ..RegistrySettings::default() }).await;
    let bomb = tar_of(&[("zeros", &"0".repeat(20 << 20))]);
    let made = image(&host(), &[bomb], serde_json::json!({}));
    let error = load(&place, oci_archive_of(&made, None)).await.unwrap_err();
    assert!(matches!(error, ImageError::Bomb { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn finds_the_component_of_every_usual_form() {
    let wasm = String::from_utf8(WASM.to_vec()).unwrap();
    let entry = |entrypoint: &str| serde_json::json!({ "Entrypoint": [entrypoint], "WorkingDir": "/srv" });
    let artifact = |config: &str, body: &str, layer: &str| {
        with_manifest("wasi/wasm", Blob::new(config, body), vec![Blob::new(layer, WASM)], None)
    };
    let v0 = r#"{"created":"2024-01-01T00:00:00Z","architecture":"wasm","os":"wasip2","layerDigests":[],"component":{"exports":[],"imports":[]}}"#;
    let forms = [
        (image("wasi/wasm", &[tar_of(&[("app.wasm", &wasm)])], entry("/app.wasm")), "/app.wasm"),
        (image("wasip1/wasm", &[tar_of(&[("srv/app.wasm", &wasm)])], entry("app.wasm")), "app.wasm"),
        (image("wasi/wasm/wasip2", &[tar_of(&[("app.wasm", &wasm)])], entry("app.wasm")), "app.wasm"),
        (artifact("application/vnd.wasm.config.v0+json", v0, "application/wasm"), ""),
        (artifact("application/vnd.wasm.config.v1+json", "{}", "application/vnd.wasm.content.layer.v1+wasm"), ""),
        (
            artifact(
                "application/vnd.oci.empty.v1+json",
                "{}",
                "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
            ),
            "",
        ),
    ];
    let place = place().await;
    for (at, (made, entrypoint)) in forms.iter().enumerate() {
        let name = format!("form{at}:1");
        let loaded = load(&place, oci_archive_of(made, Some(&name))).await.unwrap();
        let found = place.store.resolve(&name, Some(&Platform::wasm())).await.unwrap();
        assert_eq!((&found.id, found.kind()), (&loaded[0].id, WorkloadKind::Component), "form {at}");
        for _ in 0..2 {
            let (path, digest) = place.store.component(&found.id, entrypoint).await.unwrap();
            assert_eq!((std::fs::read(&path).unwrap().as_slice(), digest.as_str()), (WASM, Digest::of(WASM).as_str()));
        }
        assert_eq!(found.artifact_type.is_some(), entrypoint.is_empty());
    }
    let refused = [
        (
            image("wasi/wasm", &[tar_of(&[("a", "b")])], serde_json::json!({})),
            "/gone.wasm",
            "is not in its root filesystem",
        ),
        (image("wasi/wasm", &[tar_of(&[("dir/", "")])], serde_json::json!({})), "/dir", "is not a regular file"),
        (image("wasi/wasm", &[tar_of(&[("x", "y")])], serde_json::json!({})), "", "has no entrypoint"),
    ];
    for (made, entrypoint, reason) in refused {
        let id = load(&place, oci_archive_of(&made, None)).await.unwrap().remove(0).id;
        let error = place.store.component(&id, entrypoint).await.unwrap_err();
        assert!(matches!(error, ImageError::NoComponent { .. }) && error.to_string().contains(reason), "{error}");
    }
    let many = with_manifest(
        "wasi/wasm",
        Blob::new("application/vnd.wasm.config.v0+json", v0),
        vec![Blob::new("application/wasm", WASM), Blob::new("application/wasm", "other")],
        None,
    );
    let error = load(&place, oci_archive_of(&many, None)).await.unwrap_err();
    assert!(error.to_string().contains("has one layer, the component; this one has 2"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_does_not_lead_a_component_out_of_its_image() {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, target) in [("out.wasm", "/etc/passwd"), ("up.wasm", "../../../../../../etc/passwd")] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, name, target).unwrap();
    }
    let made = image("wasi/wasm", &[tar.into_inner().unwrap()], serde_json::json!({}));
    let place = place().await;
    let id = load(&place, oci_archive_of(&made, None)).await.unwrap().remove(0).id;
    for name in ["out.wasm", "up.wasm"] {
        let error = place.store.component(&id, name).await.unwrap_err();
        assert!(error.to_string().contains("is not in its root filesystem"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_has_its_own_error_and_is_cleaned_up() {
    let folder = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=3m", "bireme-image-test"])
        .arg(folder.path())
        .status()
        .unwrap();
    assert!(mounted.success());
    struct Unmount<'a>(&'a std::path::Path);
    impl Drop for Unmount<'_> {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount").arg("-l").arg(self.0).status();
        }
    }
    let _unmount = Unmount(folder.path());
    let store = bireme_image::ImageStore::open(&folder.path().join("s"), RegistrySettings::default()).await.unwrap();
    let made = image(&host(), &[tar_of(&[("big", &"x".repeat(8 << 20))])], serde_json::json!({}));
    let error = store.load(std::io::Cursor::new(oci_archive_of(&made, None)), &quiet).await.unwrap_err();
    assert!(matches!(error, ImageError::NoSpace { .. }), "{error}");
    assert!(error.to_string().contains("no space left on device"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(store.list().await.unwrap().is_empty());
    // There is room again.
    let small = image(&host(), &[tar_of(&[("small", "x")])], serde_json::json!({}));
    store.load(std::io::Cursor::new(oci_archive_of(&small, Some("small"))), &quiet).await.unwrap();
}

/// A stream that has no end, and counts what was taken of it.
struct Endless {
    start: std::io::Cursor<Vec<u8>>,
    taken: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl tokio::io::AsyncRead for Endless {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let from = usize::try_from(self.start.position()).unwrap();
        let rest = &self.start.get_ref()[from..];
        let count = if rest.is_empty() { buffer.remaining() } else { rest.len().min(buffer.remaining()) };
        match rest.is_empty() {
            true => buffer.initialize_unfilled().fill(0),
            false => buffer.initialize_unfilled()[..count].copy_from_slice(&rest[..count]),
        }
        buffer.advance(count);
        let to = (from + count).min(self.start.get_ref().len());
        self.start.set_position(to as u64);
        // So that a reader who does not stop fills no disk.
        std::thread::sleep(std::time::Duration::from_micros(500));
        self.taken.fetch_add(count as u64, std::sync::atomic::Ordering::SeqCst);
        std::task::Poll::Ready(Ok(()))
    }
}

/// The header of a file that is larger than anything that is sent.
fn endless_file() -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_path("file").unwrap();
    header.set_mode(0o644);
    header.set_size(100 << 30);
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_is_read_no_further() {
    use std::sync::atomic::Ordering;
    for what in ["import", "build", "load"] {
        let place = place().await;
        let taken = std::sync::Arc::default();
        let stream = Endless { start: std::io::Cursor::new(endless_file()), taken: std::sync::Arc::clone(&taken) };
        let work = async {
            match what {
                "import" => drop(place.store.commit(bireme_image::Commit::import(stream, Vec::new())).await),
                "build" => {
                    let context = bireme_image::BuildContext::Archive(Box::new(stream));
                    drop(place.store.build(bireme_image::BuildRequest::new(context), &|_| {}).await);
                }
                _ => drop(place.store.load(stream, &quiet).await),
            }
        };
        let begun = async {
            while taken.load(Ordering::SeqCst) < 1 << 20 {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        };
        // What is not chosen is dropped.
        tokio::select! {
            () = work => panic!("{what}: it has no end"),
            () = begun => {}
        }
        let mut empty = false;
        for _ in 0..500 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            empty = place.count("ingest") == 0;
            if empty {
                break;
            }
        }
        let (left, seen) = (place.count("ingest"), taken.load(Ordering::SeqCst));
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let reads_on = taken.load(Ordering::SeqCst) - seen;
        if reads_on > 0 {
            // The thread cannot be stopped from here, and would fill the disk.
            eprintln!("{what}: {reads_on} bytes more in 100 ms");
            std::process::abort();
        }
        assert!(empty, "{what}: {left} left");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_is_not_unpacked_to_its_end_when_nobody_waits_for_it() {
    let place = place().await;
    let mut tar = tar::Builder::new(Vec::new());
    for number in 0..40_000 {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        tar.append_data(&mut header, format!("{}/{number}", number / 1000), std::io::empty()).unwrap();
    }
    let made = image(&host(), &[tar.into_inner().unwrap()], serde_json::json!({}));
    let archive = oci_archive_of(&made, Some("large:1"));
    let ingest = place.folder.path().join("ingest");
    let names = || -> Vec<String> {
        let entries = std::fs::read_dir(&ingest).unwrap().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    let begun = async {
        while !names().iter().any(|name| name.starts_with("layer-")) {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        _ = place.store.load(std::io::Cursor::new(archive), &quiet) => panic!("it was unpacked before anybody looked"),
        () = begun => {}
    }
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    // A while longer: between the folders there is a moment in which it is in neither.
    let mut empty = 0;
    while empty < 100 {
        assert!(std::time::Instant::now() < until, "{:?} is left", names());
        empty = if place.count("ingest") == 0 { empty + 1 } else { 0 };
        // Whole, it would be put among the layers, and taken from there because no image has it.
        assert_eq!(place.count("layers/sha256"), 0, "it was unpacked to its end");
        assert!(!names().iter().any(|name| name.starts_with("gone-")), "it was unpacked to its end");
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    for _ in 0..500 {
        if place.count("blobs/sha256") == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("its blob is left");
}
