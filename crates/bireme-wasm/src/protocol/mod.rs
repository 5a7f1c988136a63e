//! What the daemon and a host process say to each other.
//!
//! One connection carries one request: four bytes of length (big endian), then JSON, with file descriptors attached to
//! the first bytes; the answer has the same form. The connection of [`Request::Wait`] stays open until the workload
//! ends; the one of [`Request::Attach`] goes on as a stream of frames after its answer.

mod wire;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use bireme_core::clock::now_nanos;
use bireme_core::error::one_line;
use bireme_core::{
    ErrorKind, ExecError, Exit, Labels, NamedNetwork, NamesChange, NetworkPlace, SandboxId, WorkloadId, WorkloadSpec,
};
use serde::{Deserialize, Serialize};

pub(crate) use wire::receive_answer;
pub use wire::{receive, send};

/// The most bytes of an answer, and of one that is a list.
const MAX_ANSWER: usize = 64 << 10;
const MAX_LIST: usize = 4 << 20;
/// The most instances that a host lists: [`Request::Instances`].
pub const MAX_INSTANCES: usize = 4096;
/// The most bytes of [`Instance::work`].
pub const MAX_WORK: usize = 256;
/// The most bytes of a sentence of a host: why it refuses, or what a workload died of.
const MAX_SENTENCE: usize = 8 << 10;
/// The most descriptors of one message: the kernel's `SCM_MAX_FD`.
pub const MAX_FDS: usize = 253;
/// In a host's refusal of compiled code that it cannot map.
pub const DAMAGED: &str = "the compiled code is damaged";

/// What a host process is for, as JSON: its one argument after `serve`, or what a spare one is sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HostConfig {
    /// Whose components it runs.
    pub sandbox: SandboxId,
    /// Its own folder, where `host.sock` is made.
    pub dir: PathBuf,
    /// Folder of this sandbox's embedded key-value stores.
    pub kv_dir: PathBuf,
    /// The user and group it becomes, if it starts as root.
    pub uid: u32,
    /// Network namespace to join; `None` stays in the daemon's.
    pub netns: Option<PathBuf>,
    /// DNS servers inside it.
    pub dns: Vec<IpAddr>,
    /// The cgroup to enter, relative to each hierarchy's root.
    pub cgroup: PathBuf,
    /// Whose connections are served, besides root's.
    pub owner_uid: u32,
}

/// One request to a host process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "op")]
pub enum Request {
    /// Answered with [`HostState`].
    Ping,
    /// Answered with [`Brief`]: whether it answers at all.
    Brief,
    /// Answered with whether the workload was started; `None` when the host does not have it.
    Known {
        /// Which workload.
        id: WorkloadId,
    },
    /// Makes a workload ready to start. Answered with [`Brief`].
    Load(Box<Load>),
    /// Loads a workload anew beside its run and has the new run take over. Its listening sockets, its log and the record of
    /// its end stay, and do not come with it. Answered with nothing; `Conflict` where it does not run, `Unsupported` where
    /// it is none that can be replaced so.
    Renew(Box<Load>),
    /// Lets a loaded workload run. Answered with nothing; `Conflict` for one that was started before.
    Start {
        /// Which workload.
        id: WorkloadId,
    },
    /// SIGKILL cuts what is under way. A stop signal lets requests and messages finish, and ends a command. Answered with
    /// nothing, at once; `Unsupported` for any other signal.
    Signal {
        /// Which workload.
        id: WorkloadId,
        /// As signal(7) numbers it.
        signal: i32,
    },
    /// Answered with [`bireme_core::Exit`] once the workload has ended.
    Wait {
        /// Which workload.
        id: WorkloadId,
    },
    /// Answered with [`Usage`].
    Usage {
        /// Which workload.
        id: WorkloadId,
    },
    /// Answered with a list of [`Instance`].
    Instances {
        /// Which workload.
        id: WorkloadId,
    },
    /// Answered with [`bireme_core::InvocationStats`].
    Invocations {
        /// Which workload.
        id: WorkloadId,
    },
    /// Notes from now on what instances compute. Answered with nothing; `Conflict` while a profile is made.
    BeginProfile {
        /// Which workload.
        id: WorkloadId,
    },
    /// Answered with [`bireme_core::Profile`] of what was noted.
    EndProfile {
        /// Which workload.
        id: WorkloadId,
    },
    /// The state of the next instance that traps is written to the file that comes with it. Answered with nothing; `Conflict`
    /// while somebody waits for one.
    AwaitTrap {
        /// Which workload.
        id: WorkloadId,
    },
    /// Answered with [`bireme_core::CoreDump`] where an instance trapped since, and with nothing otherwise.
    Trapped {
        /// Which workload.
        id: WorkloadId,
        /// Nobody waits any longer.
        is_last: bool,
    },
    /// The names on networks changed, each by the ID of its network.
    Names {
        /// By the IDs of networks.
        changes: BTreeMap<String, NamesChange>,
    },
    /// A workload finds names on these networks from now on.
    Networks {
        /// Which workload.
        id: WorkloadId,
        /// All that it is on now.
        networks: Vec<NamedNetwork>,
    },
    /// Cuts a workload and forgets it. Answered with nothing once its instances are gone, or have not gone for some
    /// seconds; the process ends after its last workload.
    Delete {
        /// Which workload.
        id: WorkloadId,
    },
    /// What the workload is called from now on.
    Renamed {
        /// Which workload.
        id: WorkloadId,
        /// Without a leading slash.
        name: String,
    },
    /// After an empty answer the host writes attach frames until the workload ends. With `stdin` it takes what comes for
    /// standard input, if the workload has one.
    Attach {
        /// Which workload.
        id: WorkloadId,
        /// Whether the connection brings standard input.
        #[serde(default)]
        stdin: bool,
    },
}

impl Request {
    /// The most bytes that its answer may have. Whoever has taken a host over answers what he likes.
    fn most(&self) -> usize {
        match self {
            Self::Ping | Self::Instances { .. } | Self::EndProfile { .. } => MAX_LIST,
            _ => MAX_ANSWER,
        }
    }

    /// Whether the answer is a list, which may take memory that is worth counting.
    pub(crate) fn is_for_list(&self) -> bool {
        self.most() > MAX_ANSWER
    }
}

/// Everything a host needs to run one workload. The descriptors that come with it are listed in `fds`, in order.
#[derive(Debug, Serialize, Deserialize)]
pub struct Load {
    /// What was asked for, resolved.
    pub spec: WorkloadSpec,
    /// Of the compiled code that comes as [`FdUse::Code`].
    pub facts: Facts,
    /// The namespace and addresses that it was given; `None` where it has none of its own.
    pub network: Option<NetworkPlace>,
    /// Host addresses this workload answers on; the socket is among the descriptors or held already.
    pub listeners: Vec<SocketAddr>,
    /// Where it finds names; the host was told those networks' names before.
    pub networks: Vec<NamedNetwork>,
    /// What becomes of its output.
    pub log: Log,
    /// What each descriptor is, in the order in which they come.
    pub fds: Vec<FdUse>,
}

/// Where the log goes: a file in the folder that comes as [`FdUse::LogFolder`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Log {
    /// `None` writes no file.
    pub file: Option<String>,
    /// Bytes after which the file is rotated; `None` never rotates. Docker: the log option `max-size`.
    pub max_size: Option<u64>,
    /// Files that there may be with the one that is written; at least one. Docker: the log option `max-file`.
    pub max_files: u32,
}

/// What a descriptor of [`Load`] is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FdUse {
    /// The file of compiled code.
    Code,
    /// The empty file to which the end is written.
    Exit,
    /// The folder in which the log is written and rotated.
    LogFolder,
    /// A listening TCP socket bound to this address.
    Listener(SocketAddr),
    /// A folder, preopened at this path.
    Folder {
        /// Absolute path, as the guest has it.
        target: String,
        /// Whether the guest may only read below it.
        read_only: bool,
    },
}

/// What starts instances of a component; follows from its exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// `wasi:http/incoming-handler@0.2`.
    HttpP2,
    /// `wasi:http/handler@0.3`.
    HttpP3,
    /// `fermyon:spin/inbound-redis`.
    RedisP2,
    /// `spin:redis/inbound-redis@3`.
    RedisP3,
    /// `wasi:cli/run@0.2`.
    CommandP2,
    /// `wasi:cli/run@0.3`.
    CommandP3,
    /// A core module with `_start` and WASI preview 1.
    CommandP1,
    /// The same, run for each request as a CGI program: what its label says, not its exports.
    Wagi,
    /// A command that runs at the times of its label `bireme.schedule`.
    Schedule,
    /// A core module with `handle-http-request`, of Spin before components.
    HttpSpin1,
    /// A core module with `handle-redis-message`, of Spin before components.
    RedisSpin1,
}

impl Trigger {
    /// `http`, `redis`, `command` or `schedule`.
    pub fn name(self) -> &'static str {
        match self {
            Self::HttpP2 | Self::HttpP3 | Self::HttpSpin1 | Self::Wagi => "http",
            Self::RedisP2 | Self::RedisP3 | Self::RedisSpin1 => "redis",
            Self::CommandP1 | Self::CommandP2 | Self::CommandP3 => "command",
            Self::Schedule => "schedule",
        }
    }

    /// What starts instances of a component with these labels: `bireme.wagi` has a command answer requests, `bireme.schedule`
    /// has it run at certain times.
    #[must_use]
    pub fn of(self, labels: &Labels) -> Self {
        match self {
            Self::CommandP1 if labels.wagi.is_some() => Self::Wagi,
            Self::CommandP1 | Self::CommandP2 | Self::CommandP3 if labels.schedule.is_some() => Self::Schedule,
            other => other,
        }
    }

    /// Whether it has one instance at a time.
    pub fn is_alone(self) -> bool {
        matches!(self.name(), "command" | "schedule")
    }

    /// Whether it is a core module that is started.
    pub fn is_module(self) -> bool {
        matches!(self, Self::CommandP1 | Self::Wagi | Self::HttpSpin1 | Self::RedisSpin1)
    }

    /// Of two triggers of one name the greater is the newer.
    pub fn generation(self) -> u8 {
        match self {
            Self::CommandP1 | Self::Wagi | Self::HttpSpin1 | Self::RedisSpin1 => 1,
            Self::HttpP2 | Self::RedisP2 | Self::CommandP2 => 2,
            Self::HttpP3 | Self::RedisP3 | Self::CommandP3 | Self::Schedule => 3,
        }
    }
}

/// What `bireme-wasm-host compile` found out about a component. Also stored beside the compiled code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// What starts its instances.
    pub trigger: Trigger,
    /// Whether it has asynchronous functions, which another engine runs.
    pub concurrent: bool,
    /// Names of interfaces with their versions, such as `wasi:http/types@0.2.3`; of a core module `module.name`.
    pub imports: Vec<String>,
    /// The same of interfaces that it implements; of a core module plain names.
    pub exports: Vec<String>,
}

/// What `bireme-wasm-host compile` prints.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompileAnswer {
    /// The code was written.
    Ready(Facts),
    /// The component cannot run here, or not be compiled.
    Refused(Refusal),
}

/// A host as it describes itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HostState {
    /// All that are loaded, in any order.
    pub workloads: Vec<WorkloadState>,
    /// Addresses whose listening sockets it holds.
    pub listeners: Vec<SocketAddr>,
}

/// The same in numbers. The daemon keeps its own and believes neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brief {
    /// How many are loaded.
    pub workloads: usize,
    /// Bytes that its workloads may have together, see [`crate::memory`].
    pub memory: u64,
}

/// One workload of a host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkloadState {
    /// As the daemon has named it.
    pub id: WorkloadId,
    /// Whether it was started; also true of one that has ended since.
    pub started: bool,
}

/// What a workload used so far.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time in nanoseconds: the time its instances were being run.
    pub cpu: u64,
    /// Bytes that its live instances have, and its share of what the host process takes beside instances.
    pub memory: u64,
    /// The most that one instance had.
    pub memory_peak: u64,
    /// Most bytes that all its instances may have, and the host process with them.
    pub memory_limit: u64,
    /// Live instances.
    pub instances: u64,
}

/// One live instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Instance {
    /// Counts up from 1 over the life of the workload.
    pub number: u64,
    /// As [`Trigger::name`] has it.
    pub trigger: String,
    /// Milliseconds since it started.
    pub age: u64,
    /// What it works on: method and path, channel, or arguments.
    pub work: String,
}

/// An error as it crosses the socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What the client is to make of it.
    pub kind: ErrorKind,
    /// For the user: what is wrong and what to do.
    pub message: String,
    /// The code that a failed start is recorded with, where it is not the usual one.
    pub exit_code: Option<i32>,
}

impl Refusal {
    /// A refusal without an exit code of its own.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), exit_code: None }
    }
}

impl From<Refusal> for ExecError {
    fn from(refusal: Refusal) -> Self {
        let error = ExecError::new(refusal.kind, sentence(&refusal.message));
        match refusal.exit_code {
            Some(code) => error.with_exit_code(code),
            None => error,
        }
    }
}

/// What a host says, as one line of bounded length that can be logged and shown.
pub fn sentence(text: &str) -> String {
    one_line(text, MAX_SENTENCE)
}

/// How a workload ended, as far as its host is believed: not before it was there (`since`) nor in the future, in nanoseconds
/// since 1970, and for a reason of bounded length.
pub(crate) fn credible(exit: Exit, since: i64) -> Exit {
    let now = now_nanos();
    Exit {
        finished_at: exit.finished_at.clamp(since.min(now), now),
        error: exit.error.as_deref().map(sentence),
        ..exit
    }
}

/// What every answer is, as a host makes it. The daemon never builds the value: it takes many times the bytes it came in.
pub type Answer = Result<serde_json::Value, Refusal>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_host_says_is_one_line_and_its_times_are_possible() {
        let refusal = Refusal::new(ErrorKind::Internal, format!("no\n2026 ERROR all is lost\r{}", "ä".repeat(1 << 20)));
        let error = ExecError::from(refusal);
        assert!(error.message().len() <= MAX_SENTENCE && !error.message().contains(['\n', '\r']), "{error}");
        let ended = |finished_at| Exit { code: 0, oom_killed: false, finished_at, error: Some("e\n".repeat(1 << 20)) };
        let now = now_nanos();
        for (told, since) in [(i64::MAX, 5), (i64::MIN, 5), (now - 1000, 0)] {
            let exit = credible(ended(told), since);
            assert!((since..=now + 60_000_000_000).contains(&exit.finished_at), "{}", exit.finished_at);
            assert!(exit.error.unwrap().len() <= MAX_SENTENCE);
        }
        assert_eq!(credible(ended(now - 1000), 0).finished_at, now - 1000);
    }
}
