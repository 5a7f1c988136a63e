//! Why there is no plan.

use bireme_core::ErrorKind;

use crate::ComposeError;

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error(transparent)]
    Project(#[from] ComposeError),
    #[error("network {name} is declared external and does not exist; create it with `bireme network create {name}`")]
    ExternalNetwork { name: String },
    #[error("volume {name} is declared external and does not exist; create it with `bireme volume create {name}`")]
    ExternalVolume { name: String },
    #[error(
        "{kind} {name} exists and belongs to {owner}; declare it `external: true` to use it, or give it another name"
    )]
    NotOurs { kind: &'static str, name: String, owner: String },
    #[error(
        "service {service} has container_name {name} and cannot have {count} containers; remove container_name or scale to 1"
    )]
    NamedScale { service: String, name: String, count: u32 },
    #[error(
        "service {service} depends on {missing}, which is not active; select its profile, add it, or set `required: false`"
    )]
    MissingDependency { service: String, missing: String },
    #[error("service {service} has neither an image in the store nor a way to get one: {why}")]
    NoImage { service: String, why: &'static str },
    #[error(
        "service {service} needs {kind} {name} from variable {variable}, which is not set; set it in the environment or in .env"
    )]
    Unset { service: String, kind: &'static str, name: String, variable: String },
    #[error("--force-recreate and --no-recreate exclude each other; leave one out")]
    Contradiction,
    #[error(
        "network {name} has changed in the file, but {container} is on it and its service was not selected; run up for the whole project"
    )]
    NetworkInUse { name: String, container: String },
}

impl PlanError {
    /// The kind of failure, for exit codes.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Project(error) => error.kind(),
            Self::ExternalNetwork { .. } | Self::ExternalVolume { .. } | Self::NoImage { .. } => ErrorKind::NotFound,
            Self::NotOurs { .. } | Self::NetworkInUse { .. } => ErrorKind::Conflict,
            Self::NamedScale { .. } | Self::MissingDependency { .. } | Self::Unset { .. } | Self::Contradiction => {
                ErrorKind::Invalid
            }
        }
    }
}
