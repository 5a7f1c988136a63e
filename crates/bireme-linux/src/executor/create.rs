//! From a prepared workload to a container whose init waits: its runner is spawned, told what to make, and heard.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bireme_core::spec::{NamespaceMode, NetworkMode};
use bireme_core::{ErrorKind, ExecError, Prepared, Program, Workload, WorkloadId, WorkloadSpec};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::workload::{LinuxWorkload, Shared};
use super::{LinuxExecutor, ending};
use crate::cgroup::Cgroup;
use crate::protocol::{self, Joins, Reply, RunnerConfig};

/// How long a runner may take to make a container ready, a thousand of them at once on a small machine too.
const CREATE_LIMIT: Duration = Duration::from_secs(120);

/// How long a runner may take to be executed.
const SPAWN_LIMIT: Duration = Duration::from_secs(20);

/// How long the end of an earlier attempt at the same container is waited for.
const CLEARED_WITHIN: Duration = Duration::from_secs(20);

/// Attempts that were given up, by the workload, and the tasks that clear them away.
pub(super) type GivenUp = Arc<Mutex<HashMap<WorkloadId, JoinHandle<()>>>>;

impl LinuxExecutor {
    /// Makes a container up to where its init waits.
    ///
    /// # Errors
    /// `Invalid` where the specification refuses it, `Conflict` where a workload whose namespace is shared does not run,
    /// `Unavailable` where the runner cannot be started or is not ready in time, and what the runner itself refuses.
    /// # Cancel safety
    /// Dropping the future kills the runner, and what it has made is cleared away in the background; the next attempt at the
    /// same container waits for that.
    pub(super) async fn create_now(&self, work: Prepared) -> Result<Box<dyn Workload>, ExecError> {
        if !matches!(work.program, Program::Layers { .. }) {
            let message = "a Linux container needs image layers, not a component; the image's platform must be linux";
            return Err(ExecError::new(ErrorKind::Invalid, message));
        }
        crate::spec::check(&work.spec)?;
        let joins = self.joins(&work.spec, work.network.is_some())?;
        let config = RunnerConfig {
            cgroup: self.cgroup_path(&work.spec),
            joins,
            filters: self.options.filters.clone(),
            stall_ms: u64::try_from(self.options.attach_stall.as_millis()).unwrap_or(u64::MAX),
            spec: work.spec,
            program: work.program,
            state_dir: work.state_dir,
            run_dir: work.run_dir,
            log: work.log,
            network: work.network,
            etc: work.etc,
        };
        let earlier = self.given_up.lock().remove(&config.spec.id);
        if let Some(earlier) = earlier {
            // It ends whatever is in the cgroup that this one is about to use.
            let _ = tokio::time::timeout(CLEARED_WITHIN, earlier).await;
        }
        // Nor must what runs of it unknown to anybody go on beside it, on the same files.
        let stranger = Cgroup::new(&config.cgroup);
        if stranger.exists() {
            let ended = tokio::task::spawn_blocking(move || ending::end_whole(&stranger)).await;
            if let Ok(Err(error)) = ended {
                let text = format!(
                    "something that runs in the cgroup of container {} cannot be ended: end what is in {} by hand",
                    config.spec.id.short(),
                    config.cgroup
                );
                return Err(ExecError::new(ErrorKind::Conflict, text).caused_by(error));
            }
        }
        // A record of an earlier run must not be taken for this one's.
        let _ = std::fs::remove_file(protocol::exit_file(&config.state_dir));
        let _ = std::fs::remove_file(protocol::socket_file(&config.run_dir));
        let mut starting = Starting {
            child: Some(self.spawn(&config).await?),
            cgroup: Cgroup::new(&config.cgroup),
            id: config.spec.id.clone(),
            given_up: Arc::clone(&self.given_up),
        };
        let ready = tokio::time::timeout(CREATE_LIMIT, starting.ready(&config.run_dir)).await;
        let reply = ready.unwrap_or_else(|_| {
            let message = format!(
                "container {} was not ready within {} s and is ended: some process may have stopped it; start it again",
                config.spec.id.short(),
                CREATE_LIMIT.as_secs()
            );
            Err(ExecError::new(ErrorKind::Unavailable, message))
        })?;
        let state = match reply {
            Reply::State(state) => state,
            Reply::Failed(failure) => {
                starting.reap();
                return Err(failure.into());
            }
            _ => return Err(ExecError::new(ErrorKind::Internal, "the runner answered create with something else")),
        };
        let shared = Shared::new(&config.spec, &config.state_dir, &config.run_dir, Cgroup::new(&config.cgroup));
        shared.set_pid(state.pid);
        let workload = LinuxWorkload::watch(Arc::clone(&shared)).await?;
        starting.reap();
        self.remember(&shared);
        Ok(Box::new(workload))
    }

    /// The init process of another workload whose namespace is to be shared.
    fn joined(&self, id: &WorkloadId) -> Result<u32, ExecError> {
        let known = self.workloads.lock().get(id).and_then(Weak::upgrade);
        known.and_then(|shared| shared.pid()).ok_or_else(|| {
            let message =
                format!("cannot join the namespace of container {}: it is not running; start it first", id.short());
            ExecError::new(ErrorKind::Conflict, message)
        })
    }

    fn joins(&self, spec: &WorkloadSpec, has_network: bool) -> Result<Joins, ExecError> {
        let of = |mode: &NamespaceMode| match mode {
            NamespaceMode::Workload(id) => self.joined(id).map(Some),
            NamespaceMode::Private | NamespaceMode::Host => Ok(None),
        };
        let network = match &spec.namespaces.network {
            NetworkMode::Workload(id) if !has_network => Some(self.joined(id)?),
            _ => None,
        };
        let modes = &spec.namespaces;
        let (pid, ipc, uts) = (of(&modes.pid)?, of(&modes.ipc)?, of(&modes.uts)?);
        Ok(Joins { network, pid, ipc, uts })
    }

    /// Starts a runner, on a thread of its own: executing a program waits for whoever watches it (fanotify(7)), which a
    /// container with `CAP_SYS_ADMIN` may, and which would have the whole daemon wait.
    async fn spawn(&self, config: &RunnerConfig) -> Result<Child, ExecError> {
        let id = config.spec.id.short().to_owned();
        let fail = move |what: &str, error: io::Error| {
            ExecError::new(ErrorKind::Unavailable, format!("cannot {what} for container {id}")).caused_by(error)
        };
        let text = serde_json::to_vec(config).map_err(|error| fail("describe the work", error.into()))?;
        write_private(&protocol::config_file(&config.run_dir), &text)
            .map_err(|error| fail("write the runner's configuration", error))?;
        let log =
            private(&protocol::log_file(&config.run_dir)).map_err(|error| fail("open the runner's log", error))?;
        // Its working directory tells it where everything is; so neither its arguments nor its environment, which a
        // container may be able to see, say anything about the host.
        let program = Arc::clone(&self.program);
        let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
        command
            .arg0("bireme-runner")
            .arg(config.spec.id.as_str())
            .env_clear()
            .current_dir(&config.run_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        let late = || {
            let text = format!(
                "cannot start the runner for container {} within {} s: a container with CAP_SYS_ADMIN may keep programs from \
                 being executed; remove it and try again",
                config.spec.id.short(),
                SPAWN_LIMIT.as_secs()
            );
            ExecError::new(ErrorKind::Unavailable, text)
        };
        let places = Arc::clone(&self.spawning).acquire_owned();
        let Ok(Ok(place)) = tokio::time::timeout(SPAWN_LIMIT, places).await else { return Err(late()) };
        let (done, answer) = tokio::sync::oneshot::channel();
        let runtime = tokio::runtime::Handle::current();
        let spawn = move || {
            let (_place, _program, _entered) = (place, program, runtime.enter());
            if let Err(Ok(mut child)) = done.send(command.spawn()) {
                // Nobody waits for it any more.
                let _ = child.start_kill();
            }
        };
        // Not of the runtime, which waits for its own at its end.
        let thread = std::thread::Builder::new().name("spawning".to_owned()).spawn(spawn);
        thread.map_err(|error| fail("start the runner", error))?;
        match tokio::time::timeout(SPAWN_LIMIT, answer).await {
            Ok(Ok(spawned)) => spawned.map_err(|error| fail("start the runner", error)),
            Ok(Err(_)) | Err(_) => Err(late()),
        }
    }
}

/// A runner that has not answered yet; ended if it is dropped before [`Starting::reap`].
struct Starting {
    child: Option<Child>,
    cgroup: Cgroup,
    id: WorkloadId,
    given_up: GivenUp,
}

impl Starting {
    async fn ready(&mut self, run_dir: &Path) -> Result<Reply, ExecError> {
        let stdout = self.child.as_mut().and_then(|child| child.stdout.take());
        let mut line = String::new();
        if let Some(stdout) = stdout {
            let _ = BufReader::new(stdout).read_line(&mut line).await;
        }
        serde_json::from_str(&line).map_err(|error| {
            let said = std::fs::read_to_string(protocol::log_file(run_dir)).unwrap_or_default();
            let said = said.lines().last().map(|line| format!(": {line}")).unwrap_or_default();
            ExecError::new(ErrorKind::Internal, format!("the container's runner ended before it was ready{said}"))
                .caused_by(error)
        })
    }

    /// Lets it live; its end is only waited for so that no zombie stays.
    fn reap(&mut self) {
        if let Some(mut child) = self.child.take() {
            tokio::spawn(async move {
                let _ = child.wait().await;
            });
        }
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // With what it has made that is in no cgroup yet.
            let group = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
            if let Some(group) = group {
                let _ = kill_process_group(group, Signal::KILL);
            }
            let _ = child.start_kill();
            let cgroup = self.cgroup.clone();
            let cleared = tokio::spawn(async move {
                let _ = child.wait().await;
                let _ = tokio::task::spawn_blocking(move || {
                    let _ = cgroup.kill(Duration::from_secs(10));
                    let _ = cgroup.remove();
                })
                .await;
            });
            let mut given_up = self.given_up.lock();
            given_up.retain(|_, earlier| !earlier.is_finished());
            given_up.insert(self.id.clone(), cleared);
        }
    }
}

/// Environment variables hold secrets.
fn write_private(path: &Path, text: &[u8]) -> io::Result<()> {
    use std::io::Write as _;
    private(path)?.write_all(text)
}

/// An empty file that is for its owner alone.
fn private(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}
