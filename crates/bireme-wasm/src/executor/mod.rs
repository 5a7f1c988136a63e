//! [`WasmExecutor`]: the executor of components.

mod check;
mod earlier;
mod load;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bireme_core::clock::now_nanos;
use bireme_core::spec::NetworkMode;
use bireme_core::{
    BoxFuture, ErrorKind, ExecError, Executor, LabelError, Labels, NamesChange, Power, Prepared, Program, Renew,
    Resolver, SandboxId, StoreFolder, Workload, WorkloadId, WorkloadKind, WorkloadSpec,
    executor::{Interface, Known, Programs},
};
use bireme_sys::removal;
use futures::StreamExt as _;
use parking_lot::Mutex as StdMutex;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::compile::{Cache, Compiled};
use crate::host::{self, Host};
use crate::names::Tables;
use crate::protocol::{DAMAGED, HostConfig, Request};
use crate::roster::Roster;
use crate::spare::Spares;
use crate::state::StateFolder;
use crate::user::{self, HOST_UID, Secret};
use crate::workload::{ComponentWorkload, Home, read_exit};
use crate::{cgroup, interface, lacks, stores};
use earlier::{AT_ONCE, STRAYS, follow_later, memory_of};
use load::Run;

/// How long a daemon that has just started waits for answers of all hosts together: nobody can use it until then. Whoever
/// has not answered by then goes on as it is, and is asked in the background.
const AT_START: Duration = Duration::from_secs(5);
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
    spares: Arc<Spares>,
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

impl WasmExecutor {
    /// Touches nothing yet.
    pub fn new(options: WasmOptions) -> Self {
        let cache = Cache::new(options.host.clone(), options.data_root.join("wasm/cache"));
        Self {
            cache,
            spares: Spares::new(options.host.clone()),
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

    fn home(&self, host: Host, turn: Arc<Mutex<Roster>>) -> Home {
        Home { kv_dir: self.kv_dir(&host), tables: Arc::clone(&self.tables), host, turn }
    }

    async fn compiled(&self, program: &Program) -> Result<Compiled, ExecError> {
        let (path, digest) = component(program)?;
        self.cache.get(path, digest).await
    }
}

impl Executor for WasmExecutor {
    fn kind(&self) -> WorkloadKind {
        WorkloadKind::Component
    }

    fn prewarm(&self) {
        self.spares.prewarm();
    }

    fn close(&self) {
        self.spares.end();
        cgroup::remove(&host::parent_cgroup(&self.options.instance));
    }

    fn check<'a>(&'a self, spec: &'a WorkloadSpec, program: &'a Program) -> BoxFuture<'a, Result<(), ExecError>> {
        Box::pin(async move {
            check::refuse_what_components_lack(spec)?;
            let compiled = self.compiled(program).await?;
            check::fits(spec, compiled.facts.trigger)
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
            match self.compiled(program).await?.facts.trigger.of(&spec.bireme).name() {
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
        check::without_effect(spec)
    }

    fn sandbox(&self, spec: &WorkloadSpec) -> SandboxId {
        match (&spec.app, &spec.namespaces.network) {
            (Some(app), NetworkMode::Attached) => SandboxId::parse(&format!("app-{app}")).ok(),
            // Those of one app share ports by their routes here, too.
            (Some(app), NetworkMode::Host) => SandboxId::parse(&format!("host-{app}")).ok(),
            _ => None,
        }
        .unwrap_or_else(|| SandboxId::from(&spec.id))
    }

    fn takes_listeners(&self) -> bool {
        true
    }

    fn takes_over(&self, spec: &WorkloadSpec, published: bool) -> bool {
        // On a network of its own the other has another address, and with an address go the connections from it.
        published || spec.bireme.subscribe.is_some() && spec.namespaces.network == NetworkMode::Host
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

    fn as_renew(&self) -> Option<&dyn Renew> {
        Some(self)
    }

    fn as_programs(&self) -> Option<&dyn Programs> {
        Some(self)
    }

    fn create(&self, work: Prepared) -> BoxFuture<'_, Result<Box<dyn Workload>, ExecError>> {
        Box::pin(async move {
            check::refuse_what_components_lack(&work.spec)?;
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

impl Renew for WasmExecutor {
    fn renew(&self, work: Prepared) -> BoxFuture<'_, Result<(), ExecError>> {
        Box::pin(async move {
            let host = self.host_of(self.sandbox(&work.spec));
            let turn = self.turn(&host);
            // Until the new run is there nobody ends its host.
            let _roster = turn.lock().await;
            let compiled = self.compiled(&work.program).await?;
            let pid = host.pid().await?;
            self.load(&work, &host, &compiled, (pid, Run::Further)).await
        })
    }
}

/// The file of a component, and the digest of its content.
fn component(program: &Program) -> Result<(&Path, &str), ExecError> {
    let Program::Component { path, digest, .. } = program else {
        let text = "a component was expected, and the image holds a root filesystem";
        return Err(ExecError::new(ErrorKind::Internal, text));
    };
    Ok((path, digest))
}

/// Whether a host of the engine called `instance` runs. Blocking.
pub fn runs(instance: &str) -> bool {
    let parent = host::parent_cgroup(instance);
    cgroup::children(&parent).iter().any(|name| !cgroup::members(&parent.join(name)).is_empty())
}

impl Programs for WasmExecutor {
    fn prepare<'a>(
        &'a self,
        program: &'a Program,
        begins: &'a (dyn Fn() + Send + Sync),
    ) -> BoxFuture<'a, Result<(), ExecError>> {
        Box::pin(async move {
            // What its names refuse need not be compiled for that.
            if let Some(why) = self.interface(program).await?.refused {
                return Err(ExecError::new(ErrorKind::Unsupported, why));
            }
            let (path, digest) = component(program)?;
            self.cache.get_telling(path, digest, begins).await.map(|_| ())
        })
    }

    fn retain<'a>(&'a self, kept: &'a HashSet<String>) -> BoxFuture<'a, ()> {
        Box::pin(self.cache.retain(kept))
    }

    fn interface<'a>(&'a self, program: &'a Program) -> BoxFuture<'a, Result<Interface, ExecError>> {
        Box::pin(async move {
            let path = component(program)?.0.to_owned();
            let read = tokio::task::spawn_blocking(move || interface::read(&path)).await;
            read.unwrap_or_else(|error| {
                Err(ExecError::new(ErrorKind::Internal, "cannot read the component").caused_by(error))
            })
        })
    }
}

impl Resolver for WasmExecutor {
    fn names_changed<'a>(&'a self, network: &'a str, change: NamesChange) -> BoxFuture<'a, ()> {
        Box::pin(self.tables.change(network, change))
    }
}
