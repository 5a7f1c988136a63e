//! Owners, modes, times and extended attributes of what is unpacked.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use rustix::fs::{self, AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::context::Context;
use super::entry::Meta;
use crate::error::ImageError;

/// Owner, then mode (a change of owner clears the setuid bit), then attributes (it clears capabilities too).
///
/// What is as it should be is left alone: each change is a transaction of the filesystem, a look is not.
pub(super) fn apply(context: Context<'_>, file: impl AsFd, path: &[u8], meta: &Meta) -> Result<(), ImageError> {
    let found = fs::fstat(&file).map_err(|error| context.failed("look at", path, error))?;
    let (uid, gid) = (uid(meta), gid(meta));
    let given = context.options.owners && (found.st_uid, found.st_gid) != (uid.as_raw(), gid.as_raw());
    if given {
        fs::fchown(&file, Some(uid), Some(gid)).map_err(|error| context.failed("set the owner of", path, error))?;
    }
    if given || Mode::from_raw_mode(found.st_mode) != Mode::from_raw_mode(meta.mode) {
        fs::fchmod(&file, Mode::from_raw_mode(meta.mode))
            .map_err(|error| context.failed("set the mode of", path, error))?;
    }
    for (name, value) in attributes(context.options.owners, meta) {
        tolerate(context, fs::fsetxattr(&file, name, value, XattrFlags::empty()), path)?;
    }
    Ok(())
}

/// As [`apply`], with the time, for what cannot be opened; `mode` where it has one.
pub(super) fn apply_at(
    context: Context<'_>,
    parent: &OwnedFd,
    name: &OsStr,
    path: &[u8],
    meta: &Meta,
    mode: bool,
) -> Result<(), ImageError> {
    if context.options.owners {
        fs::chownat(parent, name, Some(uid(meta)), Some(gid(meta)), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| context.failed("set the owner of", path, error))?;
    }
    if mode {
        // Made a moment ago by ourselves in a folder nobody else writes to: it is no link.
        fs::chmodat(parent, name, Mode::from_raw_mode(meta.mode), AtFlags::empty())
            .map_err(|error| context.failed("set the mode of", path, error))?;
    }
    for (attribute, value) in attributes(context.options.owners, meta) {
        let mut place = OsString::from(format!("/proc/self/fd/{}/", parent.as_raw_fd()));
        place.push(name);
        tolerate(context, fs::lsetxattr(&place, attribute, value, XattrFlags::empty()), path)?;
    }
    fs::utimensat(parent, name, &times(meta.time), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| context.failed("set the time of", path, error))
}

/// The extended attributes that images may set, as in Docker: file capabilities and the user's own.
fn attributes(owners: bool, meta: &Meta) -> impl Iterator<Item = (&str, &[u8])> {
    meta.attributes.iter().filter_map(move |(name, value)| {
        let taken = (name == "security.capability" && owners)
            || (name.starts_with("user.") && !name.starts_with("user.overlay."));
        taken.then_some((name.as_str(), value.as_slice()))
    })
}

/// Filesystems without extended attributes, and kinds of files that cannot have them, are no reason to fail.
fn tolerate(context: Context<'_>, set: Result<(), Errno>, path: &[u8]) -> Result<(), ImageError> {
    match set {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => Ok(()),
        Err(error) => Err(context.failed("set an attribute of", path, error)),
    }
}

fn uid(meta: &Meta) -> Uid {
    Uid::from_raw(u32::try_from(meta.uid).unwrap_or_default())
}

fn gid(meta: &Meta) -> Gid {
    Gid::from_raw(u32::try_from(meta.gid).unwrap_or_default())
}

pub(super) fn times(time: Timespec) -> Timestamps {
    Timestamps { last_access: time, last_modification: time }
}
