//! What the daemon and one `bireme-runner` say to each other.
//!
//! ```text
//! biremed                                         bireme-runner (one per container)
//!    ── run_dir/runner.json, spawn ───────────────> mounts, libcontainer: init stands and waits
//!    <──────────────── one Reply on its stdout ────
//!    ── connect run_dir/runner.sock ──────────────>
//!    ── one Request, one line of JSON ────────────>
//!    <──────────────────── one Reply, one line ────
//!    <═══ attach, exec: the connection is the stream from here on ═══>
//! ```
//!
//! One request per connection. The runner looks at the peer's user id and answers nobody but its own. It writes
//! [`exit_file`] before it answers a waiting [`Request::Wait`], and removes the socket when everything is released.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use bireme_core::executor::ExecSpec;
use bireme_core::{ErrorKind, ExecError, Exit, Program, WorkloadSpec};
use bireme_core::{NetworkPlace, executor::LogTarget};
use serde::{Deserialize, Serialize};

/// The longest line either side accepts, in bytes.
pub const MAX_LINE: usize = 4 << 20;

/// What a runner is told once, in [`config_file`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunnerConfig {
    /// The container as it shall run. Its secrets are in it: the runner removes the file once it has read it.
    pub spec: WorkloadSpec,
    /// The image's layers and the container's own folder on top; nothing else is taken.
    pub program: Program,
    /// The container's folder below the data root: its [`exit_file`], and what is put into its `/etc`.
    pub state_dir: PathBuf,
    /// The container's folder below the exec root, emptied by a restart of the machine: where the runner works, with its
    /// [`socket_file`] and [`log_file`].
    pub run_dir: PathBuf,
    /// Where what init writes is recorded, and how much of it is kept.
    pub log: LogTarget,
    /// The network namespace that the engine made for it; `None` leaves it to [`Joins::network`] and the specification.
    pub network: Option<NetworkPlace>,
    /// Files to be put at the given paths inside, with their text. A mount of the user's at the same path wins.
    pub etc: Vec<(PathBuf, String)>,
    /// Path of the container's cgroup below each hierarchy's root, with a leading slash.
    pub cgroup: String,
    /// Namespaces of other workloads to join, resolved.
    pub joins: Joins,
    /// The folder where compiled seccomp filters are kept for those that come later.
    pub filters: PathBuf,
    /// How long an attached client may take nothing before it is cut off, in milliseconds.
    pub stall_ms: u64,
}

/// The init processes whose namespaces are shared, as process ids on the host.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Joins {
    /// Of the workload whose network namespace is shared, where the engine gave no [`RunnerConfig::network`].
    pub network: Option<u32>,
    /// Of the workload whose PID namespace is shared: each sees the processes of both.
    pub pid: Option<u32>,
    /// Of the workload whose IPC namespace is shared, and its `/dev/shm` with it.
    pub ipc: Option<u32>,
    /// Of the workload whose UTS namespace is shared, and its hostname with it.
    pub uts: Option<u32>,
}

/// All that anyone may ask of a runner.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "op")]
pub enum Request {
    /// Lets init execute the program; answered when it was executed.
    Start,
    /// Answered at once with [`Reply::State`].
    State,
    /// Sends a signal to init; SIGKILL to all processes, paused or not. Source: Docker Engine API, `ContainerKill`.
    Signal {
        /// From 1 to 64, real-time signals included.
        number: i32,
    },
    /// Answered with [`Reply::Exit`] when the container has ended. The connection then stays open until everything is released.
    Wait,
    /// After the answer the connection is the stream of init: with a terminal as it is, else in Docker's frames. Source:
    /// Docker Engine API, `ContainerAttach`.
    Attach {
        /// What is written to the connection goes to init, if the container was created with an open standard input.
        stdin: bool,
    },
    /// Sets the size of the container's terminal. Refused as a conflict where it has none.
    Resize {
        /// Characters in a line.
        columns: u16,
        /// Lines.
        rows: u16,
    },
    /// Starts a process beside init; answered with [`Reply::Exec`] when its program was executed. From then on the
    /// connection is its stream, as with [`Request::Attach`].
    Exec {
        /// What it is called in later requests; never used before in this container.
        id: String,
        /// What to execute, as whom and where.
        spec: ExecSpec,
    },
    /// Answered with [`Reply::ExecExit`] when that process has ended.
    ExecWait {
        /// As in [`Request::Exec`]. The latest ends are remembered, so it may have ended before.
        id: String,
    },
    /// Kills the process of an exec and what it started in its session. One that is not there is no error.
    ExecKill {
        /// As in [`Request::Exec`].
        id: String,
    },
    /// Sets the size of an exec's terminal. Refused as a conflict where it has none.
    ExecResize {
        /// As in [`Request::Exec`].
        id: String,
        /// Characters in a line.
        columns: u16,
        /// Lines.
        rows: u16,
    },
    /// Freezes every process, once no exec is on its way. Refused as a conflict where they are frozen already.
    Pause,
    /// Thaws what [`Request::Pause`] froze. Refused as a conflict where nothing is.
    Resume,
    /// Ends the container at once; the runner then releases everything and exits.
    Delete,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// What was asked is done.
    Done,
    /// To [`Request::State`]; also the first thing a runner says, on its standard output, when init stands.
    State(State),
    /// To [`Request::Exec`]: its program was executed.
    Exec {
        /// Of the new process, on the host.
        pid: u32,
    },
    /// To [`Request::ExecWait`].
    ExecExit {
        /// Its exit code, or 128 and the number of the signal that ended it.
        code: i32,
    },
    /// To [`Request::Wait`]: how the container ended.
    Exit(Exit),
    /// To any request: it is refused, or was tried in vain.
    Failed(Failure),
}

/// A container as its runner sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// Of init, on the host.
    pub pid: u32,
    /// Init has executed the program.
    pub started: bool,
    /// Its processes are frozen by [`Request::Pause`].
    pub paused: bool,
    /// How it ended, once it has and its output is read.
    pub exit: Option<Exit>,
}

/// An [`ExecError`] on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Whose fault it is, which becomes the HTTP status.
    pub kind: ErrorKind,
    /// A sentence for the client, with the cause in it: errors' sources do not cross the wire.
    pub message: String,
    /// What the container's exit code is to be because of this: Docker's 126 and 127 where its program cannot be executed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}

impl Failure {
    /// One that says nothing of an exit code.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), exit_code: None }
    }

    /// The same, as the reason for that exit code of the container.
    #[must_use]
    pub fn with_exit_code(mut self, code: i32) -> Self {
        self.exit_code = Some(code);
        self
    }
}

impl From<Failure> for ExecError {
    fn from(failure: Failure) -> Self {
        let error = ExecError::new(failure.kind, failure.message);
        match failure.exit_code {
            Some(code) => error.with_exit_code(code),
            None => error,
        }
    }
}

/// Where the runner reads its [`RunnerConfig`].
pub fn config_file(run_dir: &Path) -> PathBuf {
    run_dir.join("runner.json")
}

/// The socket a runner listens on.
pub fn socket_file(run_dir: &Path) -> PathBuf {
    run_dir.join("runner.sock")
}

/// What the runner has to say about itself: warnings and errors, as text.
pub fn log_file(run_dir: &Path) -> PathBuf {
    run_dir.join("runner.log")
}

/// The record of how the container ended: one [`Exit`] as JSON, written under another name and renamed.
pub fn exit_file(state_dir: &Path) -> PathBuf {
    state_dir.join("exit.json")
}

/// Reads [`exit_file`].
///
/// # Errors
/// Those of reading; `NotFound` when there is none, `InvalidData` or `UnexpectedEof` when it is not a record.
pub fn read_exit(state_dir: &Path) -> std::io::Result<Exit> {
    Ok(serde_json::from_slice(&std::fs::read(exit_file(state_dir))?)?)
}

/// Writes [`exit_file`] so that a reader sees all of it or nothing.
///
/// # Errors
/// Those of writing.
pub fn write_exit(state_dir: &Path, exit: &Exit) -> std::io::Result<()> {
    let temporary = state_dir.join(format!("exit.{}", std::process::id()));
    let text = serde_json::to_vec(exit)?;
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(&text)?;
    drop(file);
    std::fs::rename(temporary, exit_file(state_dir))
}
