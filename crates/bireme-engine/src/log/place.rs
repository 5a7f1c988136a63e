//! The files of one log: the live one, and those that were rotated away, found below its folder and through no link.

use std::ffi::{OsStr, OsString};
use std::io::{self};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::file::LogFile;

/// Where the files of a log lie: `path`, and `path.1`, the newest of those put aside, to `path.ROTATED` at most.
///
/// The folder is the engine's and stands below folders that are closed to others; what is in it may be anybody's.
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) rotated: u32,
}

impl Place {
    pub(super) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    pub(super) fn name(&self, number: u32) -> OsString {
        let mut name = self.path.file_name().unwrap_or(OsStr::new("")).to_owned();
        if number > 0 {
            name.push(format!(".{number}"));
        }
        name
    }

    pub(super) fn opened(&self) -> io::Result<Option<OwnedFd>> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        found(fs::openat(CWD, self.folder(), flags, Mode::empty()))
    }

    /// Which file has this number now, without following a link.
    pub(super) fn inode(&self, number: u32) -> io::Result<Option<u64>> {
        let Some(folder) = self.opened()? else { return Ok(None) };
        let about = found(fs::statat(folder, self.name(number), AtFlags::SYMLINK_NOFOLLOW))?;
        Ok(about.map(|about| about.st_ino))
    }

    /// The number of the oldest rotated file; 0 where there is none.
    pub(super) fn rotated(&self) -> io::Result<u32> {
        let Some(folder) = self.opened()? else { return Ok(0) };
        let there = |number: &u32| fs::statat(&folder, self.name(*number), AtFlags::SYMLINK_NOFOLLOW).is_ok();
        Ok((1..=self.rotated).take_while(there).last().unwrap_or(0))
    }

    /// # Errors
    /// For what is no regular file with this name alone: a link, or a second name, leads to another's log; to open a pipe
    /// or a device may block or do something. For a file that its writer has reserved (a lease of fcntl(2)).
    pub(super) fn open(&self, number: u32) -> io::Result<Option<LogFile>> {
        let Some(folder) = self.opened()? else { return Ok(None) };
        let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Some(stands) = found(fs::openat(folder, self.name(number), look, Mode::empty()))? else { return Ok(None) };
        let about = fs::fstat(&stands)?;
        if FileType::from_raw_mode(about.st_mode) != FileType::RegularFile || about.st_nlink > 1 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "what stands there is no log file: it is a link, has a second name, or is no file at all. \
                 Remove it, and find out what put it there",
            ));
        }
        // Opened by its descriptor: nothing can have taken its place.
        let path = format!("/proc/self/fd/{}", stands.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = fs::open(path, flags, Mode::empty()).map_err(|error| match error {
            Errno::AGAIN => io::Error::new(
                io::ErrorKind::WouldBlock,
                "its writer has reserved it (a lease of fcntl(2)): stop the workload, then read its log",
            ),
            error => error.into(),
        })?;
        Ok(Some(LogFile::new(file.into(), about.st_ino)))
    }
}

/// What is not there is no error.
pub(super) fn found<T>(result: rustix::io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Rotated files that are looked at, whatever a workload asked for: those that `--tail` needs are open at once.
pub(super) const MOST_ROTATED: u32 = 999;
