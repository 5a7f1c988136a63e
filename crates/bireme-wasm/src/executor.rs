//! [`WasmExecutor`]: the executor of components.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bireme_core::clock::now_nanos;
use bireme_core::spec::{Blkio, NetworkMode, Protocol};
use bireme_core::{
    BoxFuture, ErrorKind, ExecError, Executor, LabelError, Labels, NamedNetwork, NamesChange, Power, Prepared, Program,
    Resolver, SandboxId, StoreFolder, Workload, WorkloadId, WorkloadKind, WorkloadSpec, executor::Known,
};
use bireme_sys::removal;
use futures::StreamExt as _;
use parking_lot::Mutex as StdMutex;
use serde::de::IgnoredAny;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::compile::{Cache, Compiled};
use crate::host::{self, Host};
use crate::names::Tables;
use crate::protocol::{DAMAGED, FdUse, HostConfig, HostState, Load, Log, Request, Trigger, WorkloadState};
use crate::roster::Roster;
use crate::state::StateFolder;
use crate::user::{self, HOST_UID, Secret};
use crate::workload::{ComponentWorkload, Home, read_exit, release};
use crate::{cgroup, lacks, memory, mounts, stores};

/// How long a daemon that has just started waits for answers of all hosts together: nobody can use it until then. Whoever
/// has not answered by then goes on as it is, and is asked in the background.
const AT_START: Duration = Duration::from_secs(5);
/// How long hosts are asked in the background for what they should not have.
const STRAYS: Duration = Duration::from_secs(15);
/// How often a host that did not answer when the daemon started is asked again, a minute each time.
const ASKED_AGAIN: u32 = 30;
/// Hosts that are looked at in one go when the daemon starts.
const AT_ONCE: usize = 64;
/// How long somebody waits for the removal of stores.
const REMOVED_WITHIN: Duration = Duration::from_secs(20);
/// File in the run folder of a workload: bytes that it may have, for the next daemon.
const MEMORY: &str = "memory";

/// What a [`WasmExecutor`] works with.
#[derive(Clone, Debug)]
pub struct WasmOptions {
    /// The `bireme-wasm-host` binary.
    pub host: PathBuf,
    /// Kept across restarts of the machine, such as `/var/lib/bireme`.
    pub data_root: PathBuf,
    /// Emptied by a restart of the machine, such as `/run/bireme`. At most some 50 bytes, since sockets live below it.
    pub exec_root: PathBuf,
    /// Tells the cgroups of several engines on one machine apart; a safe file name.
    pub instance: String,
}

/// Runs components in host processes, one per sandbox.
pub struct WasmExecutor {
    options: WasmOptions,
    cache: Cache,
    tables: Arc<Tables>,
    /// One task at a time starts or ends the process of a sandbox, and knows what it has to run. By the name of its folder,
    /// which is all that is left of a sandbox for whoever finds it there.
    turns: StdMutex<HashMap<PathBuf, Arc<Mutex<Roster>>>>,
    /// User namespaces that map the owners of mounted folders, by owner and user of the host; the last few.
    namespaces: Mutex<HashMap<(u32, u32, u32), Arc<OwnedFd>>>,
    /// Until when the hosts of an earlier daemon may answer, from the first that is asked.
    answers_until: OnceLock<Instant>,
    /// Read when the first host is started.
    secret: OnceLock<std::io::Result<Secret>>,
}

/// Most user namespaces that are kept for the next workload with the same owners.
const NAMESPACES: usize = 64;

impl WasmExecutor {
    /// Touches nothing yet.
    pub fn new(options: WasmOptions) -> Self {
        let cache = Cache::new(options.host.clone(), options.data_root.join("wasm/cache"));
        Self {
            cache,
            options,
            tables: Arc::default(),
            turns: StdMutex::default(),
            namespaces: Mutex::default(),
            answers_until: OnceLock::new(),
            secret: OnceLock::new(),
        }
    }

    fn turn(&self, host: &Host) -> Arc<Mutex<Roster>> {
        let mut turns = self.turns.lock();
        // Workloads hold theirs: what nobody holds is of a sandbox that is gone.
        turns.retain(|_, turn| Arc::strong_count(turn) > 1 || turn.try_lock().is_ok_and(|roster| !roster.is_empty()));
        Arc::clone(turns.entry(host.dir.clone()).or_default())
    }

    /// How the folders of the stores of these sandboxes are called.
    fn store_names(&self, sandboxes: &[SandboxId]) -> std::collections::BTreeSet<String> {
        let name = |sandbox: &SandboxId| {
            self.host_of(sandbox.clone()).dir.file_name().map(|name| name.to_string_lossy().into_owned())
        };
        sandboxes.iter().filter_map(name).collect()
    }

    fn host_of(&self, sandbox: SandboxId) -> Host {
        Host::new(&self.options.exec_root, &self.options.instance, sandbox)
    }

    fn uid_of(&self, host: &Host) -> u32 {
        let secret = self.secret.get_or_init(|| {
            let path = self.options.data_root.join("wasm/secret");
            Secret::at(&path).or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "the users of hosts are others after a restart");
                Secret::random()
            })
        });
        // Without any randomness nothing secret can be made on this machine.
        secret.as_ref().map_or(HOST_UID, |secret| user::of(secret, &self.options.instance, &host.sandbox))
    }

    fn kv_dir(&self, host: &Host) -> PathBuf {
        self.options.data_root.join("wasm/kv").join(host.dir.file_name().unwrap_or_default())
    }

    fn config(&self, host: &Host, work: &Prepared) -> HostConfig {
        HostConfig {
            sandbox: host.sandbox.clone(),
            dir: host.dir.clone(),
            kv_dir: self.kv_dir(host),
            uid: self.uid_of(host),
            netns: work.network.as_ref().map(|place| place.netns.clone()),
            dns: work.network.as_ref().map(|place| place.dns.clone()).unwrap_or_default(),
            cgroup: host.cgroup.clone(),
            owner_uid: rustix::process::geteuid().as_raw(),
        }
    }

    async fn create_in_turn(
        &self,
        work: &Prepared,
        host: &Host,
        compiled: &Compiled,
        roster: &mut Roster,
    ) -> Result<u32, ExecError> {
        let id = &work.spec.id;
        if let Err(error) = host.ensure(&self.options.host, &self.config(host, work), !roster.is_empty()).await {
            if roster.is_empty() {
                // What it wrote of itself is in the error.
                host.clear(&self.kv_dir(host)).await;
            }
            return Err(error);
        }
        let memory = memory::of_spec(&work.spec, compiled.facts.trigger.name() == "command");
        let loaded = async {
            let pid = host.pid().await?;
            self.tables.follow(host, pid, &work.networks).await?;
            host.limit_memory(roster.memory().saturating_add(memory));
            self.load(work, host, compiled, pid).await?;
            Ok(pid)
        };
        let loaded = loaded.await;
        if loaded.is_ok() {
            roster.add(id.clone(), memory);
            // Without it the next daemon takes the most that the specification allows.
            let _ = std::fs::write(work.run_dir.join(MEMORY), memory.to_string());
        } else if !roster.has(id) {
            // It may be loaded all the same.
            release(host, id, &self.kv_dir(host), &self.tables, roster).await;
        }
        loaded
    }

    /// The namespace that makes the files of the workload's user the host's; `None` where there is nothing to map, or
    /// the machine cannot.
    async fn namespace_of(&self, spec: &WorkloadSpec, host: u32) -> Option<Arc<OwnedFd>> {
        if spec.mounts.is_empty() || !rustix::process::geteuid().is_root() {
            return None;
        }
        let owner = mounts::owner(&spec.user);
        let key = (owner.0, owner.1, host);
        let mut known = self.namespaces.lock().await;
        if let Some(namespace) = known.get(&key) {
            return Some(Arc::clone(namespace));
        }
        match mounts::user_namespace(&self.options.host, owner, host).await {
            Ok(namespace) => {
                let namespace = Arc::new(namespace);
                if known.len() >= NAMESPACES {
                    known.clear();
                }
                known.insert(key, Arc::clone(&namespace));
                Some(namespace)
            }
            Err(error) => {
                tracing::warn!(%error, "components can write only to folders that everyone may write to");
                None
            }
        }
    }

    /// Hands a component over to its host, the process `pid`.
    async fn load(&self, work: &Prepared, host: &Host, compiled: &Compiled, pid: u32) -> Result<(), ExecError> {
        // An earlier daemon may have started it, with another secret.
        let uid = user::of_process(pid).unwrap_or_else(|| self.uid_of(host));
        let mut uses = Vec::new();
        let mut owned: Vec<OwnedFd> = Vec::new();
        let mut add = |fd: OwnedFd, what: FdUse| {
            uses.push(what);
            owned.push(fd);
        };
        let failed = |what: &str, path: &Path, error: std::io::Error| {
            ExecError::new(ErrorKind::Internal, format!("cannot {what} {}", path.display())).caused_by(error)
        };
        add(
            self.cache.open(compiled).map_err(|error| failed("open the compiled code in", self.cache.dir(), error))?,
            FdUse::Code,
        );
        let exit = StateFolder::open(&work.state_dir).and_then(|folder| folder.new_exit());
        add(exit.map_err(|error| failed("record an end in", &work.state_dir, error))?.into(), FdUse::Exit);
        let mut log = Log { file: None, max_size: work.log.max_size, max_files: work.log.max_files };
        if let Some(path) = &work.log.path {
            let folder = lend_log(path, work.log.max_files, uid);
            let folder = folder.map_err(|error| failed("open the log", path, error))?;
            add(folder, FdUse::LogFolder);
            log.file = path.file_name().map(|name| name.to_string_lossy().into_owned());
        }
        let namespace = self.namespace_of(&work.spec, uid).await;
        for mount in &work.spec.mounts {
            let what = FdUse::Folder { target: mount.target.clone(), read_only: mount.read_only };
            let namespace = namespace.as_ref().map(|fd| fd.as_fd());
            add(mounts::open(mount, namespace, uid, memory::of_instance(&work.spec))?, what);
        }
        let tcp = || work.listeners.iter().filter(|listener| listener.protocol() == Protocol::Tcp);
        for listener in tcp() {
            if let Some(socket) = &listener.socket {
                let copy = socket.try_clone().map_err(|error| failed("share the socket of", Path::new(""), error))?;
                add(copy, FdUse::Listener(listener.host));
            }
        }
        let mut listeners: Vec<SocketAddr> = tcp().map(|listener| listener.host).collect();
        if work.spec.namespaces.network == NetworkMode::Host {
            // On the machine's own network the ports of the component are the machine's; the host may not bind low ones.
            for port in work.spec.ports.iter().filter(|port| port.protocol == Protocol::Tcp) {
                let address = SocketAddr::from(([0, 0, 0, 0], port.number));
                let socket = std::net::TcpListener::bind(address).map_err(|error| {
                    let text = format!("cannot listen on port {} of the machine", port.number);
                    ExecError::new(ErrorKind::Conflict, text).caused_by(error)
                })?;
                add(socket.into(), FdUse::Listener(address));
                listeners.push(address);
            }
        }
        let load = Load {
            spec: work.spec.clone(),
            facts: compiled.facts.clone(),
            network: work.network.clone(),
            listeners,
            networks: work.networks.clone(),
            log,
            fds: uses,
        };
        let fds: Vec<_> = owned.iter().map(|fd| fd.as_fd()).collect();
        if fds.len() > crate::protocol::MAX_FDS {
            let text =
                format!("a component can have at most {} mounts and ports together", crate::protocol::MAX_FDS - 3);
            return Err(ExecError::new(ErrorKind::Invalid, text));
        }
        host.ask::<IgnoredAny>(&Request::Load(Box::new(load)), &fds).await.map(|_| ())
    }
}

/// Opens the folder of a log file and lets the user `uid` write, rotate and remove the log files in it, and nothing else.
fn lend_log(path: &Path, files: u32, uid: u32) -> std::io::Result<OwnedFd> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(std::io::ErrorKind::NotFound.into());
    };
    StateFolder::open(folder)?.lend(name, files, uid)
}

impl Executor for WasmExecutor {
    fn kind(&self) -> WorkloadKind {
        WorkloadKind::Component
    }

    fn close(&self) {
        cgroup::remove(&host::parent_cgroup(&self.options.instance));
    }

    fn check<'a>(&'a self, spec: &'a WorkloadSpec, program: &'a Program) -> BoxFuture<'a, Result<(), ExecError>> {
        Box::pin(async move {
            refuse_what_components_lack(spec)?;
            let compiled = self.compiled(program).await?;
            let invalid = |text: &str| Err(ExecError::new(ErrorKind::Invalid, text));
            let trigger = compiled.facts.trigger.name();
            if trigger != "http" && spec.labels.contains_key("bireme.http.route") {
                return invalid(&format!(
                    "label bireme.http.route does not fit: this component exports the {trigger} trigger, not http"
                ));
            }
            if trigger != "command" && spec.open_stdin {
                let text = "a component that answers requests has no standard input, only a command has: leave out \
                            stdin_open (docker run without -i)";
                return Err(ExecError::new(ErrorKind::Unsupported, text));
            }
            match (compiled.facts.trigger, &spec.bireme.subscribe) {
                (Trigger::RedisP2 | Trigger::RedisP3, None)
                    if spec.bireme.requested.contains_key("bireme.redis.subscribe") =>
                {
                    invalid(
                        "the image requests the channel of its label bireme.redis.subscribe: confirm it with \
                         bireme.allow-requested=true (bireme run --allow-requested), or set bireme.redis.subscribe to \
                         redis://host:port/CHANNEL",
                    )
                }
                (Trigger::RedisP2 | Trigger::RedisP3, None) => invalid(
                    "this component handles Redis messages, and no label says which: set bireme.redis.subscribe to \
                     redis://host:port/CHANNEL",
                ),
                (Trigger::RedisP2 | Trigger::RedisP3, Some(_)) | (_, None) => Ok(()),
                (other, Some(_)) => invalid(&format!(
                    "label bireme.redis.subscribe does not fit: this component exports the {} trigger, not \
                     inbound-redis",
                    other.name()
                )),
            }
        })
    }

    fn stores<'a>(&'a self, known: &'a [SandboxId]) -> BoxFuture<'a, Vec<StoreFolder>> {
        Box::pin(async move {
            let used = self.store_names(known);
            let folder = self.options.data_root.join("wasm/kv");
            let found = tokio::task::spawn_blocking(move || stores::list(&folder)).await.unwrap_or_default();
            let with_use = |store: StoreFolder| StoreFolder { in_use: used.contains(&store.name), ..store };
            found.into_iter().map(with_use).collect()
        })
    }

    fn remove_store<'a>(&'a self, name: &'a str, known: &'a [SandboxId]) -> BoxFuture<'a, Result<bool, ExecError>> {
        Box::pin(async move {
            let Ok(sandbox) = SandboxId::parse(name) else { return Ok(false) };
            if self.store_names(known).contains(name) {
                return Ok(false);
            }
            let host = self.host_of(sandbox);
            let turn = self.turn(&host);
            let roster = turn.lock().await;
            // A workload that came meanwhile has its host by the time it opens a store.
            if !roster.is_empty() {
                return Ok(false);
            }
            let path = self.options.data_root.join("wasm/kv").join(name);
            if !path.try_exists().unwrap_or(true) {
                return Ok(false);
            }
            // As deep and as large as its host made it.
            let removed = tokio::task::spawn_blocking(move || {
                let emptied = removal::empty_tree_until(&path, std::time::Instant::now() + REMOVED_WITHIN)?;
                if emptied { std::fs::remove_dir(&path).map(|()| true) } else { Ok(false) }
            });
            match removed.await.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
                Ok(true) => Ok(true),
                Ok(false) => {
                    let text = format!(
                        "the key-value stores of {name} are large, and not all of them could be removed within {} s: \
                         remove them again",
                        REMOVED_WITHIN.as_secs()
                    );
                    Err(ExecError::new(ErrorKind::Unavailable, text))
                }
                Err(error) => {
                    let text = format!("cannot remove the key-value stores of {name}");
                    Err(ExecError::new(ErrorKind::Internal, text).caused_by(error))
                }
            }
        })
    }

    fn check_ports<'a>(&'a self, spec: &'a WorkloadSpec, program: &'a Program) -> BoxFuture<'a, Result<(), ExecError>> {
        Box::pin(async move {
            match self.compiled(program).await?.facts.trigger.name() {
                "http" => Ok(()),
                trigger => Err(ExecError::new(
                    ErrorKind::Invalid,
                    format!(
                        "{} cannot publish ports: it exports the {trigger} trigger, and nothing in it would answer; leave \
                         out the ports (-p, -P), or export wasi:http",
                        spec.name
                    ),
                )),
            }
        })
    }

    fn warnings(&self, spec: &WorkloadSpec) -> Vec<String> {
        let limits = &spec.resources;
        let without_effect = [
            (limits.nano_cpus.is_some() || limits.cpu_quota.is_some(), "a limit of processor time per period"),
            (limits.cpu_shares.is_some(), "CPU shares"),
            (limits.cpuset.is_some() || limits.cpuset_mems.is_some(), "a set of processors"),
            (limits.memory_reservation.is_some(), "a memory reservation"),
            (limits.pids.is_some(), "a limit of processes"),
            (limits.blkio != Blkio::default(), "a share of block devices"),
        ];
        let told = without_effect.iter().filter(|(set, _)| *set).map(|(_, what)| {
            format!(
                "{what} has no effect on a component: use the memory limit (of one instance), bireme.cpu-time and \
                 bireme.instances"
            )
        });
        told.collect()
    }

    fn sandbox(&self, spec: &WorkloadSpec) -> SandboxId {
        match (&spec.app, &spec.namespaces.network) {
            (Some(app), NetworkMode::Attached) => {
                SandboxId::parse(&format!("app-{app}")).unwrap_or_else(|_| SandboxId::from(&spec.id))
            }
            _ => SandboxId::from(&spec.id),
        }
    }

    fn takes_listeners(&self) -> bool {
        true
    }

    fn offers_exec(&self) -> bool {
        false
    }

    fn needs_command(&self) -> bool {
        false
    }

    fn mounts_at_root(&self) -> bool {
        true
    }

    /// A host creates beside its other work, and what it began it ends.
    fn completes_create(&self) -> bool {
        true
    }

    fn labels(
        &self,
        image: &BTreeMap<String, String>,
        request: &BTreeMap<String, String>,
    ) -> Result<Labels, LabelError> {
        Labels::of_component(image, request)
    }

    fn lacks(&self, name: &str, power: Power) -> ExecError {
        lacks::refusal(name, power)
    }

    fn as_resolver(&self) -> Option<&dyn Resolver> {
        Some(self)
    }

    fn create(&self, work: Prepared) -> BoxFuture<'_, Result<Box<dyn Workload>, ExecError>> {
        Box::pin(async move {
            refuse_what_components_lack(&work.spec)?;
            let host = self.host_of(self.sandbox(&work.spec));
            let turn = self.turn(&host);
            let mut roster = turn.lock().await;
            let since = now_nanos();
            let mut compiled = self.compiled(&work.program).await?;
            let mut made = self.create_in_turn(&work, &host, &compiled, &mut roster).await;
            if made.as_ref().is_err_and(|error| error.message().contains(DAMAGED)) {
                self.cache.discard(&compiled).await;
                compiled = self.compiled(&work.program).await?;
                made = self.create_in_turn(&work, &host, &compiled, &mut roster).await;
            }
            let pid = made.inspect_err(|_| {
                if let Ok(folder) = StateFolder::open(&work.state_dir) {
                    folder.remove_exit();
                }
            })?;
            drop(roster);
            let (id, home) = (work.spec.id.clone(), self.home(host, turn));
            let workload = ComponentWorkload::live(id, home, (pid, since), false, work.state_dir);
            Ok(Box::new(workload) as Box<dyn Workload>)
        })
    }

    fn reattach<'a>(&'a self, known: Known<'a>) -> BoxFuture<'a, Result<Box<dyn Workload>, ExecError>> {
        Box::pin(async move {
            let id = known.spec.id.clone();
            let host = self.host_of(self.sandbox(known.spec));
            let until = *self.answers_until.get_or_init(|| Instant::now() + AT_START);
            let turn = self.turn(&host);
            let mut roster = turn.lock().await;
            let found = match tokio::time::timeout_at(until, self.find(&host, &known)).await {
                Ok(found) => found,
                // A busy host, or one that was taken over, is not ended for that, nor do others wait for it.
                Err(_) => host.process().await.map(|pid| {
                    tracing::warn!(workload.id = %id, sandbox = %host.sandbox, "a host process does not answer yet; it goes on");
                    tokio::spawn(follow_later(Arc::clone(&self.tables), host.clone(), pid, known.networks.clone()));
                    (pid, true)
                }),
            };
            if let Some((pid, started)) = found {
                if roster.is_empty() {
                    host.listen();
                }
                roster.add(id.clone(), memory_of(&known));
                drop(roster);
                let home = self.home(host, turn);
                let workload = ComponentWorkload::live(id, home, (pid, 0), started, known.state_dir);
                return Ok(Box::new(workload) as Box<dyn Workload>);
            }
            drop(roster);
            match read_exit(&known.state_dir) {
                Some(exit) => Ok(Box::new(ComponentWorkload::ended(id, self.home(host, turn), exit, known.state_dir))),
                None => {
                    let text = format!("component {} has neither a host process nor a record of its end", id.short());
                    Err(ExecError::new(ErrorKind::NotFound, text))
                }
            }
        })
    }

    fn sweep<'a>(&'a self, known: &'a [WorkloadId], _resting: &'a [&'a WorkloadSpec]) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            // What was found again, and created since, is on the rosters.
            // Who was silent has had its time; whoever answers needs little.
            let least = Instant::now() + Duration::from_secs(1);
            let until = self.answers_until.get().map_or(Instant::now() + AT_START, |until| least.max(*until));
            futures::stream::iter(self.sandboxes())
                .for_each_concurrent(AT_ONCE, |sandbox| self.sweep_host(sandbox, known, until))
                .await;
        })
    }

    fn end<'a>(&'a self, id: &'a WorkloadId) -> BoxFuture<'a, Result<(), ExecError>> {
        Box::pin(async move {
            let stays = |host: &Host| {
                let text =
                    format!("the host process of {} does not end what runs of {id}; try again later", host.sandbox);
                ExecError::new(ErrorKind::Unavailable, text)
            };
            for sandbox in self.sandboxes() {
                let host = self.host_of(sandbox);
                let mut roster = self.turn(&host).lock_owned().await;
                if !roster.has(id) {
                    continue;
                }
                if roster.count() > 1 {
                    let delete = Request::Delete { id: id.clone() };
                    let deleted = tokio::time::timeout(STRAYS, host.ask::<()>(&delete, &[])).await;
                    deleted.map_err(|_| stays(&host))??;
                    roster.remove(id);
                    host.limit_memory(roster.memory());
                } else if host.kill().await {
                    roster.remove(id);
                    host.clear(&self.kv_dir(&host)).await;
                    self.tables.forget(&host.sandbox);
                } else {
                    return Err(stays(&host));
                }
            }
            Ok(())
        })
    }
}

/// Whether a host of the engine called `instance` runs. Blocking.
pub fn runs(instance: &str) -> bool {
    let parent = host::parent_cgroup(instance);
    cgroup::children(&parent).iter().any(|name| !cgroup::members(&parent.join(name)).is_empty())
}

/// Puts those of `known` on the roster of a host that it runs and that are on none, as their records cannot be read.
fn take_up(roster: &mut Roster, state: &HostState, known: &[WorkloadId]) {
    for workload in &state.workloads {
        if known.contains(&workload.id) && !roster.has(&workload.id) {
            // What it may have stands in its record.
            roster.add(workload.id.clone(), u64::MAX);
        }
    }
}

/// Has a host delete what is neither on its roster nor `known`.
async fn delete_strays(host: &Host, roster: &mut Roster, known: &[WorkloadId]) {
    let state = match host.state().await {
        Ok(state) => state,
        Err(error) => {
            return tracing::warn!(sandbox = %host.sandbox, %error, "a host process does not tell what it runs");
        }
    };
    take_up(roster, &state, known);
    host.limit_memory(roster.memory());
    let strays = state.workloads.into_iter().filter(|workload| !roster.has(&workload.id));
    let delete = |stray: WorkloadState| async move {
        let _ = host.ask::<()>(&Request::Delete { id: stray.id }, &[]).await;
    };
    futures::stream::iter(strays).for_each_concurrent(AT_ONCE, delete).await;
}

/// Has the process `pid` of a host that did not answer in time know the names on `networks`, once it does.
async fn follow_later(tables: Arc<Tables>, host: Host, pid: u32, networks: Vec<NamedNetwork>) {
    for _ in 0..ASKED_AGAIN {
        if host.process().await != Some(pid) {
            return;
        }
        match tables.follow(&host, pid, &networks).await {
            Ok(()) => return,
            Err(error) => tracing::debug!(sandbox = %host.sandbox, %error, "a host process is not told of names yet"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Bytes that a workload of an earlier daemon may have.
fn memory_of(known: &Known<'_>) -> u64 {
    let most = memory::of_spec(known.spec, false);
    let recorded = std::fs::read_to_string(known.run_dir.join(MEMORY)).ok().and_then(|text| text.parse().ok());
    recorded.unwrap_or(most).min(most)
}

impl Resolver for WasmExecutor {
    fn names_changed<'a>(&'a self, network: &'a str, change: NamesChange) -> BoxFuture<'a, ()> {
        Box::pin(self.tables.change(network, change))
    }
}

impl WasmExecutor {
    fn home(&self, host: Host, turn: Arc<Mutex<Roster>>) -> Home {
        Home { kv_dir: self.kv_dir(&host), tables: Arc::clone(&self.tables), host, turn }
    }

    /// The sandboxes of all hosts of this engine that there may be: the folder of one may be gone while its processes are
    /// not, and the other way about.
    fn sandboxes(&self) -> Vec<SandboxId> {
        let mut names = cgroup::children(&host::parent_cgroup(&self.options.instance));
        let folders = std::fs::read_dir(self.options.exec_root.join("w")).into_iter().flatten().flatten();
        names.extend(folders.filter_map(|folder| folder.file_name().into_string().ok()));
        names.iter().filter_map(|name| SandboxId::parse(name).ok()).collect()
    }

    /// The process and whether it was started, of a workload that an earlier daemon has loaded.
    async fn find(&self, host: &Host, known: &Known<'_>) -> Option<(u32, bool)> {
        let id = &known.spec.id;
        let started = host.ask::<Option<bool>>(&Request::Known { id: id.clone() }, &[]).await.ok()??;
        let pid = host.pid().await.ok()?;
        if let Err(error) = self.tables.follow(host, pid, &known.networks).await {
            tracing::warn!(workload.id = %id, %error, "a component was not told of changed names");
        }
        Some((pid, started))
    }

    /// Ends whatever nobody knows of in a host that an earlier daemon has started. What there should be is known by now, and
    /// not asked of the host. What is not done by `until` goes on in the background, and what is started or ended in this
    /// host meanwhile waits for that.
    async fn sweep_host(&self, sandbox: SandboxId, known: &[WorkloadId], until: Instant) {
        let host = self.host_of(sandbox);
        let mut roster = self.turn(&host).lock_owned().await;
        if roster.is_empty()
            && !known.is_empty()
            && let Ok(Ok(state)) = tokio::time::timeout_at(until, host.state()).await
        {
            take_up(&mut roster, &state, known);
        }
        if roster.is_empty() {
            host.kill().await;
            host.clear(&self.kv_dir(&host)).await;
            self.tables.forget(&host.sandbox);
            return;
        }
        host.limit_memory(roster.memory());
        let known = known.to_vec();
        let cleared = tokio::spawn(async move {
            // All of it in one time: whoever has taken it over may name strays without end.
            if tokio::time::timeout(STRAYS, delete_strays(&host, &mut roster, &known)).await.is_err() {
                tracing::warn!(sandbox = %host.sandbox, "a host process does not tell what it runs; it goes on");
            }
        });
        let _ = tokio::time::timeout_at(until, cleared).await;
    }

    async fn compiled(&self, program: &Program) -> Result<Compiled, ExecError> {
        let Program::Component { path, digest } = program else {
            let text = "a component was expected, and the image holds a root filesystem";
            return Err(ExecError::new(ErrorKind::Internal, text));
        };
        self.cache.get(path, digest).await
    }
}

/// Refuses what can be asked of a container and what no component can have.
fn refuse_what_components_lack(spec: &WorkloadSpec) -> Result<(), ExecError> {
    let refuse = |text: &str| Err(ExecError::new(ErrorKind::Unsupported, text));
    if spec.tty {
        return refuse("a component has no terminal: leave out tty (docker run without -t)");
    }
    if spec.security.privileged {
        return refuse("a component cannot be privileged: grant what it needs with mounts and bireme.allow");
    }
    if !spec.security.cap_add.is_empty() {
        return refuse("a component has no Linux capabilities: leave out cap_add");
    }
    if !spec.security.devices.is_empty() {
        return refuse("a component cannot be given devices: leave out devices");
    }
    if !spec.security.sysctls.is_empty() {
        return refuse("a component has no kernel settings of its own: leave out sysctls");
    }
    Ok(())
}
