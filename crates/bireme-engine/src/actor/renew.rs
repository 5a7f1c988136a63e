//! A workload that runs is run anew, without a time in which nobody answers.

use std::time::Duration;

use bireme_core::clock::now_nanos;
use tokio::time::Instant;

use crate::EngineError;
use crate::view::{Ended, Status};

use super::WorkloadActor;

impl WorkloadActor {
    /// Has the executor replace the run that there is by a new one, see [`bireme_core::Renew`]. It keeps its place on
    /// networks, its ports and its volumes. False where that cannot be done: it runs on then as before.
    pub(super) async fn renew(&mut self, within: Option<Duration>) -> Result<bool, EngineError> {
        let executor = self.handle.executor.clone();
        let Some(renew) = executor.as_renew().filter(|_| self.mutable.state.status == Status::Running) else {
            return Ok(false);
        };
        let Ok(Some(placed)) = self.parts.networks.attachment(&self.handle, &self.name, &self.mutable).await else {
            return Ok(false);
        };
        let mut prepared = self.prepared(placed);
        // Of a workload that runs, nobody but its host goes by it, and only in this.
        prepared.spec.stop_timeout = within.unwrap_or(prepared.spec.stop_timeout);
        if let Err(error) = self.handle.unless_hurried(renew.renew(prepared)).await? {
            let error = &error as &dyn std::error::Error;
            tracing::info!(workload.id = self.handle.id(), error, "a run is not replaced: it is stopped and started");
            return Ok(false);
        }
        self.mutable.stopped = false;
        self.run.cancel();
        let ran = self.started.replace(Instant::now()).map_or(Duration::ZERO, |at| at.elapsed());
        let now = now_nanos();
        let state = &mut self.mutable.state;
        (state.finished_at, state.started_at) = (Some(now), Some(now));
        (self.mutable.health, self.mutable.restart_count) = (None, 0);
        self.remember_or_log().await;
        let events = &self.parts.services.events;
        let (signal, ran) = (self.handle.config.spec.stop_signal.0.to_string(), ran.as_secs().to_string());
        self.handle.emit(events, "kill", [("signal", signal.as_str())]);
        self.handle.emit(events, "die", [("exitCode", "0"), ("execDuration", ran.as_str())]);
        self.handle.emit(events, "stop", []);
        self.handle.emit(events, "start", []);
        // Whoever waits for the end, or is attached, has seen one.
        self.handle.ended(Ended { code: 0, error: None });
        self.begin_probes();
        Ok(true)
    }
}
