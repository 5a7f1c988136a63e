//! What the engine answers: snapshots, taken at one moment, with nothing of any wire in them. Some of these types are
//! records as well, and what they are called in JSON is on disks.
//!
//! Times are nanoseconds since the Unix epoch.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use bireme_core::Program;
use bireme_core::spec::{Port, Resources, WorkloadSpec};
use serde::{Deserialize, Serialize};

use crate::request::{EndpointRequest, HealthCheck, LogRequest, PoolRequest, RestartPolicy};

/// The network of workloads that name none; its members get no names, as with Docker.
pub(crate) const DEFAULT_NETWORK: &str = "bridge";

/// One workload. The part that never changes after create is in `config`.
#[derive(Clone, Debug)]
pub struct WorkloadView {
    /// As created.
    pub config: std::sync::Arc<Config>,
    /// Without a leading slash; `rename` changes it (`config.spec.name` is the name at create).
    pub name: String,
    /// What it does now, and how its last run ended.
    pub state: State,
    /// As at create, or as an update changed it.
    pub restart: RestartPolicy,
    /// How often its policy started it again since it was last started on request.
    pub restart_count: u64,
    /// One for each network that it is on, also while it does not run.
    pub endpoints: Vec<Endpoint>,
    /// Those that are bound: none while it does not run.
    pub ports: Vec<PublishedPort>,
    /// `None` where it is not probed.
    pub health: Option<Health>,
    /// The limits, where they were changed since create; otherwise those of `config.spec` hold.
    pub resources: Option<Resources>,
    /// Of `config.links`, those that were not removed since.
    pub links: Vec<Link>,
    /// IDs of exec sessions that run or are yet to run.
    pub execs: Vec<String>,
}

impl WorkloadView {
    /// 64 hexadecimal digits.
    pub fn id(&self) -> &str {
        self.config.spec.id.as_str()
    }
}

/// What of a workload is fixed at create: a record of the state store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// What its executor runs, request and image merged.
    pub spec: WorkloadSpec,
    /// `sha256:…` of the image it was made from.
    pub image_id: String,
    /// `os/arch[/variant]`.
    pub platform: String,
    /// When, in nanoseconds since 1970.
    pub created: i64,
    /// It is removed when it ends, with its anonymous volumes.
    pub auto_remove: bool,
    /// It runs a command of a build, and ends with it.
    #[serde(default)]
    pub of_build: bool,
    /// Those that were asked for, inherited ones and the image's volumes.
    pub mounts: Vec<MountPoint>,
    /// As asked for; [`WorkloadView::ports`] has what is bound.
    pub publish: Vec<crate::request::Publish>,
    /// With each exposed port on a free port of the host.
    pub publish_all: bool,
    /// Request and image merged; `None` where neither has one.
    pub health: Option<HealthCheck>,
    /// What is run, with the folders of this workload already in it.
    pub program: Program,
    /// The driver with the engine's defaults filled in.
    pub log: LogRequest,
    /// Where the log file is; `None` with the `none` driver.
    pub log_path: Option<PathBuf>,
    /// [`crate::request::CreateRequest::as_asked`], for `inspect`.
    pub as_asked: serde_json::Value,
    /// Links at create; [`WorkloadView::links`] has those that are left.
    #[serde(default)]
    pub links: Vec<Link>,
    /// As resolved from the request and the image.
    pub entrypoint: Vec<String>,
    /// As resolved from the request and the image.
    pub command: Vec<String>,
}

/// Another workload that is known by a name of one's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// ID of the other one.
    pub to: bireme_core::WorkloadId,
    /// What it is called here.
    pub alias: String,
}

/// What a workload does, and how its last run began and ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Where in its life it is.
    pub status: Status,
    /// On the host; of a component, its host process. `None` while it does not run.
    pub pid: Option<u32>,
    /// Of the last run that ended; 0 before.
    pub exit_code: i32,
    /// Why the last start failed or the workload was lost; empty otherwise.
    pub error: String,
    /// The last run ended because its memory ran out.
    pub oom_killed: bool,
    /// When the last run began, in nanoseconds since 1970; `None` before the first.
    pub started_at: Option<i64>,
    /// When the last run ended, in nanoseconds since 1970; `None` before the first end.
    pub finished_at: Option<i64>,
}

/// Where in its life a workload is. What leads from one to another is drawn in [`crate::lifecycle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It was never started.
    Created,
    /// It runs.
    Running,
    /// It runs, and its processes are frozen.
    Paused,
    /// It ended, and its restart policy starts it again when the back-off is over.
    Restarting,
    /// Its removal has begun.
    Removing,
    /// It ended, and nothing starts it by itself.
    Exited,
    /// Its removal failed; it can only be removed again.
    Dead,
}

impl State {
    /// Of what has not run yet, or of which no more is known.
    pub(crate) fn new(status: Status) -> Self {
        Self {
            status,
            pid: None,
            exit_code: 0,
            error: String::new(),
            oom_killed: false,
            started_at: None,
            finished_at: None,
        }
    }
}

impl Status {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }

    /// Whether a process stands for it now.
    pub fn is_alive(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

/// A workload's place on one network. The addresses are `None` while it does not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The network's ID.
    pub network: String,
    /// The network's name.
    pub network_name: String,
    /// 64 hexadecimal digits, new at each start.
    pub endpoint_id: String,
    /// What was asked for.
    pub request: EndpointRequest,
    /// Addresses that are taken where nothing else was asked for and they are free: of the workload that it replaces.
    #[serde(default)]
    pub preferred: Vec<IpAddr>,
    /// Address, and length of the network's prefix.
    pub ipv4: Option<(IpAddr, u8)>,
    /// Where the network leads outside, by IPv4.
    pub gateway: Option<IpAddr>,
    /// Address, and length of the network's prefix.
    pub ipv6: Option<(IpAddr, u8)>,
    /// Where the network leads outside, by IPv6.
    pub ipv6_gateway: Option<IpAddr>,
    /// Six bytes such as `02:42:ac:11:00:02`.
    pub mac: Option<String>,
    /// Names under which it is found on this network.
    pub names: Vec<String>,
}

/// A published port, as really bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// What the workload listens on.
    pub container: Port,
    /// What clients connect to: an unspecified address is every one of the machine's.
    pub host: SocketAddr,
}

/// A mount as `inspect` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPoint {
    /// What is mounted.
    pub kind: MountKind,
    /// Volume name; empty otherwise.
    pub name: String,
    /// Made for this workload alone, and removed with it on request.
    pub anonymous: bool,
    /// The image says that there is a volume here.
    #[serde(default)]
    pub declared: bool,
    /// Another workload's, by `--volumes-from`.
    #[serde(default)]
    pub inherited: bool,
    /// Path on the host; of a volume, its mountpoint. Empty for memory.
    pub source: PathBuf,
    /// Absolute path in the workload.
    pub target: String,
    /// Nothing can be written through this mount.
    pub read_only: bool,
    /// `rprivate`, `rslave` or `rshared`; empty for what is no file or folder of the host.
    pub propagation: String,
}

/// Docker's mount types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountKind {
    /// A file or folder of the host.
    Bind,
    /// A volume of the engine.
    Volume,
    /// Files in memory.
    Tmpfs,
}

/// What is known of a workload's health.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `starting`, `healthy` or `unhealthy`.
    pub status: String,
    /// How many probes failed in a row.
    pub failing_streak: u32,
    /// The last five probes, oldest first.
    pub log: Vec<HealthProbe>,
}

impl Health {
    /// Before the first probe.
    pub(crate) fn starting() -> Self {
        Self { status: "starting".to_owned(), ..Self::default() }
    }
}

/// One probe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthProbe {
    /// Nanoseconds since 1970.
    pub start: i64,
    /// Nanoseconds since 1970.
    pub end: i64,
    /// 0: it passed; -1: it took too long; otherwise the command's, or 1 where no answer came.
    pub exit_code: i32,
    /// What it said, at most 4 KiB of it.
    pub output: String,
}

/// How a workload ended, as `wait` answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Exit code.
    pub code: i32,
    /// Why its end is not known, or why it could not be removed where that was waited for.
    pub error: Option<String>,
}

/// A network as it was made: a record of the state store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// 64 hexadecimal digits.
    pub id: String,
    /// As at create.
    pub name: String,
    /// `bridge`, `host` or `null`.
    pub driver: String,
    /// When, in nanoseconds since 1970.
    pub created: i64,
    /// It leads nowhere outside, and no published port leads to what is on it.
    pub internal: bool,
    /// As asked for; without effect.
    pub attachable: bool,
    /// As asked for: it gets an IPv6 subnet.
    pub ipv6: bool,
    /// One for each family, with what was left to the engine filled in.
    pub pools: Vec<PoolRequest>,
    /// As asked for.
    pub options: BTreeMap<String, String>,
    /// As asked for.
    pub labels: BTreeMap<String, String>,
}

/// A workload on a network, for `network inspect`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkMember {
    /// Its whole ID.
    pub workload_id: String,
    /// What it is called.
    pub name: String,
    /// Its place there.
    pub endpoint: Endpoint,
}

/// A volume as it was made: a record of the state store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// As asked for; 64 hexadecimal digits where it was left to the engine.
    pub name: String,
    /// `local`, the only one.
    pub driver: String,
    /// The folder on the host that holds its files, `…/_data`.
    pub mountpoint: PathBuf,
    /// When, in nanoseconds since 1970.
    pub created: i64,
    /// What the folder is a mount of, as asked for; empty: of nothing.
    pub options: BTreeMap<String, String>,
    /// As asked for.
    pub labels: BTreeMap<String, String>,
    /// It was given no name: it goes with its workload, and with any prune.
    pub anonymous: bool,
}
