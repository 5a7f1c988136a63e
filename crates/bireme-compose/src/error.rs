//! What can be wrong with a Compose file, and where.

use std::fmt;
use std::path::PathBuf;

use bireme_core::ErrorKind;

/// Where in which file: every part that is known is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Absolute, or `-` for standard input.
    pub file: Option<PathBuf>,
    /// The first line is 1.
    pub line: Option<usize>,
    /// Such as `services.web.ports[1]`; empty for the file as a whole.
    pub key: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", file.display())?;
            if let Some(line) = self.line {
                write!(f, "{line}:")?;
            }
            f.write_str(" ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        Ok(())
    }
}

/// Why a project could not be loaded or ordered. `Display` names the file, the line and the key, what is wrong and what
/// to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ComposeError {
    /// No Compose file, or one that was named and is not there.
    #[error("{0}")]
    NotFound(String),
    /// A file that is there could not be read.
    #[error("cannot read {path}: {reason}", path = .path.display())]
    Read {
        /// The file, absolute.
        path: PathBuf,
        /// What the operating system says.
        reason: String,
    },
    /// Malformed, contradictory or beyond a limit.
    #[error("{place}{reason}")]
    Invalid {
        /// The key or value that is wrong.
        place: Box<Place>,
        /// What is wrong and what to do, to follow the place: "must be a list, but is a string".
        reason: String,
    },
    /// A key or value that the Compose specification has and this engine does not do.
    #[error("{place}{reason}")]
    Unsupported {
        /// The key or value that is refused.
        place: Box<Place>,
        /// What is not done and what to do instead, to follow the place.
        reason: String,
    },
    /// `${VAR:?message}` of a variable that is not set.
    #[error("{place}variable {variable} is required: {message}; set it in the environment or in .env")]
    Required {
        /// The value in which the variable is used.
        place: Box<Place>,
        /// Its name, without `$`.
        variable: String,
        /// What the file says after `:?`.
        message: String,
    },
    /// A service that was asked for does not exist.
    #[error("no such service: {name}{}", .nearest.as_ref().map(|near| format!(" (did you mean {near}?)")).unwrap_or_default())]
    NoSuchService {
        /// As it was asked for.
        name: String,
        /// The most similar name that the project has, if any is near.
        nearest: Option<String>,
    },
    /// Services that wait for each other.
    #[error("services depend on each other in a circle: {}; remove one of these depends_on", .0.join(" -> "))]
    Cycle(Vec<String>),
}

impl ComposeError {
    /// The kind of failure, for exit codes.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) | Self::NoSuchService { .. } => ErrorKind::NotFound,
            Self::Read { .. } => ErrorKind::Unavailable,
            Self::Invalid { .. } | Self::Required { .. } | Self::Cycle(_) => ErrorKind::Invalid,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
        }
    }

    /// A malformed value at `key`, before the file and line are known.
    pub(crate) fn invalid(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { place: Box::new(Place { key: key.into(), ..Place::default() }), reason: reason.into() }
    }
}
