//! Carrying a plan out: every step as soon as those it comes after are done.

mod build;
mod container;
mod prepare;
mod wait;

use anyhow::{Context as _, anyhow, bail};
use bireme_api::Hijacked;
use bireme_api::answers::image::Image;
use bireme_compose::Project;
use bireme_compose::plan::{Plan, Removal, Step};
use futures::stream::{FuturesUnordered, StreamExt};
use http::StatusCode;
use indicatif::MultiProgress;
use tokio_util::sync::CancellationToken;

use super::Member;
use crate::attach::{self, Streams};
use crate::commands::{pull, run};
use crate::context::Context;
use crate::registry;

/// A container that was started.
pub struct Started {
    /// Which one; it ran when this was made.
    pub member: Member,
    /// When its run before ended, if it had one.
    pub before: Option<String>,
    /// What it writes, from its first byte on.
    pub output: Hijacked,
}

/// Carries plans out, says what it does, and tells which containers it started.
pub struct Executor<'a> {
    /// The engine that is asked, and where progress is printed.
    pub context: &'a Context,
    /// The app that the plans are about.
    pub project: &'a Project,
    /// Print no progress of pulls.
    pub quiet_pull: bool,
    /// Told of every container that was started.
    pub started: Option<tokio::sync::mpsc::UnboundedSender<Started>>,
    /// Ends the plan early: no new step begins, and nothing is waited for.
    pub stop: CancellationToken,
    bars: MultiProgress,
}

impl<'a> Executor<'a> {
    /// Shows progress of pulls, tells nobody of what it starts, and is not stopped.
    pub fn new(context: &'a Context, project: &'a Project) -> Self {
        Self {
            context,
            project,
            quiet_pull: false,
            started: None,
            stop: CancellationToken::new(),
            bars: MultiProgress::new(),
        }
    }

    /// Takes every step of the plan.
    ///
    /// # Errors
    /// The first failure. Steps already begun are finished first: nothing is left half done.
    pub async fn run(&self, plan: &Plan) -> anyhow::Result<()> {
        for warning in &plan.warnings {
            self.context.printer.note(format!("WARNING: {warning}"))?;
        }
        // How many steps each waits for, and which wait for it: a plan may have thousands.
        let mut left: Vec<usize> = plan.steps.iter().map(|step| step.after.len()).collect();
        let mut after: Vec<Vec<usize>> = vec![Vec::new(); plan.steps.len()];
        for (at, step) in plan.steps.iter().enumerate() {
            for before in &step.after {
                after[*before].push(at);
            }
        }
        let mut ready: Vec<usize> = (0..left.len()).filter(|at| left[*at] == 0).collect();
        let mut running = FuturesUnordered::new();
        let mut failure: Option<anyhow::Error> = None;
        loop {
            if failure.is_none() && !self.stop.is_cancelled() {
                for at in ready.drain(..) {
                    let step = &plan.steps[at].step;
                    running.push(Box::pin(async move { (at, self.step(step).await) }));
                }
            }
            match running.next().await {
                None => break,
                Some((at, Ok(()))) => {
                    for next in &after[at] {
                        left[*next] -= 1;
                        if left[*next] == 0 {
                            ready.push(*next);
                        }
                    }
                }
                Some((_, Err(error))) => {
                    // What still waits for others need wait no longer.
                    self.stop.cancel();
                    failure.get_or_insert(error);
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    fn say(&self, kind: &str, name: &str, what: &str) -> std::io::Result<()> {
        let line = format!(" {kind} {name}  {what}");
        if self.context.printer.err_is_terminal { self.bars.println(line) } else { self.context.printer.note(line) }
    }

    /// Whether the engine says nothing against a component.
    async fn runs(&self, image: &str, platform: &str) -> bool {
        let call = self.context.client.get(format!("/images/{image}/json")).query("platform", platform);
        call.read::<Image>().await.is_ok_and(|image| image.bireme.is_none_or(|component| component.refused.is_none()))
    }

    async fn step(&self, step: &Step) -> anyhow::Result<()> {
        let client = &self.context.client;
        match step {
            Step::Pull { service, image, platform, prefers, required } => {
                self.say("Image", image, "Pulling")?;
                let prefix = format!("{service}: ");
                let reference = registry::with_tag(image);
                let fetch = |platform: Option<String>| {
                    let (bars, reference, prefix) = (Some(self.bars.clone()), &reference, &prefix);
                    async move {
                        pull::fetch(self.context, reference, platform.as_deref(), self.quiet_pull, bars, prefix).await
                    }
                };
                let answer = match prefers {
                    // Whatever is wrong with it, the other platform tells what is wrong with both.
                    Some(preferred) => match fetch(Some(preferred.clone())).await {
                        Ok(()) if self.runs(image, preferred).await => Ok(()),
                        _ => fetch(platform.clone()).await,
                    },
                    None => fetch(platform.clone()).await,
                };
                match answer {
                    Ok(()) => self.say("Image", image, "Pulled")?,
                    Err(error) if !required => {
                        self.context.printer.note(format!("WARNING: {image} stays as it is: {error:#}"))?;
                    }
                    Err(error) => return Err(error.context(format!("service {service}: cannot pull {image}"))),
                }
            }
            Step::Load { service, image, file } => {
                self.say("Image", image, "Loading")?;
                let loaded = run::load_wasm(self.context, &file.to_string_lossy()).await;
                // Its exit code would be that of a command that is not there.
                let loaded = loaded.map_err(|error| anyhow!("service {service}: {error:#}"))?;
                if loaded != *image {
                    bail!("service {service}: {} changed in this moment; run the command again", file.display());
                }
                self.say("Image", image, "Loaded")?;
            }
            Step::Build { service, image, platform, build } => {
                self.say("Image", image, "Building")?;
                self.build(service, image, platform.as_deref(), build)
                    .await
                    .with_context(|| format!("service {service}: cannot build {image}"))?;
                self.say("Image", image, "Built")?;
            }
            Step::CreateNetwork { request, .. } => {
                self.say("Network", &request.name, "Creating")?;
                client
                    .post("/networks/create")
                    .json(request)
                    .done()
                    .await
                    .with_context(|| format!("cannot create network {}", request.name))?;
                self.say("Network", &request.name, "Created")?;
            }
            Step::CreateVolume { request, .. } => {
                let name = request.name.as_deref().unwrap_or_default();
                self.say("Volume", name, "Creating")?;
                client
                    .post("/volumes/create")
                    .json(request)
                    .done()
                    .await
                    .with_context(|| format!("cannot create volume {name}"))?;
                self.say("Volume", name, "Created")?;
            }
            Step::CreateContainer { request, .. } => {
                self.say("Container", &request.name, "Creating")?;
                self.create(request, &request.name).await?;
                self.say("Container", &request.name, "Created")?;
            }
            Step::RecreateContainer { old, old_running, timeout, request, .. } => {
                self.say("Container", &request.name, "Recreate")?;
                self.recreate(old.reference(), *old_running, *timeout, request).await?;
                self.say("Container", &request.name, "Recreated")?;
            }
            Step::StartContainer { service, container } => {
                self.say("Container", &container.name, "Starting")?;
                // What it said in an earlier run is not said again.
                let before = self.ended_before(container.reference()).await?;
                // Attached before the start, so that nothing is missed; and unlike a log it is handed on as it is.
                let output = match &self.started {
                    Some(_) => Some(
                        attach::connect(&self.context.client, container.reference(), Streams::with_input(false), None)
                            .await?,
                    ),
                    None => None,
                };
                client
                    .post(format!("/containers/{}/start", container.reference()))
                    .done()
                    .await
                    .with_context(|| format!("cannot start {}", container.name))?;
                self.say("Container", &container.name, "Started")?;
                if let Some(output) = output {
                    self.announce(service, container.reference(), before, output).await?;
                }
            }
            Step::RestartContainer { container, timeout, .. } => {
                self.say("Container", &container.name, "Restarting")?;
                client
                    .post(format!("/containers/{}/restart", container.reference()))
                    .query_some("t", timeout.map(|timeout| timeout.as_secs()))
                    .done()
                    .await?;
                self.say("Container", &container.name, "Restarted")?;
            }
            Step::WaitFor { service, condition, required, by } => {
                tokio::select! {
                    () = self.stop.cancelled() => {}
                    met = self.wait_for(service, *condition) => match met {
                        Ok(()) => {}
                        Err(error) if !required => {
                            self.context.printer.note(format!("WARNING: {error:#}"))?;
                        }
                        Err(error) if by.is_empty() => return Err(error),
                        Err(error) => return Err(error.context(format!("{by}: dependency failed to start"))),
                    },
                }
            }
            Step::StopContainer { container, timeout, .. } => {
                self.say("Container", &container.name, "Stopping")?;
                self.stop_container(container.reference(), *timeout).await?;
                self.say("Container", &container.name, "Stopped")?;
            }
            Step::RemoveContainer { container, reason, volumes, .. } => {
                self.say("Container", &container.name, "Removing")?;
                let call = client
                    .delete(format!("/containers/{}", container.reference()))
                    .query("v", u8::from(*volumes || *reason == Removal::ScaledDown))
                    .query("force", 1);
                gone(call.done().await)?;
                self.say("Container", &container.name, "Removed")?;
            }
            Step::RemoveNetwork { id, name } => {
                self.say("Network", name, "Removing")?;
                gone(client.delete(format!("/networks/{id}")).done().await)
                    .with_context(|| format!("cannot remove network {name}"))?;
                self.say("Network", name, "Removed")?;
            }
            Step::RemoveVolume { name } => {
                self.say("Volume", name, "Removing")?;
                gone(client.delete(format!("/volumes/{name}")).done().await)
                    .with_context(|| format!("cannot remove volume {name}"))?;
                self.say("Volume", name, "Removed")?;
            }
            Step::RemoveImage { image } => {
                self.say("Image", image, "Removing")?;
                match client.delete(format!("/images/{image}")).done().await {
                    // Another app may use it: that is no reason to fail.
                    Err(error) if error.kind() == bireme_core::ErrorKind::Conflict => {
                        self.say("Image", image, "Resource is still in use")?;
                    }
                    answer => {
                        gone(answer)?;
                        self.say("Image", image, "Removed")?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// What is already gone, or stopped, need not be.
fn gone(answer: Result<(), bireme_api::ClientError>) -> Result<(), bireme_api::ClientError> {
    match answer {
        Err(error) if error.is_not_found() => Ok(()),
        Err(bireme_api::ClientError::Refused { status: StatusCode::NOT_MODIFIED, .. }) => Ok(()),
        answer => answer,
    }
}
