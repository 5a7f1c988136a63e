//! Unpacking of layers, which never leaves the folder it was given.
//!
//! A layer is written by strangers. Every path in it is taken apart, and its folder is opened with openat2(2) and
//! `RESOLVE_IN_ROOT`, so that links planted by earlier entries lead nowhere but into the folder itself; the last part of
//! a path is only ever used with calls that do not follow links. Nothing is ever opened by its full path.
//!
//! Deletions are turned from the tar form (`.wh.NAME`, `.wh..wh..opq`) into overlayfs's (a character device 0/0, the
//! extended attribute `trusted.overlay.opaque`). Attributes of overlayfs in the tar itself are dropped: they could make
//! one layer redirect another.
//!
//! Source: OCI image specification, `layer.md`; Documentation/filesystems/overlayfs.rst; openat2(2).

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use tar::EntryType;

use crate::content::{self, Failed, Sparse};
use crate::digest::Digest;
use crate::error::{ImageError, StoreContext as _};
use crate::model::LayerForm;
use crate::settings::Limits;
use crate::tar_bounds::Bounded;
use crate::wanted::Wanted;

const OPAQUE: &str = "trusted.overlay.opaque";

/// Bytes of the names that are held while an archive is unpacked, those of folders above all.
const MOST_NAMES: usize = 64 << 20;

/// Folders within folders. Whatever walks the tree afterwards, to copy or to remove it, holds something for each.
const DEEPEST: usize = 512;

/// KiB that unpacking xz may take: what the largest setting of its command line needs, and no more.
const XZ_MEMORY: u32 = 80 << 10;

/// How an archive is unpacked.
pub(crate) struct Options<'a> {
    /// What errors call it.
    pub(crate) name: &'a str,
    /// Turn deletions into overlayfs's form; otherwise their names are ordinary.
    pub(crate) whiteouts: bool,
    /// Give files the owners in the archive; otherwise the caller's.
    pub(crate) owners: bool,
    /// Bytes, of the archive and of the files in it.
    pub(crate) max_bytes: u64,
    pub(crate) max_entries: u64,
}

/// What was unpacked.
#[derive(Debug)]
pub(crate) struct Unpacked {
    /// Of the whole uncompressed stream.
    pub(crate) diff_id: Digest,
    /// Bytes in files.
    pub(crate) bytes: u64,
}

/// Unwraps the compression of a layer.
pub(crate) fn open_form<'a>(form: LayerForm, packed: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match form {
        LayerForm::Tar | LayerForm::Wasm => Box::new(packed),
        LayerForm::Gzip => {
            Box::new(flate2::bufread::MultiGzDecoder::new(io::BufReader::with_capacity(1 << 16, packed)))
        }
        LayerForm::Zstd => {
            let mut decoder = zstd::Decoder::new(packed)?;
            // 128 MiB, the most the zstd command line accepts unasked: a frame may not order more memory than that.
            decoder.window_log_max(27)?;
            Box::new(decoder)
        }
    })
}

/// Tells the compression of a layer by its first bytes.
pub(crate) fn sniff(start: &[u8]) -> LayerForm {
    match start {
        [0x1f, 0x8b, ..] => LayerForm::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => LayerForm::Zstd,
        // A frame to be skipped, which any may begin with. Source: RFC 8878, section 3.1.2.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => LayerForm::Zstd,
        _ => LayerForm::Tar,
    }
}

/// Unwraps whatever compression `packed` has: none, gzip, bzip2, xz or zstd, told apart by the first bytes.
///
/// # Errors
/// Those of reading the first bytes.
pub(crate) fn open_any<'a>(mut packed: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut start = Vec::with_capacity(6);
    packed.by_ref().take(6).read_to_end(&mut start)?;
    let (bzip2, xz) = (is_bzip2(&start), is_xz(&start));
    let form = sniff(&start);
    let whole = io::Cursor::new(start).chain(packed);
    if bzip2 {
        return Ok(Box::new(bzip2::read::MultiBzDecoder::new(whole)));
    }
    if xz {
        let whole = io::BufReader::with_capacity(1 << 16, whole);
        return Ok(Box::new(lzma_rust2::XzReader::new_mem_limit(whole, true, XZ_MEMORY)));
    }
    open_form(form, whole)
}

/// Whether an unpacked archive that begins with these bytes is a tar, by the checksum of its first header.
pub(crate) fn is_tar(start: &[u8; 512]) -> bool {
    let header = tar::Header::from_byte_slice(start);
    let value = |(at, byte): (usize, &u8)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) };
    let sum: u32 = start.iter().enumerate().map(value).sum();
    header.cksum().is_ok_and(|promised| promised == sum) && sum != 8 * 32
}

/// Whether it begins as something that [`open_any`] unwraps.
pub(crate) fn is_packed(start: &[u8]) -> bool {
    is_bzip2(start) || is_xz(start) || sniff(start) != LayerForm::Tar
}

/// Source: bzip2's file format: magic, size of blocks, and the mark of a block or of the end.
fn is_bzip2(start: &[u8]) -> bool {
    matches!(start, [b'B', b'Z', b'h', b'1'..=b'9', 0x31 | 0x17, ..])
}

fn is_xz(start: &[u8]) -> bool {
    start.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0])
}

/// As [`open_any`], and breaks off what unpacks to far more than was read of it.
pub(crate) fn open_sent<'a>(packed: impl Read + 'a, limits: &Limits) -> io::Result<Box<dyn Read + 'a>> {
    let read = Rc::new(Cell::new(0));
    let unpacked = open_any(Counted { inner: packed, count: read.clone() })?;
    Ok(Box::new(Expanding { inner: unpacked, read, written: 0, limits: limits.clone() }))
}

/// Unwraps whatever compression what a client sends has, and breaks it off where it unpacks to far more than was read.
///
/// # Errors
/// Those of reading the first bytes.
pub fn open_bounded<'a>(packed: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    open_sent(packed, &Limits::default())
}

struct Counted<R> {
    inner: R,
    count: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.count.set(self.count.get() + got as u64);
        Ok(got)
    }
}

struct Expanding<R> {
    inner: R,
    /// Bytes so far, packed and not.
    read: Rc<Cell<u64>>,
    written: u64,
    limits: Limits,
}

impl<R: Read> Read for Expanding<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.written += got as u64;
        let most = self.limits.sent(self.read.get());
        if self.written > most {
            let read = self.read.get();
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{read} bytes of it unpack to more than {most}, refused as a decompression bomb"),
            ));
        }
        Ok(got)
    }
}

/// Counts and hashes a stream, and breaks it off beyond a limit.
struct Metered<R> {
    inner: R,
    hash: Sha256,
    count: Rc<Cell<u64>>,
    limit: u64,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.hash.update(&buffer[..got]);
        self.count.set(self.count.get() + got as u64);
        if self.count.get() > self.limit {
            return Err(io::Error::other("larger than allowed"));
        }
        Ok(got)
    }
}

/// Unpacks the tar stream `archive` into the existing, empty folder `into`, for as long as it is `wanted`.
///
/// On error the folder holds whatever was unpacked so far; the caller deletes it.
pub(crate) fn unpack(
    archive: impl Read,
    wanted: &Wanted,
    into: &Path,
    options: &Options<'_>,
) -> Result<Unpacked, ImageError> {
    let count = Rc::new(Cell::new(0));
    let mut metered =
        Metered { inner: wanted.lend(archive), hash: Sha256::new(), count: count.clone(), limit: options.max_bytes };
    let unreadable = |error: io::Error| {
        if count.get() > options.max_bytes {
            return ImageError::Bomb { layer: options.name.to_owned(), limit: options.max_bytes };
        }
        let reason = if is_cut_off(&error) { "it is cut off".to_owned() } else { crate::error::chain(&error) };
        ImageError::BadLayer { layer: options.name.to_owned(), reason }
    };
    let root = fs::open(into, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .during("open the folder", into)?;
    let mut unpacker = Unpacker {
        options,
        wanted,
        into,
        root,
        parent: None,
        fresh: HashSet::new(),
        folders: BTreeMap::new(),
        names: 0,
        entries: 0,
        bytes: 0,
    };
    {
        let mut tar = tar::Archive::new(Bounded::new(&mut metered));
        for entry in tar.entries().map_err(unreadable)? {
            let mut entry = entry.map_err(unreadable)?;
            unpacker.count()?;
            let meta = Meta::read(&mut entry).map_err(unreadable)?;
            unpacker.entry(&mut entry, &meta, &unreadable)?;
        }
    }
    unpacker.finish()?;
    let bytes = unpacker.bytes;
    // What follows the end mark belongs to the digest as well.
    io::copy(&mut metered, &mut io::sink()).map_err(unreadable)?;
    Ok(Unpacked { diff_id: Digest::from_hash(metered.hash), bytes })
}

/// The digest of all that `unpacked` gives, which is `most` bytes at most. `layer` names it in errors.
///
/// # Errors
/// `Bomb`; `BadLayer` where it cannot be read.
pub(crate) fn digest_unpacked(unpacked: impl Read, layer: &str, most: u64) -> Result<Digest, ImageError> {
    let count = Rc::new(Cell::new(0));
    let mut metered = Metered { inner: unpacked, hash: Sha256::new(), count: count.clone(), limit: most };
    match io::copy(&mut metered, &mut io::sink()) {
        Ok(_) => Ok(Digest::from_hash(metered.hash)),
        Err(_) if count.get() > most => Err(ImageError::Bomb { layer: layer.to_owned(), limit: most }),
        Err(error) => Err(ImageError::BadLayer { layer: layer.to_owned(), reason: crate::error::chain(&error) }),
    }
}

/// What an entry says of itself, beside its content.
struct Meta {
    path: Vec<u8>,
    link: Option<Vec<u8>>,
    kind: EntryType,
    mode: u32,
    uid: u64,
    gid: u64,
    time: Timespec,
    device: Option<(u32, u32)>,
    attributes: Vec<(String, Vec<u8>)>,
    sparse: Sparse,
}

impl Meta {
    fn read<R: Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<Self> {
        let header = entry.header();
        let seconds = if blank(&header.as_old().mtime) { 0 } else { header.mtime()? };
        let mut meta = Self {
            path: entry.path_bytes().into_owned(),
            link: entry.link_name_bytes().map(std::borrow::Cow::into_owned),
            kind: header.entry_type(),
            mode: if blank(&header.as_old().mode) { 0o644 } else { header.mode()? & 0o7777 },
            uid: if blank(&header.as_old().uid) { 0 } else { header.uid()? },
            gid: if blank(&header.as_old().gid) { 0 } else { header.gid()? },
            time: Timespec { tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX), tv_nsec: 0 },
            device: None,
            attributes: Vec::new(),
            sparse: Sparse::default(),
        };
        if matches!(meta.kind, EntryType::Char | EntryType::Block) {
            meta.device = Some((header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0)));
        }
        if let Some(extensions) = entry.pax_extensions()? {
            for extension in extensions {
                let extension = extension?;
                let Ok(key) = extension.key() else { continue };
                meta.sparse.note(key, extension.value_bytes())?;
                let text = extension.value();
                match (key, text) {
                    ("mtime", Ok(text)) => meta.time = pax_time(text).unwrap_or(meta.time),
                    ("uid", Ok(text)) => meta.uid = text.parse().unwrap_or(meta.uid),
                    ("gid", Ok(text)) => meta.gid = text.parse().unwrap_or(meta.gid),
                    _ => {
                        if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                            meta.attributes.push((name.to_owned(), extension.value_bytes().to_vec()));
                        }
                    }
                }
            }
        }
        // As in archives of the seventh edition, and for Go's reader.
        if header_is_oldest(entry.header()) && meta.path.ends_with(b"/") {
            meta.kind = EntryType::Directory;
        }
        if let Some(name) = meta.sparse.name() {
            meta.path = name.to_vec();
        }
        Ok(meta)
    }
}

/// Whether an archive ended before its end; the tar reader has no error kind for an end inside a header.
pub(crate) fn is_cut_off(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof || error.to_string().contains("failed to read entire block")
}

/// Whether an entry has no type: what ends in a slash is a folder then.
pub fn header_is_oldest(header: &tar::Header) -> bool {
    header.as_old().linkflag == [0]
}

/// Whether a number of a header was left out, as some writers do for links.
pub fn blank(field: &[u8]) -> bool {
    field.iter().all(|byte| matches!(byte, 0 | b' '))
}

/// Reads `seconds[.fraction]`, also negative.
fn pax_time(text: &str) -> Option<Timespec> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let mut nanos: i64 = digits.parse().ok()?;
    if text.starts_with('-') && nanos > 0 {
        seconds -= 1;
        nanos = 1_000_000_000 - nanos;
    }
    Some(Timespec { tv_sec: seconds, tv_nsec: nanos })
}

/// The parts of a path; leading slashes and `.` are nothing, and `..` takes back the part before it, as Docker has it.
///
/// An absolute name is relative to the root of the image. One that leads out of it is refused.
pub(crate) fn parts(path: &[u8]) -> Result<Vec<&OsStr>, &'static str> {
    let absolute = path.first() == Some(&b'/');
    let mut parts = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if parts.pop().is_some() || absolute => {}
            b".." => return Err("it leads out by \"..\""),
            _ if part.contains(&0) => return Err("it contains a zero byte"),
            _ if part.len() > 255 => return Err("a part of it is longer than 255 bytes"),
            _ => parts.push(OsStr::from_bytes(part)),
        }
    }
    Ok(parts)
}

struct Unpacker<'a> {
    options: &'a Options<'a>,
    wanted: &'a Wanted,
    /// For errors only; never opened.
    into: &'a Path,
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
    bytes: u64,
}

impl Unpacker<'_> {
    /// Counts something that is made.
    fn count(&mut self) -> Result<(), ImageError> {
        self.entries += 1;
        let limit = self.options.max_entries;
        if self.entries > limit {
            return Err(ImageError::TooManyEntries { layer: self.options.name.to_owned(), limit });
        }
        Ok(())
    }

    fn refuse(&self, path: &[u8], reason: impl Into<String>) -> ImageError {
        ImageError::UnsafePath {
            layer: self.options.name.to_owned(),
            path: String::from_utf8_lossy(path).into_owned(),
            reason: reason.into(),
        }
    }

    /// A failed call on a path of the layer: the layer's fault where the name or type is, else the disk's.
    fn failed(&self, attempt: &'static str, path: &[u8], error: Errno) -> ImageError {
        match error {
            Errno::NAMETOOLONG | Errno::LOOP | Errno::INVAL | Errno::NOTDIR | Errno::XDEV | Errno::ISDIR => {
                self.refuse(path, format!("cannot {attempt} it: {}", io::Error::from(error)))
            }
            Errno::MLINK => self.refuse(path, "too many links to one file"),
            _ => ImageError::store(attempt, &self.into.join(OsStr::from_bytes(path)), error.into()),
        }
    }

    fn entry<R: Read>(
        &mut self,
        content: &mut tar::Entry<'_, R>,
        meta: &Meta,
        unreadable: &dyn Fn(io::Error) -> ImageError,
    ) -> Result<(), ImageError> {
        if matches!(meta.kind, EntryType::XGlobalHeader | EntryType::XHeader) {
            return Ok(());
        }
        let path = meta.path.as_slice();
        let parts = parts(path).map_err(|reason| self.refuse(path, reason))?;
        if meta.uid >= u64::from(u32::MAX) || meta.gid >= u64::from(u32::MAX) {
            return Err(self.refuse(path, "its owner is not a user or group ID of Linux"));
        }
        let Some((name, folders)) = parts.split_last() else {
            if meta.kind == EntryType::Directory {
                self.folders.insert(PathBuf::new(), meta.time);
                let root = self.root.try_clone().during("open the folder", self.into)?;
                return self.apply_metadata(&root, path, meta);
            }
            return Err(self.refuse(path, "it names the root itself"));
        };
        let parent_path: PathBuf = folders.iter().collect();
        let parent = self.folder(&parent_path, path)?;
        if self.options.whiteouts && name.as_bytes().starts_with(b".wh.") {
            return self.whiteout(&parent, &parent_path, name, path);
        }

        let here = parent_path.join(name);
        let mut opaque = false;
        match fs::statat(&parent, *name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => {
                let is_folder = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
                if !(is_folder && meta.kind == EntryType::Directory) {
                    self.parent = None;
                    // A deletion of the lower folder in this very layer: what takes its place must hide it.
                    opaque = meta.kind == EntryType::Directory && is_whiteout(&found) && self.options.whiteouts;
                    remove_tree(&parent, name).map_err(|error| self.failed("replace", path, error))?;
                }
            }
            Err(Errno::NOENT) => {}
            Err(error) => return Err(self.failed("look at", path, error)),
        }

        match meta.kind {
            EntryType::Directory => {
                match fs::mkdirat(&parent, *name, Mode::RWXU) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(self.failed("create the folder", path, error)),
                }
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let folder = fs::openat(&parent, *name, flags, Mode::empty())
                    .map_err(|error| self.failed("open the folder", path, error))?;
                if opaque || self.fresh.remove(&here) {
                    self.set_opaque(&folder, path)?;
                }
                self.apply_metadata(&folder, path, meta)?;
                self.hold(&here, path)?;
                self.folders.insert(here, meta.time);
                Ok(())
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = fs::openat(&parent, *name, flags, Mode::RUSR | Mode::WUSR)
                    .map_err(|error| self.failed("create the file", path, error))?;
                let mut file = std::fs::File::from(file);
                self.copy(content, &mut file, meta, unreadable)?;
                self.apply_metadata(&file, path, meta)?;
                fs::futimens(&file, &times(meta.time)).map_err(|error| self.failed("set the time of", path, error))
            }
            EntryType::Symlink => {
                let target = meta.link.as_deref().filter(|target| !target.is_empty() && !target.contains(&0));
                let target = target.ok_or_else(|| self.refuse(path, "a symbolic link without a target"))?;
                fs::symlinkat(OsStr::from_bytes(target), &parent, *name)
                    .map_err(|error| self.failed("create the link", path, error))?;
                self.dress_at(&parent, name, path, meta, false)
            }
            EntryType::Link => {
                let target = meta.link.as_deref().unwrap_or_default();
                let parts = crate::unpack::parts(target).map_err(|reason| {
                    self.refuse(path, format!("it is a hard link to \"{}\": {reason}", String::from_utf8_lossy(target)))
                })?;
                let Some((last, folders)) = parts.split_last() else {
                    return Err(self.refuse(path, "it is a hard link to the root"));
                };
                let absent = || ImageError::BadLayer {
                    layer: self.options.name.to_owned(),
                    reason: format!(
                        "\"{}\" is a hard link to \"{}\", which does not stand before it in the layer",
                        String::from_utf8_lossy(path),
                        String::from_utf8_lossy(target)
                    ),
                };
                let source = self.open_folder(&folders.iter().collect::<PathBuf>()).map_err(|error| match error {
                    Errno::NOENT | Errno::NOTDIR | Errno::LOOP => absent(),
                    other => self.failed("link", path, other),
                })?;
                match fs::linkat(&source, *last, &parent, *name, AtFlags::empty()) {
                    Ok(()) => Ok(()),
                    Err(Errno::NOENT) => Err(absent()),
                    Err(Errno::PERM) => Err(self.refuse(path, "a hard link to something that can have none")),
                    Err(error) => Err(self.failed("link", path, error)),
                }
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let (kind, device) = match (meta.kind, meta.device) {
                    (EntryType::Char, Some((0, 0))) if self.options.whiteouts => {
                        return Err(self.refuse(path, "the device 0/0 is overlayfs's mark of a deletion"));
                    }
                    (EntryType::Char, Some((major, minor))) => (FileType::CharacterDevice, fs::makedev(major, minor)),
                    (EntryType::Block, Some((major, minor))) => (FileType::BlockDevice, fs::makedev(major, minor)),
                    _ => (FileType::Fifo, 0),
                };
                if !self.options.owners && kind != FileType::Fifo {
                    return Err(self.refuse(path, "a build context may not contain devices"));
                }
                fs::mknodat(&parent, *name, kind, Mode::RUSR | Mode::WUSR, device)
                    .map_err(|error| self.failed("create the device", path, error))?;
                self.dress_at(&parent, name, path, meta, true)
            }
            other => Err(self.refuse(path, format!("entries of type {:?} are not known", char::from(other.as_byte())))),
        }
    }

    fn whiteout(&mut self, parent: &OwnedFd, parent_path: &Path, name: &OsStr, path: &[u8]) -> Result<(), ImageError> {
        if name == ".wh..wh..opq" {
            return self.set_opaque(parent, path);
        }
        let target = &name.as_bytes()[".wh.".len()..];
        // `.wh..wh.plnk` and the like are notes of AUFS to itself.
        if target.starts_with(b".wh.") {
            return Ok(());
        }
        if matches!(target, b"" | b"." | b"..") {
            return Err(self.refuse(path, "it deletes nothing that can be named"));
        }
        let target = OsStr::from_bytes(target);
        match fs::statat(parent, target, AtFlags::SYMLINK_NOFOLLOW) {
            // Deletions concern lower layers only: what this layer has put there stays, and hides what was below.
            Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let folder = fs::openat(parent, target, flags, Mode::empty())
                    .map_err(|error| self.failed("open the folder", path, error))?;
                self.set_opaque(&folder, path)
            }
            Ok(_) => Ok(()),
            Err(Errno::NOENT) => {
                fs::mknodat(parent, target, FileType::CharacterDevice, Mode::empty(), fs::makedev(0, 0))
                    .map_err(|error| self.failed("mark the deletion of", path, error))?;
                let place = parent_path.join(target);
                self.hold(&place, path)?;
                self.fresh.insert(place);
                Ok(())
            }
            Err(error) => Err(self.failed("look at", path, error)),
        }
    }

    /// Counts a name that is kept until the end.
    fn hold(&mut self, place: &Path, path: &[u8]) -> Result<(), ImageError> {
        if !self.folders.contains_key(place) {
            // What a map takes beside the name.
            self.names += place.as_os_str().len() + 64;
        }
        if self.names > MOST_NAMES {
            return Err(self.refuse(path, format!("the names of folders so far have more than {MOST_NAMES} bytes")));
        }
        Ok(())
    }

    /// A folder may lie deeper than its name says, behind links that stand for many.
    fn check_depth(&self, folder: &OwnedFd, entry: &[u8]) -> Result<(), ImageError> {
        let deep = match fs::readlink(format!("/proc/self/fd/{}", folder.as_raw_fd()), Vec::new()) {
            Ok(path) => path.as_bytes().iter().filter(|byte| **byte == b'/').count() > DEEPEST,
            Err(Errno::NAMETOOLONG) => true,
            Err(error) => return Err(self.failed("look at the folder of", entry, error)),
        };
        if deep { Err(self.refuse(entry, format!("it lies deeper than {DEEPEST} folders"))) } else { Ok(()) }
    }

    fn set_opaque(&self, folder: impl AsFd, path: &[u8]) -> Result<(), ImageError> {
        fs::fsetxattr(folder, OPAQUE, b"y", XattrFlags::empty())
            .map_err(|error| self.failed("hide what is below", path, error))
    }

    fn copy<R: Read>(
        &mut self,
        content: &mut tar::Entry<'_, R>,
        file: &mut std::fs::File,
        meta: &Meta,
        unreadable: &dyn Fn(io::Error) -> ImageError,
    ) -> Result<(), ImageError> {
        let (before, most) = (self.bytes, self.options.max_bytes);
        let bomb = || ImageError::Bomb { layer: self.options.name.to_owned(), limit: most };
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
                let path = self.into.join(OsStr::from_bytes(&meta.path));
                return Err(ImageError::store("write", &path, error));
            }
        }
        Ok(())
    }

    /// Owner, then mode (a change of owner clears the setuid bit), then attributes (it clears capabilities too).
    fn apply_metadata(&self, file: impl AsFd, path: &[u8], meta: &Meta) -> Result<(), ImageError> {
        if self.options.owners {
            fs::fchown(&file, Some(uid(meta)), Some(gid(meta)))
                .map_err(|error| self.failed("set the owner of", path, error))?;
        }
        fs::fchmod(&file, Mode::from_raw_mode(meta.mode))
            .map_err(|error| self.failed("set the mode of", path, error))?;
        for (name, value) in self.attributes(meta) {
            self.tolerate(fs::fsetxattr(&file, name, value, XattrFlags::empty()), path)?;
        }
        Ok(())
    }

    /// The same for what cannot be opened.
    fn dress_at(&self, parent: &OwnedFd, name: &OsStr, path: &[u8], meta: &Meta, mode: bool) -> Result<(), ImageError> {
        if self.options.owners {
            fs::chownat(parent, name, Some(uid(meta)), Some(gid(meta)), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| self.failed("set the owner of", path, error))?;
        }
        if mode {
            // Made a moment ago by ourselves in a folder nobody else writes to: it is no link.
            fs::chmodat(parent, name, Mode::from_raw_mode(meta.mode), AtFlags::empty())
                .map_err(|error| self.failed("set the mode of", path, error))?;
        }
        for (attribute, value) in self.attributes(meta) {
            let mut place = OsString::from(format!("/proc/self/fd/{}/", parent.as_raw_fd()));
            place.push(name);
            self.tolerate(fs::lsetxattr(&place, attribute, value, XattrFlags::empty()), path)?;
        }
        fs::utimensat(parent, name, &times(meta.time), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| self.failed("set the time of", path, error))
    }

    /// The extended attributes that images may set, as in Docker: file capabilities and the user's own.
    fn attributes<'m>(&self, meta: &'m Meta) -> impl Iterator<Item = (&'m str, &'m [u8])> {
        let owners = self.options.owners;
        meta.attributes.iter().filter_map(move |(name, value)| {
            let taken = (name == "security.capability" && owners)
                || (name.starts_with("user.") && !name.starts_with("user.overlay."));
            taken.then_some((name.as_str(), value.as_slice()))
        })
    }

    /// Filesystems without extended attributes, and kinds of files that cannot have them, are no reason to fail.
    fn tolerate(&self, set: Result<(), Errno>, path: &[u8]) -> Result<(), ImageError> {
        match set {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => Ok(()),
            Err(error) => Err(self.failed("set an attribute of", path, error)),
        }
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
            Err(error) => return Err(self.failed("open the folder of", entry, error)),
        };
        self.check_depth(&folder, entry)?;
        let folder = Rc::new(folder);
        self.parent = Some((path.to_owned(), folder.clone()));
        Ok(folder)
    }

    fn make_folders(&mut self, path: &Path, entry: &[u8]) -> Result<OwnedFd, ImageError> {
        if path.iter().count() > DEEPEST {
            return Err(self.refuse(entry, format!("it lies deeper than {DEEPEST} folders")));
        }
        let mut so_far = PathBuf::new();
        let mut folder = self.open_folder(&so_far).map_err(|error| self.failed("open", entry, error))?;
        for part in path {
            so_far.push(part);
            let next = match self.open_folder(&so_far) {
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    let mut opaque = false;
                    match fs::statat(&folder, part, AtFlags::SYMLINK_NOFOLLOW) {
                        Ok(found) if is_whiteout(&found) && self.options.whiteouts => {
                            opaque = true;
                            fs::unlinkat(&folder, part, AtFlags::empty())
                                .map_err(|error| self.failed("replace", entry, error))?;
                        }
                        Ok(_) => return Err(self.refuse(entry, "a part of it is a file or a link to nothing")),
                        Err(_) => {}
                    }
                    self.count()?;
                    fs::mkdirat(&folder, part, Mode::from_raw_mode(0o755))
                        .map_err(|error| self.failed("create the folder of", entry, error))?;
                    let made = self.open_folder(&so_far).map_err(|error| self.failed("open", entry, error))?;
                    // mkdir is subject to the process's umask.
                    fs::fchmod(&made, Mode::from_raw_mode(0o755))
                        .map_err(|error| self.failed("set the mode of", entry, error))?;
                    if opaque {
                        self.set_opaque(&made, entry)?;
                    }
                    Ok(made)
                }
                other => other,
            };
            folder = next.map_err(|error| self.failed("open the folder of", entry, error))?;
        }
        Ok(folder)
    }

    fn finish(&mut self) -> Result<(), ImageError> {
        // The innermost last in the archive: setting a time does not change the folder above.
        for (path, time) in std::mem::take(&mut self.folders) {
            // It may have been replaced since.
            if let Ok(folder) = self.open_folder(&path) {
                fs::futimens(&folder, &times(time))
                    .map_err(|error| self.failed("set the time of", path.as_os_str().as_bytes(), error))?;
            }
        }
        Ok(())
    }
}

/// Opens `path` as if `root` were the root of the filesystem: links lead inside it, never out.
pub(crate) fn open_inside(root: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        match fs::openat2(root.as_fd(), path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // A rename or mount elsewhere on the machine raced with the walk; it is asked again. Source: openat2(2).
            Err(Errno::AGAIN | Errno::INTR) => {}
            answer => return answer,
        }
    }
}

pub(crate) fn is_whiteout(found: &fs::Stat) -> bool {
    FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice && found.st_rdev == 0
}

fn uid(meta: &Meta) -> Uid {
    Uid::from_raw(u32::try_from(meta.uid).unwrap_or_default())
}

fn gid(meta: &Meta) -> Gid {
    Gid::from_raw(u32::try_from(meta.gid).unwrap_or_default())
}

fn times(time: Timespec) -> Timestamps {
    Timestamps { last_access: time, last_modification: time }
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

    use proptest::prelude::*;

    use super::*;

    /// One entry of a hostile archive: written byte for byte, without the checks of the tar writer.
    #[derive(Clone, Debug)]
    struct Raw {
        kind: u8,
        path: Vec<u8>,
        link: Vec<u8>,
        content: Vec<u8>,
        mode: u32,
    }

    fn raw(kind: u8, path: &str, link: &str, content: &str) -> Raw {
        let mode = if kind == b'5' { 0o755 } else { 0o644 };
        Raw { kind, path: path.into(), link: link.into(), content: content.into(), mode }
    }

    fn archive(entries: &[Raw]) -> Vec<u8> {
        let mut out = Vec::new();
        for entry in entries {
            for (kind, long) in [(b'L', &entry.path), (b'K', &entry.link)] {
                if long.len() > 100 {
                    block(&mut out, kind, b"././@LongLink", b"", &[long.as_slice(), b"\0"].concat(), 0);
                }
            }
            let cut = |bytes: &[u8]| bytes[..bytes.len().min(100)].to_vec();
            block(&mut out, entry.kind, &cut(&entry.path), &cut(&entry.link), &entry.content, entry.mode);
        }
        out.extend_from_slice(&[0; 1024]);
        out
    }

    fn block(out: &mut Vec<u8>, kind: u8, path: &[u8], link: &[u8], content: &[u8], mode: u32) {
        let mut header = tar::Header::new_gnu();
        let old = header.as_old_mut();
        old.name[..path.len()].copy_from_slice(path);
        old.linkname[..link.len()].copy_from_slice(link);
        header.as_old_mut().linkflag = [kind];
        header.set_mode(mode);
        header.set_uid(1000);
        header.set_gid(1001);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        if matches!(kind, b'3' | b'4') {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(512), 0);
    }

    const LAYER: Options<'static> =
        Options { name: "test", whiteouts: true, owners: true, max_bytes: 1 << 20, max_entries: 1000 };

    fn run(entries: &[Raw]) -> (tempfile::TempDir, Result<Unpacked, ImageError>) {
        let folder = tempfile::tempdir().unwrap();
        let answer = unpack(archive(entries).as_slice(), &Wanted::default(), folder.path(), &LAYER);
        (folder, answer)
    }

    #[test]
    fn keeps_what_files_are() {
        let mut suid = raw(b'0', "bin/su", "", "program");
        suid.mode = 0o4755;
        let (folder, answer) = run(&[
            raw(b'5', "bin/", "", ""),
            suid,
            raw(b'1', "bin/same", "bin/su", ""),
            raw(b'2', "sh", "/bin/su", ""),
            raw(b'3', "dev/null", "", ""),
            raw(b'6', "pipe", "", ""),
            raw(b'0', "./a/b/c", "", "deep"),
        ]);
        assert_eq!(answer.unwrap().bytes, 11);
        let at = |path: &str| folder.path().join(path).symlink_metadata().unwrap();
        assert_eq!((at("bin/su").mode() & 0o7777, at("bin/su").uid(), at("bin/su").gid()), (0o4755, 1000, 1001));
        assert_eq!(
            (at("bin/su").mtime(), at("bin").mtime(), at("sh").mtime()),
            (1_000_000_000, 1_000_000_000, 1_000_000_000)
        );
        assert_eq!(at("bin/su").ino(), at("bin/same").ino());
        assert_eq!(std::fs::read_link(folder.path().join("sh")).unwrap(), Path::new("/bin/su"));
        assert!(at("dev/null").file_type().is_char_device() && at("dev/null").rdev() == fs::makedev(1, 3));
        assert!(at("pipe").file_type().is_fifo());
        assert_eq!((at("a/b").mode() & 0o7777, at("a/b").uid()), (0o755, 0));
    }

    #[test]
    fn deletions_become_overlayfs_marks() {
        let (folder, answer) = run(&[
            raw(b'0', "etc/.wh.gone", "", ""),
            raw(b'0', "var/.wh..wh..opq", "", ""),
            raw(b'0', "var/new", "", "x"),
            raw(b'0', ".wh..wh.plnk", "", ""),
            // Deleted below and made anew here, in both orders.
            raw(b'0', ".wh.one", "", ""),
            raw(b'5', "one/", "", ""),
            raw(b'5', "two/", "", ""),
            raw(b'0', ".wh.two", "", ""),
            raw(b'0', ".wh.three", "", ""),
            raw(b'0', "three/deep/file", "", ""),
            raw(b'0', ".wh.four", "", ""),
            raw(b'0', "four", "", "again"),
        ]);
        answer.unwrap();
        let gone = folder.path().join("etc/gone").symlink_metadata().unwrap();
        assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
        assert!(!folder.path().join(".wh..wh.plnk").exists());
        let opaque = |path: &str| {
            let mut value = [0; 4];
            fs::getxattr(folder.path().join(path), OPAQUE, &mut value[..]) == Ok(1) && value[0] == b'y'
        };
        assert!(opaque("var") && opaque("one") && opaque("two") && opaque("three") && !opaque("etc"));
        assert_eq!(std::fs::read_to_string(folder.path().join("four")).unwrap(), "again");
    }

    #[test]
    fn links_lead_nowhere_but_inside() {
        let (folder, answer) = run(&[
            raw(b'2', "out", "../../../../../../tmp", ""),
            raw(b'2', "abs", "/inside", ""),
            raw(b'5', "inside/", "", ""),
            raw(b'0', "abs/file", "", "kept in"),
        ]);
        answer.unwrap();
        assert_eq!(std::fs::read_to_string(folder.path().join("inside/file")).unwrap(), "kept in");
        for (entries, reason) in [
            (vec![raw(b'0', "../x", "", "")], "it leads out by \"..\""),
            (vec![raw(b'0', "a/../../x", "", "")], "it leads out by \"..\""),
            (vec![raw(b'2', "a", "/nowhere", ""), raw(b'0', "a/x", "", "")], "a link to nothing"),
            (vec![raw(b'0', "a", "", ""), raw(b'0', "a/x", "", "")], "a file or a link"),
            (vec![raw(b'1', "a", "../../etc/passwd", "")], "hard link"),
            (vec![raw(b'1', "a", "/etc/passwd", "")], "does not stand before it"),
            (vec![raw(b'2', "l", "/", ""), raw(b'1', "a", "l/etc/passwd", "")], "does not stand before it"),
            (vec![raw(b'2', "l", "l", ""), raw(b'0', "l/a", "", "")], "cannot open the folder of"),
            (vec![raw(b'0', ".wh...", "", "")], "deletes nothing"),
            (vec![raw(b'0', ".wh..", "", "")], "deletes nothing"),
            (vec![raw(b'2', "a", "", "")], "without a target"),
            (vec![raw(b'0', "/", "", "")], "the root itself"),
            (vec![raw(b'Z', "a", "", "")], "not known"),
            (vec![raw(b'0', &"n".repeat(256), "", "")], "longer than 255"),
        ] {
            let (_folder, answer) = run(&entries);
            let error = answer.unwrap_err().to_string();
            assert!(error.contains(reason), "{entries:?}: {error}");
        }
    }

    #[test]
    fn names_mean_what_they_come_to() {
        let (folder, answer) = run(&[
            raw(b'0', "dir/../foo", "", "one"),
            raw(b'0', "/../bar", "", "two"),
            raw(b'1', "same", "a/../foo", ""),
        ]);
        answer.unwrap();
        for (name, content) in [("foo", "one"), ("bar", "two"), ("same", "one")] {
            assert_eq!(std::fs::read_to_string(folder.path().join(name)).unwrap(), content);
        }
        assert!(!folder.path().join("dir").exists());
    }

    #[test]
    fn folders_are_not_nested_without_end() {
        let deep = |count: usize| vec!["d"; count].join("/");
        let (_folder, answer) = run(&[raw(b'5', &deep(400), "", "")]);
        answer.unwrap();
        let (_folder, answer) = run(&[raw(b'5', &deep(600), "", "")]);
        assert!(answer.unwrap_err().to_string().contains("deeper than 512 folders"));
        // Each link stands for many.
        let (_folder, answer) = run(&[
            raw(b'5', &deep(300), "", ""),
            raw(b'2', "l", &deep(300), ""),
            raw(b'5', &format!("l/{}", deep(300)), "", ""),
            raw(b'2', "m", &format!("l/{}", deep(300)), ""),
            raw(b'5', "m/x", "", ""),
        ]);
        assert!(answer.unwrap_err().to_string().contains("deeper than 512 folders"));
    }

    /// A path makes a folder of each of its parts.
    #[test]
    fn folders_that_no_entry_names_are_counted() {
        let deep = |first: usize| format!("{first}/{}/x", vec!["d"; 400].join("/"));
        let entries: Vec<Raw> = (0..3).map(|first| raw(b'0', &deep(first), "", "")).collect();
        let (_folder, answer) = run(&entries);
        assert!(matches!(answer, Err(ImageError::TooManyEntries { limit: 1000, .. })), "{answer:?}");
        // The same two again and again are few on the disk, and much to do.
        let turns: Vec<Raw> = (0..4)
            .flat_map(|_| [raw(b'0', &deep(0), "", ""), raw(b'0', "0", "", ""), raw(b'5', "0", "", "")])
            .collect();
        let (_folder, answer) = run(&turns);
        assert!(matches!(answer, Err(ImageError::TooManyEntries { limit: 1000, .. })), "{answer:?}");
    }

    #[test]
    fn folders_of_the_oldest_archives_end_in_a_slash() {
        let (folder, answer) = run(&[raw(0, "old/", "", ""), raw(0, "old/file", "", "x"), raw(b'0', "new", "", "")]);
        answer.unwrap();
        assert_eq!(std::fs::read_to_string(folder.path().join("old/file")).unwrap(), "x");
    }

    /// Zeros that an archive only tells of are neither written nor waited for.
    #[test]
    fn holes_take_no_space_and_end_with_whoever_waits() {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(EntryType::GNUSparse);
        header.set_path("sparse").unwrap();
        header.set_mode(0o644);
        header.set_size(0);
        let size = b"00010000000\0";
        let gnu = header.as_gnu_mut().unwrap();
        gnu.realsize[..12].copy_from_slice(size);
        gnu.sparse[0].offset[..12].copy_from_slice(size);
        gnu.sparse[0].numbytes[..12].copy_from_slice(b"00000000000\0");
        header.set_cksum();
        let bytes = [header.as_bytes().as_slice(), &[0; 1024]].concat();
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let options = Options { max_bytes: 1 << 30, ..LAYER };
        let unpacked = unpack(bytes.as_slice(), &Wanted::default(), folder.path(), &options).unwrap();
        let about = folder.path().join("sparse").metadata().unwrap();
        assert_eq!((unpacked.bytes, about.len(), about.blocks()), (2 << 20, 2 << 20, 0));
        let gone = Wanted::default();
        gone.give_up();
        unpack(bytes.as_slice(), &gone, folder.path(), &options).unwrap_err();
    }

    #[test]
    fn an_absolute_name_is_inside() {
        let (folder, answer) = run(&[raw(b'0', "/etc/bireme-unpack-test", "", "x")]);
        answer.unwrap();
        assert!(folder.path().join("etc/bireme-unpack-test").is_file());
        assert!(!Path::new("/etc/bireme-unpack-test").exists());
    }

    #[test]
    fn bombs_and_cut_off_archives_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let big = archive(&[raw(b'0', "big", "", &"x".repeat(100_000))]);
        let small = Options { max_bytes: 50_000, ..LAYER };
        assert!(matches!(
            unpack(big.as_slice(), &Wanted::default(), folder.path(), &small),
            Err(ImageError::Bomb { .. })
        ));
        let many: Vec<Raw> = (0..20).map(|at| raw(b'0', &format!("{at}"), "", "")).collect();
        let few = Options { max_entries: 10, ..LAYER };
        assert!(matches!(
            unpack(archive(&many).as_slice(), &Wanted::default(), folder.path(), &few),
            Err(ImageError::TooManyEntries { .. })
        ));
        let cut = &big[..50_000];
        assert!(matches!(unpack(cut, &Wanted::default(), folder.path(), &LAYER), Err(ImageError::BadLayer { .. })));
        let noise = vec![0x5a; 2000];
        assert!(matches!(
            unpack(noise.as_slice(), &Wanted::default(), folder.path(), &LAYER),
            Err(ImageError::BadLayer { .. })
        ));
    }

    #[test]
    fn attributes_of_overlayfs_are_dropped() {
        let mut tar = tar::Builder::new(Vec::new());
        let pairs: [(&str, &[u8]); 3] = [
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.user.colour", b"blue"),
            ("mtime", b"1234567890.5"),
        ];
        tar.append_pax_extensions(pairs).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_size(0);
        header.set_mode(0o600);
        header.set_uid(0);
        header.set_gid(0);
        tar.append_data(&mut header, "file", io::empty()).unwrap();
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        unpack(tar.into_inner().unwrap().as_slice(), &Wanted::default(), folder.path(), &LAYER).unwrap();
        let file = folder.path().join("file");
        let mut value = [0; 16];
        assert_eq!(fs::getxattr(&file, "trusted.overlay.redirect", &mut value[..]), Err(Errno::NODATA));
        assert_eq!(fs::getxattr(&file, "user.colour", &mut value[..]), Ok(4));
        let meta = file.metadata().unwrap();
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_234_567_890, 500_000_000));
    }

    fn part() -> impl Strategy<Value = String> {
        prop_oneof![
            6 => prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned),
            1 => prop::sample::select(vec!["..", ".", "", ".wh.a", ".wh..wh..opq", ".wh..", "victim"]).prop_map(str::to_owned),
        ]
    }

    fn path() -> impl Strategy<Value = String> {
        (any::<bool>(), prop::collection::vec(part(), 1..4))
            .prop_map(|(absolute, parts)| format!("{}{}", if absolute { "/" } else { "" }, parts.join("/")))
    }

    fn target() -> impl Strategy<Value = String> {
        let outside = vec!["..", "../victim", "../../victim", "/", "/victim", ".", "/proc/self/root", "/proc/self/cwd"];
        prop_oneof![path(), prop::sample::select(outside).prop_map(str::to_owned)]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
        #[test]
        fn nothing_is_written_outside(
            entries in prop::collection::vec(
                (prop::sample::select(b"00012255346".to_vec()), path(), target()), 1..12)
        ) {
            let entries: Vec<Raw> = entries.iter().map(|(kind, path, target)| {
                let content = if *kind == b'0' { "written" } else { "" };
                raw(*kind, path, if matches!(kind, b'1' | b'2') { target } else { "" }, content)
            }).collect();
            let outer = tempfile::tempdir().unwrap();
            let inner = outer.path().join("x/inner");
            std::fs::create_dir_all(&inner).unwrap();
            for victim in ["victim", "x/victim"] {
                std::fs::write(outer.path().join(victim), "untouched").unwrap();
            }
            let _ = unpack(archive(&entries).as_slice(), &Wanted::default(), &inner, &LAYER);
            let mut names: Vec<_> = ["", "x"].iter()
                .flat_map(|folder| std::fs::read_dir(outer.path().join(folder)).unwrap())
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            prop_assert_eq!(names, ["inner", "victim", "victim", "x"]);
            for victim in ["victim", "x/victim"] {
                let meta = outer.path().join(victim).symlink_metadata().unwrap();
                prop_assert_eq!((meta.nlink(), meta.uid(), meta.len()), (1, 0, 9));
            }
            prop_assert!(!Path::new("/victim").exists() && !Path::new("/a").exists());
        }
    }
}
