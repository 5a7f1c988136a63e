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
    pub spec: WorkloadSpec,
    pub program: Program,
    pub state_dir: PathBuf,
    pub run_dir: PathBuf,
    pub log: LogTarget,
    pub network: Option<NetworkPlace>,
    /// Files to be put at the given paths inside.
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
    pub network: Option<u32>,
    pub pid: Option<u32>,
    pub ipc: Option<u32>,
    pub uts: Option<u32>,
}

/// All that anyone may ask of a runner.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "op")]
pub enum Request {
    /// Lets init execute the program; answered when it was executed.
    Start,
    /// What state it is in.
    State,
    Signal {
        number: i32,
    },
    /// Answered when the container has ended. The connection then stays open until everything is released.
    Wait,
    Attach {
        stdin: bool,
    },
    Resize {
        columns: u16,
        rows: u16,
    },
    Exec {
        id: String,
        spec: ExecSpec,
    },
    /// Answered when that process has ended.
    ExecWait {
        id: String,
    },
    /// Kills the process of an exec and what it started in its session.
    ExecKill {
        id: String,
    },
    ExecResize {
        id: String,
        columns: u16,
        rows: u16,
    },
    Pause,
    Resume,
    /// Ends the container at once; the runner then releases everything and exits.
    Delete,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Done,
    State(State),
    /// The process id of the new process on the host.
    Exec {
        pid: u32,
    },
    ExecExit {
        code: i32,
    },
    Exit(Exit),
    Failed(Failure),
}

/// A container as its runner sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// Of init, on the host.
    pub pid: u32,
    pub started: bool,
    pub paused: bool,
    pub exit: Option<Exit>,
}

/// An [`ExecError`] on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub kind: ErrorKind,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}

impl Failure {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), exit_code: None }
    }

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
/// Those of reading; `NotFound` when there is none.
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
