//! Extended attributes that belong to a file's content: file capabilities, and users' own.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use rustix::fs::{self, Mode, OFlags, XattrFlags};

/// How the tar format names them, before the attribute's own name.
pub(crate) const PAX_PREFIX: &str = "SCHILY.xattr.";

/// Whether an attribute goes where its file goes. What belongs to the kernel or to overlay mounts does not.
pub(crate) fn travels(name: &str) -> bool {
    name == "security.capability" || name.strip_prefix("user.").is_some_and(|rest| !rest.is_empty() && !overlay(name))
}

/// Attributes of overlay mounts made by users: they would change what a tree shows.
fn overlay(name: &str) -> bool {
    name.starts_with("user.overlay.")
}

/// The attributes of a file or folder that travel, by name.
pub(crate) fn of(file: impl AsFd) -> io::Result<Vec<(String, Vec<u8>)>> {
    let file = file.as_fd();
    // By the name of the descriptor, as one that only stands for a path cannot be asked itself.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut names = vec![0_u8; 64 << 10];
    let length = match fs::listxattr(&path, &mut names[..]) {
        Ok(length) => length,
        // A file system without them.
        Err(rustix::io::Errno::NOTSUP) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0) {
        let Some(name) = std::str::from_utf8(name).ok().filter(|name| travels(name)) else { continue };
        let mut value = vec![0_u8; 64 << 10];
        match fs::getxattr(&path, name, &mut value[..]) {
            Ok(length) => value.truncate(length),
            // Taken away meanwhile.
            Err(rustix::io::Errno::NODATA) => continue,
            Err(error) => return Err(error.into()),
        }
        found.push((name.to_owned(), value));
    }
    found.sort();
    Ok(found)
}

/// As [`of`], for what stands at `base` in a folder; a link is not followed.
pub(crate) fn at(parent: BorrowedFd<'_>, base: &OsStr) -> io::Result<Vec<(String, Vec<u8>)>> {
    of(fs::openat(parent, base, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
}

/// Gives a file or folder an attribute. A file system without any is no error: Docker goes on, too.
pub(crate) fn give(file: impl AsFd, name: &str, value: &[u8]) -> io::Result<()> {
    match fs::fsetxattr(file, name, value, XattrFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOTSUP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_and_overlays_own_attributes_stay() {
        for (name, expected) in [
            ("security.capability", true),
            ("user.colour", true),
            ("user.", false),
            ("user.overlay.opaque", false),
            ("trusted.overlay.opaque", false),
            ("security.selinux", false),
            ("system.posix_acl_access", false),
        ] {
            assert_eq!(travels(name), expected, "{name}");
        }
    }
}
