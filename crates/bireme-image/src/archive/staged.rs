//! The files of an archive, put aside as they come.

use std::collections::HashMap;
use std::io::{self, Read as _};

use bireme_core::error::chain;
use tempfile::TempPath;

use crate::blob::Ingest;
use crate::digest::Digest;
use crate::error::{ImageError, StoreContext as _};
use crate::model::LayerForm;
use crate::store::Inner;
use crate::tar_bounds::Bounded;
use crate::unpack::{is_cut_off, open_sent, parts, shown, sniff};
use crate::wanted::Wanted;

/// Files in one archive; an image has two per layer and a few more.
const MAX_FILES: usize = 100_000;

/// Bytes of the names in one archive.
const MAX_NAMES: usize = 16 << 20;

/// A file of the archive, put aside.
pub(super) struct Part {
    pub(super) path: TempPath,
    pub(super) size: u64,
    pub(super) form: LayerForm,
}

/// The whole archive, put aside. A file is known by what was hashed while it was read, and a path is no more than a way to
/// say which: an archive may have a path twice.
pub(super) struct Staged {
    parts: HashMap<Digest, Part>,
    /// What lies at a path: of several, the last.
    paths: HashMap<String, Digest>,
    /// Old archives share layers through links: path to path.
    links: HashMap<String, String>,
}

impl Staged {
    pub(super) fn read(inner: &Inner, archive: impl io::Read) -> Result<Self, ImageError> {
        let unreadable = |error: io::Error| match is_cut_off(&error) {
            true => bad("it is cut off"),
            false => bad(format!("it is not a tar archive: {}", chain(&error))),
        };
        let mut staged = Self { parts: HashMap::new(), paths: HashMap::new(), links: HashMap::new() };
        let limits = &inner.settings.limits;
        let (mut files, mut names) = (0, 0);
        let mut tar = tar::Archive::new(Bounded::new(open_sent(archive, limits).map_err(unreadable)?));
        for entry in tar.entries().map_err(unreadable)? {
            let mut entry = entry.map_err(unreadable)?;
            let path = normal(&entry.path_bytes())?;
            files += 1;
            if files > MAX_FILES {
                return Err(bad(format!("it has more than {MAX_FILES} files")));
            }
            let kind = entry.header().entry_type();
            let target = entry.link_name_bytes().unwrap_or_default().into_owned();
            names += path.len() + target.len();
            if names > MAX_NAMES {
                return Err(bad(format!("the names of its files have more than {MAX_NAMES} bytes")));
            }
            if kind.is_symlink() || kind.is_hard_link() {
                let target = if kind.is_symlink() { beside(&path, &target) } else { normal(&target)? };
                staged.links.insert(path, target);
                continue;
            }
            if !kind.is_file() {
                continue;
            }
            let mut file = Ingest::new(inner)?;
            let mut start = Vec::with_capacity(4);
            entry.by_ref().take(4).read_to_end(&mut start).map_err(unreadable)?;
            file.write(&start)?;
            file.copy_from(&mut entry, limits.layer_bytes, &path).map_err(|error| match error {
                ImageError::Input { source } => unreadable(source),
                other => other,
            })?;
            let size = file.written();
            let (path_on_disk, digest) = file.aside()?;
            staged.paths.insert(path, digest.clone());
            staged.parts.insert(digest, Part { path: path_on_disk, size, form: sniff(&start) });
        }
        // To the end, so that the client is not cut off while it still sends.
        io::copy(&mut tar.into_inner(), &mut io::sink()).map_err(unreadable)?;
        Ok(staged)
    }

    /// What lies at a path, and its digest.
    pub(super) fn part(&self, path: &str) -> Option<(&Digest, &Part)> {
        let mut path = path;
        for _ in 0..8 {
            if let Some(digest) = self.paths.get(path) {
                return Some((digest, self.parts.get(digest)?));
            }
            path = self.links.get(path)?;
        }
        None
    }

    /// A blob of the layout, by its name; that its content is what the name says is checked here.
    pub(super) fn blob(&self, digest: &Digest, what: &str) -> Result<&Part, ImageError> {
        let Some((actual, part)) = self.part(&format!("blobs/sha256/{}", digest.hex())) else {
            return Err(ImageError::MissingBlob { what: what.to_owned(), digest: digest.to_string() });
        };
        if actual != digest {
            return Err(ImageError::DigestMismatch {
                what: format!("{what} {digest}"),
                expected: digest.clone(),
                actual: actual.clone(),
            });
        }
        Ok(part)
    }

    /// Moves a layer into the store. One that is there is hashed again, and replaced if it is not what its name says: the
    /// honest archive is at hand.
    pub(super) fn settle(&mut self, inner: &Inner, digest: &Digest, wanted: &Wanted) -> Result<(), ImageError> {
        let path = inner.blob_path(digest);
        if path.exists() {
            let stored = std::fs::File::open(&path).during("open the layer", &path)?;
            if Digest::of_all(wanted.lend(stored)).during("read", &path)? == *digest {
                return Ok(());
            }
            tracing::warn!(%digest, "a blob was not what its name says, and is replaced");
        }
        let Some(part) = self.parts.remove(digest) else {
            return Err(ImageError::MissingBlob { what: "layer".to_owned(), digest: digest.to_string() });
        };
        part.path.persist(&path).map_err(|error| ImageError::store("put in its place", &path, error.error))
    }
}

pub(super) fn bad(reason: impl Into<String>) -> ImageError {
    ImageError::BadArchive { reason: reason.into() }
}

/// A path of the archive without leading slash or dots.
pub(super) fn normal(path: &[u8]) -> Result<String, ImageError> {
    let parts = parts(path).map_err(|reason| ImageError::UnsafePath {
        layer: "(the archive itself)".to_owned(),
        path: shown(path),
        reason: reason.to_owned(),
    })?;
    Ok(parts.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/"))
}

/// The target of a link in the archive, beside the link itself. Only a key to look up: nothing is opened by it.
fn beside(path: &str, target: &[u8]) -> String {
    let target = String::from_utf8_lossy(target);
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.join("/")
}
