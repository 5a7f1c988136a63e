//! A workload is changed while it is there: paused, given other limits, found well or ill.

use bireme_core::WorkloadSpec;
use bireme_core::executor::Power;

use crate::lifecycle::{Operation, Transition};
use crate::refusal::{ContainerRefusal, UpdateConflict};
use crate::request::{RestartPolicy, Update};
use crate::view::{Health, Status};
use crate::{EngineError, update};

use super::WorkloadActor;

impl WorkloadActor {
    /// What it runs as: as created, but for the limits that were changed since.
    pub(super) fn spec(&self) -> WorkloadSpec {
        let mut spec = self.handle.config.spec.clone();
        if let Some(resources) = &self.mutable.resources {
            spec.resources = resources.clone();
        }
        spec
    }

    pub(super) async fn update(&mut self, change: Update) -> Result<Vec<String>, EngineError> {
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

    pub(super) async fn on_probe(&mut self, health: Health) {
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

    pub(super) async fn pause(&mut self, pause: bool) -> Result<(), EngineError> {
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

    /// Notes whether it stands still where an earlier engine was killed between that and its record. False where that is not
    /// known.
    pub(super) async fn settle_pause(&mut self) -> bool {
        let Some(workload) = self.handle.workload() else { return true };
        let Some(power) = workload.as_pause() else { return true };
        let noted = self.mutable.state.status == Status::Paused;
        match self.handle.unless_hurried(power.is_paused()).await {
            Ok(Ok(paused)) if paused != noted => {
                self.happened(if paused { Transition::Paused } else { Transition::Unpaused });
                self.remember_or_log().await;
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::warn!(workload.id = self.handle.id(), %error, "it is not known whether a container is paused");
                return false;
            }
            Err(_) => return false,
        }
        true
    }

    /// Has it go on that an earlier engine paused for a moment, in the middle of which it was killed.
    pub(super) async fn end_hold(&mut self) {
        self.mutable.held = false;
        let gone_on = match self.mutable.state.status {
            Status::Paused => self.pause(false).await,
            _ => self.remember().await,
        };
        if let Err(error) = gone_on {
            tracing::warn!(workload.id = self.handle.id(), %error, "a container that was being committed does not go on");
        }
    }
}
