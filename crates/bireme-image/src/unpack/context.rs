//! What is being unpacked where, and what goes wrong with it.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::io::Errno;

use super::Options;
use crate::error::ImageError;

/// What all parts of one unpacking are told.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) options: &'a Options<'a>,
    /// The folder that is unpacked into. For errors only; never opened.
    pub(super) into: &'a Path,
}

/// A name as it stands in a sentence: whoever chose it shall not write to the terminal that shows it.
pub(crate) fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).escape_debug().to_string()
}

impl Context<'_> {
    pub(super) fn refuse(&self, path: &[u8], reason: impl Into<String>) -> ImageError {
        ImageError::UnsafePath { layer: self.options.name.to_owned(), path: shown(path), reason: reason.into() }
    }

    /// A failed call on a path of the layer: the layer's fault where the name or type is, else the disk's.
    pub(super) fn failed(&self, attempt: &'static str, path: &[u8], error: Errno) -> ImageError {
        match error {
            Errno::NAMETOOLONG | Errno::LOOP | Errno::INVAL | Errno::NOTDIR | Errno::XDEV | Errno::ISDIR => {
                self.refuse(path, format!("cannot {attempt} it: {}", io::Error::from(error)))
            }
            Errno::MLINK => self.refuse(path, "too many links to one file"),
            _ => ImageError::store(attempt, &self.into.join(OsStr::from_bytes(path)), error.into()),
        }
    }
}
