//! Tar archives become files of a tree. Whatever an archive names is resolved inside the root, component by component.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use bireme_image::Wanted;
use bireme_image::content::{self, Sparse};
use bireme_image::tar_bounds::Bounded;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, StatxFlags};
use tar::EntryType;

use super::pack::DEEPEST;
use super::path::{in_root, parent_of};
use crate::xattr;

/// How an archive is unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpack {
    /// A folder is not replaced by what is none, nor the other way round.
    pub keep_kinds: bool,
}

/// Bytes of a file that an archive tells to be mostly zeros.
pub(super) const LONGEST_SPARSE: u64 = 128 << 30;

/// More entries than any copy by hand; keeps a hostile archive from filling the tree with nothing.
pub(super) const MOST_ENTRIES: usize = 1_000_000;

/// `archive` may be compressed, as Docker takes it.
pub(super) fn extract(
    root: &OwnedFd,
    folder: &Path,
    archive: impl Read,
    how: Unpack,
    wanted: &Wanted,
) -> io::Result<()> {
    let mut archive = tar::Archive::new(Bounded::new(bireme_image::open_bounded(archive)?));
    let mut folders = FolderTimes::default();
    let mut made = 0;
    for entry in archive.entries()? {
        count(&mut made)?;
        wanted.check()?;
        let mut entry = entry?;
        let records = records_of(&mut entry)?;
        let name = match records.sparse.name() {
            Some(name) => PathBuf::from(OsStr::from_bytes(name)),
            None => entry.path()?.into_owned(),
        };
        let inside = plain(&name)?;
        if inside.as_os_str().is_empty() {
            continue;
        }
        let (parent, base) = make_parents(root, folder, &inside, &mut made)?;
        place(root, folder, &mut entry, &records, (parent.as_fd(), &base), how, wanted)?;
        if entry.header().entry_type() == EntryType::Directory {
            folders.remember(folder.join(&inside), entry.header().mtime().unwrap_or(0));
        }
    }
    folders.set(root);
    Ok(())
}

/// Counts an entry, or a folder that no entry names.
pub(super) fn count(made: &mut usize) -> io::Result<()> {
    *made += 1;
    if *made > MOST_ENTRIES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it has more than {MOST_ENTRIES} entries")));
    }
    Ok(())
}

/// Times of folders, which what is put into them changes: set at the end.
#[derive(Default)]
pub(super) struct FolderTimes {
    folders: Vec<(PathBuf, u64)>,
    bytes: usize,
}

impl FolderTimes {
    /// Bytes of paths that are remembered. Folders beyond keep the time at which they were filled.
    const MOST: usize = 16 << 20;

    fn remember(&mut self, path: PathBuf, modified: u64) {
        self.bytes += path.as_os_str().len() + size_of::<(PathBuf, u64)>();
        if self.bytes <= Self::MOST {
            self.folders.push((path, modified));
        }
    }

    fn set(self, root: &OwnedFd) {
        for (path, modified) in self.folders {
            // One that a later entry replaced has no time to be set.
            let set = in_root(root, &path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW)
                .and_then(|folder| Ok(fs::futimens(&folder, &times(modified))?));
            if let Err(error) = set {
                tracing::debug!(path = %path.display(), %error, "the time of a folder is not set");
            }
        }
    }
}

/// Seconds since the Unix epoch, for both times of a file.
pub(super) fn times(modified: u64) -> fs::Timestamps {
    let time = rustix::time::Timespec { tv_sec: i64::try_from(modified).unwrap_or(0), tv_nsec: 0 };
    fs::Timestamps { last_access: time, last_modification: time }
}

/// How often a folder is emptied into which a container goes on putting files.
pub(super) const MOST_ROUNDS: usize = 64;

/// Removes what stands at `base`, a folder with all that is in it. What is mounted there, or below, is not touched.
pub(super) fn remove(parent: BorrowedFd<'_>, base: &OsStr, depth: usize) -> io::Result<()> {
    match fs::unlinkat(parent, base, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(rustix::io::Errno::ISDIR) => {}
        Err(error) => return Err(error.into()),
    }
    if depth > DEEPEST {
        return Err(io::Error::other("a folder to be replaced is nested too deeply"));
    }
    let folder = fs::openat(parent, base, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let mount = |of: BorrowedFd<'_>| fs::statx(of, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).map(|s| s.stx_mnt_id);
    if mount(parent)? != mount(folder.as_fd())? {
        return Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            format!("{} is mounted there and is not replaced", base.display()),
        ));
    }
    for _ in 0..MOST_ROUNDS {
        // Removing while reading may skip entries: read anew until there is none. Never all names at once: a container
        // makes as many as it likes.
        let mut any = false;
        for entry in fs::Dir::read_from(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                remove(folder.as_fd(), OsStr::from_bytes(name), depth + 1)?;
                any = true;
            }
        }
        if !any {
            break;
        }
    }
    Ok(fs::unlinkat(parent, base, AtFlags::REMOVEDIR)?)
}

/// What extended headers say of an entry.
pub(super) struct Records {
    /// Extended attributes.
    attributes: Vec<(String, Vec<u8>)>,
    sparse: Sparse,
}

pub(super) fn records_of<R: Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<Records> {
    let (mut attributes, mut sparse) = (Vec::new(), Sparse::default());
    let Some(records) = entry.pax_extensions()? else { return Ok(Records { attributes, sparse }) };
    for record in records {
        let record = record?;
        if let Ok(key) = record.key() {
            sparse.note(key, record.value_bytes())?;
        }
        let name = record.key().ok().and_then(|key| key.strip_prefix(xattr::PAX_PREFIX));
        if let Some(name) = name.filter(|name| xattr::travels(name)) {
            attributes.push((name.to_owned(), record.value_bytes().to_vec()));
        }
    }
    Ok(Records { attributes, sparse })
}

/// The path without its root and `.`; `..` is refused.
pub(super) fn plain(path: &Path) -> io::Result<PathBuf> {
    let mut inside = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => inside.push(part),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            Component::ParentDir => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{} leads out of the folder", path.display()),
                ));
            }
        }
    }
    Ok(inside)
}

pub(super) fn make_parents(
    root: &OwnedFd,
    folder: &Path,
    inside: &Path,
    made: &mut usize,
) -> io::Result<(OwnedFd, OsString)> {
    let base = inside.file_name().unwrap_or_default().to_owned();
    let mut path = folder.to_owned();
    let mut parent = in_root(root, &path, OFlags::PATH | OFlags::DIRECTORY)?;
    for part in inside.parent().unwrap_or(Path::new("")).components() {
        path.push(part);
        parent = match in_root(root, &path, OFlags::PATH | OFlags::DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                count(made)?;
                fs::mkdirat(&parent, part.as_os_str(), Mode::from_raw_mode(0o755))?;
                in_root(root, &path, OFlags::PATH | OFlags::DIRECTORY)?
            }
            other => other?,
        };
    }
    Ok((parent, base))
}

pub(super) fn place<R: Read>(
    root: &OwnedFd,
    folder: &Path,
    entry: &mut tar::Entry<'_, R>,
    records: &Records,
    (parent, base): (BorrowedFd<'_>, &OsStr),
    how: Unpack,
    wanted: &Wanted,
) -> io::Result<()> {
    let header = entry.header();
    let folder_of_old = bireme_image::header_is_oldest(header) && entry.path_bytes().ends_with(b"/");
    let kind = if folder_of_old { EntryType::Directory } else { header.entry_type() };
    let bad = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    // What a writer left out is 0, as for Go's reader.
    let number = |field: &[u8], read: io::Result<u64>| match read {
        Err(error) if !bireme_image::blank(field) => Err(bad(error.to_string())),
        read => Ok(read.unwrap_or(0)),
    };
    let old = header.as_old();
    let mode = number(&old.mode, header.mode().map(u64::from))?;
    let mode = Mode::from_raw_mode(u32::try_from(mode & 0o7777).unwrap_or(0));
    let owner = |value: u64| u32::try_from(value).map_err(|_| bad("an owner out of range".to_owned()));
    let (user, group) = (owner(number(&old.uid, header.uid())?)?, owner(number(&old.gid, header.gid())?)?);
    let modified = number(&old.mtime, header.mtime())?;
    let (user, group) = (Some(fs::Uid::from_raw(user)), Some(fs::Gid::from_raw(group)));
    let stands = fs::statat(parent, base, AtFlags::SYMLINK_NOFOLLOW).ok();
    let folder_stands = stands.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
    let folder_comes = kind == EntryType::Directory;
    if how.keep_kinds && stands.is_some() && folder_stands != folder_comes && kind != EntryType::XGlobalHeader {
        let (old, new) = if folder_stands { ("directory", "non-directory") } else { ("non-directory", "directory") };
        return Err(bad(format!("cannot overwrite {old} {:?} with {new}", base.display())));
    }
    let clear = || remove(parent, base, 0);
    let give =
        |file: BorrowedFd<'_>| records.attributes.iter().try_for_each(|(name, value)| xattr::give(file, name, value));
    match kind {
        EntryType::Directory => {
            if !folder_stands {
                clear()?;
                fs::mkdirat(parent, base, Mode::RWXU)?;
            }
            let made = fs::openat(parent, base, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            fs::fchown(&made, user, group)?;
            fs::fchmod(&made, mode)?;
            give(made.as_fd())
        }
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            clear()?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = std::fs::File::from(fs::openat(parent, base, flags, Mode::RUSR | Mode::WUSR)?);
            let is_sparse = kind == EntryType::GNUSparse || records.sparse.is_sparse();
            // Zeros that the archive only tells of are no reading from which to notice that nobody waits any more.
            let mut look = |length: u64| {
                if is_sparse && length > LONGEST_SPARSE {
                    return Err(bad(format!("a sparse file is longer than {LONGEST_SPARSE} bytes")));
                }
                wanted.check()
            };
            look(entry.size())?;
            content::write(entry, &records.sparse, &mut file, &mut look)?;
            fs::fchown(&file, user, group)?;
            fs::fchmod(&file, mode)?;
            // After the owner, whose change takes a file's capabilities away.
            give(file.as_fd())?;
            Ok(fs::futimens(&file, &times(modified))?)
        }
        EntryType::Symlink => {
            let target = entry
                .link_name()?
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a link without a target"))?;
            clear()?;
            fs::symlinkat(target.as_ref(), parent, base)?;
            Ok(fs::chownat(parent, base, user, group, AtFlags::SYMLINK_NOFOLLOW)?)
        }
        EntryType::Link => {
            let target = entry
                .link_name()?
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a link without a target"))?;
            let target = folder.join(plain(&target)?);
            let (dir, name) = parent_of(root, &target.to_string_lossy())?;
            let file = fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            if stands.is_some_and(|stat| (stat.st_dev, stat.st_ino) == (file.st_dev, file.st_ino)) {
                return Ok(());
            }
            clear()?;
            Ok(fs::linkat(&dir, &name, parent, base, AtFlags::empty())?)
        }
        EntryType::Fifo => {
            clear()?;
            fs::mknodat(parent, base, FileType::Fifo, mode, 0)?;
            fs::chownat(parent, base, user, group, AtFlags::SYMLINK_NOFOLLOW)?;
            // The umask took from it. By its descriptor: a container may put a link in its place meanwhile.
            let made = fs::openat(parent, base, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            match FileType::from_raw_mode(fs::fstat(&made)?.st_mode) {
                FileType::Fifo => Ok(fs::chmod(format!("/proc/self/fd/{}", made.as_raw_fd()), mode)?),
                _ => Ok(()),
            }
        }
        EntryType::XGlobalHeader => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} is a device or of an unknown type", base.to_string_lossy()),
        )),
    }
}
