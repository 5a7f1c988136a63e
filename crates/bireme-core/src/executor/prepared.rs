//! What an executor is handed to run one workload: all of it prepared.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::spec::{Port, Protocol};
use crate::{SandboxId, WorkloadSpec};

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
    /// Listening sockets of published ports, if [the executor takes them](super::Executor::takes_listeners). A socket that
    /// this sandbox already holds for another workload comes with `socket: None`.
    pub listeners: Vec<Listener>,
    /// Where it finds others by their names; for executors that [resolve them](super::Executor::as_resolver).
    pub networks: Vec<NamedNetwork>,
    /// Files the engine wrote for it, to be put at the given paths inside: `/etc/hosts`, `/etc/resolv.conf`,
    /// `/etc/hostname`.
    pub etc: Vec<(PathBuf, String)>,
}

/// What [`Executor::reattach`](super::Executor::reattach) is told.
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
        /// Unpacked layers of the image, lowest first, where they hold more than the component: its instances read that at
        /// `/`. Shared and never written to.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        files: Vec<PathBuf>,
    },
}

impl Program {
    /// The file tree of its own that a workload of this program has; `None` for one that has none.
    pub fn layers(&self) -> Option<LayerFolders<'_>> {
        match self {
            Self::Layers { lower, upper, work } => Some(LayerFolders { lower, upper, work }),
            Self::Component { .. } => None,
        }
    }
}

/// The folders of an overlay, see [`Program::Layers`].
#[derive(Clone, Copy, Debug)]
pub struct LayerFolders<'a> {
    /// Unpacked layers of the image, lowest first.
    pub lower: &'a [PathBuf],
    /// What the workload changed.
    pub upper: &'a Path,
    /// Overlayfs's work folder.
    pub work: &'a Path,
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

/// A network whose names a workload resolves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedNetwork {
    /// The network's ID, as [`Resolver::names_changed`](super::Resolver::names_changed) names it.
    pub id: String,
    /// Further names for this workload alone, and the names on the network that they stand for. Lower case.
    pub links: BTreeMap<String, String>,
}

/// Names that resolve inside one workload's networks: services, containers, aliases. Lower case, no final dot.
pub type Names = BTreeMap<String, Vec<IpAddr>>;
