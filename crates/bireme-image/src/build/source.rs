//! What a build is made from, and who has it: files, secrets and agents of its client.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bireme_core::BoxFuture;

use crate::auth::RegistryAuth;
use crate::error::ImageError;

/// The name of the context that is named nowhere: the one that `docker build PATH` gives.
pub const MAIN_CONTEXT: &str = "context";

/// Largest Dockerfile or `.dockerignore` that is read, in bytes.
pub const TEXT_LIMIT: u64 = 1 << 20;

/// What the client of a build has for it. Each is asked for when a step needs it, and once.
pub trait BuildSources: Send + Sync {
    /// The Dockerfile, and what belongs to it alone. `arrived` is told how many bytes have come so far.
    ///
    /// # Errors
    /// `NoDockerfile`; `TooLarge`; what keeps it from being read.
    fn definition<'a>(&'a self, arrived: OnArrival<'a>) -> BoxFuture<'a, Result<Definition, ImageError>>;

    /// The `.dockerignore` of the main context, if there is one.
    ///
    /// # Errors
    /// `TooLarge`; what keeps it from being read.
    fn ignore<'a>(&'a self, arrived: OnArrival<'a>) -> BoxFuture<'a, Result<Option<Vec<u8>>, ImageError>>;

    /// Whether the main context came whole, as an archive or from an address: nothing of it is hidden then.
    fn comes_whole(&self) -> bool {
        false
    }

    /// The files of a context: [`MAIN_CONTEXT`] or one that has a name. `arrived` is told how many bytes have come so far.
    ///
    /// # Errors
    /// What keeps them from being read.
    fn files<'a>(
        &'a self,
        name: &'a str,
        filter: &'a FileFilter,
        arrived: OnArrival<'a>,
    ) -> BoxFuture<'a, Result<Files, ImageError>>;

    /// A secret of that ID, at most [`SECRET_LIMIT`] bytes; `None` if the client has none.
    ///
    /// # Errors
    /// When the client does not answer.
    fn secret<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, ImageError>>;

    /// A socket that leads to the client's SSH agent of that ID, `default` for the one that has no other; `None` if the
    /// client lends none.
    ///
    /// # Errors
    /// When the client does not answer, or no socket can be made.
    fn ssh<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<AgentSocket>, ImageError>>;

    /// What a registry is shown to pull a base image, `docker.io` being Docker Hub; `None` for nothing.
    ///
    /// # Errors
    /// When the client does not answer.
    fn credentials<'a>(&'a self, registry: &'a str) -> BoxFuture<'a, Result<Option<RegistryAuth>, ImageError>> {
        let _ = registry;
        Box::pin(async { Ok(None) })
    }
}

/// Takes the bytes that have come so far.
pub type OnArrival<'a> = &'a (dyn Fn(u64) + Send + Sync);

/// The text that says what is to be done.
#[derive(Clone, Debug, Default)]
pub struct Definition {
    /// What it is called where something is said of it.
    pub name: String,
    /// The Dockerfile.
    pub text: Vec<u8>,
    /// What is in place of the context's `.dockerignore` for this Dockerfile (`NAME.dockerignore`).
    pub ignore: Option<Vec<u8>>,
}

/// Which files of a context are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileFilter {
    /// Patterns of `.dockerignore`.
    pub exclude: Vec<String>,
    /// Paths or patterns that are enough, with what they link to; empty is all.
    pub follow: Vec<String>,
}

/// A folder with files.
#[derive(Clone)]
pub struct Files {
    path: PathBuf,
    keep: Arc<dyn Any + Send + Sync>,
}

impl Files {
    /// `keep` keeps the folder there.
    pub fn new(path: PathBuf, keep: Arc<dyn Any + Send + Sync>) -> Self {
        Self { path, keep }
    }

    /// Those in a folder among them. What leads out of them, or through a link, leads nowhere.
    pub(super) fn below(&self, subdir: &Path) -> Self {
        let plain = subdir.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        let mut path = self.path.clone();
        for part in subdir.components() {
            path.push(part);
            let folder = std::fs::symlink_metadata(&path).is_ok_and(|about| about.is_dir());
            if !plain || !folder {
                return Self { path: self.path.join("\0"), keep: Arc::clone(&self.keep) };
            }
        }
        Self { path, keep: Arc::clone(&self.keep) }
    }

    /// Where they are.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Bytes that a secret may have. Source: BuildKit, `session/secrets`, `MaxSecretSize`.
pub const SECRET_LIMIT: usize = 500 << 10;

/// A socket of this machine on which an agent answers, for as long as this is there.
#[derive(Clone)]
pub struct AgentSocket {
    /// Of the socket.
    pub path: PathBuf,
    keep: Arc<dyn Any + Send + Sync>,
}

impl AgentSocket {
    /// `keep` keeps it answering.
    pub fn new(path: PathBuf, keep: Arc<dyn Any + Send + Sync>) -> Self {
        Self { path, keep }
    }

    /// Keeps the socket there.
    pub fn keep(&self) -> Arc<dyn Any + Send + Sync> {
        Arc::clone(&self.keep)
    }
}
