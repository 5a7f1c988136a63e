//! What a new layer will hold, before it is written.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Stat};

use crate::view::{Found, View};

/// What a layer will hold, by absolute path.
pub(super) struct Plan<'a> {
    pub(super) below: &'a View,
    pub(super) entries: BTreeMap<PathBuf, (Content, Attributes)>,
    /// The permissions of folders that nothing gives any.
    pub(super) made: u32,
    /// Bytes of it, about.
    size: usize,
}

/// Attributes of something in the new layer.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: u64,
}

/// Content and extended attributes are read when they are written, for there may be any number of them.
pub(super) enum Content {
    /// Its attributes are those of a folder that is there, unless it is new.
    Folder(Option<(Tree, Found)>),
    Link(OsString),
    File(Tree, Found),
}

#[derive(Clone, Copy)]
pub(super) enum Tree {
    Below,
    /// By number.
    Source(usize),
}

/// Bytes that one plan may take: room for half a million files, and no way to fill the memory with some MB of names.
const LARGEST_PLAN: usize = 256 << 20;

impl<'a> Plan<'a> {
    pub(super) fn on(below: &'a View) -> Self {
        Self { below, entries: BTreeMap::new(), made: 0o755, size: 0 }
    }

    /// # Errors
    /// Where it has become too large to be held.
    pub(super) fn add(&mut self, path: PathBuf, content: Content, attributes: Attributes) -> io::Result<()> {
        let more = match &content {
            Content::Folder(Some((_, found))) | Content::File(_, found) => found.path.as_os_str().len(),
            Content::Folder(None) => 0,
            Content::Link(target) => target.len(),
        };
        self.size += size_of::<(PathBuf, (Content, Attributes))>() + path.as_os_str().len() + more;
        if self.size > LARGEST_PLAN {
            return Err(io::Error::other(format!(
                "the names of what it copies take more than {LARGEST_PLAN} bytes: copy it in parts"
            )));
        }
        self.entries.insert(path, (content, attributes));
        Ok(())
    }

    /// The folders above `path`, as they are below or new.
    pub(super) fn parents(&mut self, path: &Path, uid: u32, gid: u32) -> io::Result<()> {
        let above: Vec<&Path> = path.ancestors().skip(1).filter(|path| path.parent().is_some()).collect();
        for folder in above.into_iter().rev() {
            self.folder(folder, uid, gid)?;
        }
        Ok(())
    }

    pub(super) fn folder(&mut self, path: &Path, uid: u32, gid: u32) -> io::Result<()> {
        if path.parent().is_none() || self.entries.contains_key(path) {
            return Ok(());
        }
        let (from, attributes) = match self.below.look(path)? {
            Some(there) if there.kind() == FileType::Directory => {
                let attributes = Attributes::of(&there.stat);
                (Some((Tree::Below, there)), attributes)
            }
            Some(_) => return Err(io::Error::from(io::ErrorKind::NotADirectory)),
            None => (None, Attributes::made(self.made, uid, gid)),
        };
        self.add(path.to_owned(), Content::Folder(from), attributes)
    }
}

impl Attributes {
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: u64::try_from(stat.st_mtime).unwrap_or_default(),
        }
    }

    /// Of a folder that nothing gives attributes to. Its time is the epoch, so that the layer is always the same.
    pub(super) fn made(mode: u32, uid: u32, gid: u32) -> Self {
        Self { mode, uid, gid, mtime: 0 }
    }
}

/// A path as it stands in an archive: relative to the root.
pub(super) fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}
