//! What is done with the program of an image before there is a workload of it: it is prepared when the image comes in, and
//! its interface is read for whoever asks. Of kinds whose executor does neither, nothing is done.

use std::sync::Arc;
use std::time::Instant;

use bireme_core::error::chain;
use bireme_core::executor::Interface;
use bireme_core::{Executor, Program};
use bireme_image::{Image, ImageId};
use tokio::sync::watch;

use crate::EngineError;
use crate::preparing::{OnPreparation, Stage, follow};
use crate::services::Services;

/// The program that a workload of the image runs where nothing else is asked for; `None` for an image that names none, and
/// for kinds whose programs are not read.
async fn program_of(services: &Services, image: &Image) -> Result<Option<(Arc<dyn Executor>, Program)>, EngineError> {
    let Some(executor) = services.executor(image.kind()) else { return Ok(None) };
    if executor.as_programs().is_none() {
        return Ok(None);
    }
    let entrypoint = image.config.entrypoint.iter().flatten().chain(image.config.cmd.iter().flatten()).next();
    if entrypoint.is_none() && image.artifact_type.is_none() {
        return Ok(None);
    }
    let entrypoint = entrypoint.map_or("", String::as_str);
    let (path, digest) = services.images().component(&image.id, entrypoint).await?;
    Ok(Some((executor, Program::Component { path, digest, files: Vec::new() })))
}

/// As [`Engine::interface`](crate::Engine::interface).
pub(crate) async fn interface(services: &Services, image: &Image) -> Result<Option<Interface>, EngineError> {
    let Some((executor, program)) = program_of(services, image).await? else { return Ok(None) };
    let Some(programs) = executor.as_programs() else { return Ok(None) };
    Ok(Some(programs.interface(&program).await?))
}

/// As [`Engine::forget_unused_programs`](crate::Engine::forget_unused_programs).
pub(crate) async fn forget_unused(services: &Services) -> Result<(), EngineError> {
    let kept = services.images().program_digests()?;
    for programs in services.options.executors.iter().filter_map(|executor| executor.as_programs()) {
        programs.retain(&kept).await;
    }
    Ok(())
}

/// As [`Engine::prepare_image`](crate::Engine::prepare_image).
pub(crate) async fn prepare(services: &Arc<Services>, id: &ImageId, tell: OnPreparation<'_>) {
    follow(begin(services, id), tell).await;
}

/// As [`Engine::prepare_image_later`](crate::Engine::prepare_image_later). Answers how far it is.
pub(crate) fn begin(services: &Arc<Services>, id: &ImageId) -> watch::Receiver<Stage> {
    let (stages, sender) = services.preparing.join(id);
    if let Some(sender) = sender {
        let (services, id) = (Arc::clone(services), id.clone());
        let tasks = Arc::clone(&services);
        tasks.tasks.spawn(async move {
            let _ended = Ended { services: Arc::clone(&services), id: id.clone() };
            let stage = work(&services, &id, &sender).await;
            sender.send_replace(stage);
        });
    }
    stages
}

/// Takes a preparation off the list, also where the engine ends in the middle of it.
struct Ended {
    services: Arc<Services>,
    id: ImageId,
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.services.preparing.end(&self.id);
    }
}

async fn work(services: &Services, id: &ImageId, stages: &watch::Sender<Stage>) -> Stage {
    let image = match services.images().image(id) {
        Ok(image) => image,
        // Removed meanwhile.
        Err(error) => {
            tracing::debug!(image = %id, %error, "an image is not prepared");
            return Stage::Ready;
        }
    };
    let refused = |program: String, error: &EngineError| {
        let why = chain(error);
        tracing::info!(image = %id, why, "no workload can be made of an image that came in");
        Stage::Refused { program, why }
    };
    let (executor, program) = match program_of(services, &image).await {
        Ok(Some(found)) => found,
        Ok(None) => return Stage::Ready,
        Err(error) => return refused(short(&id.to_string()), &error),
    };
    let Program::Component { digest, .. } = &program else { return Stage::Ready };
    let Some(programs) = executor.as_programs() else { return Stage::Ready };
    let name = short(digest);
    let begins = || {
        stages.send_replace(Stage::Working { program: name.clone(), since: Instant::now() });
    };
    match programs.prepare(&program, &begins).await {
        Ok(()) => Stage::Ready,
        Err(error) => refused(name, &error.into()),
    }
}

/// The twelve digits that a layer or image is called by.
fn short(digest: &str) -> String {
    digest.strip_prefix("sha256:").unwrap_or(digest).chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_called_as_layers_are() {
        assert_eq!(short("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(short("0123456789abcdef"), "0123456789ab");
    }
}
