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

use crate::cgroup;
use crate::protocol::{self, Answer, HostConfig, HostState, Request};

/// Longest time a host may take to stand ready.
const START: Duration = Duration::from_secs(30);
/// Longest time a host may take to be gone after its last workload was deleted.
const GONE: Duration = Duration::from_secs(5);

/// Names a host process; it may run or not.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub sandbox: SandboxId,
    /// `<exec_root>/w/<sandbox>`.
    pub dir: PathBuf,
    pub cgroup: PathBuf,
}

impl Host {
    pub(crate) fn new(exec_root: &Path, instance: &str, sandbox: SandboxId) -> Self {
        // Socket paths hold 107 bytes; long names are told apart by their hash.
        let name = if sandbox.as_str().len() <= 32 {
            sandbox.as_str().to_owned()
        } else {
            hex::encode(&Sha256::digest(sandbox.as_str())[..16])
        };
        // Apart from the containers' cgroups, which their executor sweeps.
        let cgroup = Path::new(&format!("bireme-{instance}-w")).join(&name);
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
        UnixStream::connect(self.socket()).await.map_err(|error| {
            let text = format!("the host process of {} does not answer", self.sandbox);
            ExecError::new(ErrorKind::Unavailable, text).caused_by(error)
        })
    }

    /// Asks for one thing on a connection of its own.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<T, ExecError> {
        let stream = self.connect().await?;
        ask_on(&stream, request, fds).await
    }

    pub(crate) async fn state(&self) -> Result<HostState, ExecError> {
        self.ask(&Request::Ping, &[]).await
    }

    /// Starts the process unless it answers already. To be called by one task per sandbox at a time.
    pub(crate) async fn ensure(&self, program: &Path, config: &HostConfig) -> Result<HostState, ExecError> {
        if let Ok(state) = self.state().await {
            return Ok(state);
        }
        self.spawn(program, config).await.map_err(|error| {
            let text = format!("cannot start the host process of {}: {error}", self.sandbox);
            ExecError::new(ErrorKind::Internal, text)
        })?;
        self.state().await
    }

    async fn spawn(&self, program: &Path, config: &HostConfig) -> std::io::Result<()> {
        for dir in [&self.dir, &config.kv_dir] {
            tokio::fs::create_dir_all(dir).await?;
        }
        let log = std::fs::File::create(self.dir.join("host.log"))?;
        let mut child = Command::new(program)
            .arg("serve")
            .arg(serde_json::to_string(config)?)
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
            // Reaps it when it ends, should this daemon live that long.
            tokio::spawn(async move { child.wait().await });
            return Ok(());
        }
        let _ = child.kill().await;
        let said = tokio::fs::read_to_string(self.dir.join("host.log")).await.unwrap_or_default();
        Err(std::io::Error::other(if said.trim().is_empty() { "it ended without a word" } else { said.trim() }))
    }

    /// Waits until the process is gone and removes its folder and cgroup. Ends what is left in the cgroup.
    pub(crate) async fn clear(&self) {
        let deadline = tokio::time::Instant::now() + GONE;
        while !cgroup::members(&self.cgroup).is_empty() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.kill();
        let deadline = tokio::time::Instant::now() + GONE;
        while !cgroup::members(&self.cgroup).is_empty() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cgroup::remove(&self.cgroup);
        let _ = tokio::fs::remove_dir_all(&self.dir).await;
    }

    /// Ends every process in the cgroup at once.
    pub(crate) fn kill(&self) {
        for pid in cgroup::members(&self.cgroup) {
            if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
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
