//! FROM: a stored or pulled image, an earlier stage, or nothing.

use super::dockerfile::{Dockerfile, Instruction, StageText};
use super::stage::Stage;
use super::state::Build;
use super::target::position;
use crate::digest::ImageId;
use crate::error::ImageError;
use crate::events::BuildEvent;
use crate::model::ConfigFile;
use crate::platform::Platform;
use crate::reference::Reference;

impl Build<'_> {
    pub(super) async fn from(&mut self, dockerfile: &Dockerfile, text: &StageText) -> Result<Stage, ImageError> {
        let from = &text.from;
        let mut platform = self.request.platform.clone();
        for (name, value) in &from.flags {
            match (name.as_str(), value) {
                ("platform", Some(value)) => {
                    let value = self.global_word(from, dockerfile.escape, value)?;
                    platform = Some(value.parse().map_err(|error| from.fault(format!("{error}")))?);
                }
                _ => return Err(from.fault(format!("unknown flag: --{name}"))),
            }
        }
        let base = from.rest.split_whitespace().next().unwrap_or_default();
        let base = self.global_word(from, dockerfile.escape, base)?;
        if base.is_empty() {
            return Err(from.fault(format!("base name ({}) should not be blank", from.rest)));
        }
        if base == "scratch" {
            let assumed = platform.is_none();
            let config = ConfigFile::empty(platform.unwrap_or_else(Platform::host));
            let mut stage = Stage::new(config, Vec::new(), dockerfile.escape).with_path();
            stage.assumed = assumed;
            return Ok(stage);
        }
        if let Some(at) = position(dockerfile, &base, self.stages.len()) {
            let Some(earlier) = &self.stages[at] else {
                return Err(from.fault(format!("the stage {base} was not built")));
            };
            let mut stage = Stage::new(earlier.config.clone(), earlier.layers.clone(), dockerfile.escape);
            stage.assumed = earlier.assumed && platform.is_none();
            return Ok(stage);
        }
        let image = self.image(from, &base, platform.as_ref()).await?;
        let record = self.hold(&image)?;
        if record.artifact_type.is_some() {
            return Err(from.fault(format!("{base} is a Wasm artifact, which has no root filesystem to build on; COPY its file into an image FROM scratch")));
        }
        let mut config = record.config_file()?;
        config.created = None;
        config.comment = None;
        let own = config.config.env.len();
        let mut stage = Stage::new(config, record.layers, dockerfile.escape).with_path();
        if stage.config.config.env.len() == own {
            stage.base = Some((image, stage.digest()?));
        }
        Ok(stage)
    }

    /// A stored image, pulled if it is not there or a newer one is asked for.
    pub(super) async fn image(
        &self,
        at: &Instruction,
        name: &str,
        platform: Option<&Platform>,
    ) -> Result<ImageId, ImageError> {
        if !self.request.pull {
            match self.store.inner.find(name, platform) {
                Ok(id) => return Ok(id),
                Err(ImageError::NotFound { .. } | ImageError::NoPlatform { .. }) => {}
                Err(ImageError::Reference(error)) => {
                    return Err(at.fault(format!("failed to parse stage name \"{name}\": {error}")));
                }
                Err(other) => return Err(other),
            }
        }
        let reference = Reference::parse(name)
            .map_err(|error| at.fault(format!("failed to parse stage name \"{name}\": {error}")))?;
        let auth = self.request.auth.get(reference.registry()).cloned();
        let log = self.log;
        let pulled =
            Box::pin(self.store.pull(&reference, platform, auth, &move |line| log(BuildEvent::Progress(line)))).await?;
        Ok(pulled.id)
    }
}
