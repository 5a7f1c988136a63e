//! Linux containers: the executor the daemon uses, and what it shares with `bireme-runner`.
//!
//! ```text
//! biremed ── LinuxExecutor ──spawns──> bireme-runner ──libcontainer──> init of the container
//!                 └────── runner.sock ───────┘ (stdio, pty, log, exec, end)
//!                 └────── cgroup files ───── stats, processes, clearing up after a runner that was killed
//! ```
//!
//! - [`protocol`]: the requests and the configuration of a runner;
//! - [`spec`]: from a `WorkloadSpec` to an OCI runtime specification, Docker's defaults included;
//! - [`users`]: `user[:group]` looked up in the container's own files;
//! - [`cgroup`] and [`limits`]: the few things we do with cgroups ourselves, on v1, hybrid and v2;
//! - [`LinuxExecutor`] (feature `executor`): the daemon's side. It never calls libcontainer, which must not be called
//!   from a process with threads.
#![warn(missing_docs)]

pub mod cgroup;
pub mod limits;
pub mod protocol;
pub mod spec;
pub mod users;

#[cfg(feature = "executor")]
mod executor;

#[cfg(feature = "executor")]
pub use executor::{LinuxExecutor, LinuxOptions, runs};
