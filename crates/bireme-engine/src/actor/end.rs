//! A run ends, by itself or by force: what it had is given back, its end is told once, and what follows is decided: a
//! restart, its removal, or nothing.

use std::time::Duration;

use bireme_core::ErrorKind;
use bireme_core::clock::now_nanos;
use bireme_core::error::chain;
use bireme_core::spec::{Exit, Signal};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::container::Handle;
use crate::lifecycle::{Operation, Transition};
use crate::refusal::{ContainerRefusal, Then};
use crate::request::RemoveRequest;
use crate::view::{Ended, Status};
use crate::{EngineError, purge};

use super::WorkloadActor;

impl WorkloadActor {
    /// Gives back what [`WorkloadActor::launch`] took: its place on networks, its volumes.
    pub(super) async fn release_resources(&mut self) {
        if std::mem::take(&mut self.mounted) {
            self.parts.volumes.emit_mounts("unmount", &self.handle);
        }
        self.parts.networks.detach_network(&self.handle, &mut self.mutable).await;
        self.parts.networks.names_changed(self.handle.id(), &self.mutable.endpoints).await;
        self.parts.volumes.unmount(&self.handle).await;
    }

    /// Clears away what ran and decides what follows. Answers true when the workload removed itself.
    pub(super) async fn on_end(&mut self, exit: Exit) -> bool {
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
    pub(super) async fn remove_by_itself(&mut self) -> bool {
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

    pub(super) async fn on_restart_due(&mut self) {
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

    pub(super) async fn remove(&mut self, how: RemoveRequest) -> Result<(), EngineError> {
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
                self.handle.stays(&format!("container {} could not be removed: {}", self.handle.id(), chain(&error)));
                Err(error)
            }
        }
    }
}

/// How long the end of what cannot be reached any more is waited for.
pub(super) const LEAVING: Duration = Duration::from_secs(10);

/// How long the end of what was killed is waited for.
pub(crate) const DYING: Duration = Duration::from_secs(30);

/// What was killed has not ended in that time.
pub(crate) fn hangs(handle: &Handle, then: Then) -> EngineError {
    ContainerRefusal::Hangs { id: handle.id().to_owned(), after: DYING, then }.into()
}

/// Before an automatic removal that failed so often before is tried again. Pure.
pub(super) fn removal_pause(failed: u32) -> Duration {
    Duration::from_secs(5 << failed.min(6))
}

/// The end of what runs; pending for ever while nothing does.
pub(super) async fn ended(end: &mut Option<oneshot::Receiver<Exit>>) -> Exit {
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
