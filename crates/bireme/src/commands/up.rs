//! `bireme up`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bireme_api::Hijacked;
use bireme_compose::Project;
use bireme_compose::plan::{self, BuildPolicy, PullPolicy, UpOptions};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::execute::Executor;
use crate::app::execute::Started;
use crate::app::follow::{self, Prefix, Since};
use crate::app::{self, Member, observe};
use crate::attach::{self, Streams};
use crate::cli::UpArgs;
use crate::context::Context;
use crate::error::{Failure, Outcome};

pub(super) async fn up(context: &Context, args: &UpArgs) -> Outcome {
    let project = app::load(&args.app.over(&context.app))?;
    let options = options(args)?;
    for warning in &project.warnings {
        context.printer.note(format!("WARNING: {warning}"))?;
    }
    for service in args.exit_code_from.iter() {
        project.service(service)?;
    }
    let mut executor = Executor::new(context, &project);
    executor.quiet_pull = args.quiet_pull;
    if args.detach || args.wait || args.no_start {
        let work = bring_up(context, &project, &options, &executor);
        match args.wait_timeout {
            Some(seconds) if args.wait => tokio::time::timeout(Duration::from_secs(seconds), work)
                .await
                .map_err(|_| Failure::new(format!("not everything is running or healthy after {seconds} seconds")))??,
            _ => work.await?,
        }
        return Ok(0);
    }
    let (sender, started) = tokio::sync::mpsc::unbounded_channel();
    executor.started = Some(sender);
    attached(context, args, &project, &options, executor, started).await
}

fn options(args: &UpArgs) -> anyhow::Result<UpOptions> {
    let mut scale = BTreeMap::new();
    for text in &args.scale {
        let (service, count) = text.split_once('=').with_context(|| format!("--scale: {text:?} is not SERVICE=N"))?;
        let count = count.parse().with_context(|| format!("--scale: {count:?} is not a number of containers"))?;
        scale.insert(service.to_owned(), count);
    }
    Ok(UpOptions {
        services: args.services.clone(),
        scale,
        force_recreate: args.force_recreate,
        no_recreate: args.no_recreate,
        always_recreate_deps: args.always_recreate_deps,
        remove_orphans: args.remove_orphans,
        no_deps: args.no_deps,
        no_start: args.no_start,
        pull: match args.pull.as_deref() {
            Some("always") => Some(PullPolicy::Always),
            Some("missing") => Some(PullPolicy::Missing),
            Some("never") => Some(PullPolicy::Never),
            Some(other) => bail!("--pull: {other:?} is not one of always, missing, never"),
            None => None,
        },
        build: match (args.build, args.no_build) {
            (true, _) => BuildPolicy::Always,
            (_, true) => BuildPolicy::Never,
            _ => BuildPolicy::Missing,
        },
        wait: args.wait,
        stop_timeout: args.timeout.map(Duration::from_secs),
    })
}

/// Both strides of the plan: images, then networks, volumes and containers.
async fn bring_up(
    context: &Context,
    project: &Project,
    options: &UpOptions,
    executor: &Executor<'_>,
) -> anyhow::Result<()> {
    let mut observed = observe::observe(context, project).await?;
    let images = plan::images(project, &observed, options)?;
    if !images.steps.is_empty() {
        executor.run(&images).await?;
        if executor.stop.is_cancelled() {
            return Ok(());
        }
        observed = observe::observe(context, project).await?;
    }
    executor.prepare(&options.services, !options.no_deps).await;
    if executor.stop.is_cancelled() {
        return Ok(());
    }
    let plan = plan::up(project, &observed, options)?;
    if !plan.orphans.is_empty() {
        context.printer.note(format!(
            "WARNING: found orphan containers ({}) for this project; --remove-orphans removes them",
            plan.orphans.join(", ")
        ))?;
    }
    executor.run(&plan).await
}

/// Up in the foreground: what the containers say is shown until they end or the user stops them.
async fn attached(
    context: &Context,
    args: &UpArgs,
    project: &Project,
    options: &UpOptions,
    executor: Executor<'_>,
    mut started: tokio::sync::mpsc::UnboundedReceiver<Started>,
) -> Outcome {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // What runs already is followed from now on; what is started is shown from its start.
    let wanted = project.select(&options.services, !options.no_deps)?;
    let mut follow_set = Follow::new(context, args, &wanted);
    for member in app::members(context, project, &[]).await? {
        if member.running && wanted.services.contains_key(&member.service) {
            let output = attach::connect(&context.client, &member.id, Streams::with_input(false), None).await.ok();
            follow_set.add(member, Since::Now, output);
        }
    }
    let stop = executor.stop.clone();
    let abort = args.abort_on_container_exit || args.exit_code_from.is_some();
    let mut stopped_by_user = false;
    let mut first_ended: Option<(String, Option<i64>)> = None;
    let mut brought = false;
    {
        let mut work = Box::pin(async {
            let answer = bring_up(context, project, options, &executor).await;
            drop(executor);
            answer
        });
        loop {
            tokio::select! {
                answer = &mut work, if !brought => {
                    brought = true;
                    answer?;
                    if stop.is_cancelled() {
                        break;
                    }
                }
                Some(new) = started.recv() => follow_set.add(new.member, Since::After(new.before), Some(new.output)),
                Some(ended) = follow_set.next(), if !follow_set.is_empty() => {
                    let (member, exit) = ended?;
                    // A container replaced by this very run has not ended by itself.
                    if brought || exit.is_some_and(|code| code != 0) || abort {
                        let code = exit.map_or_else(|| "unknown".to_owned(), |code| code.to_string());
                        context.printer.note(format!("{} exited with code {code}", member.name))?;
                    }
                    if abort && brought {
                        first_ended = Some((member.service, exit));
                        context.printer.note("Aborting on container exit...")?;
                        break;
                    }
                }
                Some(()) = interrupted(&mut interrupt, &mut terminate) => {
                    stop.cancel();
                    stopped_by_user = true;
                    break;
                }
                else => break,
            }
            if brought && follow_set.is_empty() && started.is_empty() {
                break;
            }
        }
        if stopped_by_user {
            context.printer.note("\nGracefully stopping... (press Ctrl+C again to force)")?;
            // What has been begun is finished, so that what is there can be stopped.
            tokio::select! {
                _ = &mut work, if !brought => {}
                Some(()) = interrupted(&mut interrupt, &mut terminate), if !brought => {}
                else => {}
            }
        }
    }
    if !(stopped_by_user || abort) {
        return Ok(0);
    }
    let stopping = stop_all(context, args, project);
    tokio::pin!(stopping);
    loop {
        tokio::select! {
            done = &mut stopping => {
                done?;
                break;
            }
            Some(new) = started.recv() => follow_set.add(new.member, Since::After(new.before), Some(new.output)),
            Some(_) = follow_set.next(), if !follow_set.is_empty() => {}
            Some(()) = interrupted(&mut interrupt, &mut terminate) => {
                kill_all(context, project).await?;
                break;
            }
        }
    }
    if stopped_by_user {
        return Ok(130);
    }
    let first_ended = first_ended.as_ref().map(|(service, code)| (service.as_str(), *code));
    match &args.exit_code_from {
        Some(service) => {
            let observed = observe::exit_code(context, &project.name, service).await?;
            exit_code_from(service, first_ended, observed)
        }
        None => Ok(first_ended.and_then(|(_, code)| code).map_or(0, crate::attach::exit_code)),
    }
}

/// How `up` ends on behalf of one service: `observed` is its exit code when all has been stopped, `first_ended` which
/// service ended first and how.
///
/// # Errors
/// When no exit code of the service is known, as where its container was removed.
fn exit_code_from(service: &str, first_ended: Option<(&str, Option<i64>)>, observed: Option<i64>) -> Outcome {
    let own = first_ended.filter(|(ended, _)| *ended == service).and_then(|(_, code)| code);
    match observed.or(own) {
        Some(code) => Ok(crate::attach::exit_code(code)),
        None => Err(Failure::new(format!(
            "--exit-code-from: no exit code of service {service:?} is known; its container may have been removed"
        ))
        .into()),
    }
}

async fn interrupted(interrupt: &mut Signal, terminate: &mut Signal) -> Option<()> {
    tokio::select! {
        got = interrupt.recv() => got,
        got = terminate.recv() => got,
    }
}

/// Stops the app's containers, those that others depend on last.
async fn stop_all(context: &Context, args: &UpArgs, project: &Project) -> anyhow::Result<()> {
    let members = app::members(context, project, &[]).await?;
    for level in project.service_order()?.into_iter().rev() {
        let stops =
            members.iter().filter(|member| member.running && level.contains(&member.service)).map(|member| async {
                context.printer.note(format!(" Container {}  Stopping", member.name))?;
                context
                    .client
                    .post(format!("/containers/{}/stop", member.id))
                    .query_some("t", args.timeout)
                    .done()
                    .await
                    .or_else(|error| if error.is_not_found() { Ok(()) } else { Err(error) })?;
                context.printer.note(format!(" Container {}  Stopped", member.name))?;
                anyhow::Ok(())
            });
        futures::future::try_join_all(stops).await?;
    }
    Ok(())
}

async fn kill_all(context: &Context, project: &Project) -> anyhow::Result<()> {
    for member in app::members(context, project, &[]).await?.into_iter().filter(|member| member.running) {
        context.printer.note(format!(" Container {}  Killing", member.name))?;
        // It may have ended in the meantime, which is all we want.
        let _ = context.client.post(format!("/containers/{}/kill", member.id)).done().await;
    }
    Ok(())
}

type Ended = futures::future::LocalBoxFuture<'static, anyhow::Result<(Member, Option<i64>)>>;

/// The containers being followed.
struct Follow {
    context: Context,
    running: FuturesUnordered<Ended>,
    seen: Vec<String>,
    width: usize,
    prefixes: bool,
    timestamps: bool,
}

impl Follow {
    fn new(context: &Context, args: &UpArgs, project: &Project) -> Self {
        let width = project.services.keys().map(|name| name.chars().count() + 2).max().unwrap_or(0);
        Self {
            context: context.clone(),
            running: FuturesUnordered::new(),
            seen: Vec::new(),
            width,
            prefixes: !args.no_log_prefix,
            timestamps: args.timestamps,
        }
    }

    fn add(&mut self, member: Member, since: Since, output: Option<Hijacked>) {
        let name = format!("{}-{}", member.service, member.number);
        let at = self.seen.iter().position(|seen| *seen == name).unwrap_or_else(|| {
            self.seen.push(name.clone());
            self.seen.len() - 1
        });
        let prefix =
            if self.prefixes { Prefix::new(&self.context.printer, at, &name, self.width) } else { Prefix::none() };
        let (context, timestamps) = (self.context.clone(), self.timestamps);
        self.running.push(Box::pin(async move {
            let exit = follow::follow(&context, &member.id, prefix, since, timestamps, output).await?;
            Ok((Member { name, ..member }, exit))
        }));
    }

    fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    async fn next(&mut self) -> Option<anyhow::Result<(Member, Option<i64>)>> {
        self.running.next().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_of_a_service_is_never_made_up() {
        for (first_ended, observed, expected) in [
            (Some(("app", Some(3))), Some(3), Some(3)),
            (Some(("app", Some(3))), None, Some(3)),
            (Some(("app", None)), Some(3), Some(3)),
            (Some(("app", Some(0))), None, Some(0)),
            (Some(("app", None)), None, None),
            // Another ended first, and this one was stopped.
            (Some(("db", Some(1))), Some(137), Some(137)),
            (Some(("db", Some(1))), None, None),
            (Some(("db", None)), None, None),
            (None, Some(256 + 2), Some(2)),
            (None, None, None),
        ] {
            let answer = exit_code_from("app", first_ended, observed);
            assert_eq!(answer.ok(), expected, "{first_ended:?} {observed:?}");
        }
    }
}
