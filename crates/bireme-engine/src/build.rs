//! Builds, whose commands are run each in a container of its own.
//!
//! The image library plans a build and asks for its commands to be run; here they are, as any workload is: with the
//! network and the limits that were asked for, seen in lists and events, and removed when they have ended.

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bireme_core::spec::Propagation;
use bireme_core::{BoxFuture, WorkloadId};
use bireme_image::{
    Access, BuildOutput, BuildRequest, BuildSources, Changes, ImageError, ImageId, Keep, KeepContainers, OnBuildEvent,
    OnRunOutput, RunOutput, RunStep, RunSteps, StepMount, StepMountSource, StepNetwork, Stub,
};
use tempfile::TempPath;
use tokio::net::UnixStream;
use tokio_util::task::TaskTracker;

use crate::engine::Engine;
use crate::error::EngineError;
use crate::frames;
use crate::request::{
    Attach, CreateRequest, HealthCheck, LogRequest, MountRequest, MountRequestSource, NetworkModeRequest, Unfinished,
    WaitCondition,
};
use crate::{layer, stubs};

/// Builds an image and gives it its names, as Docker's classic builder does. `steps` says how its commands are run: their
/// network, limits and hosts; the rest of it is the build's.
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
    request.runner = Some(runner(engine, &request, steps, &removals));
    let built = engine.images().build(request, log).await;
    // Whoever looks after the build finds none of its containers.
    removals.close();
    removals.wait().await;
    built
}

/// Builds what a Dockerfile says and records nothing yet, on the same terms.
///
/// # Errors
/// As [`bireme_image::ImageStore::solve`].
/// # Cancel safety
/// As [`build`].
pub async fn solve(
    engine: &Engine,
    mut request: BuildRequest,
    sources: &dyn BuildSources,
    steps: CreateRequest,
    log: OnBuildEvent<'_>,
) -> Result<BuildOutput, ImageError> {
    let removals = TaskTracker::new();
    request.runner = Some(runner(engine, &request, steps, &removals));
    let built = engine.images().solve(&request, sources, log).await;
    removals.close();
    removals.wait().await;
    built
}

fn runner(
    engine: &Engine,
    request: &BuildRequest,
    template: CreateRequest,
    removals: &TaskTracker,
) -> Arc<dyn RunSteps> {
    let keep = request.keep_containers;
    Arc::new(StepRunner { engine: engine.clone(), template, removals: removals.clone(), keep })
}

struct StepRunner {
    engine: Engine,
    template: CreateRequest,
    removals: TaskTracker,
    keep: KeepContainers,
}

impl RunSteps for StepRunner {
    fn run<'a>(&'a self, step: RunStep, log: OnRunOutput<'a>) -> BoxFuture<'a, Result<Changes, ImageError>> {
        Box::pin(self.run_step(step, log))
    }
}

impl StepRunner {
    async fn run_step(&self, step: RunStep, log: OnRunOutput<'_>) -> Result<Changes, ImageError> {
        let say = |text: String| log(RunOutput::Note(text));
        let command = step.command.clone();
        let stubs: Vec<Stub> = step.mounts.iter().filter_map(|mount| mount.stub.clone()).collect();
        let kept = step.keep.clone();
        // They go after the container that has them mounted.
        let mut lent = Lent::default();
        let created = self.engine.create(self.request(step, &mut lent)?).await.map_err(refused)?;
        let mut scaffold = Scaffold {
            runner: self.engine.clone(),
            removals: self.removals.clone(),
            id: created.id.to_string(),
            lent: Some((lent, kept)),
        };
        let id = scaffold.id.clone();
        let id = id.as_str();
        say(format!(" ---> Running in {}\n", created.id.short()));
        match self.run_in(id, &command, log).await {
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
            let packed = stubs::remove(&upper, &stubs).and_then(|()| layer::pack(&lower, &upper, out));
            drop(scaffold);
            packed
        }))
    }

    /// Runs the command that a container was made for to its end.
    async fn run_in(&self, id: &str, command: &[String], log: OnRunOutput<'_>) -> Result<(), ImageError> {
        let streams = Attach { stdout: true, stderr: true, stream: true, ..Attach::default() };
        let session = self.engine.attach(id, streams).await.map_err(refused)?;
        let end = self.engine.wait(id, WaitCondition::NextExit).map_err(refused)?;
        self.engine.start(id).await.map_err(refused)?;
        if let Some(stream) = session.stream.await.map_err(refused)? {
            // Output that breaks off does not change how the command ended.
            if let Err(error) = tell(stream, log).await {
                tracing::warn!(workload.id = id, %error, "the output of a build's command broke off");
            }
        }
        let ended = end.await.map_err(refused)?;
        if ended.code != 0 {
            return Err(ImageError::Run { command: command.join(" "), code: ended.code });
        }
        Ok(())
    }

    fn request(&self, step: RunStep, lent: &mut Lent) -> Result<CreateRequest, ImageError> {
        let mut request = self.template.clone();
        request.image = step.image.id.short().to_owned();
        // An entrypoint of the image is not for its build.
        request.entrypoint = Some(vec![String::new()]);
        request.command = Some(step.command);
        request.env = step.env;
        request.secret_env = step.secret_env;
        for mount in step.mounts {
            request.mounts.push(self.mount(mount, lent)?);
        }
        match step.network {
            StepNetwork::Default => {}
            StepNetwork::None => request.network_mode = NetworkModeRequest::None,
            StepNetwork::Host => request.network_mode = NetworkModeRequest::Host,
        }
        request.security.privileged |= step.insecure;
        request.health = Some(HealthCheck { test: vec!["NONE".to_owned()], ..HealthCheck::default() });
        request.log = LogRequest { driver: "none".to_owned(), ..LogRequest::default() };
        request.unfinished =
            Some(Unfinished { image: step.image, layers: step.layers, keep: self.keep == KeepContainers::All });
        Ok(request)
    }

    /// What is mounted for a step, as a container is asked for it. What has to be made for that is lent to it.
    fn mount(&self, mount: StepMount, lent: &mut Lent) -> Result<MountRequest, ImageError> {
        let bind = |path: PathBuf| MountRequestSource::Bind {
            path,
            create: false,
            propagation: Propagation::Private,
            recursive: false,
        };
        let source = match mount.source {
            StepMountSource::Folder(path) => bind(path),
            StepMountSource::Layers { lower, subpath } => MountRequestSource::Layers { lower, subpath },
            StepMountSource::Tmpfs { size } => {
                MountRequestSource::Tmpfs { size, mode: Some(0o1777), options: vec!["exec".to_owned()] }
            }
            StepMountSource::Secret { content, access } => {
                let folder = self.engine.secrets_folder();
                bind(lent.secret(&folder, &content.0, access).map_err(|source| ImageError::RunRefused {
                    reason: format!("a secret cannot be lent to the command: {source}"),
                })?)
            }
            StepMountSource::Socket { path, access } => {
                lend_access(&path, access).map_err(|source| ImageError::RunRefused {
                    reason: format!("the socket of the SSH agent cannot be lent to the command: {source}"),
                })?;
                bind(path)
            }
        };
        Ok(MountRequest { source, target: mount.target, read_only: mount.read_only })
    }
}

/// Files that are there for one command.
#[derive(Default)]
struct Lent(Vec<TempPath>);

impl Lent {
    /// Writes a secret where only the command finds it. Answers where.
    fn secret(&mut self, folder: &Path, content: &[u8], access: Access) -> io::Result<PathBuf> {
        let mut file = tempfile::Builder::new().prefix("secret-").tempfile_in(folder)?;
        file.write_all(content)?;
        lend_access(file.path(), access)?;
        let path = file.into_temp_path();
        let place = path.to_path_buf();
        self.0.push(path);
        Ok(place)
    }
}

fn lend_access(path: &Path, access: Access) -> io::Result<()> {
    std::os::unix::fs::chown(path, Some(access.uid), Some(access.gid))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(access.mode & 0o7777))
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
    /// What it has mounted, which stays as long as it does.
    lent: Option<(Lent, Keep)>,
}

impl Drop for Scaffold {
    fn drop(&mut self) {
        let (engine, id, lent) = (self.runner.clone(), std::mem::take(&mut self.id), self.lent.take());
        if id.is_empty() {
            return;
        }
        let removal = async move {
            engine.remove_step(&id).await;
            drop(lent);
        };
        // Without a runtime the engine is ending; the next one clears it away.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(self.removals.spawn_on(removal, &runtime));
        }
    }
}

/// Tells what a command prints.
async fn tell(stream: std::os::unix::net::UnixStream, log: OnRunOutput<'_>) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    let mut stream = UnixStream::from_std(stream)?;
    // A character may come in two pieces: by stream, what is still to be completed.
    let mut rest: [Vec<u8>; 2] = [Vec::new(), Vec::new()];
    while let Some((number, piece)) = frames::next(&mut stream).await? {
        let stderr = number == frames::STDERR;
        let open = &mut rest[usize::from(stderr)];
        open.extend(piece);
        let whole = match std::str::from_utf8(open) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => open.len(),
        };
        let text = String::from_utf8_lossy(&open[..whole]).into_owned();
        open.drain(..whole);
        if !text.is_empty() {
            log(RunOutput::Printed { stderr, text });
        }
    }
    Ok(())
}
