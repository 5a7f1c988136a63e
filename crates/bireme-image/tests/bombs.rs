//! What is small on its way and large in memory, each by name: the peak of this process while it is tried.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::io::Write as _;

use bireme_core::ErrorKind;
use bireme_image::{
    BuildContext, BuildRequest, Commit, ImageError, Limits, Platform, Reference, RegistryAuth, RegistrySettings,
};
use common::*;

/// Bytes of memory that a refusal may take, buffers and all. What it refuses would take ten times as much.
const FLAT: u64 = 48 << 20;

/// What a name or set of headers claims to be, and is.
const BOMB: u64 = 256 << 20;

fn memory(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// Bytes by which the process grew at its largest.
async fn peak<T>(act: impl Future<Output = T>) -> (T, u64) {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = memory("VmRSS");
    let answer = act.await;
    (answer, memory("VmHWM").saturating_sub(before))
}

fn header(kind: u8, name: &str, size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_path(name).unwrap();
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header.set_cksum();
    header.as_bytes().to_vec()
}

/// A tar whose first header is followed by `BOMB` bytes of what it describes, gzipped to some MB.
fn bomb(kind: u8) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(&header(kind, "././@LongLink", BOMB)).unwrap();
    let piece = vec![b'a'; 1 << 20];
    for _ in 0..BOMB >> 20 {
        out.write_all(&piece).unwrap();
    }
    out.write_all(&header(b'0', "file", 0)).unwrap();
    out.write_all(&[0; 1024]).unwrap();
    out.finish().unwrap()
}

fn sentence(kind: u8) -> &'static str {
    match kind {
        b'L' | b'K' => "a name of 268435456 bytes: at most 16384 are read",
        _ => "extended headers of 268435456 bytes: at most 1048576 are read",
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>((answer, grown): (Result<T, ImageError>, u64), words: &str) {
    let error = answer.expect_err("it is refused");
    let text = error.to_string();
    assert!(text.contains(words), "{text}");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{text}");
    assert!(grown < FLAT, "{text}: took {} MiB", grown >> 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_name_is_no_bomb_in_a_loaded_archive() {
    for kind in *b"LKxg" {
        let (place, bomb) = (place().await, bomb(kind));
        refused(peak(place.store.load(std::io::Cursor::new(bomb), &quiet)).await, sentence(kind));
        assert_eq!(place.count("ingest"), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_name_is_no_bomb_in_a_build_context() {
    for kind in *b"LKxg" {
        let (place, bomb) = (place().await, bomb(kind));
        let request = BuildRequest::new(BuildContext::Archive(Box::new(std::io::Cursor::new(bomb))));
        refused(peak(place.store.build(request, &|_| {})).await, sentence(kind));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_name_is_no_bomb_in_an_added_archive() {
    for kind in *b"LKxg" {
        let place = place().await;
        let context = tempfile::tempdir_in("/var/tmp").unwrap();
        std::fs::write(context.path().join("Dockerfile"), "FROM scratch\nADD a.tar.gz /\n").unwrap();
        std::fs::write(context.path().join("a.tar.gz"), bomb(kind)).unwrap();
        let request = BuildRequest::new(BuildContext::Folder(context.path().to_owned()));
        refused(peak(place.store.build(request, &|_| {})).await, sentence(kind));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_name_is_no_bomb_in_an_import() {
    for kind in *b"Lx" {
        let (place, bomb) = (place().await, bomb(kind));
        let commit = Commit::import(std::io::Cursor::new(bomb), Vec::new());
        refused(peak(place.store.commit(commit)).await, sentence(kind));
        assert!(place.store.list().await.unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_name_is_no_bomb_in_a_layer() {
    let registry = Registry::start(false).await;
    for kind in *b"LKxg" {
        let (place, bomb) = (place().await, bomb(kind));
        // What it unpacks to is never known: it is refused long before.
        let file = serde_json::json!({
            "os": "linux", "architecture": Platform::host().architecture, "config": {},
            "rootfs": { "type": "layers", "diff_ids": [bireme_image::Digest::of(b"")] }, "history": [],
        });
        let config = Blob::new(OCI_CONFIG, file.to_string());
        let image = with_manifest(&Platform::host().to_string(), config, vec![Blob::new(GZIP, bomb)], None);
        registry.push("x", "1", &image).await;
        let name = Reference::parse(&format!("{}/x:1", registry.host)).unwrap();
        refused(peak(place.store.pull(&name, None, None, &quiet)).await, sentence(kind));
        let archive = oci_archive_of(&image, Some("x:1"));
        refused(peak(place.store.load(std::io::Cursor::new(archive), &quiet)).await, sentence(kind));
        assert!(place.store.list().await.unwrap().is_empty());
    }
}

fn small_limits() -> RegistrySettings {
    let limits = Limits { ratio: 10, ratio_floor: 8 << 20, layer_bytes: 64 << 20, ..Limits::default() };
    RegistrySettings { limits, ..RegistrySettings::default() }
}

/// A tar of one file of zeros, packed.
fn zeros(size: usize, pack: impl FnOnce(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let mut tar = header(b'0', "zeros", size as u64);
    tar.resize(tar.len() + size.next_multiple_of(512) + 1024, 0);
    pack(&tar)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_unpacks_a_thousandfold_is_broken_off() {
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let place = place_with(small_limits()).await;
    let words = "refused as a decompression bomb";
    for packed in [zeros(32 << 20, gzip), zeros(32 << 20, zstd)] {
        refused(peak(place.store.load(std::io::Cursor::new(packed.clone()), &quiet)).await, words);
        let request = BuildRequest::new(BuildContext::Archive(Box::new(std::io::Cursor::new(packed))));
        refused(peak(place.store.build(request, &|_| {})).await, words);
    }
    // What came as it is may be as large as it came.
    let plain = zeros(32 << 20, <[u8]>::to_vec);
    let error = place.store.load(std::io::Cursor::new(plain), &quiet).await.unwrap_err().to_string();
    assert!(error.contains("neither a manifest.json"), "{error}");
    assert_eq!(place.count("ingest"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_loaded_archive_have_a_bound() {
    let settings = RegistrySettings {
        limits: Limits { layer_bytes: 1 << 20, ..Limits::default() },
        ..RegistrySettings::default()
    };
    let place = place_with(settings).await;
    let archive = raw_tar(&BTreeMap::from([("blobs/sha256/x".to_owned(), vec![1; 2 << 20])]));
    refused(
        peak(place.store.load(std::io::Cursor::new(archive), &quiet)).await,
        "blobs/sha256/x is larger than 1048576 bytes",
    );
    assert_eq!(place.count("ingest"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_never_ends_takes_no_memory() {
    let tar = zeros(60 << 20, <[u8]>::to_vec);
    let made = image(&Platform::host().to_string(), &[tar], serde_json::json!({}));
    let place = place_with(small_limits()).await;
    let archive = oci_archive_of(&made, Some("x:1"));
    refused(
        peak(place.store.load(std::io::Cursor::new(archive), &quiet)).await,
        "unpacks to more than 8388608 bytes, refused as a decompression bomb",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_may_not_order_memory() {
    // zstd: a window of 2 GiB. Source: RFC 8878, 3.1.1.1.
    let zstd = [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3][..], &[0; 600]].concat();
    // xz: a dictionary of 1.5 GiB, in a header that is whole.
    let mut xz = Vec::new();
    let packed = std::process::Command::new("xz").args(["-c", "/etc/passwd"]).output().unwrap();
    xz.extend(packed.stdout);
    let end = 12 + (usize::from(xz[12]) + 1) * 4;
    let at = (12..end).find(|at| xz[*at..].starts_with(&[0x21, 0x01])).unwrap();
    xz[at + 2] = 39;
    let mut sum = flate2::Crc::new();
    sum.update(&xz[12..end - 4]);
    xz[end - 4..end].copy_from_slice(&sum.sum().to_le_bytes());
    let place = place().await;
    for packed in [zstd, xz] {
        let (answer, grown) = peak(place.store.load(std::io::Cursor::new(packed), &quiet)).await;
        let error = answer.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains("memory"), "{error}");
        assert!(grown < FLAT, "{error}: took {} MiB", grown >> 20);
    }
}

/// An index of these, each named as often as it stands there.
fn index_of(entries: &[&Blob]) -> Blob {
    let entries: Vec<_> = entries.iter().map(|blob| blob.descriptor()).collect();
    let index = serde_json::json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries });
    Blob::new(OCI_INDEX, index.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn nested_indexes_are_read_once_each() {
    let made = image(&Platform::host().to_string(), &[tar_of(&[("a", "b")])], serde_json::json!({}));
    // 200 × 200 × 200 × 200 ways to the one image there is.
    let mut levels = vec![made.manifest.clone()];
    for _ in 0..4 {
        let below = levels.last().unwrap().clone();
        levels.push(index_of(&vec![&below; 200]));
    }
    let top = levels.pop().unwrap();
    let blobs: Vec<&Blob> = levels.iter().chain(&made.layers).chain([&made.config]).collect();
    let place = place().await;
    let archive = oci_archive(&[(&top, Some("one:1")), (&top, Some("two:1"))], &blobs);
    let (loaded, grown) = peak(place.store.load(std::io::Cursor::new(archive), &quiet)).await;
    let loaded = loaded.unwrap();
    assert_eq!((loaded.len(), &loaded[0].references), (1, &vec!["one:1".to_owned(), "two:1".to_owned()]));
    assert!(grown < FLAT, "took {} MiB", grown >> 20);

    // One more level is one too many.
    let deeper = index_of(&[&top]);
    let blobs: Vec<&Blob> = blobs.into_iter().chain([&top]).collect();
    let archive = oci_archive(&[(&deeper, None)], &blobs);
    let error = place.store.load(std::io::Cursor::new(archive), &quiet).await.unwrap_err();
    assert!(error.to_string().contains("nested too deeply"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_does_not_have_its_documents_read_without_end() {
    // One configuration of 3 MiB, which a short table names 2,000 times over: 6 GB.
    let file = serde_json::json!({
        "os": "linux", "architecture": "amd64", "config": { "Labels": { "l": "x".repeat(3 << 20) } },
        "rootfs": { "type": "layers", "diff_ids": [] }, "history": [],
    });
    let entry = serde_json::json!({ "Config": "c.json", "RepoTags": [], "Layers": [] });
    let files = BTreeMap::from([
        ("c.json".to_owned(), file.to_string().into_bytes()),
        ("manifest.json".to_owned(), serde_json::Value::Array(vec![entry; 2000]).to_string().into_bytes()),
    ]);
    let place = place().await;
    let archive = raw_tar(&files);
    let (answer, grown) = peak(place.store.load(std::io::Cursor::new(archive), &quiet)).await;
    let error = answer.unwrap_err().to_string();
    assert!(error.contains("is larger than 67108864 bytes, the most this engine reads"), "{error}");
    assert!(grown < 256 << 20, "took {} MiB", grown >> 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_has_no_more_layers_than_can_be_mounted() {
    let tars = vec![tar_of(&[("a", "b")]); 501];
    let made = image(&Platform::host().to_string(), &tars, serde_json::json!({}));
    let place = place().await;
    let archive = oci_archive_of(&made, None);
    let error = place.store.load(std::io::Cursor::new(archive), &quiet).await.unwrap_err().to_string();
    assert!(error.contains("it lists 501 layers, and no image may have more than 500"), "{error}");
}

/// A table of some letters for each layer, and of names for each image, stands for what is a thousand times as large.
#[tokio::test(flavor = "multi_thread")]
async fn layers_and_names_of_a_loaded_archive_are_counted_before_they_are_kept() {
    let place = place().await;
    let entry = serde_json::json!({ "Config": "c", "RepoTags": [], "Layers": vec!["l"; 500_000] });
    let file =
        serde_json::json!({ "os": "linux", "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": [] } });
    let files = BTreeMap::from([
        ("c".to_owned(), file.to_string().into_bytes()),
        ("l".to_owned(), tar_of(&[("a", "b")])),
        ("manifest.json".to_owned(), serde_json::Value::Array(vec![entry]).to_string().into_bytes()),
    ]);
    let archive = raw_tar(&files);
    refused(peak(place.store.load(std::io::Cursor::new(archive), &quiet)).await, "it lists 500000 layers");

    let images: Vec<_> = (0..40)
        .map(|at| image(&Platform::host().to_string(), &[tar_of(&[("a", &at.to_string())])], serde_json::json!({})))
        .collect();
    let all = index_of(&images.iter().map(|image| &image.manifest).collect::<Vec<_>>());
    let blobs: Vec<&Blob> =
        images.iter().flat_map(|image| image.layers.iter().chain([&image.config, &image.manifest])).collect();
    let names: Vec<String> = (0..2000).map(|at| format!("name-{at}:1")).collect();
    let named: Vec<_> = names.iter().map(|name| (&all, Some(name.as_str()))).collect();
    let archive = oci_archive(&named, &blobs);
    refused(peak(place.store.load(std::io::Cursor::new(archive), &quiet)).await, "at most 10000 are taken");
}

/// The digest of a manifest is the ID of an artifact. An image whose configuration is the same document would take its place.
#[tokio::test(flavor = "multi_thread")]
async fn no_image_takes_the_id_of_an_artifact() {
    let place = place().await;
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": { "Cmd": ["echo"] }, "layers": [],
        "os": "linux", "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": [] },
    });
    let entry = serde_json::json!({ "Config": "c", "RepoTags": ["evil:latest"], "Layers": [] });
    let files = BTreeMap::from([
        ("c".to_owned(), manifest.to_string().into_bytes()),
        ("manifest.json".to_owned(), serde_json::Value::Array(vec![entry]).to_string().into_bytes()),
    ]);
    let error = place.store.load(std::io::Cursor::new(raw_tar(&files)), &quiet).await.unwrap_err().to_string();
    assert!(error.contains("it is a manifest: it has a schemaVersion"), "{error}");
}

async fn dockerfile(place: &Place, text: &str) -> Result<bireme_image::ImageId, ImageError> {
    let tar = tar_of(&[("Dockerfile", text)]);
    place.store.build(BuildRequest::new(BuildContext::Archive(Box::new(std::io::Cursor::new(tar)))), &|_| {}).await
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_do_not_double_for_ever() {
    let place = place().await;
    let doubled = |keyword: &str, times: usize| {
        let line = format!("{keyword} A=$A$A\n");
        format!("FROM scratch\n{keyword} A=0123456789abcdef\n{}", line.repeat(times))
    };
    for keyword in ["ENV", "ARG"] {
        let text = doubled(keyword, 23);
        refused(peak(dockerfile(&place, &text)).await, "it comes to more than 1048576 bytes");
    }
    // Each within its bound, and many of them: in one line, in many, in arguments, in labels.
    let names = |keyword: &str| (0..64).map(|at| format!("{keyword} N{at}=$A\n")).collect::<String>();
    let line = (0..64).map(|at| format!(" N{at}=$A")).collect::<String>();
    for (text, words) in [
        (format!("{}ENV{line}\n", doubled("ENV", 15)), "its values come to more than 4194304 bytes"),
        (format!("{}{}", doubled("ENV", 15), names("ENV")), "the configuration of the image"),
        (format!("{}{}", doubled("ARG", 15), names("ARG")), "its values come to more than 4194304 bytes"),
        (format!("{}LABEL{line}\n", doubled("ENV", 15)), "its values come to more than 4194304 bytes"),
        (format!("{}EXPOSE{}\n", doubled("ENV", 15), " $A".repeat(64)), "invalid containerPort: 0123456789abcdef"),
        (
            format!("ARG A=0123456789abcdef\n{}{}FROM scratch\n", "ARG A=$A$A\n".repeat(15), names("ARG")),
            "its values come to more than 4194304 bytes",
        ),
    ] {
        refused(peak(dockerfile(&place, &text)).await, words);
    }
    // What is sensible is taken.
    dockerfile(&place, &doubled("ENV", 12)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_of_a_registry_is_not_taken_whole() {
    let registry = Registry::start(false).await;
    registry.push("x", "1", &image("linux/amd64", &[tar_of(&[("a", "b")])], serde_json::json!({}))).await;
    let place = place().await;
    for (mischief, words) in [
        (Mischief::EndlessToken, "to a request for a token is larger than 4194304 bytes"),
        (Mischief::Endless, "is larger than 4194304 bytes"),
    ] {
        let proxy = Proxy::start(&registry, mischief).await;
        let name = Reference::parse(&format!("{}/x:1", proxy.host)).unwrap();
        let auth = Some(RegistryAuth::Basic(USER.0.to_owned(), USER.1.to_owned()));
        refused(peak(place.store.pull(&name, None, auth.clone(), &quiet)).await, words);
        let (answer, grown) = peak(place.store.look_up(&name, auth)).await;
        assert!(answer.is_err() && grown < FLAT, "took {} MiB", grown >> 20);
    }
    // What tells of a failure is read as far as it tells something.
    let proxy = Proxy::start(&registry, Mischief::EndlessError).await;
    let name = Reference::parse(&format!("{}/x:1", proxy.host)).unwrap();
    let (answer, grown) = peak(place.store.pull(&name, None, None, &quiet)).await;
    assert!(answer.is_err() && grown < FLAT, "{answer:?} took {} MiB", grown >> 20);
    let proxy = Proxy::start(&registry, Mischief::EndlessToken).await;
    let auth = RegistryAuth::Basic(USER.0.to_owned(), USER.1.to_owned());
    let (answer, grown) = peak(place.store.check_credentials(&proxy.host, &auth)).await;
    assert!(answer.is_err() && grown < FLAT, "{answer:?} took {} MiB", grown >> 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_folders_are_not_kept_without_end() {
    // 30,000 folders with names of 3,000 bytes: 90 MB of names, in a layer of some KB.
    let deep = format!("{}/", vec!["d".repeat(250); 12].join("/"));
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for at in 0..30_000 {
        let name = format!("{deep}{at}/");
        packed.write_all(&header(b'L', "././@LongLink", name.len() as u64)).unwrap();
        let mut block = name.into_bytes();
        block.resize(block.len().next_multiple_of(512), 0);
        packed.write_all(&block).unwrap();
        packed.write_all(&header(b'5', "short", 0)).unwrap();
    }
    packed.write_all(&[0; 1024]).unwrap();
    let place = place().await;
    let context = BuildContext::Archive(Box::new(std::io::Cursor::new(packed.finish().unwrap())));
    let (answer, grown) = peak(place.store.build(BuildRequest::new(context), &|_| {})).await;
    let error = answer.unwrap_err().to_string();
    assert!(error.contains("the names of folders so far have more than 67108864 bytes"), "{error}");
    assert!(grown < 128 << 20, "took {} MiB", grown >> 20);
}

/// A context of one file with all the attributes that it can have, and many names for it.
fn many_names(count: usize, name: impl Fn(usize) -> String, attribute: usize) -> Vec<u8> {
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    let mut add = |name: &str, content: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, content.as_bytes()).unwrap();
    };
    add("Dockerfile", "FROM scratch\nCOPY d /d\n");
    let value = vec![b'v'; attribute];
    if attribute > 0 {
        tar.append_pax_extensions([("SCHILY.xattr.user.long", value.as_slice())]).unwrap();
    }
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(0);
    tar.append_data(&mut header, "d/file", std::io::empty()).unwrap();
    for number in 0..count {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Link);
        header.set_size(0);
        tar.append_link(&mut header, name(number), "d/file").unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_of_what_is_copied_are_not_held_all_at_once() {
    let place = place().await;
    let context = many_names(15_000, |number| format!("d/{number}"), 3900);
    let request = BuildRequest::new(BuildContext::Archive(Box::new(std::io::Cursor::new(context))));
    let (answer, grown) = peak(place.store.build(request, &|_| {})).await;
    let layers = place.store.layers(&answer.unwrap()).await.unwrap();
    let mut value = vec![0; 5000];
    let length = rustix::fs::getxattr(layers[0].join("d/14999"), "user.long", &mut value[..]).unwrap();
    assert_eq!(length, 3900);
    assert!(grown < FLAT, "took {} MiB", grown >> 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_what_is_copied_have_a_bound() {
    let place = place().await;
    // Each name is as long as names can be, and some MB on the way stand for all of them.
    let deep = |number: usize| {
        let folders: String =
            (0..15).map(|depth| format!("{}/", char::from(b'a' + depth).to_string().repeat(250))).collect();
        format!("d/{folders}{number:0250}")
    };
    let context = many_names(33_500, deep, 0);
    assert!(context.len() < 32 << 20, "{}", context.len());
    let request = BuildRequest::new(BuildContext::Archive(Box::new(std::io::Cursor::new(context))));
    let (answer, grown) = peak(place.store.build(request, &|_| {})).await;
    let error = answer.unwrap_err();
    assert!(error.to_string().contains("the names of what it copies take more than"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(grown < 384 << 20, "took {} MiB", grown >> 20);
}
