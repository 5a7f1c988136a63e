//! The stages of a Dockerfile for one platform: each is built once, when the target or another stage needs it, and those
//! that do not need each other at the same time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bireme_dockerfile::{Dockerfile, Instruction, Keyword, read};
use tokio::sync::OnceCell;

use super::cached::Made;
use super::onbuild;
use super::shared::Shared;
use super::stage::{Stage, fault, given, too_much};
use super::step::Step;
use super::style::BuildStyle;
use crate::error::ImageError;
use crate::events::StepId;
use crate::platform::Platform;

/// Bytes of the configurations of all stages, each of which is there until the build is over.
const MOST_CONFIGURATION: usize = 64 << 20;

/// The stages for one platform.
pub(super) struct Graph<'a> {
    pub(super) shared: &'a Shared<'a>,
    pub(super) dockerfile: &'a Dockerfile,
    /// What it is built for; `None` where nobody said.
    pub(super) platform: Option<Platform>,
    /// Arguments before the first FROM, and the platform's.
    pub(super) globals: BTreeMap<String, Option<String>>,
    /// By position in the Dockerfile.
    stages: Vec<OnceCell<Arc<Stage>>>,
    /// Bytes of the configurations of those that are built.
    kept: AtomicUsize,
    /// What the names of its steps begin with, where there are graphs beside this one.
    prefix: String,
}

impl<'a> Graph<'a> {
    /// # Errors
    /// `Dockerfile` for arguments before the first FROM that are wrong.
    pub(super) fn new(
        shared: &'a Shared<'a>,
        dockerfile: &'a Dockerfile,
        platform: Option<Platform>,
        several: bool,
    ) -> Result<Self, ImageError> {
        let prefix = match (&platform, several) {
            (Some(platform), true) => format!("{platform} "),
            _ => String::new(),
        };
        let stages = dockerfile.stages.iter().map(|_| OnceCell::new()).collect();
        let (globals, kept) = (BTreeMap::new(), AtomicUsize::new(0));
        let mut graph = Self { shared, dockerfile, platform, globals, stages, kept, prefix };
        graph.predefine();
        for argument in &dockerfile.globals {
            for read::Argument { name, default, .. } in read::arguments(argument)? {
                let default = default.map(|default| graph.global_word(argument, &default)).transpose()?;
                let value = given(&graph.shared.request.args, &name).or(default);
                graph.globals.insert(name, value);
                too_much(argument, graph.globals.values().flatten().map(String::len).sum())?;
            }
        }
        Ok(graph)
    }

    /// Sets the arguments that tell the platforms.
    fn predefine(&mut self) {
        let platforms = [("TARGET", self.platform.clone().unwrap_or_else(Platform::host)), ("BUILD", Platform::host())];
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

    /// A word in which arguments before the first FROM may stand.
    pub(super) fn global_word(&self, at: &Instruction, word: &str) -> Result<String, ImageError> {
        let value = |name: &str| self.globals.get(name).cloned().flatten();
        bireme_dockerfile::Expander::new(at.escape, &value).word(word).map_err(|reason| fault(at, reason))
    }

    /// Builds the stages that are needed, and answers the target.
    pub(super) async fn build(&'a self, needed: &BTreeSet<usize>, target: usize) -> Result<Arc<Stage>, ImageError> {
        match self.shared.request.style {
            // What it tells is read as a story: one stage after the other.
            BuildStyle::Classic => {
                for at in needed {
                    self.stage(*at).await?;
                }
            }
            BuildStyle::Steps => {
                futures::future::try_join_all(needed.iter().map(|at| self.stage(*at))).await?;
            }
        }
        let target = self.stage(target).await?;
        Ok(target)
    }

    /// A stage, which is built if nobody built it yet.
    pub(super) async fn stage(&'a self, at: usize) -> Result<Arc<Stage>, ImageError> {
        // Boxed: a stage waits for those before it.
        let stage = self.stages[at].get_or_try_init(|| Box::pin(self.build_stage(at))).await?;
        Ok(Arc::clone(stage))
    }

    /// The steps of all stages that were built.
    pub(super) fn made(&self) -> Vec<Made> {
        self.stages.iter().filter_map(OnceCell::get).flat_map(|stage| stage.made()).collect()
    }

    async fn build_stage(&'a self, at: usize) -> Result<Arc<Stage>, ImageError> {
        let text = &self.dockerfile.stages[at];
        let from = &text.from.instruction;
        self.shared.announce(&from.text);
        let (mut stage, image) = self.from(at).await?;
        stage.no_cache = self.is_uncached(at);
        let triggers = onbuild::triggers(from, &std::mem::take(&mut stage.config.config.on_build))?;
        let makes_step =
            |one: &&Instruction| matches!(one.keyword, Keyword::Add | Keyword::Copy | Keyword::Run | Keyword::Workdir);
        // What a stage begins with counts where it is an image, and not another stage.
        let begins = usize::from(image.is_some());
        let of = begins + triggers.iter().chain(&text.body).filter(makes_step).count();
        let mut place = Place { stage: at, number: begins, of, trigger: false };
        if let Some(image) = image {
            let name = format!("{} FROM {image}", self.title(&place));
            stage.last = Some(self.shared.base(&image, &name, stage.no_cache));
        }
        self.shared.show(&stage)?;
        if !triggers.is_empty() {
            let plural = if triggers.len() == 1 { "" } else { "s" };
            self.shared.say(format!("# Executing {} build trigger{plural}\n", triggers.len()));
            place.trigger = true;
            for instruction in &triggers {
                tokio::task::yield_now().await;
                self.carry_out(&mut stage, instruction, &mut place).await?;
                self.shared.show(&stage)?;
            }
            place.trigger = false;
        }
        for instruction in &text.body {
            // Many do nothing that waits: here the build ends when nobody wants it any more.
            tokio::task::yield_now().await;
            self.shared.announce(&instruction.text);
            self.carry_out(&mut stage, instruction, &mut place).await?;
            self.shared.show(&stage)?;
        }
        self.check_size(at, &stage)?;
        Ok(Arc::new(stage))
    }

    /// Whether a stage is among those whose steps are taken from no earlier build.
    fn is_uncached(&self, at: usize) -> bool {
        let request = self.shared.request;
        let name = self.dockerfile.stages[at].name.as_deref();
        request.no_cache
            || request
                .no_cache_stages
                .iter()
                .any(|one| name.is_some_and(|name| name.eq_ignore_ascii_case(one)) || one.parse() == Ok(at))
    }

    fn check_size(&self, at: usize, stage: &Stage) -> Result<(), ImageError> {
        let own = stage.config_bytes()?;
        if self.kept.fetch_add(own, Ordering::Relaxed) + own > MOST_CONFIGURATION {
            let most = MOST_CONFIGURATION >> 20;
            let from = &self.dockerfile.stages[at].from.instruction;
            return Err(fault(
                from,
                format!(
                    "the configurations of the stages so far come to more than {most} MiB: use fewer stages, or shorter labels \
                     and variables"
                ),
            ));
        }
        Ok(())
    }

    async fn carry_out(&'a self, stage: &mut Stage, at: &Instruction, place: &mut Place) -> Result<(), ImageError> {
        let args = &self.shared.request.args;
        match at.keyword {
            Keyword::Copy | Keyword::Add => self.copy(stage, at, place).await?,
            Keyword::Run => self.run_command(stage, at, place).await?,
            Keyword::Workdir => {
                stage.apply(at, args, &self.globals)?;
                let step = self.begin(stage, at, place, Vec::new());
                let made = self.work_folder(stage, at).await;
                let took_layer = self.end(stage, step, made)?;
                stage.note(at, took_layer);
            }
            _ => {
                stage.apply(at, args, &self.globals)?;
                // BuildKit's histories do not tell of what is left to others.
                if at.keyword != Keyword::Onbuild || self.shared.request.style == BuildStyle::Classic {
                    stage.note(at, false);
                }
            }
        }
        if !matches!(at.keyword, Keyword::Copy | Keyword::Add | Keyword::Run) {
            self.shared.note_known(stage)?;
        }
        Ok(())
    }

    /// Begins the step that an instruction is.
    pub(super) fn begin(
        &self,
        stage: &Stage,
        at: &Instruction,
        place: &mut Place,
        mut inputs: Vec<StepId>,
    ) -> Step<'a> {
        place.number += 1;
        inputs.splice(0..0, stage.last.clone());
        let shown = stage.shown(at, &self.shared.request.args);
        let name = format!("{} {shown}", self.title(place));
        Step::begin(self.shared, name, inputs, Some(at.lines.first..=at.lines.last))
    }

    /// `[linux/amd64 build 2/5]`
    pub(super) fn title(&self, place: &Place) -> String {
        let name = match &self.dockerfile.stages[place.stage].name {
            Some(name) => format!("{name} "),
            None if self.dockerfile.stages.len() > 1 => format!("stage-{} ", place.stage),
            None => String::new(),
        };
        format!("[{}{name}{}/{}]", self.prefix, place.number, place.of)
    }

    /// Ends a step by how its work ended, which answers whether it was taken from the cache.
    pub(super) fn end<T>(
        &self,
        stage: &mut Stage,
        step: Step<'_>,
        outcome: Result<(T, bool), ImageError>,
    ) -> Result<T, ImageError> {
        let (made, id) = step.ended(outcome)?;
        stage.last = Some(id);
        Ok(made)
    }
}

/// Where a step stands among those of its stage.
pub(super) struct Place {
    pub(super) stage: usize,
    pub(super) number: usize,
    pub(super) of: usize,
    /// It is a trigger of the base image.
    pub(super) trigger: bool,
}
