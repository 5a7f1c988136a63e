//! The engine itself: what exists, found by name, and every request that is no more than a command to an owner.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bireme_core::clock::now_nanos;
use bireme_core::executor::{Known, LogTarget};
use bireme_core::spec::{MountSource, NamespaceMode, Namespaces, NetworkMode, Port, Signal, WorkloadKind};
use bireme_core::{
    BoxFuture, Executor, InvocationStats, ProcessTable, Program, Resolver, SandboxId, Stats, StoreFolder, Workload,
    WorkloadId, WorkloadSpec,
};
use bireme_image::{Image, ImageStore, Platform};
use bireme_net::{Keep, Net};
use bireme_sys::removal;
use futures::StreamExt as _;
use futures::stream::{self, Stream};
use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::actor::{self, Command, WorkloadActor};
use crate::attach::AttachSession;
use crate::clearing::Clearing;
use crate::container::{Handle, MutableState};
use crate::event::{Event, EventQuery, Events};
use crate::lifecycle::Operation;
use crate::log::{self, LogStream};
use crate::network::{Networks, finds_names, named_networks};
use crate::record::Kind;
use crate::request::{
    Attach, ContainerFilter, CreateRequest, CreateVolume, LogQuery, LogRequest, ModeRequest, NetworkModeRequest,
    RemoveRequest, StopRequest, Update, WaitCondition,
};
use crate::resolve::{self, VolumeNeed};
use crate::restart;
use crate::state_store::{StateStore, Sync};
use crate::unreadable::{AllUnreadable, Unreadable};
use crate::view::{Config, Ended, MountKind, MountPoint, State, Status, WorkloadView};
use crate::volume::Volumes;
use crate::{EngineError, bounds, exec, health, log_details};

/// What an engine is made of.
pub struct EngineOptions {
    pub data_root: PathBuf,
    pub exec_root: PathBuf,
    /// Marks everything of this engine on the machine: eight hexadecimal digits.
    pub instance: String,
    pub images: ImageStore,
    pub net: Net,
    /// One per kind.
    pub executors: Vec<Arc<dyn Executor>>,
    /// The log driver and options of workloads that name none.
    pub log: LogRequest,
}

/// What is called by a name.
enum Found {
    Known(Arc<Handle>),
    Unreadable(Unreadable),
}

/// A handle on the engine; clones are the same engine.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    options: EngineOptions,
    store: StateStore,
    events: Events,
    index: RwLock<Index>,
    execs: Mutex<HashMap<String, exec::Entry>>,
    networks: Networks,
    volumes: Volumes,
    /// What creates that are under way rely on, by the workload that comes of them.
    claims: Mutex<HashMap<String, Claims>>,
    tasks: TaskTracker,
    cancel: CancellationToken,
    clearing: Clearing,
    unreadable: AllUnreadable,
}

#[derive(Default)]
struct Index {
    by_id: BTreeMap<String, Arc<Handle>>,
    /// Also names of workloads that are being created, which have no handle yet.
    names: HashMap<String, String>,
}

impl Index {
    /// What the workload before the `/` of `name` knows by the link behind it.
    fn linked_as(&self, name: &str) -> Option<&Arc<Handle>> {
        let (parent, alias) = name.split_once('/')?;
        let parent = self.names.get(parent).and_then(|id| self.by_id.get(id))?.view();
        let link = parent.links.iter().find(|link| link.alias == alias)?;
        self.by_id.get(link.to.as_str())
    }
}

/// What nobody may remove although no record tells yet who has it.
#[derive(Default)]
struct Claims {
    image: String,
    volumes: HashSet<String>,
}

/// A workload that was just created.
#[derive(Clone, Debug)]
pub struct Created {
    pub id: WorkloadId,
    pub warnings: Vec<String>,
}

/// Below the folders of workloads and volumes: what is being removed. No workload or volume can be called so.
pub(crate) const REMOVED: &str = ".removed";

/// How long what was set aside before is cleared away until the engine starts, and how long a removal clears away before it
/// is answered. What is left of it then goes in the background.
const CLEARED_AT_START: Duration = Duration::from_secs(5);
pub(crate) const CLEARED_WITHIN: Duration = Duration::from_secs(20);

/// Notes on creates that are under way: the volumes of each that are its own.
const CREATING: &str = "creating";

/// How often a whole copy of the database is written.
const BACKUP_EVERY: Duration = Duration::from_secs(3600);

/// How often a published port is tried to be taken that another program had when the engine started.
const RETAKEN_EACH: Duration = Duration::from_secs(2);

/// The folders of one workload.
pub(crate) struct Dirs {
    pub(crate) state: PathBuf,
    pub(crate) run: PathBuf,
}

impl Dirs {
    pub(crate) async fn make(&self) -> Result<(), EngineError> {
        for path in [&self.state, &self.run] {
            make_dir(path, 0o700)?;
        }
        Ok(())
    }
}

fn make_dir(path: &Path, mode: u32) -> Result<(), EngineError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(|source| EngineError::File { path: path.to_owned(), source })
}

/// Makes a folder that nobody else may enter, and mends one that an older version left open.
fn close_dir(path: &Path) -> Result<(), EngineError> {
    make_dir(path, 0o700)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
        .map_err(|source| EngineError::File { path: path.to_owned(), source })
}

/// 64 random hexadecimal digits.
pub(crate) fn random_hex() -> String {
    WorkloadId::from_bytes(rand::random()).as_str().to_owned()
}

/// Whether `labels` fulfil one value of a label filter: `key` or `key=value`.
pub(crate) fn has_label(labels: &BTreeMap<String, String>, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|have| have == value),
        None => labels.contains_key(wanted),
    }
}

pub(crate) fn log_target(config: &Config) -> LogTarget {
    let option = |key: &str| config.log.options.get(key);
    LogTarget {
        path: config.log_path.clone(),
        max_size: option("max-size").and_then(|text| parse_size(text)),
        max_files: option("max-file").and_then(|text| text.parse().ok()).unwrap_or(1),
    }
}

/// Reads `10m`, `1g`, `500k`, `1024`, in powers of 1024 as Docker does.
fn parse_size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len());
    let shift = match &lower[digits..] {
        "" | "b" => 0,
        "k" | "kb" => 10,
        "m" | "mb" => 20,
        "g" | "gb" => 30,
        _ => return None,
    };
    lower[..digits].parse::<u64>().ok().filter(|n| *n > 0)?.checked_shl(shift)
}

impl Engine {
    /// Opens the engine: remembers, finds again what runs, clears away what nobody knows, restarts what its policy says.
    ///
    /// # Errors
    /// When the database, the folders or the networks cannot be used. A single workload that cannot be found again is
    /// recorded as ended, never an error.
    pub async fn open(options: EngineOptions) -> Result<Self, EngineError> {
        let cleared_by = Instant::now() + CLEARED_AT_START;
        for folder in ["containers", "volumes"] {
            close_dir(&options.data_root.join(folder))?;
            let removed = options.data_root.join(folder).join(REMOVED);
            close_dir(&removed)?;
            // Before anything is to be remembered: a disk may be full of it. The folders themselves stay as marks until
            // it is forgotten what they were.
            for path in entries(&removed) {
                match removal::empty_tree_until(&path, cleared_by) {
                    Ok(true) => {}
                    // Whatever was running has its say first; [`Self::remove_orphans`] goes on.
                    Ok(false) => tracing::warn!(path = %path.display(), "a removal that was cut short takes long"),
                    Err(error) => {
                        tracing::warn!(path = %path.display(), %error, "a removal that was cut short could not be completed");
                    }
                }
            }
        }
        close_dir(&options.data_root.join(CREATING))?;
        close_dir(&options.exec_root.join("c"))?;
        let store = StateStore::open(&options.data_root)?;
        let volumes = Volumes::new(store.volumes()?);
        let inner = Inner {
            options,
            volumes,
            events: Events::new(),
            index: RwLock::default(),
            execs: Mutex::default(),
            networks: Networks::default(),
            claims: Mutex::default(),
            tasks: TaskTracker::new(),
            cancel: CancellationToken::new(),
            clearing: Clearing::default(),
            unreadable: AllUnreadable::default(),
            store,
        };
        let engine = Self { inner: Arc::new(inner) };
        engine.recover().await?;
        let kept = engine.clone();
        engine.spawn(async move {
            let mut interval = tokio::time::interval(BACKUP_EVERY);
            loop {
                interval.tick().await;
                let images = kept.images().clone();
                if let Ok(Err(error)) = tokio::task::spawn_blocking(move || images.back_up()).await {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "no copy of the image database could be made"
                    );
                }
                if let Err(error) = kept.store().back_up().await {
                    tracing::warn!(error = &error as &dyn std::error::Error, "no copy of the database could be made");
                }
            }
        });
        Ok(engine)
    }

    async fn recover(&self) -> Result<(), EngineError> {
        let mut keep = Keep::default();
        let (networks, mut unread) = self.store().networks()?;
        for network in networks {
            let (id, name) = (network.id.clone(), network.name.clone());
            match self.network_list().adopt(network) {
                Ok(spec) => keep.networks.extend(spec),
                Err(error) => {
                    tracing::error!(id, name, error = &error as &dyn std::error::Error, "a network cannot be taken up");
                }
            }
        }
        // These are made anew.
        unread.retain(|(_, name)| !crate::network::is_predefined(name));
        self.network_list().note_unreadable(&unread);
        keep.untouched_networks = unread.into_iter().map(|(id, _)| id).collect();
        let mut found = Vec::new();
        let (workloads, unreadable) = self.store().workloads::<Config, MutableState>()?;
        let mut workloads: Vec<_> =
            workloads.into_iter().map(|(name, config, mutable)| (name, config, mutable, None)).collect();
        let mut held = Vec::new();
        for one in unreadable {
            if let Ok(config) = serde_json::from_str::<Config>(&one.config) {
                let mutable = MutableState::as_far_as_it_goes(&one.mutable);
                // Some of its places may be of a form that is not known here.
                keep.untouched.extend(self.executor(config.spec.kind).map(|executor| executor.sandbox(&config.spec)));
                held.extend(one.addresses());
                workloads.push((one.name.clone(), config, mutable, Some(one.why.clone())));
                self.unreadable().add(Unreadable { known: true, ..one });
                continue;
            }
            // Where its processes live, and what they have there.
            keep.untouched.extend(WorkloadId::parse(&one.id).ok().map(|id| SandboxId::from(&id)));
            keep.untouched.extend(one.app().and_then(|app| SandboxId::parse(&format!("app-{app}")).ok()));
            held.extend(one.addresses());
            self.index_write(|index| index.names.insert(one.name.clone(), one.id.clone()));
            self.unreadable().add(one);
        }
        for (name, config, mut mutable, why) in workloads {
            let Some(executor) = self.executor(config.spec.kind) else { continue };
            if !mutable.state.status.is_alive() {
                for endpoint in &mut mutable.endpoints {
                    endpoint.ipv4 = None;
                    endpoint.ipv6 = None;
                }
                mutable.ports.clear();
            }
            let (handle, commands) = Handle::new(Arc::new(config), &name, &mutable, executor, why);
            self.index_write(|index| {
                index.names.insert(name.clone(), handle.id().to_owned());
                index.by_id.insert(handle.id().to_owned(), handle.clone());
            });
            if mutable.state.status.is_alive() {
                let endpoints = self.network_list().adopt_place(&handle, &mutable).await;
                self.net().set_upstream(&handle.executor.sandbox(&handle.config.spec), &handle.config.spec.dns.servers);
                keep.endpoints.extend(endpoints);
                // Also of one that was taken off its last network: it may be put on another, and others may join it.
                if matches!(handle.config.spec.namespaces.network, NetworkMode::None | NetworkMode::Attached) {
                    keep.sandboxes.push(handle.executor.sandbox(&handle.config.spec));
                }
                keep.forwards.extend(self.forwards_of(&handle, &mutable));
            }
            found.push((handle, commands, name, mutable));
        }
        self.network_list().take_addresses(&held);
        keep.handed = self.network_list().handed();
        let swept = self.net().sweep(keep).await?;
        for (id, why) in swept.left_out {
            tracing::error!(
                id = id.as_str(),
                why,
                "a network cannot be made and is left out: mend that and start what is on it again, or remove the network"
            );
            self.network_list().leave_out(id.as_str(), why);
        }
        for (forward, reason) in &swept.refused {
            tracing::warn!(?forward, reason, "a published port could not be taken up again");
        }
        for (forward, reason) in &swept.taken {
            tracing::warn!(?forward, reason, "a published port is another program's, and is taken up once it is free");
        }
        if !swept.taken.is_empty() {
            let engine = self.clone();
            self.spawn(async move {
                while !matches!(engine.net().retake_ports().await, Ok(0)) {
                    tokio::time::sleep(RETAKEN_EACH).await;
                }
            });
        }
        for endpoint in &swept.detached {
            // As a disconnect leaves it that an earlier engine was killed over.
            match self.net().attach(endpoint).await {
                Ok(_) => {
                    tracing::info!(workload.id = endpoint.owner, "a workload that had lost an interface has it again")
                }
                Err(error) => tracing::warn!(
                    workload.id = endpoint.owner,
                    error = &error as &dyn std::error::Error,
                    "a workload has lost an interface: disconnect it from its networks and connect it again"
                ),
            }
        }
        self.net().warn_of_firewalls().await;
        self.make_default_networks().await?;
        for (handle, _, _, mutable) in &found {
            if !mutable.state.status.is_alive() || !finds_names(&mutable.endpoints) {
                continue;
            }
            if let Err(error) = self.net().serve_inside(&handle.executor.sandbox(&handle.config.spec)).await {
                tracing::warn!(workload.id = handle.id(), %error, "names are not served inside a workload");
            }
        }
        for (handle, _, _, mutable) in &found {
            self.adopt_names(handle.id(), &mutable.endpoints);
        }
        // Before anything is found again: a process that runs on is told what changed while no daemon was there.
        self.tell_all_names().await;
        self.reattach(found).await;
        self.remove_orphans()?;
        self.end_creates().await;
        Ok(())
    }

    async fn reattach(&self, found: Vec<(Arc<Handle>, tokio::sync::mpsc::Receiver<Command>, String, MutableState)>) {
        let attempts = found.into_iter().map(|(handle, commands, name, mutable)| async move {
            let alive = mutable.state.status.is_alive();
            let workload = if alive {
                let dirs = self.dirs(&handle.config.spec.id);
                let networks = named_networks(&mutable.endpoints);
                let known = Known { spec: &handle.config.spec, state_dir: dirs.state, run_dir: dirs.run, networks };
                Some(handle.executor.reattach(known).await.map(Arc::<dyn Workload>::from))
            } else {
                None
            };
            (handle, commands, name, mutable, workload)
        });
        let attempts: Vec<_> = stream::iter(attempts).buffer_unordered(128).collect().await;
        let mut known: HashMap<WorkloadKind, Vec<WorkloadId>> = HashMap::new();
        let mut resting: HashMap<WorkloadKind, Vec<&WorkloadSpec>> = HashMap::new();
        let mut owners = Vec::new();
        for (handle, _, _, _, workload) in &attempts {
            let spec = &handle.config.spec;
            match workload {
                Some(Ok(_)) => known.entry(spec.kind).or_default().push(spec.id.clone()),
                _ => resting.entry(spec.kind).or_default().push(spec),
            }
        }
        // Before any owner starts what its policy says: what runs of it unknown to us must not run twice.
        let unreadable: Vec<_> = self.unreadable().ids().iter().filter_map(|id| WorkloadId::parse(id).ok()).collect();
        for executor in &self.inner.options.executors {
            let known =
                known.get(&executor.kind()).into_iter().flatten().chain(&unreadable).cloned().collect::<Vec<_>>();
            executor.sweep(&known, resting.get(&executor.kind()).map_or(&[][..], Vec::as_slice)).await;
        }
        drop(resting);
        for (handle, commands, name, mutable, workload) in attempts {
            let mut owner = WorkloadActor::new(self.clone(), handle.clone(), name, mutable.clone());
            if handle.config.of_build && handle.unreadable.is_none() {
                // Its build ended with the engine that ran it.
                let (engine, id) = (self.clone(), handle.id().to_owned());
                self.spawn(async move { engine.remove_of_build(&id).await });
            }
            match workload {
                Some(Ok(workload)) => owner.adopt(workload),
                Some(Err(error)) => {
                    tracing::warn!(workload.id = handle.id(), %error, "a running workload was not found again");
                    owner.lost();
                }
                None => {
                    let was_running = mutable.state.status == Status::Restarting;
                    if was_running {
                        owner.settle();
                    }
                    let created = mutable.state.status == Status::Created;
                    if !created
                        && restart::at_engine_start(
                            mutable.restart,
                            was_running,
                            mutable.stopped,
                            mutable.state.exit_code,
                        )
                    {
                        owner.start_soon();
                    }
                }
            }
            owners.push((owner, commands));
        }
        for (owner, commands) in owners {
            self.spawn_actor(owner, commands);
        }
    }

    /// Goes on with removals that were cut short, and removes folders of no workload in which nothing is: of a create
    /// that was cut short. What holds files is kept and told of; volumes are none of its business at all.
    fn remove_orphans(&self) -> Result<(), EngineError> {
        let known = self.store().ids()?;
        let mut short: HashSet<String> = known.iter().filter_map(|id| id.get(..12).map(str::to_owned)).collect();
        let containers = self.data_root().join("containers");
        for (kind, folder) in [(Kind::Workload, &containers), (Kind::Volume, &self.data_root().join("volumes"))] {
            for path in entries(&folder.join(REMOVED)) {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                if !self.store().owes(kind, name) {
                    self.clear_later(path);
                }
            }
        }
        for path in entries(&containers) {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name == REMOVED || known.contains(name) {
                continue;
            }
            if removal::holds_files(&path) {
                short.extend(name.get(..12).map(str::to_owned));
                tracing::warn!(
                    path = %path.display(),
                    "the folder of a container that nothing is known of is kept: what it wrote is in it; remove it by hand"
                );
            } else {
                self.clear_later(path);
            }
        }
        for path in entries(&self.inner.options.exec_root.join("c")) {
            if !path.file_name().and_then(|name| name.to_str()).is_some_and(|name| short.contains(name)) {
                self.clear_later(path);
            }
        }
        Ok(())
    }

    /// Ends the engine's own tasks. Workloads go on running and are found again by the next engine.
    pub async fn close(&self) {
        self.inner.cancel.cancel();
        self.inner.tasks.close();
        // Watchers of workloads wait for ends that may never come: they are dropped with the runtime.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.inner.tasks.wait()).await;
        // With nothing running, nothing of ours need stay on the machine; the next engine makes it again.
        let idle = self.handles().iter().all(|handle| handle.workload().is_none());
        if !idle {
            return;
        }
        if let Err(error) = self.net().clear().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the networks could not be cleared away");
        }
        for executor in &self.inner.options.executors {
            executor.close();
        }
    }

    fn spawn_actor(&self, owner: WorkloadActor, commands: tokio::sync::mpsc::Receiver<Command>) {
        self.inner.tasks.spawn(owner.run(commands, self.inner.cancel.clone()));
    }

    /// Runs a task of the engine; it ends with the engine.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let cancel = self.inner.cancel.clone();
        self.inner.tasks.spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Does `work` to its end, also when the future is dropped: of what is half done, nobody would know.
    ///
    /// # Errors
    /// Those of `work`; `Stopping` when the engine ends first.
    pub(crate) async fn completed<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, EngineError>> + Send + 'static,
    ) -> Result<T, EngineError> {
        let (done, result) = tokio::sync::oneshot::channel();
        self.spawn(async move {
            let _ = done.send(work.await);
        });
        result.await.map_err(|_| EngineError::Stopping)?
    }

    /// Gives a name back that `id` no longer has. Since it had the name, it may have become another's, which keeps it.
    fn release_name(&self, name: &str, id: &str) {
        self.index_write(|index| {
            if index.names.get(name).is_some_and(|of| of == id) {
                index.names.remove(name);
            }
        });
    }

    pub fn images(&self) -> &ImageStore {
        &self.inner.options.images
    }

    pub fn instance(&self) -> &str {
        &self.inner.options.instance
    }

    pub fn data_root(&self) -> &Path {
        &self.inner.options.data_root
    }

    pub(crate) fn net(&self) -> &Net {
        &self.inner.options.net
    }

    pub(crate) fn store(&self) -> &StateStore {
        &self.inner.store
    }

    pub(crate) fn unreadable(&self) -> &AllUnreadable {
        &self.inner.unreadable
    }

    pub(crate) fn network_list(&self) -> &Networks {
        &self.inner.networks
    }

    pub(crate) fn volume_list(&self) -> &Volumes {
        &self.inner.volumes
    }

    pub(crate) fn execs(&self) -> MutexGuard<'_, HashMap<String, exec::Entry>> {
        self.inner.execs.lock()
    }

    pub(crate) fn dirs(&self, id: &WorkloadId) -> Dirs {
        Dirs {
            state: self.data_root().join("containers").join(id.as_str()),
            // Short: sockets live here, and their paths may have 108 bytes.
            run: self.inner.options.exec_root.join("c").join(id.short()),
        }
    }

    /// Executors whose workloads resolve names themselves.
    pub(crate) fn resolvers(&self) -> impl Iterator<Item = &dyn Resolver> {
        self.inner.options.executors.iter().filter_map(|executor| executor.as_resolver())
    }

    fn executor(&self, kind: WorkloadKind) -> Option<Arc<dyn Executor>> {
        self.inner.options.executors.iter().find(|executor| executor.kind() == kind).cloned()
    }

    fn index_write<T>(&self, change: impl FnOnce(&mut Index) -> T) -> T {
        change(&mut self.inner.index.write())
    }

    fn index_read<T>(&self, look: impl FnOnce(&Index) -> T) -> T {
        look(&self.inner.index.read())
    }

    pub(crate) fn handles(&self) -> Vec<Arc<Handle>> {
        self.index_read(|index| index.by_id.values().cloned().collect())
    }

    /// What workloads stored beside their volumes and outlives them.
    pub async fn stores(&self) -> Vec<StoreFolder> {
        let mut found = Vec::new();
        for executor in &self.inner.options.executors {
            found.extend(executor.stores(&self.sandboxes_of(executor)).await);
        }
        found
    }

    /// Removes the stores that no workload has, of `only` where it is given; answers which they were.
    ///
    /// # Errors
    /// `NotFound` for an `only` that is not there, `Conflict` for one that is in use.
    pub async fn prune_stores(&self, only: Option<&str>) -> Result<Vec<StoreFolder>, EngineError> {
        let mut removed = Vec::new();
        let (mut seen, mut used) = (false, false);
        for executor in &self.inner.options.executors {
            let sandboxes = self.sandboxes_of(executor);
            for store in executor.stores(&sandboxes).await {
                if only.is_some_and(|only| only != store.name) {
                    continue;
                }
                seen = true;
                // Asked anew: one may have come while the others were removed.
                if !store.in_use && executor.remove_store(&store.name, &self.sandboxes_of(executor)).await? {
                    removed.push(store);
                } else {
                    used = true;
                }
            }
        }
        match only {
            Some(name) if !seen => Err(EngineError::NoSuch { what: "key-value store", name: name.to_owned() }),
            Some(name) if used => Err(EngineError::conflict(format!(
                "the key-value stores {name} are those of a component that is there; remove it first"
            ))),
            _ => Ok(removed),
        }
    }

    fn sandboxes_of(&self, executor: &Arc<dyn Executor>) -> Vec<SandboxId> {
        let of_this = |handle: &Arc<Handle>| handle.executor.kind() == executor.kind();
        self.handles().iter().filter(|handle| of_this(handle)).map(|h| h.executor.sandbox(&h.config.spec)).collect()
    }

    /// By ID, name, or the beginning of an ID.
    pub(crate) fn find(&self, name: &str) -> Result<Arc<Handle>, EngineError> {
        match self.look_up(name)? {
            Found::Known(handle) => Ok(handle),
            Found::Unreadable(one) => Err(one.refusal()),
        }
    }

    /// As [`Self::find`], also of what nothing is known of but ID and name.
    fn look_up(&self, name: &str) -> Result<Found, EngineError> {
        let plain = name.strip_prefix('/').unwrap_or(name);
        self.index_read(|index| {
            if let Some(handle) = index.by_id.get(plain) {
                return Ok(Found::Known(handle.clone()));
            }
            if let Some(handle) = index.names.get(plain).and_then(|id| index.by_id.get(id)) {
                return Ok(Found::Known(handle.clone()));
            }
            if let Some(one) = self.unreadable().exactly(plain) {
                return Ok(Found::Unreadable(one));
            }
            if let Some(handle) = index.linked_as(plain) {
                return Ok(Found::Known(handle.clone()));
            }
            let known = index.by_id.range(plain.to_owned()..);
            let known = known.take_while(|(id, _)| !plain.is_empty() && id.starts_with(plain)).take(2);
            let mut matching: Vec<Found> = known.map(|(_, handle)| Found::Known(handle.clone())).collect();
            matching.extend(self.unreadable().beginning(plain).into_iter().map(Found::Unreadable));
            match matching.len() {
                0 => Err(EngineError::no_container(name)),
                1 => Ok(matching.remove(0)),
                _ => Err(EngineError::Ambiguous { what: "container", name: plain.to_owned() }),
            }
        })
    }

    /// The workload of a remembered ID. Another may be called by it when this one is gone.
    ///
    /// # Errors
    /// `NotFound`.
    pub(crate) fn with_id(&self, id: &WorkloadId) -> Result<Arc<Handle>, EngineError> {
        let found = self.index_read(|index| index.by_id.get(id.as_str()).cloned());
        found.ok_or_else(|| EngineError::no_container(id.as_str()))
    }

    pub fn emit(&self, event: Event) {
        self.inner.events.emit(event);
    }

    /// Events kept since `since`, then live ones until `until`.
    pub fn events(&self, query: EventQuery) -> impl Stream<Item = Event> + Send + Unpin + 'static {
        self.inner.events.listen(query)
    }

    /// Creates a workload; nothing runs yet.
    ///
    /// # Errors
    /// `NotFound` for the image, a network or a workload it joins; `Conflict` for a name in use or routes that clash;
    /// `Invalid` and `Unsupported` for what cannot be done. Nothing is left behind then.
    ///
    /// # Cancel safety
    /// Dropping the future unmakes in the background what was made.
    pub async fn create(&self, request: CreateRequest) -> Result<Created, EngineError> {
        let id = WorkloadId::from_bytes(rand::random());
        let name = match &request.name {
            Some(name) => name.strip_prefix('/').unwrap_or(name).to_owned(),
            None => self.free_name(),
        };
        resolve::check_name(&name)?;
        self.index_write(|index| match index.names.get(&name) {
            Some(other) => Err(EngineError::conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{other}\". You have to remove (or rename) that container to be able to reuse that name."
            ))),
            None => {
                index.names.insert(name.clone(), id.as_str().to_owned());
                Ok(())
            }
        })?;
        let mut undo = Undo { engine: self.clone(), id: id.clone(), name: name.clone(), made: Some(Made::default()) };
        let result = self.create_named(request, id, &name, &mut undo).await;
        let made = undo.made.take();
        self.claims().remove(undo.id.as_str());
        match made {
            Some(made) if result.is_err() => {
                self.release_name(&name, undo.id.as_str());
                self.unmake(&undo.id, made).await;
            }
            Some(made) if made.noted => self.end_note(undo.id.as_str()),
            _ => {}
        }
        result
    }

    async fn create_named(
        &self,
        mut request: CreateRequest,
        id: WorkloadId,
        name: &str,
        undo: &mut Undo,
    ) -> Result<Created, EngineError> {
        let made = undo.made.get_or_insert_default();
        let of_build = request.unfinished.as_ref().is_some_and(|unfinished| !unfinished.keep);
        let (image, unfinished) = match request.unfinished.take() {
            Some(unfinished) => (unfinished.image, Some(unfinished.layers)),
            None => (self.image_for(&request).await?, None),
        };
        let claim = || self.claims().entry(id.as_str().to_owned()).or_default().image = image.id.to_string();
        match unfinished {
            // Its build holds it.
            Some(_) => claim(),
            None => self.images().claim(&image.id, claim)?,
        }
        let kind = image.kind();
        let executor = self.executor(kind).ok_or_else(|| {
            EngineError::unsupported(format!(
                "this engine has no executor for {}: it was started without one",
                image.platform
            ))
        })?;
        // Most clients start at once what they create.
        executor.prewarm();
        let namespaces = self.namespaces(&request)?;
        let endpoints = match namespaces.network {
            NetworkMode::Attached => self.wanted_endpoints(&request.networks)?,
            _ => Vec::new(),
        };
        if let NetworkMode::Workload(other) = &namespaces.network {
            let other = self.with_id(other)?;
            request.hostname = Some(other.config.spec.hostname.clone());
            request.domainname = Some(other.config.spec.domainname.clone());
        }
        let links = self.links(&request.links)?;
        let inherited = self.inherited_mounts(&request.volumes_from)?;
        let volumes = inherited.iter().filter(|(_, point)| point.kind == MountKind::Volume);
        let volumes = volumes.map(|(_, point)| point.name.clone()).collect();
        self.claim_volumes(&id, volumes).await;
        if matches!(namespaces.network, NetworkMode::Host) && request.hostname.is_none() {
            request.hostname = rustix::system::uname().nodename().to_str().ok().map(str::to_owned);
        }
        if let (NetworkMode::Workload(other), None) = (&namespaces.network, &request.hostname) {
            request.hostname = Some(self.with_id(other)?.config.spec.hostname.clone());
        }
        let gateway = self.host_gateway(&endpoints);
        let resolved = resolve::resolve(&request, &image, id.clone(), name, namespaces, gateway, inherited)?;
        let mut spec = resolved.spec;
        if !executor.offers_exec() && health::runs_command(resolved.health.as_ref(), spec.bireme.health.is_some()) {
            return Err(EngineError::unsupported(format!(
                "{name} is a WebAssembly component and cannot run a health check command: name a path to probe with the label bireme.health"
            )));
        }
        let log = self.log_request(&request.log)?;
        self.check_routes(&spec, &executor, &request)?;
        resolve::check_binds(resolved.mounts.binds).await?;
        let dirs = self.dirs(&id);
        let program = self.program(&image, unfinished, &spec.args, &dirs).await?;
        spec.mounts = resolved.mounts.mounts;
        let mut points = resolved.mounts.points;
        // The check comes before anything is made that a refusal would have to unmake.
        tokio::select! {
            checked = executor.check(&spec, &program) => checked?,
            // A component may take minutes to compile, and others wait for their turn.
            () = request.given_up.cancelled() => {
                return Err(EngineError::conflict(format!("the client that asked for {name} left before it was made")));
            }
        }
        if !request.publish.is_empty() || request.publish_all {
            executor.check_ports(&spec, &program).await?;
        }
        let mut warnings = executor.warnings(&spec);
        warnings.extend(spec.bireme.request_sentence());
        let mut needs = resolved.mounts.volumes;
        // Named before they are made, so that what is left of a create that is cut short is found by its note.
        let own: Vec<&mut VolumeNeed> = needs.iter_mut().filter(|need| need.name.is_none()).collect();
        if !own.is_empty() {
            let names = own.into_iter().map(|need| need.own_name()).collect::<Vec<_>>().join("\n");
            made.noted = true;
            self.note_create(id.as_str(), &names)?;
        }
        for need in needs {
            let (mount, point) = self.mount_volume(need, &program, &id, made).await?;
            spec.mounts.push(mount);
            points.push(point);
        }
        made.dirs = true;
        make_dir(&dirs.state, 0o700)?;
        if let Program::Layers { upper, work, .. } = &program {
            // The root of the container's tree takes its mode from here.
            make_dir(upper, 0o755)?;
            make_dir(work, 0o700)?;
        }
        let log_path = (log.driver != "none").then(|| dirs.state.join(format!("{id}-json.log")));
        let config = Config {
            spec,
            image_id: image.id.to_string(),
            platform: image.platform.to_string(),
            created: now_nanos(),
            auto_remove: request.auto_remove,
            of_build,
            mounts: points,
            publish: request.publish,
            publish_all: request.publish_all,
            health: resolved.health,
            program,
            log,
            log_path,
            as_asked: request.as_asked,
            links,
            entrypoint: resolved.entrypoint,
            command: resolved.command,
        };
        let state = State::new(Status::Created);
        let mutable = MutableState {
            unlinked: BTreeSet::new(),
            held: false,
            state,
            restart: request.restart,
            restart_count: 0,
            endpoints,
            ports: Vec::new(),
            stopped: false,
            resources: None,
            health: None,
            written: now_nanos(),
        };
        let sync = if config.auto_remove || of_build { Sync::Normal } else { Sync::Full };
        made.recorded = true;
        self.store().insert_workload(id.as_str(), name, &config, &mutable, sync).await?;
        let (handle, commands) = Handle::new(Arc::new(config), name, &mutable, executor, None);
        self.index_write(|index| index.by_id.insert(id.as_str().to_owned(), handle.clone()));
        self.spawn_actor(WorkloadActor::new(self.clone(), handle.clone(), name.to_owned(), mutable), commands);
        handle.emit(self, "create", []);
        Ok(Created { id, warnings })
    }

    async fn image_for(&self, request: &CreateRequest) -> Result<Image, EngineError> {
        let platform = match request.platform.as_deref().filter(|platform| !platform.is_empty()) {
            Some(text) => Some(text.parse::<Platform>().map_err(|error| EngineError::invalid(error.to_string()))?),
            None => match request.labels.get("bireme.class").map(String::as_str) {
                Some("wasm") => {
                    Some("wasi/wasm".parse::<Platform>().map_err(|error| EngineError::invalid(error.to_string()))?)
                }
                _ => None,
            },
        };
        Ok(self.images().resolve(&request.image, platform.as_ref()).await?)
    }

    async fn program(
        &self,
        image: &Image,
        unfinished: Option<Vec<PathBuf>>,
        args: &[String],
        dirs: &Dirs,
    ) -> Result<Program, EngineError> {
        match image.kind() {
            WorkloadKind::Component if unfinished.is_some() => Err(EngineError::unsupported(
                "commands are run in Linux images: RUN in a stage of one, and COPY --from it",
            )),
            WorkloadKind::Container => {
                let lower = match unfinished {
                    Some(layers) => layers,
                    None => self.images().layers(&image.id).await?,
                };
                let program = args.first().map_or("", String::as_str);
                if bireme_image::is_wasm(&lower, &image.config.working_dir, program) {
                    return Err(EngineError::invalid(format!(
                        "{program} is a WebAssembly component, but its image says that it is for {}: build the image with --platform wasi/wasm (in a Compose file: platform: wasi/wasm)",
                        image.platform
                    )));
                }
                Ok(Program::Layers { lower, upper: dirs.state.join("diff"), work: dirs.state.join("work") })
            }
            WorkloadKind::Component => {
                let (path, digest) =
                    self.images().component(&image.id, args.first().map_or("", String::as_str)).await?;
                Ok(Program::Component { path, digest })
            }
        }
    }

    async fn mount_volume(
        &self,
        need: VolumeNeed,
        program: &Program,
        id: &WorkloadId,
        made: &mut Made,
    ) -> Result<(bireme_core::spec::Mount, MountPoint), EngineError> {
        let anonymous = need.own;
        let request = CreateVolume {
            name: need.name.unwrap_or_default(),
            driver: need.driver,
            options: need.options,
            labels: need.labels,
        };
        let (volume, new) = self.make_volume(request, anonymous, Some(id)).await?;
        if new {
            made.volumes.push(volume.name.clone());
        }
        // What stands at the mount's place belongs into the part that is mounted, which is to be there already.
        let part = !need.subpath.as_os_str().is_empty();
        if let (Program::Layers { lower, .. }, false) = (program, need.no_copy || part) {
            self.fill_volume(&volume, lower, &need.target).await?;
        }
        let point = MountPoint {
            kind: MountKind::Volume,
            name: volume.name.clone(),
            anonymous,
            declared: need.declared,
            inherited: false,
            source: volume.mountpoint.clone(),
            target: need.target.clone(),
            read_only: need.read_only,
            propagation: String::new(),
        };
        let source = if part {
            MountSource::Subpath { volume: volume.mountpoint, subpath: need.subpath }
        } else {
            MountSource::Bind { path: volume.mountpoint, propagation: Default::default(), recursive: true }
        };
        Ok((bireme_core::spec::Mount { source, target: need.target, read_only: need.read_only }, point))
    }

    /// The mounts of other workloads that a new one gets too. What they keep in memory stays theirs.
    fn inherited_mounts(&self, from: &[(String, bool)]) -> Result<Vec<resolve::Inherited>, EngineError> {
        let mut all = Vec::new();
        for (name, read_only) in from {
            let handle = self.find(name).map_err(|error| EngineError::invalid(error.to_string()))?;
            for point in handle.config.mounts.iter().filter(|point| point.kind != MountKind::Tmpfs) {
                let Some(mount) = handle.config.spec.mounts.iter().find(|mount| mount.target == point.target) else {
                    continue;
                };
                let (mut mount, mut point) = (mount.clone(), point.clone());
                mount.read_only |= read_only;
                point.read_only |= read_only;
                (point.declared, point.inherited) = (false, true);
                all.push((mount, point));
            }
            bounds::within(
                "the number of mounts of other containers is too large: the container",
                all.len(),
                bounds::MOUNTS,
                "name fewer containers whose volumes it takes",
            )?;
        }
        Ok(all)
    }

    fn namespaces(&self, request: &CreateRequest) -> Result<Namespaces, EngineError> {
        // Not "not found": Docker's client takes that for a missing image, and pulls it.
        let join = |name: &str| match self.find(name) {
            Ok(handle) => Ok(handle.config.spec.id.clone()),
            Err(error) => Err(EngineError::invalid(error.to_string())),
        };
        let mode = |wanted: &ModeRequest| {
            Ok::<_, EngineError>(match wanted {
                ModeRequest::Private => NamespaceMode::Private,
                ModeRequest::Host => NamespaceMode::Host,
                ModeRequest::Workload(name) => NamespaceMode::Workload(join(name)?),
            })
        };
        let network = match &request.network_mode {
            NetworkModeRequest::Default => NetworkMode::Attached,
            NetworkModeRequest::None => NetworkMode::None,
            NetworkModeRequest::Host => NetworkMode::Host,
            NetworkModeRequest::Workload(name) => NetworkMode::Workload(join(name)?),
        };
        if network != NetworkMode::Attached && !request.publish.is_empty() && network != NetworkMode::Host {
            return Err(EngineError::invalid(
                "conflicting options: port publishing and the container type network mode",
            ));
        }
        Ok(Namespaces {
            network,
            pid: mode(&request.pid_mode)?,
            ipc: mode(&request.ipc_mode)?,
            uts: mode(&request.uts_mode)?,
            cgroup: if request.cgroup_host { NamespaceMode::Host } else { NamespaceMode::Private },
        })
    }

    fn log_request(&self, asked: &LogRequest) -> Result<LogRequest, EngineError> {
        let log = if asked.driver.is_empty() && asked.options.is_empty() {
            self.inner.options.log.clone()
        } else {
            asked.clone()
        };
        let driver = if log.driver.is_empty() { "json-file".to_owned() } else { log.driver };
        if !matches!(driver.as_str(), "json-file" | "local" | "none") {
            return Err(EngineError::unsupported(format!(
                "logger: no log driver named '{driver}' is registered: json-file, local and none are offered"
            )));
        }
        for (key, value) in &log.options {
            let fits = match key.as_str() {
                "max-size" if parse_size(value).is_none() => Err(format!("invalid size: '{value}'")),
                "max-file" if !value.parse::<u32>().is_ok_and(|count| count > 0) => {
                    Err("max-file cannot be less than 1".to_owned())
                }
                "max-size" | "max-file" => Ok(()),
                // Output never waits for the log here, and what is rotated is kept as it is: nothing is to be set.
                "mode" if !matches!(value.as_str(), "blocking" | "non-blocking") => {
                    Err(format!("logging mode not supported: {value}"))
                }
                "mode" | "max-buffer-size" | "compress" => Ok(()),
                option if driver == "json-file" && log_details::OPTIONS.contains(&option) => {
                    log_details::check(option, value)
                }
                _ => Err(format!(
                    "unknown log opt '{key}' for {driver} log driver: max-size, max-file, mode, max-buffer-size and compress are offered, with json-file also {}",
                    log_details::OPTIONS.join(", ")
                )),
            };
            fits.map_err(EngineError::invalid)?;
        }
        Ok(LogRequest { driver, options: log.options })
    }

    /// Refuses routes that could not be told apart from those of another workload on the same host port.
    fn check_routes(
        &self,
        spec: &bireme_core::WorkloadSpec,
        executor: &Arc<dyn Executor>,
        request: &CreateRequest,
    ) -> Result<(), EngineError> {
        if !executor.takes_listeners() {
            return Ok(());
        }
        let ports = |publish: &[crate::request::Publish]| -> Vec<(Option<IpAddr>, u16)> {
            let config = publish
                .iter()
                .filter_map(|p| p.host_ports.filter(|(a, b)| a == b && *a != 0).map(|(port, _)| (p.host_ip, port)));
            config.collect()
        };
        let ours = ports(&request.publish);
        for handle in self.handles() {
            let view = handle.view();
            let (other, status) = (&view.config.spec, view.state.status);
            let replaced = spec.app.is_some()
                && spec.service.is_some()
                && (&spec.app, &spec.service) == (&other.app, &other.service);
            let counts = matches!(status, Status::Created | Status::Running | Status::Paused | Status::Restarting);
            if !handle.executor.takes_listeners() || replaced || !counts {
                continue;
            }
            let theirs = ports(&view.config.publish);
            let shared = ours.iter().find(|(ip, port)| {
                theirs.iter().any(|(other, number)| number == port && (ip.is_none() || other.is_none() || ip == other))
            });
            let Some((_, port)) = shared else { continue };
            let clash = spec
                .bireme
                .routes
                .iter()
                .find_map(|route| other.bireme.routes.iter().find(|o| o.clashes_with(route)).map(|o| (route, o)));
            if let Some((route, taken)) = clash {
                return Err(EngineError::conflict(format!(
                    "route {route} on host port {port} clashes with {taken} of {}: give one of them another bireme.http.route or another port",
                    view.name
                )));
            }
        }
        Ok(())
    }

    fn free_name(&self) -> String {
        loop {
            let name = crate::names::random();
            if !self.index_read(|index| index.names.contains_key(&name)) {
                return name;
            }
        }
    }

    async fn unmake(&self, id: &WorkloadId, made: Made) {
        for volume in made.volumes {
            if let Err(error) = self.remove_volume(&volume, true).await {
                tracing::warn!(
                    volume,
                    error = &error as &dyn std::error::Error,
                    "a volume of a refused create could not be removed"
                );
            }
        }
        if made.recorded {
            // Nothing is known of it unless the create was dropped in that very moment.
            self.store().delete_workload(id.as_str()).await;
        }
        if made.dirs {
            let dirs = self.dirs(id);
            let _ = tokio::task::spawn_blocking(move || removal::remove_tree(&dirs.state)).await;
        }
        if made.noted {
            self.end_note(id.as_str());
        }
    }

    fn claims(&self) -> MutexGuard<'_, HashMap<String, Claims>> {
        self.inner.claims.lock()
    }

    /// Has a volume count as used by a workload that is being created.
    pub(crate) fn claim_volume(&self, id: &WorkloadId, name: &str) {
        self.claims().entry(id.as_str().to_owned()).or_default().volumes.insert(name.to_owned());
    }

    /// The workloads being created that claim a volume.
    pub(crate) fn claimants(&self, volume: &str) -> Vec<String> {
        let claims = self.claims();
        claims.iter().filter(|(_, claims)| claims.volumes.contains(volume)).map(|(id, _)| id.clone()).collect()
    }

    fn note_create(&self, id: &str, volumes: &str) -> Result<(), EngineError> {
        let path = self.data_root().join(CREATING).join(id);
        let write = || {
            let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            std::io::Write::write_all(&mut file, volumes.as_bytes())
        };
        write().map_err(|source| EngineError::File { path: path.clone(), source })
    }

    fn end_note(&self, id: &str) {
        let path = self.data_root().join(CREATING).join(id);
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "a note on a create that has ended cannot be removed");
        }
    }

    /// Removes what creates that were cut short had made for themselves: no other volume, and none that somebody has.
    async fn end_creates(&self) {
        let Ok(known) = self.store().ids() else { return };
        for path in entries(&self.data_root().join(CREATING)) {
            let Some(id) = path.file_name().and_then(|name| name.to_str()) else { continue };
            // Also one that cannot be read.
            let created = known.contains(id);
            let text = if created { String::new() } else { std::fs::read_to_string(&path).unwrap_or_default() };
            for name in text.lines() {
                if !self.volume(name).is_ok_and(|volume| volume.anonymous) {
                    continue;
                }
                match self.remove_volume(name, true).await {
                    Ok(()) => tracing::info!(volume = name, "a volume of a create that was cut short is removed"),
                    Err(error) => {
                        tracing::warn!(volume = name, %error, "a volume of a create that was cut short stays")
                    }
                }
            }
            self.end_note(id);
        }
    }

    /// Forgets a workload and removes everything of it: folders, record, and its anonymous volumes where asked.
    pub(crate) async fn purge(&self, handle: &Arc<Handle>, volumes: bool) -> Result<(), EngineError> {
        let dirs = self.dirs(&handle.config.spec.id);
        let view = handle.view();
        let aside = self.data_root().join("containers").join(REMOVED).join(handle.id());
        // Out of the way first and at once: what is half removed is never taken for whole, and the next start goes on.
        // Then what takes space, so that a full disk has room to remember in; the mark of it goes last.
        let (run, state, mark) = (dirs.run, dirs.state, aside.clone());
        let removal = tokio::task::spawn_blocking(move || {
            set_aside(&state, &aside)?;
            removal::remove_tree(&run).map_err(|source| EngineError::File { path: run, source })?;
            removal::empty_tree_until(&aside, Instant::now() + CLEARED_WITHIN)
                .map_err(|source| EngineError::File { path: aside, source })
        });
        let emptied = removal.await.map_err(|_| EngineError::Stopping)??;
        if self.store().delete_workload(handle.id()).await {
            self.end_removal(mark, emptied);
        }
        self.index_write(|index| {
            index.by_id.remove(handle.id());
            index.names.retain(|_, id| id != handle.id());
        });
        self.forget_execs(handle.id());
        self.unreadable().remove(handle.id());
        if volumes {
            for point in view.config.mounts.iter().filter(|point| point.anonymous) {
                if let Err(error) = self.remove_volume(&point.name, true).await {
                    tracing::debug!(volume = point.name, %error, "an anonymous volume stays");
                }
            }
        }
        Ok(())
    }

    /// Ends and forgets a workload that nothing is known of but its ID. Its volumes stay.
    async fn remove_unreadable(&self, one: &Unreadable) -> Result<(), EngineError> {
        let Ok(id) = WorkloadId::parse(&one.id) else {
            // Nothing can have such an ID: only the row is there.
            self.store().delete_workload(&one.id).await;
            self.release_name(&one.name, &one.id);
            self.unreadable().remove(&one.id);
            return Ok(());
        };
        for executor in &self.inner.options.executors {
            executor.end(&id).await?;
        }
        let dirs = self.dirs(&id);
        let aside = self.data_root().join("containers").join(REMOVED).join(id.as_str());
        let (mark, state) = (aside.clone(), dirs.state);
        tokio::task::spawn_blocking(move || set_aside(&state, &aside)).await.map_err(|_| EngineError::Stopping)??;
        self.clear_later(dirs.run);
        if self.store().delete_workload(id.as_str()).await {
            self.clear_later(mark);
        }
        self.release_name(&one.name, id.as_str());
        self.unreadable().remove(id.as_str());
        if let Err(error) = self.net().remove_sandbox(&SandboxId::from(&id)).await {
            tracing::debug!(workload.id = id.as_str(), %error, "a sandbox that nothing was known of stays");
        }
        Ok(())
    }

    /// What was set aside at `mark` is forgotten: the mark of it goes, or in the background what is left of it.
    pub(crate) fn end_removal(&self, mark: PathBuf, emptied: bool) {
        if emptied {
            let _ = std::fs::remove_dir(mark);
        } else {
            tracing::warn!(path = %mark.display(), "what was removed takes long to clear away, which goes on");
            self.clear_later(mark);
        }
    }

    /// Clears a folder away that nothing uses, in the background: it may hold millions of names, and grow.
    pub(crate) fn clear_later(&self, path: PathBuf) {
        self.inner.clearing.add(path);
    }

    /// # Errors
    /// `NotModified` when it runs already; what the executor or network refuse otherwise.
    pub async fn start(&self, name: &str) -> Result<(), EngineError> {
        self.find(name)?.command(Command::Start).await
    }

    /// Sends the stop signal, waits, then kills.
    ///
    /// # Errors
    /// `NotModified` when it does not run.
    /// # Cancel safety
    /// Once begun it is completed, also when the future is dropped.
    pub async fn stop(&self, name: &str, how: StopRequest) -> Result<(), EngineError> {
        let handle = self.find(name)?;
        handle.require(Operation::Stop)?;
        if !handle.ending(patience(&handle, how)).await? {
            return Err(EngineError::NotModified {
                message: format!("container {} is already stopped", handle.view().name),
            });
        }
        let engine = self.clone();
        let (done, result) = tokio::sync::oneshot::channel();
        self.spawn(async move {
            let _ = done.send(engine.stop_and_wait(&handle, how).await);
        });
        result.await.map_err(|_| EngineError::Stopping)?
    }

    async fn stop_and_wait(&self, handle: &Arc<Handle>, how: StopRequest) -> Result<(), EngineError> {
        let spec = &handle.config.spec;
        let signal = how.signal.unwrap_or(spec.stop_signal);
        let patience = patience(handle, how);
        let mut ends = handle.ends();
        let count = ends.borrow_and_update().count;
        if let Err(error) = self.signal(handle, signal).await {
            if signal == Signal::KILL {
                return Err(error);
            }
            // Whoever refuses it is killed when its time is over.
            tracing::warn!(id = %handle.id(), error = &error as &dyn std::error::Error, "a stop signal was not taken");
        }
        let ended = async {
            if let Err(error) = self.thaw(handle).await {
                tracing::warn!(id = %handle.id(), %error, "a paused workload that is stopped does not go on");
            }
            ends.wait_for(|ends| ends.count > count || ends.gone).await.is_ok()
        };
        let in_time = match patience {
            Some(patience) => tokio::time::timeout(patience, ended).await.is_ok(),
            None => ended.await,
        };
        if !in_time {
            self.signal(handle, Signal::KILL).await?;
            let mut ends = handle.ends();
            let ended = ends.wait_for(|ends| ends.count > count || ends.gone);
            if tokio::time::timeout(actor::DYING, ended).await.is_err() {
                return Err(actor::hangs(handle, "stop it again later"));
            }
        }
        handle.emit(self, "stop", []);
        Ok(())
    }

    /// Sends a signal to what runs; a workload that ended meanwhile is no error.
    async fn signal(&self, handle: &Arc<Handle>, signal: Signal) -> Result<(), EngineError> {
        let Some(workload) = handle.workload() else { return Ok(()) };
        handle.emit(self, "kill", [("signal", signal.0.to_string().as_str())]);
        match workload.signal(signal).await {
            Err(error)
                if matches!(error.kind(), bireme_core::ErrorKind::NotFound | bireme_core::ErrorKind::Conflict) =>
            {
                Ok(())
            }
            other => Ok(other?),
        }
    }

    /// Lets a paused workload go on, so that it gets the signal that was sent to it.
    async fn thaw(&self, handle: &Arc<Handle>) -> Result<(), EngineError> {
        if handle.view().state.status != Status::Paused {
            return Ok(());
        }
        match handle.command(Command::Unpause).await {
            // It goes on already, or has ended.
            Err(error)
                if matches!(error.kind(), bireme_core::ErrorKind::NotFound | bireme_core::ErrorKind::Conflict) =>
            {
                Ok(())
            }
            other => other,
        }
    }

    pub async fn restart(&self, name: &str, how: StopRequest) -> Result<(), EngineError> {
        let id = self.find(name)?.id().to_owned();
        match self.stop(&id, how).await {
            Ok(()) | Err(EngineError::NotModified { .. }) => {}
            Err(error) => return Err(error),
        }
        match self.start(&id).await {
            Ok(()) | Err(EngineError::NotModified { .. }) => {}
            Err(error) => return Err(error),
        }
        let handle = self.find(&id)?;
        handle.emit(self, "restart", []);
        Ok(())
    }

    /// # Errors
    /// `Conflict` in Docker's words when it does not run.
    pub async fn kill(&self, name: &str, signal: Signal) -> Result<(), EngineError> {
        let handle = self.find(name)?;
        if !handle.view().state.status.is_alive() {
            return Err(EngineError::conflict(format!(
                "cannot kill container: {name}: container {} is not running",
                handle.id()
            )));
        }
        let final_one = signal == Signal::KILL || signal == handle.config.spec.stop_signal;
        let mut ends = handle.ends();
        let count = ends.borrow_and_update().count;
        if final_one {
            handle.ending(Some(Duration::ZERO)).await?;
        }
        self.signal(&handle, signal).await?;
        // Source: moby's `containerKill`: of the signals to a workload with a stop signal of its own, only that one.
        if final_one || handle.config.spec.stop_signal == Signal::TERM {
            self.thaw(&handle).await?;
        }
        if signal == Signal::KILL {
            // Docker answers when it is down.
            let _ =
                tokio::time::timeout(Duration::from_secs(10), ends.wait_for(|ends| ends.count > count || ends.gone))
                    .await;
        }
        Ok(())
    }

    pub async fn pause(&self, name: &str) -> Result<(), EngineError> {
        self.find(name)?.command(Command::Pause).await
    }

    /// Pauses it for a moment: [`Engine::unpause`] lets it go on, or the next engine.
    pub(crate) async fn hold(&self, name: &str) -> Result<(), EngineError> {
        self.find(name)?.command(Command::Hold).await
    }

    pub async fn unpause(&self, name: &str) -> Result<(), EngineError> {
        self.find(name)?.command(Command::Unpause).await
    }

    /// # Errors
    /// `Conflict` in Docker's words for a name in use.
    /// # Cancel safety
    /// Once begun it is completed, also when the future is dropped.
    pub async fn rename(&self, name: &str, to: &str) -> Result<(), EngineError> {
        let handle = self.find(name)?;
        let to = to.strip_prefix('/').unwrap_or(to).to_owned();
        resolve::check_name(&to)?;
        if to == handle.view().name {
            return Err(EngineError::invalid("Renaming a container with the same name as its current name"));
        }
        self.index_write(|index| match index.names.get(&to) {
            Some(other) => Err(EngineError::conflict(format!(
                "Conflict. The container name \"/{to}\" is already in use by container \"{other}\". You have to remove (or rename) that container to be able to reuse that name."
            ))),
            None => {
                index.names.insert(to.clone(), handle.id().to_owned());
                Ok(())
            }
        })?;
        let engine = self.clone();
        self.completed(async move {
            let new = to.clone();
            // Its owner alone knows what it was called when its turn came.
            let result = handle.command(|reply| Command::Rename { to: new, reply }).await;
            engine.release_name(result.as_ref().map_or(&to, |before| before), handle.id());
            result.map(drop)
        })
        .await
    }

    /// Changes limits and the restart policy: of what runs at once, otherwise from the next start on. Answers warnings.
    ///
    /// # Errors
    /// `Conflict` in Docker's words for what contradicts itself or what the kernel refuses; nothing has changed then.
    /// `Unsupported` for limits of a workload that runs and whose kind takes them at its start alone.
    pub async fn update(&self, name: &str, change: Update) -> Result<Vec<String>, EngineError> {
        self.find(name)?.command(|reply| Command::Update { change: Box::new(change), reply }).await
    }

    pub async fn remove(&self, name: &str, how: RemoveRequest) -> Result<(), EngineError> {
        let handle = match self.look_up(name)? {
            Found::Known(handle) => handle,
            Found::Unreadable(one) if how.force => {
                let engine = self.clone();
                return self.completed(async move { engine.remove_unreadable(&one).await }).await;
            }
            Found::Unreadable(one) => return Err(one.refusal()),
        };
        let view = handle.view();
        if let crate::lifecycle::Verdict::Refused(why) =
            crate::lifecycle::may(view.state.status, Operation::Remove { force: how.force })
        {
            return Err(EngineError::conflict(format!("cannot remove container \"/{}\": container {why}", view.name)));
        }
        let _hurry = how.force.then(|| handle.hurry());
        handle.command(|reply| Command::Remove { how, reply }).await
    }

    /// Resolves the name at once; the future answers when the condition holds. Dropping it leaves the workload untouched.
    pub fn wait(
        &self,
        name: &str,
        condition: WaitCondition,
    ) -> Result<BoxFuture<'static, Result<Ended, EngineError>>, EngineError> {
        let handle = self.find(name)?;
        let mut ends = handle.ends();
        let count = ends.borrow_and_update().count;
        Ok(Box::pin(async move {
            let view = handle.view();
            let idle = !view.state.status.is_alive() && view.state.status != Status::Restarting;
            if condition == WaitCondition::NotRunning && idle {
                return Ok(Ended { code: view.state.exit_code, error: None });
            }
            let met = ends.wait_for(|ends| match condition {
                WaitCondition::Removed => ends.gone || ends.stays.is_some(),
                WaitCondition::NotRunning | WaitCondition::NextExit => ends.count > count || ends.gone,
            });
            let ends = met.await.map_err(|_| EngineError::Stopping)?.clone();
            let ended = ends.last.unwrap_or(Ended { code: handle.view().state.exit_code, error: None });
            match ends.stays.filter(|_| condition == WaitCondition::Removed && !ends.gone) {
                Some(why) => Ok(Ended { error: Some(why), ..ended }),
                None => Ok(ended),
            }
        }))
    }

    pub fn inspect(&self, name: &str) -> Result<WorkloadView, EngineError> {
        self.find(name).map(|handle| WorkloadView::clone(&handle.view()))
    }

    /// Newest first.
    pub fn list(&self, filter: &ContainerFilter) -> Result<Vec<WorkloadView>, EngineError> {
        let created =
            |name: &Option<String>| name.as_ref().map(|name| self.inspect(name).map(|c| c.config.created)).transpose();
        let (before, since) = (created(&filter.before)?, created(&filter.since)?);
        let mut names = Vec::new();
        for text in &filter.names {
            // Docker's names begin with a slash, and its expressions may say so or not.
            let text = text.replacen("^/", "^", 1);
            let text = text.strip_prefix('/').map_or(text.clone(), |rest| format!("^{rest}"));
            names.push(regex::Regex::new(&text).map_err(|_| {
                EngineError::invalid(format!("invalid filter 'name={text}': it is no regular expression"))
            })?);
        }
        let ancestors: HashSet<String> = filter.ancestors.iter().cloned().collect();
        let mut found: Vec<WorkloadView> = self
            .handles()
            .iter()
            .map(|handle| handle.view())
            .filter(|view| {
                before.is_none_or(|at| view.config.created < at) && since.is_none_or(|at| view.config.created > at)
            })
            .filter(|view| names.is_empty() || names.iter().any(|name| name.is_match(&view.name)))
            .filter(|view| matches(filter, &ancestors, view))
            .map(|view| WorkloadView::clone(&view))
            .collect();
        found.sort_by(|a, b| b.config.created.cmp(&a.config.created).then_with(|| a.id().cmp(b.id())));
        if let Some(limit) = filter.limit {
            found.truncate(limit);
        }
        Ok(found)
    }

    /// # Errors
    /// `Unsupported` when its log driver keeps nothing.
    pub async fn logs(&self, name: &str, query: LogQuery) -> Result<LogStream, EngineError> {
        let handle = self.find(name)?;
        let Some(path) = handle.config.log_path.clone() else {
            return Err(EngineError::unsupported(format!(
                "configured logging driver does not support reading: {name} was created with the log driver none"
            )));
        };
        Ok(log::read(path, query, handle.watch()))
    }

    /// What stands before each line of its log where details are wanted: empty, or `key=value,key=value`.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn log_details(&self, name: &str) -> Result<String, EngineError> {
        log_details::of(&self.find(name)?.view())
    }

    pub async fn stats(&self, name: &str) -> Result<Stats, EngineError> {
        let handle = self.find(name)?;
        Ok(self.running(&handle)?.stats().await?)
    }

    pub async fn processes(&self, name: &str, ps_args: &str) -> Result<ProcessTable, EngineError> {
        let handle = self.find(name)?;
        let table = self.running(&handle)?.processes(ps_args).await?;
        handle.emit(self, "top", []);
        Ok(table)
    }

    /// `None` for kinds that start no instances.
    pub async fn invocations(&self, name: &str) -> Result<Option<InvocationStats>, EngineError> {
        let handle = self.find(name)?;
        let workload = self.running(&handle)?;
        match workload.as_invocations() {
            Some(invocations) => Ok(Some(invocations.invocations().await?)),
            None => Ok(None),
        }
    }

    fn running(&self, handle: &Arc<Handle>) -> Result<Arc<dyn Workload>, EngineError> {
        let alive = handle.view().state.status.is_alive();
        handle
            .workload()
            .filter(|_| alive)
            .ok_or_else(|| EngineError::conflict(format!("container {} is not running", handle.id())))
    }

    pub async fn resize(&self, name: &str, columns: u16, rows: u16) -> Result<(), EngineError> {
        let handle = self.find(name)?;
        let workload = self.running(&handle)?;
        match workload.as_attach() {
            // As Docker has it: what has no terminal has no size to change, and nobody is told off.
            Some(_) if !handle.config.spec.tty => {}
            Some(attach) => attach.resize(columns, rows).await?,
            None => return Err(EngineError::unsupported(format!("{name} has no terminal"))),
        }
        let (height, width) = (rows.to_string(), columns.to_string());
        handle.emit(self, "resize", [("height", height.as_str()), ("width", width.as_str())]);
        Ok(())
    }

    /// Attaches a client, also to a workload that does not run yet.
    pub async fn attach(&self, name: &str, how: Attach) -> Result<AttachSession, EngineError> {
        let handle = self.find(name)?;
        let status = handle.view().state.status;
        if matches!(status, Status::Removing | Status::Dead) {
            return Err(EngineError::conflict(format!(
                "container {} is marked for removal and cannot be attached to",
                handle.id()
            )));
        }
        if status == Status::Paused {
            return Err(EngineError::conflict(format!(
                "container {} is paused, unpause the container before attach",
                handle.id()
            )));
        }
        let logged = if how.logs && handle.config.log_path.is_some() {
            let query = LogQuery {
                stdout: how.stdout,
                stderr: how.stderr,
                follow: false,
                since: None,
                until: None,
                tail: None,
            };
            Some(self.logs(name, query).await?)
        } else {
            None
        };
        let stream: BoxFuture<'static, _> = if how.stream {
            handle.streams_when_running(how.stdin && handle.config.spec.open_stdin)
        } else {
            Box::pin(async { Ok(None) })
        };
        handle.emit(self, "attach", []);
        Ok(AttachSession { tty: handle.config.spec.tty, logged, stream })
    }

    /// Where `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname` of a container lie on the host; `None` before its first
    /// start, and for components. The runner puts them there in the order in which it is handed them.
    pub fn etc_files(&self, container: &WorkloadView) -> Option<[PathBuf; 3]> {
        container.state.started_at?;
        let folder = self.etc_folder(&container.config.spec.id);
        matches!(container.config.program, Program::Layers { .. })
            .then(|| ["0", "1", "2"].map(|name| folder.join(name)))
    }

    /// Where those files lie. On the disk: in the exec root, which is memory, a container could fill the machine's.
    pub(crate) fn etc_folder(&self, id: &WorkloadId) -> PathBuf {
        self.dirs(id).state.join("etc")
    }

    /// IDs of the workloads made from an image, or being made.
    pub fn image_users(&self, image_id: &str) -> Vec<String> {
        let mut users: Vec<String> =
            self.claims().iter().filter(|(_, claims)| claims.image == image_id).map(|(id, _)| id.clone()).collect();
        let handles = self.handles();
        users.extend(handles.iter().filter(|one| one.config.image_id == image_id).map(|one| one.id().to_owned()));
        users.extend(self.unreadable().mentioning(image_id));
        users.sort_unstable();
        users.dedup();
        users
    }
}

/// How long a workload has to end by itself; `None` as long as it likes.
fn patience(handle: &Handle, how: StopRequest) -> Option<Duration> {
    match how.timeout_secs {
        None => Some(handle.config.spec.stop_timeout),
        Some(seconds) => u64::try_from(seconds).ok().map(Duration::from_secs),
    }
}

/// Puts a folder that is to be removed where nobody takes it for whole. Where none is, its mark is put there all the same.
/// Blocking.
pub(crate) fn set_aside(folder: &Path, aside: &Path) -> Result<(), EngineError> {
    match std::fs::rename(folder, aside) {
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
            // There already, or there is no room for it: nothing of the folder is left in either case.
            let _ = std::fs::DirBuilder::new().mode(0o700).create(aside);
            Ok(())
        }
        Err(source) => Err(EngineError::File { path: folder.to_owned(), source }),
        Ok(()) => Ok(()),
    }
}

/// What is told after a removal of many, of which some stay: each with its reason.
///
/// # Errors
/// `Conflict` where any stays.
pub(crate) fn all_removed(what: &str, removed: usize, staying: Vec<String>) -> Result<(), EngineError> {
    if staying.is_empty() {
        return Ok(());
    }
    Err(EngineError::conflict(format!("{removed} {what} were removed, {} stay: {}", staying.len(), staying.join("; "))))
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// What a create made so far that a refusal has to unmake.
#[derive(Default)]
struct Made {
    volumes: Vec<String>,
    dirs: bool,
    /// A note tells of it, for a next engine.
    noted: bool,
    /// The database may know of it.
    recorded: bool,
}

/// Unmakes what a create made when it is dropped in the middle.
struct Undo {
    engine: Engine,
    id: WorkloadId,
    name: String,
    /// `None` once it has come to its end.
    made: Option<Made>,
}

impl Drop for Undo {
    fn drop(&mut self) {
        let Some(made) = self.made.take() else { return };
        let (engine, id) = (self.engine.clone(), self.id.clone());
        engine.claims().remove(id.as_str());
        engine.release_name(&self.name, id.as_str());
        // Without a runtime the engine is ending, and the next one finds its note.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let tasks = engine.inner.tasks.clone();
            drop(tasks.spawn_on(async move { engine.unmake(&id, made).await }, &runtime));
        }
    }
}

fn matches(filter: &ContainerFilter, ancestors: &HashSet<String>, view: &WorkloadView) -> bool {
    let any =
        |values: &[String], holds: &dyn Fn(&str) -> bool| values.is_empty() || values.iter().any(|value| holds(value));
    let spec = &view.config.spec;
    let status = view.state.status;
    // A filter that speaks of states looks at all of them.
    let shown = filter.all
        || filter.limit.is_some()
        || !filter.status.is_empty()
        || !filter.exited.is_empty()
        || status.is_alive()
        || status == Status::Restarting;
    shown
        && any(&filter.ids, &|id| view.id().starts_with(id))
        && filter.labels.iter().all(|label| has_label(&spec.labels, label))
        && any(&filter.status, &|wanted| wanted == status.as_str())
        && (filter.exited.is_empty()
            || (matches!(status, Status::Exited | Status::Dead) && filter.exited.contains(&view.state.exit_code)))
        && (ancestors.is_empty() || is_ancestor(ancestors, view))
        && any(&filter.networks, &|wanted| {
            view.endpoints.iter().any(|e| e.network_name == wanted || e.network.starts_with(wanted))
        })
        && any(&filter.volumes, &|wanted| view.config.mounts.iter().any(|m| m.name == wanted || m.target == wanted))
        && !filter.tasks
        && any(&filter.health, &|wanted| view.health.as_ref().map_or("none", |health| &health.status) == wanted)
        && (filter.publish.is_empty()
            || view.ports.iter().any(|port| {
                filter.publish.contains(&Port { number: port.host.port(), protocol: port.container.protocol })
            }))
        && (filter.expose.is_empty() || spec.ports.iter().any(|port| filter.expose.contains(port)))
}

fn is_ancestor(ancestors: &HashSet<String>, view: &WorkloadView) -> bool {
    let id = &view.config.image_id;
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    let image = &view.config.spec.image;
    let tagged = if image.rsplit('/').next().is_some_and(|last| last.contains(':')) {
        image.clone()
    } else {
        format!("{image}:latest")
    };
    ancestors.iter().any(|wanted| {
        wanted == id || wanted == image || *wanted == tagged || (wanted.len() >= 4 && hex.starts_with(wanted.as_str()))
    })
}
