//! Entry by entry, from a tar to a folder that no entry leads out of.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec};
use rustix::io::Errno;
use tar::EntryType;

use super::context::{Context, shown};
use super::entry::{self, Meta};
use super::{metadata, whiteout};
use crate::content::{self, Failed};
use crate::error::{ImageError, StoreContext as _};
use crate::wanted::Wanted;

/// Bytes of the names that are held while an archive is unpacked, those of folders above all.
const MOST_NAMES: usize = 64 << 20;

/// Folders within folders. Whatever walks the tree afterwards, to copy or to remove it, holds something for each.
const DEEPEST: usize = 512;

/// One unpacking under way.
pub(super) struct Unpacker<'a> {
    context: Context<'a>,
    wanted: &'a Wanted,
    root: OwnedFd,
    /// The folder of the last entry: most entries share it with the one before.
    parent: Option<(PathBuf, Rc<OwnedFd>)>,
    /// Folders that must hide the lower one because its deletion stands in the same layer.
    fresh: HashSet<PathBuf>,
    /// Times of folders are set last, for every new file changes them.
    folders: BTreeMap<PathBuf, Timespec>,
    /// Bytes of the names in the two above, so far.
    names: usize,
    /// Entries, and folders that no entry names, so far.
    entries: u64,
    /// Bytes in files so far.
    bytes: u64,
}

/// What made way for an entry.
#[derive(PartialEq)]
enum Cleared {
    /// A folder, which stays, for an entry that is one.
    Folder,
    /// The mark of a deletion in lower layers.
    Whiteout,
    Other,
}

impl<'a> Unpacker<'a> {
    pub(super) fn new(context: Context<'a>, wanted: &'a Wanted, root: OwnedFd) -> Self {
        Self {
            context,
            wanted,
            root,
            parent: None,
            fresh: HashSet::new(),
            folders: BTreeMap::new(),
            names: 0,
            entries: 0,
            bytes: 0,
        }
    }

    /// Counts something that is made.
    pub(super) fn count(&mut self) -> Result<(), ImageError> {
        self.entries += 1;
        let limit = self.context.options.max_entries;
        if self.entries > limit {
            return Err(ImageError::TooManyEntries { layer: self.context.options.name.to_owned(), limit });
        }
        Ok(())
    }

    /// Makes what an entry stands for.
    pub(super) fn entry<R: Read>(
        &mut self,
        content: &mut tar::Entry<'_, R>,
        meta: &Meta,
        unreadable: &dyn Fn(io::Error) -> ImageError,
    ) -> Result<(), ImageError> {
        if matches!(meta.kind, EntryType::XGlobalHeader | EntryType::XHeader) {
            return Ok(());
        }
        let path = meta.path.as_slice();
        let parts = entry::parts(path).map_err(|reason| self.context.refuse(path, reason))?;
        if meta.uid >= u64::from(u32::MAX) || meta.gid >= u64::from(u32::MAX) {
            return Err(self.context.refuse(path, "its owner is not a user or group ID of Linux"));
        }
        let Some((name, folders)) = parts.split_last() else {
            if meta.kind == EntryType::Directory {
                self.folders.insert(PathBuf::new(), meta.time);
                let root = self.root.try_clone().during("open the folder", self.context.into)?;
                return metadata::apply(self.context, &root, path, meta);
            }
            return Err(self.context.refuse(path, "it names the root itself"));
        };
        if self.context.options.whiteouts {
            if whiteout::is_among_notes(folders) {
                return Ok(());
            }
            if whiteout::is_behind_mark(folders) {
                return Err(self
                    .context
                    .refuse(path, "a part of it is the mark of a deletion, which has nothing in it"));
            }
        }
        let parent_path: PathBuf = folders.iter().collect();
        let parent = self.folder(&parent_path, path)?;
        if self.context.options.whiteouts && name.as_bytes().starts_with(b".wh.") {
            let Some(deleted) = whiteout::apply(self.context, &parent, name, path)? else { return Ok(()) };
            let place = parent_path.join(deleted);
            self.hold(&place, path)?;
            self.fresh.insert(place);
            return Ok(());
        }

        let here = parent_path.join(name);
        match meta.kind {
            EntryType::Directory => {
                // Ours to enter, whatever it says.
                let mode = Mode::from_raw_mode(meta.mode & 0o777) | Mode::RWXU;
                let mut opaque = false;
                match fs::mkdirat(&parent, *name, mode) {
                    Err(Errno::EXIST) => match self.clear(&parent, name, meta)? {
                        Cleared::Folder => {}
                        cleared => {
                            // A deletion of the lower folder in this very layer: what takes its place must hide it.
                            opaque = cleared == Cleared::Whiteout;
                            fs::mkdirat(&parent, *name, mode)
                                .map_err(|error| self.context.failed("create the folder", path, error))?;
                        }
                    },
                    made => made.map_err(|error| self.context.failed("create the folder", path, error))?,
                }
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let folder = fs::openat(&parent, *name, flags, Mode::empty())
                    .map_err(|error| self.context.failed("open the folder", path, error))?;
                if opaque || self.fresh.remove(&here) {
                    whiteout::set_opaque(self.context, &folder, path)?;
                }
                metadata::apply(self.context, &folder, path, meta)?;
                self.hold(&here, path)?;
                self.folders.insert(here, meta.time);
                Ok(())
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mode = Mode::from_raw_mode(meta.mode & 0o777);
                let file = self.place(&parent, name, meta, || fs::openat(&parent, *name, flags, mode))?;
                let file = file.map_err(|error| self.context.failed("create the file", path, error))?;
                let mut file = std::fs::File::from(file);
                self.copy(content, &mut file, meta, unreadable)?;
                metadata::apply(self.context, &file, path, meta)?;
                fs::futimens(&file, &metadata::times(meta.time))
                    .map_err(|error| self.context.failed("set the time of", path, error))
            }
            EntryType::Symlink => {
                let target = meta.link.as_deref().filter(|target| !target.is_empty() && !target.contains(&0));
                let target = target.ok_or_else(|| self.context.refuse(path, "a symbolic link without a target"))?;
                self.place(&parent, name, meta, || fs::symlinkat(OsStr::from_bytes(target), &parent, *name))?
                    .map_err(|error| self.context.failed("create the link", path, error))?;
                metadata::apply_at(self.context, &parent, name, path, meta, false)
            }
            EntryType::Link => {
                let target = meta.link.as_deref().unwrap_or_default();
                let parts = entry::parts(target).map_err(|reason| {
                    self.context.refuse(path, format!("it is a hard link to \"{}\": {reason}", shown(target)))
                })?;
                let Some((last, folders)) = parts.split_last() else {
                    return Err(self.context.refuse(path, "it is a hard link to the root"));
                };
                let absent = || ImageError::BadLayer {
                    layer: self.context.options.name.to_owned(),
                    reason: format!(
                        "\"{}\" is a hard link to \"{}\", which does not stand before it in the layer",
                        shown(path),
                        shown(target)
                    ),
                };
                let source = self.open_folder(&folders.iter().collect::<PathBuf>()).map_err(|error| match error {
                    Errno::NOENT | Errno::NOTDIR | Errno::LOOP => absent(),
                    other => self.context.failed("link", path, other),
                })?;
                match self
                    .place(&parent, name, meta, || fs::linkat(&source, *last, &parent, *name, AtFlags::empty()))?
                {
                    Ok(()) => Ok(()),
                    Err(Errno::NOENT) => Err(absent()),
                    Err(Errno::PERM) => Err(self.context.refuse(path, "a hard link to something that can have none")),
                    Err(error) => Err(self.context.failed("link", path, error)),
                }
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let (kind, device) = match (meta.kind, meta.device) {
                    (EntryType::Char, Some((0, 0))) if self.context.options.whiteouts => {
                        return Err(self.context.refuse(path, "the device 0/0 is overlayfs's mark of a deletion"));
                    }
                    (EntryType::Char, Some((major, minor))) => (FileType::CharacterDevice, fs::makedev(major, minor)),
                    (EntryType::Block, Some((major, minor))) => (FileType::BlockDevice, fs::makedev(major, minor)),
                    _ => (FileType::Fifo, 0),
                };
                if !self.context.options.owners && kind != FileType::Fifo {
                    return Err(self.context.refuse(path, "a build context may not contain devices"));
                }
                self.place(&parent, name, meta, || fs::mknodat(&parent, *name, kind, Mode::RUSR | Mode::WUSR, device))?
                    .map_err(|error| self.context.failed("create the device", path, error))?;
                metadata::apply_at(self.context, &parent, name, path, meta, true)
            }
            other => Err(self
                .context
                .refuse(path, format!("entries of type {:?} are not known", char::from(other.as_byte())))),
        }
    }

    /// Makes something that must not be there yet; where something is, it makes way first.
    ///
    /// Nearly nothing stands twice in a layer, so that it is asked for only when making it fails.
    fn place<T>(
        &mut self,
        parent: &OwnedFd,
        name: &OsStr,
        meta: &Meta,
        make: impl Fn() -> Result<T, Errno>,
    ) -> Result<Result<T, Errno>, ImageError> {
        match make() {
            Err(Errno::EXIST) => {
                self.clear(parent, name, meta)?;
                Ok(make())
            }
            answer => Ok(answer),
        }
    }

    /// Removes what stands where an entry is to be, but for a folder where a folder is to be.
    fn clear(&mut self, parent: &OwnedFd, name: &OsStr, meta: &Meta) -> Result<Cleared, ImageError> {
        let found = match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => found,
            Err(Errno::NOENT) => return Ok(Cleared::Other),
            Err(error) => return Err(self.context.failed("look at", &meta.path, error)),
        };
        let is_folder = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
        if is_folder && meta.kind == EntryType::Directory {
            return Ok(Cleared::Folder);
        }
        self.parent = None;
        remove_tree(parent, name).map_err(|error| self.context.failed("replace", &meta.path, error))?;
        let deleted = whiteout::is_whiteout(&found) && self.context.options.whiteouts;
        Ok(if deleted { Cleared::Whiteout } else { Cleared::Other })
    }

    /// Counts a name that is kept until the end.
    fn hold(&mut self, place: &Path, path: &[u8]) -> Result<(), ImageError> {
        if !self.folders.contains_key(place) {
            // What a map takes beside the name.
            self.names += place.as_os_str().len() + 64;
        }
        if self.names > MOST_NAMES {
            return Err(self
                .context
                .refuse(path, format!("the names of folders so far have more than {MOST_NAMES} bytes")));
        }
        Ok(())
    }

    /// A folder may lie deeper than its name says, behind links that stand for many.
    fn check_depth(&self, folder: &OwnedFd, entry: &[u8]) -> Result<(), ImageError> {
        let deep = match fs::readlink(format!("/proc/self/fd/{}", folder.as_raw_fd()), Vec::new()) {
            Ok(path) => path.as_bytes().iter().filter(|byte| **byte == b'/').count() > DEEPEST,
            Err(Errno::NAMETOOLONG) => true,
            Err(error) => return Err(self.context.failed("look at the folder of", entry, error)),
        };
        if deep { Err(self.context.refuse(entry, format!("it lies deeper than {DEEPEST} folders"))) } else { Ok(()) }
    }

    fn copy<R: Read>(
        &mut self,
        content: &mut tar::Entry<'_, R>,
        file: &mut std::fs::File,
        meta: &Meta,
        unreadable: &dyn Fn(io::Error) -> ImageError,
    ) -> Result<(), ImageError> {
        let (before, most) = (self.bytes, self.context.options.max_bytes);
        let bomb = || ImageError::Bomb { layer: self.context.options.name.to_owned(), limit: most };
        let too_long = std::cell::Cell::new(false);
        // Sparse files are longer than the archive they come from, and no reading of it tells that nobody waits any more.
        let mut look = |length: u64| {
            too_long.set(before.saturating_add(length) > most);
            if too_long.get() { Err(io::Error::other("too long")) } else { self.wanted.check() }
        };
        // As long as it says that it is, also where most of that is zeros.
        let begun = look(content.size()).map_err(Failed::Read);
        match begun.and_then(|()| content::write(content, &meta.sparse, file, &mut look)) {
            Ok(written) => {
                self.bytes += written.length;
                for _ in 1..written.stretches {
                    self.count()?;
                }
            }
            Err(_) if too_long.get() => return Err(bomb()),
            Err(Failed::Read(error)) => return Err(unreadable(error)),
            Err(Failed::Write(error)) => {
                let path = self.context.into.join(OsStr::from_bytes(&meta.path));
                return Err(ImageError::store("write", &path, error));
            }
        }
        Ok(())
    }

    fn open_folder(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        open_inside(&self.root, path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// The folder an entry goes into, made with its own folders where the layer left them out.
    fn folder(&mut self, path: &Path, entry: &[u8]) -> Result<Rc<OwnedFd>, ImageError> {
        if let Some((last, folder)) = &self.parent
            && last == path
        {
            return Ok(folder.clone());
        }
        let folder = match self.open_folder(path) {
            Ok(folder) => folder,
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_folders(path, entry)?,
            Err(error) => return Err(self.context.failed("open the folder of", entry, error)),
        };
        self.check_depth(&folder, entry)?;
        let folder = Rc::new(folder);
        self.parent = Some((path.to_owned(), folder.clone()));
        Ok(folder)
    }

    fn make_folders(&mut self, path: &Path, entry: &[u8]) -> Result<OwnedFd, ImageError> {
        if path.iter().count() > DEEPEST {
            return Err(self.context.refuse(entry, format!("it lies deeper than {DEEPEST} folders")));
        }
        let mut so_far = PathBuf::new();
        let mut folder = self.open_folder(&so_far).map_err(|error| self.context.failed("open", entry, error))?;
        for part in path {
            so_far.push(part);
            let next = match self.open_folder(&so_far) {
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    let mut opaque = false;
                    match fs::statat(&folder, part, AtFlags::SYMLINK_NOFOLLOW) {
                        Ok(found) if whiteout::is_whiteout(&found) && self.context.options.whiteouts => {
                            opaque = true;
                            fs::unlinkat(&folder, part, AtFlags::empty())
                                .map_err(|error| self.context.failed("replace", entry, error))?;
                        }
                        Ok(_) => return Err(self.context.refuse(entry, "a part of it is a file or a link to nothing")),
                        Err(_) => {}
                    }
                    self.count()?;
                    fs::mkdirat(&folder, part, Mode::from_raw_mode(0o755))
                        .map_err(|error| self.context.failed("create the folder of", entry, error))?;
                    let made = self.open_folder(&so_far).map_err(|error| self.context.failed("open", entry, error))?;
                    // mkdir is subject to the process's umask.
                    fs::fchmod(&made, Mode::from_raw_mode(0o755))
                        .map_err(|error| self.context.failed("set the mode of", entry, error))?;
                    if opaque {
                        whiteout::set_opaque(self.context, &made, entry)?;
                    }
                    Ok(made)
                }
                other => other,
            };
            folder = next.map_err(|error| self.context.failed("open the folder of", entry, error))?;
        }
        Ok(folder)
    }

    /// Sets the times of folders; answers how many bytes the files have.
    pub(super) fn finish(mut self) -> Result<u64, ImageError> {
        // The innermost last in the archive: setting a time does not change the folder above.
        for (path, time) in std::mem::take(&mut self.folders) {
            // It may have been replaced since.
            if let Ok(folder) = self.open_folder(&path) {
                fs::futimens(&folder, &metadata::times(time))
                    .map_err(|error| self.context.failed("set the time of", path.as_os_str().as_bytes(), error))?;
            }
        }
        Ok(self.bytes)
    }
}

/// Opens `path` as if `root` were the root of the filesystem: links lead inside it, never out.
fn open_inside(root: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        match fs::openat2(root.as_fd(), path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // A rename or mount elsewhere on the machine raced with the walk; it is asked again. Source: openat2(2).
            Err(Errno::AGAIN | Errno::INTR) => {}
            answer => return answer,
        }
    }
}

/// Removes a file or a whole folder without following links.
fn remove_tree(parent: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    match fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        answer => return answer,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = fs::openat(parent, name, flags, Mode::empty())?;
    for entry in fs::Dir::read_from(&folder)? {
        let entry = entry?;
        let inner = OsString::from_vec(entry.file_name().to_bytes().to_vec());
        if inner != "." && inner != ".." {
            remove_tree(&folder, &inner)?;
        }
    }
    fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}
