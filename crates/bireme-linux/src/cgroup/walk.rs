//! Walks through cgroups that somebody may have made deep, or many of: to find their processes, and to remove them.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Instant;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;

/// A walk through a cgroup and those below it, however deep: a container that may make cgroups makes paths longer than
/// `PATH_MAX`, and more levels than a process may have open files. So one folder is open at a time, and the way back is `..`,
/// which a cgroup cannot be moved away from.
struct Walk {
    at: OwnedFd,
    /// The names below where it began, and what there is still to see beside the last one.
    way: Vec<(CString, Vec<CString>)>,
}

impl Walk {
    const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

    /// Calls `arrive` in each cgroup, those above before those below, and `leave` with the name of one that it comes back
    /// from, in the folder above it.
    fn through(
        dir: &Path,
        until: Instant,
        mut arrive: impl FnMut(&OwnedFd),
        mut leave: impl FnMut(&OwnedFd, &CStr) -> io::Result<()>,
    ) -> io::Result<()> {
        let at = openat(CWD, dir, Self::FOLDER, Mode::empty())?;
        arrive(&at);
        let mut beside = Self::below(&at)?;
        let mut walk = Self { at, way: Vec::new() };
        loop {
            if Instant::now() > until {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "there are too many cgroups"));
            }
            if let Some(name) = beside.pop() {
                match openat(&walk.at, &name, Self::FOLDER, Mode::empty()) {
                    Ok(below) => walk.at = below,
                    Err(Errno::NOENT) => continue,
                    Err(error) => return Err(error.into()),
                }
                arrive(&walk.at);
                let next = Self::below(&walk.at)?;
                walk.way.push((name, std::mem::replace(&mut beside, next)));
            } else if let Some((name, others)) = walk.way.pop() {
                walk.at = openat(&walk.at, c"..", Self::FOLDER, Mode::empty())?;
                leave(&walk.at, &name)?;
                beside = others;
            } else {
                return Ok(());
            }
        }
    }

    fn below(folder: &OwnedFd) -> io::Result<Vec<CString>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            if entry.file_type() == FileType::Directory && !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
        }
        Ok(names)
    }
}

/// Adds the processes of `dir` and what is below it; answers whether it has seen all by `until`.
pub(super) fn collect(dir: &Path, until: Instant, all: &mut Vec<u32>) -> bool {
    let mut arrive = |folder: &OwnedFd| {
        let Ok(file) = openat(folder, c"cgroup.procs", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else { return };
        let text = io::read_to_string(fs::File::from(file)).unwrap_or_default();
        all.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0));
    };
    // Whoever removes one that the walk is in has it begin anew; the others are to be seen as well.
    while let Err(error) = Walk::through(dir, until, &mut arrive, |_, _| Ok(())) {
        if error.kind() != io::ErrorKind::NotFound || Instant::now() > until {
            return false;
        }
        if !dir.exists() {
            return true;
        }
    }
    true
}

/// Removes the cgroup `dir` and those below it. What is not there is no error.
///
/// # Errors
/// Those of rmdir(2); `TimedOut` when some are left at `until`.
pub(super) fn remove_tree(dir: &Path, until: Instant) -> io::Result<()> {
    let gone = |removed: io::Result<()>| match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    if gone(fs::remove_dir(dir)).is_ok() {
        return Ok(());
    }
    gone(Walk::through(dir, until, |_| {}, |folder, name| gone(Ok(unlinkat(folder, name, AtFlags::REMOVEDIR)?))))?;
    gone(fs::remove_dir(dir))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Folders are as good as cgroups here, but that they hold no files when they are removed.
    #[test]
    fn walks_deeper_than_a_path_may_be_long() {
        let temp = tempfile::tempdir().unwrap();
        let top = temp.path().join("top");
        fs::create_dir_all(top.join("beside/below")).unwrap();
        let mut at = openat(CWD, &top, Walk::FOLDER, Mode::empty()).unwrap();
        let name = CString::new("d".repeat(200)).unwrap();
        for _ in 0..2000 {
            rustix::fs::mkdirat(&at, &name, Mode::RWXU).unwrap();
            at = openat(&at, &name, Walk::FOLDER, Mode::empty()).unwrap();
        }
        let procs = openat(&at, c"cgroup.procs", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
        rustix::io::write(&procs, b"17\n0\n").unwrap();
        // A busy machine takes its time.
        let until = Instant::now() + Duration::from_secs(120);
        let mut found = Vec::new();
        assert!(collect(&top, until, &mut found));
        assert_eq!(found, [17]);
        unlinkat(&at, c"cgroup.procs", AtFlags::empty()).unwrap();
        remove_tree(&top, until).unwrap();
        assert!(!top.exists());
        remove_tree(&top, until).unwrap();
    }

    #[test]
    fn a_walk_ends_when_its_time_is_over() {
        let temp = tempfile::tempdir().unwrap();
        let top = temp.path().join("top");
        fs::create_dir_all(top.join("below")).unwrap();
        let past = Instant::now();
        assert!(!collect(&top, past, &mut Vec::new()));
        assert_eq!(remove_tree(&top, past).unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
