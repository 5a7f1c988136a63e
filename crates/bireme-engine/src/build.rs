//! Builds, whose commands are run each in a container of its own.
//!
//! The image library plans a build and asks for its commands to be run; here they are, as any workload is: with the
//! network and the limits that were asked for, seen in lists and events, and removed when they have ended.

use std::io::Write;
use std::sync::Arc;

use bireme_core::{BoxFuture, WorkloadId};
use bireme_image::{
    BuildEvent, BuildRequest, Changes, ImageError, ImageId, KeepContainers, OnBuildEvent, RunStep, RunSteps,
};
use tokio::net::UnixStream;
use tokio_util::task::TaskTracker;

use crate::engine::Engine;
use crate::error::EngineError;
use crate::frames;
use crate::layer;
use crate::request::{Attach, CreateRequest, HealthCheck, LogRequest, Unfinished, WaitCondition};

/// Builds an image. `steps` says how its commands are run: their network, limits and hosts; the rest of it is the
/// build's.
///
/// # Errors
/// As [`bireme_image::ImageStore::build`].
/// # Cancel safety
/// Dropping the future ends the running command and leaves nothing of the build.
pub async fn build(
    engine: &Engine,
    mut request: BuildRequest,
    steps: CreateRequest,
    log: OnBuildEvent<'_>,
) -> Result<ImageId, ImageError> {
    let removals = TaskTracker::new();
    let keep = request.keep_containers;
    let runner = StepRunner { engine: engine.clone(), template: steps, removals: removals.clone(), keep };
    request.runner = Some(Arc::new(runner));
    let built = engine.images().build(request, log).await;
    // Whoever looks after the build finds none of its containers.
    removals.close();
    removals.wait().await;
    built
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
