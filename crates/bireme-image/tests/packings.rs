//! Layers whose packing lies: members without end, rubbish behind them, windows and dictionaries; each by name.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::{Duration, Instant};

use bireme_core::ErrorKind;
use bireme_image::{Digest, ImageError, Limits, Platform, RegistrySettings};
use common::*;

const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
const TAR: &str = "application/vnd.oci.image.layer.v1.tar";

/// Bytes of memory that one layer may take on its way.
const FLAT: u64 = 48 << 20;

fn memory(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// An image whose one layer is `packed`, and stands for `tar`.
fn image_of(media_type: &str, packed: Vec<u8>, tar: &[u8]) -> TestImage {
    let file = serde_json::json!({
        "os": "linux", "architecture": Platform::host().architecture, "config": {},
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(tar)] }, "history": [],
    });
    let config = Blob::new(OCI_CONFIG, file.to_string());
    with_manifest(&Platform::host().to_string(), config, vec![Blob::new(media_type, packed)], None)
}

/// Loads an image with that layer: what it says, and how long it took.
async fn load_layer(
    place: &Place,
    media_type: &str,
    packed: Vec<u8>,
    tar: &[u8],
) -> (Result<(), ImageError>, Duration) {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let (before, begun) = (memory("VmRSS"), Instant::now());
    // The archive itself is in memory here, and is not counted.
    let archive = oci_archive_of(&image_of(media_type, packed, tar), None);
    let own = archive.len() as u64;
    let answer = load(place, archive).await.map(drop);
    let grown = memory("VmHWM").saturating_sub(before + 4 * own);
    assert!(grown < FLAT, "{answer:?} took {} MiB", grown >> 20);
    (answer, begun.elapsed())
}

#[track_caller]
fn is_refused(answer: &Result<(), ImageError>, words: &str) {
    let error = answer.as_ref().expect_err(words);
    assert!(error.to_string().contains(words), "{error}");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

fn skippable(length: usize) -> Vec<u8> {
    [&[0x50, 0x2a, 0x4d, 0x18][..], &u32::try_from(length).unwrap().to_le_bytes(), &vec![7; length]].concat()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_may_have_many_members_and_frames() {
    let place = place().await;
    let tar = tar_with(&[file("a", "x".repeat(5000)), file("b", "y")]);
    let pieces = |pack: &dyn Fn(&[u8]) -> Vec<u8>| tar.chunks(700).flat_map(pack).collect::<Vec<u8>>();
    // As pigz and estargz write them, with empty ones between.
    let with_empty = |piece: &[u8]| [gzip(piece), gzip(b"")].concat();
    load_layer(&place, GZIP, pieces(&gzip), &tar).await.0.unwrap();
    load_layer(&place, GZIP, pieces(&with_empty), &tar).await.0.unwrap();
    // As zstd:chunked writes them, with frames that are to be skipped before, between and behind.
    let with_skipped = |piece: &[u8]| [skippable(3), zstd(piece), skippable(0)].concat();
    load_layer(&place, ZSTD, pieces(&zstd), &tar).await.0.unwrap();
    load_layer(&place, ZSTD, pieces(&with_skipped), &tar).await.0.unwrap();
    assert_eq!(place.count("layers/sha256"), 1, "it is one layer, however it is packed");
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_nothing_come_to_an_end() {
    let place = place().await;
    let tar = tar_with(&[file("a", "b")]);
    // Hundreds of thousands of them, before the content.
    let empty = gzip(b"");
    let many: Vec<u8> = empty.iter().copied().cycle().take(empty.len() * 300_000).chain(gzip(&tar)).collect();
    let (answer, took) = load_layer(&place, GZIP, many, &tar).await;
    answer.unwrap();
    assert!(took < Duration::from_secs(30), "{took:?}");
    let place = common::place().await;
    let small = skippable(1);
    let many: Vec<u8> = small.iter().copied().cycle().take(small.len() * 1_000_000).chain(zstd(&tar)).collect();
    let (answer, took) = load_layer(&place, ZSTD, many, &tar).await;
    answer.unwrap();
    assert!(took < Duration::from_secs(30), "{took:?}");
    // And nothing but such frames is no layer.
    let place = common::place().await;
    let (answer, _) = load_layer(&place, ZSTD, skippable(8 << 20), &tar).await;
    is_refused(&answer, "is not what its digest says");
    // One that says that it is longer than the layer.
    let mut long = skippable(100);
    long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let (answer, _) = load_layer(&place, ZSTD, [long, zstd(&tar)].concat(), &tar).await;
    assert!(answer.is_err());
    place.settles_to(0, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_behind_the_content_is_refused() {
    let place = place().await;
    let tar = tar_with(&[file("a", "b")]);
    for (media_type, packed) in [(GZIP, gzip(&tar)), (ZSTD, zstd(&tar))] {
        for rubbish in [&b"rubbish"[..], &[0x1f, 0x8b], &[0x1f, 0x8b, 8, 0], &[0x28, 0xb5, 0x2f, 0xfd], &[0xff; 5000]] {
            let (answer, _) = load_layer(&place, media_type, [&packed, rubbish].concat(), &tar).await;
            assert_eq!(answer.unwrap_err().kind(), ErrorKind::Invalid, "{media_type} {rubbish:?}");
        }
        for cut in 1..packed.len() {
            let (answer, _) = load_layer(&place, media_type, packed[..cut].to_vec(), &tar).await;
            assert_eq!(answer.unwrap_err().kind(), ErrorKind::Invalid, "{media_type} {cut}");
        }
    }
    // Behind the end of a plain archive anything may follow, and belongs to the digest.
    let more = [&tar[..], b"rubbish"].concat();
    load_layer(&place, TAR, more.clone(), &more).await.0.unwrap();
    let (answer, _) = load_layer(&place, TAR, more, &tar).await;
    is_refused(&answer, "is not what its digest says");
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_have_a_bound_and_dictionaries_are_unknown() {
    let place = place().await;
    let tar = tar_with(&[file("a", "b")]);
    // Frames that order 256 MiB, 2 GiB and 3.75 TiB. Source: RFC 8878, 3.1.1.1.2.
    for descriptor in [18 << 3, 21 << 3, 0xff_u8] {
        let frame = [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, descriptor][..], &[0; 600]].concat();
        let (answer, _) = load_layer(&place, ZSTD, frame.clone(), &tar).await;
        is_refused(&answer, "memory");
        // Behind an honest one.
        let (answer, _) = load_layer(&place, ZSTD, [zstd(&tar), frame].concat(), &tar).await;
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::Invalid);
    }
    // A dictionary that nobody has: four bytes of its number, and a window of 1 KiB.
    let frame = [&[0x28, 0xb5, 0x2f, 0xfd, 0x03, 0x00, 1, 2, 3, 4][..], &[0; 100]].concat();
    let (answer, _) = load_layer(&place, ZSTD, frame, &tar).await;
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::Invalid);
    // Content that is longer than the frame says, and a checksum that is wrong.
    let mut lying = zstd::Encoder::new(Vec::new(), 1).unwrap();
    lying.include_checksum(true).unwrap();
    std::io::Write::write_all(&mut lying, &tar).unwrap();
    let mut lying = lying.finish().unwrap();
    *lying.last_mut().unwrap() ^= 1;
    let (answer, _) = load_layer(&place, ZSTD, lying, &tar).await;
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::Invalid);
    let mut lying = gzip(&tar);
    let at = lying.len() - 6;
    lying[at] ^= 1;
    let (answer, _) = load_layer(&place, GZIP, lying, &tar).await;
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::Invalid);
    place.settles_to(0, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_is_what_its_type_says_and_not_what_it_looks_like() {
    let place = place().await;
    let tar = tar_with(&[file("a", "b")]);
    for (media_type, packed) in [
        (GZIP, tar.clone()),
        (ZSTD, tar.clone()),
        (GZIP, zstd(&tar)),
        (ZSTD, gzip(&tar)),
        (TAR, gzip(&tar)),
        (GZIP, gzip(&gzip(&tar))),
        ("application/vnd.oci.image.layer.v1.tar+bzip2", tar.clone()),
        ("application/vnd.oci.image.layer.v1.tar+encrypted", tar.clone()),
        ("application/octet-stream", tar.clone()),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", gzip(&tar)),
        ("", tar.clone()),
    ] {
        let (answer, _) = load_layer(&place, media_type, packed, &tar).await;
        let error = answer.expect_err(media_type);
        assert!(matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Unsupported), "{media_type}: {error}");
    }
    place.settles_to(0, 0).await;
}

/// Bombs within the layer's own archive: what its headers say, far beyond what it has.
#[tokio::test(flavor = "multi_thread")]
async fn headers_that_claim_terabytes_write_nothing() {
    let limits = Limits { layer_bytes: 64 << 20, ..Limits::default() };
    let place = place_with(RegistrySettings { limits, ..RegistrySettings::default() }).await;
    let huge = [1_u64 << 40, (1 << 63) - 1, u64::MAX];
    let mut archives = Vec::new();
    for size in huge {
        let text = size.to_string();
        // An entry that is said to be that long.
        archives.push(tar_with(&[file("a", "").record("size", &text)]));
        // A file with one hole, in each form that extended headers have for it.
        let sparse = |records: &[(&str, &str)], content: &str| {
            let named = |member: Member, (key, value): &(&str, &str)| member.record(format!("GNU.sparse.{key}"), value);
            tar_with(&[records.iter().fold(file("a", content), named)])
        };
        archives.push(sparse(&[("major", "1"), ("minor", "0"), ("name", "a"), ("realsize", &text)], "0\n"));
        archives.push(sparse(&[("size", &text), ("numblocks", "1"), ("map", &format!("{text},0"))], ""));
        archives.push(sparse(&[("size", &text), ("map", &format!("{},1", size - 1))], "x"));
        // And in GNU's own, whose numbers may be of base 256.
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::GNUSparse);
        header.set_path("a").unwrap();
        header.set_mode(0o644);
        header.set_size(0);
        let number = [&[0x80, 0, 0, 0][..], &size.to_be_bytes()].concat();
        let gnu = header.as_gnu_mut().unwrap();
        gnu.realsize.copy_from_slice(&number);
        gnu.sparse[0].offset.copy_from_slice(&number);
        gnu.sparse[0].numbytes.copy_from_slice(b"00000000000\0");
        header.set_cksum();
        archives.push([header.as_bytes().as_slice(), &[0; 1024]].concat());
    }
    for (at, tar) in archives.into_iter().enumerate() {
        let begun = Instant::now();
        let error = unpacked(&place, std::slice::from_ref(&tar)).await.expect_err(&at.to_string());
        assert_eq!(error.kind(), ErrorKind::Invalid, "{at}: {error}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{at}: {error}");
    }
    place.settles_to(0, 0).await;
    // Many holes of the largest size that is taken are as much as one of their sum.
    let hole = || file("a", "").record("GNU.sparse.size", (40_u64 << 20).to_string()).record("GNU.sparse.map", "0,0");
    let error = unpacked(&place, &[tar_with(&[hole(), hole()])]).await.unwrap_err();
    assert!(matches!(error, ImageError::Bomb { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn long_names_one_after_the_other_are_one_name() {
    let place = place().await;
    let long = |kind: u8, text: &str| {
        let mut archive = tar_with(&[file("././@LongLink", [text.as_bytes(), b"\0"].concat()).of(kind)]);
        archive.truncate(archive.len() - 1024);
        archive
    };
    let mut chain = Vec::new();
    for at in 0..20_000 {
        chain.extend(long(b'L', &format!("name-{at}")));
    }
    chain.extend(tar_with(&[file("cut", "x")]));
    let begun = Instant::now();
    // Whether it is the last or none, it is soon over.
    match unpacked(&place, &[chain]).await {
        Ok(layers) => assert_eq!(std::fs::read_dir(&layers[0]).unwrap().count(), 1),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Invalid, "{error}"),
    }
    assert!(begun.elapsed() < Duration::from_secs(20));
    // A million sets of extended headers about one file.
    let mut sets = Vec::new();
    for _ in 0..20_000 {
        let mut set = tar_with(&[file("pax", record(b"comment", b"x")).of(b'x')]);
        set.truncate(set.len() - 1024);
        sets.extend(set);
    }
    sets.extend(tar_with(&[file("a", "x")]));
    match unpacked(&place, &[sets]).await {
        Ok(layers) => assert_eq!(std::fs::read_dir(&layers[0]).unwrap().count(), 1),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Invalid, "{error}"),
    }
}
