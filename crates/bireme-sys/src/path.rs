//! Paths that the kernel resolves below a folder, whatever links stand on the way.
//!
//! Source: openat2(2); `safepath` of moby.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// How often a walk is tried that raced with a rename or a mount anywhere on the machine.
const TRIES: usize = 1000;

/// openat2(2), asked again when the walk raced with a rename or a mount elsewhere on the machine.
///
/// # Errors
/// What the kernel answers; `EAGAIN` when it always races.
pub fn open(
    folder: impl AsFd,
    path: impl AsRef<Path>,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    let mut answer = Err(Errno::AGAIN);
    for _ in 0..TRIES {
        answer = rustix::fs::openat2(folder.as_fd(), path.as_ref(), flags, mode, resolve);
        if !matches!(answer, Err(Errno::AGAIN)) {
            break;
        }
    }
    answer
}

/// Whether a file or folder is on one of the file systems that show what the kernel has. Source: statfs(2), magic.h.
///
/// # Errors
/// As fstatfs(2).
pub fn is_kernels(file: BorrowedFd<'_>) -> io::Result<bool> {
    const KERNELS: [i64; 10] = [
        0x9fa0,      // proc
        0x6265_6572, // sysfs
        0x0027_e0eb, // cgroup
        0x6367_7270, // cgroup2
        0x1cd1,      // devpts
        0x1980_0202, // mqueue
        0x7363_6673, // securityfs
        0x6462_6720, // debugfs
        0x7472_6163, // tracefs
        0xcafe_4a11, // bpf
    ];
    Ok(KERNELS.contains(&(rustix::fs::fstatfs(file)?.f_type as i64 & 0xffff_ffff)))
}

/// What stands at `subpath` below `folder`, as a descriptor that only names it. Links are followed as long as they stay
/// below `folder`; an absolute one never does.
///
/// # Errors
/// What the kernel answers: `EXDEV` for a path that leads out.
pub fn beneath(folder: &Path, subpath: &Path) -> io::Result<OwnedFd> {
    let root = rustix::fs::openat(CWD, folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    Ok(open(&root, subpath, OFlags::PATH, Mode::empty(), resolve)?)
}

/// Docker's sentence for a path that [`beneath`] refused.
#[must_use]
pub fn not_accessible(folder: &Path, subpath: &Path, error: &io::Error) -> String {
    if error.raw_os_error() == Some(Errno::XDEV.raw_os_error()) {
        let (folder, subpath) = (folder.display(), subpath.display());
        return format!("path concatenation escapes the base directory: {subpath} leads out of {folder}");
    }
    format!("cannot access path {}: {error}", folder.join(subpath).display())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_as_long_as_they_stay_below() {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("folder");
        std::fs::create_dir_all(folder.join("a/b")).unwrap();
        std::fs::write(folder.join("a/file"), "x").unwrap();
        for (link, target) in [("inside", "a/b"), ("absolute", "/etc"), ("out", "../.."), ("a/up", "../a/b")] {
            symlink(target, folder.join(link)).unwrap();
        }
        for found in ["a", "a/file", "inside", "a/up", "a/../a/b", "."] {
            assert!(beneath(&folder, Path::new(found)).is_ok(), "{found}");
        }
        for out in ["absolute", "absolute/passwd", "out", "..", "a/../../folder", "/etc"] {
            let error = beneath(&folder, Path::new(out)).unwrap_err();
            assert!(not_accessible(&folder, Path::new(out), &error).contains("escapes the base"), "{out}: {error}");
        }
        let error = beneath(&folder, Path::new("none")).unwrap_err();
        assert!(not_accessible(&folder, Path::new("none"), &error).starts_with("cannot access path "), "{error}");
    }
}
