//! Building.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tokio::io::AsyncRead;

use crate::digest::ImageId;
use crate::error::ImageError;
use crate::events::OnBuildEvent;
use crate::platform::Platform;
use crate::pull::RegistryAuth;
use crate::reference::Reference;
use crate::store::ImageStore;

/// What an image is to be built from.
pub struct BuildRequest {
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
    /// Never take an image from an earlier build of the same.
    pub no_cache: bool,
    /// Credentials by registry host, `docker.io` for Docker Hub.
    pub auth: BTreeMap<String, RegistryAuth>,
}

/// The files that COPY and ADD may take.
pub enum BuildContext {
    /// A tar stream, possibly compressed.
    Archive(Box<dyn AsyncRead + Send + Unpin>),
    /// A folder of this machine. Read, never written to.
    Folder(PathBuf),
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
            auth: BTreeMap::new(),
        }
    }
}

impl ImageStore {
    /// Builds an image.
    pub async fn build(&self, request: BuildRequest, log: OnBuildEvent<'_>) -> Result<ImageId, ImageError> {
        let _ = (request, log);
        Err(ImageError::BuildRequest { reason: "not yet".to_owned() })
    }
}
