//! Types of `/bireme/v1/`: invocations and capabilities.
//!
//! | request | answer |
//! |---|---|
//! | `GET /bireme/v1/workloads` | a JSON array of [`Workload`] |
//! | `GET /bireme/v1/workloads?stream=1&interval=MS` | one such array per line, every `interval` milliseconds (at least 100) |
//! | `GET /bireme/v1/workloads/NAME/profile?seconds=N` | what a component computes meanwhile; [`Profile`] |
//! | `GET /bireme/v1/workloads/NAME/core?seconds=N` | the core dump of the next of its instances that traps, with why in the header `Bireme-Reason`; 404 where none does |
//! | `GET /bireme/v1/capabilities` | [`Capabilities`] |
//! | `GET /bireme/v1/stores` | a JSON array of [`Store`] |
//! | `POST /bireme/v1/stores/prune` | removes those that no component has; [`PrunedStores`] |
//! | `POST /bireme/v1/images/prepare?image=NAME` | compiles what a workload of the image would wait for; the lines of a pull about it, none where it is ready |
//! | `POST /bireme/v1/images/verify` | one [`Damaged`] per line as it is found, then one [`Verified`]; `refetch=1` fetches anew what is damaged, and says how that went |
//! | `GET /bireme/v1/manifests/IMAGE` | the manifest or index as its registry has it, with its own media type |
//! | `GET /bireme/v1/referrers/IMAGE?artifactType=T` | an index of what refers to it, in the words of OCI |
//! | `DELETE /bireme/v1/stores/NAME` | removes one, if no component has it; [`PrunedStores`] |
//!
//! `GET /images/NAME/json` has one more key for images of components, `Bireme`: a [`Component`].
//!
//! A field that an older engine does not know has its default.
//!
//! `filters={"label":["k=v"],"name":["…"]}` narrows the list as in `GET /containers/json`.

use serde::{Deserialize, Serialize};

/// One workload as `bireme top` shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Workload {
    /// 64 hexadecimal digits.
    #[serde(rename = "ID")]
    pub id: String,
    /// Without a leading slash.
    pub name: String,
    /// `container` or `component`.
    pub kind: String,
    /// The Compose project that it belongs to.
    pub app: Option<String>,
    /// The service of that project.
    pub service: Option<String>,
    /// As it was named at create.
    pub image: String,
    /// Docker's word: `created`, `running`, `paused`, `restarting`, `exited`, `dead`.
    pub state: String,
    /// Processor time since its start, in nanoseconds. A component's is that of its host process, shared by its app.
    pub cpu_total: u64,
    /// Bytes in use.
    pub memory_usage: u64,
    /// Bytes; absent when not limited.
    pub memory_limit: Option<u64>,
    /// How often it was restarted by its policy.
    pub restarts: u64,
    /// Only where instances are started per request or message.
    pub invocations: Option<Invocations>,
}

/// Counters since the start of the workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Invocations {
    /// `http`, `redis` or `command`.
    pub trigger: String,
    /// Instances that were started.
    pub started: u64,
    /// Instances that run now. Not a counter.
    pub alive: u64,
    /// Requests or messages that wait for an instance now. Not a counter.
    pub queued: u64,
    /// Invocations that ended well.
    pub succeeded: u64,
    /// Invocations that ended with a trap or an error of the component.
    pub failed: u64,
    /// Invocations that were ended because they took too long.
    pub timed_out: u64,
    /// Requests that were turned away: the queue was full, or no instance was free in time.
    pub rejected: u64,
    /// Latency in microseconds: `[upper bound, invocations at or below it]`, cumulative, ascending.
    pub latency: Vec<(u64, u64)>,
    /// Bytes of the largest linear memory any instance had.
    pub memory_peak: u64,
}

/// What a component spent processor time in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Profile {
    /// Between two looks at an instance that computes, in microseconds.
    pub interval: u64,
    /// How often one was seen, with those whose stack is not among `stacks`.
    pub samples: u64,
    /// Names of functions, the outermost first, with `;` between them, and how often they were seen so. `(host)` is the
    /// engine's own work for the component.
    pub stacks: Vec<(String, u64)>,
}

/// What the component in an image offers and asks for, read from it before anything of it is compiled or run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Component {
    /// What starts its instances: `http`, `redis` or `command`; `None` where nothing would.
    pub trigger: Option<String>,
    /// Full names, such as `wasi:http/incoming-handler@0.2.6`, in the order of the file.
    pub exports: Vec<String>,
    /// As `exports`.
    pub imports: Vec<String>,
    /// What it may ask for when it runs, and by what that is granted.
    pub permissions: Vec<Permission>,
    /// Why no workload can be made of it here; `None` where its names are no reason.
    pub refused: Option<String>,
}

/// One kind of thing outside itself that a component may use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Permission {
    /// `http`, `sockets`, `redis`, `key-value`, `messages` or `files`.
    pub name: String,
    /// Its imports or exports that say so.
    pub interfaces: Vec<String>,
    /// The label by which whoever runs it grants that; `None` for files, which come by mounts.
    pub label: Option<String>,
    /// What the image's own label of that key says: a request.
    pub requested: Option<String>,
}

/// The embedded key-value stores of one app or lone component. They outlive it, as volumes do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Store {
    /// `app-PROJECT`; 32 hexadecimal digits for a lone component or a long name.
    pub name: String,
    /// Bytes on disk.
    pub size: u64,
    /// When something in it was last written, after RFC 3339.
    pub changed: String,
    /// Whether a component has it, running or not.
    pub in_use: bool,
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PrunedStores {
    /// Names, as [`Store::name`].
    pub stores_deleted: Vec<String>,
    /// Bytes.
    pub space_reclaimed: u64,
}

/// A line of what was found in the image store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum VerifyLine {
    /// Something is not what its name says; more may follow.
    Damaged(Damaged),
    /// Everything was looked at. The last line.
    Verified(Verified),
    /// It could not go on. The last line.
    Failed {
        /// A sentence about why.
        error: String,
    },
}

/// Something in the image store that is not what its name says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Damaged {
    /// `layer`, `component` or `configuration`.
    pub kind: String,
    /// `sha256:…`, what it should be.
    pub digest: String,
    /// The images that need it; empty for what only the cache of builds needs.
    pub images: Vec<String>,
    /// What is wrong and what to do, in one sentence.
    pub message: String,
}

/// How much of the image store was looked at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Verified {
    /// Files.
    pub checked: u64,
    /// Bytes.
    pub size: u64,
    /// How many of them are damaged.
    pub damaged_count: u64,
}

/// What this engine can run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Capabilities {
    /// Of the engine.
    pub version: String,
    /// The short name that marks everything of this engine on the machine.
    pub instance: String,
    /// Of workloads: `container`, `component`.
    pub kinds: Vec<String>,
    /// The `bireme.*` labels it understands.
    pub labels: Vec<String>,
}
