//! One container, as the engine holds it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bireme_core::clock::now_nanos;
use bireme_core::executor::Pause;
use bireme_core::spec::{Resources, Signal};
use bireme_core::{
    Attach, BoxFuture, ErrorKind, ExecError, ExecInto, ExecSpec, ExecStarted, Exit, Limits, ProcessTable, Stats,
    Workload, WorkloadId, WorkloadSpec,
};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{client, ending, top};
use crate::cgroup::Cgroup;
use crate::protocol::{self, Reply, Request};

/// How long [`Workload::delete`] waits for the runner to release everything. It may still be handing the last output to
/// a slow client.
const RELEASE_LIMIT: Duration = Duration::from_secs(60);

/// How long a runner may take to answer what it answers at once, on a machine under load.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// How long a program may take from being let go to its execution, and one more to join.
const BEGIN_LIMIT: Duration = Duration::from_secs(60);

/// What is known of one container.
pub(super) struct Shared {
    id: WorkloadId,
    state_dir: PathBuf,
    run_dir: PathBuf,
    cgroup: Cgroup,
    /// 0 when none runs.
    pid: AtomicU32,
    /// The runner's; 0 when it is not known.
    runner: AtomicU32,
    phase: watch::Sender<Phase>,
}

#[derive(Clone, Debug)]
enum Phase {
    Alive,
    /// It ended; the runner still hands out output and clears up.
    Ended(Exit),
    /// The runner is gone too.
    Released(Exit),
}

impl Shared {
    pub(super) fn new(spec: &WorkloadSpec, state_dir: &Path, run_dir: &Path, cgroup: Cgroup) -> Arc<Self> {
        Arc::new(Self {
            id: spec.id.clone(),
            state_dir: state_dir.to_owned(),
            run_dir: run_dir.to_owned(),
            cgroup,
            pid: AtomicU32::new(0),
            runner: AtomicU32::new(0),
            phase: watch::Sender::new(Phase::Alive),
        })
    }

    pub(super) fn id(&self) -> &WorkloadId {
        &self.id
    }

    pub(super) fn pid(&self) -> Option<u32> {
        match self.pid.load(Ordering::Acquire) {
            0 => None,
            pid => Some(pid),
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Alive)
    }

    pub(super) fn set_pid(&self, pid: u32) {
        self.pid.store(pid, Ordering::Release);
    }

    /// Kills a runner that answers nothing. Whoever follows it then clears up after it.
    pub(super) fn kill_runner(&self) {
        let pid = self.runner.load(Ordering::Acquire);
        // A number may have gone to another process: the descriptor is opened first, then what it runs is looked at.
        let Ok(process) = bireme_sys::pidfd::open(pid) else { return };
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if pid != 0 && command.windows(64).any(|window| window == self.id.to_string().as_bytes()) {
            tracing::warn!(workload.id = %self.id, "the runner of a container does not answer and is killed");
            let _ = bireme_sys::pidfd::signal(&process, Signal::KILL.0);
        }
    }

    /// Ends and removes what a runner that is no more left behind, and records `exit`.
    pub(super) async fn clear_up_after_runner(self: &Arc<Self>, exit: Exit) {
        let shared = Arc::clone(self);
        let record = exit.clone();
        let cleared = tokio::task::spawn_blocking(move || {
            let ended = ending::end(&shared.cgroup);
            if let Err(error) = ended {
                tracing::warn!(workload.id = %shared.id, %error, "cannot clear up after the runner of a container");
            }
            if let Err(error) = protocol::write_exit(&shared.state_dir, &record) {
                tracing::warn!(workload.id = %shared.id, %error, "cannot record how a container ended");
            }
            let _ = std::fs::remove_file(protocol::socket_file(&shared.run_dir));
        });
        let _ = cleared.await;
        self.set_pid(0);
        self.phase.send_replace(Phase::Released(exit));
    }

    /// Follows the runner over one connection until it is gone.
    async fn follow(self: Arc<Self>, mut waiting: UnixStream) {
        match client::answer(&mut waiting).await {
            Ok(Reply::Exit(exit)) => {
                self.set_pid(0);
                self.phase.send_replace(Phase::Ended(exit.clone()));
                let _ = waiting.read(&mut [0]).await;
                // Nothing to do if the runner did its duty; it may have been killed on the way.
                if self.cgroup.exists() || protocol::socket_file(&self.run_dir).exists() {
                    self.clear_up_after_runner(exit).await;
                } else {
                    self.phase.send_replace(Phase::Released(exit));
                }
            }
            _ => {
                let exit = protocol::read_exit(&self.state_dir).unwrap_or_else(|_| runner_killed());
                tracing::warn!(workload.id = %self.id, "the runner of a container is gone; ending the container");
                self.clear_up_after_runner(exit).await;
            }
        }
    }
}

pub(super) fn runner_killed() -> Exit {
    let error = "the container's runner was killed, and the container with it; start the container again";
    Exit { code: 137, oom_killed: false, finished_at: now_nanos(), error: Some(error.to_owned()) }
}

/// The executor's answer to the engine.
pub(super) struct LinuxWorkload {
    shared: Arc<Shared>,
    follower: Option<JoinHandle<()>>,
}

impl LinuxWorkload {
    /// Begins to follow the runner.
    pub(super) async fn watch(shared: Arc<Shared>) -> Result<Self, ExecError> {
        let opened = tokio::time::timeout(ANSWER_LIMIT, client::open(&shared.run_dir, &Request::Wait));
        let waiting = opened.await.unwrap_or_else(|_| {
            let message = format!("the runner of container {} takes no connection", shared.id.short());
            Err(ExecError::new(ErrorKind::Unavailable, message))
        })?;
        if let Some(pid) = waiting.peer_cred().ok().and_then(|peer| peer.pid()) {
            shared.runner.store(pid.cast_unsigned(), Ordering::Release);
        }
        let follower = tokio::spawn(Arc::clone(&shared).follow(waiting));
        Ok(Self { shared, follower: Some(follower) })
    }

    pub(super) fn ended(shared: Arc<Shared>) -> Self {
        Self { shared, follower: None }
    }

    /// As [`Self::converse`], for what has an answer in `limit`: whoever stops a process of a container at the wrong moment
    /// must not stop who waits for it.
    async fn within(&self, limit: Duration, request: Request) -> Result<(Reply, UnixStream), ExecError> {
        let asked = tokio::time::timeout(limit, self.converse(request)).await;
        asked.unwrap_or_else(|_| Err(self.silent(limit)))
    }

    fn silent(&self, limit: Duration) -> ExecError {
        let message = format!(
            "the runner of container {} has not answered within {} s; kill the container if that lasts",
            self.shared.id.short(),
            limit.as_secs()
        );
        ExecError::new(ErrorKind::Unavailable, message)
    }

    async fn converse(&self, request: Request) -> Result<(Reply, UnixStream), ExecError> {
        let ended =
            || ExecError::new(ErrorKind::Conflict, format!("container {} is not running", self.shared.id.short()));
        if !matches!(*self.shared.phase.borrow(), Phase::Alive) {
            return Err(ended());
        }
        match client::converse(&self.shared.run_dir, &request).await {
            Err(error)
                if error.kind() == ErrorKind::Unavailable && !matches!(*self.shared.phase.borrow(), Phase::Alive) =>
            {
                Err(ended())
            }
            other => other,
        }
    }

    async fn done(&self, limit: Duration, request: Request) -> Result<(), ExecError> {
        match self.within(limit, request).await?.0 {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// One that is not executed in time is ended, with its runner if need be.
    async fn start_now(&self) -> Result<(), ExecError> {
        let started = tokio::time::timeout(BEGIN_LIMIT, self.converse(Request::Start)).await;
        match started {
            Ok(answer) => match answer?.0 {
                Reply::Done => Ok(()),
                other => Err(unexpected(&other)),
            },
            Err(_) => {
                if !self.ask_for_end(Request::Delete).await {
                    self.shared.kill_runner();
                }
                let message = format!(
                    "the program of container {} was not executed within {} s and is ended: some process may have \
                     stopped it; start the container again",
                    self.shared.id.short(),
                    BEGIN_LIMIT.as_secs()
                );
                Err(ExecError::new(ErrorKind::Unavailable, message))
            }
        }
    }

    /// Whether the runner said anything to a request that ends something, in time.
    async fn ask_for_end(&self, request: Request) -> bool {
        tokio::time::timeout(ANSWER_LIMIT, client::ask(&self.shared.run_dir, &request)).await.is_ok()
    }

    async fn delete_now(&self) -> Result<(), ExecError> {
        let mut phase = self.shared.phase.subscribe();
        if !matches!(*phase.borrow(), Phase::Released(_)) {
            // It may be gone in this very moment: what counts is that it goes.
            if !self.ask_for_end(Request::Delete).await {
                self.shared.kill_runner();
            }
            let released = phase.wait_for(|phase| matches!(phase, Phase::Released(_)));
            if tokio::time::timeout(RELEASE_LIMIT, released).await.is_err() {
                let message = format!("the runner of container {} does not release it", self.shared.id.short());
                return Err(ExecError::new(ErrorKind::Unavailable, message));
            }
        }
        for file in [
            protocol::exit_file(&self.shared.state_dir),
            protocol::config_file(&self.shared.run_dir),
            protocol::socket_file(&self.shared.run_dir),
        ] {
            let _ = tokio::fs::remove_file(file).await;
        }
        Ok(())
    }
}

fn unexpected(reply: &Reply) -> ExecError {
    ExecError::new(ErrorKind::Internal, format!("the runner gave an answer to another question: {reply:?}"))
}

impl Drop for LinuxWorkload {
    fn drop(&mut self) {
        if let Some(follower) = &self.follower {
            follower.abort();
        }
    }
}

impl Workload for LinuxWorkload {
    fn start(&self) -> BoxFuture<'_, Result<(), ExecError>> {
        Box::pin(self.start_now())
    }

    fn pid(&self) -> Option<u32> {
        self.shared.pid()
    }

    fn signal(&self, signal: Signal) -> BoxFuture<'_, Result<(), ExecError>> {
        Box::pin(async move {
            let asked = self.converse(Request::Signal { number: signal.0 });
            match tokio::time::timeout(ANSWER_LIMIT, asked).await {
                Ok(answer) => match answer?.0 {
                    Reply::Done => Ok(()),
                    other => Err(unexpected(&other)),
                },
                // A kill ends whatever it is sent to.
                Err(_) if signal == Signal::KILL => {
                    self.shared.kill_runner();
                    Ok(())
                }
                Err(_) => Err(self.silent(ANSWER_LIMIT)),
            }
        })
    }

    fn wait(&self) -> BoxFuture<'_, Result<Exit, ExecError>> {
        Box::pin(async {
            let mut phase = self.shared.phase.subscribe();
            let ended = phase.wait_for(|phase| !matches!(phase, Phase::Alive)).await;
            match ended.as_deref() {
                Ok(Phase::Ended(exit) | Phase::Released(exit)) => Ok(exit.clone()),
                Ok(Phase::Alive) | Err(_) => Err(ExecError::new(ErrorKind::Internal, "the container's state is lost")),
            }
        })
    }

    fn stats(&self) -> BoxFuture<'_, Result<Stats, ExecError>> {
        Box::pin(async {
            let Some(pid) = self.shared.pid() else {
                return Err(ExecError::new(
                    ErrorKind::Conflict,
                    format!("container {} is not running", self.shared.id.short()),
                ));
            };
            let cgroup = self.shared.cgroup.clone();
            let read = tokio::task::spawn_blocking(move || Stats { networks: top::networks(pid), ..cgroup.stats() });
            read.await
                .map_err(|error| ExecError::new(ErrorKind::Internal, "reading statistics failed").caused_by(error))
        })
    }

    fn processes<'a>(&'a self, ps_args: &'a str) -> BoxFuture<'a, Result<ProcessTable, ExecError>> {
        Box::pin(async move {
            if self.shared.pid().is_none() {
                return Err(ExecError::new(
                    ErrorKind::Conflict,
                    format!("container {} is not running", self.shared.id.short()),
                ));
            }
            let columns = top::Columns::parse(ps_args)?;
            let cgroup = self.shared.cgroup.clone();
            let read = tokio::task::spawn_blocking(move || top::table(&columns, &cgroup.processes()));
            read.await.map_err(|error| ExecError::new(ErrorKind::Internal, "reading processes failed").caused_by(error))
        })
    }

    fn delete(&self) -> BoxFuture<'_, Result<(), ExecError>> {
        Box::pin(self.delete_now())
    }

    fn as_attach(&self) -> Option<&dyn Attach> {
        Some(self)
    }

    fn as_exec(&self) -> Option<&dyn ExecInto> {
        Some(self)
    }

    fn as_pause(&self) -> Option<&dyn Pause> {
        Some(self)
    }

    fn as_limits(&self) -> Option<&dyn Limits> {
        Some(self)
    }
}

impl Limits for LinuxWorkload {
    fn limit<'a>(&'a self, from: &'a Resources, to: &'a Resources) -> BoxFuture<'a, Result<(), ExecError>> {
        Box::pin(async move {
            let (cgroup, from, to) = (self.shared.cgroup.clone(), from.clone(), to.clone());
            let done = tokio::task::spawn_blocking(move || cgroup.limit(&from, &to));
            match done.await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(ExecError::new(ErrorKind::Conflict, error.to_string())),
                Err(error) => Err(ExecError::new(ErrorKind::Internal, "changing the limits failed").caused_by(error)),
            }
        })
    }
}

impl Attach for LinuxWorkload {
    /// The stream is in non-blocking mode.
    fn attach(&self, stdin: bool) -> BoxFuture<'_, Result<std::os::unix::net::UnixStream, ExecError>> {
        Box::pin(async move {
            match self.within(ANSWER_LIMIT, Request::Attach { stdin }).await? {
                (Reply::Done, stream) => into_std(stream),
                (other, _) => Err(unexpected(&other)),
            }
        })
    }

    fn resize(&self, columns: u16, rows: u16) -> BoxFuture<'_, Result<(), ExecError>> {
        Box::pin(self.done(ANSWER_LIMIT, Request::Resize { columns, rows }))
    }
}

impl ExecInto for LinuxWorkload {
    /// The stream is in non-blocking mode.
    fn exec<'a>(&'a self, exec_id: &'a str, spec: ExecSpec) -> BoxFuture<'a, Result<ExecStarted, ExecError>> {
        Box::pin(async move {
            match self.within(BEGIN_LIMIT, Request::Exec { id: exec_id.to_owned(), spec }).await? {
                (Reply::Exec { pid }, stream) => Ok(ExecStarted { pid, stream: into_std(stream)? }),
                (other, _) => Err(unexpected(&other)),
            }
        })
    }

    fn exec_wait<'a>(&'a self, exec_id: &'a str) -> BoxFuture<'a, Result<i32, ExecError>> {
        Box::pin(async move {
            match self.converse(Request::ExecWait { id: exec_id.to_owned() }).await?.0 {
                Reply::ExecExit { code } => Ok(code),
                other => Err(unexpected(&other)),
            }
        })
    }

    fn exec_kill<'a>(&'a self, exec_id: &'a str) -> BoxFuture<'a, Result<(), ExecError>> {
        Box::pin(self.done(ANSWER_LIMIT, Request::ExecKill { id: exec_id.to_owned() }))
    }

    fn exec_resize<'a>(&'a self, exec_id: &'a str, columns: u16, rows: u16) -> BoxFuture<'a, Result<(), ExecError>> {
        Box::pin(self.done(ANSWER_LIMIT, Request::ExecResize { id: exec_id.to_owned(), columns, rows }))
    }
}

impl Pause for LinuxWorkload {
    fn pause(&self) -> BoxFuture<'_, Result<(), ExecError>> {
        Box::pin(self.done(BEGIN_LIMIT, Request::Pause))
    }

    fn resume(&self) -> BoxFuture<'_, Result<(), ExecError>> {
        Box::pin(self.done(ANSWER_LIMIT, Request::Resume))
    }

    fn is_paused(&self) -> BoxFuture<'_, Result<bool, ExecError>> {
        Box::pin(async move {
            match self.within(ANSWER_LIMIT, Request::State).await? {
                (Reply::State(state), _) => Ok(state.paused),
                (other, _) => Err(unexpected(&other)),
            }
        })
    }
}

fn into_std(stream: UnixStream) -> Result<std::os::unix::net::UnixStream, ExecError> {
    stream
        .into_std()
        .map_err(|error| ExecError::new(ErrorKind::Internal, "cannot hand over the stream").caused_by(error))
}
