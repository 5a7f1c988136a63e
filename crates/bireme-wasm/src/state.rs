//! The folder of a workload's state, in which its host writes as well.
//!
//! A host that was taken over may put anything there: links, pipes, files with other names elsewhere. Nothing of that is
//! followed. The folder is opened once, what is in it by its name in the open folder and never through a link, and owners
//! and modes are set on what was opened. The folder is root's and sticky: a host renames and removes only its own files.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use bireme_core::Exit;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, fchmod, fchown, fstat, openat, renameat, unlinkat};
use rustix::io::Errno;

/// Where a workload's end is written.
pub(crate) const EXIT_FILE: &str = "exit.json";
const UNFINISHED_EXIT: &str = "exit.json.tmp";
/// Most bytes of the record of an end: the host may write to the file.
const MAX_EXIT: u64 = 64 << 10;

pub(crate) struct StateFolder(OwnedFd);

impl StateFolder {
    /// # Errors
    /// Those of open(2); also when `path` is a link.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// Makes the empty file to which the end will be written, in place of whatever has its name.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn new_exit(&self) -> io::Result<File> {
        self.create(EXIT_FILE)
    }

    /// A file without a name, gone when nobody has it open any more.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn nameless(&self) -> io::Result<File> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        Ok(openat(&self.0, ".", flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    /// How the workload ended; `None` while it has not, or when there is no sound record.
    pub(crate) fn read_exit(&self) -> Option<Exit> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(&self.0, EXIT_FILE, flags, Mode::empty()).ok()?;
        let stat = fstat(&file).ok()?;
        // The daemon makes the file, and only it can make one that is its own.
        let own = stat.st_uid == rustix::process::geteuid().as_raw();
        if !own || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return None;
        }
        let mut text = Vec::new();
        File::from(file).take(MAX_EXIT).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Records an end that the host did not live to record.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn write_exit(&self, exit: &Exit) -> io::Result<()> {
        let mut file = self.create(UNFINISHED_EXIT)?;
        file.write_all(&serde_json::to_vec(exit)?)?;
        file.sync_data()?;
        Ok(renameat(&self.0, UNFINISHED_EXIT, &self.0, EXIT_FILE)?)
    }

    pub(crate) fn remove_exit(&self) {
        let _ = unlinkat(&self.0, EXIT_FILE, AtFlags::empty());
    }

    /// Lets the user `uid` write the log file `name` here, rotate it to at most `files`, and nothing else; answers the
    /// folder for it.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn lend(self, name: &OsStr, files: u32, uid: u32) -> io::Result<OwnedFd> {
        if !rustix::process::geteuid().is_root() {
            return Ok(self.0);
        }
        // Before the folder is the other user's to write to, though an earlier host of it may have been there.
        self.give_log(name, true, uid)?;
        for number in 1..files {
            let mut rotated = name.to_owned();
            rotated.push(format!(".{number}"));
            self.give_log(&rotated, false, uid)?;
        }
        fchown(&self.0, None, Some(Gid::from_raw(uid)))?;
        // Sticky: members of the group make files here, and rename or remove only their own.
        fchmod(&self.0, Mode::RWXU | Mode::RWXG | Mode::SVTX)?;
        Ok(self.0)
    }

    /// Takes the folder back from the user it was lent to.
    pub(crate) fn take_back(&self) {
        if rustix::process::geteuid().is_root() {
            let _ = fchmod(&self.0, Mode::RWXU | Mode::XGRP);
            let _ = fchown(&self.0, None, Some(Gid::ROOT));
        }
    }

    fn give_log(&self, name: &OsStr, make: bool, uid: u32) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.0, name, flags, Mode::empty()) {
            Ok(file) => {
                let stat = fstat(&file)?;
                let plain = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink == 1;
                plain.then_some(file)
            }
            Err(Errno::NOENT) if !make => return Ok(()),
            // A link, a pipe that nobody reads, a folder: no log.
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO | Errno::ISDIR) => None,
            Err(error) => return Err(error.into()),
        };
        let file = match file {
            Some(file) => file,
            None if make => self.create(name)?.into(),
            None => return Ok(self.remove(name)?),
        };
        fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(uid)))?;
        Ok(fchmod(&file, Mode::RUSR | Mode::WUSR | Mode::RGRP)?)
    }

    fn create(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        let name = name.as_ref();
        self.remove(name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.0, name, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    fn remove(&self, name: &OsStr) -> rustix::io::Result<()> {
        match unlinkat(&self.0, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => unlinkat(&self.0, name, AtFlags::REMOVEDIR),
            Err(Errno::NOENT) => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use std::path::PathBuf;

    /// A folder of state, and a file beside it that must stay as it is.
    fn prepared() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (state, victim) = (dir.path().join("state"), dir.path().join("victim"));
        std::fs::create_dir(&state).unwrap();
        std::fs::write(&victim, "untouched").unwrap();
        (dir, state, victim)
    }

    fn ended() -> Exit {
        Exit { code: 3, oom_killed: false, finished_at: 1, error: None }
    }

    #[test]
    fn an_end_is_never_written_or_read_through_a_link() {
        let (_dir, state, victim) = prepared();
        for name in [EXIT_FILE, UNFINISHED_EXIT] {
            symlink(&victim, state.join(name)).unwrap();
        }
        let folder = StateFolder::open(&state).unwrap();
        folder.write_exit(&ended()).unwrap();
        assert_eq!(folder.read_exit().unwrap().code, 3);
        std::fs::write(&victim, serde_json::to_string(&ended()).unwrap()).unwrap();
        std::fs::remove_file(state.join(EXIT_FILE)).unwrap();
        symlink(&victim, state.join(EXIT_FILE)).unwrap();
        assert_eq!(folder.read_exit(), None, "the record of somebody else");
        folder.new_exit().unwrap();
        assert!(std::fs::symlink_metadata(state.join(EXIT_FILE)).unwrap().is_file());
        assert!(!std::fs::read_to_string(&victim).unwrap().is_empty(), "the file behind the link was emptied");
        std::fs::remove_dir_all(&state).unwrap();
        symlink(victim.parent().unwrap(), &state).unwrap();
        assert!(StateFolder::open(&state).is_err(), "the folder itself is a link");
    }

    #[test]
    fn a_log_is_lent_and_nothing_behind_it() {
        const UID: u32 = 0x7000_0001;
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let (dir, state, victim) = prepared();
        std::fs::set_permissions(&victim, std::fs::Permissions::from_mode(0o600)).unwrap();
        let twin = dir.path().join("twin");
        std::fs::write(&twin, "untouched").unwrap();
        symlink(&victim, state.join("log")).unwrap();
        std::fs::hard_link(&twin, state.join("log.1")).unwrap();
        std::fs::create_dir(state.join("log.2")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, state.join("log.3"), Mode::RWXU).unwrap();
        std::fs::write(state.join("log.4"), "kept").unwrap();
        StateFolder::open(&state).unwrap().lend("log".as_ref(), 6, UID).unwrap();
        for path in [&victim, &twin] {
            let file = std::fs::metadata(path).unwrap();
            assert_eq!((file.uid(), file.gid()), (0, 0), "{} was given away", path.display());
            assert_eq!(std::fs::read_to_string(path).unwrap(), "untouched");
        }
        let log = std::fs::symlink_metadata(state.join("log")).unwrap();
        assert!(log.is_file() && log.uid() == UID && log.mode() & 0o7777 == 0o640, "{log:?}");
        let names: Vec<_> = std::fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert_eq!(std::fs::metadata(state.join("log.4")).unwrap().uid(), UID);
        let mode = || std::fs::metadata(&state).unwrap().mode() & 0o7777;
        assert_eq!(mode(), 0o1770);
        StateFolder::open(&state).unwrap().take_back();
        assert_eq!(mode(), 0o710);
    }
}
