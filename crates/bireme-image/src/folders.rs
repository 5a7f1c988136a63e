//! Folders that builds keep beside layers: mounts of type cache, and contexts as they were sent last.
//!
//! ```text
//! ROOT/folders/NAME    the files; the row in the database says what they are
//! ```
//!
//! One that somebody has in his hands is not removed. How many may have it at once is for whoever takes it to say.

use std::collections::HashMap;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bireme_core::BoxFuture;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard};

use crate::apart::place_apart;
use crate::blocking::blocking;
use crate::digest::Digest;
use crate::error::{ImageError, StoreContext as _};
use crate::model::{CacheKind, CacheRecord};
use crate::store::{ImageStore, Inner};

/// How a folder is shared by those that take it at once.
///
/// Source: the Dockerfile reference, `RUN --mount=type=cache`, `sharing`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// All have it together.
    Shared,
    /// Each has one of its own, where another has it already.
    Private,
    /// One after the other.
    Locked,
}

/// A folder that somebody has in his hands.
pub struct HeldFolder {
    path: PathBuf,
    _held: Held,
}

#[expect(dead_code, reason = "what is held is let go when it is dropped")]
enum Held {
    Together(OwnedRwLockReadGuard<()>),
    Alone(OwnedRwLockWriteGuard<()>),
}

impl HeldFolder {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes what a new folder begins with. It is dropped with all that is in it when that fails.
pub type FillFolder<'a> = &'a (dyn Fn(PathBuf) -> BoxFuture<'static, Result<(), ImageError>> + Send + Sync);

impl ImageStore {
    /// Takes the folder that is known by `key`, making it if it is not there. `description` is what lists show of it.
    ///
    /// # Errors
    /// `Database`; when the folder cannot be made.
    /// # Cancel safety
    /// Dropping the future lets go of the folder.
    pub async fn take_folder(
        &self,
        kind: CacheKind,
        key: &str,
        description: &str,
        sharing: Sharing,
        fill: FillFolder<'_>,
    ) -> Result<HeldFolder, ImageError> {
        let inner = &self.inner;
        let mut number = 0;
        let (name, held) = loop {
            let key = if number == 0 { key.to_owned() } else { format!("{key}\n{number}") };
            let name = name_of(kind, &key);
            let lock = inner.holders.of(&name);
            match sharing {
                Sharing::Shared => {
                    let there = || inner.folder_path(&name).is_dir();
                    // Whoever makes it is alone with it until it is made; the others have it as soon as it is.
                    let alone = if there() { None } else { Arc::clone(&lock).try_write_owned().ok() };
                    if let Some(alone) = alone {
                        self.make_folder(kind, &name, description, fill).await?;
                        break (name, Held::Together(alone.downgrade()));
                    }
                    let together = lock.read_owned().await;
                    if there() {
                        break (name, Held::Together(together));
                    }
                    // It could not be made, or is gone again.
                }
                Sharing::Locked => break (name, Held::Alone(lock.write_owned().await)),
                Sharing::Private => match lock.try_write_owned() {
                    Ok(alone) => break (name, Held::Alone(alone)),
                    Err(_) => number += 1,
                },
            }
        };
        self.make_folder(kind, &name, description, fill).await?;
        inner.db.use_folder(&name, kind, description)?;
        Ok(HeldFolder { path: inner.folder_path(&name), _held: held })
    }

    /// Moves the folder that is known by `key` away, unless somebody has it: the next who takes it makes it anew. Nobody waits
    /// for its removal.
    ///
    /// # Errors
    /// `Database`; when it cannot be moved away.
    pub(crate) async fn renew_folder(&self, kind: CacheKind, key: &str) -> Result<(), ImageError> {
        let name = name_of(kind, key);
        let Ok(alone) = self.inner.holders.of(&name).try_write_owned() else { return Ok(()) };
        let inner = self.inner.clone();
        let aside = blocking("begin a folder of builds anew", move || {
            let _alone = alone;
            inner.move_folder_away(&name)
        });
        let aside = aside.await?;
        drop(tokio::task::spawn_blocking(move || drop(aside)));
        Ok(())
    }

    async fn make_folder(
        &self,
        kind: CacheKind,
        name: &str,
        description: &str,
        fill: FillFolder<'_>,
    ) -> Result<(), ImageError> {
        let path = self.inner.folder_path(name);
        if path.is_dir() {
            return Ok(());
        }
        let new = self.inner.aside("folder-")?;
        fill(new.path().to_owned()).await?;
        // Known first: a folder without a row is swept at the next start.
        self.inner.db.use_folder(name, kind, description)?;
        std::fs::rename(new.path(), &path).during("put in its place", &path)?;
        // It is no longer there to be deleted.
        let _ = new.keep();
        Ok(())
    }

    /// The folders that builds keep, without their sizes.
    pub(crate) fn kept_folders(&self) -> Result<Vec<CacheRecord>, ImageError> {
        let mut folders = self.inner.db.folders()?;
        for folder in &mut folders {
            folder.in_use = self.inner.holders.has(&folder.id);
        }
        Ok(folders)
    }

    /// Finds out the sizes of folders, each by a walk through it, unless nobody used it since the last.
    pub(crate) async fn measured(&self, mut folders: Vec<CacheRecord>) -> Result<Vec<CacheRecord>, ImageError> {
        let inner = self.inner.clone();
        blocking("measure the folders of builds", move || {
            let known = std::mem::take(&mut *inner.sizes.lock());
            let mut sizes = HashMap::new();
            for folder in &mut folders {
                folder.size = match known.get(&folder.id) {
                    Some((used, size)) if *used == folder.last_used && !folder.in_use => *size,
                    _ => measure(&inner.folder_path(&folder.id)),
                };
                // Whoever has it may change it.
                if !folder.in_use {
                    sizes.insert(folder.id.clone(), (folder.last_used, folder.size));
                }
            }
            *inner.sizes.lock() = sizes;
            Ok(folders)
        })
        .await
    }

    /// Removes a folder unless somebody has it. Answers how many bytes it had, where it did.
    pub(crate) async fn remove_folder(&self, name: &str) -> Result<Option<u64>, ImageError> {
        let Ok(alone) = self.inner.holders.of(name).try_write_owned() else { return Ok(None) };
        let (inner, name) = (self.inner.clone(), name.to_owned());
        blocking("remove a folder of builds", move || {
            let _alone = alone;
            let size = measure(&inner.folder_path(&name));
            inner.move_folder_away(&name)?;
            Ok(Some(size))
        })
        .await
    }
}

/// What the folder is called that is known by `key`.
fn name_of(kind: CacheKind, key: &str) -> String {
    Digest::of(format!("{} {key}", kind.word()).as_bytes()).hex()[..32].to_owned()
}

impl Inner {
    pub(crate) fn folder_path(&self, name: &str) -> PathBuf {
        self.root.join("folders").join(name)
    }

    /// Moves a folder, where there is one, to where it is deleted when the answer is dropped, and forgets it.
    fn move_folder_away(&self, name: &str) -> Result<tempfile::TempDir, ImageError> {
        let path = self.folder_path(name);
        let aside = self.aside("folder-")?;
        match std::fs::rename(&path, aside.path().join("removed")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(ImageError::store("move away", &path, error));
            }
            _ => {}
        }
        self.db.forget_folder(name)?;
        Ok(aside)
    }

    /// Makes folders and rows agree after a crash.
    pub(crate) fn sweep_folders(&self) -> Result<(), ImageError> {
        let root = self.root.join("folders");
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&root).during("create", &root)?;
        place_apart(&root);
        let known = self.db.folders()?;
        for entry in std::fs::read_dir(&root).during("list", &root)?.flatten() {
            let name = entry.file_name();
            if !known.iter().any(|folder| name.to_str() == Some(folder.id.as_str()))
                && let Err(error) = std::fs::remove_dir_all(entry.path())
            {
                tracing::warn!(path = %entry.path().display(), %error, "what no build keeps any more cannot be deleted");
            }
        }
        let gone = known.iter().filter(|folder| !self.folder_path(&folder.id).is_dir());
        gone.into_iter().try_for_each(|folder| self.db.forget_folder(&folder.id))
    }
}

/// Bytes that the files below a folder take on the disk, as far as they can be looked at.
pub(crate) fn measure(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let mut sum = 0;
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(about) = entry.metadata() else { continue };
            sum += about.blocks() * 512;
            if about.is_dir() {
                open.push(entry.path());
            }
        }
    }
    sum
}
