//! From a Dockerfile to its target stage, instruction by instruction.

use std::collections::BTreeSet;

use super::dockerfile::{Dockerfile, Instruction, StageText};
use super::stage::{Stage, given, too_much};
use super::state::Build;
use super::target::{makes_nothing, needed, target};
use super::{cache, onbuild, words};
use crate::error::ImageError;
use crate::platform::Platform;

/// Bytes of the configurations of all stages, each of which is there until the build is over.
const MOST_CONFIGURATION: usize = 64 << 20;

impl Build<'_> {
    pub(super) async fn run(&mut self, dockerfile: &Dockerfile) -> Result<Stage, ImageError> {
        let target = target(self.request, dockerfile)?;
        let needed = needed(dockerfile, target);
        self.steps =
            dockerfile.globals.len() + needed.iter().map(|at| 1 + dockerfile.stages[*at].body.len()).sum::<usize>();
        self.predefine();
        for argument in &dockerfile.globals {
            self.announce(argument);
            for word in words::split(&argument.rest, dockerfile.escape) {
                let (name, default) = match word.split_once('=') {
                    Some((name, default)) => (name, Some(self.global_word(argument, dockerfile.escape, default)?)),
                    None => (word.as_str(), None),
                };
                if name.is_empty() {
                    return Err(argument.fault("ARG names can not be blank"));
                }
                let value = given(&self.request.args, name).or(default);
                self.globals.insert(name.to_owned(), value);
                too_much(argument, self.globals.values().flatten().map(String::len).sum())?;
            }
        }
        let mut kept = 0;
        for (at, text) in dockerfile.stages.iter().enumerate() {
            let stage = if needed.contains(&at) { Some(Box::pin(self.stage(dockerfile, text)).await?) } else { None };
            if let Some(stage) = &stage {
                kept += stage.config_bytes()?;
                if kept > MOST_CONFIGURATION {
                    let most = MOST_CONFIGURATION >> 20;
                    return Err(text.from.fault(format!(
                        "the configurations of the stages so far come to more than {most} MiB: use fewer stages, or shorter \
                         labels and variables"
                    )));
                }
            }
            self.stages.push(stage);
        }
        self.warn_of_unused(dockerfile);
        if makes_nothing(&dockerfile.stages[target]) {
            return Err(ImageError::NothingBuilt);
        }
        self.stages.swap_remove(target).ok_or_else(|| ImageError::BuildRequest {
            reason: "internal error: the target stage was not built".to_owned(),
        })
    }

    /// Sets the arguments that tell the platforms.
    fn predefine(&mut self) {
        let platforms =
            [("TARGET", self.request.platform.clone().unwrap_or_else(Platform::host)), ("BUILD", Platform::host())];
        for (prefix, platform) in platforms {
            for (suffix, value) in [
                ("PLATFORM", platform.to_string()),
                ("OS", platform.os),
                ("ARCH", platform.architecture),
                ("VARIANT", platform.variant),
            ] {
                self.globals.insert(format!("{prefix}{suffix}"), Some(value));
            }
        }
    }

    async fn stage(&mut self, dockerfile: &Dockerfile, text: &StageText) -> Result<Stage, ImageError> {
        self.announce(&text.from);
        let mut stage = self.from(dockerfile, text).await?;
        self.show(&stage)?;
        let triggers = std::mem::take(&mut stage.config.config.on_build);
        if !triggers.is_empty() {
            let plural = if triggers.len() == 1 { "" } else { "s" };
            self.say(format!("# Executing {} build trigger{plural}\n", triggers.len()));
            for trigger in &triggers {
                tokio::task::yield_now().await;
                let instruction = onbuild::read(&text.from, trigger)?;
                self.carry_out(dockerfile, &mut stage, &instruction).await?;
                self.show(&stage)?;
            }
        }
        for instruction in &text.body {
            // Many do nothing that waits: here the build ends when nobody wants it any more.
            tokio::task::yield_now().await;
            self.announce(instruction);
            self.carry_out(dockerfile, &mut stage, instruction).await?;
            self.show(&stage)?;
        }
        Ok(stage)
    }

    async fn carry_out(
        &mut self,
        dockerfile: &Dockerfile,
        stage: &mut Stage,
        instruction: &Instruction,
    ) -> Result<(), ImageError> {
        match instruction.keyword.as_str() {
            "COPY" | "ADD" => return self.copy(dockerfile, stage, instruction).await,
            "RUN" => return self.run_command(stage, instruction).await,
            "WORKDIR" => {
                stage.apply(instruction, &self.request.args, &self.globals)?;
                let made = self.work_folder(stage).await?;
                stage.note(&instruction.text(), made);
            }
            _ => {
                stage.apply(instruction, &self.request.args, &self.globals)?;
                stage.note(&instruction.text(), false);
            }
        }
        if self.cache.knows(&self.store.inner, stage)? {
            self.say(cache::USING);
        }
        Ok(())
    }

    /// Says which of the given arguments nothing asked for.
    fn warn_of_unused(&self, dockerfile: &Dockerfile) {
        let stages = dockerfile.stages.iter().flat_map(|stage| &stage.body);
        let declared: BTreeSet<String> = dockerfile
            .globals
            .iter()
            .chain(stages.filter(|instruction| instruction.keyword == "ARG"))
            .flat_map(|argument| words::split(&argument.rest, dockerfile.escape))
            .map(|word| word.split('=').next().unwrap_or_default().to_owned())
            .collect();
        let unused: Vec<&str> = self
            .request
            .args
            .keys()
            .map(String::as_str)
            .filter(|name| !declared.contains(*name) && !name.to_ascii_lowercase().ends_with("_proxy"))
            .collect();
        if !unused.is_empty() {
            self.say(format!("[Warning] One or more build-args [{}] were not consumed\n", unused.join(" ")));
        }
    }
}
