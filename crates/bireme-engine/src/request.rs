//! What may be asked of the engine, with nothing of any wire in it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use bireme_core::spec::{Dns, Port, Propagation, Resources, Security, Signal};
use bireme_image::{Hidden, Image};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

/// A workload to be created. `None` and empty mean that the image's value holds, then the default.
///
/// Source: Docker Engine API, `ContainerCreate`.
#[derive(Clone, Debug, Default)]
pub struct CreateRequest {
    /// Without a leading slash; `None` lets the engine choose one.
    pub name: Option<String>,
    /// Reference, ID or beginning of an ID of a stored image; how `inspect` shows it, too.
    pub image: String,
    /// An image in the making, to be used in place of a stored one; `image` is only its name then. The workload is
    /// removed when the engine starts again, unless it says otherwise.
    pub unfinished: Option<Unfinished>,
    /// Cancelled when nobody waits for it any more: what would take long is not begun or gone on with.
    pub given_up: CancellationToken,
    /// `os/arch[/variant]`, such as `wasi/wasm`.
    pub platform: Option<String>,
    /// Stands before `command`. Where one is given, the image's command does not hold; one empty word is no entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// The program where there is no entrypoint, and arguments.
    pub command: Option<Vec<String>>,
    /// `NAME=value`; a bare `NAME` removes the image's.
    pub env: Vec<String>,
    /// `NAME=value`, beside those: in no record, list or log, and gone with this engine.
    pub secret_env: Hidden<Vec<String>>,
    /// `user[:group]`, by name or number.
    pub user: Option<String>,
    /// Absolute path in the workload.
    pub working_dir: Option<String>,
    /// `None`: the first twelve digits of its ID; the machine's on the host network, the other's in its namespace.
    pub hostname: Option<String>,
    /// The domain of the host name, as `domainname` tells it.
    pub domainname: Option<String>,
    /// A terminal stands for the three standard streams.
    pub tty: bool,
    /// Columns and rows of the terminal at its start.
    pub console_size: Option<(u16, u16)>,
    /// Standard input stays open for clients that attach.
    pub open_stdin: bool,
    /// Standard input ends when the first client that attached to it leaves.
    pub stdin_once: bool,
    /// Beside the image's; one of the same key takes its place. `bireme.*` are read.
    pub labels: BTreeMap<String, String>,
    /// Beside the image's: what `publish_all` publishes.
    pub exposed: Vec<Port>,
    /// Paths in it that get an anonymous volume.
    pub volumes: Vec<String>,
    /// At most one at each path in it.
    pub mounts: Vec<MountRequest>,
    /// Names or IDs of workloads whose mounts it gets too; true: read-only.
    pub volumes_from: Vec<(String, bool)>,
    /// Names or IDs of other workloads, and what they are called in this one.
    pub links: Vec<(String, String)>,
    /// What `stop` sends; `None` and none of the image's: SIGTERM.
    pub stop_signal: Option<Signal>,
    /// How long `stop` waits before it kills; `None`: ten seconds.
    pub stop_timeout: Option<Duration>,
    /// Merged with the image's, field by field.
    pub health: Option<HealthCheck>,
    /// Limits, which [`Update`] may change.
    pub resources: Resources,
    /// What it may do beyond running: capabilities, profiles, devices.
    pub security: Security,
    /// Whose network namespace it runs in.
    pub network_mode: NetworkModeRequest,
    /// By network name or ID. Empty with `NetworkModeRequest::Default`: the default bridge.
    pub networks: BTreeMap<String, EndpointRequest>,
    /// Whose processes it sees.
    pub pid_mode: ModeRequest,
    /// Whose shared memory, semaphores and message queues it has.
    pub ipc_mode: ModeRequest,
    /// Whose host name it has.
    pub uts_mode: ModeRequest,
    /// In the host's cgroup namespace: it sees where its own cgroup lies.
    pub cgroup_host: bool,
    /// Name and address; the address `host-gateway` is the host as seen from the workload.
    pub extra_hosts: Vec<(String, String)>,
    /// How it resolves names that no network has.
    pub dns: Dns,
    /// Bytes of `/dev/shm`; `None`: 64 MiB.
    pub shm_size: Option<u64>,
    /// A small init is its first process: it forwards signals and reaps what nobody waits for.
    pub init: bool,
    /// Whether it is started again when it ends.
    pub restart: RestartPolicy,
    /// It is removed when it ends, with its anonymous volumes.
    pub auto_remove: bool,
    /// Ports of the host that lead to it.
    pub publish: Vec<Publish>,
    /// Each exposed port is published as well, on a free port of the host.
    pub publish_all: bool,
    /// Empty driver: the engine's default, with its options.
    pub log: LogRequest,
    /// The client's own request, kept verbatim and given back by [`crate::view::Config::as_asked`].
    pub as_asked: serde_json::Value,
}

/// An image that is being built: no stored one.
#[derive(Clone, Debug)]
pub struct Unfinished {
    /// ID and configuration, as far as the build has come.
    pub image: Image,
    /// The folders of its layers, lowest first. They must stay as long as the workload does.
    pub layers: Vec<PathBuf>,
    /// It stays when the engine starts again, as any other workload does.
    pub keep: bool,
}

/// Something that a workload has at a path of its own.
#[derive(Clone, Debug)]
pub struct MountRequest {
    /// What stands there.
    pub source: MountRequestSource,
    /// Absolute path in the workload.
    pub target: String,
    /// Nothing can be written through this mount.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Clone, Debug)]
pub enum MountRequestSource {
    /// A file or folder of the host.
    Bind {
        /// Absolute path on the host.
        path: PathBuf,
        /// Make the folder when it is not there (`-v`); otherwise its absence is an error (`--mount`).
        create: bool,
        /// Which later mounts below `path` are seen on the other side.
        propagation: Propagation,
        /// With what is mounted below `path`.
        recursive: bool,
    },
    /// A volume of the engine, which is made when it is not there.
    Volume {
        /// `None`: an anonymous one.
        name: Option<String>,
        /// What of the volume is mounted: a path in it, empty for all of it.
        subpath: PathBuf,
        /// Leave it empty, and do not copy into it what the image has at the target.
        no_copy: bool,
        /// `None`: `local`, the only one.
        driver: Option<String>,
        /// As [`CreateVolume::options`].
        options: BTreeMap<String, String>,
        /// Of the volume, when it is made.
        labels: BTreeMap<String, String>,
    },
    /// The layers of an image, or a file or folder in them. What is written there is gone when it is removed.
    Layers {
        /// Their folders, lowest first. They must stay as long as the workload does.
        lower: Vec<PathBuf>,
        /// Below the root of their tree; empty is all of it.
        subpath: PathBuf,
    },
    /// Files in memory, gone when it ends.
    Tmpfs {
        /// Bytes at most; `None`: the kernel's default, half of the machine's memory.
        size: Option<u64>,
        /// Permission bits of its root.
        mode: Option<u32>,
        /// Further options, as `mount -o` takes them.
        options: Vec<String>,
    },
}

/// Docker's `NetworkMode`: which network namespace a workload runs in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NetworkModeRequest {
    /// In one of its own, on `networks`, or on the default bridge.
    #[default]
    Default,
    /// In one of its own, on no network: only the loopback is there.
    None,
    /// In the machine's.
    Host,
    /// In the namespace of the workload with this name or ID.
    Workload(String),
}

/// Docker's `PidMode`, `IpcMode` and `UTSMode`: which namespace of a kind a workload runs in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ModeRequest {
    /// In one of its own.
    #[default]
    Private,
    /// In the machine's.
    Host,
    /// In that of the workload with this name or ID.
    Workload(String),
}

/// How a workload shall stand on a network: Docker's `EndpointSettings`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRequest {
    /// Further names under which others on the network find it.
    pub aliases: BTreeSet<String>,
    /// Static IPv4 address; `None` lets the engine choose.
    pub ipv4: Option<IpAddr>,
    /// Static IPv6 address; `None` lets the engine choose where the network has a subnet for it.
    pub ipv6: Option<IpAddr>,
    /// Link-local addresses beside those of the network, by which nobody finds it.
    #[serde(default)]
    pub link_local: Vec<IpAddr>,
    /// Six bytes such as `02:42:ac:11:00:02`; `None` lets the engine choose.
    pub mac: Option<String>,
    /// Names that this workload alone finds others under: its own word, and the other's name or ID.
    #[serde(default)]
    pub links: Vec<(String, String)>,
    /// Kept and shown by `inspect`.
    pub driver_options: BTreeMap<String, String>,
}

/// One port mapping: Docker's `PortBinding`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// What the workload listens on.
    pub container: Port,
    /// `None`: every address of the host.
    pub host_ip: Option<IpAddr>,
    /// First and last of a range to choose from; `None`: any free port.
    pub host_ports: Option<(u16, u16)>,
}

/// Whether a workload is started again when it ends other than by `stop` or `kill`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// Always; at the engine's start, also one that was stopped.
    Always,
    /// Always; at the engine's start, not one that was stopped.
    UnlessStopped,
    /// After an exit code that is not 0, at most this often in a row; 0 is without limit. At the engine's start, one that
    /// waited to be started again.
    OnFailure(u32),
}

/// How health is probed. Zero durations and retries mean Docker's defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// `["NONE"]`, `["CMD", …]`, `["CMD-SHELL", "…"]`; empty keeps the image's.
    pub test: Vec<String>,
    /// Between the end of a probe and the next. Docker's default: 30 s.
    pub interval: Duration,
    /// After which a probe has failed. Docker's default: 30 s.
    pub timeout: Duration,
    /// From the start, in which failed probes do not count. Docker's default: none.
    pub start_period: Duration,
    /// As `interval` within the start period, where it is shorter. Docker's default: 5 s.
    pub start_interval: Duration,
    /// How many probes in a row must fail before it is unhealthy. Docker's default: 3.
    pub retries: u32,
}

/// Where a workload's output is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRequest {
    /// Empty: `json-file`. Also `local` (kept in the same form) and `none`.
    pub driver: String,
    /// Of the driver, such as `max-size` and `max-file`, with values as they were written.
    pub options: BTreeMap<String, String>,
}

/// What shall change of a workload.
///
/// Source: Docker Engine API, `ContainerUpdate`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Update {
    /// `None`: the policy stays.
    pub restart: Option<RestartPolicy>,
    /// Only what is set changes; `pids` of zero or less is without limit.
    pub resources: Resources,
}

/// How to remove a workload.
///
/// Source: Docker Engine API, `ContainerDelete`.
#[derive(Clone, Copy, Debug, Default)]
pub struct RemoveRequest {
    /// End it first if it runs.
    pub force: bool,
    /// Remove its anonymous volumes too.
    pub volumes: bool,
}

/// How to stop: `None` uses the workload's own signal and patience. A negative timeout waits for ever.
#[derive(Clone, Copy, Debug, Default)]
pub struct StopRequest {
    /// What is sent first.
    pub signal: Option<Signal>,
    /// Seconds until SIGKILL.
    pub timeout_secs: Option<i64>,
}

/// What `wait` waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WaitCondition {
    /// At once if it does not run.
    #[default]
    NotRunning,
    /// The next end, also of what does not run yet.
    NextExit,
    /// Its removal, or that it failed.
    Removed,
}

/// Narrows a list of workloads, as Docker's `filters` for containers. Several values of a field are alternatives,
/// several fields must all hold; empty fields hold always.
#[derive(Clone, Debug, Default)]
pub struct ContainerFilter {
    /// Only tasks of a swarm, of which there are none.
    pub tasks: bool,
    /// Also those that do not run.
    pub all: bool,
    /// The last so many created, in any state.
    pub limit: Option<usize>,
    /// Beginnings of IDs.
    pub ids: Vec<String>,
    /// Regular expressions, with or without the slash that Docker's names begin with.
    pub names: Vec<String>,
    /// `key` or `key=value`; all must hold.
    pub labels: Vec<String>,
    /// As [`crate::view::Status::as_str`] spells them.
    pub status: Vec<String>,
    /// Exit codes of what has ended.
    pub exited: Vec<i32>,
    /// Image reference or ID, compared with the one it was created from.
    pub ancestors: Vec<String>,
    /// Names, or beginnings of IDs, of networks that it is on.
    pub networks: Vec<String>,
    /// Volume names or mount targets.
    pub volumes: Vec<String>,
    /// `starting`, `healthy`, `unhealthy`, or `none` for what is not probed.
    pub health: Vec<String>,
    /// Ports of the host that are published.
    pub publish: BTreeSet<Port>,
    /// Ports that are exposed.
    pub expose: BTreeSet<Port>,
    /// Name or ID of a workload: those created before it.
    pub before: Option<String>,
    /// Name or ID of a workload: those created after it.
    pub since: Option<String>,
}

/// Which part of the log. Times are nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug)]
pub struct LogQuery {
    /// What was written to standard output.
    pub stdout: bool,
    /// What was written to standard error.
    pub stderr: bool,
    /// Go on with what comes, until nothing more will.
    pub follow: bool,
    /// Records of this time and later.
    pub since: Option<i64>,
    /// Records of this time and earlier.
    pub until: Option<i64>,
    /// The last so many records; `None` all.
    pub tail: Option<usize>,
}

/// What a client that attaches wants of the standard streams.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attach {
    /// What it writes is the workload's standard input, if that was opened at create.
    pub stdin: bool,
    /// With standard output.
    pub stdout: bool,
    /// With standard error.
    pub stderr: bool,
    /// Begin with what was logged so far.
    pub logs: bool,
    /// Go on with what comes.
    pub stream: bool,
}

/// A network to be made.
///
/// Source: Docker Engine API, `NetworkCreate`.
#[derive(Clone, Debug, Default)]
pub struct CreateNetwork {
    /// One that no other network has.
    pub name: String,
    /// Empty: `bridge`.
    pub driver: String,
    /// It leads nowhere outside, and no published port leads to what is on it.
    pub internal: bool,
    /// Kept and shown by `inspect`.
    pub attachable: bool,
    /// With an IPv6 subnet: one of `pools`, or a unique local one.
    pub ipv6: bool,
    /// Empty: a free one is chosen.
    pub pools: Vec<PoolRequest>,
    /// Docker's `com.docker.network.*`, with values as they were written.
    pub options: BTreeMap<String, String>,
    /// Kept, shown by `inspect`, and filtered by.
    pub labels: BTreeMap<String, String>,
}

/// The addresses of one family on a network: Docker's `IPAMConfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRequest {
    /// CIDR, such as `10.5.0.0/24`.
    pub subnet: Option<String>,
    /// CIDR within `subnet` from which addresses are chosen; `None`: all of it.
    pub ip_range: Option<String>,
    /// Address of the bridge; `None`: the first of the subnet.
    pub gateway: Option<String>,
    /// Addresses that no workload is given, by what they are for: Docker's `AuxiliaryAddresses`.
    pub reserved: BTreeMap<String, String>,
}

/// A volume to be made.
///
/// Source: Docker Engine API, `VolumeCreate`.
#[derive(Clone, Debug, Default)]
pub struct CreateVolume {
    /// `[a-zA-Z0-9][a-zA-Z0-9_.-]+`; empty: a random name.
    pub name: String,
    /// Empty: `local`, the only one.
    pub driver: String,
    /// `type`, `device` and `o`, as `mount` takes them; empty: a folder.
    pub options: BTreeMap<String, String>,
    /// Kept, shown by `inspect`, and filtered by.
    pub labels: BTreeMap<String, String>,
}
