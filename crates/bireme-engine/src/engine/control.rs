//! What is asked of one workload that is there: commands to its actor, signals, and what waits for an outcome.
//!
//! A workload is named by name, ID, or the beginning of an ID.

use std::sync::Arc;
use std::time::Duration;

use bireme_core::executor::Power;
use bireme_core::spec::Signal;
use bireme_core::{BoxFuture, StoreFolder};

use super::Engine;
use crate::actor;
use crate::attach::AttachSession;
use crate::command::Command;
use crate::container::Handle;
use crate::lifecycle::{self, Operation, Verdict};
use crate::refusal::{ContainerRefusal, Then};
use crate::registry::Found;
use crate::request::{Attach, EndpointRequest, LogQuery, RemoveRequest, StopRequest, Update, WaitCondition};
use crate::view::{Ended, Status, WorkloadView};
use crate::{EngineError, purge, resolve};

impl Engine {
    /// Has a workload run; answers when it does.
    ///
    /// # Errors
    /// `NotFound`; `NotModified` when it runs already; what the executor or network refuse otherwise.
    /// # Cancel safety
    /// Once the actor has the command it is carried out, also when the future is dropped.
    ///
    /// Source: Docker Engine API, `ContainerStart`.
    pub async fn start(&self, name: &str) -> Result<(), EngineError> {
        self.registry().find(name)?.command(Command::Start).await
    }

    /// Sends the stop signal, waits, then kills.
    ///
    /// # Errors
    /// `NotFound`; `NotModified` when it does not run; `Conflict` when it was killed and does not end.
    /// # Cancel safety
    /// Once begun it is completed, also when the future is dropped.
    ///
    /// Source: Docker Engine API, `ContainerStop`.
    pub async fn stop(&self, name: &str, how: StopRequest) -> Result<(), EngineError> {
        let handle = self.registry().find(name)?;
        self.end(&handle, how).await?;
        let engine = self.clone();
        let stop = async move {
            engine.start_successor(&handle).await;
            engine.stop_and_wait(&handle, how).await
        };
        self.services().tasks.completed(stop).await
    }

    /// Says that it shall end, if it may and does not rest already.
    async fn end(&self, handle: &Arc<Handle>, how: StopRequest) -> Result<(), EngineError> {
        handle.require(Operation::Stop)?;
        if !handle.ending(patience(handle, how)).await? {
            return Err(EngineError::NotModified { name: handle.view().name.clone(), running: false });
        }
        Ok(())
    }

    /// [`Engine::stop`] of one that is started again.
    async fn stop_for_restart(&self, handle: Arc<Handle>, how: StopRequest) -> Result<(), EngineError> {
        self.end(&handle, how).await?;
        let engine = self.clone();
        self.services().tasks.completed(async move { engine.stop_and_wait(&handle, how).await }).await
    }

    async fn stop_and_wait(&self, handle: &Arc<Handle>, how: StopRequest) -> Result<(), EngineError> {
        let spec = &handle.config.spec;
        let signal = how.signal.unwrap_or(spec.stop_signal);
        let patience = patience(handle, how);
        let mut ends = handle.ends();
        let count = ends.borrow_and_update().count;
        if let Err(error) = self.signal(handle, signal).await {
            if signal == Signal::KILL {
                return Err(error);
            }
            // Whoever refuses it is killed when its time is over.
            tracing::warn!(id = %handle.id(), error = &error as &dyn std::error::Error, "a stop signal was not taken");
        }
        let ended = async {
            if let Err(error) = self.thaw(handle).await {
                tracing::warn!(id = %handle.id(), %error, "a paused workload that is stopped does not go on");
            }
            ends.wait_for(|ends| ends.count > count || ends.gone).await.is_ok()
        };
        let in_time = match patience {
            Some(patience) => tokio::time::timeout(patience, ended).await.is_ok(),
            None => ended.await,
        };
        if !in_time {
            self.signal(handle, Signal::KILL).await?;
            let mut ends = handle.ends();
            let ended = ends.wait_for(|ends| ends.count > count || ends.gone);
            if tokio::time::timeout(actor::DYING, ended).await.is_err() {
                return Err(actor::hangs(handle, Then::Stop));
            }
        }
        handle.emit(&self.services().events, "stop", []);
        Ok(())
    }

    /// Sends a signal to what runs; a workload that ended meanwhile is no error.
    async fn signal(&self, handle: &Arc<Handle>, signal: Signal) -> Result<(), EngineError> {
        let Some(workload) = handle.workload() else { return Ok(()) };
        handle.emit(&self.services().events, "kill", [("signal", signal.0.to_string().as_str())]);
        match workload.signal(signal).await {
            Err(error)
                if matches!(error.kind(), bireme_core::ErrorKind::NotFound | bireme_core::ErrorKind::Conflict) =>
            {
                Ok(())
            }
            other => Ok(other?),
        }
    }

    /// Lets a paused workload go on, so that it gets the signal that was sent to it.
    async fn thaw(&self, handle: &Arc<Handle>) -> Result<(), EngineError> {
        if handle.view().state.status != Status::Paused {
            return Ok(());
        }
        match handle.command(Command::Unpause).await {
            // It goes on already, or has ended.
            Err(error)
                if matches!(error.kind(), bireme_core::ErrorKind::NotFound | bireme_core::ErrorKind::Conflict) =>
            {
                Ok(())
            }
            other => other,
        }
    }

    /// Stops a workload, where it runs, and starts it. Where its executor can do so, the new run takes over from
    /// the old one without a gap.
    ///
    /// # Errors
    /// Those of [`Engine::stop`] and [`Engine::start`], but for `NotModified`.
    /// # Cancel safety
    /// A dropped future may leave it stopped: of the two, the one that was begun is completed, and the other is not begun.
    ///
    /// Source: Docker Engine API, `ContainerRestart`.
    pub async fn restart(&self, name: &str, how: StopRequest) -> Result<(), EngineError> {
        let handle = self.registry().find(name)?;
        let id = handle.id().to_owned();
        // Whoever names a signal, or leaves it no time, wants it to end first.
        let patience = how.timeout_secs.map(|seconds| u64::try_from(seconds).ok().filter(|seconds| *seconds > 0));
        let may = how.signal.is_none() && patience != Some(None);
        let within = patience.flatten().map(Duration::from_secs);
        if may && handle.command(|reply| Command::Renew { within, reply }).await? {
            handle.emit(&self.services().events, "restart", []);
            return Ok(());
        }
        match self.stop_for_restart(handle, how).await {
            Ok(()) | Err(EngineError::NotModified { .. }) => {}
            Err(error) => return Err(error),
        }
        match self.start(&id).await {
            Ok(()) | Err(EngineError::NotModified { .. }) => {}
            Err(error) => return Err(error),
        }
        let handle = self.registry().find(&id)?;
        handle.emit(&self.services().events, "restart", []);
        Ok(())
    }

    /// Sends a signal. SIGKILL and its stop signal end it for good: its restart policy is passed over. With SIGKILL the answer
    /// comes when it has ended, or after ten seconds.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` in Docker's words when it does not run.
    /// # Cancel safety
    /// A signal that was sent is not taken back; a dropped future may have passed over the restart policy without sending it.
    ///
    /// Source: Docker Engine API, `ContainerKill`.
    pub async fn kill(&self, name: &str, signal: Signal) -> Result<(), EngineError> {
        let handle = self.registry().find(name)?;
        if !handle.view().state.status.is_alive() {
            return Err(ContainerRefusal::KillOfNone { asked: name.to_owned(), id: handle.id().to_owned() }.into());
        }
        let final_one = signal == Signal::KILL || signal == handle.config.spec.stop_signal;
        let mut ends = handle.ends();
        let count = ends.borrow_and_update().count;
        if final_one {
            handle.ending(Some(Duration::ZERO)).await?;
        }
        self.signal(&handle, signal).await?;
        // Source: moby's `containerKill`: of the signals to a workload with a stop signal of its own, only that one.
        if final_one || handle.config.spec.stop_signal == Signal::TERM {
            self.thaw(&handle).await?;
        }
        if signal == Signal::KILL {
            // Docker answers when it is down.
            let _ =
                tokio::time::timeout(Duration::from_secs(10), ends.wait_for(|ends| ends.count > count || ends.gone))
                    .await;
        }
        Ok(())
    }

    /// Freezes the processes of a workload that runs.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it does not run or is paused already; `Unsupported` for kinds that cannot be paused.
    /// # Cancel safety
    /// Once the actor has the command it is carried out, also when the future is dropped.
    ///
    /// Source: Docker Engine API, `ContainerPause`.
    pub async fn pause(&self, name: &str) -> Result<(), EngineError> {
        self.registry().find(name)?.command(Command::Pause).await
    }

    /// Lets a paused workload go on.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it is not paused.
    /// # Cancel safety
    /// Once the actor has the command it is carried out, also when the future is dropped.
    ///
    /// Source: Docker Engine API, `ContainerUnpause`.
    pub async fn unpause(&self, name: &str) -> Result<(), EngineError> {
        self.registry().find(name)?.command(Command::Unpause).await
    }

    /// Gives a workload another name, under which others on its networks find it from now on.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` in Docker's words for a name in use; `Invalid` for one that is none, or that it has.
    /// # Cancel safety
    /// Once begun it is completed, also when the future is dropped.
    ///
    /// Source: Docker Engine API, `ContainerRename`.
    pub async fn rename(&self, name: &str, to: &str) -> Result<(), EngineError> {
        let handle = self.registry().find(name)?;
        let to = to.strip_prefix('/').unwrap_or(to).to_owned();
        resolve::check_name(&to)?;
        if to == handle.view().name {
            return Err(ContainerRefusal::NameUnchanged.into());
        }
        let reservation = self.registry().reserve(&to, handle.id())?;
        let registry = Arc::clone(self.registry());
        self.services()
            .tasks
            .completed(async move {
                // Its owner alone knows what it was called when its turn came.
                let result = handle.command(|reply| Command::Rename { to, reply }).await;
                let before = result?;
                reservation.keep();
                registry.release_name(&before, handle.id());
                Ok(())
            })
            .await
    }

    /// Changes limits and the restart policy: of what runs at once, otherwise from the next start on. Answers warnings, in
    /// sentences for the client.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` in Docker's words for what contradicts itself or what the kernel refuses; nothing has changed
    /// then. `Unsupported` for limits of a workload that runs and whose kind takes them at its start alone.
    /// # Cancel safety
    /// Once the actor has the command it is carried out, also when the future is dropped.
    ///
    /// Source: Docker Engine API, `ContainerUpdate`.
    pub async fn update(&self, name: &str, change: Update) -> Result<Vec<String>, EngineError> {
        self.registry().find(name)?.command(|reply| Command::Update { change: Box::new(change), reply }).await
    }

    /// Removes a workload with its record, folders and name; with `force` also one that runs, or whose record cannot be read.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when its state does not allow it, or when it was killed and does not end. What cannot be cleared
    /// away leaves it dead.
    /// # Cancel safety
    /// Once the actor has the command it is carried out, also when the future is dropped.
    ///
    /// Source: Docker Engine API, `ContainerDelete`.
    pub async fn remove(&self, name: &str, how: RemoveRequest) -> Result<(), EngineError> {
        let handle = match self.registry().look_up(name)? {
            Found::Known(handle) => handle,
            Found::Unreadable(one) if how.force => {
                let parts = Arc::clone(&self.parts);
                let removal = async move { purge::remove_unreadable(&parts, &one).await };
                return self.services().tasks.completed(removal).await;
            }
            Found::Unreadable(one) => return Err(one.refusal()),
        };
        let view = handle.view();
        if let Verdict::Refused(because) = lifecycle::may(view.state.status, Operation::Remove { force: how.force }) {
            return Err(ContainerRefusal::Removal { name: view.name.clone(), because }.into());
        }
        let _hurry = how.force.then(|| handle.hurry());
        handle.command(|reply| Command::Remove { how, reply }).await
    }

    /// Resolves the name at once; the future answers when the condition holds.
    ///
    /// # Errors
    /// `NotFound`; of the future, `Stopping` when the engine ends first.
    /// # Cancel safety
    /// Dropping the future leaves the workload untouched.
    ///
    /// Source: Docker Engine API, `ContainerWait`.
    pub fn wait(
        &self,
        name: &str,
        condition: WaitCondition,
    ) -> Result<BoxFuture<'static, Result<Ended, EngineError>>, EngineError> {
        let handle = self.registry().find(name)?;
        let mut ends = handle.ends();
        let count = ends.borrow_and_update().count;
        Ok(Box::pin(async move {
            let view = handle.view();
            let idle = !view.state.status.is_alive() && view.state.status != Status::Restarting;
            if condition == WaitCondition::NotRunning && idle {
                return Ok(Ended { code: view.state.exit_code, error: None });
            }
            let met = ends.wait_for(|ends| match condition {
                WaitCondition::Removed => ends.gone || ends.stays.is_some(),
                WaitCondition::NotRunning | WaitCondition::NextExit => ends.count > count || ends.gone,
            });
            let ends = met.await.map_err(|_| EngineError::Stopping)?.clone();
            let ended = ends.last.unwrap_or(Ended { code: handle.view().state.exit_code, error: None });
            match ends.stays.filter(|_| condition == WaitCondition::Removed && !ends.gone) {
                Some(why) => Ok(Ended { error: Some(why), ..ended }),
                None => Ok(ended),
            }
        }))
    }

    /// Sets the size of a workload's terminal, in characters. One that has no terminal is left as it is.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it does not run; `Unsupported` for kinds without terminals.
    ///
    /// Source: Docker Engine API, `ContainerResize`.
    pub async fn resize(&self, name: &str, columns: u16, rows: u16) -> Result<(), EngineError> {
        let handle = self.registry().find(name)?;
        let workload = self.running(&handle)?;
        match workload.as_attach() {
            // As Docker has it: what has no terminal has no size to change, and nobody is told off.
            Some(_) if !handle.config.spec.tty => {}
            Some(attach) => attach.resize(columns, rows).await?,
            None => return Err(handle.lacks(Power::Terminal)),
        }
        let (height, width) = (rows.to_string(), columns.to_string());
        handle.emit(&self.services().events, "resize", [("height", height.as_str()), ("width", width.as_str())]);
        Ok(())
    }

    /// Attaches a client, also to a workload that does not run yet.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it is paused, being removed or dead. The session's stream answers `Unsupported` for kinds
    /// without standard streams.
    ///
    /// Source: Docker Engine API, `ContainerAttach`.
    pub async fn attach(&self, name: &str, how: Attach) -> Result<AttachSession, EngineError> {
        let handle = self.registry().find(name)?;
        let status = handle.view().state.status;
        if matches!(status, Status::Removing | Status::Dead) {
            return Err(ContainerRefusal::AttachWhileRemoved { id: handle.id().to_owned() }.into());
        }
        if status == Status::Paused {
            return Err(ContainerRefusal::AttachWhilePaused { id: handle.id().to_owned() }.into());
        }
        let logged = if how.logs && handle.config.log_path.is_some() {
            let query = LogQuery {
                stdout: how.stdout,
                stderr: how.stderr,
                follow: false,
                since: None,
                until: None,
                tail: None,
            };
            Some(self.logs(name, query).await?)
        } else {
            None
        };
        let stream: BoxFuture<'static, _> = if how.stream {
            handle.streams_when_running(how.stdin && handle.config.spec.open_stdin)
        } else {
            Box::pin(async { Ok(None) })
        };
        handle.emit(&self.services().events, "attach", []);
        Ok(AttachSession { tty: handle.config.spec.tty, logged, stream })
    }

    /// Removes the stores that no workload has, of `only` where it is given; answers which they were.
    ///
    /// # Errors
    /// `NotFound` for an `only` that is not there, `Conflict` for one that is in use.
    /// # Cancel safety
    /// A dropped future leaves those that were not come to yet.
    pub async fn prune_stores(&self, only: Option<&str>) -> Result<Vec<StoreFolder>, EngineError> {
        let mut removed = Vec::new();
        let (mut seen, mut used) = (false, false);
        for executor in &self.services().options.executors {
            let sandboxes = self.services().sandboxes_of(executor);
            for store in executor.stores(&sandboxes).await {
                if only.is_some_and(|only| only != store.name) {
                    continue;
                }
                seen = true;
                // Asked anew: one may have come while the others were removed.
                if !store.in_use && executor.remove_store(&store.name, &self.services().sandboxes_of(executor)).await? {
                    removed.push(store);
                } else {
                    used = true;
                }
            }
        }
        match only {
            Some(name) if !seen => Err(EngineError::NoSuch { what: "key-value store", name: name.to_owned() }),
            Some(name) if used => Err(ContainerRefusal::StoresInUse { name: name.to_owned() }.into()),
            _ => Ok(removed),
        }
    }

    /// Removes the link `PARENT/ALIAS`; both workloads stay. A parent that runs keeps its line of `/etc/hosts` and its
    /// variables until its next start.
    ///
    /// # Errors
    /// `NotFound` when there is no such link; `Invalid` in Docker's words for the name of a workload.
    /// # Cancel safety
    /// Once the actor has the command it is carried out, also when the future is dropped.
    ///
    /// Source: Docker Engine API, `ContainerDelete` with `link`.
    pub async fn unlink(&self, name: &str) -> Result<(), EngineError> {
        self.registry().find(name)?;
        let Some((parent, alias)) = name.strip_prefix('/').unwrap_or(name).split_once('/') else {
            return Err(ContainerRefusal::NoLink.into());
        };
        let alias = alias.to_owned();
        self.registry().find(parent)?.command(|reply| Command::Unlink { alias, reply }).await
    }

    /// Puts a workload on one more network; at once if it runs, otherwise at its next start.
    ///
    /// # Errors
    /// `NotFound` for either; `Denied` when it is on the network already, or has no namespace of its own to be put on one;
    /// `Invalid` for addresses that are none of the network's.
    /// # Cancel safety
    /// Once the actor has the command it is carried out, also when the future is dropped.
    ///
    /// Source: Docker Engine API, `NetworkConnect`.
    pub async fn connect(&self, network: &str, workload: &str, request: EndpointRequest) -> Result<(), EngineError> {
        let network = self.parts.networks.get(network)?;
        let handle = self.registry().find(workload)?;
        let record = Box::new(network);
        handle.command(|reply| Command::Connect { network: record, request, reply }).await
    }

    /// Takes a workload off a network. `force` also forgets a workload that is gone.
    ///
    /// # Errors
    /// `NotFound` for either; `Denied` when it is not on the network; `Conflict` when its published ports are served there alone.
    /// # Cancel safety
    /// Once the actor has the command it is carried out, also when the future is dropped.
    ///
    /// Source: Docker Engine API, `NetworkDisconnect`.
    pub async fn disconnect(&self, network: &str, workload: &str, force: bool) -> Result<(), EngineError> {
        let network = self.parts.networks.get(network)?;
        let handle = match self.registry().find(workload) {
            Ok(handle) => handle,
            Err(_) if force => return Ok(()),
            Err(error) => return Err(error),
        };
        handle.command(|reply| Command::Disconnect { network: network.id, reply }).await
    }

    /// Removes the container of a step whose build ended with an earlier engine, unless its command had failed: that one was
    /// left to be looked at.
    pub(super) async fn remove_of_build(&self, id: &str) {
        let failed = |view: &WorkloadView| view.state.status == Status::Exited && view.state.exit_code != 0;
        if !self.inspect(id).is_ok_and(|view| failed(&view)) {
            self.remove_step(id).await;
        }
    }

    /// Removes the container of a step, whatever it does.
    pub(crate) async fn remove_step(&self, id: &str) {
        if let Err(error) = self.remove(id, RemoveRequest { force: true, volumes: true }).await {
            tracing::warn!(workload.id = id, %error, "the container of a build could not be removed");
        }
    }
}

/// How long a workload has to end by itself; `None` as long as it likes.
fn patience(handle: &Handle, how: StopRequest) -> Option<Duration> {
    match how.timeout_secs {
        None => Some(handle.config.spec.stop_timeout),
        Some(seconds) => u64::try_from(seconds).ok().map(Duration::from_secs),
    }
}
