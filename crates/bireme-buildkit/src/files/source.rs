//! A tree on disk that goes out.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, major, minor, openat2, readlinkat, statat};

use super::entry::{Entry, EntryKind};
use super::receive::Failure;
use super::send::Source;

/// How deep folders may lie within one another.
const MAX_DEPTH: usize = 1024;

/// All that is below a folder.
#[derive(Debug)]
pub struct FolderSource {
    root: OwnedFd,
}

impl FolderSource {
    /// Sends what is below `root`.
    pub fn new(root: OwnedFd) -> Self {
        Self { root }
    }

    fn walk_folder(
        &self,
        folder: BorrowedFd<'_>,
        path: &str,
        depth: usize,
        seen: &mut HashMap<(u64, u64), String>,
        each: &mut dyn FnMut(Entry) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        if depth > MAX_DEPTH {
            return Err(Failure(format!(
                "cannot send {path:?}: folders lie more than {MAX_DEPTH} deep in one another"
            )));
        }
        let failed = |error: rustix::io::Errno| Failure(format!("cannot read {path:?}: {error}"));
        let mut names = Vec::new();
        for item in Dir::read_from(folder).map_err(failed)? {
            let item = item.map_err(failed)?;
            let name = item.file_name().to_bytes();
            if name != b"." && name != b".." {
                let name = std::str::from_utf8(name).map_err(|_| {
                    Failure(format!("cannot send {:?} of {path:?}: its name is not UTF-8", item.file_name()))
                })?;
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        for name in names {
            let below = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            let failed = |error: rustix::io::Errno| Failure(format!("cannot read {below:?}: {error}"));
            let stat = statat(folder, name.as_str(), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            let kind = kind(folder, &name, &below, &stat, seen).map_err(failed)?;
            let deeper = kind == EntryKind::Folder;
            each(Entry {
                path: below.clone(),
                kind,
                mode: stat.st_mode & 0o7777,
                uid: stat.st_uid,
                gid: stat.st_gid,
                modified: stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(stat.st_mtime_nsec as i64),
                xattrs: BTreeMap::new(),
            })?;
            if deeper {
                let opened = self.open_at(&below, OFlags::DIRECTORY).map_err(failed)?;
                self.walk_folder(opened.as_fd(), &below, depth + 1, seen, each)?;
            }
        }
        Ok(())
    }

    fn open_at(&self, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        // Not blocking, lest a pipe that took a file's place holds the sender.
        let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        openat2(&self.root, path, flags, Mode::empty(), resolve)
    }
}

fn kind(
    folder: BorrowedFd<'_>,
    name: &str,
    path: &str,
    stat: &Stat,
    seen: &mut HashMap<(u64, u64), String>,
) -> rustix::io::Result<EntryKind> {
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => EntryKind::Folder,
        FileType::RegularFile => {
            if stat.st_nlink > 1 {
                if let Some(first) = seen.get(&(stat.st_dev, stat.st_ino)) {
                    return Ok(EntryKind::HardLink { to: first.clone() });
                }
                seen.insert((stat.st_dev, stat.st_ino), path.to_owned());
            }
            EntryKind::File { size: u64::try_from(stat.st_size).unwrap_or(0) }
        }
        FileType::Symlink => {
            let target = readlinkat(folder, name, Vec::new())?;
            EntryKind::Link { target: target.into_string().map_err(|_| rustix::io::Errno::ILSEQ)? }
        }
        FileType::CharacterDevice | FileType::BlockDevice => EntryKind::Device {
            character: FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice,
            major: major(stat.st_rdev),
            minor: minor(stat.st_rdev),
        },
        FileType::Fifo => EntryKind::Pipe,
        FileType::Socket => EntryKind::Socket,
        FileType::Unknown => return Err(rustix::io::Errno::NOTSUP),
    })
}

impl Source for FolderSource {
    fn walk(&self, each: &mut dyn FnMut(Entry) -> Result<(), Failure>) -> Result<(), Failure> {
        let root = self.open_at(".", OFlags::DIRECTORY).map_err(|error| Failure(format!("cannot read it: {error}")))?;
        self.walk_folder(root.as_fd(), "", 0, &mut HashMap::new(), each)
    }

    fn open(&self, path: &str) -> Result<Box<dyn Read + Send>, Failure> {
        let file =
            self.open_at(path, OFlags::empty()).map_err(|error| Failure(format!("cannot read {path:?}: {error}")))?;
        Ok(Box::new(File::from(file)))
    }
}
