//! What can go wrong in the engine, in sentences that name the thing, the reason and the next step.

use std::path::PathBuf;

use bireme_core::{ErrorKind, ExecError, LabelError};

use crate::refusal::{ContainerRefusal, FilesRefusal, NetworkRefusal, RequestRefusal, VolumeRefusal};

/// A refused or failed request.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// `what` is Docker's noun: `container`, `network`, `volume`, `exec instance`.
    #[error("No such {what}: {name}")]
    NoSuch { what: &'static str, name: String },
    #[error("multiple {what}s match the ID prefix {name:?}: give more digits")]
    Ambiguous { what: &'static str, name: String },
    #[error(transparent)]
    Container(#[from] ContainerRefusal),
    #[error(transparent)]
    Files(#[from] FilesRefusal),
    #[error(transparent)]
    Network(#[from] NetworkRefusal),
    #[error(transparent)]
    Volume(#[from] VolumeRefusal),
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
    NewerSchema { path: PathBuf, version: i64, known: i64 },
    #[error(transparent)]
    Label(#[from] LabelError),
    #[error(transparent)]
    Image(#[from] bireme_image::ImageError),
    #[error(transparent)]
    Net(#[from] bireme_net::NetError),
    #[error(transparent)]
    Exec(#[from] ExecError),
    #[error("cannot remember {what}")]
    Memory {
        what: String,
        #[source]
        source: rusqlite::Error,
    },
    #[error(transparent)]
    Database(#[from] bireme_image::database::DatabaseError),
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
