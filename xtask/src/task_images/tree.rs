//! The files of one layer, in the order in which they are packed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Paths without a leading slash, sorted: a folder comes before what is in it.
#[derive(Default)]
pub(super) struct Tree(BTreeMap<String, Entry>);

struct Entry {
    mode: u32,
    /// User and group.
    owner: u64,
    what: What,
}

enum What {
    Folder,
    File(Vec<u8>),
    Link(String),
}

impl Tree {
    pub(super) fn folder(&mut self, path: &str, mode: u32, owner: u64) {
        self.0.insert(path.to_owned(), Entry { mode, owner, what: What::Folder });
    }

    pub(super) fn text(&mut self, path: &str, text: &str, mode: u32) {
        self.0.insert(path.to_owned(), Entry { mode, owner: 0, what: What::File(text.into()) });
    }

    pub(super) fn link(&mut self, path: &str, to: &str) {
        self.0.insert(path.to_owned(), Entry { mode: 0o777, owner: 0, what: What::Link(to.to_owned()) });
    }

    /// Takes over a file of this machine.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn host_file(&mut self, path: &str, host: &Path, mode: u32) -> Result<()> {
        let contents = fs::read(host).with_context(|| format!("cannot read {}", host.display()))?;
        self.0.insert(path.to_owned(), Entry { mode, owner: 0, what: What::File(contents) });
        Ok(())
    }

    /// Makes the folders above a path.
    pub(super) fn folders_above(&mut self, path: &Path) {
        for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
            self.folder(&above.to_string_lossy(), 0o755, 0);
        }
    }

    /// Takes over a file of this machine at the same place, with the folders above it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn same_file(&mut self, host: &Path, mode: u32) -> Result<()> {
        let path = host.strip_prefix("/").unwrap_or(host);
        self.folders_above(path);
        self.host_file(&path.to_string_lossy(), host, mode)
    }

    /// Takes over the files below a folder of this machine, but for those that `leave` names, as the folder `path`.
    ///
    /// # Errors
    /// When something in it cannot be read.
    pub(super) fn host_folder(&mut self, path: &str, host: &Path, leave: &dyn Fn(&str) -> bool) -> Result<()> {
        self.folders_above(Path::new(path));
        self.folder(path, 0o755, 0);
        for entry in fs::read_dir(host).with_context(|| format!("cannot list {}", host.display()))? {
            let entry = entry.with_context(|| format!("cannot list {}", host.display()))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if leave(&name) {
                continue;
            }
            let (path, host) = (format!("{path}/{name}"), entry.path());
            if host.is_dir() {
                self.host_folder(&path, &host, leave)?;
            } else {
                self.host_file(&path, &host, 0o644)?;
            }
        }
        Ok(())
    }

    /// Takes over a library of this machine, at the same place, with the folders above it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn library(&mut self, host: &Path) -> Result<()> {
        self.same_file(host, 0o755)
    }

    /// The tree as a tar archive; without times, so that it depends on nothing but the files.
    ///
    /// # Errors
    /// A path or link that tar cannot hold.
    pub(super) fn layer(&self) -> Result<Vec<u8>> {
        let mut packed = tar::Builder::new(Vec::new());
        for (path, Entry { mode, owner, what }) in &self.0 {
            let mut header = tar::Header::new_ustar();
            header.set_mode(*mode);
            header.set_uid(*owner);
            header.set_gid(*owner);
            header.set_mtime(0);
            header.set_size(0);
            let put = match what {
                What::Folder => {
                    header.set_entry_type(tar::EntryType::Directory);
                    packed.append_data(&mut header, format!("{path}/"), std::io::empty())
                }
                What::Link(to) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    packed.append_link(&mut header, path, to)
                }
                What::File(contents) => {
                    header.set_entry_type(tar::EntryType::Regular);
                    header.set_size(contents.len() as u64);
                    packed.append_data(&mut header, path, contents.as_slice())
                }
            };
            put.with_context(|| format!("cannot pack {path}"))?;
        }
        packed.into_inner().context("cannot finish a layer")
    }
}
