//! What may be asked of the engine, with nothing of any wire in it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use bireme_core::spec::{Dns, Port, Propagation, Resources, Security, Signal};
use bireme_image::Image;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

/// A workload to be created. `None` and empty mean that the image's value holds, then the default.
#[derive(Clone, Debug, Default)]
pub struct CreateRequest {
    /// Without a leading slash; `None` lets the engine choose one.
    pub name: Option<String>,
    pub image: String,
    /// An image in the making, to be used in place of a stored one; `image` is only its name then. The workload is
    /// removed when the engine starts again, unless it says otherwise.
    pub unfinished: Option<Unfinished>,
    /// Cancelled when nobody waits for it any more: what would take long is not begun or gone on with.
    pub given_up: CancellationToken,
    /// `os/arch[/variant]`, such as `wasi/wasm`.
    pub platform: Option<String>,
    pub entrypoint: Option<Vec<String>>,
    pub command: Option<Vec<String>>,
    /// `NAME=value`; a bare `NAME` removes the image's.
    pub env: Vec<String>,
    pub user: Option<String>,
    pub working_dir: Option<String>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub tty: bool,
    /// Columns and rows.
    pub console_size: Option<(u16, u16)>,
    pub open_stdin: bool,
    pub stdin_once: bool,
    pub labels: BTreeMap<String, String>,
    pub exposed: Vec<Port>,
    /// Paths that get an anonymous volume.
    pub volumes: Vec<String>,
    pub mounts: Vec<MountRequest>,
    /// Names or IDs of workloads whose mounts it gets too; true: read-only.
    pub volumes_from: Vec<(String, bool)>,
    /// Names or IDs of other workloads, and what they are called in this one.
    pub links: Vec<(String, String)>,
    pub stop_signal: Option<Signal>,
    pub stop_timeout: Option<Duration>,
    pub health: Option<HealthCheck>,
    pub resources: Resources,
    pub security: Security,
    pub network_mode: NetworkModeRequest,
    /// By network name or ID. Empty with `NetworkModeRequest::Default`: the default bridge.
    pub networks: BTreeMap<String, EndpointRequest>,
    pub pid_mode: ModeRequest,
    pub ipc_mode: ModeRequest,
    pub uts_mode: ModeRequest,
    /// In the host's cgroup namespace: it sees where its own cgroup lies.
    pub cgroup_host: bool,
    /// Name and address; the address `host-gateway` is the host as seen from the workload.
    pub extra_hosts: Vec<(String, String)>,
    pub dns: Dns,
    pub shm_size: Option<u64>,
    pub init: bool,
    pub restart: RestartPolicy,
    pub auto_remove: bool,
    pub publish: Vec<Publish>,
    pub publish_all: bool,
    pub log: LogRequest,
    /// The client's own request, kept verbatim and given back by [`crate::view::WorkloadView::as_asked`].
    pub as_asked: serde_json::Value,
}

/// An image that is being built: no stored one.
#[derive(Clone, Debug)]
pub struct Unfinished {
    pub image: Image,
    /// The folders of its layers, lowest first. They must stay as long as the workload does.
    pub layers: Vec<PathBuf>,
    /// It stays when the engine starts again, as any other workload does.
    pub keep: bool,
}

#[derive(Clone, Debug)]
pub struct MountRequest {
    pub source: MountRequestSource,
    pub target: String,
    pub read_only: bool,
}

#[derive(Clone, Debug)]
pub enum MountRequestSource {
    /// `create`: make the folder when it is not there (`-v`); otherwise its absence is an error (`--mount`).
    Bind {
        path: PathBuf,
        create: bool,
        propagation: Propagation,
        recursive: bool,
    },
    /// `None`: an anonymous volume.
    Volume {
        name: Option<String>,
        /// What of the volume is mounted: a path in it, empty for all of it.
        subpath: PathBuf,
        no_copy: bool,
        driver: Option<String>,
        options: BTreeMap<String, String>,
        labels: BTreeMap<String, String>,
    },
    Tmpfs {
        size: Option<u64>,
        mode: Option<u32>,
        options: Vec<String>,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NetworkModeRequest {
    /// On `networks`, or on the default bridge.
    #[default]
    Default,
    None,
    Host,
    /// In the namespace of the workload with this name or ID.
    Workload(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ModeRequest {
    #[default]
    Private,
    Host,
    Workload(String),
}

/// How a workload shall stand on a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRequest {
    pub aliases: BTreeSet<String>,
    /// Static addresses; `None` lets the engine choose.
    pub ipv4: Option<IpAddr>,
    pub ipv6: Option<IpAddr>,
    /// Addresses beside those of the network, by which nobody finds it.
    #[serde(default)]
    pub link_local: Vec<IpAddr>,
    pub mac: Option<String>,
    /// Names that this workload alone finds others under: its own word for another's name.
    #[serde(default)]
    pub links: Vec<(String, String)>,
    pub driver_options: BTreeMap<String, String>,
}

/// One port mapping. `host_ports` is a range to choose from; `None` any free port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    pub container: Port,
    /// `None`: every address of the host.
    pub host_ip: Option<IpAddr>,
    pub host_ports: Option<(u16, u16)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartPolicy {
    #[default]
    No,
    Always,
    UnlessStopped,
    /// At most this often in a row; 0 is without limit.
    OnFailure(u32),
}

/// How health is probed. Zero durations and retries mean Docker's defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// `["NONE"]`, `["CMD", …]`, `["CMD-SHELL", "…"]`; empty keeps the image's.
    pub test: Vec<String>,
    pub interval: Duration,
    pub timeout: Duration,
    pub start_period: Duration,
    pub start_interval: Duration,
    pub retries: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRequest {
    /// Empty: `json-file`. Also `local` (kept in the same form) and `none`.
    pub driver: String,
    /// `max-size`, `max-file`.
    pub options: BTreeMap<String, String>,
}

/// What shall change of a workload.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Update {
    pub restart: Option<RestartPolicy>,
    /// Only what is set changes; `pids` of zero or less is without limit.
    pub resources: Resources,
}

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
    pub signal: Option<Signal>,
    pub timeout_secs: Option<i64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WaitCondition {
    /// At once if it does not run.
    #[default]
    NotRunning,
    NextExit,
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
    pub ids: Vec<String>,
    /// Regular expressions, with or without the slash that Docker's names begin with.
    pub names: Vec<String>,
    /// `key` or `key=value`; all must hold.
    pub labels: Vec<String>,
    pub status: Vec<String>,
    pub exited: Vec<i32>,
    /// Image reference or ID, compared with the one it was created from.
    pub ancestors: Vec<String>,
    pub networks: Vec<String>,
    /// Volume name or mount target.
    pub volumes: Vec<String>,
    pub health: Vec<String>,
    /// Ports of the host that are published, and ports that are exposed.
    pub publish: BTreeSet<Port>,
    pub expose: BTreeSet<Port>,
    pub before: Option<String>,
    pub since: Option<String>,
}

/// Which part of the log. Times are nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug)]
pub struct LogQuery {
    pub stdout: bool,
    pub stderr: bool,
    pub follow: bool,
    pub since: Option<i64>,
    pub until: Option<i64>,
    /// The last so many records; `None` all.
    pub tail: Option<usize>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Attach {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// Begin with what was logged so far.
    pub logs: bool,
    /// Go on with what comes.
    pub stream: bool,
}

#[derive(Clone, Debug, Default)]
pub struct CreateNetwork {
    pub name: String,
    /// Empty: `bridge`.
    pub driver: String,
    pub internal: bool,
    pub attachable: bool,
    pub ipv6: bool,
    /// Empty: a free one is chosen.
    pub pools: Vec<PoolRequest>,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRequest {
    /// CIDR.
    pub subnet: Option<String>,
    pub ip_range: Option<String>,
    pub gateway: Option<String>,
    pub reserved: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default)]
pub struct CreateVolume {
    /// Empty: a random name.
    pub name: String,
    /// Empty: `local`, the only one.
    pub driver: String,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}
