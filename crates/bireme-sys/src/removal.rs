//! Removing a folder with all that is in it, and nothing that is not: neither through a link nor across a mount.
//!
//! A volume may be a mount of a folder of the machine, and a container may leave a tree deeper than a process may have
//! open files. So each folder is opened below the one before it, with `openat2`, which refuses to cross a mount (also a
//! bind mount of the same file system), and what lies too deep is first moved up. Whoever still has a folder of it open may
//! make further ones for as long as it likes: where somebody waits, a removal has its time.

use std::ffi::{CStr, CString};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, openat, openat2, renameat, unlinkat};
use rustix::io::Errno;

use crate::walk;

/// Levels that are open at once.
const DEPTH: usize = 100;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Removes `path` with all below it; nothing where nothing is there. Blocking.
///
/// # Errors
/// `ResourceBusy` where something is mounted below it: what is mounted is whole then, what lay before it may be gone.
/// Where that matters, ask [`mounted_below`] first.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    remove_at(path, false, None)
}

/// As [`remove_tree`], but for an empty folder that stays in its place, as the mark of a removal.
///
/// # Errors
/// As [`remove_tree`].
pub fn empty_tree(path: &Path) -> io::Result<()> {
    remove_at(path, true, None)
}

/// As [`empty_tree`], but not after `until`: answers whether it is empty.
///
/// # Errors
/// As [`remove_tree`].
pub fn empty_tree_until(path: &Path, until: Instant) -> io::Result<bool> {
    match remove_at(path, true, Some(until)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(false),
        Err(error) => Err(error),
    }
}

/// What was done of one removal, and how long it may take.
struct Progress {
    /// Folders that were moved up.
    moved: u64,
    until: Option<Instant>,
}

fn remove_at(path: &Path, keep: bool, until: Option<Instant>) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let name = CString::new(name.as_bytes())?;
    let parent = match openat(CWD, parent, FOLDER, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    remove_entry(parent.as_fd(), &name, keep, until)
}

/// One name of a folder, whatever it is; a folder itself stays where it is to be kept.
fn remove_entry(parent: BorrowedFd<'_>, name: &CStr, keep: bool, until: Option<Instant>) -> io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // What Linux says of a folder, and POSIX.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let top = match open_below(parent, name) {
        Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => return Ok(()),
        other => other?,
    };
    let mut progress = Progress { moved: 0, until };
    // Each round empties what was moved up in the one before.
    while empty(&top, &top, 0, &mut progress)? {}
    if keep {
        return Ok(());
    }
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        other => Ok(other?),
    }
}

fn open_below(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    openat2(parent, name, FOLDER, Mode::empty(), how).map_err(|error| match error {
        Errno::XDEV => {
            let text = format!("{} is a mount: unmount it first", name.to_string_lossy());
            io::Error::new(io::ErrorKind::ResourceBusy, text)
        }
        error => error.into(),
    })
}

/// Empties `folder`, and answers whether anything was moved up into `top`.
fn empty(folder: &OwnedFd, top: &OwnedFd, depth: usize, progress: &mut Progress) -> io::Result<bool> {
    let mut again = false;
    loop {
        // Removing while reading may skip entries: read anew until there is none.
        let mut any = false;
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            if progress.until.is_some_and(|until| Instant::now() > until) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") || (depth == 0 && is_moved(name) && again) {
                continue;
            }
            any = true;
            if entry.file_type() != FileType::Directory {
                match unlinkat(folder, name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => continue,
                    Err(Errno::ISDIR | Errno::PERM) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            // Empty ones need not be opened.
            match unlinkat(folder, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            let below = open_below(folder.as_fd(), name)?;
            if depth + 1 >= DEPTH {
                drop(below);
                renameat(folder, name, top, moved_name(&mut progress.moved)?.as_c_str())?;
                again = true;
                continue;
            }
            again |= empty(&below, top, depth + 1, progress)?;
            match unlinkat(folder, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if !any {
            return Ok(again);
        }
    }
}

const MOVED: &str = ".bireme-removal-";

fn moved_name(moved: &mut u64) -> io::Result<CString> {
    *moved += 1;
    // Random, as a tree may hold a folder of any name that can be foretold.
    Ok(CString::new(format!("{MOVED}{moved}-{:016x}", RandomState::new().build_hasher().finish()))?)
}

fn is_moved(name: &CStr) -> bool {
    name.to_bytes().starts_with(MOVED.as_bytes())
}

/// The first mount at `path` or below it. Blocking.
///
/// Source: proc_pid_mountinfo(5); the fifth field is where the mount is, with spaces and the like in octal.
///
/// # Errors
/// When `path` cannot be followed, or the table of mounts not be read. Nothing at `path` is none.
pub fn mounted_below(path: &Path) -> io::Result<Option<PathBuf>> {
    // As the kernel names it, whatever links lead to it.
    let path = match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let table = std::fs::read("/proc/self/mountinfo")?;
    let places = table.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    Ok(places.map(unescaped).find(|at| at.starts_with(&path)))
}

fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let octal = (*first == b'\\' && tail.len() >= 3)
            .then(|| std::str::from_utf8(&tail[..3]).ok().and_then(|digits| u8::from_str_radix(digits, 8).ok()))
            .flatten();
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsStr::from_bytes(&bytes))
}

/// Whether there is anything in a folder but folders: something that somebody may miss. What cannot be read, or is
/// mounted there, counts. Blocking.
pub fn holds_files(folder: &Path) -> bool {
    let found = walk::files(folder, |_| ControlFlow::Break(()), || ControlFlow::Break(()));
    !matches!(found, Ok(ControlFlow::Continue(())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::mount::{UnmountFlags, mount_bind, unmount};

    use super::*;

    /// Somebody with a folder of the tree open makes one below the other.
    #[test]
    fn a_tree_that_grows_for_ever_is_given_up_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        let deepest = openat(CWD, &tree, FOLDER, Mode::empty()).unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let growing = scope.spawn(|| {
                let mut deepest = deepest;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    // Gone from below its feet, it has lost.
                    if rustix::fs::mkdirat(&deepest, c"d", Mode::RWXU).is_err() {
                        return false;
                    }
                    match openat(&deepest, c"d", FOLDER, Mode::empty()) {
                        Ok(below) => deepest = below,
                        Err(_) => return false,
                    }
                }
                true
            });
            std::thread::sleep(std::time::Duration::from_millis(300));
            let begin = Instant::now();
            let until = begin + std::time::Duration::from_millis(500);
            let emptied = empty_tree_until(&tree, until).unwrap();
            assert!(begin.elapsed() < std::time::Duration::from_secs(10));
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(growing.join().unwrap() || emptied);
        });
        empty_tree(&tree).unwrap();
        assert!(empty_tree_until(&tree, Instant::now() + std::time::Duration::from_secs(5)).unwrap());
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }

    #[test]
    fn a_tree_goes_and_what_its_links_point_to_stays() {
        let temp = tempfile::tempdir().unwrap();
        let (tree, other) = (temp.path().join("tree"), temp.path().join("other"));
        std::fs::create_dir_all(tree.join("a/b/c")).unwrap();
        std::fs::create_dir(&other).unwrap();
        std::fs::write(other.join("kept"), "x").unwrap();
        std::fs::write(tree.join("a/file"), "x").unwrap();
        symlink(&other, tree.join("a/b/link")).unwrap();
        symlink(other.join("kept"), tree.join("a/b/c/link")).unwrap();
        assert!(holds_files(&tree));
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
        assert!(other.join("kept").exists());
        remove_tree(&tree).unwrap();
        symlink(&other, &tree).unwrap();
        remove_tree(&tree).unwrap();
        assert!(other.join("kept").exists() && tree.symlink_metadata().is_err(), "the link goes, not its target");
        std::fs::create_dir_all(tree.join("a/b")).unwrap();
        assert!(!holds_files(&tree), "folders alone are nothing");
    }

    #[test]
    fn a_tree_deeper_than_open_files_may_be_goes() {
        let temp = tempfile::tempdir().unwrap();
        let tree = temp.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        let mut folder = openat(CWD, &tree, FOLDER, Mode::empty()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&folder, c"deeper", Mode::RWXU).unwrap();
            folder = openat(&folder, c"deeper", FOLDER, Mode::empty()).unwrap();
        }
        drop(folder);
        // A name that our own moving might have chosen is nothing special.
        std::fs::create_dir_all(tree.join(format!("{MOVED}1/x/y"))).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }

    #[test]
    fn nothing_is_removed_across_a_mount() {
        let temp = tempfile::tempdir().unwrap();
        let (tree, host) = (temp.path().join("tree"), temp.path().join("of the host"));
        std::fs::create_dir_all(tree.join("a/mounted here")).unwrap();
        std::fs::create_dir(&host).unwrap();
        std::fs::write(host.join("kept"), "x").unwrap();
        std::fs::write(tree.join("file"), "x").unwrap();
        let at = tree.join("a/mounted here");
        mount_bind(&host, &at).expect("tests run as root and may mount");
        assert_eq!(mounted_below(&tree).unwrap().unwrap(), at.canonicalize().unwrap());
        let refused = remove_tree(&tree).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ResourceBusy, "{refused}");
        let refused = remove_tree(&at).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ResourceBusy, "{refused}");
        assert!(host.join("kept").exists());
        unmount(&at, UnmountFlags::DETACH).unwrap();
        remove_tree(&tree).unwrap();
        assert!(host.join("kept").exists() && !tree.exists());
    }
}
