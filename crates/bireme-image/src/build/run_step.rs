//! RUN: a command carried out by whoever asked for the build, or its layer of an earlier build.

use std::collections::BTreeMap;

use chrono::{SubsecRound as _, Utc};

use super::cache;
use super::dockerfile::Instruction;
use super::request::KeepContainers;
use super::run::RunStep;
use super::stage::{PREDEFINED, Stage, given};
use super::state::Build;
use crate::admit::Candidate;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::layers;
use crate::record::Record;

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
                    layers::unpacked(inner, layer).await?;
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
