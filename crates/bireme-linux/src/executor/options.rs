//! How the executor is set up.

use std::path::PathBuf;
use std::time::Duration;

/// How a [`LinuxExecutor`](super::LinuxExecutor) is set up.
#[derive(Clone, Debug)]
pub struct LinuxOptions {
    /// The `bireme-runner` binary.
    pub runner: PathBuf,
    /// A short name of this engine, unique on the machine: its cgroups are below `/bireme-<instance>`. Letters, digits
    /// and `-`.
    pub instance: String,
    /// The folder where runners keep compiled seccomp filters.
    pub filters: PathBuf,
    /// How long an attached client may take nothing while the container waits for it; then that client is cut off.
    /// 30 seconds by default.
    pub attach_stall: Duration,
}

impl LinuxOptions {
    /// Options with every default.
    pub fn new(runner: impl Into<PathBuf>, instance: impl Into<String>, filters: impl Into<PathBuf>) -> Self {
        let (runner, instance, filters) = (runner.into(), instance.into(), filters.into());
        Self { runner, instance, filters, attach_stall: Duration::from_secs(30) }
    }
}
