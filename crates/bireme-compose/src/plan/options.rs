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
    pub force_recreate: bool,
    pub no_recreate: bool,
    /// Recreate dependencies too when `force_recreate` is set.
    pub always_recreate_deps: bool,
    /// Remove containers of services that the file no longer has; otherwise they are [`Plan::orphans`].
    pub remove_orphans: bool,
    pub no_deps: bool,
    /// Create and do not start.
    pub no_start: bool,
    /// Over each service's `pull_policy`.
    pub pull: Option<PullPolicy>,
    pub build: BuildPolicy,
    /// Wait until everything started is running or healthy.
    pub wait: bool,
    /// Over each service's `stop_grace_period`.
    pub stop_timeout: Option<Duration>,
}

/// When to fetch an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    Always,
    #[default]
    Missing,
    Never,
}

/// When to build an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BuildPolicy {
    Always,
    #[default]
    Missing,
    Never,
}

/// What `down` was asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DownOptions {
    /// Only these services; empty: the whole project with its networks.
    pub services: Vec<String>,
    /// Remove named volumes that are not external, and anonymous ones.
    pub volumes: bool,
    pub rmi: RemoveImages,
    pub remove_orphans: bool,
    /// Over each service's `stop_grace_period`.
    pub stop_timeout: Option<Duration>,
}

/// Which images `down` removes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RemoveImages {
    #[default]
    None,
    /// Those that the project built and gave no name.
    Local,
    All,
}
