//! The control socket: what the daemon asks of this process.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::Context as _;
use bireme_core::clock::now_nanos;
use bireme_core::spec::Protocol;
use bireme_core::{ErrorKind, Exit, WorkloadId};
use bireme_wasm::cgroup::SocketMemory;
use bireme_wasm::protocol::{
    self, Answer, Brief, DAMAGED, FdUse, HostConfig, HostState, Load, Refusal, Request, Trigger, WorkloadState,
};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore};
use tokio_util::task::TaskTracker;
use wasmtime::Engine;

use crate::budget::Budget;
use crate::component::{Component, Folder, MOST_LOOKUPS_OF_ALL, NetworkIdentity, Phase, Shared};
use crate::engine::{self, Size};
use crate::guest::Guest;
use crate::host::store::Embedded;
use crate::host::tls::Trust;
use crate::log::{LogHandle, feed};
use crate::names::Networks;
use crate::stock::{Own, Stock};
use crate::trigger::http::Place;
use crate::trigger::{Program, clients, command, http, redis, socket};
use crate::{confine, linker, watch};

/// How long instances may take to be gone once they were cut.
const INSIST: Duration = Duration::from_secs(2);
/// How long the end of a workload waits for its log to be written.
const WRITTEN: Duration = Duration::from_secs(60);
/// How long a process that is over waits for clients that read what its last workload printed; shorter than it is waited for.
const LAST_WORDS: Duration = Duration::from_secs(4);
/// Runs a host process until its last workload is deleted.
///
/// Prints `ready` and closes standard output once the control socket answers.
///
/// # Errors
/// When the process cannot be set up as `config` says.
pub fn serve(config: HostConfig) -> anyhow::Result<()> {
    confine::enter(&config)?;
    let socket = bind(&config)?;
    let engine = engine::new(Size::Serving).map_err(anyhow::Error::from).context("cannot set up the engine")?;
    let null = std::fs::OpenOptions::new().write(true).open("/dev/null").context("cannot open /dev/null")?;
    // What it is asked for later is found out now: the machine is out of sight then.
    let budget = Arc::new(Budget::of_machine());
    // Kept by the library that asks the kernel for it, which is not answered later.
    let _ = rustix::param::page_size();
    let socket_memory = SocketMemory::open(&config.cgroup);
    let rooms = confine::close_in(&config)?;
    engine::tick(&engine).context("cannot start the engine's clock")?;
    let descriptors = Stock::of_descriptors();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    // On a thread of its own: the daemon is answered however busy the guests are.
    let control =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let host = Host {
        main: runtime.handle().clone(),
        linker: linker::new(&engine).map_err(anyhow::Error::from).context("cannot link the host interfaces")?,
        linker_p1: linker::new_p1(&engine).map_err(anyhow::Error::from).context("cannot link WASI preview 1")?,
        components: Mutex::default(),
        networks: Networks::default(),
        shared: Shared {
            engine: engine.clone(),
            embedded: Arc::new(Embedded::new(rooms.kv, &descriptors)),
            places: Arc::default(),
            budget,
            descriptors,
            threads: Stock::of_threads(),
            lookups: Arc::new(Semaphore::new(MOST_LOOKUPS_OF_ALL)),
        },
        done: Notify::new(),
        feeding: TaskTracker::new(),
        owner_uid: config.owner_uid,
    };
    control.block_on(async {
        let socket = UnixListener::from_std(socket).context("cannot listen on the control socket")?;
        let mut stdout = std::io::stdout();
        let _ = writeln!(stdout, "ready").and_then(|()| stdout.flush());
        // Tells whoever started this process that nothing more comes.
        let _ = rustix::stdio::dup2_stdout(&null);
        let host = Arc::new(host);
        let (of, largest) = (Arc::clone(&host), Arc::clone(&host));
        let watch = watch::memory(socket_memory, move || of.brief().memory, move || largest.end_largest());
        let watch = tokio::spawn(watch);
        host.run(socket).await;
        watch.abort();
        anyhow::Ok(())
    })?;
    socket::leave_to_kernel();
    runtime.shutdown_timeout(Duration::from_millis(200));
    Ok(())
}

fn bind(config: &HostConfig) -> anyhow::Result<std::os::unix::net::UnixListener> {
    let path = config.dir.join("host.sock");
    // A socket that nobody answers is a dead host's.
    let _ = std::fs::remove_file(&path);
    let socket = std::os::unix::net::UnixListener::bind(&path)
        .with_context(|| format!("cannot make the control socket {}", path.display()))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

struct Host {
    /// Where workloads run. What the daemon asks is answered on another runtime.
    main: tokio::runtime::Handle,
    linker: wasmtime::component::Linker<Guest>,
    linker_p1: wasmtime::Linker<Guest>,
    components: Mutex<HashMap<WorkloadId, Arc<Loaded>>>,
    networks: Networks,
    shared: Shared,
    /// Told when the last workload is gone.
    done: Notify,
    /// The output of attached clients that is on its way.
    feeding: TaskTracker,
    owner_uid: u32,
}

/// A workload with what is released when it is deleted.
struct Loaded {
    component: Arc<Component>,
    places: Vec<Place>,
    exit: Mutex<Option<std::fs::File>>,
    /// Its files, folders and listening sockets, which count before what guests open.
    _descriptors: Own,
}

fn refuse(kind: ErrorKind, message: impl Into<String>) -> Refusal {
    Refusal::new(kind, message)
}

impl Host {
    fn sites(&self) -> parking_lot::RwLockWriteGuard<'_, HashMap<Place, Arc<http::Site>>> {
        self.shared.places.0.write()
    }

    async fn run(self: Arc<Self>, socket: UnixListener) {
        loop {
            tokio::select! {
                accepted = socket.accept() => match accepted {
                    Ok((stream, _)) => {
                        let host = Arc::clone(&self);
                        tokio::spawn(async move { host.answer(stream).await });
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                },
                () = self.done.notified() => break,
            }
        }
        // Whoever is attached reads the last words, which may be on their way yet.
        self.feeding.close();
        let _ = tokio::time::timeout(LAST_WORDS, self.feeding.wait()).await;
    }

    async fn answer(self: Arc<Self>, stream: UnixStream) {
        let peer = stream.peer_cred().map(|cred| cred.uid());
        if !peer.is_ok_and(|uid| uid == 0 || uid == self.owner_uid) {
            return;
        }
        let Ok(Some((request, fds))) = protocol::receive::<Request>(&stream).await else { return };
        let deleted = matches!(request, Request::Delete { .. });
        // Before the answer: what the workload prints once it was given must not be missed.
        let attached = match &request {
            Request::Attach { id, stdin } => match self.find(id) {
                Ok(loaded) => {
                    let component = Arc::clone(&loaded.component);
                    Some((component.log.attach().await, stdin.then_some(component)))
                }
                Err(_) => None,
            },
            _ => None,
        };
        let answer = self.carry_out(request, fds).await;
        // The daemon takes no more than that.
        let answer = answer.map_err(|refusal| Refusal { message: protocol::sentence(&refusal.message), ..refusal });
        let attached = attached.filter(|_| answer.is_ok());
        if protocol::send(&stream, &answer, &[]).await.is_err() {
            return;
        }
        if let Some((frames, component)) = attached {
            let (mut read, write) = stream.into_split();
            let mut output = std::pin::pin!(self.feeding.track_future(feed(write, frames)));
            let taken = async {
                if let Some(input) = component.as_ref().and_then(|component| component.input.as_ref()) {
                    input.feed(&mut read).await;
                }
                // What nobody reads is thrown away, as a container does that was made without standard input, so that the
                // client is not left hanging in the middle of it.
                let _ = tokio::io::copy(&mut read, &mut tokio::io::sink()).await;
            };
            // Input that is over does not end the connection, output that is over does.
            tokio::select! {
                () = output.as_mut() => return,
                () = taken => {}
            }
            output.await;
        } else if deleted && self.components.lock().is_empty() {
            self.done.notify_one();
        }
    }

    async fn carry_out(self: &Arc<Self>, request: Request, fds: Vec<OwnedFd>) -> Answer {
        match request {
            Request::Ping => value(&self.state()),
            Request::Brief => value(&self.brief()),
            Request::Known { id } => {
                let found = self.find(&id).ok();
                value(&found.map(|loaded| *loaded.component.phase().borrow() != Phase::Loaded))
            }
            Request::Load(load) => {
                let host = Arc::clone(self);
                // Reads the code, which takes its time.
                let loaded = self.main.spawn_blocking(move || {
                    let _main = host.main.enter();
                    host.load(*load, fds)
                });
                loaded.await.unwrap_or_else(|error| Err(broke("load a component", &error)))?;
                value(&self.brief())
            }
            Request::Start { id } => {
                let _main = self.main.enter();
                self.start(&id)?;
                value(&())
            }
            Request::Signal { id, signal } => {
                let _main = self.main.enter();
                self.signal(&id, signal)?;
                value(&())
            }
            Request::Wait { id } => value(&wait(&self.find(&id)?.component).await),
            Request::Usage { id } => value(&self.usage(&self.find(&id)?.component)),
            Request::Instances { id } => value(&listed(self.find(&id)?.component.instances())),
            Request::Invocations { id } => {
                let component = Arc::clone(&self.find(&id)?.component);
                value(&component.metrics.snapshot(component.trigger.name()))
            }
            Request::Names { changes } => {
                for (network, change) in changes {
                    self.networks.change(&network, change);
                }
                value(&())
            }
            Request::Networks { id, networks } => {
                self.find(&id)?.component.set_names(self.networks.view(networks));
                value(&())
            }
            Request::Renamed { id, name } => {
                self.find(&id)?.component.set_name(&name);
                value(&())
            }
            Request::Attach { id, stdin: _ } => {
                self.find(&id)?;
                value(&())
            }
            Request::Delete { id } => {
                let host = Arc::clone(self);
                let deleted = self.main.spawn(async move { host.delete(&id).await });
                deleted.await.unwrap_or_else(|error| Err(broke("delete a component", &error)))?;
                value(&())
            }
        }
    }

    fn state(&self) -> HostState {
        let workloads = self
            .components
            .lock()
            .values()
            .map(|loaded| WorkloadState {
                id: loaded.component.spec.id.clone(),
                started: *loaded.component.phase().borrow() != Phase::Loaded,
            })
            .collect();
        let published = |place: &Place| match place {
            Place::Published(address) => Some(*address),
            Place::Inside(_) => None,
        };
        let listeners = self.sites().keys().filter_map(published).collect();
        HostState { workloads, listeners }
    }

    fn brief(&self) -> Brief {
        let components = self.components.lock();
        let memory = components.values().fold(0u64, |sum, loaded| sum.saturating_add(loaded.component.memory_most()));
        Brief { workloads: components.len(), memory }
    }

    /// What a component used, and its share of what the process takes beside all instances.
    fn usage(&self, component: &Component) -> protocol::Usage {
        let (count, live) = {
            let components = self.components.lock();
            let live = |loaded: &Arc<Loaded>| loaded.component.metrics.memory.load(Relaxed);
            (components.len().max(1) as u64, components.values().map(live).sum::<u64>())
        };
        let resident = watch::resident().map_or(0, |resident| resident.anonymous + resident.shared);
        component.usage(resident.saturating_sub(live) / count)
    }

    /// Ends the instance that holds the most, if there is one.
    fn end_largest(&self) {
        let components: Vec<Arc<Loaded>> = self.components.lock().values().cloned().collect();
        let largest = components.iter().filter_map(|loaded| loaded.component.largest());
        if let Some(account) = largest.max_by_key(|account| account.used()) {
            account.doom();
        }
    }

    fn find(&self, id: &WorkloadId) -> Result<Arc<Loaded>, Refusal> {
        let found = self.components.lock().get(id).cloned();
        found.ok_or_else(|| refuse(ErrorKind::NotFound, format!("this host process runs no component {}", id.short())))
    }

    fn load(self: &Arc<Self>, load: Load, fds: Vec<OwnedFd>) -> Result<(), Refusal> {
        let id = load.spec.id.clone();
        if self.components.lock().contains_key(&id) {
            return Err(refuse(ErrorKind::Conflict, format!("component {} is loaded already", id.short())));
        }
        if fds.len() != load.fds.len() {
            return Err(refuse(ErrorKind::Internal, "descriptors were lost on the way to the host process"));
        }
        // Those that were handed over, the log that is opened, and the addresses of its own that it listens on.
        let inside = load.network.as_ref().map_or(0, |place| place.addresses.len() * load.spec.ports.len().max(1));
        let own = self.shared.descriptors.own(fds.len() + 2 + inside);
        let (mut code, mut exit, mut log_folder, mut sockets, mut folders) =
            (None, None, None, HashMap::new(), Vec::new());
        for (fd, what) in fds.into_iter().zip(load.fds) {
            match what {
                FdUse::Code => code = Some(fd),
                FdUse::Exit => exit = Some(std::fs::File::from(fd)),
                FdUse::LogFolder => log_folder = Some(fd),
                FdUse::Listener(address) => {
                    sockets.insert(address, fd);
                }
                FdUse::Folder { target, read_only } => {
                    let path = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
                    folders.push(Folder { target, read_only, path, open: fd });
                }
            }
        }
        let code = code.ok_or_else(|| refuse(ErrorKind::Internal, "no compiled code came with the component"))?;
        let program = self.program(load.facts.trigger, &code)?;
        let misplaced = add_working_folder(&load.spec.cwd, &mut folders);
        let log = LogHandle::start(load.log, log_folder)
            .map_err(|error| refuse(ErrorKind::Internal, format!("cannot open the component's log: {error}")))?;
        let ports: Vec<u16> =
            load.spec.ports.iter().filter(|port| port.protocol == Protocol::Tcp).map(|port| port.number).collect();
        let addresses = load.network.as_ref().map(|place| place.addresses.clone()).unwrap_or_default();
        let trigger = load.facts.trigger;
        let trust = Trust::read(&load.spec.env, &load.spec.cwd, &folders)
            .map_err(|text| refuse(ErrorKind::Invalid, format!("{text} ({})", load.spec.name)))?;
        if let Trust::Elsewhere(text) = &trust {
            log.note(&format!("bireme: {text}"));
        }
        if let Some(text) = misplaced {
            log.note(&format!("bireme: {text}"));
        }
        let names = self.networks.view(load.networks);
        let standing = NetworkIdentity { addresses: addresses.clone(), names, tls: trust.config() };
        let component =
            Arc::new(Component::new(load.spec, trigger, program, log, folders, standing, self.shared.clone()));
        let mut loaded = Loaded { component, places: Vec::new(), exit: Mutex::new(exit), _descriptors: own };
        let opened = if matches!(trigger, Trigger::HttpP2 | Trigger::HttpP3) {
            self.open_places(&mut loaded, &load.listeners, sockets, &addresses, &ports)
        } else {
            Ok(())
        };
        if let Err(refusal) = opened {
            self.close_places(&loaded);
            return Err(refusal);
        }
        self.components.lock().insert(id, Arc::new(loaded));
        clients::allow(self.brief().memory);
        Ok(())
    }

    fn program(&self, trigger: Trigger, code: &OwnedFd) -> Result<Program, Refusal> {
        let path = PathBuf::from(format!("/proc/self/fd/{}", code.as_raw_fd()));
        let damaged = |error: wasmtime::Error| refuse(ErrorKind::Internal, format!("{DAMAGED}: {error:#}"));
        if trigger == Trigger::CommandP1 {
            let module = deserialize_module(&self.shared.engine, &path).map_err(damaged)?;
            return self.linker_p1.instantiate_pre(&module).map(Program::CommandP1).map_err(damaged);
        }
        let component = deserialize_component(&self.shared.engine, &path).map_err(damaged)?;
        let pre = self.linker.instantiate_pre(&component).map_err(damaged)?;
        Program::new(trigger, pre).map_err(damaged)
    }

    /// Joins every place the component answers at, listening where it is the first.
    fn open_places(
        &self,
        loaded: &mut Loaded,
        published: &[SocketAddr],
        mut sockets: HashMap<SocketAddr, OwnedFd>,
        addresses: &[IpAddr],
        ports: &[u16],
    ) -> Result<(), Refusal> {
        let ports = if ports.is_empty() { &[80] } else { ports };
        let inside =
            addresses.iter().flat_map(|ip| ports.iter().map(|port| Place::Inside(SocketAddr::new(*ip, *port))));
        let places: Vec<Place> = published.iter().map(|address| Place::Published(*address)).chain(inside).collect();
        for place in places {
            let mut sites = self.sites();
            let site = match sites.get(&place) {
                Some(site) => Arc::clone(site),
                None => {
                    let listener = match place {
                        Place::Published(address) => {
                            sockets.remove(&address).map(std::net::TcpListener::from).ok_or_else(|| {
                                refuse(ErrorKind::Internal, format!("no listening socket came for {address}"))
                            })?
                        }
                        Place::Inside(address) => listen_inside(address)?,
                    };
                    let listener = listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener));
                    let listener = listener.map_err(|error| {
                        refuse(ErrorKind::Internal, format!("cannot use the socket of {place:?}: {error}"))
                    })?;
                    let site = Arc::new(http::Site::new());
                    tokio::spawn(http::listen(listener, Arc::clone(&site)));
                    sites.insert(place, Arc::clone(&site));
                    site
                }
            };
            drop(sites);
            loaded.places.push(place);
            site.join(&loaded.component).map_err(|(other, route)| {
                let (Place::Published(address) | Place::Inside(address)) = place;
                refuse(
                    ErrorKind::Conflict,
                    format!(
                        "route {route} of {} on {address} is served by {other} already; give the two different \
                         bireme.http.route labels or ports",
                        loaded.component.name()
                    ),
                )
            })?;
        }
        Ok(())
    }

    fn close_places(&self, loaded: &Loaded) {
        let mut sites = self.sites();
        for place in &loaded.places {
            if sites.get(place).is_some_and(|site| site.leave(&loaded.component.spec.id))
                && let Some(site) = sites.remove(place)
            {
                site.close();
            }
        }
    }

    fn set_active(&self, loaded: &Loaded, active: bool) {
        let sites = self.sites();
        for site in loaded.places.iter().filter_map(|place| sites.get(place)) {
            site.set_active(&loaded.component.spec.id, active);
        }
    }

    fn start(self: &Arc<Self>, id: &WorkloadId) -> Result<(), Refusal> {
        let loaded = self.find(id)?;
        let component = &loaded.component;
        if !component.run() {
            let text = format!("component {} was started before", component.name());
            return Err(refuse(ErrorKind::Conflict, text));
        }
        match component.trigger {
            Trigger::HttpP2 | Trigger::HttpP3 => self.set_active(&loaded, true),
            Trigger::CommandP1 | Trigger::CommandP2 | Trigger::CommandP3 => {
                let host = Arc::clone(self);
                let running = tokio::spawn(command::run(Arc::clone(&loaded.component)));
                tokio::spawn(async move {
                    let exit = running.await.unwrap_or_else(|error| command_broke(&loaded.component, &error));
                    host.end(&loaded, exit).await;
                });
            }
            Trigger::RedisP2 | Trigger::RedisP3 => {
                tokio::spawn(redis::listen(Arc::clone(component)));
            }
        }
        Ok(())
    }

    /// SIGKILL cuts; the stop signals let an HTTP or message component finish what it is at.
    fn signal(self: &Arc<Self>, id: &WorkloadId, signal: i32) -> Result<(), Refusal> {
        const HUP: i32 = 1;
        const INT: i32 = 2;
        const QUIT: i32 = 3;
        const KILL: i32 = 9;
        const TERM: i32 = 15;
        let loaded = self.find(id)?;
        let component = &loaded.component;
        let phase = component.phase().borrow().clone();
        match phase {
            Phase::Loaded => return Err(refuse(ErrorKind::Conflict, "the component was not started yet")),
            Phase::Ended(_) => return Err(refuse(ErrorKind::Conflict, "the component is not running")),
            Phase::Running | Phase::Stopping => {}
        }
        let stops = [HUP, INT, QUIT, TERM].contains(&signal) || signal == component.spec.stop_signal.0;
        if signal != KILL && !stops {
            let text = format!(
                "a component has no handler for signal {signal}; it can be stopped (SIGTERM, SIGINT) and killed (SIGKILL)"
            );
            return Err(refuse(ErrorKind::Unsupported, text));
        }
        let host = Arc::clone(self);
        let is_command = component.trigger.name() == "command";
        tokio::spawn(async move {
            let component = &loaded.component;
            host.set_active(&loaded, false);
            if is_command {
                // Ends by itself, with this code.
                component.cut(128 + signal);
                if signal == KILL {
                    host.insist(&loaded).await;
                }
                return;
            }
            if signal == KILL {
                component.cut(137);
                host.insist(&loaded).await;
                return;
            }
            // A kill may overtake a stop that still waits; the end is recorded once.
            let overtaken = component.cancelled();
            tokio::select! {
                () = component.drain() => {}
                () = overtaken.cancelled() => return,
            }
            host.end(&loaded, Exit { code: 0, oom_killed: false, finished_at: now_nanos(), error: None }).await;
        });
        Ok(())
    }

    /// Records the end of a workload that was cut: as soon as its instances are gone, and soon in any case. One that holds
    /// its thread, in a call of the host that does not return, must not keep the workload from ending.
    async fn insist(&self, loaded: &Loaded) {
        let component = &loaded.component;
        if tokio::time::timeout(INSIST, component.drain()).await.is_err() {
            crate::complain(&format!("instances of {} did not end in time", component.spec.name));
        }
        self.end(loaded, Exit { code: 137, oom_killed: false, finished_at: now_nanos(), error: None }).await;
    }

    /// Records how a workload ended: in its log, its exit file, and to everyone who waits.
    async fn end(&self, loaded: &Loaded, exit: Exit) {
        let exit = Exit { error: exit.error.as_deref().map(protocol::sentence), ..exit };
        self.set_active(loaded, false);
        // Whoever is attached and reads nothing keeps the writer for a while; the end does not wait longer than that.
        let killed = loaded.component.cancelled().is_cancelled();
        let _ = tokio::time::timeout(if killed { INSIST } else { WRITTEN }, loaded.component.log.finish()).await;
        if let Some(mut file) = loaded.exit.lock().take() {
            // One write of a small record: readers see nothing or all of it.
            if let Ok(text) = serde_json::to_vec(&exit)
                && let Err(error) = file.write_all(&text).and_then(|()| file.sync_data())
            {
                crate::complain(&format!("cannot record the end of {}: {error}", loaded.component.name()));
            }
        }
        loaded.component.end(exit);
    }

    async fn delete(&self, id: &WorkloadId) -> Result<(), Refusal> {
        let loaded = self.find(id)?;
        self.set_active(&loaded, false);
        loaded.component.cut(137);
        self.insist(&loaded).await;
        self.close_places(&loaded);
        self.components.lock().remove(id);
        Ok(())
    }
}

/// The end of a command whose task broke: a fault of this process, which must not leave the command running for ever.
fn command_broke(component: &Component, error: &tokio::task::JoinError) -> Exit {
    let text = format!("the host process failed while it ran {}: {error}", component.spec.name);
    crate::complain(&text);
    component.log.note(&format!("bireme: {text}"));
    Exit { code: 134, oom_killed: false, finished_at: now_nanos(), error: Some(text) }
}

/// As many instances as an answer holds, and of their work what fits beside it.
fn listed(mut instances: Vec<protocol::Instance>) -> Vec<protocol::Instance> {
    instances.truncate(protocol::MAX_INSTANCES);
    for instance in &mut instances {
        instance.work = protocol::line(&instance.work, protocol::MAX_WORK);
    }
    instances
}

/// A fault of this process, which is told and ends nothing else.
fn broke(what: &str, error: &tokio::task::JoinError) -> Refusal {
    refuse(ErrorKind::Internal, format!("the host process failed to {what}: {error}"))
}

fn value<T: Serialize>(answer: &T) -> Answer {
    serde_json::to_value(answer)
        .map_err(|error| refuse(ErrorKind::Internal, format!("the answer cannot be written: {error}")))
}

async fn wait(component: &Component) -> Exit {
    let mut phase = component.phase();
    loop {
        if let Phase::Ended(exit) = &*phase.borrow_and_update() {
            return exit.clone();
        }
        if phase.changed().await.is_err() {
            return Exit { code: 137, oom_killed: false, finished_at: now_nanos(), error: None };
        }
    }
}

/// Makes the working directory the folder in which relative paths begin, if it lies in a folder of the workload: most
/// guests have no other notion of one. Answers what is wrong with it.
fn add_working_folder(cwd: &str, folders: &mut Vec<Folder>) -> Option<String> {
    use rustix::fs::{Mode, OFlags, ResolveFlags};
    if cwd.is_empty() || cwd == "/" {
        return None;
    }
    let (folder, rest) = folders
        .iter()
        .filter_map(|folder| Some((folder, Path::new(cwd).strip_prefix(&folder.target).ok()?)))
        .max_by_key(|(folder, _)| folder.target.len())?;
    if folders.iter().any(|folder| folder.target == "/") {
        // Both would be the folder of paths that begin with `/`, and guests take the wrong one.
        return Some(format!("the working directory {cwd} has no effect where a folder is mounted at /"));
    }
    let path = if rest.as_os_str().is_empty() { Path::new(".") } else { rest };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // Links in it are the guests' work.
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(&folder.open, path, flags, Mode::empty(), resolve) {
        Ok(open) => {
            let path = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
            let read_only = folder.read_only;
            folders.push(Folder { target: ".".to_owned(), read_only, path, open });
            None
        }
        Err(error) => Some(format!("the working directory {cwd} cannot be used: {error}")),
    }
}

/// Listens on an address of the sandbox, which may be put on its interface later or still be checked by the kernel.
fn listen_inside(address: SocketAddr) -> Result<std::net::TcpListener, Refusal> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
    let listen = || -> rustix::io::Result<OwnedFd> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        if address.is_ipv4() {
            sockopt::set_ip_freebind(&socket, true)?;
        } else {
            sockopt::set_ipv6_freebind(&socket, true)?;
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        rustix::net::bind(&socket, &address)?;
        rustix::net::listen(&socket, 1024)?;
        Ok(socket)
    };
    listen().map(std::net::TcpListener::from).map_err(|error| {
        refuse(ErrorKind::Unavailable, format!("cannot listen on {address} in the network of the component: {error}"))
    })
}

#[expect(unsafe_code, reason = "the one place where code compiled by ourselves is mapped")]
fn deserialize_component(engine: &Engine, path: &std::path::Path) -> wasmtime::Result<wasmtime::component::Component> {
    // SAFETY: the file was copied by the daemon from what `bireme-wasm-host compile` of this build had written, into a
    // folder that only the daemon can write to, and its checksum was compared by the daemon.
    unsafe { wasmtime::component::Component::deserialize_file(engine, path) }
}

#[expect(unsafe_code, reason = "the one place where code compiled by ourselves is mapped")]
fn deserialize_module(engine: &Engine, path: &std::path::Path) -> wasmtime::Result<wasmtime::Module> {
    // SAFETY: as in `deserialize_component`.
    unsafe { wasmtime::Module::deserialize_file(engine, path) }
}
