//! Deletions, from the tar form to overlayfs's.
//!
//! Source: OCI image specification, `layer.md`, "Whiteouts"; Documentation/filesystems/overlayfs.rst.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use super::context::Context;
use crate::error::ImageError;

pub(super) const OPAQUE: &str = "trusted.overlay.opaque";

/// Whether a file of an unpacked layer marks a deletion.
pub(crate) fn is_whiteout(found: &fs::Stat) -> bool {
    FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice && found.st_rdev == 0
}

/// Whether an entry lies in a folder where AUFS kept its notes to itself, as in images of its time.
///
/// Source: moby, `pkg/archive/diff.go`, `WhiteoutMetaPrefix`.
pub(super) fn is_among_notes(folders: &[&OsStr]) -> bool {
    folders.iter().any(|folder| folder.as_bytes().starts_with(b".wh..wh."))
}

/// Whether an entry claims to lie within a deletion. A folder of that name would be one in this engine and a deletion for
/// whoever reads it from an archive again.
pub(super) fn is_behind_mark(folders: &[&OsStr]) -> bool {
    folders.iter().any(|folder| folder.as_bytes().starts_with(b".wh."))
}

/// Carries out the entry `name` (`.wh.…`) of the folder `parent`. Answers what it marked as deleted, if it is a name that the
/// layer has put nothing at so far.
pub(super) fn apply<'n>(
    context: Context<'_>,
    parent: &OwnedFd,
    name: &'n OsStr,
    path: &[u8],
) -> Result<Option<&'n OsStr>, ImageError> {
    if name == ".wh..wh..opq" {
        return set_opaque(context, parent, path).map(|()| None);
    }
    let target = &name.as_bytes()[".wh.".len()..];
    // `.wh..wh.plnk` and the like are notes of AUFS to itself.
    if target.starts_with(b".wh.") {
        return Ok(None);
    }
    if matches!(target, b"" | b"." | b"..") {
        return Err(context.refuse(path, "it deletes nothing that can be named"));
    }
    let target = OsStr::from_bytes(target);
    match fs::statat(parent, target, AtFlags::SYMLINK_NOFOLLOW) {
        // Deletions concern lower layers only: what this layer has put there stays, and hides what was below.
        Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::Directory => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let folder = fs::openat(parent, target, flags, Mode::empty())
                .map_err(|error| context.failed("open the folder", path, error))?;
            set_opaque(context, &folder, path).map(|()| None)
        }
        Ok(_) => Ok(None),
        Err(Errno::NOENT) => {
            fs::mknodat(parent, target, FileType::CharacterDevice, Mode::empty(), fs::makedev(0, 0))
                .map_err(|error| context.failed("mark the deletion of", path, error))?;
            Ok(Some(target))
        }
        Err(error) => Err(context.failed("look at", path, error)),
    }
}

/// Has a folder hide what lower layers have in it.
pub(super) fn set_opaque(context: Context<'_>, folder: impl AsFd, path: &[u8]) -> Result<(), ImageError> {
    fs::fsetxattr(folder, OPAQUE, b"y", XattrFlags::empty())
        .map_err(|error| context.failed("hide what is below", path, error))
}
