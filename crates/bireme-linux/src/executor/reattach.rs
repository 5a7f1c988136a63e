//! Containers that an earlier daemon started: found again through their runners, or recorded as ended.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bireme_core::executor::Known;
use bireme_core::{ErrorKind, ExecError, Workload};

use super::workload::{self, LinuxWorkload, Shared};
use super::{LinuxExecutor, client};
use crate::cgroup::Cgroup;
use crate::protocol::{self, Reply, Request};

/// How long a runner may take to answer a daemon that has just started, which nobody can use until then.
const AT_START: Duration = Duration::from_secs(5);

/// How often a runner that did not answer in that time is asked again, once a minute.
const ASKED_AGAIN: u32 = 30;

impl LinuxExecutor {
    /// Follows the runner of a container again, or records the end of one whose runner is gone.
    ///
    /// # Errors
    /// `NotFound` where it neither runs nor left a record of its end.
    /// # Cancel safety
    /// Dropping the future ends nothing that runs.
    pub(super) async fn reattach_now(&self, known: Known<'_>) -> Result<Box<dyn Workload>, ExecError> {
        let cgroup = Cgroup::new(&self.cgroup_path(known.spec));
        let shared = Shared::new(known.spec, &known.state_dir, &known.run_dir, cgroup.clone());
        let asked = client::ask(&known.run_dir, &Request::State);
        match tokio::time::timeout(AT_START, asked).await {
            Ok(Ok(Reply::State(state))) => {
                shared.set_pid(state.pid);
                if let Ok(workload) = LinuxWorkload::watch(Arc::clone(&shared)).await {
                    self.remember(&shared);
                    return Ok(Box::new(workload));
                }
            }
            Ok(_) => {}
            // It may wait for a slow disk. Whoever wants an end of it gets that.
            Err(_) => {
                if let Ok(workload) = LinuxWorkload::watch(Arc::clone(&shared)).await {
                    let id = shared.id();
                    tracing::warn!(workload.id = %id, "the runner of a container does not answer yet; it goes on");
                    tokio::spawn(ask_later(Arc::downgrade(&shared), known.run_dir.clone()));
                    self.remember(&shared);
                    return Ok(Box::new(workload));
                }
            }
        }
        let killed = protocol::socket_file(&known.run_dir).exists() || cgroup.exists();
        let exit = match protocol::read_exit(&known.state_dir) {
            Ok(exit) => exit,
            Err(_) if killed => workload::runner_killed(),
            Err(_) => {
                let message = format!(
                    "container {} is neither running nor has it left a record of its end",
                    known.spec.id.short()
                );
                return Err(ExecError::new(ErrorKind::NotFound, message));
            }
        };
        shared.clear_up_after_runner(exit).await;
        Ok(Box::new(LinuxWorkload::ended(shared)))
    }
}

/// Asks for the process of a container whose runner did not answer when the daemon started.
async fn ask_later(shared: Weak<Shared>, run_dir: PathBuf) {
    const INTERVAL: Duration = Duration::from_secs(60);
    for _ in 0..ASKED_AGAIN {
        let next = tokio::time::Instant::now() + INTERVAL;
        let asked = tokio::time::timeout(INTERVAL, client::ask(&run_dir, &Request::State)).await;
        match shared.upgrade() {
            Some(shared) if shared.is_alive() => {
                if let Ok(Ok(Reply::State(state))) = asked {
                    return shared.set_pid(state.pid);
                }
            }
            _ => return,
        }
        // A refusal comes at once: a runner has few places for connections, and others may have them all.
        tokio::time::sleep_until(next).await;
    }
}
