//! One host process, seen from the daemon: starting it, asking it, clearing it away.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bireme_core::{ErrorKind, ExecError, SandboxId};
use parking_lot::Mutex;
use serde::de::{DeserializeOwned, IgnoredAny};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::process::{ChildStdout, Command};
use tokio::sync::Semaphore;

use crate::protocol::{self, HostConfig, HostState, Request};
use crate::spare::Spares;
use crate::{cgroup, complaints, memory};

/// Longest time a host may take to stand ready.
const START: Duration = Duration::from_secs(30);
/// Longest time a host may take to be gone after its last workload was deleted.
const GONE: Duration = Duration::from_secs(5);
/// Longest time a host may take to answer what it answers at once, on a machine under load.
const ANSWER: Duration = Duration::from_secs(60);

/// Of each host whose list somebody reads or waits for, a place to read one at a time: it may take some MiB. A host that is
/// silent keeps nobody from the others.
static LISTS: Mutex<BTreeMap<PathBuf, Weak<Semaphore>>> = Mutex::new(BTreeMap::new());

/// How often, and after how long, a connection is tried again when the host has taken none of those that wait yet.
const CONNECTS: u32 = 2000;
const RETRY: Duration = Duration::from_millis(5);

/// Names a host process; it may run or not.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub sandbox: SandboxId,
    /// `<exec_root>/w/<sandbox>`.
    pub dir: PathBuf,
    pub cgroup: PathBuf,
}

/// The cgroup below which those of all hosts of an engine are: apart from the containers', which their executor sweeps.
pub(crate) fn parent_cgroup(instance: &str) -> PathBuf {
    PathBuf::from(format!("bireme-{instance}-w"))
}

impl Host {
    pub(crate) fn new(exec_root: &Path, instance: &str, sandbox: SandboxId) -> Self {
        // Socket paths hold 107 bytes; long names are told apart by their hash.
        let name = if sandbox.as_str().len() <= 32 {
            sandbox.as_str().to_owned()
        } else {
            hex::encode(&Sha256::digest(sandbox.as_str())[..16])
        };
        let cgroup = parent_cgroup(instance).join(&name);
        Self { dir: exec_root.join("w").join(name), cgroup, sandbox }
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("host.sock")
    }

    /// Connects to the running host.
    ///
    /// # Errors
    /// `Unavailable` when none runs.
    pub(crate) async fn connect(&self) -> Result<UnixStream, ExecError> {
        for _ in 0..CONNECTS {
            match UnixStream::connect(self.socket()).await {
                // More callers at once than the socket has places for: a thousand workloads that end together.
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => tokio::time::sleep(RETRY).await,
                connected => {
                    return connected.map_err(|error| {
                        let text = format!("the host process of {} does not answer", self.sandbox);
                        ExecError::new(ErrorKind::Unavailable, text).caused_by(error)
                    });
                }
            }
        }
        Err(self.silent(RETRY * CONNECTS))
    }

    /// Asks for one thing on a connection of its own.
    ///
    /// # Errors
    /// Also `Unavailable` when it takes longer than a minute; but the end of a workload is waited for as long as it takes.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<T, ExecError> {
        let asked = async {
            let place = request.is_for_list().then(|| self.place_for_list());
            let _place = match &place {
                Some(place) => place.acquire().await.ok(),
                None => None,
            };
            let stream = self.connect().await?;
            ask_on(&stream, request, fds).await
        };
        if matches!(request, Request::Wait { .. }) {
            return asked.await;
        }
        tokio::time::timeout(ANSWER, asked).await.unwrap_or_else(|_| Err(self.silent(ANSWER)))
    }

    fn place_for_list(&self) -> Arc<Semaphore> {
        let mut lists = LISTS.lock();
        if let Some(place) = lists.get(&self.dir).and_then(Weak::upgrade) {
            return place;
        }
        lists.retain(|_, place| place.strong_count() > 0);
        let place = Arc::new(Semaphore::new(1));
        lists.insert(self.dir.clone(), Arc::downgrade(&place));
        place
    }

    pub(crate) fn silent(&self, limit: Duration) -> ExecError {
        let text = format!("the host process of {} does not answer within {} s", self.sandbox, limit.as_secs());
        ExecError::new(ErrorKind::Unavailable, text)
    }

    /// Asks for an end, of a workload or of what it does. A host that answers nothing for `limit` is ended itself, with
    /// all that it runs; one that is only busy with `others` has six times as long.
    ///
    /// # Errors
    /// What the host answers.
    pub(crate) async fn ask_for_end(&self, request: &Request, limit: Duration, others: bool) -> Result<(), ExecError> {
        let asked = async {
            let stream = self.connect().await?;
            ask_on::<()>(&stream, request, &[]).await
        };
        tokio::pin!(asked);
        for _ in 0..if others { 6 } else { 1 } {
            if let Ok(answer) = tokio::time::timeout(limit, &mut asked).await {
                return answer;
            }
            if !matches!(tokio::time::timeout(limit / 2, self.answers()).await, Ok(Ok(()))) {
                break;
            }
        }
        tracing::warn!(error = %self.silent(limit), "the host process is killed");
        self.kill().await;
        Ok(())
    }

    /// Every workload it says that it has.
    pub(crate) async fn state(&self) -> Result<HostState, ExecError> {
        self.ask(&Request::Ping, &[]).await
    }

    async fn answers(&self) -> Result<(), ExecError> {
        self.ask::<IgnoredAny>(&Request::Brief, &[]).await.map(|_| ())
    }

    /// The host's process ID, here: it knows itself by another.
    pub(crate) async fn pid(&self) -> Result<u32, ExecError> {
        let stream = self.connect().await?;
        let pid = stream.peer_cred().ok().and_then(|peer| u32::try_from(peer.pid()?).ok());
        pid.filter(|pid| *pid > 0).ok_or_else(|| {
            let text = format!("the kernel does not tell the process of the host of {}", self.sandbox);
            ExecError::new(ErrorKind::Internal, text)
        })
    }

    /// The process that runs, if it answers or not: the kernel tells it of the control socket, or of the cgroup.
    pub(crate) async fn process(&self) -> Option<u32> {
        match tokio::time::timeout(Duration::from_millis(100), self.pid()).await {
            Ok(Ok(pid)) => Some(pid),
            _ => cgroup::members(&self.cgroup).first().copied(),
        }
    }

    /// Starts the process unless it answers already and has workloads, which is for the daemon to know (`shared`). To be
    /// called by one task per sandbox at a time.
    ///
    /// # Errors
    /// When the process does not start, or one that does not answer does not end.
    pub(crate) async fn ensure(
        &self,
        program: &Path,
        spares: &Spares,
        config: &HostConfig,
        shared: bool,
    ) -> Result<(), ExecError> {
        if shared && self.answers().await.is_ok() {
            return Ok(());
        }
        // One that is there and does not answer, or that has nothing to do any more, must not write beside its successor.
        if !self.kill().await {
            let text = format!("an earlier host process of {} does not end; try again in a moment", self.sandbox);
            return Err(ExecError::new(ErrorKind::Unavailable, text));
        }
        cgroup::remove(&self.cgroup);
        self.spawn(program, spares, config).await.map_err(|error| {
            cgroup::remove(&self.cgroup);
            let text = format!("cannot start the host process of {}: {error}", self.sandbox);
            ExecError::new(ErrorKind::Internal, text)
        })?;
        self.answers().await
    }

    async fn spawn(&self, program: &Path, spares: &Spares, config: &HostConfig) -> std::io::Result<()> {
        for dir in [&self.dir, &config.kv_dir] {
            tokio::fs::create_dir_all(dir).await?;
        }
        if rustix::process::geteuid().is_root() {
            cgroup::deny_devices(&self.cgroup)?;
        }
        let (voice, complaints) = complaints::begin(&self.dir)?;
        if let Some(mut spare) = spares.take().await
            && spare.assign(config, voice.as_fd()).await.is_ok()
        {
            if is_ready(spare.stdout()).await {
                return Ok(());
            }
            // It ends when nobody has the other end of its socket, and is not to be in the way of the next one.
            drop(spare);
            self.kill().await;
        }
        let mut child = Command::new(program)
            .arg("serve")
            .arg(serde_json::to_string(config)?)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(voice)
            .process_group(0)
            .spawn()?;
        let ready = match &mut child.stdout {
            Some(stdout) => is_ready(stdout).await,
            None => false,
        };
        if ready {
            // As root, the process that was started has left its place to one in a namespace of its own.
            tokio::spawn(async move { child.wait().await });
            return Ok(());
        }
        let _ = child.kill().await;
        self.kill().await;
        // To the end of what it said.
        let _ = tokio::time::timeout(GONE, complaints).await;
        let said = tokio::fs::read_to_string(self.dir.join("host.log")).await.unwrap_or_default();
        let said = protocol::sentence(said.trim());
        Err(std::io::Error::other(if said.is_empty() { "it ended without a word" } else { &said }))
    }

    /// Takes what a host says that an earlier daemon has started.
    pub(crate) fn listen(&self) {
        if let Err(error) = complaints::listen(&self.dir) {
            tracing::debug!(sandbox = %self.sandbox, %error, "what the host process says is not heard");
        }
    }

    /// Waits until the process is gone and removes its folder and cgroup, and the folder of its stores if it is empty. Ends
    /// what is left in the cgroup.
    pub(crate) async fn clear(&self, kv_dir: &Path) {
        self.gone().await;
        self.kill().await;
        cgroup::remove(&self.cgroup);
        let _ = tokio::fs::remove_dir_all(&self.dir).await;
        // Fails where there are stores.
        let _ = tokio::fs::remove_dir(kv_dir).await;
    }

    /// Lets the process have what its workloads may have together.
    pub(crate) fn limit_memory(&self, workloads: u64) {
        let machine = memory::of_machine();
        cgroup::limit_memory(&self.cgroup, memory::hard(workloads, machine), memory::sockets(workloads, machine));
    }

    /// Waits until no process is in the cgroup, for a while.
    async fn gone(&self) {
        let deadline = tokio::time::Instant::now() + GONE;
        while !cgroup::members(&self.cgroup).is_empty() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends every process in the cgroup, and waits until they are gone: false when they are not in time. Without a cgroup,
    /// the one that has the socket.
    pub(crate) async fn kill(&self) -> bool {
        let deadline = tokio::time::Instant::now() + GONE;
        loop {
            let mut members = cgroup::members(&self.cgroup);
            if members.is_empty() && !rustix::process::geteuid().is_root() {
                members.extend(self.pid().await.ok());
            }
            if members.is_empty() {
                return true;
            }
            for pid in members {
                if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            if tokio::time::Instant::now() > deadline {
                tracing::warn!(sandbox = %self.sandbox, "a host process does not end though it was killed");
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Whether a host comes to stand ready: it writes one line then and closes the pipe; a failed one only closes it.
async fn is_ready(stdout: &mut ChildStdout) -> bool {
    let mut said = String::new();
    let _ = tokio::time::timeout(START, stdout.take(64).read_to_string(&mut said)).await;
    said.trim() == "ready"
}

/// Asks for one thing on `stream` and waits for the answer.
pub(crate) async fn ask_on<T: DeserializeOwned>(
    stream: &UnixStream,
    request: &Request,
    fds: &[BorrowedFd<'_>],
) -> Result<T, ExecError> {
    let away = |error: std::io::Error| {
        ExecError::new(ErrorKind::Unavailable, "the host process of the component went away").caused_by(error)
    };
    protocol::send(stream, request, fds).await.map_err(away)?;
    match protocol::receive_answer(stream, request).await {
        Ok(Some(answer)) => Ok(answer?),
        Ok(None) => Err(away(std::io::ErrorKind::UnexpectedEof.into())),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            Err(ExecError::new(ErrorKind::Internal, "the host's answer is not understood").caused_by(error))
        }
        Err(error) => Err(away(error)),
    }
}
