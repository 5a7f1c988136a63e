//! The seam between the engine and whatever runs workloads.
//!
//! ```text
//!            engine                                executor                       outside the daemon
//!   create ──────────────> Executor::check        validates, compiles             (nothing runs yet)
//!   start  ──────────────> Executor::create       makes runner or host ready ───> process stands, waits
//!            attach pending clients ───────────── Workload::as_attach
//!          ──────────────> Workload::start        ─────────────────────────────── runs
//!   (biremed killed)                                                              goes on running
//!   restart of biremed ──> Executor::reattach     finds it, or how it ended
//!   stop   ──────────────> Workload::signal, wait
//!   end    ──────────────> Workload::delete       releases everything made by create
//! ```
//!
//! A workload of either kind runs in a process outside the daemon, writes its own log file ([`crate::log_line`]) and
//! leaves a record of how it ended, so that the daemon may be killed at any moment.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::spec::{Exit, Port, Protocol, Resources, Signal, WorkloadKind, WorkloadSpec};
use crate::{BoxFuture, ExecError, SandboxId};

/// Runs workloads of one kind. Must be able to find them again after the daemon restarts.
pub trait Executor: Send + Sync {
    /// The kind of workload it runs: of one executor always the same.
    fn kind(&self) -> WorkloadKind;

    /// Checks at create all that can be known before start, and does ahead what would otherwise slow it: unknown
    /// imports, bad users, seccomp profiles; compilation into the cache. Idempotent.
    ///
    /// # Errors
    /// `Invalid` or `Unsupported` with a sentence naming what is refused.
    fn check<'a>(&'a self, spec: &'a WorkloadSpec, program: &'a Program) -> BoxFuture<'a, Result<(), ExecError>>;

    /// What workloads of this kind have stored beside their volumes, and outlives them: one folder per sandbox. `known`
    /// are the sandboxes of all workloads there are.
    fn stores<'a>(&'a self, known: &'a [SandboxId]) -> BoxFuture<'a, Vec<StoreFolder>> {
        let _ = known;
        Box::pin(async { Vec::new() })
    }

    /// Removes such a folder. False where a workload has it after all, or it is not there.
    ///
    /// # Errors
    /// When the folder cannot be removed.
    fn remove_store<'a>(&'a self, name: &'a str, known: &'a [SandboxId]) -> BoxFuture<'a, Result<bool, ExecError>> {
        let _ = (name, known);
        Box::pin(async { Ok(false) })
    }

    /// Whether what `program` is can answer on published ports. Called where some are to be.
    ///
    /// # Errors
    /// `Invalid` where nothing would ever answer on them.
    fn check_ports<'a>(&'a self, spec: &'a WorkloadSpec, program: &'a Program) -> BoxFuture<'a, Result<(), ExecError>> {
        let _ = (spec, program);
        Box::pin(async { Ok(()) })
    }

    /// What of `spec` has no effect on this machine, or is likely to do harm; a sentence each, for whoever creates it.
    fn warnings(&self, spec: &WorkloadSpec) -> Vec<String> {
        let _ = spec;
        Vec::new()
    }

    /// The network place `spec` runs in. Pure.
    fn sandbox(&self, spec: &WorkloadSpec) -> SandboxId;

    /// Whether published TCP ports are handed over as listening sockets ([`Prepared::listeners`]). Otherwise the engine
    /// has the network forward them. When true, several workloads of one sandbox may share a host port if their routes
    /// differ.
    fn takes_listeners(&self) -> bool;

    /// Whether its workloads offer [`Workload::as_exec`], known before any exists: health checks that run a command are
    /// refused at create where it is false.
    fn offers_exec(&self) -> bool;

    /// Says that [`Self::create`] is likely to follow in a moment: whatever can be got ready meanwhile is begun. Returns at once;
    /// nothing comes of it that would have to be undone.
    fn prewarm(&self) {}

    /// Makes everything ready so that [`Workload::start`] only has to let go. Nothing is left behind on error.
    fn create(&self, work: Prepared) -> BoxFuture<'_, Result<Box<dyn Workload>, ExecError>>;

    /// Finds a workload that an earlier daemon created, running or ended.
    ///
    /// # Errors
    /// `NotFound` when there is neither a process nor a record of an end: the machine restarted or the runner was
    /// killed together with the daemon.
    fn reattach<'a>(&'a self, known: Known<'a>) -> BoxFuture<'a, Result<Box<dyn Workload>, ExecError>>;

    /// Ends and clears away whatever belongs to this engine and is not in `known` (IDs of workloads that shall run).
    /// `resting` are those remembered that do not run: what a daemon that was killed in the middle of a start left of
    /// one is ended too, wherever it is. Called once when the daemon starts, after every `reattach` and before any
    /// `create`.
    fn sweep<'a>(&'a self, known: &'a [crate::WorkloadId], resting: &'a [&'a WorkloadSpec]) -> BoxFuture<'a, ()>;

    /// Ends whatever runs of a workload that cannot be found again, as nothing but its ID is known. Nothing is told of it.
    ///
    /// # Errors
    /// When it cannot be ended.
    fn end<'a>(&'a self, id: &'a crate::WorkloadId) -> BoxFuture<'a, Result<(), ExecError>>;

    /// Takes away what only served this engine and is empty. Called when the engine ends with nothing running; nothing is
    /// created after it.
    fn close(&self) {}

    /// Its workloads resolve names by tables that it is told of, and not by the engine's DNS: only components.
    fn as_resolver(&self) -> Option<&dyn Resolver> {
        None
    }
}

/// Keeps the names of networks for workloads that resolve names themselves.
pub trait Resolver: Send + Sync {
    /// The names on `network` changed. Called for each change in its order, also before any workload is there. Returns once
    /// every process concerned knows; one that does not answer within a second is told later and holds up nobody.
    fn names_changed<'a>(&'a self, network: &'a str, change: NamesChange) -> BoxFuture<'a, ()>;
}

/// What changed among the names of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamesChange {
    /// These are all names there are.
    All(Names),
    /// These have these addresses now; a name without addresses is gone. The others are as they were.
    Some(Names),
}

/// A network whose names a workload resolves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedNetwork {
    /// The network's ID, as [`Resolver::names_changed`] names it.
    pub id: String,
    /// Further names for this workload alone, and the names on the network that they stand for. Lower case.
    pub links: BTreeMap<String, String>,
}

/// A workload that [`Executor::create`] or [`Executor::reattach`] answered with.
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

    /// Ends it at once if it still runs and releases what [`Executor::create`] made. Collects errors and goes on.
    fn delete(&self) -> BoxFuture<'_, Result<(), ExecError>>;

    /// The networks whose names this workload resolves changed, while it runs: it was connected or disconnected. Of
    /// interest only where its executor offers [`Executor::as_resolver`].
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

/// Workloads whose processes can stand still.
///
/// Source: Docker Engine API, `ContainerPause`; `cgroup.freeze` of cgroup-v2.
pub trait Pause: Send + Sync {
    /// Has all its processes stand still, until [`Self::resume`].
    fn pause(&self) -> BoxFuture<'_, Result<(), ExecError>>;
    /// Has them go on.
    fn resume(&self) -> BoxFuture<'_, Result<(), ExecError>>;
}

/// Workloads whose limits may change while they run.
///
/// Source: Docker Engine API, `ContainerUpdate`.
pub trait Limits: Send + Sync {
    /// Changes the limits of what runs from `from` to `to`, which [`Executor::check`] has passed. What is the same in both
    /// is not touched.
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

/// Everything an executor is handed to run one workload. Executors never pull, resolve names or choose addresses.
pub struct Prepared {
    /// What is to run.
    pub spec: WorkloadSpec,
    /// What it is made of.
    pub program: Program,
    /// Kept across restarts of the machine; exists; belongs to this workload alone.
    pub state_dir: PathBuf,
    /// Emptied by a restart of the machine; exists; belongs to this workload alone. Sockets live here: keep names short.
    pub run_dir: PathBuf,
    /// Where its output is written.
    pub log: LogTarget,
    /// `None` for the host's network.
    pub network: Option<NetworkPlace>,
    /// Listening sockets of published ports, if [`Executor::takes_listeners`]. A socket that this sandbox already holds
    /// for another workload comes with `socket: None`.
    pub listeners: Vec<Listener>,
    /// Where it finds others by their names; for executors that offer [`Executor::as_resolver`].
    pub networks: Vec<NamedNetwork>,
    /// Files the engine wrote for it, to be put at the given paths inside: `/etc/hosts`, `/etc/resolv.conf`,
    /// `/etc/hostname`.
    pub etc: Vec<(PathBuf, String)>,
}

/// What [`Executor::reattach`] is told.
pub struct Known<'a> {
    /// As [`Prepared::spec`] was at create.
    pub spec: &'a WorkloadSpec,
    /// As [`Prepared::state_dir`].
    pub state_dir: PathBuf,
    /// As [`Prepared::run_dir`].
    pub run_dir: PathBuf,
    /// As [`Prepared::networks`].
    pub networks: Vec<NamedNetwork>,
}

/// What a workload is made of, as it lies on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    /// A root filesystem to be put together as an overlay.
    Layers {
        /// Unpacked layers, lowest first; shared and never written to.
        lower: Vec<PathBuf>,
        /// This workload's own changes, and overlayfs's work folder beside it (same filesystem). Both exist.
        upper: PathBuf,
        /// The work folder of overlayfs: on the filesystem of `upper`, and nobody else's.
        work: PathBuf,
    },
    /// One WebAssembly component or core module.
    Component {
        /// The file of the component, shared and never written to.
        path: PathBuf,
        /// `sha256:…` of the file's content: the key of the compilation cache.
        digest: String,
    },
}

/// The key-value stores of one app or lone component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreFolder {
    /// `app-PROJECT`; 32 hexadecimal digits for a lone component or a long name.
    pub name: String,
    /// Bytes on disk.
    pub size: u64,
    /// Nanoseconds since 1970.
    pub changed: i64,
    /// Whether a workload has it, running or not.
    pub in_use: bool,
}

/// Where a workload's output is written, by the process that runs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogTarget {
    /// `None`: the `none` driver; output reaches attached clients only.
    pub path: Option<PathBuf>,
    /// Bytes after which the file is rotated to `path.1`; `None` never.
    pub max_size: Option<u64>,
    /// How many files are kept, the live one included; at least 1.
    pub max_files: u32,
}

/// A network namespace that stands ready, and what is this workload's own in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPlace {
    /// The network place that the namespace is of.
    pub sandbox: SandboxId,
    /// A bind-mounted namespace file, to be joined with setns(2).
    pub netns: PathBuf,
    /// Addresses of this workload inside it, one or two per network.
    pub addresses: Vec<IpAddr>,
    /// The engine's DNS servers, reachable from inside.
    pub dns: Vec<IpAddr>,
}

/// One published port of a workload.
pub struct Listener {
    /// As published on the host; the key under which a sandbox shares it.
    pub host: SocketAddr,
    /// Where the workload listens, in its own words.
    pub container: Port,
    /// Bound and listening; `None` when the sandbox holds it already.
    pub socket: Option<OwnedFd>,
}

impl Listener {
    /// What the published port speaks.
    pub fn protocol(&self) -> Protocol {
        self.container.protocol
    }
}

/// Names that resolve inside one workload's networks: services, containers, aliases. Lower case, no final dot.
pub type Names = BTreeMap<String, Vec<IpAddr>>;

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

/// A snapshot of what a workload uses. Counters only grow while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Processor time in nanoseconds.
    pub cpu_total: u64,
    /// The part of it spent in the processes themselves, in nanoseconds.
    pub cpu_user: u64,
    /// The part of it spent in the kernel, in nanoseconds.
    pub cpu_system: u64,
    /// How many periods of the limit ended with its processor time used up.
    pub throttled_periods: u64,
    /// How long it had to wait for that, in nanoseconds.
    pub throttled_time: u64,
    /// Bytes in use, page cache included.
    pub memory_usage: u64,
    /// Bytes of page cache that could be dropped.
    pub memory_inactive_file: u64,
    /// The most bytes that were in use; 0 where the kernel does not tell.
    pub memory_peak: u64,
    /// Bytes; `None` is unlimited.
    pub memory_limit: Option<u64>,
    /// Processes and threads; of a component, live instances.
    pub pids: u64,
    /// The most of them there may be; `None` is unlimited.
    pub pids_limit: Option<u64>,
    /// Bytes read from block devices.
    pub block_read: u64,
    /// Bytes written to block devices.
    pub block_write: u64,
    /// By the name of the interface inside.
    pub networks: BTreeMap<String, InterfaceStats>,
}

/// Counters of one network interface, as the workload sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStats {
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Packets that came damaged.
    pub rx_errors: u64,
    /// Packets that came and found no room.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
    /// Packets that were to be sent and found no room.
    pub tx_dropped: u64,
}

/// As `docker top` prints it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessTable {
    /// The heads of the columns.
    pub titles: Vec<String>,
    /// A row for each process, with a cell for each head.
    pub rows: Vec<Vec<String>>,
}

/// What became of a component's instances. Counters only grow while it runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InvocationStats {
    /// `http`, `redis` or `command`.
    pub trigger: String,
    /// Instances that were made.
    pub started: u64,
    /// Alive now.
    pub alive: u64,
    /// Waiting for a free place now.
    pub queued: u64,
    /// Ended well.
    pub succeeded: u64,
    /// Ended in a trap or an error.
    pub failed: u64,
    /// Ended because their time was up.
    pub timed_out: u64,
    /// Refused because the queue was full.
    pub rejected: u64,
    /// Latency in microseconds: `(upper bound, invocations at or below it)`, cumulative, ascending, over the lifetime.
    pub latency: Vec<(u64, u64)>,
    /// Bytes of the largest linear memory any instance had.
    pub memory_peak: u64,
}
