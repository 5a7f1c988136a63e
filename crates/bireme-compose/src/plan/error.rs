//! Why there is no plan.

use bireme_core::ErrorKind;

use crate::ComposeError;

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The project itself is at fault: a name that is no service, a circle of dependencies.
    #[error(transparent)]
    Project(#[from] ComposeError),
    /// Whoever declares a network external must make it.
    #[error("network {name} is declared external and does not exist; create it with `bireme network create {name}`")]
    ExternalNetwork {
        /// The engine's name for it.
        name: String,
    },
    /// Whoever declares a volume external must make it.
    #[error("volume {name} is declared external and does not exist; create it with `bireme volume create {name}`")]
    ExternalVolume {
        /// The engine's name for it.
        name: String,
    },
    /// A network is there under the name that the project wants, and is not the project's.
    #[error(
        "{kind} {name} exists and belongs to {owner}; declare it `external: true` to use it, or give it another name"
    )]
    NotOurs {
        /// `network` or `volume`.
        kind: &'static str,
        /// The engine's name for it.
        name: String,
        /// `project NAME` or `no project`.
        owner: String,
    },
    /// One name cannot be given to several containers.
    #[error(
        "service {service} has container_name {name} and cannot have {count} containers; remove container_name or scale to 1"
    )]
    NamedScale {
        /// The key in the file.
        service: String,
        /// Its `container_name`.
        name: String,
        /// How many containers are wanted.
        count: u32,
    },
    /// A dependency that is required is neither active nor selected.
    #[error(
        "service {service} depends on {missing}, which is not active; select its profile, add it, or set `required: false`"
    )]
    MissingDependency {
        /// Who depends.
        service: String,
        /// On whom.
        missing: String,
    },
    /// The image is absent and may be neither built nor pulled.
    #[error("service {service} has neither an image in the store nor a way to get one: {why}")]
    NoImage {
        /// The key in the file.
        service: String,
        /// What forbids it, as the end of a sentence.
        why: &'static str,
    },
    /// A secret or config comes from a variable that is not set.
    #[error(
        "service {service} needs {kind} {name} from variable {variable}, which is not set; set it in the environment or in .env"
    )]
    Unset {
        /// Who uses it.
        service: String,
        /// `secret` or `config`.
        kind: &'static str,
        /// Its key in the file.
        name: String,
        /// The name of the variable.
        variable: String,
    },
    /// `force_recreate` and `no_recreate` were both asked for.
    #[error("--force-recreate and --no-recreate exclude each other; leave one out")]
    Contradiction,
    /// A network must be made anew and a container is on it that this plan may not touch.
    #[error(
        "network {name} has changed in the file, but {container} is on it and its service was not selected; run up for the whole project"
    )]
    NetworkInUse {
        /// The engine's name for it.
        name: String,
        /// The name of the container.
        container: String,
    },
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
