//! The seam: what stands behind the protocol and builds.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bireme_core::{BoxFuture, ErrorKind};
use tokio::sync::mpsc;

use crate::build::Build;
use crate::error::BuildError;
use crate::files::Entry;

/// The label of a worker without which clients refuse `--platform a,b`, `-o oci`, `-o docker,dest=` and cache exports but
/// `inline` themselves, before the engine is asked.
pub const SNAPSHOTTER_LABEL: &str = "org.mobyproject.buildkit.worker.snapshotter";

/// Something that was built and can be exported, read or built upon; only the builder knows what it is.
///
/// It is kept by this crate for as long as the client may refer to it: while its build lasts, and a minute more for
/// other builds of the same client which stand upon it (`contexts = { base = "target:base" }` of bake).
pub type Output = Arc<dyn Any + Send + Sync>;

/// Builds; implemented by the daemon.
///
/// Order of a build as clients drive it: `solve` (none or more times, at the same time too), then `export` once, with what
/// the client chose of the results. Each `solve` and `export` runs in a task of its own: when the client goes away,
/// [`Build::cancelled`] fires and the future has [`CANCEL_GRACE`](crate::CANCEL_GRACE) to clean up and return before it is
/// dropped.
pub trait Builder: Send + Sync + 'static {
    /// The version that `docker buildx ls` prints: `v0.1.0`.
    fn version(&self) -> String;

    /// What can build here. Clients take the first one's platforms as the default platform.
    fn workers(&self) -> BoxFuture<'_, Result<Vec<Worker>, BuildError>>;

    /// What clients may ask for beyond the ordinary, by BuildKit's names (`solver/pb/caps.go`): with
    /// `exporter.image.attestations` they ask for provenance, with `cache.gha` they offer that cache.
    fn capabilities(&self) -> Vec<&'static str> {
        Vec::new()
    }

    /// Builds what a frontend describes and answers with the results; nothing is exported yet.
    ///
    /// Subrequests (`requestid` among the options: `frontend.lint`, `frontend.outline`, `frontend.targets`, as
    /// `--check` and `--call` send them) answer without an output and with the metadata `result.json`, `result.txt` and,
    /// for `frontend.lint`, `result.statuscode`.
    fn solve(&self, build: Arc<Build>, frontend: Frontend) -> BoxFuture<'_, Result<Solved, BuildError>>;

    /// Gives the results away: into the store, to a registry, to the client. The answer is what the client prints and
    /// writes as metadata: `containerimage.digest`, `containerimage.config.digest`, `image.name`.
    ///
    /// Called only when there is something to export, or a cache to be exported. `solved` is `None` if the client returned
    /// nothing.
    fn export(
        &self,
        build: Arc<Build>,
        solved: Option<Solved>,
        exports: Exports,
    ) -> BoxFuture<'_, Result<BTreeMap<String, String>, BuildError>>;

    /// Reads a file of an output, all of it or `range` (offset, length) in bytes. At most
    /// [`MAX_FILE`](crate::MAX_FILE) bytes are asked for.
    fn read_file<'a>(
        &'a self,
        build: Arc<Build>,
        output: &'a Output,
        path: &'a str,
        range: Option<(u64, u64)>,
    ) -> BoxFuture<'a, Result<Vec<u8>, BuildError>> {
        let _ = (build, output, range);
        refuse(format!("cannot read {path}: files of results cannot be read on this engine"))
    }

    /// What an output has at `path`. Links are not followed.
    fn stat_file<'a>(
        &'a self,
        build: Arc<Build>,
        output: &'a Output,
        path: &'a str,
    ) -> BoxFuture<'a, Result<Entry, BuildError>> {
        let _ = (build, output);
        refuse(format!("cannot look at {path}: files of results cannot be read on this engine"))
    }

    /// What a folder of an output has, by its names alone as paths, those that `include` (a glob; empty for all) covers.
    fn read_dir<'a>(
        &'a self,
        build: Arc<Build>,
        output: &'a Output,
        path: &'a str,
        include: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Entry>, BuildError>> {
        let _ = (build, output, include);
        refuse(format!("cannot list {path}: files of results cannot be read on this engine"))
    }

    /// What the build cache holds (`docker buildx du`).
    fn disk_usage(&self, query: UsageQuery) -> BoxFuture<'_, Result<Vec<Usage>, BuildError>>;

    /// Removes what may go from the build cache (`docker buildx prune`) and reports each record as it is gone. The
    /// receiver may be dropped at any time, which is no failure.
    fn prune(&self, prune: Prune, gone: mpsc::Sender<Usage>) -> BoxFuture<'_, Result<(), BuildError>>;
}

fn refuse<'a, T>(message: String) -> BoxFuture<'a, Result<T, BuildError>> {
    Box::pin(async move { Err(BuildError::new(ErrorKind::Unsupported, message)) })
}

/// An operating system and an architecture, in Go's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Platform {
    /// `linux`, `wasi`.
    pub os: String,
    /// `amd64`, `arm64`, `wasm`.
    pub architecture: String,
    /// `v7`, or empty.
    pub variant: String,
}

/// One worker (`docker buildx inspect`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Worker {
    /// An opaque name that stays the same.
    pub id: String,
    /// Its labels; see [`SNAPSHOTTER_LABEL`].
    pub labels: BTreeMap<String, String>,
    /// What it builds for; the first one is the default.
    pub platforms: Vec<Platform>,
    /// By which rules it clears its cache away by itself.
    pub gc_policies: Vec<GcPolicy>,
}

/// A rule of a worker's garbage collection. Sizes in bytes, 0 for none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcPolicy {
    /// Whether internal and shared records go too.
    pub all: bool,
    /// Only records unused for so long.
    pub keep_duration: Duration,
    /// Only records that these filters cover.
    pub filters: Vec<String>,
    /// Kept in any case.
    pub reserved_space: u64,
    /// The most that is kept.
    pub max_used_space: u64,
    /// How much of the disk shall stay free.
    pub min_free_space: u64,
}

/// What a client wants solved.
#[derive(Clone, Default)]
pub struct Frontend {
    /// `dockerfile.v0`, or `gateway.v0` for an image that is the frontend.
    pub name: String,
    /// `filename`, `target`, `platform`, `build-arg:…`, `label:…`, `context:…`, `requestid`, and so on.
    pub options: BTreeMap<String, String>,
    /// Outputs of other builds, by the name under which an option `context:x` = `input:NAME` refers to them. What is known
    /// of each stands in the option `input-metadata:NAME`.
    pub inputs: BTreeMap<String, Output>,
    /// Caches to take results from.
    pub cache_imports: Vec<CacheOption>,
}

impl Frontend {
    /// The session that has the files called `name` (`context`, `dockerfile`), if it is not the build's own: bake shares
    /// one session between its targets.
    pub fn session_of(&self, name: &str) -> Option<&str> {
        self.options.get(&format!("local-sessionid:{name}")).map(String::as_str)
    }
}

impl std::fmt::Debug for Frontend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Values may be secrets that somebody passes as build arguments.
        f.debug_struct("Frontend")
            .field("name", &self.name)
            .field("options", &self.options.keys())
            .finish_non_exhaustive()
    }
}

/// What was solved.
#[derive(Clone, Default)]
pub struct Solved {
    /// The results.
    pub outputs: Outputs,
    /// What is said of them: `containerimage.config` (JSON), with the platform's name after a slash for one of several,
    /// `refs.platforms` (JSON) for several.
    pub metadata: BTreeMap<String, Vec<u8>>,
}

/// Results: none, one, or one per platform.
#[derive(Clone, Default)]
pub enum Outputs {
    /// None: the answer to a subrequest, or an empty image (`FROM scratch`).
    #[default]
    None,
    /// One.
    One(Output),
    /// One per platform, by its name (`linux/amd64`).
    Platforms(BTreeMap<String, Output>),
}

impl std::fmt::Debug for Solved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let outputs = match &self.outputs {
            Outputs::None => vec!["none"],
            Outputs::One(_) => vec!["one"],
            Outputs::Platforms(all) => all.keys().map(String::as_str).collect(),
        };
        f.debug_struct("Solved").field("outputs", &outputs).field("metadata", &self.metadata.keys()).finish()
    }
}

/// What is to be given away.
#[derive(Clone, Debug, Default)]
pub struct Exports {
    /// Where the result goes to.
    pub exporters: Vec<Exporter>,
    /// Where the cache goes to.
    pub caches: Vec<CacheOption>,
}

/// One `--output`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exporter {
    /// By which name the client knows where it goes ([`Session::send_tar`](crate::Session::send_tar)).
    pub id: String,
    /// `moby`, `image`, `local`, `tar`, `oci`, `docker`.
    pub kind: String,
    /// `name`, `push`, and so on.
    pub options: BTreeMap<String, String>,
}

/// One `--cache-from` or `--cache-to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheOption {
    /// `registry`, `inline`, `local`, …
    pub kind: String,
    /// `ref`, `mode`, and so on.
    pub options: BTreeMap<String, String>,
}

/// Which records of the cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageQuery {
    /// containerd's filters, any of which has to cover a record: `type==regular`, `id~=abc`.
    pub filters: Vec<String>,
    /// Only records unused for so long; zero for all.
    pub unused_for: Duration,
}

/// Which records of the cache are to go. Sizes in bytes, 0 for none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prune {
    /// containerd's filters, any of which has to cover a record.
    pub filters: Vec<String>,
    /// Internal and shared records too.
    pub all: bool,
    /// Only records unused for so long.
    pub keep_duration: Duration,
    /// So much is kept in any case.
    pub reserved_space: u64,
    /// The most that is kept.
    pub max_used_space: u64,
    /// How much of the disk shall be free.
    pub min_free_space: u64,
}

/// A record of the build cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Its name.
    pub id: String,
    /// What it stands upon.
    pub parents: Vec<String>,
    /// Whether it can still change (a cache mount, a context).
    pub mutable: bool,
    /// Whether a build uses it now.
    pub in_use: bool,
    /// Whether an image shares its content.
    pub shared: bool,
    /// In bytes, its own alone.
    pub size: u64,
    /// When it was made.
    pub created: SystemTime,
    /// When it was last used.
    pub last_used: Option<SystemTime>,
    /// How often.
    pub usage_count: u64,
    /// `[2/2] RUN make`, `local source for context`.
    pub description: String,
    /// `regular`, `source.local`, `exec.cachemount`, `internal`, `frontend`.
    pub kind: String,
}
