//! Refusals about volumes.

use std::io;
use std::path::PathBuf;

use bireme_core::ErrorKind;

/// Why something is not done with a volume. `name` is the volume's.
#[derive(Debug, thiserror::Error)]
pub enum VolumeRefusal {
    #[error("get {name}: no such volume")]
    NotFound { name: String },
    #[error(
        "create {name}: {name:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
    )]
    NameInvalid { name: String },
    #[error("error looking up volume plugin {driver}: plugin \"{driver}\" not found: only the driver local is offered")]
    NoDriver { driver: String },
    #[error("create {name}: {fault}")]
    Option { name: String, fault: OptionFault },
    /// Options that are understood and not offered.
    #[error(
        "volume option \"size\" of driver local is not offered: limit it with o=size=… of type tmpfs, or put the device on a disk of that size"
    )]
    SizeOption,
    #[error("error while mounting volume '{}': failed to mount local volume: mount {device}: {source}", at.display())]
    Mount { at: PathBuf, device: String, source: io::Error },
    /// `users` are IDs of workloads.
    #[error("remove {name}: volume is in use - [{}]", users.join(", "))]
    InUse { name: String, users: Vec<String> },
    #[error("remove {name}: something is mounted at {}: unmount it first, nothing was removed", at.display())]
    MountedBelow { name: String, at: PathBuf },
    #[error(
        "the record of volume {name} cannot be read, and what is stored in it is kept: start the engine that wrote the record, or remove the volume by force (docker volume rm -f {name})"
    )]
    Unreadable { name: String },
}

impl VolumeRefusal {
    /// What kind of failure this is for whoever asked.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } | Self::NoDriver { .. } => ErrorKind::NotFound,
            Self::SizeOption => ErrorKind::Unsupported,
            Self::NameInvalid { .. } | Self::Option { .. } | Self::Mount { .. } => ErrorKind::Invalid,
            Self::InUse { .. } | Self::MountedBelow { .. } | Self::Unreadable { .. } => ErrorKind::Conflict,
        }
    }
}

/// What is wrong with the options of a volume.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionFault {
    #[error("invalid option: {0:?}")]
    Unknown(String),
    /// Another option needs it.
    #[error("missing required option: {0:?}")]
    Missing(&'static str),
    /// See [`VolumeRefusal::SizeOption`].
    #[error("{}", VolumeRefusal::SizeOption)]
    Size,
}
