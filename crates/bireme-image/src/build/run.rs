//! RUN: commands of a build. Nothing is run here: whoever asks for a build brings what runs them.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use bireme_core::BoxFuture;
use chrono::{SubsecRound as _, Utc};

use super::dockerfile::Instruction;
use super::stage::{PREDEFINED, Stage, given};
use super::{Build, KeepContainers, cache};
use crate::admit::{Candidate, GcGuard};
use crate::db::Record;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::events::OnBuildEvent;
use crate::model::Image;

/// Runs the commands of builds.
pub trait RunSteps: Send + Sync {
    /// Runs one command to its end, its output told to `log`, and answers what it changed.
    ///
    /// # Errors
    /// `Run` when it ended with another code than 0; `RunRefused` when it could not be run.
    /// # Cancel safety
    /// Dropping the future, or the answer, ends the command and leaves nothing of it.
    fn run<'a>(&'a self, step: RunStep, log: OnBuildEvent<'a>) -> BoxFuture<'a, Result<Changes, ImageError>>;
}

/// Writes what a command changed as the archive of a layer, whiteouts included. Blocking.
pub type Changes = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send>;

/// One command of a build.
#[derive(Clone, Debug)]
pub struct RunStep {
    /// What was built so far. It is no stored image.
    pub image: Image,
    /// The folders of its layers, lowest first; they stay while the command runs.
    pub layers: Vec<PathBuf>,
    /// Program and arguments.
    pub command: Vec<String>,
    /// `NAME=value` of the build's arguments, to be added to the image's environment.
    pub env: Vec<String>,
}

impl Build<'_> {
    pub(super) async fn run_command(&mut self, stage: &mut Stage, at: &Instruction) -> Result<(), ImageError> {
        if let Some((flag, _)) = at.flags.first() {
            return Err(at.lacking(&format!("RUN --{flag}"), "leave the flag out, it is BuildKit's"));
        }
        let command = stage.command(at);
        let declared: BTreeMap<String, String> =
            stage.declared().into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let arguments: Vec<String> = declared.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let created_by = match arguments.len() {
            0 => command.join(" "),
            count => format!("|{count} {} {}", arguments.join(" "), command.join(" ")),
        };
        // How a proxy is reached does not make another image.
        let proxies = PREDEFINED
            .iter()
            .filter(|name| !declared.contains_key(**name))
            .filter_map(|name| given(&self.request.args, name).map(|value| format!("{name}={value}")));
        let mut env = arguments.clone();
        env.extend(proxies);

        let key = Digest::of(format!("run {} {command:?} {arguments:?}", stage.digest()?).as_bytes());
        let inner = &self.store.inner;
        let layer = match self.cache.made(inner, stage, &key, &created_by, &mut self.claim)? {
            Some(layer) => {
                self.say(cache::USING);
                if let Some(layer) = &layer {
                    inner.unpacked(layer).await?;
                }
                layer
            }
            None => {
                let Some(runner) = &self.request.runner else {
                    return Err(at.lacking("RUN", "nothing runs commands here"));
                };
                let (record, stored) = self.state(stage)?;
                let image = inner.image(record.clone())?;
                let step = RunStep { image, layers: self.folders(&stage.layers), command, env };
                let changes = match runner.run(step, self.log).await {
                    Ok(changes) => {
                        if !stored && self.request.keep_containers == KeepContainers::All {
                            self.keep(record).await;
                        }
                        changes
                    }
                    Err(error) => {
                        if !stored && self.request.keep_containers != KeepContainers::None {
                            self.keep(record).await;
                        }
                        return Err(error);
                    }
                };
                let layer = self.store.pack(changes, &mut self.claim).await?;
                inner.db.set_step(&key, layer.as_ref())?;
                layer
            }
        };
        stage.note_as(created_by, layer.is_some());
        if let Some(layer) = layer {
            stage.push(layer);
        }
        Ok(())
    }
}

impl Build<'_> {
    /// The image that a command finds, and whether it is stored as such.
    fn state(&self, stage: &Stage) -> Result<(Record, bool), ImageError> {
        match &stage.base {
            Some((base, state)) if *state == stage.digest()? => Ok((self.store.inner.record(base)?, true)),
            _ => {
                let mut stage = stage.clone();
                let now = Utc::now().trunc_subsecs(3);
                stage.config.created = Some(now);
                for step in &mut stage.config.history {
                    step.created.get_or_insert(now);
                }
                Ok((stage.record()?, false))
            }
        }
    }

    /// Records the image of a container that stays: as long as it is there, nobody takes the layers below it.
    /// As with Docker's classic builder, it has no name and goes with the others that have none.
    async fn keep(&mut self, record: Record) {
        let id = record.id.clone();
        if let Err(error) = self.store.admit(vec![Candidate { record, names: Vec::new() }], &mut self.claim).await {
            tracing::warn!(image = %id, %error, "the image of a container that stays could not be kept");
        }
    }
}

/// What the cache of builds holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedLayer {
    pub id: Digest,
    /// Bytes, unpacked.
    pub size: u64,
    /// An image has it too, so that clearing the cache frees nothing of it.
    pub shared: bool,
    /// Milliseconds since the Unix epoch.
    pub last_used: i64,
}

impl crate::ImageStore {
    /// The layers that the cache of builds keeps, the longest unused first.
    ///
    /// # Errors
    /// `Database`.
    pub async fn build_cache(&self) -> Result<Vec<CachedLayer>, ImageError> {
        self.inner.db.cached()
    }

    /// Forgets steps of builds last used before `until`, in milliseconds since the Unix epoch; with `chosen`, those alone
    /// whose layer it chooses. Answers what was cleared away; layers that images have stay, as theirs.
    ///
    /// # Errors
    /// `Database`.
    pub async fn clear_build_cache(
        &self,
        until: Option<i64>,
        chosen: Option<&(dyn Fn(&CachedLayer) -> bool + Sync)>,
    ) -> Result<Vec<CachedLayer>, ImageError> {
        let mut claim = GcGuard::new(&self.inner);
        let old = |layer: &CachedLayer| until.is_none_or(|until| layer.last_used < until);
        let mut cleared = self.inner.db.cached()?;
        cleared.retain(|layer| old(layer) && chosen.is_none_or(|chosen| chosen(layer)));
        if chosen.is_none() {
            self.inner.db.forget_steps(until)?;
        }
        for layer in &cleared {
            self.inner.db.forget_steps_of(&layer.id)?;
            // Dropping the claim deletes what nothing else needs.
            claim.blob(&layer.id);
            claim.layer(&layer.id);
        }
        Ok(cleared)
    }
}
