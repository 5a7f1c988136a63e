//! One host process, seen from the daemon: starting it, asking it, clearing it away.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bireme_core::{ErrorKind, ExecError, SandboxId};
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::process::Command;

use crate::protocol::{self, Answer, Brief, HostConfig, HostState, Request};
use crate::{cgroup, memory};

/// Longest time a host may take to stand ready.
const START: Duration = Duration::from_secs(30);
/// Longest time a host may take to be gone after its last workload was deleted.
const GONE: Duration = Duration::from_secs(5);
/// Longest time a host may take to answer what it answers at once, on a machine under load.
const ANSWER: Duration = Duration::from_secs(60);

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
            let stream = self.connect().await?;
            ask_on(&stream, request, fds).await
        };
        if matches!(request, Request::Wait { .. }) {
            return asked.await;
        }
        tokio::time::timeout(ANSWER, asked).await.unwrap_or_else(|_| Err(self.silent(ANSWER)))
    }

    fn silent(&self, limit: Duration) -> ExecError {
        let text = format!("the host process of {} does not answer within {} s", self.sandbox, limit.as_secs());
        ExecError::new(ErrorKind::Unavailable, text)
    }

    /// Asks for an end, of a workload or of what it does. A host that answers nothing for `limit` is ended itself, with
    /// all that it runs; one that is only busy with others has six times as long.
    ///
    /// # Errors
    /// What the host answers.
    pub(crate) async fn ask_for_end(&self, request: &Request, limit: Duration) -> Result<(), ExecError> {
        let asked = async {
            let stream = self.connect().await?;
            ask_on::<()>(&stream, request, &[]).await
        };
        tokio::pin!(asked);
        for _ in 0..6 {
            if let Ok(answer) = tokio::time::timeout(limit, &mut asked).await {
                return answer;
            }
            if !matches!(tokio::time::timeout(limit / 2, self.brief()).await, Ok(Ok(_))) {
                break;
            }
        }
        tracing::warn!(error = %self.silent(limit), "the host process is killed");
        self.kill().await;
        Ok(())
    }

    /// Every workload it has.
    pub(crate) async fn state(&self) -> Result<HostState, ExecError> {
        self.ask(&Request::Ping, &[]).await
    }

    pub(crate) async fn brief(&self) -> Result<Brief, ExecError> {
        self.ask(&Request::Brief, &[]).await
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

    /// Starts the process unless it answers already. To be called by one task per sandbox at a time.
    pub(crate) async fn ensure(&self, program: &Path, config: &HostConfig) -> Result<Brief, ExecError> {
        if let Ok(brief) = self.brief().await {
            return Ok(brief);
        }
        // One that is there and does not answer must not write beside its successor.
        self.kill().await;
        self.spawn(program, config).await.map_err(|error| {
            let text = format!("cannot start the host process of {}: {error}", self.sandbox);
            ExecError::new(ErrorKind::Internal, text)
        })?;
        self.brief().await
    }

    async fn spawn(&self, program: &Path, config: &HostConfig) -> std::io::Result<()> {
        for dir in [&self.dir, &config.kv_dir] {
            tokio::fs::create_dir_all(dir).await?;
        }
        let log = std::fs::File::create(self.dir.join("host.log"))?;
        let mut child = Command::new(program)
            .arg("serve")
            .arg(serde_json::to_string(config)?)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .process_group(0)
            .spawn()?;
        let mut said = String::new();
        if let Some(mut stdout) = child.stdout.take() {
            // The host writes one line when it stands ready and closes the pipe; a failed one only closes it.
            let _ = tokio::time::timeout(START, stdout.read_to_string(&mut said)).await;
        }
        if said.trim() == "ready" {
            // As root, the process that was started has left its place to one in a namespace of its own.
            tokio::spawn(async move { child.wait().await });
            return Ok(());
        }
        let _ = child.kill().await;
        self.kill().await;
        let said = tokio::fs::read_to_string(self.dir.join("host.log")).await.unwrap_or_default();
        Err(std::io::Error::other(if said.trim().is_empty() { "it ended without a word" } else { said.trim() }))
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
        cgroup::limit_memory(&self.cgroup, memory::hard(workloads, memory::of_machine()));
    }

    /// Waits until no process is in the cgroup, for a while.
    async fn gone(&self) {
        let deadline = tokio::time::Instant::now() + GONE;
        while !cgroup::members(&self.cgroup).is_empty() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends every process in the cgroup, and waits until they are gone. Without a cgroup, the one that has the socket.
    pub(crate) async fn kill(&self) {
        let mut members = cgroup::members(&self.cgroup);
        if members.is_empty() && !rustix::process::geteuid().is_root() {
            members.extend(self.pid().await.ok());
        }
        if members.is_empty() {
            return;
        }
        for pid in members {
            if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        self.gone().await;
    }
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
    let answer = protocol::receive::<Answer>(stream).await.map_err(away)?;
    let (answer, _) = answer.ok_or_else(|| away(std::io::ErrorKind::UnexpectedEof.into()))?;
    serde_json::from_value(answer?)
        .map_err(|error| ExecError::new(ErrorKind::Internal, "the host's answer is not understood").caused_by(error))
}
