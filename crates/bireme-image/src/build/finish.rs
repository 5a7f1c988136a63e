//! The end of a build: the image is recorded, or one that is the same is found.

use chrono::{SubsecRound as _, Utc};

use super::stage::Stage;
use super::state::Build;
use crate::admit::Candidate;
use crate::blocking::blocking;
use crate::component::is_wasm;
use crate::digest::ImageId;
use crate::error::ImageError;
use crate::events::BuildEvent;
use crate::platform::Platform;

impl Build<'_> {
    /// An image that nobody gave a platform is known by what it starts: a component makes it one of components.
    async fn recognise(&self, stage: &mut Stage) -> Result<(), ImageError> {
        let config = &stage.config.config;
        let program = [&config.entrypoint, &config.cmd].into_iter().flatten().flatten().next().cloned();
        let (true, Some(program)) = (stage.assumed, program) else { return Ok(()) };
        let (folders, working_dir) = (self.folders(&stage.layers), config.working_dir.clone());
        let name = program.clone();
        let found =
            blocking("look at the program of an image", move || Ok(is_wasm(&folders, &working_dir, &name))).await?;
        if found {
            stage.make_component();
            let platform = Platform::wasm();
            self.say(format!(" ---> {program} is a WebAssembly component: the platform of the image is {platform}\n"));
        }
        Ok(())
    }

    /// Records the image.
    pub(super) async fn finish(mut self, mut stage: Stage) -> Result<ImageId, ImageError> {
        stage.config.config.labels.extend(self.request.labels.clone());
        self.recognise(&mut stage).await?;
        let key = stage.digest()?;
        let stored = if self.request.no_cache { None } else { self.store.inner.db.built(&key)? };
        let names: Vec<_> = self.request.tags.iter().map(|tag| (tag.clone(), None)).collect();
        let record = match stored {
            Some(id) => self.store.inner.record(&id)?,
            None => {
                let now = Utc::now().trunc_subsecs(3);
                stage.config.created = Some(now);
                for step in &mut stage.config.history {
                    step.created.get_or_insert(now);
                }
                stage.record()?
            }
        };
        let id = record.id.clone();
        self.store.admit(vec![Candidate { record, names }], &mut self.claim).await?;
        self.store.inner.db.set_built(&key, &id)?;
        (self.log)(BuildEvent::Built(id.clone()));
        self.say(format!("Successfully built {}\n", id.short()));
        for tag in &self.request.tags {
            self.say(format!("Successfully tagged {}\n", tag.familiar()));
        }
        Ok(id)
    }
}
