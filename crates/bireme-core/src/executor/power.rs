//! What workloads of one kind can do, and those of another cannot.

use std::fmt;

use crate::spec::Port;

/// Something that an executor's workloads may lack: [`Executor::lacks`](super::Executor::lacks) says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// Standard streams to attach to: [`Workload::as_attach`](super::Workload::as_attach).
    Attach,
    /// A terminal.
    Terminal,
    /// Further processes inside: [`Workload::as_exec`](super::Workload::as_exec).
    Exec,
    /// [`Workload::as_pause`](super::Workload::as_pause).
    Pause,
    /// Limits that change while it runs: [`Workload::as_limits`](super::Workload::as_limits).
    Limits,
    /// A file tree to copy from and to: [`Program::layers`](super::Program::layers).
    Copy,
    /// Files of its own, which can be listed, exported and made an image of: [`Program::layers`](super::Program::layers).
    Changes,
    /// Health checks that run a command inside.
    ProbeCommand,
    /// Being looked into while it runs: [`Workload::as_diagnose`](super::Workload::as_diagnose).
    Diagnose,
    /// Answering on this port of its own, where it is published.
    Publish(Port),
}

impl fmt::Display for Power {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attach => f.write_str("be attached to"),
            Self::Terminal => f.write_str("have a terminal"),
            Self::Exec => f.write_str("run further processes"),
            Self::Pause => f.write_str("be paused"),
            Self::Limits => f.write_str("change its limits while it runs"),
            Self::Copy => f.write_str("be copied from or to"),
            Self::Changes => f.write_str("show or keep changes of its files"),
            Self::ProbeCommand => f.write_str("run a health check command"),
            Self::Diagnose => f.write_str("be profiled, nor leave a core dump of an instance"),
            Self::Publish(port) => write!(f, "publish port {}/{}", port.number, port.protocol.as_str()),
        }
    }
}
