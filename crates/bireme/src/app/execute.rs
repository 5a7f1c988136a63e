//! Carrying a plan out: every step as soon as those it comes after are done.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bireme_api::Hijacked;
use bireme_api::models::{ContainerCreateResponse, Mount, MountType};
use bireme_compose::plan::{Plan, Removal, Step};
use bireme_compose::{Build, Condition, CreateRequest, Project, labels};
use futures::stream::{FuturesUnordered, StreamExt};
use http::StatusCode;
use indicatif::MultiProgress;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::Member;
use crate::archive::BuildContext;
use crate::commands::{build, pull};
use crate::context::Context;
use crate::error::Failure;
use crate::registry;

/// A container that was started.
pub struct Started {
    pub member: Member,
    /// When its run before ended, if it had one.
    pub before: Option<String>,
    /// What it writes, from its first byte on.
    pub output: Hijacked,
}

/// Carries plans out, says what it does, and tells which containers it started.
pub struct Executor<'a> {
    pub context: &'a Context,
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

    async fn step(&self, step: &Step) -> anyhow::Result<()> {
        let client = &self.context.client;
        match step {
            Step::Pull { service, image, platform, required } => {
                self.say("Image", image, "Pulling")?;
                let bars = Some(self.bars.clone());
                let prefix = format!("{service}: ");
                let reference = registry::with_tag(image);
                let answer =
                    pull::fetch(self.context, &reference, platform.as_deref(), self.quiet_pull, bars, &prefix).await;
                match answer {
                    Ok(()) => self.say("Image", image, "Pulled")?,
                    Err(error) if !required => {
                        self.context.printer.note(format!("WARNING: {image} stays as it is: {error:#}"))?;
                    }
                    Err(error) => return Err(error.context(format!("service {service}: cannot pull {image}"))),
                }
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
                    Some(_) => Some(super::follow::attach(&self.context.client, container.reference()).await?),
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

    /// When the last run ended, where anybody asks.
    async fn ended_before(&self, reference: &str) -> anyhow::Result<Option<String>> {
        if self.started.is_none() {
            return Ok(None);
        }
        let container: Value = self.context.client.get(format!("/containers/{reference}/json")).read().await?;
        let ended = container["State"]["FinishedAt"].as_str().filter(|time| crate::units::seconds(time).is_some());
        Ok(ended.map(str::to_owned))
    }

    async fn announce(
        &self,
        service: &str,
        reference: &str,
        before: Option<String>,
        output: Hijacked,
    ) -> anyhow::Result<()> {
        let Some(started) = &self.started else { return Ok(()) };
        let container: Value = self.context.client.get(format!("/containers/{reference}/json")).read().await?;
        let number = container["Config"]["Labels"][labels::NUMBER].as_str().and_then(|text| text.parse().ok());
        let member = Member {
            id: container["Id"].as_str().unwrap_or(reference).to_owned(),
            name: container["Name"].as_str().unwrap_or(reference).trim_start_matches('/').to_owned(),
            service: service.to_owned(),
            number: number.unwrap_or(1),
            running: true,
        };
        // Nobody follows any more when the user has left.
        let _ = started.send(Started { member, before, output });
        Ok(())
    }

    /// Makes a container that is called `passing` until it takes the name that was asked for, which is what messages say.
    async fn create(&self, request: &CreateRequest, passing: &str) -> anyhow::Result<String> {
        let (client, name) = (&self.context.client, &request.name);
        let created: ContainerCreateResponse = client
            .post("/containers/create")
            .query("name", passing)
            .query_some("platform", request.platform.as_deref())
            .json(&request.body)
            .read()
            .await
            .with_context(|| format!("cannot create {name}"))?;
        for warning in &created.warnings {
            self.context.printer.note(format!("WARNING: {name}: {warning}"))?;
        }
        if !request.files.is_empty() {
            let archive = files(request).with_context(|| format!("cannot pack the secrets and configs of {name}"))?;
            let body = futures::stream::once(async move { Ok(archive.into()) });
            client
                .put(format!("/containers/{}/archive", created.id))
                .query("path", "/")
                .archive(body)
                .done()
                .await
                .with_context(|| format!("cannot put secrets and configs into {name}"))?;
        }
        Ok(created.id)
    }

    /// The new container is made before the old one goes: if it cannot be made, the old one stays.
    async fn recreate(
        &self,
        old: &str,
        old_running: bool,
        timeout: Option<Duration>,
        request: &CreateRequest,
    ) -> anyhow::Result<()> {
        let client = &self.context.client;
        let before: Value = client.get(format!("/containers/{old}/json")).read().await?;
        let mut request = request.clone();
        keep_anonymous_volumes(&before, &mut request);
        let passing = format!("{}_{}", before["Id"].as_str().unwrap_or(old).get(..12).unwrap_or(old), request.name);
        let new = self.create(&request, &passing).await?;
        let removed = async {
            if old_running {
                self.stop_container(old, timeout).await?;
            }
            anyhow::Ok(gone(client.delete(format!("/containers/{old}")).query("force", 1).done().await)?)
        };
        let swapped = match removed.await {
            Ok(()) => {
                let call = client.post(format!("/containers/{new}/rename")).query("name", &request.name);
                call.done().await.map_err(anyhow::Error::from)
            }
            Err(error) => {
                // The old one stays, so the new one goes.
                if let Err(error) = gone(client.delete(format!("/containers/{new}")).query("force", 1).done().await) {
                    self.context.printer.note(format!("WARNING: {passing} is left over: {error:#}"))?;
                }
                Err(error)
            }
        };
        swapped.with_context(|| format!("cannot replace {}", request.name))
    }

    async fn stop_container(&self, reference: &str, timeout: Option<Duration>) -> anyhow::Result<()> {
        let call = self
            .context
            .client
            .post(format!("/containers/{reference}/stop"))
            .query_some("t", timeout.map(|timeout| timeout.as_secs()));
        Ok(gone(call.done().await)?)
    }

    async fn build(&self, service: &str, image: &str, platform: Option<&str>, build: &Build) -> anyhow::Result<()> {
        let remote = build::is_remote(&build.context).then(|| build.context.clone());
        if remote.is_none() && build.context.contains("://") {
            bail!("cannot build from {}: it is neither a folder nor an address of http, https or git", build.context);
        }
        let folder = if remote.is_some() {
            None
        } else {
            Some(BuildContext::open(
                Path::new(&build.context),
                build
                    .dockerfile
                    .as_deref()
                    .map(|file| Path::new(&build.context).join(file))
                    .as_deref()
                    .and_then(Path::to_str),
                build.dockerfile_inline.as_deref(),
            )?)
        };
        let mut tags = vec![registry::with_tag(image)];
        tags.extend(build.tags.iter().map(|tag| registry::with_tag(tag)));
        let map = |pairs: Value| pairs.as_object().cloned().unwrap_or_default();
        let mut image_labels = map(json!(build.labels));
        image_labels.insert(labels::PROJECT.to_owned(), self.project.name.clone().into());
        image_labels.insert(labels::SERVICE.to_owned(), service.into());
        let wish = build::Wish {
            tags,
            platform: platform.map(str::to_owned).or_else(|| build.platforms.first().cloned()),
            target: build.target.clone(),
            args: map(json!(build.args)),
            labels: image_labels,
            extra_hosts: build.extra_hosts.clone(),
            network: build.network.clone(),
            shm_size: build.shm_size,
            cache_from: build.cache_from.clone(),
            no_cache: build.no_cache,
            pull: build.pull,
            quiet: false,
            keep: false,
            remote,
        };
        let mut rest = String::new();
        let say = |text: &str| {
            rest.push_str(text);
            while let Some(end) = rest.find('\n') {
                let line = rest[..end].trim_end();
                if !line.is_empty() {
                    self.context.printer.note(format!(" {service} | {line}"))?;
                }
                rest.drain(..=end);
            }
            Ok(())
        };
        match folder {
            Some(folder) => {
                let dockerfile = folder.dockerfile.clone();
                build::submit(self.context, &wish, &dockerfile, folder.stream(), say).await?;
            }
            None => {
                let dockerfile = build.dockerfile.as_deref().unwrap_or("Dockerfile");
                build::submit(self.context, &wish, dockerfile, futures::stream::empty(), say).await?;
            }
        }
        Ok(())
    }

    /// Until every container of a service meets a condition.
    async fn wait_for(&self, service: &str, condition: Condition) -> anyhow::Result<()> {
        let filters = json!({"label": [
            format!("{}={}", labels::PROJECT, self.project.name),
            format!("{}={service}", labels::SERVICE),
        ]});
        let mut said = false;
        // Since when each has been seen in the run it is in, and how often it had been restarted at first.
        let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
        loop {
            let list: Vec<Value> =
                self.context.client.get("/containers/json").query("all", 1).query("filters", &filters).read().await?;
            let mut met = !list.is_empty();
            for listed in &list {
                if listed["Labels"][labels::ONE_OFF].as_str().is_some_and(|text| text.eq_ignore_ascii_case("true")) {
                    continue;
                }
                let id = listed["Id"].as_str().unwrap_or_default();
                let container: Value = self.context.client.get(format!("/containers/{id}/json")).read().await?;
                met &= meets(&container, condition)?;
                if condition == Condition::ServiceStarted {
                    met &= settled(&container, seen.entry(id.to_owned()).or_default())?;
                }
            }
            if met {
                if said {
                    self.say("Service", service, done_word(condition))?;
                }
                return Ok(());
            }
            if !said {
                said = true;
                self.say("Service", service, "Waiting")?;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// How long a container without a health check must run until it counts as up: one that crashes at once is not.
const SETTLE: Duration = Duration::from_secs(1);
/// After so many restarts meanwhile, waiting is in vain.
const MAX_RESTARTS: i64 = 3;

/// What is remembered of a container while it is waited for.
#[derive(Debug, Default)]
struct Seen {
    run: Option<(String, Instant)>,
    restarts: Option<i64>,
    /// How it ended when it was last seen between two runs.
    code: i64,
}

/// Whether a running container has been in one run long enough; an error when it only crashes again and again.
fn settled(container: &Value, seen: &mut Seen) -> anyhow::Result<bool> {
    let name = container["Name"].as_str().unwrap_or_default().trim_start_matches('/');
    let restarts = container["RestartCount"].as_i64().unwrap_or(0);
    // A run that began anew has no code yet.
    if let Some(code) = container["State"]["ExitCode"].as_i64().filter(|code| *code != 0) {
        seen.code = code;
    }
    if restarts - *seen.restarts.get_or_insert(restarts) >= MAX_RESTARTS {
        return Err(failed(name, format!("container {name} exited ({}) again and again", seen.code)));
    }
    let run = container["State"]["StartedAt"].as_str().unwrap_or_default();
    match &seen.run {
        Some((known, since)) if known == run => Ok(since.elapsed() >= SETTLE),
        _ => {
            seen.run = Some((run.to_owned(), Instant::now()));
            Ok(false)
        }
    }
}

fn done_word(condition: Condition) -> &'static str {
    match condition {
        Condition::ServiceStarted => "Running",
        Condition::ServiceHealthy => "Healthy",
        Condition::ServiceCompletedSuccessfully => "Exited",
    }
}

/// Whether a container meets a condition; an error when it never will.
fn meets(container: &Value, condition: Condition) -> anyhow::Result<bool> {
    let state = &container["State"];
    let name = container["Name"].as_str().unwrap_or_default().trim_start_matches('/');
    let code = state["ExitCode"].as_i64().unwrap_or(0);
    let ended = matches!(state["Status"].as_str(), Some("exited" | "dead"));
    match condition {
        Condition::ServiceCompletedSuccessfully if ended && code == 0 => Ok(true),
        Condition::ServiceCompletedSuccessfully if ended => {
            Err(failed(name, format!("container {name} did not complete successfully: it exited with code {code}")))
        }
        Condition::ServiceCompletedSuccessfully => Ok(false),
        _ if ended => Err(failed(name, format!("container {name} exited ({code})"))),
        Condition::ServiceStarted => Ok(state["Running"] == true),
        Condition::ServiceHealthy => match state["Health"]["Status"].as_str().unwrap_or("none") {
            "healthy" => Ok(true),
            "unhealthy" => Err(failed(name, format!("container {name} is unhealthy"))),
            "starting" => Ok(false),
            _ if state["Running"] != true => Ok(false),
            _ => Err(Failure::new(format!("container {name} has no healthcheck configured"))
                .hint("give its service a healthcheck (label bireme.health for a component)")
                .into()),
        },
    }
}

fn failed(name: &str, message: String) -> anyhow::Error {
    Failure::new(message).hint(format!("`bireme logs {name}` shows what it said")).into()
}

/// What is already gone, or stopped, need not be.
fn gone(answer: Result<(), bireme_api::ClientError>) -> Result<(), bireme_api::ClientError> {
    match answer {
        Err(error) if error.is_not_found() => Ok(()),
        Err(bireme_api::ClientError::Refused { status: StatusCode::NOT_MODIFIED, .. }) => Ok(()),
        answer => answer,
    }
}

/// Anonymous volumes of the old container go over to the new one.
fn keep_anonymous_volumes(old: &Value, request: &mut CreateRequest) {
    let host = request.body.host_config.get_or_insert_default();
    let taken: BTreeSet<String> = host
        .mounts
        .iter()
        .flatten()
        .filter_map(|mount| mount.target.clone())
        .chain(host.binds.iter().flatten().filter_map(|bind| bind.split(':').nth(1).map(str::to_owned)))
        .collect();
    for mount in old["Mounts"].as_array().into_iter().flatten() {
        let name = mount["Name"].as_str().unwrap_or_default();
        let target = mount["Destination"].as_str().unwrap_or_default();
        let anonymous = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        if mount["Type"] == "volume" && anonymous && !taken.contains(target) {
            host.mounts.get_or_insert_default().push(Mount {
                typ: Some(MountType::VOLUME),
                source: Some(name.to_owned()),
                target: Some(target.to_owned()),
                ..Mount::default()
            });
        }
    }
}

/// The secrets and configs of a container as an archive for its root.
fn files(request: &CreateRequest) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for file in &request.files {
        let mut header = tar::Header::new_gnu();
        header.set_size(file.content.len() as u64);
        header.set_mode(file.mode);
        header.set_uid(file.uid.into());
        header.set_gid(file.gid.into());
        header.set_mtime(0);
        archive.append_data(&mut header, file.path.trim_start_matches('/'), file.content.as_slice())?;
    }
    archive.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(state: Value, condition: Condition, expected: Result<bool, &str>) {
        let container = json!({"Name": "/web-1", "State": state});
        let got = meets(&container, condition).map_err(|error| error.to_string());
        assert_eq!(got, expected.map_err(str::to_owned), "{state}");
    }

    #[test]
    fn conditions_are_met_or_never_will_be() {
        use Condition::{ServiceCompletedSuccessfully, ServiceHealthy, ServiceStarted};
        check(json!({"Status": "running", "Running": true}), ServiceStarted, Ok(true));
        check(json!({"Status": "created"}), ServiceStarted, Ok(false));
        check(json!({"Status": "exited", "ExitCode": 2}), ServiceStarted, Err("container web-1 exited (2)"));
        check(json!({"Status": "exited", "ExitCode": 0}), ServiceCompletedSuccessfully, Ok(true));
        check(json!({"Status": "running", "Running": true}), ServiceCompletedSuccessfully, Ok(false));
        check(
            json!({"Status": "exited", "ExitCode": 1}),
            ServiceCompletedSuccessfully,
            Err("container web-1 did not complete successfully: it exited with code 1"),
        );
        check(
            json!({"Status": "running", "Running": true, "Health": {"Status": "starting"}}),
            ServiceHealthy,
            Ok(false),
        );
        check(
            json!({"Status": "running", "Running": true, "Health": {"Status": "unhealthy"}}),
            ServiceHealthy,
            Err("container web-1 is unhealthy"),
        );
        check(
            json!({"Status": "running", "Running": true}),
            ServiceHealthy,
            Err("container web-1 has no healthcheck configured"),
        );
    }

    #[test]
    fn anonymous_volumes_go_over() {
        let name = "a".repeat(64);
        let old = json!({"Mounts": [
            {"Type": "volume", "Name": name, "Destination": "/data"},
            {"Type": "volume", "Name": "named", "Destination": "/n"},
            {"Type": "bind", "Source": "/x", "Destination": "/x"},
        ]});
        let mut request =
            CreateRequest { name: "n".into(), platform: None, body: Default::default(), files: Vec::new() };
        keep_anonymous_volumes(&old, &mut request);
        let mounts = request.body.host_config.unwrap().mounts.unwrap();
        assert_eq!(mounts.len(), 1);
        assert_eq!(mounts[0].source.as_deref(), Some(name.as_str()));
    }
}
