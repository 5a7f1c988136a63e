//! The actor of one workload, a task of its own: the only place where its state changes.
//!
//! ```text
//! start    a run begins, on request or by its restart policy
//! end      it ends, by itself or by removal, and what follows is decided
//! change   pauses, limits, health, in between
//! ```
//!
//! It takes one command at a time, sees the end of what runs, and the end of a back-off. Whatever it decides, it asks
//! `lifecycle` and `restart` first, does the I/O, remembers the outcome, and only then tells the world.

mod change;
mod end;
mod renew;
mod start;

use std::sync::Arc;
use std::time::Duration;

use bireme_core::Workload;
use bireme_core::clock::now_nanos;
use bireme_core::spec::Exit;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::end::ended;
pub(crate) use self::end::{DYING, hangs};
use crate::command::Command;
use crate::container::{Handle, MutableState};
use crate::lifecycle::{self, Operation, Transition, Verdict};
use crate::parts::Parts;
use crate::refusal::ContainerRefusal;
use crate::request::RemoveRequest;
use crate::restart::BackOff;
use crate::view::{Ended, Status};
use crate::{EngineError, unreadable};

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
        // What is not known now, the next engine asks again.
        if self.settle_pause().await && self.mutable.held {
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
            Command::Renew { within, reply } => {
                let _ = reply.send(self.renew(within).await);
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
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
