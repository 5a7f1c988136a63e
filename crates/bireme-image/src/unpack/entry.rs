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
    /// `apart` are records of its extended headers that are not read with the entry.
    pub(super) fn read<R: Read>(entry: &mut tar::Entry<'_, R>, apart: Vec<(Vec<u8>, Vec<u8>)>) -> io::Result<Self> {
        let header = entry.header();
        let seconds = match &header.as_old().mtime {
            time if blank(time) => 0,
            time if time[0] == 0xff => before_1970(time),
            _ => i64::try_from(header.mtime()?).unwrap_or(i64::MAX),
        };
        let mut meta = Self {
            path: entry.path_bytes().into_owned(),
            link: entry.link_name_bytes().map(std::borrow::Cow::into_owned),
            kind: header.entry_type(),
            mode: if blank(&header.as_old().mode) { 0o644 } else { header.mode()? & 0o7777 },
            uid: if blank(&header.as_old().uid) { 0 } else { header.uid()? },
            gid: if blank(&header.as_old().gid) { 0 } else { header.gid()? },
            time: Timespec { tv_sec: seconds, tv_nsec: 0 },
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
                meta.note(extension.key_bytes(), extension.value_bytes())?;
            }
        }
        for (key, value) in apart {
            match &key[..] {
                b"path" => meta.path = value,
                b"linkpath" => meta.link = Some(value),
                _ => meta.note(&key, &value)?,
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

impl Meta {
    /// Takes one record of the extended headers, if it is about anything here.
    fn note(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let Ok(key) = std::str::from_utf8(key) else { return Ok(()) };
        self.sparse.note(key, value)?;
        match (key, std::str::from_utf8(value)) {
            ("mtime", Ok(text)) => self.time = pax_time(text).unwrap_or(self.time),
            ("uid", Ok(text)) => self.uid = text.parse().unwrap_or(self.uid),
            ("gid", Ok(text)) => self.gid = text.parse().unwrap_or(self.gid),
            _ => {
                if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                    self.attributes.push((name.to_owned(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

/// A negative number of base 256, which the `tar` crate takes for a large one. Source: GNU tar manual, "Basic Tar Format".
fn before_1970(field: &[u8; 12]) -> i64 {
    let (sign, number) = field.split_at(4);
    let number = i64::from_be_bytes(number.try_into().unwrap_or_default());
    if sign == [0xff; 4] && number < 0 { number } else { i64::MIN }
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
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let mut nanos: i64 = digits.parse().ok()?;
    if text.starts_with('-') && nanos > 0 {
        seconds = seconds.checked_sub(1)?;
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
