//! A workload is started: networks, volumes, executor, waiting clients, in this order; undone in the other where it fails.

use std::sync::Arc;
use std::time::Duration;

use bireme_core::clock::now_nanos;
use bireme_core::spec::{Exit, Signal};
use bireme_core::{Prepared, Workload, WorkloadSpec};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::lifecycle::Transition;
use crate::network::NetworkAttachment;
use crate::view::{Ended, Health};
use crate::{EngineError, health, log_options};

use super::WorkloadActor;

impl WorkloadActor {
    pub(super) async fn start(&mut self) -> Result<(), EngineError> {
        // Whoever asked for it may be ahead of the restart policy, which is served by that.
        self.restart_at = None;
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
    pub(super) async fn launch(&mut self) -> Result<Arc<dyn Workload>, EngineError> {
        self.handle.executor.prewarm();
        let placed = self.parts.networks.attach_network(&self.handle, &self.name, &mut self.mutable).await?;
        self.parts.volumes.emit_mounts("mount", &self.handle);
        self.mounted = true;
        self.parts.services.dirs(&self.handle.config.spec.id).make().await?;
        self.parts.volumes.mount(&self.handle).await?;
        let workload = self.create(self.prepared(placed)).await?;
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

    /// What the executor is handed, where the network has `placed` it. Its folders are there.
    pub(super) fn prepared(&self, placed: NetworkAttachment) -> Prepared {
        let dirs = self.parts.services.dirs(&self.handle.config.spec.id);
        let spec = self.spec();
        let env = [placed.env, spec.env, self.handle.secret_env()].concat();
        Prepared {
            // It may have been renamed since it was created.
            spec: WorkloadSpec { name: self.name.clone(), env, ..spec },
            program: self.handle.config.program.clone(),
            state_dir: dirs.state,
            run_dir: dirs.run,
            log: log_options::target(&self.handle.config),
            network: placed.network,
            listeners: placed.listeners,
            networks: placed.networks,
            etc: placed.etc,
        }
    }

    /// Has the executor make it ready, unless somebody is in a hurry to end it. What was begun is undone then: at once, or
    /// when it has come to its end, see [`Executor::completes_create`](bireme_core::Executor::completes_create).
    pub(super) async fn create(&self, prepared: Prepared) -> Result<Arc<dyn Workload>, EngineError> {
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

    pub(super) fn watch_end(&mut self, workload: Arc<dyn Workload>) {
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
    pub(super) fn begin_probes(&mut self) {
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
}

async fn clear_unwanted(workload: Box<dyn Workload>) {
    if let Err(error) = workload.delete().await {
        tracing::warn!(%error, "what nobody waits for any more could not be cleared away");
    }
}
