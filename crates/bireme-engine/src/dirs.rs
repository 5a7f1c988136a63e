//! Folders of the engine: of each workload, of what is being removed, of creates that are under way.

use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::EngineError;

/// Below the folders of workloads and volumes: what is being removed. No workload or volume can be called so.
pub(crate) const REMOVED: &str = ".removed";

/// How long a removal clears away before it is answered. What is left of it then goes in the background.
pub(crate) const CLEARED_WITHIN: Duration = Duration::from_secs(20);

/// The folders of one workload.
pub(crate) struct Dirs {
    pub(crate) state: PathBuf,
    pub(crate) run: PathBuf,
}

impl Dirs {
    pub(crate) async fn make(&self) -> Result<(), EngineError> {
        for path in [&self.state, &self.run] {
            make_dir(path, 0o700)?;
        }
        Ok(())
    }
}

pub(crate) fn make_dir(path: &Path, mode: u32) -> Result<(), EngineError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(|source| EngineError::File { path: path.to_owned(), source })
}

/// Makes a folder that nobody else may enter, and mends one that an older version left open.
pub(crate) fn close_dir(path: &Path) -> Result<(), EngineError> {
    make_dir(path, 0o700)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
        .map_err(|source| EngineError::File { path: path.to_owned(), source })
}

/// Puts a folder that is to be removed where nobody takes it for whole. Where none is, its mark is put there all the same.
/// Blocking.
pub(crate) fn set_aside(folder: &Path, aside: &Path) -> Result<(), EngineError> {
    match std::fs::rename(folder, aside) {
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
            // There already, or there is no room for it: nothing of the folder is left in either case.
            let _ = std::fs::DirBuilder::new().mode(0o700).create(aside);
            Ok(())
        }
        Err(source) => Err(EngineError::File { path: folder.to_owned(), source }),
        Ok(()) => Ok(()),
    }
}

pub(crate) fn entries(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Whether a volume may be called so.
pub(crate) fn is_volume_name(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    (2..=255).contains(&name.len()) && name.as_bytes()[0].is_ascii_alphanumeric() && name.bytes().all(inner)
}
