//! A tree that comes in, written below a folder.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, fchmod, futimens, linkat, mkdirat, mknodat,
    openat, openat2, statat, symlinkat, utimensat,
};
use rustix::io::Errno;

use super::entry::{Entry, EntryKind};
use super::receive::{Content, Failure, Receive};

/// Writes below a folder, which has to be empty and written by nobody else.
///
/// Nothing is reached but by `openat2` beneath the folder without passing through a link, and each entry is created anew,
/// but for files that an earlier transfer brought: these are linked. A transfer that fails leaves what it wrote: whoever made
/// the folder removes it.
#[derive(Debug)]
pub struct Folder {
    root: OwnedFd,
    previous: Option<OwnedFd>,
    /// The folder in which the last entry was, as entries come folder by folder.
    parent: Option<(String, OwnedFd)>,
    /// The same folder of the earlier transfer; `None` where there was none.
    previous_parent: Option<(String, Option<OwnedFd>)>,
    /// Files whose content is to come or is coming.
    files: HashMap<u32, Pending>,
    /// Folders, which get their mode and time at the end: what is put into them would change both.
    folders: Vec<Entry>,
}

#[derive(Debug)]
struct Pending {
    entry: Entry,
    /// Open from its first bytes to its end.
    file: Option<OwnedFd>,
}

impl Folder {
    /// Writes below `root`. `previous` is an earlier transfer of the same tree, on the same filesystem and written by nobody: a
    /// file which has the same size, time and mode there is linked from it instead of asked for, so that an unchanged tree
    /// takes no inodes but those of its folders.
    pub fn new(root: OwnedFd, previous: Option<OwnedFd>) -> Self {
        Self { root, previous, parent: None, previous_parent: None, files: HashMap::new(), folders: Vec::new() }
    }

    /// Creates the entry; a file is empty then, unless the earlier transfer has it. Answers whether its content is to come.
    fn create(&mut self, entry: &Entry) -> io::Result<Content> {
        let (folder, name) = entry.path.rsplit_once('/').unwrap_or(("", &entry.path));
        if self.parent.as_ref().is_none_or(|(open, _)| open != folder) {
            let opened = beneath(self.root.as_fd(), folder, OFlags::PATH | OFlags::DIRECTORY)?;
            self.parent = Some((folder.to_owned(), opened));
        }
        let Some((_, parent)) = &self.parent else { return Ok(Content::Have) };
        match &entry.kind {
            EntryKind::Folder => mkdirat(parent, name, Mode::RWXU)?,
            EntryKind::File { size } => {
                if let Some(previous) = open_previous(self.previous.as_ref(), &mut self.previous_parent, folder)
                    && is_same(previous, name, entry, *size)
                    // A file may have as many names as it can; then it is fetched.
                    && linkat(previous, name, parent, name, AtFlags::empty()).is_ok()
                {
                    return Ok(Content::Have);
                }
                let private = Mode::RUSR | Mode::WUSR;
                openat(parent, name, OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC, private)?;
            }
            EntryKind::HardLink { to } => {
                let (from, old) = to.rsplit_once('/').unwrap_or(("", to));
                let from = beneath(self.root.as_fd(), from, OFlags::PATH | OFlags::DIRECTORY)?;
                linkat(&from, old, parent, name, AtFlags::empty())?;
            }
            EntryKind::Link { target } => {
                symlinkat(target, parent, name)?;
                utimensat(parent, name, &times(entry.modified), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            EntryKind::Pipe => node(parent, name, FileType::Fifo, entry)?,
            EntryKind::Socket => node(parent, name, FileType::Socket, entry)?,
            EntryKind::Device { .. } => return Err(io::ErrorKind::Unsupported.into()),
        }
        Ok(if matches!(entry.kind, EntryKind::File { .. }) { Content::Want } else { Content::Have })
    }

    fn write(&mut self, index: u32, bytes: &[u8]) -> io::Result<()> {
        let root = self.root.as_fd();
        let pending = self.files.get_mut(&index).ok_or_else(|| io::Error::other("it was not asked for"))?;
        let file = open_pending(root, pending)?;
        let mut left = bytes;
        while !left.is_empty() {
            match rustix::io::write(file, left) {
                Ok(written) => left = &left[written..],
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn close(&mut self, index: u32) -> io::Result<()> {
        let Some(mut pending) = self.files.remove(&index) else { return Ok(()) };
        open_pending(self.root.as_fd(), &mut pending)?;
        match &pending.file {
            Some(file) => describe(file.as_fd(), &pending.entry),
            None => Ok(()),
        }
    }

    fn name(&self, index: u32) -> String {
        self.files.get(&index).map_or_else(|| "a file".to_owned(), |pending| format!("{:?}", pending.entry.path))
    }
}

/// The folder of the earlier transfer that is called `folder`, as long as it is asked for.
fn open_previous<'a>(
    previous: Option<&OwnedFd>,
    last: &'a mut Option<(String, Option<OwnedFd>)>,
    folder: &str,
) -> Option<&'a OwnedFd> {
    let previous = previous?;
    if last.as_ref().is_none_or(|(open, _)| open != folder) {
        let opened = beneath(previous.as_fd(), folder, OFlags::PATH | OFlags::DIRECTORY).ok();
        *last = Some((folder.to_owned(), opened));
    }
    last.as_ref()?.1.as_ref()
}

/// Whether a file of an earlier transfer is what the walk says of one of this.
fn is_same(previous: &OwnedFd, name: &str, entry: &Entry, size: u64) -> bool {
    let Ok(stat) = statat(previous, name, AtFlags::SYMLINK_NOFOLLOW) else { return false };
    let modified = stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(stat.st_mtime_nsec as i64);
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && u64::try_from(stat.st_size) == Ok(size)
        && modified == entry.modified
        && stat.st_mode & 0o7777 == entry.mode
}

/// Makes a pipe or a socket.
fn node(parent: &OwnedFd, name: &str, kind: FileType, entry: &Entry) -> io::Result<()> {
    mknodat(parent, name, kind, Mode::from_raw_mode(entry.mode), 0)?;
    // A node just made, of which nobody else knows: no link is in its place. The mask of new files cut its mode.
    rustix::fs::chmodat(parent, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
    utimensat(parent, name, &times(entry.modified), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

/// Gives a file or folder what the walk said of it. It belongs to whoever this process is.
fn describe(file: BorrowedFd<'_>, entry: &Entry) -> io::Result<()> {
    fchmod(file, Mode::from_raw_mode(entry.mode))?;
    futimens(file, &times(entry.modified))?;
    Ok(())
}

fn open_pending<'a>(root: BorrowedFd<'_>, pending: &'a mut Pending) -> io::Result<&'a OwnedFd> {
    match &mut pending.file {
        Some(file) => Ok(file),
        none => Ok(none.insert(beneath(root, &pending.entry.path, OFlags::WRONLY)?)),
    }
}

/// Opens what is at `path` below `root`; the root itself for an empty one.
fn beneath(root: BorrowedFd<'_>, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let path = if path.is_empty() { "." } else { path };
    loop {
        match openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // The kernel could not be sure that nothing was moved meanwhile.
            Err(Errno::AGAIN) => {}
            opened => return Ok(opened?),
        }
    }
}

fn times(modified: i64) -> Timestamps {
    let (seconds, nanos) = (modified.div_euclid(1_000_000_000), modified.rem_euclid(1_000_000_000));
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos as _ };
    Timestamps { last_access: time, last_modification: time }
}

impl Receive for Folder {
    type Done = ();

    fn entry(&mut self, index: u32, entry: &Entry) -> Result<Content, Failure> {
        let failed =
            |error: io::Error| Failure(format!("cannot write {:?} of the client's files: {error}", entry.path));
        if matches!(entry.kind, EntryKind::Device { .. }) {
            return Err(Failure(format!(
                "{:?} of the client's files is a device, which is not taken over; exclude it with a .dockerignore",
                entry.path
            )));
        }
        let content = self.create(entry).map_err(failed)?;
        if entry.kind == EntryKind::Folder {
            self.folders.push(entry.clone());
        }
        if content == Content::Want {
            self.files.insert(index, Pending { entry: entry.clone(), file: None });
        }
        Ok(content)
    }

    fn data(&mut self, index: u32, bytes: &[u8]) -> Result<(), Failure> {
        self.write(index, bytes)
            .map_err(|error| Failure(format!("cannot write {} of the client's files: {error}", self.name(index))))
    }

    fn end(&mut self, index: u32) -> Result<(), Failure> {
        let name = self.name(index);
        self.close(index).map_err(|error| Failure(format!("cannot write {name} of the client's files: {error}")))
    }

    fn finish(self) -> Result<(), Failure> {
        for entry in self.folders.iter().rev() {
            beneath(self.root.as_fd(), &entry.path, OFlags::RDONLY | OFlags::DIRECTORY)
                .and_then(|folder| describe(folder.as_fd(), entry))
                .map_err(|error| Failure(format!("cannot write {:?} of the client's files: {error}", entry.path)))?;
        }
        Ok(())
    }
}
