//! What can go wrong in the engine, in sentences that name the thing, the reason and the next step.

use bireme_core::{ErrorKind, ExecError, LabelError};

/// A refused or failed request.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// `what` is Docker's noun: `container`, `network`, `volume`, `exec instance`.
    #[error("No such {what}: {name}")]
    NoSuch { what: &'static str, name: String },
    /// Docker's wording for volumes and networks differs from that for containers.
    #[error("{message}")]
    NotFound { message: String },
    #[error("multiple {what}s match the ID prefix {name:?}: give more digits")]
    Ambiguous { what: &'static str, name: String },
    #[error("{message}")]
    Conflict { message: String },
    #[error("{message}")]
    Invalid { message: String },
    #[error("{message}")]
    Denied { message: String },
    #[error("{message}")]
    Unsupported { message: String },
    /// Nothing to be done: it is in the wanted state already. Docker answers 304.
    #[error("{message}")]
    NotModified { message: String },
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
        path: std::path::PathBuf,
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
            Self::NoSuch { .. } | Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Ambiguous { .. } | Self::Invalid { .. } => ErrorKind::Invalid,
            Self::Conflict { .. } | Self::NotModified { .. } => ErrorKind::Conflict,
            Self::Denied { .. } => ErrorKind::Denied,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::Label(error) => error.kind(),
            Self::Image(error) => error.kind(),
            Self::Net(error) => error.kind(),
            Self::Exec(error) => error.kind(),
            Self::File { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => ErrorKind::Unavailable,
            Self::Memory { .. } | Self::Database(_) | Self::File { .. } => ErrorKind::Internal,
            Self::Stopping => ErrorKind::Unavailable,
        }
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::Conflict { message: message.into() }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid { message: message.into() }
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        ExecError::new(ErrorKind::Unavailable, message).into()
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::Unsupported { message: message.into() }
    }

    pub(crate) fn no_container(name: &str) -> Self {
        Self::NoSuch { what: "container", name: name.to_owned() }
    }
}

/// What is told after a removal of many, of which some stay: each with its reason.
///
/// # Errors
/// `Conflict` where any stays.
pub(crate) fn all_removed(what: &str, removed: usize, staying: Vec<String>) -> Result<(), EngineError> {
    if staying.is_empty() {
        return Ok(());
    }
    Err(EngineError::conflict(format!("{removed} {what} were removed, {} stay: {}", staying.len(), staying.join("; "))))
}
