//! The daemon's side: starts runners, finds them again, and clears up after those that were killed.

mod client;
mod top;
mod workload;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bireme_core::clock::now_nanos;
use bireme_core::executor::Known;
use bireme_core::spec::{NamespaceMode, NetworkMode, WorkloadKind};
use bireme_core::{
    BoxFuture, ErrorKind, ExecError, Executor, Exit, Prepared, Program, SandboxId, Workload, WorkloadId, WorkloadSpec,
};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use self::workload::{LinuxWorkload, Shared};
use crate::cgroup::Cgroup;
use crate::protocol::{self, Joins, Reply, Request, RunnerConfig};

/// How a [`LinuxExecutor`] is set up.
#[derive(Clone, Debug)]
pub struct LinuxOptions {
    /// The `bireme-runner` binary.
    pub runner: PathBuf,
    /// A short name of this engine, unique on the machine: its cgroups are below `/bireme-<instance>`. Letters, digits
    /// and `-`.
    pub instance: String,
    /// The folder where runners keep compiled seccomp filters.
    pub filters: PathBuf,
    /// How long an attached client may take nothing while the container waits for it; then that client is cut off.
    /// 30 seconds by default.
    pub attach_stall: Duration,
}

impl LinuxOptions {
    /// Options with every default.
    pub fn new(runner: impl Into<PathBuf>, instance: impl Into<String>, filters: impl Into<PathBuf>) -> Self {
        let (runner, instance, filters) = (runner.into(), instance.into(), filters.into());
        Self { runner, instance, filters, attach_stall: Duration::from_secs(30) }
    }
}

/// How long a runner may take to answer a daemon that has just started, which nobody can use until then.
const AT_START: Duration = Duration::from_secs(5);

/// How often a runner that did not answer in that time is asked again, once a minute.
const ASKED_AGAIN: u32 = 30;

/// How long a runner may take to make a container ready, a thousand of them at once on a small machine too.
const CREATE_LIMIT: Duration = Duration::from_secs(120);

/// How long a runner may take to be executed, and how many are at once.
const SPAWN_LIMIT: Duration = Duration::from_secs(20);
const SPAWNING: usize = 32;

/// How long the end of an earlier attempt at the same container is waited for.
const CLEARED_WITHIN: Duration = Duration::from_secs(20);

/// Runs Linux containers, each by a `bireme-runner` of its own. To be used inside a tokio runtime.
pub struct LinuxExecutor {
    options: LinuxOptions,
    /// A copy of the runner that nobody can write to any more: a container sees the binary that made it as
    /// `/proc/self/exe` for a moment, and must not be able to change what starts the next one (CVE-2019-5736).
    program: Arc<OwnedFd>,
    /// Places for the threads that start runners.
    spawning: Arc<Semaphore>,
    /// Those alive, for namespaces that one shares with another.
    workloads: Mutex<HashMap<WorkloadId, Weak<Shared>>>,
    /// Attempts that were given up and are being cleared away.
    given_up: GivenUp,
}

type GivenUp = Arc<Mutex<HashMap<WorkloadId, JoinHandle<()>>>>;

impl LinuxExecutor {
    /// Reads the runner's binary once; one that is replaced later is used by the next executor.
    ///
    /// # Errors
    /// `Invalid` for a bad instance name; `Unavailable` when the binary cannot be read.
    pub fn new(options: LinuxOptions) -> Result<Self, ExecError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if options.instance.is_empty() || options.instance.len() > 32 || !options.instance.bytes().all(plain) {
            let message = format!("instance name {:?} must be 1 to 32 letters, digits and '-'", options.instance);
            return Err(ExecError::new(ErrorKind::Invalid, message));
        }
        let program = bireme_sys::program::read_only_copy(&options.runner, "bireme-runner").map_err(|error| {
            let message = format!(
                "cannot load the container runner {}; set BIREME_LIBEXEC to its folder",
                options.runner.display()
            );
            ExecError::new(ErrorKind::Unavailable, message).caused_by(error)
        })?;
        let (program, spawning) = (Arc::new(program), Arc::new(Semaphore::new(SPAWNING)));
        Ok(Self { options, program, spawning, workloads: Mutex::default(), given_up: GivenUp::default() })
    }

    /// The cgroup below which all of this engine's are, unless a workload names another parent.
    fn parent_cgroup(&self) -> String {
        format!("/bireme-{}", self.options.instance)
    }

    fn cgroup_path(&self, spec: &WorkloadSpec) -> String {
        match spec.resources.cgroup_parent.as_deref().map(|parent| parent.trim_matches('/')) {
            None | Some("") => format!("{}/{}", self.parent_cgroup(), spec.id),
            Some(parent) => format!("/{parent}/{}", spec.id),
        }
    }

    fn remember(&self, shared: &Arc<Shared>) {
        let mut workloads = self.workloads.lock();
        workloads.retain(|_, known| known.strong_count() > 0);
        workloads.insert(shared.id().clone(), Arc::downgrade(shared));
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

    async fn create_now(&self, work: Prepared) -> Result<Box<dyn Workload>, ExecError> {
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
            let ended = tokio::task::spawn_blocking(move || end_whole(&stranger)).await;
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

    async fn reattach_now(&self, known: Known<'_>) -> Result<Box<dyn Workload>, ExecError> {
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

    async fn sweep_now(&self, known: &[WorkloadId], resting: &[&WorkloadSpec]) {
        let parent = self.parent_cgroup();
        let keep: HashSet<String> = known.iter().map(|id| id.as_str().to_owned()).collect();
        // Those below a parent of their own, which is not ours to look through.
        let elsewhere = resting.iter().map(|spec| self.cgroup_path(spec));
        let elsewhere: Vec<String> = elsewhere.filter(|path| !path.starts_with(&format!("{parent}/"))).collect();
        let swept = tokio::task::spawn_blocking(move || {
            let ours = Cgroup::new(&parent).children().into_iter().filter(|name| !keep.contains(name));
            for path in ours.map(|name| format!("{parent}/{name}")).chain(elsewhere) {
                let cgroup = Cgroup::new(&path);
                if !cgroup.exists() {
                    continue;
                }
                match end(&cgroup) {
                    Ok(()) => tracing::info!(cgroup = %path, "removed a container of an earlier run"),
                    Err(error) => {
                        tracing::warn!(cgroup = %path, %error, "cannot remove a container of an earlier run")
                    }
                }
            }
        });
        let _ = swept.await;
    }
}

impl Executor for LinuxExecutor {
    fn kind(&self) -> WorkloadKind {
        WorkloadKind::Container
    }

    fn check<'a>(&'a self, spec: &'a WorkloadSpec, _program: &'a Program) -> BoxFuture<'a, Result<(), ExecError>> {
        Box::pin(async move {
            if spec.bireme.allow.is_some() {
                // Accepted and not enforced, it would be a permission that is silently absent.
                return Err(ExecError::new(
                    ErrorKind::Unsupported,
                    format!(
                        "label bireme.allow is not offered for containers yet: put {} on an internal network instead",
                        spec.name
                    ),
                ));
            }
            Ok(crate::spec::check(spec)?)
        })
    }

    fn warnings(&self, spec: &WorkloadSpec) -> Vec<String> {
        crate::spec::warnings(spec)
    }

    fn sandbox(&self, spec: &WorkloadSpec) -> SandboxId {
        match &spec.namespaces.network {
            NetworkMode::Workload(other) => SandboxId::from(other),
            _ => SandboxId::from(&spec.id),
        }
    }

    fn takes_listeners(&self) -> bool {
        false
    }

    fn offers_exec(&self) -> bool {
        true
    }

    fn prewarm(&self) {
        // Not waited for: a start that fails in between has lost nothing.
        drop(tokio::task::spawn_blocking(crate::cgroup::warm));
    }

    fn close(&self) {
        Cgroup::new(&self.parent_cgroup()).remove_empty();
    }

    fn create(&self, work: Prepared) -> BoxFuture<'_, Result<Box<dyn Workload>, ExecError>> {
        Box::pin(self.create_now(work))
    }

    fn reattach<'a>(&'a self, known: Known<'a>) -> BoxFuture<'a, Result<Box<dyn Workload>, ExecError>> {
        Box::pin(self.reattach_now(known))
    }

    fn sweep<'a>(&'a self, known: &'a [WorkloadId], resting: &'a [&'a WorkloadSpec]) -> BoxFuture<'a, ()> {
        Box::pin(self.sweep_now(known, resting))
    }

    fn end<'a>(&'a self, id: &'a WorkloadId) -> BoxFuture<'a, Result<(), ExecError>> {
        let (own, name) = (format!("{}/{id}", self.parent_cgroup()), id.to_string());
        let instance = self.options.instance.clone();
        let ended = tokio::task::spawn_blocking(move || {
            // Its parent stands in its record.
            let elsewhere = crate::cgroup::called(|called| called == name).into_iter();
            let mut all: Vec<String> = elsewhere.filter(|path| may_be_of(path, &instance)).collect();
            all.push(own);
            all.iter().map(|path| Cgroup::new(path)).filter(Cgroup::exists).try_for_each(|cgroup| end(&cgroup))
        });
        Box::pin(async move {
            let ended = ended.await.unwrap_or_else(|error| Err(io::Error::other(error)));
            ended.map_err(|error| ExecError::new(ErrorKind::Internal, format!("cannot end what runs of {id}: {error}")))
        })
    }
}

/// Whether a cgroup may be of the engine called `instance`: the parent of its own, or one that somebody has named. An engine on
/// a copy of the data root has containers with the same IDs.
fn may_be_of(path: &str, instance: &str) -> bool {
    let of_an_engine = |name: &str| name.strip_prefix("bireme-").filter(|rest| rest.len() == 8).map(str::to_owned);
    path.split('/').find_map(of_an_engine).is_none_or(|of| of == instance)
}

/// Whether a container of the engine called `instance` runs that has one of these IDs. Blocking.
pub fn runs(instance: &str, ids: &HashSet<String>) -> bool {
    crate::cgroup::called(|name| ids.contains(name)).iter().any(|path| may_be_of(path, instance))
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

/// Ends all that is in a cgroup, and removes it. Blocking.
fn end(cgroup: &Cgroup) -> io::Result<()> {
    cgroup.kill(Duration::from_secs(10)).and_then(|()| remove(cgroup))
}

/// As [`end`], and nothing goes on in the background. Blocking.
fn end_whole(cgroup: &Cgroup) -> io::Result<()> {
    cgroup.kill(Duration::from_secs(10))?;
    let until = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        match cgroup.remove() {
            Err(error) if error.kind() == io::ErrorKind::TimedOut && std::time::Instant::now() < until => {}
            other => return other,
        }
    }
}

/// Removes a cgroup that nothing is in. Where it has very many below it, that goes on in the background. Blocking.
fn remove(cgroup: &Cgroup) -> io::Result<()> {
    match cgroup.remove() {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            let cgroup = cgroup.clone();
            let on = move || {
                for _ in 0..MOST_ROUNDS {
                    if !cgroup.remove().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut) {
                        return;
                    }
                }
            };
            std::thread::Builder::new().name("clearing".to_owned()).spawn(on).map(drop)
        }
        other => other,
    }
}

/// How often a cgroup with very many below it is gone through, some seconds each time.
const MOST_ROUNDS: usize = 1000;

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

fn exit_now(code: i32, error: impl Into<String>) -> Exit {
    Exit { code, oom_killed: false, finished_at: now_nanos(), error: Some(error.into()) }
}
