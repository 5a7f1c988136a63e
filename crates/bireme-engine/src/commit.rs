//! An image is made of a container, which stands still meanwhile, and goes on whoever gives up.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use bireme_image::{Commit, ImageConfig, ImageError, ImageId, Reference};

use crate::command::Command;
use crate::container::Handle;
use crate::error::EngineError;
use crate::refusal::ContainerRefusal;
use crate::services::Services;
use crate::view::Status;
use crate::{changes, layer};

/// A container to be made an image of.
#[derive(Clone, Debug, Default)]
pub struct CommitRequest {
    /// Name or ID.
    pub container: String,
    /// Keep it still while its files are read.
    pub pause: bool,
    /// What the image shall start with.
    pub config: ImageConfig,
    /// What it has where `config` is silent: of the container.
    pub defaults: ImageConfig,
    /// Instructions as in a Dockerfile, on top of `config`.
    pub changes: Vec<String>,
    /// Kept in the image's configuration.
    pub author: Option<String>,
    /// Kept in the image's history.
    pub comment: Option<String>,
    /// `None`: it is known by its ID alone.
    pub name: Option<Reference>,
}

/// Makes an image of a container: its image's layers, and one of what it changed.
///
/// # Errors
/// `NotFound` for the container; `Unsupported` for a component; what [`bireme_image::ImageStore::commit`] refuses.
/// # Cancel safety
/// Dropping the future records nothing, and lets the container go on.
///
/// Source: Docker Engine API, `ImageCommit`.
pub(crate) async fn commit(services: &Arc<Services>, request: CommitRequest) -> Result<ImageId, EngineError> {
    let handle = services.registry.find(&request.container)?;
    let (lower, upper) = changes::folders_of(&services.registry, &request.container)?;
    let view = handle.view();
    let config = &handle.config;
    let parent = config.image_id.parse().map_err(ImageError::from)?;
    let still = match view.state.status {
        Status::Running if request.pause => match Still::hold(services, &handle).await {
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
            return Err(ContainerRefusal::CommitWhileRemoved { id: handle.id().to_owned() }.into());
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
    let made = services.images().commit(commit).await;
    if let Some(still) = still {
        still.release().await;
    }
    let id = made?;
    let attributes = [("comment", comment.as_str()), ("imageID", &id.to_string()), ("imageRef", &name)];
    handle.emit(&services.events, "commit", attributes);
    Ok(id)
}

/// How long the end of a container that could not be paused may take to be known.
const KNOWN_WITHIN: Duration = Duration::from_secs(2);

/// A container that is paused, and goes on even when whoever paused it gives up.
struct Still {
    services: Arc<Services>,
    handle: Option<Arc<Handle>>,
}

impl Still {
    async fn hold(services: &Arc<Services>, handle: &Arc<Handle>) -> Result<Self, EngineError> {
        // For a moment: the next engine lets it go on where this one does not come to it.
        handle.command(Command::Hold).await?;
        Ok(Self { services: Arc::clone(services), handle: Some(Arc::clone(handle)) })
    }

    async fn release(mut self) {
        if let Some(handle) = self.handle.take() {
            go_on(&handle).await;
        }
    }
}

async fn go_on(handle: &Handle) {
    // It may have been removed meanwhile, or somebody else let it go on.
    if let Err(error) = handle.command(Command::Unpause).await {
        tracing::debug!(workload.id = handle.id(), %error, "a container that was committed did not go on");
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            self.services.tasks.spawn(async move { go_on(&handle).await });
        }
    }
}
