//! Refusals about files of a workload that are copied.

use std::io;
use std::path::PathBuf;

use bireme_core::ErrorKind;

/// Why files are not copied from or to a workload. `path` and `container` are as the client wrote them.
#[derive(Debug, thiserror::Error)]
pub enum FilesRefusal {
    #[error("mounted volume is marked read-only")]
    MountReadOnly,
    #[error("container rootfs is marked read-only")]
    RootReadOnly,
    #[error("extraction point is not a directory")]
    NotAFolder,
    /// `container` is what the client called it.
    #[error("Could not find the file {path} in container {container}")]
    NotFound { path: String, container: String },
    #[error("the archive for {path} in container {container} cannot be unpacked: {source}")]
    Archive { path: String, container: String, source: io::Error },
    /// The part of a volume that is mounted cannot be opened within it.
    #[error("{}", bireme_sys::path::not_accessible(volume, subpath, source))]
    Subpath { volume: PathBuf, subpath: PathBuf, source: io::Error },
    /// A file system does not answer: `what` was looked at.
    #[error(
        "{what} {} within {seconds} s: see whether the file system is there that it lies on, and try again",
        if *asked { "does not answer" } else { "cannot be looked at, as too much else does not answer" }
    )]
    /// A file system did not answer within `seconds`: `what` was looked at, or was not, as not `asked`, where too many such
    /// looks are under way.
    Silent { what: String, asked: bool, seconds: u64 },
}

impl FilesRefusal {
    /// What kind of failure this is for whoever asked.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::MountReadOnly | Self::RootReadOnly => ErrorKind::Denied,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Silent { .. } => ErrorKind::Unavailable,
            Self::NotAFolder | Self::Archive { .. } | Self::Subpath { .. } => ErrorKind::Invalid,
        }
    }
}
