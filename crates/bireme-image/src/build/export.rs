//! What a build came to, given away rather than kept: as files, as an archive of them, or as an archive of the image.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::annotations::Annotations;
use super::output::BuildOutput;
use crate::error::ImageError;
use crate::guard::GcGuard;
use crate::model::{index_entry, index_of};
use crate::platform::Platform;
use crate::view::{Found, View};
use crate::wanted::Wanted;

/// The files of an image, seen through its layers.
pub struct Tree {
    view: View,
    /// Seconds since the epoch that stand for every time, where the build has one.
    epoch: Option<i64>,
    _claims: Vec<GcGuard>,
}

/// A file, folder or link of a [`Tree`].
#[derive(Clone, Debug)]
pub struct TreeEntry {
    /// Below the root, without a leading slash.
    pub path: PathBuf,
    /// Type and permission bits, as in `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Bytes of a regular file.
    pub size: u64,
    /// Nanoseconds since the epoch.
    pub modified: i64,
    /// Of a device node.
    pub device: (u32, u32),
    /// What a symbolic link says.
    pub link: Option<PathBuf>,
    /// The path of the entry before it that is the same file.
    pub same_as: Option<PathBuf>,
    /// Extended attributes, sorted.
    pub attributes: Vec<(String, Vec<u8>)>,
}

/// Folders within folders; deeper than any real tree.
const DEEPEST: usize = 200;

/// Bytes of the names of one folder, and of those above it.
const LARGEST_NAMES: usize = 128 << 20;

impl Tree {
    /// Goes through all entries below the root in the order of their names, folders before what is in them. Blocking.
    ///
    /// # Errors
    /// What `each` answers; what cannot be read; trees nested too deeply.
    pub fn walk(&self, each: &mut dyn FnMut(TreeEntry) -> io::Result<()>) -> io::Result<()> {
        let mut walk = Walk { tree: self, names: HashMap::new(), each };
        walk.folder(Path::new("/"), 0)
    }

    /// Opens the regular file at `path`, below the root.
    ///
    /// # Errors
    /// When it is not there, or no such file.
    pub fn open(&self, path: &Path) -> io::Result<File> {
        self.view.open_file(&Path::new("/").join(path)).map_err(io::Error::other)
    }

    /// What stands at `path`, following links.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn stat(&self, path: &Path) -> io::Result<Option<TreeEntry>> {
        let (_, found) = self.view.resolve(&Path::new("/").join(path), true)?;
        found.map(|found| self.entry(&found)).transpose()
    }

    /// What is in the folder at `path`, in order.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn list(&self, path: &Path) -> io::Result<Vec<TreeEntry>> {
        let (place, _) = self.view.resolve(&Path::new("/").join(path), true)?;
        let mut entries = Vec::new();
        for name in self.view.list(&place, &Wanted::default(), LARGEST_NAMES)? {
            if let Some(found) = self.view.look(&place.join(name))? {
                entries.push(self.entry(&found)?);
            }
        }
        Ok(entries)
    }

    /// Writes all of it as an archive. Blocking.
    ///
    /// # Errors
    /// When `out` fails, or something cannot be read.
    pub fn write_tar(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut tar = tar::Builder::new(out);
        tar.sparse(false);
        self.walk(&mut |entry| self.append(&mut tar, &entry))?;
        tar.into_inner()?.flush()
    }

    fn append(&self, tar: &mut tar::Builder<&mut dyn Write>, entry: &TreeEntry) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_mode(entry.mode & 0o7777);
        header.set_uid(entry.uid.into());
        header.set_gid(entry.gid.into());
        header.set_mtime(u64::try_from(entry.modified / 1_000_000_000).unwrap_or_default());
        header.set_size(0);
        if let Some(first) = &entry.same_as {
            header.set_entry_type(tar::EntryType::Link);
            return tar.append_link(&mut header, &entry.path, first);
        }
        let pairs: Vec<(String, &[u8])> =
            entry.attributes.iter().map(|(name, value)| (format!("SCHILY.xattr.{name}"), value.as_slice())).collect();
        if !pairs.is_empty() {
            tar.append_pax_extensions(pairs.iter().map(|(name, value)| (name.as_str(), *value)))?;
        }
        match FileType::from_raw_mode(entry.mode) {
            FileType::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                let mut name = entry.path.as_os_str().to_owned();
                name.push("/");
                tar.append_data(&mut header, name, io::empty())
            }
            FileType::Symlink => {
                header.set_entry_type(tar::EntryType::Symlink);
                tar.append_link(&mut header, &entry.path, entry.link.as_deref().unwrap_or(Path::new("")))
            }
            FileType::RegularFile => {
                header.set_entry_type(tar::EntryType::Regular);
                header.set_size(entry.size);
                let file = io::Read::take(self.open(&entry.path)?, entry.size);
                tar.append_data(&mut header, &entry.path, file)
            }
            kind @ (FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo) => {
                header.set_entry_type(match kind {
                    FileType::CharacterDevice => tar::EntryType::Char,
                    FileType::BlockDevice => tar::EntryType::Block,
                    _ => tar::EntryType::Fifo,
                });
                header.set_device_major(entry.device.0)?;
                header.set_device_minor(entry.device.1)?;
                tar.append_data(&mut header, &entry.path, io::empty())
            }
            // A socket means nothing without its process.
            _ => Ok(()),
        }
    }

    fn entry(&self, found: &Found) -> io::Result<TreeEntry> {
        let stat = &found.stat;
        let kind = found.kind();
        let modified = match self.epoch {
            Some(epoch) => epoch.saturating_mul(1_000_000_000),
            None => stat
                .st_mtime
                .saturating_mul(1_000_000_000)
                .saturating_add(i64::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        };
        Ok(TreeEntry {
            path: found.path.strip_prefix("/").unwrap_or(&found.path).to_owned(),
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: if kind == FileType::RegularFile { u64::try_from(stat.st_size).unwrap_or_default() } else { 0 },
            modified,
            device: (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
            link: match kind {
                FileType::Symlink => Some(self.view.read_link(found)?.into()),
                _ => None,
            },
            same_as: None,
            attributes: self.view.attributes(found)?,
        })
    }
}

struct Walk<'a> {
    tree: &'a Tree,
    /// Where each file that has several names was met first, by device and number.
    names: HashMap<(u64, u64), PathBuf>,
    each: &'a mut dyn FnMut(TreeEntry) -> io::Result<()>,
}

/// Files with several names that are remembered; of more, each name is a file of its own.
const MOST_LINKED: usize = 200_000;

impl Walk<'_> {
    fn folder(&mut self, path: &Path, depth: usize) -> io::Result<()> {
        if depth > DEEPEST {
            return Err(io::Error::other("the tree is nested too deeply"));
        }
        for name in self.tree.view.list(path, &Wanted::default(), LARGEST_NAMES)? {
            let path = path.join(&name);
            let Some(found) = self.tree.view.look(&path)? else { continue };
            let mut entry = self.tree.entry(&found)?;
            if found.kind() == FileType::RegularFile && found.stat.st_nlink > 1 {
                let file = (found.stat.st_dev, found.stat.st_ino);
                match self.names.get(&file) {
                    Some(first) => entry.same_as = Some(first.clone()),
                    None if self.names.len() < MOST_LINKED => drop(self.names.insert(file, entry.path.clone())),
                    None => {}
                }
            }
            (self.each)(entry)?;
            if found.kind() == FileType::Directory {
                self.folder(&path, depth + 1)?;
            }
        }
        Ok(())
    }
}

impl BuildOutput {
    /// The files of the image for that platform, or of the first; `None` if it was not built for it.
    ///
    /// # Errors
    /// When its layers cannot be opened.
    pub fn tree(&self, platform: Option<&Platform>) -> Result<Option<Tree>, ImageError> {
        let Some(stage) = self.stage(platform) else { return Ok(None) };
        let folders = self.folders(stage);
        let epoch = self.epoch.map(|epoch| epoch.timestamp());
        Ok(Some(Tree { view: View::new(folders)?, epoch, _claims: self.claims() }))
    }
}

impl BuildOutput {
    /// The same, its manifests and its index saying these things, too.
    #[must_use]
    pub fn with_annotations(&self, annotations: Annotations) -> Self {
        Self { annotations, ..self.again() }
    }

    /// The index of its images, if anything is said in it that the images do not say themselves.
    ///
    /// # Errors
    /// When a configuration or a manifest has grown too large.
    pub fn index(&self) -> Result<Option<Vec<u8>>, ImageError> {
        let Annotations { index, manifest_descriptor, .. } = &self.annotations;
        if index.is_empty() && manifest_descriptor.is_empty() {
            return Ok(None);
        }
        let mut entries = Vec::new();
        for stage in &self.stages {
            let record = self.finished(stage)?;
            let said = self.annotations.of_descriptor(&record.platform);
            entries.push(index_entry(&record.manifest, &record.platform, &said));
        }
        Ok(Some(index_of(&entries, index)))
    }
}
