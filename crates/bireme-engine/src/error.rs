//! What can go wrong in the engine, in sentences that name the thing, the reason and the next step.

use std::path::PathBuf;

use bireme_core::{ErrorKind, ExecError, LabelError};

use crate::refusal::{ContainerRefusal, FilesRefusal, NetworkRefusal, RequestRefusal, VolumeRefusal};

/// A refused or failed request. Fields that a comment does not name are in the variant's sentence.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the sentence of each variant names its fields")]
pub enum EngineError {
    /// There is none of this name or ID. `what` is Docker's noun: `container`, `network`, `volume`, `exec instance`.
    #[error("No such {what}: {name}")]
    NoSuch { what: &'static str, name: String },
    /// `name` is the beginning of several IDs. `what` as in [`Self::NoSuch`].
    #[error("multiple {what}s match the ID prefix {name:?}: give more digits")]
    Ambiguous { what: &'static str, name: String },
    /// Refused for what a workload is, or is doing.
    #[error(transparent)]
    Container(#[from] ContainerRefusal),
    /// Refused for a file that is copied.
    #[error(transparent)]
    Files(#[from] FilesRefusal),
    /// Refused for a network, or a workload's place on one.
    #[error(transparent)]
    Network(#[from] NetworkRefusal),
    /// Refused for a volume.
    #[error(transparent)]
    Volume(#[from] VolumeRefusal),
    /// Refused for what the request says itself.
    #[error(transparent)]
    Request(#[from] RequestRefusal),
    /// Nothing to be done: it is in the wanted state already. Docker answers 304.
    #[error("container {name} is already {}", if *running { "started" } else { "stopped" })]
    NotModified { name: String, running: bool },
    /// Of many that were to be removed, some stay, each for its own reason. `what` is Docker's noun in the plural.
    #[error(
        "{removed} {what} were removed, {} stay: {}",
        staying.len(),
        staying.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    )]
    Staying { what: &'static str, removed: usize, staying: Vec<EngineError> },
    /// A newer engine wrote the database.
    #[error(
        "{} has schema version {version}, this biremed knows {known}: start the newer biremed, or use another --data-root",
        path.display()
    )]
    /// A newer engine wrote the database at `path`.
    NewerSchema { path: PathBuf, version: i64, known: i64 },
    /// A label of the request or the image cannot be read.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// Refused or failed in the image store.
    #[error(transparent)]
    Image(#[from] bireme_image::ImageError),
    /// Refused or failed in the kernel's networks.
    #[error(transparent)]
    Net(#[from] bireme_net::NetError),
    /// Refused or failed in an executor.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// The state store failed at `what`.
    #[error("cannot remember {what}")]
    Memory {
        what: String,
        #[source]
        source: rusqlite::Error,
    },
    /// The state store's database cannot be opened or used.
    #[error(transparent)]
    Database(#[from] bireme_image::database::DatabaseError),
    /// A file or folder of the host failed, of which `path` tells.
    #[error("cannot use {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The engine is shutting down, or the owner of the workload is gone.
    #[error("the engine is stopping")]
    Stopping,
}

impl EngineError {
    /// What kind of failure this is for whoever asked; what is passed on from below keeps its own.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSuch { .. } => ErrorKind::NotFound,
            Self::Ambiguous { .. } => ErrorKind::Invalid,
            Self::Container(refusal) => refusal.kind(),
            Self::Files(refusal) => refusal.kind(),
            Self::Network(refusal) => refusal.kind(),
            Self::Volume(refusal) => refusal.kind(),
            Self::Request(refusal) => refusal.kind(),
            Self::NotModified { .. } | Self::Staying { .. } => ErrorKind::Conflict,
            Self::NewerSchema { .. } => ErrorKind::Unsupported,
            Self::Label(error) => error.kind(),
            Self::Image(error) => error.kind(),
            Self::Net(error) => error.kind(),
            Self::Exec(error) => error.kind(),
            Self::File { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => ErrorKind::Unavailable,
            Self::Memory { .. } | Self::Database(_) | Self::File { .. } => ErrorKind::Internal,
            Self::Stopping => ErrorKind::Unavailable,
        }
    }

    pub(crate) fn no_container(name: &str) -> Self {
        Self::NoSuch { what: "container", name: name.to_owned() }
    }
}

/// What is told after a removal of many, of which some stay: each with its reason.
///
/// # Errors
/// `Conflict` where any stays.
pub(crate) fn all_removed(what: &'static str, removed: usize, staying: Vec<EngineError>) -> Result<(), EngineError> {
    if staying.is_empty() { Ok(()) } else { Err(EngineError::Staying { what, removed, staying }) }
}
