//! What the fuzz targets do, in little: seeds that are changed at random, by which nothing panics and nothing is left.
//!
//! The targets themselves are in `fuzz/` at the root of the repository.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use bireme_image::fuzz;
use common::*;
use proptest::prelude::*;

/// One change of some bytes: where, as a part of the length, and what.
#[derive(Clone, Debug)]
enum Change {
    Flip(u16, u8),
    Set(u16, u8),
    Cut(u16),
    Repeat(u16, u16),
    Drop(u16, u16),
    /// A number where numbers of a header are.
    Number(u16, u8, u64),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<u16>;
    let number = prop_oneof![
        any::<u64>(),
        prop::sample::select(vec![0, 1, 511, 512, 513, u64::MAX, u64::MAX - 511, 1 << 63, 1 << 32, 1 << 40]),
    ];
    prop_oneof![
        8 => (at(), any::<u8>()).prop_map(|(at, mask)| Change::Flip(at, mask)),
        8 => (at(), prop::sample::select(b"\0 0123456789/.LKxgS{}[]\",:\xff".to_vec())).prop_map(|(at, byte)| Change::Set(at, byte)),
        1 => at().prop_map(Change::Cut),
        2 => (at(), at()).prop_map(|(from, until)| Change::Repeat(from, until)),
        2 => (at(), at()).prop_map(|(from, until)| Change::Drop(from, until)),
        2 => (at(), prop::sample::select(vec![100_u8, 108, 116, 124, 136]), number)
            .prop_map(|(at, field, number)| Change::Number(at, field, number)),
    ]
}

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        let place = |at: u16| usize::from(at) * bytes.len() / (usize::from(u16::MAX) + 1);
        if bytes.is_empty() {
            break;
        }
        match *change {
            Change::Flip(at, mask) => {
                let at = place(at);
                bytes[at] ^= mask;
            }
            Change::Set(at, byte) => {
                let at = place(at);
                bytes[at] = byte;
            }
            Change::Cut(at) => bytes.truncate(place(at)),
            Change::Repeat(from, until) if bytes.len() < 1 << 17 => {
                let (from, until) = (place(from.min(until)), place(from.max(until)));
                let part = bytes[from..until].to_vec();
                bytes.splice(from..from, part);
            }
            Change::Repeat(..) => {}
            Change::Drop(from, until) => {
                let (from, until) = (place(from.min(until)), place(from.max(until)));
                bytes.drain(from..until);
            }
            Change::Number(at, field, number) => {
                let block = place(at) / 512 * 512;
                if let Some(place) = bytes.get_mut(block + usize::from(field)..block + usize::from(field) + 12) {
                    place[..4].copy_from_slice(&[0x80, 0, 0, 0]);
                    place[4..].copy_from_slice(&number.to_be_bytes());
                }
            }
        }
    }
    bytes
}

/// With the sums of its headers set right: what is refused for its sum alone shows nothing.
fn summed(mut tar: Vec<u8>) -> Vec<u8> {
    for block in tar.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    tar
}

fn layers() -> Vec<Vec<u8>> {
    let sparse = |member: Member| {
        member.record("GNU.sparse.major", "1").record("GNU.sparse.minor", "0").record("GNU.sparse.realsize", "4096")
    };
    let map = format!("1\n0\n3\n{}", "\0".repeat(506));
    vec![
        tar_with(&[folder("d"), file("d/f", "content"), symlink("l", "/d"), hard_link("h", "d/f"), file("l/x", "y")]),
        tar_with(&[
            file("d/.wh.a", ""),
            file(".wh..wh..opq", ""),
            file("d/a", ""),
            folder("d/a"),
            device(b'3', "n", (1, 3)),
        ]),
        tar_with(&[file("n".repeat(150), "x"), symlink("s", "t".repeat(200)), file("p", "").of(b'6')]),
        tar_with(&[
            file("f", "x").record("path", "d/other").record("mtime", "1.5").record("SCHILY.xattr.user.a", "b"),
            sparse(file("holes", format!("{map}abc")).record("GNU.sparse.name", "named")),
            file("older", "abc").record("GNU.sparse.size", "4096").record("GNU.sparse.map", "0,3,4096,0"),
        ]),
        tar_with(&[symlink("out", "../../victim"), file("out", "x"), symlink("up", ".."), hard_link("k", "up/victim")]),
    ]
}

fn documents() -> Vec<Vec<u8>> {
    let (made, _) = two_layers();
    vec![made.manifest.bytes.clone(), made.config.bytes.clone(), index(&[made]).bytes]
}

fn archives() -> Vec<Vec<u8>> {
    let (made, tars) = two_layers();
    vec![oci_archive_of(&made, Some("x:1")), docker_archive(&made, &tars, &["x:1", "y"])]
}

fn seed(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (prop::sample::select(seeds), prop::collection::vec(change(), 0..8)).prop_map(|(seed, all)| changed(seed, &all))
}

/// So many, or as many as `PROPTEST_CASES` says.
fn cases(usual: u32) -> ProptestConfig {
    let said = std::env::var_os("PROPTEST_CASES").is_some();
    let default = ProptestConfig::default();
    ProptestConfig { cases: if said { default.cases } else { usual }, ..default }
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn references(text in prop_oneof![
        "[a-zA-Z0-9./:@_\\-]{0,80}",
        "(docker.io/|localhost:5000/|\\[::1\\]:5000/)?[a-z0-9_./-]{1,30}(:[A-Za-z0-9_.-]{0,130})?(@sha256:[0-9a-f]{63,65})?",
        ".{0,60}",
    ]) {
        fuzz::reference(text.as_bytes());
    }

    #[test]
    fn documents_of_all_kinds(bytes in seed(documents())) {
        fuzz::document(&bytes);
    }

    #[test]
    fn layers_and_contexts(bytes in seed(layers()), is_layer in any::<bool>()) {
        let bytes = summed(bytes);
        fuzz::headers(&bytes);
        fuzz::layer(&bytes, is_layer);
    }

    #[test]
    fn packed_layers(bytes in seed(layers().iter().flat_map(|tar| [gzip(tar), zstd::encode_all(tar.as_slice(), 1).unwrap()]).collect())) {
        fuzz::layer(&bytes, true);
    }
}

#[test]
fn archives_of_images() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let place = runtime.block_on(place());
    let mut runner = proptest::test_runner::TestRunner::new(cases(128));
    runner
        .run(&seed(archives()), |bytes| {
            fuzz::archive(&place.store, &summed(bytes));
            prop_assert_eq!(place.count("ingest"), 0, "what was put aside is gone");
            Ok(())
        })
        .unwrap();
}
