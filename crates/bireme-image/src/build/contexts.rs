//! Contexts and base images, each with a step of its own, which all that needs it waits for.

use std::sync::Arc;

use bireme_core::ignore::Ignore;

use super::context::files_at;
use super::git::{self, GitAccess};
use super::request::BuildRequest;
use super::shared::{Context, Shared};
use super::source::{BuildSources, Definition, FileFilter, MAIN_CONTEXT};
use super::step::Step;
use super::style::BuildStyle;
use crate::error::ImageError;
use crate::events::{Progress, StepId};

/// The main context with all that is in it, whatever the instructions of the Dockerfile take of it.
pub(super) const WHOLE_CONTEXT: &str = "\0whole";

impl<'a> Shared<'a> {
    /// The files of a context, asked for once.
    pub(super) async fn context(&'a self, name: &str) -> Result<Context, ImageError> {
        let cell = Arc::clone(self.contexts.lock().entry(name.to_owned()).or_default());
        let context = cell.get_or_try_init(|| self.load(name)).await?;
        Ok(context.clone())
    }

    /// What stands at an address that a name stands for, fetched once.
    pub(super) async fn context_at(&'a self, name: &str, address: &str) -> Result<Context, ImageError> {
        let cell = Arc::clone(self.contexts.lock().entry(format!("\0{name}")).or_default());
        let fetch = async || {
            let title = format!("[context {name}] {}", git::redacted(address));
            let step = Step::begin(self, title, Vec::new(), None);
            let access = GitAccess::of(self.sources).await?;
            let files = files_at(self.store, address, &access).await;
            let (files, step) = step.ended(files.map(|files| (files, false)))?;
            Ok::<_, ImageError>(Context { files, step })
        };
        let context = cell.get_or_try_init(fetch).await?;
        Ok(context.clone())
    }

    /// The `.dockerignore` of the main context.
    pub(super) async fn ignore_text(&'a self) -> Result<Option<Vec<u8>>, ImageError> {
        let step = Step::begin(self, "[internal] load .dockerignore".to_owned(), Vec::new(), None);
        let arrived = |bytes| step.progress(Progress::counted_alone("transferring context:", bytes));
        let text = self.sources.ignore(&arrived).await;
        step.ended_by(text)
    }

    async fn load(&'a self, name: &str) -> Result<Context, ImageError> {
        let whole = name == WHOLE_CONTEXT;
        let main = whole || name == MAIN_CONTEXT;
        let name = if main { MAIN_CONTEXT } else { name };
        let title = match main {
            true => "[internal] load build context".to_owned(),
            false => format!("[context {name}] load from client"),
        };
        let step = Step::begin(self, title, Vec::new(), None);
        let filter = match self.hidden.get() {
            Some((ignore, enough)) if main => {
                let follow = enough.clone().filter(|_| !whole).unwrap_or_default();
                FileFilter { exclude: ignore.patterns(), follow }
            }
            _ => FileFilter::default(),
        };
        let arrived = |bytes| step.progress(Progress::counted_alone("transferring context:", bytes));
        let files = self.sources.files(name, &filter, &arrived).await;
        let (files, step) = step.ended(files.map(|files| (files, false)))?;
        Ok(Context { files, step })
    }

    /// The step of a base image. It counts as taken from the cache where what is built on it is not.
    pub(super) fn base(&'a self, image: &str, name: &str, cached: bool) -> StepId {
        let mut bases = self.bases.lock();
        let begin = || Step::begin(self, name.to_owned(), Vec::new(), None).end(cached);
        bases.entry(image.to_owned()).or_insert_with(begin).clone()
    }
}

/// What COPY and ADD do not see of the main context.
///
/// Source: BuildKit, `frontend/dockerui/config.go`, `DockerIgnorePatterns`; moby, `builder/remotecontext/detect.go`,
/// `removeDockerfile`.
pub(super) fn hidden(
    definition: &Definition,
    request: &BuildRequest,
    sources: &dyn BuildSources,
) -> Result<Ignore, ImageError> {
    let text = definition.ignore.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    let malformed = |error| ImageError::BuildRequest { reason: format!(".dockerignore: {error}") };
    let ignore = Ignore::parse(&text).map_err(malformed)?;
    match (sources.comes_whole(), request.style) {
        (false, _) => Ok(ignore),
        (true, BuildStyle::Steps) => Ok(Ignore::default()),
        // The client has left out what it says, but for what the builder itself reads.
        (true, BuildStyle::Classic) => {
            let own = [".dockerignore", request.dockerfile.as_str()];
            let own: Vec<String> = own.into_iter().filter(|name| ignore.hides(name)).map(str::to_owned).collect();
            Ignore::of(&own).map_err(malformed)
        }
    }
}
