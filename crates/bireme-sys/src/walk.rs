//! A walk over all files below a folder that leaves it neither by a link nor by a mount, whoever moves things meanwhile.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, ResolveFlags, Stat, statat};

/// Folders that are open at once: what lies deeper is not visited.
pub const DEEPEST: usize = 512;

/// Calls `visit` for everything below `folder` that is no folder, until it breaks. A folder that cannot be opened, is a
/// mount, goes meanwhile, or lies deeper than [`DEEPEST`] is told to `left_out` instead. Blocking.
///
/// # Errors
/// When `folder` itself cannot be opened, or is a link.
pub fn files<B>(
    folder: &Path,
    mut visit: impl FnMut(&Stat) -> ControlFlow<B>,
    mut left_out: impl FnMut() -> ControlFlow<B>,
) -> io::Result<ControlFlow<B>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let mut open = vec![Dir::new(rustix::fs::openat(CWD, folder, flags, Mode::empty())?)?];
    while let Some(dir) = open.last_mut() {
        let Some(entry) = dir.read() else {
            open.pop();
            continue;
        };
        let (fd, step) = (dir.fd()?, entry.ok());
        let Some(name) = step.as_ref().map(rustix::fs::DirEntry::file_name) else {
            open.pop();
            if let ControlFlow::Break(answer) = left_out() {
                return Ok(ControlFlow::Break(answer));
            }
            continue;
        };
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        // What went meanwhile is not there.
        let Ok(about) = statat(fd, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let next = if rustix::fs::FileType::from_raw_mode(about.st_mode).is_dir() {
            let below = rustix::fs::openat2(fd, name, flags, Mode::empty(), resolve).and_then(Dir::new);
            match below {
                Ok(below) if open.len() < DEEPEST => {
                    open.push(below);
                    ControlFlow::Continue(())
                }
                _ => left_out(),
            }
        } else {
            visit(&about)
        };
        if let ControlFlow::Break(answer) = next {
            return Ok(ControlFlow::Break(answer));
        }
    }
    Ok(ControlFlow::Continue(()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn count(folder: &Path) -> (usize, usize) {
        let (mut files_seen, mut left_out) = (0, 0);
        let ended: ControlFlow<()> = files(
            folder,
            |_| {
                files_seen += 1;
                ControlFlow::Continue(())
            },
            || {
                left_out += 1;
                ControlFlow::Continue(())
            },
        )
        .unwrap();
        assert!(ended.is_continue());
        (files_seen, left_out)
    }

    #[test]
    fn links_count_and_lead_nowhere() {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("folder");
        std::fs::create_dir_all(folder.join("a/b")).unwrap();
        std::fs::write(folder.join("a/b/one"), "x").unwrap();
        symlink("/etc", folder.join("a/out")).unwrap();
        assert_eq!(count(&folder), (2, 0));
        symlink(&folder, temp.path().join("link")).unwrap();
        assert!(files(&temp.path().join("link"), |_| ControlFlow::Break(()), || ControlFlow::Break(())).is_err());
    }

    #[test]
    fn a_mount_and_what_lies_too_deep_are_left_out() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("mounted")).unwrap();
        rustix::mount::mount_bind("/etc", temp.path().join("mounted")).expect("tests run as root and may mount");
        assert_eq!(count(temp.path()), (0, 1));
        rustix::mount::unmount(temp.path().join("mounted"), rustix::mount::UnmountFlags::DETACH).unwrap();
        let mut folder = rustix::fs::openat(CWD, temp.path(), OFlags::DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..=DEEPEST {
            rustix::fs::mkdirat(&folder, c"d", Mode::RWXU).unwrap();
            folder = rustix::fs::openat(&folder, c"d", OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        assert_eq!(count(temp.path()), (0, 1));
    }
}
