//! What the header of a tar entry says, from all the forms in which it may be said.
//!
//! Source: tar(5); POSIX.1-2017, `pax`, "pax Interchange Format".

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::Timespec;
use tar::EntryType;

use crate::content::Sparse;

/// What an entry says of itself, beside its content.
pub(super) struct Meta {
    pub(super) path: Vec<u8>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) kind: EntryType,
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) time: Timespec,
    pub(super) device: Option<(u32, u32)>,
    pub(super) attributes: Vec<(String, Vec<u8>)>,
    pub(super) sparse: Sparse,
}

impl Meta {
    pub(super) fn read<R: Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<Self> {
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
