//! The owner task of one workload: the only place where its state changes.
//!
//! It takes one command at a time, sees the end of what runs, and the end of a back-off. Whatever it decides, it asks
//! `lifecycle` and `restart` first, does the I/O, remembers the outcome, and only then tells the world.

use std::sync::Arc;
use std::time::Duration;

use bireme_core::clock::now_nanos;
use bireme_core::executor::Power;
use bireme_core::spec::{Exit, Signal};
use bireme_core::{ErrorKind, Prepared, Workload, WorkloadSpec};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::command::Command;
use crate::container::{Handle, MutableState};
use crate::lifecycle::{self, Operation, Transition, Verdict};
use crate::parts::Parts;
use crate::refusal::{ContainerRefusal, Then, UpdateConflict};
use crate::request::{RemoveRequest, RestartPolicy, Update};
use crate::restart::BackOff;
use crate::view::{Ended, Health, Status};
use crate::{EngineError, health, log_options, purge, unreadable, update};

pub(crate) struct WorkloadActor {
    parts: Arc<Parts>,
    handle: Arc<Handle>,
    name: String,
    mutable: MutableState,
    back_off: BackOff,
    restart_at: Option<Instant>,
    /// The end of what runs now; a new channel at each start, so that a late end of an earlier run is not seen.
    end: Option<oneshot::Receiver<Exit>>,
    /// Ends what accompanies a run: health probes.
    run: CancellationToken,
    started: Option<Instant>,
    /// How often it was started or taken over, to tell probes of one run from those of the next.
    runs: u64,
    /// Its volumes are in use by what runs.
    mounted: bool,
    /// When an automatic removal that failed is tried again, and how often it failed.
    remove_at: Option<Instant>,
    removals: u32,
}

impl WorkloadActor {
    pub(crate) fn new(parts: Arc<Parts>, handle: Arc<Handle>, name: String, mutable: MutableState) -> Self {
        Self {
            parts,
            handle,
            name,
            mutable,
            back_off: BackOff::default(),
            restart_at: None,
            end: None,
            run: CancellationToken::new(),
            started: None,
            runs: 0,
            mounted: false,
            remove_at: None,
            removals: 0,
        }
    }

    /// Takes over a workload that an earlier daemon started.
    pub(crate) fn adopt(&mut self, workload: Arc<dyn Workload>) {
        self.handle.set_workload(Some(workload.clone()));
        self.parts.volumes.has_mounted(&self.handle);
        self.mounted = true;
        self.watch_end(workload);
        let ran = self.mutable.state.started_at.map_or(0, |at| now_nanos().saturating_sub(at)).max(0) as u64;
        self.started = Instant::now().checked_sub(Duration::from_nanos(ran));
        self.begin_probes();
    }

    /// Records that what an earlier daemon started is nowhere to be found; the task then treats it as any end.
    pub(crate) fn lost(&mut self) {
        let (sender, receiver) = oneshot::channel();
        let _ = sender.send(Exit {
            code: 255,
            oom_killed: false,
            finished_at: now_nanos(),
            error: Some(
                "it was lost while the engine was away: its process and its record of an end are gone".to_owned(),
            ),
        });
        self.end = Some(receiver);
    }

    /// A back-off that an earlier daemon did not live to see the end of.
    pub(crate) fn settle(&mut self) {
        self.happened(Transition::Ended);
    }

    /// Has it started as soon as the task runs, for restart policies at engine start.
    pub(crate) fn start_soon(&mut self) {
        self.restart_at = Some(Instant::now());
    }

    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>, cancel: CancellationToken) {
        // Its removal failed under an earlier engine, or was not begun.
        if self.handle.removes_itself() && matches!(self.mutable.state.status, Status::Exited | Status::Dead) {
            self.remove_at = Some(Instant::now());
        }
        if self.mutable.held {
            self.end_hold().await;
        }
        loop {
            let (due, removal_due) = (self.restart_at, self.remove_at);
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                exit = ended(&mut self.end) => {
                    if self.on_end(exit).await {
                        break;
                    }
                }
                command = commands.recv() => match command {
                    Some(command) => if self.on_command(command).await { break },
                    None => break,
                },
                () = sleep_until(due) => {
                    self.restart_at = None;
                    self.on_restart_due().await;
                }
                () = sleep_until(removal_due) => {
                    self.remove_at = None;
                    if self.remove_by_itself().await {
                        break;
                    }
                }
            }
        }
        self.run.cancel();
    }

    /// Answers true when the workload is gone.
    async fn on_command(&mut self, command: Command) -> bool {
        if let Some(why) = &self.handle.unreadable {
            match command {
                Command::Remove { how: RemoveRequest { force: true, .. }, .. } | Command::Probed { .. } => {}
                other => {
                    other.refuse(unreadable::refusal(&self.name, why));
                    return false;
                }
            }
        }
        match command {
            Command::Start(reply) => {
                let result = match self.may(Operation::Start) {
                    Ok(Verdict::Already) => Err(EngineError::NotModified { name: self.name.clone(), running: true }),
                    Ok(_) => {
                        self.mutable.stopped = false;
                        self.mutable.held = false;
                        self.mutable.restart_count = 0;
                        self.start().await
                    }
                    Err(error) => Err(error),
                };
                let failed = matches!(&result, Err(error) if !matches!(error, EngineError::NotModified { .. }));
                let gone = failed
                    && self.handle.removes_itself()
                    && !self.mutable.state.status.is_alive()
                    && self.remove_by_itself().await;
                let _ = reply.send(result);
                return gone;
            }
            Command::Ending(reply) => {
                self.mutable.stopped = true;
                if self.restart_at.take().is_some() && self.mutable.state.status == Status::Restarting {
                    self.happened(Transition::Ended);
                    self.handle.ended(Ended { code: self.mutable.state.exit_code, error: None });
                }
                self.remember_or_log().await;
                let _ = reply.send(Ok(self.mutable.state.status.is_alive()));
            }
            Command::Pause(reply) => {
                let _ = reply.send(self.pause(true).await);
            }
            Command::Hold(reply) => {
                self.mutable.held = true;
                // Before it stands still: nobody would let it go on.
                let mut result = self.remember().await;
                if result.is_ok() {
                    result = self.pause(true).await;
                }
                if result.is_err() {
                    // It may stand still, and only that could not be remembered.
                    if self.mutable.state.status == Status::Paused {
                        let _ = self.pause(false).await;
                    }
                    self.mutable.held = false;
                    self.remember_or_log().await;
                }
                let _ = reply.send(result);
            }
            Command::Unpause(reply) => {
                let _ = reply.send(self.pause(false).await);
            }
            Command::Rename { to, reply } => {
                let before = std::mem::replace(&mut self.name, to);
                self.parts.networks.rename_endpoints(&self.handle, &self.name, &mut self.mutable);
                let result = self.remember().await.map(|()| before.clone());
                if result.is_err() {
                    self.name = before;
                    self.parts.networks.rename_endpoints(&self.handle, &self.name, &mut self.mutable);
                } else {
                    self.handle.emit(
                        &self.parts.services.events,
                        "rename",
                        [("oldName", format!("/{before}").as_str())],
                    );
                    self.parts.networks.names_changed(self.handle.id(), &self.mutable.endpoints).await;
                    if let Some(workload) = self.handle.workload() {
                        let _ = self.handle.unless_hurried(workload.renamed(&self.name)).await;
                    }
                }
                let _ = reply.send(result);
            }
            Command::Unlink { alias, reply } => {
                self.mutable.unlinked.insert(alias.clone());
                let result = self.remember().await;
                if result.is_err() {
                    self.mutable.unlinked.remove(&alias);
                }
                self.handle.publish(&self.name, &self.mutable);
                let _ = reply.send(result);
            }
            Command::Update { change, reply } => {
                let _ = reply.send(self.update(*change).await);
            }
            // A probe that began before the end has nothing to say about what came after it.
            Command::Probed { run, health } => {
                if run == self.runs && self.mutable.state.status.is_alive() {
                    self.on_probe(health).await;
                }
            }
            Command::Connect { network, request, reply } => {
                let alive = self.mutable.state.status.is_alive();
                let result = self
                    .parts
                    .networks
                    .connect_endpoint(&self.handle, &self.name, &mut self.mutable, &network, request, alive)
                    .await;
                self.remember_or_log().await;
                let _ = reply.send(result);
            }
            Command::Disconnect { network, reply } => {
                let result = self.parts.networks.disconnect_endpoint(&self.handle, &mut self.mutable, &network).await;
                self.remember_or_log().await;
                let _ = reply.send(result);
            }
            Command::Remove { how, reply } => {
                let result = self.remove(how).await;
                let gone = result.is_ok();
                let _ = reply.send(result);
                return gone;
            }
        }
        false
    }

    fn may(&self, ask: Operation) -> Result<Verdict, EngineError> {
        match lifecycle::may(self.mutable.state.status, ask) {
            Verdict::Refused(because) => {
                Err(ContainerRefusal::State { id: self.handle.id().to_owned(), because }.into())
            }
            answer => Ok(answer),
        }
    }

    fn happened(&mut self, happened: Transition) {
        match lifecycle::after(self.mutable.state.status, happened) {
            Ok(status) => self.mutable.state.status = status,
            Err((status, happened)) => {
                tracing::error!(workload.id = self.handle.id(), ?status, ?happened, "impossible change of state")
            }
        }
        self.handle.publish(&self.name, &self.mutable);
    }

    async fn remember(&mut self) -> Result<(), EngineError> {
        self.handle.publish(&self.name, &self.mutable);
        if self.handle.unreadable.is_some() {
            // What stands there is worth more.
            return Ok(());
        }
        self.mutable.written = now_nanos();
        self.parts.services.store.update_workload(self.handle.id(), &self.name, &self.mutable).await
    }

    async fn remember_or_log(&mut self) {
        if let Err(error) = self.remember().await {
            tracing::warn!(
                workload.id = self.handle.id(),
                error = &error as &dyn std::error::Error,
                "a change of state could not be remembered; is the disk full?"
            );
        }
    }

    async fn start(&mut self) -> Result<(), EngineError> {
        // Kept until it counts as running: a copy goes by its process then.
        let handle = self.handle.clone();
        let _tree = handle.unless_hurried(handle.tree()).await??;
        match self.launch().await {
            Ok(workload) => {
                let state = &mut self.mutable.state;
                state.pid = workload.pid();
                state.exit_code = 0;
                state.error = String::new();
                state.oom_killed = false;
                state.started_at = Some(now_nanos());
                self.mutable.health = None;
                self.started = Some(Instant::now());
                self.happened(Transition::Started);
                let remembered = self.remember().await;
                self.watch_end(workload.clone());
                if let Err(error) = remembered {
                    // What is not remembered would be ended as a stranger by the next daemon: end it now, and say why.
                    let _ = workload.signal(Signal::KILL).await;
                    return Err(error);
                }
                self.handle.emit(&self.parts.services.events, "start", []);
                self.begin_probes();
                Ok(())
            }
            Err(error) => {
                self.release_resources().await;
                let state = &mut self.mutable.state;
                state.pid = None;
                state.error = error.to_string();
                state.exit_code = match &error {
                    EngineError::Exec(error) => error.exit_code().unwrap_or(128),
                    _ => 128,
                };
                state.finished_at = Some(now_nanos());
                self.happened(Transition::StartFailed);
                self.remember_or_log().await;
                // A client that waits for the end or the removal is told the code.
                self.handle.ended(Ended { code: self.mutable.state.exit_code, error: None });
                Err(error)
            }
        }
    }

    /// Places it on its networks, makes it ready, connects waiting clients, lets it go. Undoes what it did on error,
    /// except for the placing.
    async fn launch(&mut self) -> Result<Arc<dyn Workload>, EngineError> {
        self.handle.executor.prewarm();
        let placed = self.parts.networks.attach_network(&self.handle, &self.name, &mut self.mutable).await?;
        self.parts.volumes.emit_mounts("mount", &self.handle);
        self.mounted = true;
        let dirs = self.parts.services.dirs(&self.handle.config.spec.id);
        dirs.make().await?;
        self.parts.volumes.mount(&self.handle).await?;
        let spec = self.spec();
        let prepared = Prepared {
            // It may have been renamed since it was created.
            spec: WorkloadSpec { name: self.name.clone(), env: [placed.env, spec.env].concat(), ..spec },
            program: self.handle.config.program.clone(),
            state_dir: dirs.state.clone(),
            run_dir: dirs.run.clone(),
            log: log_options::target(&self.handle.config),
            network: placed.network,
            listeners: placed.listeners,
            networks: placed.networks,
            etc: placed.etc,
        };
        let workload = self.create(prepared).await?;
        let start = async {
            self.handle.connect_pending(workload.clone()).await;
            workload.start().await
        };
        let started = self.handle.unless_hurried(start).await;
        if let Err(error) = started.and_then(|started| started.map_err(EngineError::from)) {
            self.handle.set_workload(None);
            if let Err(error) = workload.delete().await {
                tracing::warn!(workload.id = self.handle.id(), %error, "what a failed start made could not be cleared away");
            }
            return Err(error);
        }
        Ok(workload)
    }

    /// Has the executor make it ready, unless somebody is in a hurry to end it. What was begun is undone then: at once, or
    /// when it has come to its end, see [`Executor::completes_create`](bireme_core::Executor::completes_create).
    async fn create(&self, prepared: Prepared) -> Result<Arc<dyn Workload>, EngineError> {
        let executor = self.handle.executor.clone();
        if !executor.completes_create() {
            let created = self.handle.unless_hurried(executor.create(prepared)).await??;
            return Ok(Arc::from(created));
        }
        let (done, mut created) = oneshot::channel();
        self.parts.services.tasks.spawn(async move {
            if let Err(Ok(unwanted)) = done.send(executor.create(prepared).await) {
                clear_unwanted(unwanted).await;
            }
        });
        match self.handle.unless_hurried(&mut created).await {
            Ok(created) => Ok(Arc::from(created.map_err(|_| EngineError::Stopping)??)),
            Err(error) => {
                // It may have come in this very moment.
                created.close();
                if let Ok(Ok(unwanted)) = created.try_recv() {
                    clear_unwanted(unwanted).await;
                }
                Err(error)
            }
        }
    }

    /// Gives back what [`WorkloadActor::launch`] took: its place on networks, its volumes.
    async fn release_resources(&mut self) {
        if std::mem::take(&mut self.mounted) {
            self.parts.volumes.emit_mounts("unmount", &self.handle);
        }
        self.parts.networks.detach_network(&self.handle, &mut self.mutable).await;
        self.parts.networks.names_changed(self.handle.id(), &self.mutable.endpoints).await;
        self.parts.volumes.unmount(&self.handle).await;
    }

    fn watch_end(&mut self, workload: Arc<dyn Workload>) {
        let (sender, receiver) = oneshot::channel();
        self.end = Some(receiver);
        self.parts.services.tasks.spawn(async move {
            let exit = workload.wait().await.unwrap_or_else(|error| Exit {
                code: 137,
                oom_killed: false,
                finished_at: now_nanos(),
                error: Some(error.to_string()),
            });
            let _ = sender.send(exit);
        });
    }

    /// Goes on from what is known of its health, which is nothing after a start.
    fn begin_probes(&mut self) {
        self.run = CancellationToken::new();
        self.runs += 1;
        if let Some(check) = health::effective(&self.handle.config) {
            let known = self.mutable.health.get_or_insert_with(Health::starting).clone();
            self.handle.publish(&self.name, &self.mutable);
            let ran = self.started.map_or(Duration::ZERO, |at| at.elapsed());
            let (handle, run, number) = (self.handle.clone(), self.run.clone(), self.runs);
            let services = Arc::clone(&self.parts.services);
            self.parts
                .services
                .tasks
                .spawn(async move { health::probe(services, handle, check, known, ran, run, number).await });
        } else {
            self.mutable.health = None;
        }
    }

    /// Clears away what ran and decides what follows. Answers true when the workload removed itself.
    async fn on_end(&mut self, exit: Exit) -> bool {
        self.end = None;
        self.run.cancel();
        let workload = self.handle.workload();
        self.handle.set_workload(None);
        self.release_resources().await;
        if let Some(workload) = workload
            && let Err(error) = workload.delete().await
        {
            tracing::warn!(workload.id = self.handle.id(), %error, "something of an ended workload could not be cleared away");
        }
        // What does not run is not well. Source: moby's `CloseMonitorChannel`.
        if let Some(health) = &mut self.mutable.health {
            health.status = "unhealthy".to_owned();
        }
        let state = &mut self.mutable.state;
        state.pid = None;
        state.exit_code = exit.code;
        state.oom_killed = exit.oom_killed;
        state.error = exit.error.clone().unwrap_or_default();
        state.finished_at = Some(exit.finished_at);
        self.mutable.held = false;
        let ran = self.started.take().map_or(Duration::ZERO, |at| at.elapsed());
        let delay = self.back_off.after_end(
            self.mutable.restart,
            exit.code,
            self.mutable.stopped,
            ran,
            self.mutable.restart_count,
        );
        match delay {
            Some(delay) => {
                self.restart_at = Some(Instant::now() + delay);
                self.happened(Transition::EndedToRestart);
            }
            None => self.happened(Transition::Ended),
        }
        if exit.oom_killed {
            self.handle.emit(&self.parts.services.events, "oom", []);
        }
        let duration = ran.as_secs().to_string();
        self.handle.emit(
            &self.parts.services.events,
            "die",
            [("exitCode", exit.code.to_string().as_str()), ("execDuration", &duration)],
        );
        let remove = self.handle.removes_itself() && delay.is_none();
        if !remove {
            self.remember_or_log().await;
        }
        self.handle.ended(Ended { code: exit.code, error: exit.error });
        remove && self.remove_by_itself().await
    }

    /// Answers true when it is gone; otherwise it is tried again later, as nobody else will.
    async fn remove_by_itself(&mut self) -> bool {
        let Err(error) = self.remove(RemoveRequest { force: false, volumes: true }).await else { return true };
        let pause = removal_pause(self.removals);
        self.removals += 1;
        self.remove_at = Some(Instant::now() + pause);
        tracing::warn!(
            workload.id = self.handle.id(),
            error = &error as &dyn std::error::Error,
            "automatic removal failed and is tried again in {} s",
            pause.as_secs()
        );
        false
    }

    async fn on_restart_due(&mut self) {
        self.mutable.restart_count += 1;
        if let Err(error) = self.start().await {
            tracing::info!(workload.id = self.handle.id(), error = &error as &dyn std::error::Error, "restart failed");
            let code = self.mutable.state.exit_code;
            let (policy, restarts) = (self.mutable.restart, self.mutable.restart_count);
            if let Some(delay) = self.back_off.after_end(policy, code, self.mutable.stopped, Duration::ZERO, restarts) {
                self.restart_at = Some(Instant::now() + delay);
                self.happened(Transition::EndedToRestart);
                self.remember_or_log().await;
            }
        }
    }

    /// What it runs as: as created, but for the limits that were changed since.
    fn spec(&self) -> WorkloadSpec {
        let mut spec = self.handle.config.spec.clone();
        if let Some(resources) = &self.mutable.resources {
            spec.resources = resources.clone();
        }
        spec
    }

    async fn update(&mut self, change: Update) -> Result<Vec<String>, EngineError> {
        let id = self.handle.id();
        let cannot = |why| ContainerRefusal::Update { id: id.to_owned(), why };
        if matches!(self.mutable.state.status, Status::Removing | Status::Dead) {
            return Err(cannot(UpdateConflict::BeingRemoved).into());
        }
        if self.handle.config.auto_remove && change.restart.is_some_and(|restart| restart != RestartPolicy::No) {
            return Err(cannot(UpdateConflict::RemovesItself).into());
        }
        let mut spec = self.spec();
        let before = spec.resources.clone();
        spec.resources = update::merge(&before, &change.resources).map_err(cannot)?;
        if spec.resources != before {
            self.handle.executor.check(&spec, &self.handle.config.program).await?;
        }
        let running = self.handle.workload().filter(|_| self.mutable.state.status.is_alive());
        if let Some(workload) = running.filter(|_| spec.resources != before) {
            let limits = workload.as_limits().ok_or_else(|| self.handle.executor.lacks(&self.name, Power::Limits))?;
            // The kernel may take its time to free what is beyond a limit.
            let limited = self.handle.unless_hurried(limits.limit(&before, &spec.resources)).await?;
            limited.map_err(|error| cannot(UpdateConflict::Executor(error)))?;
        }
        // Of what was asked now; what was set before has been told before.
        let asked = WorkloadSpec { resources: change.resources.clone(), ..spec.clone() };
        let warnings = self.handle.executor.warnings(&asked);
        let (resources, restart) = (self.mutable.resources.clone(), self.mutable.restart);
        self.mutable.resources = Some(spec.resources);
        self.mutable.restart = change.restart.unwrap_or(restart);
        if let Err(error) = self.remember().await {
            (self.mutable.resources, self.mutable.restart) = (resources, restart);
            return Err(error);
        }
        self.handle.emit(&self.parts.services.events, "update", []);
        Ok(warnings)
    }

    async fn on_probe(&mut self, health: Health) {
        let (status, streak) = (health.status.clone(), health.failing_streak);
        let before = self.mutable.health.replace(health);
        let changed = before.as_ref().is_none_or(|before| before.status != status);
        // Each probe is shown, but only what a next engine would judge by is worth a write.
        if changed || before.is_none_or(|before| before.failing_streak != streak) {
            self.remember_or_log().await;
        } else {
            self.handle.publish(&self.name, &self.mutable);
        }
        if changed {
            self.handle.emit(&self.parts.services.events, &format!("health_status: {status}"), []);
        }
    }

    async fn pause(&mut self, pause: bool) -> Result<(), EngineError> {
        self.may(if pause { Operation::Pause } else { Operation::Unpause })?;
        let workload =
            self.handle.workload().ok_or_else(|| ContainerRefusal::not_running(&self.handle.config.spec.id))?;
        let power = workload.as_pause().ok_or_else(|| self.handle.executor.lacks(&self.name, Power::Pause))?;
        let asked = if pause { power.pause() } else { power.resume() };
        self.handle.unless_hurried(asked).await??;
        self.mutable.held &= pause;
        self.happened(if pause { Transition::Paused } else { Transition::Unpaused });
        self.handle.emit(&self.parts.services.events, if pause { "pause" } else { "unpause" }, []);
        self.remember().await
    }

    /// Has it go on that an earlier engine paused for a moment, in the middle of which it was killed.
    async fn end_hold(&mut self) {
        self.mutable.held = false;
        let gone_on = match (self.mutable.state.status, self.handle.workload()) {
            (Status::Paused, _) => self.pause(false).await,
            // It may stand still, and nobody could note it any more.
            (Status::Running, Some(workload)) => match workload.as_pause() {
                Some(power) => match self.handle.unless_hurried(power.resume()).await {
                    Ok(Err(error)) if error.kind() == ErrorKind::Unavailable => Err(error.into()),
                    // It stands still no more, or never did.
                    Ok(_) => self.remember().await,
                    Err(error) => Err(error),
                },
                None => Ok(()),
            },
            _ => self.remember().await,
        };
        if let Err(error) = gone_on {
            tracing::warn!(workload.id = self.handle.id(), %error, "a container that was being committed does not go on");
        }
    }

    async fn remove(&mut self, how: RemoveRequest) -> Result<(), EngineError> {
        self.may(Operation::Remove { force: how.force })?;
        self.restart_at = None;
        if self.mutable.state.status.is_alive() {
            self.mutable.stopped = true;
            let mut unreached = None;
            if let Some(workload) = self.handle.workload() {
                match workload.signal(Signal::KILL).await {
                    // It ends in this very moment: what was wanted.
                    Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => {}
                    // Whoever stands for it leaves at its end, too: whether it has come, is known in a moment.
                    Err(error) if error.kind() == ErrorKind::Unavailable => unreached = Some(error),
                    other => other?,
                }
            }
            self.handle.emit(&self.parts.services.events, "kill", [("signal", "9")]);
            let exit = match unreached {
                None => tokio::time::timeout(DYING, ended(&mut self.end))
                    .await
                    .map_err(|_| hangs(&self.handle, Then::Remove))?,
                Some(error) => tokio::time::timeout(LEAVING, ended(&mut self.end)).await.map_err(|_| error)?,
            };
            let auto_removed = Box::pin(self.on_end(exit)).await;
            if auto_removed {
                return Ok(());
            }
        } else if self.mutable.state.status == Status::Restarting {
            self.happened(Transition::Ended);
        }
        self.remove_at = None;
        self.happened(Transition::RemovalBegan);
        match purge::purge(&self.parts, &self.handle, how.volumes).await {
            Ok(()) => {
                self.handle.emit(&self.parts.services.events, "destroy", []);
                self.handle.gone();
                Ok(())
            }
            Err(error) => {
                self.mutable.state.error = error.to_string();
                self.happened(Transition::RemovalFailed);
                self.remember_or_log().await;
                // Whoever waits for its removal would wait for ever. Source: moby's `SetRemovalError`.
                self.handle.stays(&format!("container {} could not be removed: {}", self.handle.id(), told(&error)));
                Err(error)
            }
        }
    }
}

async fn clear_unwanted(workload: Box<dyn Workload>) {
    if let Err(error) = workload.delete().await {
        tracing::warn!(%error, "what nobody waits for any more could not be cleared away");
    }
}

/// How long the end of what cannot be reached any more is waited for.
const LEAVING: Duration = Duration::from_secs(10);

/// How long the end of what was killed is waited for.
pub(crate) const DYING: Duration = Duration::from_secs(30);

/// What was killed has not ended in that time.
pub(crate) fn hangs(handle: &Handle, then: Then) -> EngineError {
    ContainerRefusal::Hangs { id: handle.id().to_owned(), after: DYING, then }.into()
}

/// Before an automatic removal that failed so often before is tried again. Pure.
fn removal_pause(failed: u32) -> Duration {
    Duration::from_secs(5 << failed.min(6))
}

/// An error with its causes.
fn told(error: &EngineError) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// The end of what runs; pending for ever while nothing does.
async fn ended(end: &mut Option<oneshot::Receiver<Exit>>) -> Exit {
    match end {
        Some(receiver) => receiver.await.unwrap_or_else(|_| Exit {
            code: 137,
            oom_killed: false,
            finished_at: now_nanos(),
            error: Some("the engine stopped watching it".to_owned()),
        }),
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
