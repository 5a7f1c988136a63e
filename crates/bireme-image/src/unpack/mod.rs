//! Unpacking of layers, which never leaves the folder it was given.
//!
//! A layer is written by strangers. Every path in it is taken apart, and its folder is opened with openat2(2) and
//! `RESOLVE_IN_ROOT`, so that links planted by earlier entries lead nowhere but into the folder itself; the last part of
//! a path is only ever used with calls that do not follow links. Nothing is ever opened by its full path.
//!
//! Deletions are turned from the tar form (`.wh.NAME`, `.wh..wh..opq`) into overlayfs's (a character device 0/0, the
//! extended attribute `trusted.overlay.opaque`). Attributes of overlayfs in the tar itself are dropped: they could make
//! one layer redirect another.
//!
//! Source: OCI image specification, `layer.md`; Documentation/filesystems/overlayfs.rst; openat2(2).

mod compression;
mod context;
mod entry;
mod metadata;
mod metered;
#[cfg(test)]
mod tests;
mod unpacker;
mod whiteout;

use std::cell::Cell;
use std::io::{self, Read};
use std::path::Path;
use std::rc::Rc;

use bireme_core::error::chain;
use rustix::fs::{self, Mode, OFlags};
use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::error::{ImageError, StoreContext as _};
use crate::tar_bounds::Bounded;
use crate::wanted::Wanted;
use context::Context;
use entry::Meta;
use metered::Metered;
use unpacker::Unpacker;

pub use compression::open_bounded;
pub use entry::{blank, header_is_oldest};

pub(crate) use compression::{is_packed, is_tar, open_any, open_form, open_sent, sniff};
pub(crate) use context::shown;
pub(crate) use entry::{is_cut_off, parts};
pub(crate) use metered::digest_unpacked;
pub(crate) use whiteout::is_whiteout;

/// Bytes of an archive that are read, unpacked and hashed together.
const AHEAD: usize = 1 << 17;

/// How an archive is unpacked.
pub(crate) struct Options<'a> {
    /// What errors call it.
    pub(crate) name: &'a str,
    /// Turn deletions into overlayfs's form; otherwise their names are ordinary.
    pub(crate) whiteouts: bool,
    /// Give files the owners in the archive; otherwise the caller's.
    pub(crate) owners: bool,
    /// Bytes, of the archive and of the files in it.
    pub(crate) max_bytes: u64,
    /// Files, folders and links.
    pub(crate) max_entries: u64,
}

/// What was unpacked.
#[derive(Debug)]
pub(crate) struct Unpacked {
    /// Of the whole uncompressed stream.
    pub(crate) diff_id: Digest,
    /// Bytes in files.
    pub(crate) bytes: u64,
}

/// Unpacks the tar stream `archive` into the existing, empty folder `into`, for as long as it is `wanted`.
///
/// # Errors
/// `BadLayer`, `UnsafePath`, `Bomb`, `TooManyEntries`; `Store` and `NoSpace` for the folder itself. The folder holds whatever
/// was unpacked so far; the caller deletes it.
pub(crate) fn unpack(
    archive: impl Read,
    wanted: &Wanted,
    into: &Path,
    options: &Options<'_>,
) -> Result<Unpacked, ImageError> {
    let count = Rc::new(Cell::new(0));
    let mut metered =
        Metered { inner: wanted.lend(archive), hash: Sha256::new(), count: count.clone(), limit: options.max_bytes };
    let unreadable = |error: io::Error| {
        if count.get() > options.max_bytes {
            return ImageError::Bomb { layer: options.name.to_owned(), limit: options.max_bytes };
        }
        let reason = if is_cut_off(&error) { "it is cut off".to_owned() } else { chain(&error) };
        ImageError::BadLayer { layer: options.name.to_owned(), reason }
    };
    let root = fs::open(into, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .during("open the folder", into)?;
    let mut unpacker = Unpacker::new(Context { options, into }, wanted, root);
    {
        // Headers are asked for in pieces of 512 bytes, which is too little to unpack or to hash well.
        let ahead = io::BufReader::with_capacity(AHEAD, &mut metered);
        let mut bounded = Bounded::new(ahead);
        let apart = bounded.apart();
        let mut tar = tar::Archive::new(bounded);
        for entry in tar.entries().map_err(unreadable)? {
            let mut entry = entry.map_err(unreadable)?;
            unpacker.count()?;
            let meta = Meta::read(&mut entry, apart.take()).map_err(unreadable)?;
            unpacker.entry(&mut entry, &meta, &unreadable)?;
        }
    }
    let bytes = unpacker.finish()?;
    // What follows the end mark belongs to the digest as well.
    io::copy(&mut metered, &mut io::sink()).map_err(unreadable)?;
    Ok(Unpacked { diff_id: Digest::from_hash(metered.hash), bytes })
}
