//! Building images from Dockerfiles.
//!
//! ```text
//! Dockerfile ──parse──> stages ──those the target needs──> FROM: resolve or pull, instructions in order ──> record
//! context ──unpacked aside, read through .dockerignore──> COPY, ADD: one layer each, written, unpacked
//! RUN ──on the layers so far, by whoever asked for the build (see [`run`])──> what it changed: one layer
//! ```
//!
//! The same files, arguments and base give the same image: layers are written in a fixed order, a command is not run
//! again where nothing before it changed, and a build whose result would differ from a stored image only in its times
//! answers with that image.

mod base_image;
mod cache;
mod context;
mod copy;
mod copy_step;
mod dockerfile;
mod finish;
mod onbuild;
mod remote;
mod request;
pub mod run;
mod run_step;
pub(crate) mod stage;
mod stages;
mod state;
mod substitution;
mod target;
mod words;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::blocking::blocking;
use crate::digest::ImageId;
use crate::error::ImageError;
use crate::events::OnBuildEvent;
use crate::guard::GcGuard;
use crate::reference::Reference;
use crate::store::ImageStore;
use cache::Cache;
use context::Context;
use remote::Remote;
use state::Build;

pub use request::{BuildContext, BuildRequest, KeepContainers};

impl ImageStore {
    /// Builds an image from a Dockerfile and gives it its names.
    ///
    /// Only the stages that the target needs are built. Events end with [`BuildEvent::Built`] and Docker's
    /// `Successfully built` and `Successfully tagged` lines.
    ///
    /// # Errors
    /// `Dockerfile`, `Instruction` (what this builder lacks, by name and line), `Copy`, `BuildRequest`; whatever pulling
    /// a base image gives. Nothing is recorded then.
    /// # Cancel safety
    /// Dropping the future records nothing and deletes what was made.
    pub async fn build(&self, mut request: BuildRequest, log: OnBuildEvent<'_>) -> Result<ImageId, ImageError> {
        request.tags.iter().try_for_each(Reference::check_tag)?;
        let context = match std::mem::replace(&mut request.context, BuildContext::Folder(PathBuf::new())) {
            BuildContext::Folder(path) => Context::Folder(path),
            BuildContext::Archive(archive) => context::unpacked(self, archive).await?,
            BuildContext::Address(address) => match remote::open(&address).await? {
                Remote::Archive(archive) => context::unpacked(self, archive).await?,
                Remote::Dockerfile(text) => {
                    "Dockerfile".clone_into(&mut request.dockerfile);
                    context::of_dockerfile(self, text).await?
                }
            },
        };
        let (folder, name) = (context.path().to_owned(), request.dockerfile.clone());
        let (dockerfile, ignore) = blocking("read the Dockerfile", move || context::read_texts(&folder, &name)).await?;
        let mut build = Build {
            store: self,
            request: &request,
            context: &context,
            ignore,
            globals: BTreeMap::new(),
            stages: Vec::new(),
            cache: Cache::open(self, &request)?,
            claim: GcGuard::new(&self.inner),
            log,
            step: 0,
            steps: 0,
        };
        let stage = Box::pin(build.run(&dockerfile)).await?;
        build.finish(stage).await
    }
}
