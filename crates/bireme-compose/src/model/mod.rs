//! The resolved app: what a Compose file means once every form, file, variable and default has been settled.
//!
//! Serialising these types gives the keys and forms that `docker compose config` prints; whoever plans or prints reads
//! only these and never the file.

mod build;
mod dependency;
mod deploy;
mod file;
mod form;
mod healthcheck;
mod mount;
mod network;
mod port;
mod resource;
mod service;
mod volume;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

pub use build::Build;
pub use dependency::{Condition, Dependency};
pub(crate) use deploy::RESERVATIONS;
pub use deploy::{Deploy, DeployRestart, Resource, Resources};
pub(crate) use file::SECRET;
pub use file::{FileObject, FileReference};
pub use healthcheck::Healthcheck;
pub use mount::{BindOptions, Mount, MountKind, TmpfsOptions, VolumeOptions};
pub use network::{Ipam, IpamPool, Network, ServiceNetwork};
pub use port::Port;
pub(crate) use resource::ULIMIT;
pub use resource::{BlkioConfig, Device, DeviceRate, Ulimit};
use serde::Serialize;
use serde_json::Value;
pub use service::{Logging, Service};
pub use volume::Volume;

/// A whole app, resolved: paths are absolute, names are final, services outside the active profiles are gone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Project {
    /// Lower-case letters, digits, `-` and `_`; begins with a letter or digit.
    pub name: String,
    /// The project folder, absolute; relative paths of the file were resolved against it.
    #[serde(skip)]
    pub working_dir: PathBuf,
    /// The files it was read from, absolute, in the order of merging; includes and bases of `extends` are not listed.
    #[serde(skip)]
    pub files: Vec<PathBuf>,
    /// The active ones, by their key in the file.
    pub services: BTreeMap<String, Service>,
    /// Services whose image is a file, and which: absolute.
    #[serde(skip)]
    pub components: BTreeMap<String, PathBuf>,
    /// Only those that a service uses, by the key in the file.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub networks: BTreeMap<String, Network>,
    /// Only those that a service uses, by the key in the file.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Volume>,
    /// By the key in the file.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, FileObject>,
    /// By the key in the file.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub configs: BTreeMap<String, FileObject>,
    /// Services that the file has and no active profile wants; `--profile` or naming one would bring it in.
    #[serde(skip)]
    pub disabled: BTreeMap<String, Service>,
    /// The active profiles.
    #[serde(skip)]
    pub profiles: BTreeSet<String>,
    /// What a person should be told: variables that are used and not set.
    #[serde(skip)]
    pub warnings: Vec<String>,
    /// Every `x-…` key of the top level.
    #[serde(flatten)]
    pub extensions: BTreeMap<String, Value>,
}
