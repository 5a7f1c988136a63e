//! What the engine answers: snapshots, taken at one moment, with nothing of any wire in them.
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
    pub config: std::sync::Arc<Config>,
    /// Without a leading slash; `rename` changes it (`config.spec.name` is the name at create).
    pub name: String,
    pub state: State,
    pub restart: RestartPolicy,
    pub restart_count: u64,
    pub endpoints: Vec<Endpoint>,
    pub ports: Vec<PublishedPort>,
    pub health: Option<Health>,
    /// The limits, where they were changed since create; otherwise those of `config.spec` hold.
    pub resources: Option<Resources>,
    /// Of `config.links`, those that were not removed since.
    pub links: Vec<Link>,
    /// IDs of exec sessions that run or are yet to run.
    pub execs: Vec<String>,
}

impl WorkloadView {
    pub fn id(&self) -> &str {
        self.config.spec.id.as_str()
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub spec: WorkloadSpec,
    /// `sha256:…` of the image it was made from.
    pub image_id: String,
    /// `os/arch[/variant]`.
    pub platform: String,
    pub created: i64,
    pub auto_remove: bool,
    /// It runs a command of a build, and ends with it.
    #[serde(default)]
    pub of_build: bool,
    pub mounts: Vec<MountPoint>,
    pub publish: Vec<crate::request::Publish>,
    pub publish_all: bool,
    pub health: Option<HealthCheck>,
    /// What is run, with the folders of this workload already in it.
    pub program: Program,
    pub log: LogRequest,
    /// Where the log file is; `None` with the `none` driver.
    pub log_path: Option<PathBuf>,
    pub as_asked: serde_json::Value,
    #[serde(default)]
    pub links: Vec<Link>,
    /// Entrypoint and command as resolved from the request and the image.
    pub entrypoint: Vec<String>,
    pub command: Vec<String>,
}

/// Another workload that is known by a name of one's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub to: bireme_core::WorkloadId,
    pub alias: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub status: Status,
    /// On the host; of a component, its host process.
    pub pid: Option<u32>,
    pub exit_code: i32,
    /// Why the last start failed or the workload was lost; empty otherwise.
    pub error: String,
    pub oom_killed: bool,
    pub started_at: Option<i64>,
    pub finished_at: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Created,
    Running,
    Paused,
    Restarting,
    Removing,
    Exited,
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
    /// The network's ID and name.
    pub network: String,
    pub network_name: String,
    /// 64 hexadecimal digits, new at each start.
    pub endpoint_id: String,
    pub request: EndpointRequest,
    pub ipv4: Option<(IpAddr, u8)>,
    pub gateway: Option<IpAddr>,
    pub ipv6: Option<(IpAddr, u8)>,
    pub ipv6_gateway: Option<IpAddr>,
    pub mac: Option<String>,
    /// Names under which it is found on this network.
    pub names: Vec<String>,
}

/// A published port, as really bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    pub container: Port,
    pub host: SocketAddr,
}

/// A mount as `inspect` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPoint {
    pub kind: MountKind,
    /// Volume name; empty otherwise.
    pub name: String,
    /// Made for this workload alone, and removed with it on request.
    pub anonymous: bool,
    /// The image says that there is a volume here.
    #[serde(default)]
    pub declared: bool,
    /// Of `--volumes-from`.
    #[serde(default)]
    pub inherited: bool,
    pub source: PathBuf,
    pub target: String,
    pub read_only: bool,
    pub propagation: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountKind {
    Bind,
    Volume,
    Tmpfs,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `starting`, `healthy` or `unhealthy`.
    pub status: String,
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

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthProbe {
    pub start: i64,
    pub end: i64,
    pub exit_code: i32,
    pub output: String,
}

/// How a workload ended, as `wait` answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub code: i32,
    pub error: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    pub id: String,
    pub name: String,
    /// `bridge`, `host` or `null`.
    pub driver: String,
    pub created: i64,
    pub internal: bool,
    pub attachable: bool,
    pub ipv6: bool,
    pub pools: Vec<PoolRequest>,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

/// A workload on a network, for `network inspect`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkMember {
    pub workload_id: String,
    pub name: String,
    pub endpoint: Endpoint,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub name: String,
    pub driver: String,
    pub mountpoint: PathBuf,
    pub created: i64,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub anonymous: bool,
}
