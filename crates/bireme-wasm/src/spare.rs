//! A host process that is started before anybody knows what it is for: most of what a host does until it stands ready is the same
//! for all, and is done while the engine makes networks and folders.
//!
//! There is one at most, and it waits for some seconds: most clients start at once what they create.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::UnixStream;
use tokio::process::{ChildStdout, Command};
use tokio::task::JoinHandle;

use crate::protocol::{self, HostConfig};

/// How long a spare host waits to be asked for.
const WAITS: Duration = Duration::from_secs(10);

/// A host process that waits for its configuration. It ends when this is dropped.
pub(crate) struct Spare {
    socket: UnixStream,
    stdout: ChildStdout,
}

impl Spare {
    fn start(program: &Path) -> std::io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut child = Command::new(program)
            .arg("spare")
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let stdout = child.stdout.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
        // As root, the process that was started has left its place to one in a namespace of its own.
        tokio::spawn(async move { child.wait().await });
        Ok(Self { socket: UnixStream::from_std(ours)?, stdout })
    }

    /// Says what it is for, and where to complain.
    ///
    /// # Errors
    /// When it is not there any more.
    pub(crate) async fn assign(&self, config: &HostConfig, voice: BorrowedFd<'_>) -> std::io::Result<()> {
        protocol::send(&self.socket, config, &[voice]).await
    }

    /// Where it tells that it stands ready. Until this is dropped, it goes on: nobody can name its process, and one that comes
    /// late must not take another's place.
    pub(crate) fn stdout(&mut self) -> &mut ChildStdout {
        &mut self.stdout
    }
}

/// The spare host of an engine.
pub(crate) struct Spares {
    program: PathBuf,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    spare: Option<JoinHandle<std::io::Result<Spare>>>,
    /// Grows with each use, so that what ends it later knows whether somebody asked since.
    uses: u64,
}

impl Spares {
    pub(crate) fn new(program: PathBuf) -> Arc<Self> {
        Arc::new(Self { program, waiting: Mutex::default() })
    }

    /// Has one ready for some seconds from now. Returns at once.
    pub(crate) fn prewarm(self: &Arc<Self>) {
        let uses = {
            let mut waiting = self.waiting.lock();
            waiting.uses += 1;
            if waiting.spare.is_none() {
                let program = self.program.clone();
                waiting.spare = Some(tokio::spawn(async move { Spare::start(&program) }));
            }
            waiting.uses
        };
        let spares = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(WAITS).await;
            if let Some(spares) = spares.upgrade() {
                let mut waiting = spares.waiting.lock();
                if waiting.uses == uses {
                    waiting.spare = None;
                }
            }
        });
    }

    /// The one that waits, if there is one.
    pub(crate) async fn take(&self) -> Option<Spare> {
        let spare = self.waiting.lock().spare.take()?;
        match spare.await {
            Ok(Ok(spare)) => Some(spare),
            Ok(Err(error)) => {
                tracing::debug!(%error, "no host process could be started ahead");
                None
            }
            Err(_) => None,
        }
    }

    /// Ends it.
    pub(crate) fn end(&self) {
        self.waiting.lock().spare = None;
    }
}
