//! Trees of files become tar archives, with their extended attributes, and with a file of several names once.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use tar::EntryType;

use crate::xattr;

pub(super) const DEEPEST: usize = 200;

/// Where files with several names were written first, as far as [`MOST_LINKED`] bytes of paths go; of more, each name
/// gets a copy. A container makes paths as long and names as many as it likes.
#[derive(Default)]
pub(crate) struct Linked {
    first: HashMap<(u64, u64), PathBuf>,
    bytes: usize,
}

/// Bytes of paths, and what each costs beside its text.
pub(super) const MOST_LINKED: usize = 16 << 20;

impl Linked {
    /// Under which name the file was written before; otherwise `name` is remembered.
    pub(crate) fn before(&mut self, stat: &fs::Stat, name: &Path) -> Option<&Path> {
        let key = (stat.st_dev, stat.st_ino);
        // Asked twice, as what is given back is borrowed for as long as the answer.
        if !self.first.contains_key(&key) {
            let bytes = name.as_os_str().len() + size_of::<((u64, u64), PathBuf)>();
            if self.bytes + bytes <= MOST_LINKED {
                self.bytes += bytes;
                self.first.insert(key, name.to_owned());
            }
            return None;
        }
        self.first.get(&key).map(PathBuf::as_path)
    }
}

/// Packs trees of a container into one archive.
pub(crate) struct Packer<W: Write> {
    archive: tar::Builder<W>,
    linked: Linked,
}

impl<W: Write> Packer<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { archive: tar::Builder::new(out), linked: Linked::default() }
    }

    pub(crate) fn finish(self) -> io::Result<()> {
        self.archive.into_inner()?.flush()
    }

    /// Adds what stands at `base`, with all below it. What vanishes meanwhile is left out, but for the first.
    pub(crate) fn append(
        &mut self,
        parent: BorrowedFd<'_>,
        base: &OsStr,
        as_name: &Path,
        depth: usize,
    ) -> io::Result<()> {
        if depth > DEEPEST {
            return Err(io::Error::other("the tree is nested too deeply to copy"));
        }
        let stat = match fs::statat(parent, base, AtFlags::SYMLINK_NOFOLLOW) {
            Err(rustix::io::Errno::NOENT) if depth > 0 => return Ok(()),
            other => other?,
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            if stat.st_nlink > 1
                && let Some(first) = self.linked.before(&stat, as_name)
            {
                let mut header = header(&stat, EntryType::Link);
                return add(&mut self.archive, &mut header, as_name, first.as_os_str().as_bytes(), io::empty());
            }
            if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                append_attributes(&mut self.archive, parent, base)?;
            }
            // Sockets and devices are not copied out, as they mean nothing elsewhere.
            return append_one(&mut self.archive, parent, base, as_name, &stat);
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = match fs::openat(parent, base, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) if depth > 0 => return Ok(()),
            other => other?,
        };
        append_attributes(&mut self.archive, parent, base)?;
        let mut header = header(&stat, EntryType::Directory);
        // A slash at the end, as Go's writer has it and some readers look for.
        add(&mut self.archive, &mut header, &as_name.join(""), &[], io::empty())?;
        // What is on another file system than its parent may be the kernel's.
        if fs::fstat(parent)?.st_dev != stat.st_dev && bireme_sys::path::is_kernels(folder.as_fd())? {
            return Ok(());
        }
        for entry in fs::Dir::read_from(&folder)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                self.append(folder.as_fd(), name, &as_name.join(name), depth + 1)?;
            }
        }
        Ok(())
    }
}

/// What an archive says of a file, its size aside.
pub(crate) fn header(stat: &fs::Stat, kind: EntryType) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(u64::from(stat.st_uid));
    header.set_gid(u64::from(stat.st_gid));
    header.set_mtime(stat.st_mtime.max(0) as u64);
    header.set_size(0);
    header
}

/// Adds the extended attributes that go with what stands at `base`, for the entry that follows.
pub(crate) fn append_attributes<W: Write>(
    archive: &mut tar::Builder<W>,
    parent: BorrowedFd<'_>,
    base: &OsStr,
) -> io::Result<()> {
    let attributes = match xattr::at(parent, base) {
        // It vanished: nothing follows.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    if attributes.is_empty() {
        return Ok(());
    }
    let named: Vec<_> =
        attributes.iter().map(|(name, value)| (format!("{}{name}", xattr::PAX_PREFIX), value.as_slice())).collect();
    archive.append_pax_extensions(named.iter().map(|(name, value)| (name.as_str(), *value)))
}

/// Adds an entry whose name and link stand in the archive byte for byte: `./a` is not `a`.
pub(super) fn add<W: Write>(
    archive: &mut tar::Builder<W>,
    header: &mut tar::Header,
    name: &Path,
    link: &[u8],
    content: impl Read,
) -> io::Result<()> {
    let name = name.as_os_str().as_bytes();
    for (kind, text) in [(EntryType::GNULongLink, link), (EntryType::GNULongName, name)] {
        if text.len() > 100 {
            let mut long = tar::Header::new_gnu();
            long.set_entry_type(kind);
            long.set_mode(0o644);
            put(&mut long, b"././@LongLink", &[]);
            long.set_size(text.len() as u64 + 1);
            long.set_cksum();
            archive.append(&long, text.chain(&[0_u8][..]))?;
        }
    }
    put(header, name, link);
    header.set_cksum();
    archive.append(header, content)
}

/// Writes as much of a name and a link as a header has room for.
pub(super) fn put(header: &mut tar::Header, name: &[u8], link: &[u8]) {
    let old = header.as_old_mut();
    for (field, text) in [(&mut old.name, name), (&mut old.linkname, link)] {
        let length = text.len().min(field.len());
        field[..length].copy_from_slice(&text[..length]);
    }
}

/// Adds a file, link or pipe; what is none of these is left out.
pub(crate) fn append_one<W: Write>(
    archive: &mut tar::Builder<W>,
    parent: BorrowedFd<'_>,
    base: &OsStr,
    as_name: &Path,
    stat: &fs::Stat,
) -> io::Result<()> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let Some(file) = open_file(parent, base)? else { return Ok(()) };
            let size = file.metadata()?.len();
            let mut header = header(stat, EntryType::Regular);
            header.set_size(size);
            // A file that shrinks meanwhile is filled up, one that grows is cut: the header's size holds.
            add(archive, &mut header, as_name, &[], file.take(size).chain(io::repeat(0)).take(size))
        }
        FileType::Symlink => {
            let target = match fs::readlinkat(parent, base, Vec::new()) {
                // It vanished, or something else has taken its place since it was looked at.
                Err(rustix::io::Errno::NOENT | rustix::io::Errno::INVAL) => return Ok(()),
                other => other?,
            };
            add(archive, &mut header(stat, EntryType::Symlink), as_name, target.to_bytes(), io::empty())
        }
        FileType::Fifo => add(archive, &mut header(stat, EntryType::Fifo), as_name, &[], io::empty()),
        _ => Ok(()),
    }
}

/// A file to be read; `None` for what is no file any more. Something else may have taken its place since it was looked
/// at: a device must not even be opened.
pub(super) fn open_file(parent: BorrowedFd<'_>, base: &OsStr) -> io::Result<Option<std::fs::File>> {
    let stands = match fs::openat(parent, base, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        other => other?,
    };
    if FileType::from_raw_mode(fs::fstat(&stands)?.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    let path = format!("/proc/self/fd/{}", stands.as_raw_fd());
    let file = fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    Ok(Some(file.into()))
}
