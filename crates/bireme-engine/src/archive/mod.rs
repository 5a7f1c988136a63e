//! Copying into and out of a workload's file tree: Docker's archive requests.
//!
//! A running container's tree is reached through its init's root, a stopped one's through an overlay mount that is
//! attached nowhere. Every path is resolved by the kernel inside that root (`openat2`), component by component for what
//! an archive names, so that no link of the container or of the archive leads out of it.
//!
//! ```text
//! tree      where a path of a workload leads: its own tree, or what it has mounted there
//! path      paths inside a root
//! pack      files to archive
//! extract   archive to files
//! ```

mod extract;
mod pack;
mod path;
mod tree;

use std::io::{self, Read, Write};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;

pub use self::extract::Unpack;
use self::extract::extract;
pub(crate) use self::pack::{Linked, Packer, append_attributes, append_one, header};
pub use self::path::PathStat;
use self::path::{follow, in_root, not_of_the_kernel, parent_of, stat};
use self::tree::{Place, look_up};
use crate::EngineError;
use crate::parts::Parts;
use crate::refusal::FilesRefusal;

/// What stands at `path`.
///
/// # Errors
/// `NotFound` for the workload or the path; `Unsupported` for kinds without a file tree.
pub(crate) async fn stat_path(parts: &Arc<Parts>, name: &str, path: &str) -> Result<PathStat, EngineError> {
    let (of, name, path) = (Arc::clone(parts), name.to_owned(), path.to_owned());
    let handle = parts.services.registry.find(&name)?;
    parts.volumes.with_mounted(&handle, async move { stat_mounted(&of, &name, &path).await }).await
}

async fn stat_mounted(parts: &Parts, name: &str, path: &str) -> Result<PathStat, EngineError> {
    let Place { root, inside, called, whole, _mounts: mounts, .. } = look_up(parts, name, path, false).await?;
    let handle = parts.services.registry.find(name)?;
    let (name, path) = (name.to_owned(), path.to_owned());
    let look = move || {
        let _mounts = mounts;
        let look = || {
            let (parent, base) = parent_of(&root, &inside)?;
            not_of_the_kernel(parent.as_fd())?;
            let mut found = stat(parent.as_fd(), &base)?;
            if whole && !found.link.is_empty() {
                found.link = follow(&root, Path::new(&inside))?;
            }
            Ok(PathStat { name: called, ..found })
        };
        look().map_err(|error| at_path(&name, &path, error))
    };
    handle.copying(look).await
}

/// Writes what stands at `path` to `out` as an archive whose entries begin with its base name.
pub(crate) async fn read_archive(
    parts: &Arc<Parts>,
    name: &str,
    path: &str,
    out: impl Write + Send + 'static,
) -> Result<(), EngineError> {
    let (of, name, path) = (Arc::clone(parts), name.to_owned(), path.to_owned());
    let handle = parts.services.registry.find(&name)?;
    parts.volumes.with_mounted(&handle, async move { read_mounted(&of, &name, &path, out).await }).await
}

async fn read_mounted(
    parts: &Parts,
    name: &str,
    path: &str,
    out: impl Write + Send + 'static,
) -> Result<(), EngineError> {
    let Place { root, inside, called, _mounts: mounts, .. } = look_up(parts, name, path, false).await?;
    let handle = parts.services.registry.find(name)?;
    handle.emit(&parts.services.events, "archive-path", []);
    let (name, path) = (name.to_owned(), path.to_owned());
    let copy = move || {
        let _mounts = mounts;
        let copy = || {
            let (parent, base) = parent_of(&root, &inside)?;
            not_of_the_kernel(parent.as_fd())?;
            let mut archive = Packer::new(out);
            archive.append(parent.as_fd(), &base, Path::new(&called), 0)?;
            archive.finish()
        };
        copy().map_err(|error| at_path(&name, &path, error))
    };
    handle.copying(copy).await
}

/// Unpacks an archive into the folder at `path`. Owners are those of the archive.
///
/// # Errors
/// `NotFound` when `path` is no folder; `Invalid` for an archive that is damaged or names paths outside.
pub(crate) async fn write_archive(
    parts: &Arc<Parts>,
    name: &str,
    path: &str,
    archive: impl Read + Send + 'static,
    how: Unpack,
) -> Result<(), EngineError> {
    let (of, name, path) = (Arc::clone(parts), name.to_owned(), path.to_owned());
    let handle = parts.services.registry.find(&name)?;
    parts.volumes.with_mounted(&handle, async move { write_mounted(&of, &name, &path, archive, how).await }).await
}

async fn write_mounted(
    parts: &Parts,
    name: &str,
    path: &str,
    archive: impl Read + Send + 'static,
    how: Unpack,
) -> Result<(), EngineError> {
    let Place { root, inside, read_only, turn, _mounts: mounts, .. } = look_up(parts, name, path, true).await?;
    if read_only {
        return Err(FilesRefusal::MountReadOnly.into());
    }
    let handle = parts.services.registry.find(name)?;
    let (name, path) = (name.to_owned(), path.to_owned());
    let (wanted, _waiting) = bireme_image::Wanted::until_dropped();
    let unpack = move || {
        let (_turn, _mounts) = (turn, mounts);
        match in_root(&root, &inside, OFlags::DIRECTORY | OFlags::RDONLY) {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(FilesRefusal::NotAFolder.into());
            }
            other => drop(other.map_err(|error| at_path(&name, &path, error))?),
        }
        extract(&root, Path::new(&inside), archive, how, &wanted).map_err(|error| at_path(&name, &path, error))
    };
    handle.copying(unpack).await?;
    handle.emit(&parts.services.events, "extract-to-dir", []);
    Ok(())
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| EngineError::Stopping)?
}

fn at_path(name: &str, path: &str, error: io::Error) -> EngineError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            FilesRefusal::NotFound { path: path.to_owned(), container: name.to_owned() }.into()
        }
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => {
            FilesRefusal::Archive { path: path.to_owned(), container: name.to_owned(), source: error }.into()
        }
        io::ErrorKind::ReadOnlyFilesystem => FilesRefusal::RootReadOnly.into(),
        _ => EngineError::File { path: PathBuf::from(path), source: error },
    }
}

#[cfg(test)]
mod tests;
