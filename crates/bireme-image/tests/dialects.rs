//! Archives in every dialect of tar, unpacked here and by Python's `tarfile`: the same files with the same rights and times.
//!
//! `dialects.py` makes them, with `tarfile`, with GNU tar, and by hand where neither writes a form that is read all the same.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Command;

use bireme_image::Digest;
use common::*;

/// Times before this are an archive's, and not those of what had to be made for it.
const OF_THE_ARCHIVE: i64 = 1_700_000_000;

/// Everything in a folder, each as a line.
fn tree(root: &Path) -> BTreeMap<String, String> {
    let (mut all, mut first_names) = (BTreeMap::new(), BTreeMap::new());
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let mut paths: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            let about = path.symlink_metadata().unwrap();
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            let kind = about.file_type();
            let what = if kind.is_dir() {
                folders.push(path.clone());
                "folder".to_owned()
            } else if kind.is_symlink() {
                format!("link to {}", std::fs::read_link(&path).unwrap().display())
            } else if kind.is_file() {
                // In the order of their names, whichever the archive calls the first.
                let first = first_names.entry(about.ino()).or_insert_with(|| name.clone());
                format!("file of {}: {}, as {first}", about.len(), Digest::of(&std::fs::read(&path).unwrap()))
            } else if kind.is_fifo() {
                "pipe".to_owned()
            } else {
                format!("device {} {}", u8::from(kind.is_block_device()), about.rdev())
            };
            let made_up = kind.is_dir() && about.mtime() > OF_THE_ARCHIVE;
            let rights = if made_up {
                String::new()
            } else {
                // Python keeps times as floating point numbers.
                let micros = (about.mtime_nsec() + 500) / 1000;
                let (owner, time) = ((about.uid(), about.gid()), (about.mtime(), micros));
                // Python leaves a link the time at which it is made.
                if kind.is_symlink() {
                    format!(" {owner:?}")
                } else {
                    format!(" {:o} {owner:?} {time:?}", about.mode() & 0o7777)
                }
            };
            all.insert(name, format!("{what}{rights}"));
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn every_dialect_of_tar_is_unpacked_as_python_does() {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialects.py");
    let made = Command::new("python3").arg(script).arg(folder.path()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut archives: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    archives.retain(|path| path.extension().is_some_and(|extension| extension == "tar"));
    archives.sort();
    assert!(archives.len() >= 30, "{archives:?}");
    let place = place().await;
    let mut differences = Vec::new();
    for archive in archives {
        let name = archive.file_stem().unwrap().to_str().unwrap().to_owned();
        let theirs = tree(&archive.with_extension(""));
        let ours = match unpacked(&place, &[std::fs::read(&archive).unwrap()]).await {
            Ok(layers) => tree(&layers[0]),
            Err(error) => {
                differences.push(format!("{name}: {error}"));
                continue;
            }
        };
        for path in theirs.keys().chain(ours.keys().filter(|path| !theirs.contains_key(*path))) {
            let (ours, theirs) = (ours.get(path), theirs.get(path));
            if ours != theirs {
                differences.push(format!("{name}: {path}\n   here   {ours:?}\n   python {theirs:?}"));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
