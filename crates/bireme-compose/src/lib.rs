//! From a Compose file to a resolved app to an ordered plan. Pure: nothing here opens a file, a socket or a clock.
//!
//! ```text
//! files ──[yaml]──> nodes ──[keys]──> ──[interpolate]──> ──[canonical]──> ──[merge, extends, include]──> one tree
//!       ──[decode]──> Project ──[plan]──> steps ──> whoever calls the Docker API
//! ```
//!
//! A manifest of Spin (`spin.toml`) is read as the Compose file that it stands for (`spin`).
//!
//! - [`load()`] reads through [`Files`], which the caller gives, and answers a [`Project`]: absolute paths, final names,
//!   only the services of the active profiles. A key nobody knows, or one that we do not do, is refused by name, file
//!   and line; nothing is ignored in silence.
//! - [`Project::to_yaml`] is what `bireme config` prints, in the form of `docker compose config`.
//! - [`plan`] compares a project with what is there and says which steps to take in which order.
//! - [`create_request`] is the Docker API body for one container, with the labels that `docker compose` sets, so that
//!   either program understands the containers of the other.
//!
//! Invariants: no I/O but [`Files`]; nothing downstream of `decode` looks at a file; equal projects give equal plans.

#![warn(missing_docs)]

mod canonical;
mod decode;
mod dotenv;
mod error;
mod interpolate;
mod keys;
mod load;
mod local;
mod merge;
mod model;
mod order;
pub mod plan;
mod read;
mod render;
mod request;
mod scalar;
pub mod schema;
mod spin;
mod yaml;

pub use error::{ComposeError, Place};
pub use load::{Files, LoadOptions, load};
pub use local::{component_image, is_component_file, stem};
pub use model::{
    BindOptions, BlkioConfig, Build, Condition, Dependency, Deploy, DeployRestart, Device, DeviceRate, FileObject,
    FileReference, Healthcheck, Ipam, IpamPool, Logging, Mount, MountKind, Network, Port, Project, Resource, Resources,
    Service, ServiceNetwork, TmpfsOptions, Ulimit, Volume, VolumeOptions,
};
pub use request::{
    CreateRequest, InjectedFile, Replica, config_hash, container_name, create_request, labels, network_request,
    volume_request,
};
