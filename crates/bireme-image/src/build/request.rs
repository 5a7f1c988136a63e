//! What a build is asked for.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use tokio::io::AsyncRead;

use super::cached::CacheImport;
use super::output::BuildOutput;
use super::run::RunSteps;
pub use super::style::BuildStyle;
use crate::auth::RegistryAuth;
use crate::content_store::ContentStore;
use crate::platform::Platform;
use crate::reference::Reference;

/// What an image is to be built from.
pub struct BuildRequest {
    /// The files that COPY and ADD may take, the Dockerfile among them, until they are read.
    context: Mutex<Option<BuildContext>>,
    /// Path of the Dockerfile inside the context; Docker's default is `Dockerfile`.
    pub dockerfile: String,
    /// Names to give to the image.
    pub tags: Vec<Reference>,
    /// Values of `ARG`; `None` stands for an argument named without a value, which is as if it were not named.
    pub args: BTreeMap<String, Option<String>>,
    /// Added to the image's labels.
    pub labels: BTreeMap<String, String>,
    /// What it is built for, one image each. Empty is Linux on this machine.
    pub platforms: Vec<Platform>,
    /// The stage to end with, by name or number; `None` is the last.
    pub target: Option<String>,
    /// Ask the registry for newer base images even if they are stored.
    pub pull: bool,
    /// Never take an image or a step from an earlier build.
    pub no_cache: bool,
    /// The same for the stages of these names.
    pub no_cache_stages: Vec<String>,
    /// Of a [`BuildStyle::Classic`] build: take steps of earlier builds only where one of these images has them, stored names
    /// or IDs; empty is any.
    pub cache_from: Vec<String>,
    /// Of a [`BuildStyle::Steps`] build: take steps from these caches, too.
    pub cache_imports: Vec<CacheImport>,
    /// Write into the image by which steps it was made, so that builds elsewhere can take them from it.
    pub inline_cache: bool,
    /// Carries out RUN; `None` refuses it.
    pub runner: Option<Arc<dyn RunSteps>>,
    /// Which containers of commands are left there when the commands have ended.
    pub keep_containers: KeepContainers,
    /// Credentials by registry host, `docker.io` for Docker Hub.
    pub auth: BTreeMap<String, RegistryAuth>,
    /// How it tells what it does, and how histories are written.
    pub style: BuildStyle,
    /// What names stand for in FROM, COPY --from and RUN --mount, before stages and images: in lower case, as `NAME::PLATFORM`
    /// on one platform alone.
    pub named: BTreeMap<String, NamedContext>,
    /// The time of everything that is made, so that the same inputs give the same image: `SOURCE_DATE_EPOCH`.
    pub epoch: Option<DateTime<Utc>>,
    /// What beyond the usual a command may ask for.
    pub allowed: Allowed,
    /// How commands are run, where that makes other layers: networks, names of hosts, limits.
    pub run_key: String,
}

impl BuildRequest {
    /// A request with Docker's defaults.
    pub fn new(context: BuildContext) -> Self {
        Self {
            context: Mutex::new(Some(context)),
            dockerfile: "Dockerfile".to_owned(),
            tags: Vec::new(),
            args: BTreeMap::new(),
            labels: BTreeMap::new(),
            platforms: Vec::new(),
            target: None,
            pull: false,
            no_cache: false,
            no_cache_stages: Vec::new(),
            cache_from: Vec::new(),
            cache_imports: Vec::new(),
            inline_cache: false,
            runner: None,
            keep_containers: KeepContainers::default(),
            auth: BTreeMap::new(),
            style: BuildStyle::default(),
            named: BTreeMap::new(),
            epoch: None,
            allowed: Allowed::default(),
            run_key: String::new(),
        }
    }
}

impl BuildRequest {
    /// The context, once.
    pub(super) fn take_context(&self) -> Option<BuildContext> {
        self.context.lock().take()
    }
}

/// What a name stands for.
#[derive(Clone)]
pub enum NamedContext {
    /// Files that the client has.
    Files,
    /// An image.
    Image(String),
    /// An image in a client's content store.
    Content {
        /// What it is called where something is said of it.
        name: String,
        /// Where it is.
        store: Arc<dyn ContentStore>,
        /// Of its manifest or index.
        digest: String,
    },
    /// What stands at an address: an archive, or a git repository.
    Address(String),
    /// What another build came to.
    Built(Arc<BuildOutput>),
}

/// What a command may ask for where its client allowed it.
///
/// Source: BuildKit, `util/entitlements`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// `RUN --network=host`
    pub host_network: bool,
    /// `RUN --security=insecure`
    pub insecure: bool,
}

/// Which containers of a build are left there when it is done with them. Those of a build that is given up never are.
///
/// Source: moby, `builder/dockerfile/evaluator.go`, `dispatch`: `rm` and `forcerm`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeepContainers {
    /// None at all.
    None,
    /// That of a command that failed, so that somebody can look at it.
    #[default]
    Failed,
    /// All.
    All,
}

/// The files that COPY and ADD may take.
pub enum BuildContext {
    /// A tar stream, possibly compressed.
    Archive(Box<dyn AsyncRead + Send + Unpin>),
    /// What stands at an address, `http://` or `https://`: such a stream, or a Dockerfile and nothing else.
    Address(String),
    /// A folder of this machine. Read, never written to.
    Folder(PathBuf),
}
