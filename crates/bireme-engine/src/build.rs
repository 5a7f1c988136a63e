//! Commands of builds, each in a container of its own; and images of containers.
//!
//! The image library plans a build and asks for its commands to be run; here they are, as any workload is: with the
//! network and the limits that were asked for, seen in lists and events, and removed when they have ended.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use bireme_core::{BoxFuture, WorkloadId};
use bireme_image::{BuildEvent, BuildRequest, Changes, Commit, ImageConfig, ImageError, ImageId, Reference};
use bireme_image::{KeepContainers, OnBuildEvent, RunStep, RunSteps};
use tokio::net::UnixStream;
use tokio_util::task::TaskTracker;

use crate::engine::Engine;
use crate::error::EngineError;
use crate::frames;
use crate::layer;
use crate::request::{Attach, CreateRequest, HealthCheck, LogRequest, RemoveRequest, Unfinished, WaitCondition};
use crate::view::{Status, WorkloadView};

/// A container to be made an image of.
#[derive(Clone, Debug, Default)]
pub struct CommitRequest {
    /// Name or ID.
    pub container: String,
    /// Keep it still while its files are read.
    pub pause: bool,
    /// What the image shall start with, and what it has where that is silent.
    pub config: ImageConfig,
    pub defaults: ImageConfig,
    /// Instructions as in a Dockerfile, on top of `config`.
    pub changes: Vec<String>,
    pub author: Option<String>,
    pub comment: Option<String>,
    pub name: Option<Reference>,
}

impl Engine {
    /// Builds an image. `steps` says how its commands are run: their network, limits and hosts; the rest of it is the
    /// build's.
    ///
    /// # Errors
    /// As [`bireme_image::ImageStore::build`].
    /// # Cancel safety
    /// Dropping the future ends the running command and leaves nothing of the build.
    pub async fn build(
        &self,
        mut request: BuildRequest,
        steps: CreateRequest,
        log: OnBuildEvent<'_>,
    ) -> Result<ImageId, ImageError> {
        let removals = TaskTracker::new();
        let keep = request.keep_containers;
        let runner = StepRunner { engine: self.clone(), template: steps, removals: removals.clone(), keep };
        request.runner = Some(Arc::new(runner));
        let built = self.images().build(request, log).await;
        // Whoever looks after the build finds none of its containers.
        removals.close();
        removals.wait().await;
        built
    }

    /// Removes the container of a step whose build ended with an earlier engine, unless its command had failed: that one was
    /// left to be looked at.
    pub(crate) async fn remove_of_build(&self, id: &str) {
        let failed = |view: &WorkloadView| view.state.status == Status::Exited && view.state.exit_code != 0;
        if !self.inspect(id).is_ok_and(|view| failed(&view)) {
            self.remove_step(id).await;
        }
    }

    /// Removes the container of a step, whatever it does.
    async fn remove_step(&self, id: &str) {
        if let Err(error) = self.remove(id, RemoveRequest { force: true, volumes: true }).await {
            tracing::warn!(workload.id = id, %error, "the container of a build could not be removed");
        }
    }

    /// Makes an image of a container: its image's layers, and one of what it changed.
    ///
    /// # Errors
    /// `NotFound` for the container; `Unsupported` for a component; what [`bireme_image::ImageStore::commit`] refuses.
    /// # Cancel safety
    /// Dropping the future records nothing, and lets the container go on.
    ///
    /// Source: Docker Engine API, `ImageCommit`.
    pub async fn commit(&self, request: CommitRequest) -> Result<ImageId, EngineError> {
        let handle = self.find(&request.container)?;
        let (lower, upper) = self.folders_of(&request.container)?;
        let view = handle.view();
        let config = &handle.config;
        let parent = config.image_id.parse().map_err(ImageError::from)?;
        let still = match view.state.status {
            Status::Running if request.pause => match Still::hold(self, handle.id()).await {
                Ok(still) => Some(still),
                Err(error) => {
                    // It ended in that moment, or somebody else paused it: it is still as it is.
                    let mut watch = handle.watch();
                    let rests = watch.wait_for(|view| view.state.status != Status::Running);
                    match tokio::time::timeout(KNOWN_WITHIN, rests).await {
                        Ok(Ok(view)) if !matches!(view.state.status, Status::Removing | Status::Dead) => None,
                        _ => return Err(error),
                    }
                }
            },
            Status::Removing | Status::Dead => {
                return Err(EngineError::conflict(format!(
                    "You cannot commit container {} which is being removed",
                    handle.id()
                )));
            }
            _ => None,
        };
        let name = request.name.as_ref().map(Reference::familiar).unwrap_or_default();
        let comment = request.comment.clone().unwrap_or_default();
        let commit = Commit {
            parent: Some(ImageId(parent)),
            platform: None,
            layer: Box::new(move |out: &mut dyn Write| layer::pack(&lower, &upper, out)),
            config: request.config,
            defaults: request.defaults,
            changes: request.changes,
            author: request.author,
            comment: request.comment,
            created_by: Some(config.command.join(" ")),
            name: request.name,
        };
        let made = self.images().commit(commit).await;
        if let Some(still) = still {
            still.release().await;
        }
        let id = made?;
        let attributes = [("comment", comment.as_str()), ("imageID", &id.to_string()), ("imageRef", &name)];
        handle.emit(self, "commit", attributes);
        Ok(id)
    }
}

/// How long the end of a container that could not be paused may take to be known.
const KNOWN_WITHIN: Duration = Duration::from_secs(2);

/// A container that is paused, and goes on even when whoever paused it gives up.
struct Still {
    engine: Engine,
    id: Option<String>,
}

impl Still {
    async fn hold(engine: &Engine, id: &str) -> Result<Self, EngineError> {
        engine.hold(id).await?;
        Ok(Self { engine: engine.clone(), id: Some(id.to_owned()) })
    }

    async fn release(mut self) {
        if let Some(id) = self.id.take() {
            go_on(&self.engine, &id).await;
        }
    }
}

async fn go_on(engine: &Engine, id: &str) {
    // It may have been removed meanwhile, or somebody else let it go on.
    if let Err(error) = engine.unpause(id).await {
        tracing::debug!(workload.id = id, %error, "a container that was committed did not go on");
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            let engine = self.engine.clone();
            self.engine.spawn(async move { go_on(&engine, &id).await });
        }
    }
}

struct StepRunner {
    engine: Engine,
    template: CreateRequest,
    removals: TaskTracker,
    keep: KeepContainers,
}

impl RunSteps for StepRunner {
    fn run<'a>(&'a self, step: RunStep, log: OnBuildEvent<'a>) -> BoxFuture<'a, Result<Changes, ImageError>> {
        Box::pin(self.run_step(step, log))
    }
}

impl StepRunner {
    async fn run_step(&self, step: RunStep, log: OnBuildEvent<'_>) -> Result<Changes, ImageError> {
        let say = |text: String| log(BuildEvent::Stream(text));
        let command = step.command.clone();
        let created = self.engine.create(self.request(step)).await.map_err(refused)?;
        let mut scaffold =
            Scaffold { runner: self.engine.clone(), removals: self.removals.clone(), id: created.id.to_string() };
        let id = scaffold.id.clone();
        let id = id.as_str();
        say(format!(" ---> Running in {}\n", created.id.short()));
        match self.run_in(id, &command, &say).await {
            Ok(()) if self.keep == KeepContainers::All => scaffold.id.clear(),
            Ok(()) => {}
            Err(error) => {
                match self.keep {
                    KeepContainers::None => say(removed(&created.id)),
                    KeepContainers::Failed | KeepContainers::All => scaffold.id.clear(),
                }
                return Err(error);
            }
        }
        let (lower, upper) = self.engine.folders_of(id).map_err(refused)?;
        if self.keep != KeepContainers::All {
            say(removed(&created.id));
        }
        Ok(Box::new(move |out: &mut dyn Write| {
            let packed = layer::pack(&lower, &upper, out);
            drop(scaffold);
            packed
        }))
    }

    /// Runs the command that a container was made for to its end.
    async fn run_in(&self, id: &str, command: &[String], say: &(dyn Fn(String) + Sync)) -> Result<(), ImageError> {
        let streams = Attach { stdout: true, stderr: true, stream: true, ..Attach::default() };
        let session = self.engine.attach(id, streams).await.map_err(refused)?;
        let end = self.engine.wait(id, WaitCondition::NextExit).map_err(refused)?;
        self.engine.start(id).await.map_err(refused)?;
        if let Some(stream) = session.stream.await.map_err(refused)? {
            // Output that breaks off does not change how the command ended.
            if let Err(error) = tell(stream, say).await {
                tracing::warn!(workload.id = id, %error, "the output of a build's command broke off");
            }
        }
        let ended = end.await.map_err(refused)?;
        if ended.code != 0 {
            return Err(ImageError::Run { command: command.join(" "), code: ended.code });
        }
        Ok(())
    }

    fn request(&self, step: RunStep) -> CreateRequest {
        let mut request = self.template.clone();
        request.image = step.image.id.short().to_owned();
        // An entrypoint of the image is not for its build.
        request.entrypoint = Some(vec![String::new()]);
        request.command = Some(step.command);
        request.env = step.env;
        request.health = Some(HealthCheck { test: vec!["NONE".to_owned()], ..HealthCheck::default() });
        request.log = LogRequest { driver: "none".to_owned(), ..LogRequest::default() };
        request.unfinished =
            Some(Unfinished { image: step.image, layers: step.layers, keep: self.keep == KeepContainers::All });
        request
    }
}

fn removed(id: &WorkloadId) -> String {
    format!(" ---> Removed intermediate container {}\n", id.short())
}

fn refused(error: EngineError) -> ImageError {
    match error {
        EngineError::Image(error) => error,
        other => ImageError::RunRefused { reason: other.to_string() },
    }
}

/// The container of a step: removed when nothing needs it any more, however that comes about, unless its ID is taken away.
struct Scaffold {
    runner: Engine,
    removals: TaskTracker,
    id: String,
}

impl Drop for Scaffold {
    fn drop(&mut self) {
        let (engine, id) = (self.runner.clone(), std::mem::take(&mut self.id));
        if id.is_empty() {
            return;
        }
        let removal = async move { engine.remove_step(&id).await };
        // Without a runtime the engine is ending; the next one clears it away.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(self.removals.spawn_on(removal, &runtime));
        }
    }
}

/// Tells what a command prints; what it complains of in red, as Docker's classic builder does.
async fn tell(stream: std::os::unix::net::UnixStream, say: &(dyn Fn(String) + Sync)) -> std::io::Result<()> {
    stream.set_nonblocking(true)?;
    let mut stream = UnixStream::from_std(stream)?;
    // A character may come in two pieces: by stream, what is still to be completed.
    let mut rest: [Vec<u8>; 2] = [Vec::new(), Vec::new()];
    while let Some((number, piece)) = frames::next(&mut stream).await? {
        let complaint = number == frames::STDERR;
        let open = &mut rest[usize::from(complaint)];
        open.extend(piece);
        let whole = match std::str::from_utf8(open) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => open.len(),
        };
        let text = String::from_utf8_lossy(&open[..whole]).into_owned();
        open.drain(..whole);
        if !text.is_empty() {
            say(if complaint { format!("\u{1b}[91m{text}\u{1b}[0m") } else { text });
        }
    }
    Ok(())
}
