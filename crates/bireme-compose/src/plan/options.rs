//! What the command line asks of `up` and `down`.

use std::collections::BTreeMap;
use std::time::Duration;

/// What `up` was asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UpOptions {
    /// Only these, and what they depend on; empty: all.
    pub services: Vec<String>,
    /// Containers per service, over what the file says.
    pub scale: BTreeMap<String, u32>,
    /// Recreate containers that are up to date too.
    pub force_recreate: bool,
    /// Keep containers that are out of date.
    pub no_recreate: bool,
    /// Recreate dependencies too when `force_recreate` is set.
    pub always_recreate_deps: bool,
    /// Remove containers of services that the file no longer has; otherwise they are
    /// [`Plan::orphans`](super::Plan::orphans).
    pub remove_orphans: bool,
    /// Leave alone what the named services depend on.
    pub no_deps: bool,
    /// Create and do not start.
    pub no_start: bool,
    /// Over each service's `pull_policy`.
    pub pull: Option<PullPolicy>,
    /// When services with a `build` are built.
    pub build: BuildPolicy,
    /// Wait until everything started is running or healthy.
    pub wait: bool,
    /// Over each service's `stop_grace_period`.
    pub stop_timeout: Option<Duration>,
}

/// When to fetch an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Even when the store has it.
    Always,
    /// When the store has it not.
    #[default]
    Missing,
    /// Not even then: a missing image is an error.
    Never,
}

/// When to build an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BuildPolicy {
    /// Even when the store has it.
    Always,
    /// When the store has it not, or the service says `pull_policy: build`.
    #[default]
    Missing,
    /// Not even then: a missing image is an error.
    Never,
}

/// What `down` was asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DownOptions {
    /// Only these services; empty: the whole project with its networks.
    pub services: Vec<String>,
    /// Remove named volumes that are not external, and anonymous ones.
    pub volumes: bool,
    /// Which images go too.
    pub rmi: RemoveImages,
    /// Remove containers of services that the file no longer has; otherwise they are
    /// [`Plan::orphans`](super::Plan::orphans).
    pub remove_orphans: bool,
    /// Over each service's `stop_grace_period`.
    pub stop_timeout: Option<Duration>,
}

/// Which images `down` removes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RemoveImages {
    /// None at all.
    #[default]
    None,
    /// Those that the project built and gave no name.
    Local,
    /// Those of all services.
    All,
}
