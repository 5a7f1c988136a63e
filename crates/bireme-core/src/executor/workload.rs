//! One workload that an executor runs, and what some kinds of it offer beyond that.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{CoreDump, InvocationStats, NamedNetwork, ProcessTable, Profile, Stats};
use crate::spec::{Exit, Resources, Signal};
use crate::{BoxFuture, ExecError};

/// A workload that an executor [created](super::Executor::create) or [found again](super::Executor::reattach).
///
/// All methods may be called at any time and concurrently; out of order they answer `Conflict`.
pub trait Workload: Send + Sync {
    /// Lets it run; returns once the program was executed (container) or is ready for its triggers (component).
    ///
    /// # Errors
    /// With [`ExecError::exit_code`] 126 or 127 where the command itself is at fault; the message then contains
    /// `permission denied` or `executable file not found in $PATH`, which Docker's CLI looks for.
    fn start(&self) -> BoxFuture<'_, Result<(), ExecError>>;

    /// The process that stands for it on the host (a container's init; a component's host process); `None` when it is
    /// not running.
    fn pid(&self) -> Option<u32>;

    /// Sends a signal: to init of a container; a component ends by what would end a process.
    ///
    /// # Errors
    /// `Conflict` when it does not run.
    fn signal(&self, signal: Signal) -> BoxFuture<'_, Result<(), ExecError>>;

    /// Waits until it ends, however it ends; at once if it has ended. May be called by many at once.
    /// Dropping the future leaves the workload untouched.
    fn wait(&self) -> BoxFuture<'_, Result<Exit, ExecError>>;

    /// What it uses now.
    ///
    /// # Errors
    /// `Conflict` when it does not run; `Unavailable` when its process does not answer.
    fn stats(&self) -> BoxFuture<'_, Result<Stats, ExecError>>;

    /// The processes of a container, the live instances of a component.
    fn processes<'a>(&'a self, ps_args: &'a str) -> BoxFuture<'a, Result<ProcessTable, ExecError>>;

    /// Ends it at once if it still runs and releases what [creating it](super::Executor::create) made. Collects errors and goes on.
    fn delete(&self) -> BoxFuture<'_, Result<(), ExecError>>;

    /// The networks whose names this workload resolves changed, while it runs: it was connected or disconnected. Of
    /// interest only where its executor offers [`Executor::as_resolver`](super::Executor::as_resolver).
    fn networks_changed(&self, networks: Vec<NamedNetwork>) -> BoxFuture<'_, ()> {
        let _ = networks;
        Box::pin(async {})
    }

    /// It is called `name` from now on.
    fn renamed<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ()> {
        let _ = name;
        Box::pin(async {})
    }

    /// Its standard streams as one connection.
    fn as_attach(&self) -> Option<&dyn Attach> {
        None
    }
    /// Further processes beside the first: only Linux containers.
    fn as_exec(&self) -> Option<&dyn ExecInto> {
        None
    }
    /// Standing still and going on.
    fn as_pause(&self) -> Option<&dyn Pause> {
        None
    }
    /// Limits that change while it runs: only Linux containers.
    fn as_limits(&self) -> Option<&dyn Limits> {
        None
    }
    /// Instances started per request: only components.
    fn as_invocations(&self) -> Option<&dyn Invocations> {
        None
    }
    /// What it computes, and the state in which it trapped: only components.
    fn as_diagnose(&self) -> Option<&dyn Diagnose> {
        None
    }
}

/// Standard streams of a workload, for clients.
pub trait Attach: Send + Sync {
    /// Opens the standard streams.
    ///
    /// What is read from the answer are the frames of Docker's attach protocol (8-byte header: stream number, three
    /// zero bytes, big-endian length), or raw bytes when the workload has a tty. What is written is standard input,
    /// where `stdin` was asked for; shutting down the write half ends it. Output starts at the moment of the call.
    ///
    /// Source: Docker Engine API, `ContainerAttach`.
    fn attach(&self, stdin: bool) -> BoxFuture<'_, Result<UnixStream, ExecError>>;

    /// Sets the size of the terminal, in characters. `Conflict` without a tty.
    fn resize(&self, columns: u16, rows: u16) -> BoxFuture<'_, Result<(), ExecError>>;
}

/// Processes that are run in a workload beside its first.
///
/// Source: Docker Engine API, `ContainerExec`, `ExecStart`.
pub trait ExecInto: Send + Sync {
    /// Runs one more process inside. `exec_id` is the caller's, unique per workload.
    fn exec<'a>(&'a self, exec_id: &'a str, spec: ExecSpec) -> BoxFuture<'a, Result<ExecStarted, ExecError>>;
    /// Ends the process of `exec_id` at once, and what it started in its session. Nothing happens to one that has ended.
    fn exec_kill<'a>(&'a self, exec_id: &'a str) -> BoxFuture<'a, Result<(), ExecError>>;
    /// Waits for the process of `exec_id`; answers its exit code. The last few hundred that ended are remembered for as long
    /// as the workload runs.
    fn exec_wait<'a>(&'a self, exec_id: &'a str) -> BoxFuture<'a, Result<i32, ExecError>>;
    /// Sets the size of the terminal of `exec_id`, in characters. `Conflict` without a tty.
    fn exec_resize<'a>(&'a self, exec_id: &'a str, columns: u16, rows: u16) -> BoxFuture<'a, Result<(), ExecError>>;
}

/// A process to be run in a workload that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// The program and its arguments; at least one.
    pub args: Vec<String>,
    /// Added to the workload's own.
    pub env: Vec<String>,
    /// Absolute path inside; `None` is the working folder of the workload.
    pub cwd: Option<String>,
    /// `user[:group]` by name or number; `None` is the workload's own.
    pub user: Option<String>,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// Whether its standard input is connected; otherwise it reads end of file.
    pub stdin: bool,
    /// Whether it has every capability, whatever the workload has.
    pub privileged: bool,
    /// Columns and rows to begin with.
    pub size: Option<(u16, u16)>,
}

/// A process that was started in a workload.
pub struct ExecStarted {
    /// On the host.
    pub pid: u32,
    /// As [`Attach::attach`].
    pub stream: UnixStream,
}

/// Workloads whose processes can stand still.
///
/// Source: Docker Engine API, `ContainerPause`; `cgroup.freeze` of cgroup-v2.
pub trait Pause: Send + Sync {
    /// Has all its processes stand still, until [`Self::resume`].
    fn pause(&self) -> BoxFuture<'_, Result<(), ExecError>>;
    /// Has them go on.
    fn resume(&self) -> BoxFuture<'_, Result<(), ExecError>>;
    /// Whether they stand still, by [`Self::pause`] of whoever called it.
    ///
    /// # Errors
    /// `Unavailable` when whoever stands for it does not answer.
    fn is_paused(&self) -> BoxFuture<'_, Result<bool, ExecError>>;
}

/// Workloads whose limits may change while they run.
///
/// Source: Docker Engine API, `ContainerUpdate`.
pub trait Limits: Send + Sync {
    /// Changes the limits of what runs from `from` to `to`, which [`check`](super::Executor::check) has passed. What is the same
    /// in both is not touched.
    ///
    /// # Errors
    /// `Conflict` when the kernel refuses, for example a memory limit below what is in use. What was changed before is
    /// put back.
    fn limit<'a>(&'a self, from: &'a Resources, to: &'a Resources) -> BoxFuture<'a, Result<(), ExecError>>;
}

/// Workloads that make an instance for each request or message.
pub trait Invocations: Send + Sync {
    /// What became of its instances so far.
    fn invocations(&self) -> BoxFuture<'_, Result<InvocationStats, ExecError>>;
}

/// Workloads that can be looked into while they run.
pub trait Diagnose: Send + Sync {
    /// What its instances spend processor time in during `time`.
    ///
    /// # Errors
    /// `Conflict` while another does the same.
    /// # Cancel safety
    /// It goes on for some minutes at most, and may be begun anew after that.
    fn profile(&self, time: Duration) -> BoxFuture<'_, Result<Profile, ExecError>>;

    /// The state of the next instance that traps within `time`, in the core dump format of WebAssembly's tool conventions;
    /// `None` where none does.
    ///
    /// # Errors
    /// `Conflict` while another waits for the same.
    /// # Cancel safety
    /// As [`Self::profile`].
    fn core_dump(&self, time: Duration) -> BoxFuture<'_, Result<Option<(CoreDump, File)>, ExecError>>;
}
