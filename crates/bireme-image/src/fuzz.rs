//! The doors that strangers' bytes come through, for fuzzers and for the tests that do the same in little.
//!
//! Each takes any bytes at all, and panics only where a promise is broken: not because of what the bytes are. Not for use
//! otherwise.

use std::path::Path;

use crate::archive;
use crate::error::ImageError;
use crate::model::{ConfigFile, Counts, Descriptor, Document, Manifest, OCI_CONFIG};
use crate::record::make_record;
use crate::reference::Reference;
use crate::settings::Limits;
use crate::store::ImageStore;
use crate::tar_bounds::Bounded;
use crate::unpack::{Options, open_sent, unpack};
use crate::wanted::Wanted;

/// A name of an image. What is read as one is the same when it is written whole and read again. The short form is not held to
/// that: `docker.io/a.b/c` is `a.b/c` in it, as for Docker, and then of a registry `a.b`.
///
/// # Panics
/// When it is another one after that.
pub fn reference(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(read) = Reference::parse(text) else { return };
    let written = read.to_string();
    let again = Reference::parse(&written).unwrap_or_else(|error| panic!("{text:?} becomes {written:?}: {error}"));
    assert!(again == read, "{text:?} becomes {written:?}, which is another");
    let _ = Reference::parse(&read.familiar());
    assert!(!written.contains(|letter: char| letter.is_control() || letter.is_whitespace()), "{written:?}");
}

/// A manifest, an index or a configuration.
pub fn document(bytes: &[u8]) {
    let _ = Document::parse(bytes, "the document");
    let counted = Counts::of(bytes).is_ok_and(|counts| counts.check().is_ok());
    let _ = ConfigFile::parse(bytes, "the configuration");
    let _ = ConfigFile::of_artifact(bytes);
    if !counted {
        return;
    }
    // As the configuration of an image without layers.
    let digest = crate::digest::Digest::of(bytes);
    let config = Descriptor { media_type: OCI_CONFIG.to_owned(), digest, size: bytes.len() as u64 };
    let manifest = Manifest { config, layers: Vec::new(), artifact_type: None };
    let _ = make_record(manifest.to_json(), &manifest, bytes.to_vec(), None);
}

/// Bytes of files that a fuzzed archive may make.
const MOST_BYTES: u64 = 4 << 20;

/// Files, folders and links that a fuzzed archive may make.
const MOST_ENTRIES: u64 = 2_000;

/// A layer or, where it is not one, a build context: unpacked into a folder beside which nothing changes.
///
/// # Panics
/// When it writes beside that folder, or more than it may, or takes what the archive says for trouble with the disk.
pub fn layer(bytes: &[u8], layer: bool) {
    let Ok(outer) = tempfile::tempdir() else { return };
    let inner = outer.path().join("in");
    let victim = outer.path().join("victim");
    if std::fs::create_dir(&inner).is_err() || std::fs::write(&victim, "untouched").is_err() {
        return;
    }
    let options =
        Options { name: "fuzzed", whiteouts: layer, owners: layer, max_bytes: MOST_BYTES, max_entries: MOST_ENTRIES };
    let limits = Limits { ratio: 100, ratio_floor: MOST_BYTES, ..Limits::default() };
    let Ok(archive) = open_sent(bytes, &limits) else { return };
    match unpack(archive, &Wanted::default(), &inner, &options) {
        Ok(unpacked) => assert!(unpacked.bytes <= MOST_BYTES, "{} bytes were written", unpacked.bytes),
        Err(error @ ImageError::Store { .. }) => panic!("the disk is blamed for what an archive says: {error}"),
        Err(_) => {}
    }
    untouched(outer.path(), &victim);
}

fn untouched(outer: &Path, victim: &Path) {
    use std::os::unix::fs::MetadataExt as _;
    let names = std::fs::read_dir(outer).map(Iterator::count).unwrap_or_default();
    assert_eq!(names, 2, "something was written beside the folder");
    let about = victim.symlink_metadata();
    let same = about.is_ok_and(|about| (about.nlink(), about.len(), about.is_file()) == (1, 9, true));
    assert!(same, "a file beside the folder was changed");
}

/// What is looked at before a tar is read, and bounds its headers.
///
/// # Panics
/// When less comes out than went in, or more than what is missing of the last padding.
pub fn headers(bytes: &[u8]) {
    let mut passed = Vec::new();
    if std::io::Read::read_to_end(&mut Bounded::new(bytes), &mut passed).is_ok() {
        let made_up = passed.len().checked_sub(bytes.len());
        assert!(made_up.is_some_and(|made_up| made_up < 512), "{} bytes became {}", bytes.len(), passed.len());
    }
}

/// What `docker load` takes: put aside, and its tables of contents read.
pub fn archive(store: &ImageStore, bytes: &[u8]) {
    let _ = archive::look_through(&store.inner, bytes);
}
