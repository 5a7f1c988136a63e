//! What a build is asked for.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::io::AsyncRead;

use super::run::RunSteps;
use crate::auth::RegistryAuth;
use crate::platform::Platform;
use crate::reference::Reference;

/// What an image is to be built from.
pub struct BuildRequest {
    /// The files that COPY and ADD may take, the Dockerfile among them.
    pub context: BuildContext,
    /// Path of the Dockerfile inside the context; Docker's default is `Dockerfile`.
    pub dockerfile: String,
    /// Names to give to the image.
    pub tags: Vec<Reference>,
    /// Values of `ARG`; `None` stands for an argument named without a value, which is as if it were not named.
    pub args: BTreeMap<String, Option<String>>,
    /// Added to the image's labels.
    pub labels: BTreeMap<String, String>,
    /// `None` is Linux on this machine.
    pub platform: Option<Platform>,
    /// The stage to end with, by name or number; `None` is the last.
    pub target: Option<String>,
    /// Ask the registry for newer base images even if they are stored.
    pub pull: bool,
    /// Never take an image or a step from an earlier build.
    pub no_cache: bool,
    /// Take steps of earlier builds only where one of these images has them, stored names or IDs; empty is any.
    pub cache_from: Vec<String>,
    /// Carries out RUN; `None` refuses it.
    pub runner: Option<Arc<dyn RunSteps>>,
    /// Which containers of commands are left there when the commands have ended.
    pub keep_containers: KeepContainers,
    /// Credentials by registry host, `docker.io` for Docker Hub.
    pub auth: BTreeMap<String, RegistryAuth>,
}

impl BuildRequest {
    /// A request with Docker's defaults.
    pub fn new(context: BuildContext) -> Self {
        Self {
            context,
            dockerfile: "Dockerfile".to_owned(),
            tags: Vec::new(),
            args: BTreeMap::new(),
            labels: BTreeMap::new(),
            platform: None,
            target: None,
            pull: false,
            no_cache: false,
            cache_from: Vec::new(),
            runner: None,
            keep_containers: KeepContainers::default(),
            auth: BTreeMap::new(),
        }
    }
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
