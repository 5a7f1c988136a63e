//! RUN: a command carried out by whoever asked for the build, or its layer of an earlier build.

use std::collections::BTreeMap;

use bireme_dockerfile::read::{self, Network, RunCommand, RunFlags, Security};
use bireme_dockerfile::{Instruction, ParseError};
use chrono::{SubsecRound as _, Utc};

use super::cache;
use super::copy_step::check_heredoc;
use super::graph::{Graph, Place};
use super::known::Known;
use super::mounts::Mounts;
use super::request::KeepContainers;
use super::run::{Hidden, Keep, RunStep, StepMount, StepMountSource, StepNetwork};
use super::stage::{PREDEFINED, Stage, given, lacking};
use super::step::Step;
use super::style::BuildStyle;
use crate::admit::Candidate;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::guard::GcGuard;
use crate::record::{Layer, Record};

impl<'a> Graph<'a> {
    pub(super) async fn run_command(
        &'a self,
        stage: &mut Stage,
        at: &Instruction,
        place: &mut Place,
    ) -> Result<(), ImageError> {
        let args = &self.shared.request.args;
        let flags = read::run(at)?;
        let allowed = self.shared.request.allowed;
        if flags.network == Network::Host && !allowed.host_network {
            return Err(not_allowed(at, "network.host"));
        }
        if flags.security == Security::Insecure && !allowed.insecure {
            return Err(not_allowed(at, "security.insecure"));
        }
        let mounts = stage.expanding(at, args, |expander| read::mounts(at, &flags, expander))?;
        let mounts = self.mounts(stage, at, place, mounts).await?;
        let command = words(stage, &flags.command);
        let declared: BTreeMap<String, String> =
            stage.declared().into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let arguments: Vec<String> = declared.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let created_by = self.created_by(&arguments, &command);
        // How a proxy is reached does not make another image.
        let proxies = PREDEFINED
            .iter()
            .filter(|name| !declared.contains_key(**name))
            .filter_map(|name| given(args, name).map(|value| format!("{name}={value}")));
        let mut env = arguments.clone();
        env.extend(proxies);
        let key = Digest::of(
            format!(
                "run {} {command:?} {arguments:?} {:?} {:?} {:?} {:?} {}",
                stage.run_key(),
                flags.command,
                flags.network,
                flags.security,
                mounts.keys,
                self.shared.request.run_key,
            )
            .as_bytes(),
        );
        let step = self.begin(stage, at, place, mounts.inputs.clone());
        let description = format!("mount / from exec {}", command.join(" "));
        let made = match self.shared.known(stage, key.clone(), &created_by).await {
            Ok(Known::Made(layer)) => {
                self.shared.say(cache::USING);
                Ok((layer, true))
            }
            Ok(Known::Unknown(turn)) => {
                let layer = self.execute(stage, at, &flags, mounts, (command, env), &step).await;
                layer.and_then(|layer| turn.done(layer.as_ref(), &description).map(|()| (layer, false)))
            }
            Err(error) => Err(error),
        };
        let layer = self.end(stage, step, made)?;
        stage.note_as(created_by, layer.is_some());
        stage.stepped(key, layer);
        Ok(())
    }

    fn created_by(&self, arguments: &[String], command: &[String]) -> String {
        let line = match arguments.len() {
            0 => command.join(" "),
            count => format!("|{count} {} {}", arguments.join(" "), command.join(" ")),
        };
        match self.shared.request.style {
            BuildStyle::Classic => line,
            BuildStyle::Steps => format!("RUN {line} # buildkit"),
        }
    }

    async fn execute(
        &'a self,
        stage: &Stage,
        at: &Instruction,
        flags: &RunFlags,
        mounts: Mounts,
        (mut command, mut env): (Vec<String>, Vec<String>),
        step: &Step<'_>,
    ) -> Result<Option<Layer>, ImageError> {
        let shared = self.shared;
        let Some(runner) = &shared.request.runner else {
            return Err(lacking(at, "RUN", "nothing runs commands here"));
        };
        let mut opened = self.open_mounts(stage, at, mounts, &command.join(" ")).await?;
        if let RunCommand::Script { name, content } = &flags.command {
            let (script, run) = self.script(stage, at, name, content)?;
            opened.mounts.push(script);
            command = run;
        }
        env.extend(opened.env);
        let (record, stored) = self.state(stage)?;
        let mut image = shared.store.inner.image(record.clone())?;
        let steps = shared.request.style == BuildStyle::Steps;
        if steps {
            // With BuildKit, what a command writes there stays.
            image.config.volumes.clear();
        }
        let run = RunStep {
            image,
            layers: shared.folders(&stage.layers),
            command,
            env,
            secret_env: Hidden(opened.secret_env),
            mounts: opened.mounts,
            network: match flags.network {
                Network::Default => StepNetwork::Default,
                Network::None => StepNetwork::None,
                Network::Host => StepNetwork::Host,
            },
            insecure: flags.security == Security::Insecure,
            keep: Keep(opened.keep),
        };
        let changes = match runner.run(run, &|output| step.output(output)).await {
            Ok(changes) => {
                if !stored && shared.request.keep_containers == KeepContainers::All {
                    self.keep(record).await;
                }
                changes
            }
            Err(error) => {
                if !stored && shared.request.keep_containers != KeepContainers::None {
                    self.keep(record).await;
                }
                return Err(error);
            }
        };
        let mut claim = GcGuard::new(&shared.store.inner);
        let layer = shared.store.pack(changes, steps, &mut claim).await?;
        shared.claims.lock().push(claim);
        Ok(layer)
    }

    /// The image that a command finds, and whether it is stored as such.
    fn state(&self, stage: &Stage) -> Result<(Record, bool), ImageError> {
        match &stage.base {
            Some((base, state)) if *state == stage.digest()? => Ok((self.shared.store.inner.record(base)?, true)),
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
    async fn keep(&self, record: Record) {
        let id = record.id.clone();
        let mut claim = GcGuard::new(&self.shared.store.inner);
        if let Err(error) = self.shared.store.admit(vec![Candidate { record, names: Vec::new() }], &mut claim).await {
            tracing::warn!(image = %id, %error, "the image of a container that stays could not be kept");
        }
    }

    /// A script as a file that the command finds, and the command that runs it.
    fn script(
        &self,
        stage: &Stage,
        at: &Instruction,
        name: &str,
        content: &str,
    ) -> Result<(StepMount, Vec<String>), ImageError> {
        check_heredoc(at, name)?;
        // Where BuildKit puts it, too.
        let target = format!("/dev/pipes/{name}");
        let access = super::run::Access { mode: 0o755, uid: 0, gid: 0 };
        let source = StepMountSource::Secret { content: Hidden(content.as_bytes().to_vec()), access };
        let stub = self.stub(stage, &target)?;
        let mount = StepMount { target: target.clone(), read_only: true, source, stub };
        Ok((mount, vec![target]))
    }
}

/// Program and arguments of a command.
fn words(stage: &Stage, command: &RunCommand) -> Vec<String> {
    match command {
        RunCommand::Exec(words) => words.clone(),
        RunCommand::Shell(line) => {
            let mut words = stage.shell();
            words.push(line.clone());
            words
        }
        RunCommand::Script { name, .. } => vec![format!("<<{name}")],
    }
}

/// What a build may do only where whoever asks for it says so. Source: BuildKit's entitlements.
fn not_allowed(at: &Instruction, entitlement: &str) -> ImageError {
    let message = format!("{entitlement} is not allowed: allow it for the build with --allow {entitlement}");
    ImageError::Dockerfile(ParseError::at(at.lines, message))
}
