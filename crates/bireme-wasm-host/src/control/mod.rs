//! The control socket: what the daemon asks of this process.

mod life;
mod load;
mod sites;

use std::collections::HashMap;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use anyhow::Context as _;
use bireme_core::error::one_line;
use bireme_core::{ErrorKind, WorkloadId};
use bireme_wasm::cgroup::{self, SocketMemory};
use bireme_wasm::protocol::{self, Answer, Brief, HostConfig, HostState, Refusal, Request, WorkloadState};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore};
use tokio_util::task::TaskTracker;

use crate::budget::Budget;
use crate::clients::socket;
use crate::component::{Component, MOST_LOOKUPS_OF_ALL, Shared};
use crate::embedded::Embedded;
use crate::engine::{self, Engines, Size};
use crate::guest::Guest;
use crate::linker::{self, Linkers};
use crate::log::feed;
use crate::names::Networks;
use crate::program::Program;
use crate::stock::{Own, Stock};
use crate::trigger::http::{SiteAddress, Sites};
use crate::trigger::messages::{Subscription, machine};
use crate::workload::{Phase, Workload};
use crate::{confine, watch};
use life::wait;

/// How long a process that is over waits for clients that read what its last workload printed; shorter than it is waited for.
const LAST_WORDS: Duration = Duration::from_secs(4);
/// Runs a host process until its last workload is deleted.
///
/// Prints `ready` and closes standard output once the control socket answers.
///
/// # Errors
/// When the process cannot be set up as `config` says.
pub fn serve(config: HostConfig) -> anyhow::Result<()> {
    confine::join(&config)?;
    confine::set_apart()?;
    run(config, None)
}

/// The same with a configuration that comes on standard input, a socket, with a descriptor to complain on. What is the same for
/// every host is ready by then. Ends when nobody sends one.
///
/// # Errors
/// As [`serve`].
pub fn serve_when_told() -> anyhow::Result<()> {
    confine::set_apart()?;
    // Whether memory may be swapped out depends on the cgroup, unless there is nowhere to swap it to.
    let engines = if cgroup::has_swap() { None } else { Some(serving_engines(false)?) };
    let Some((config, voice, leash)) = receive_config()? else { return Ok(()) };
    rustix::stdio::dup2_stderr(&voice).context("cannot take the way to complain")?;
    confine::join(&config)?;
    // Who gave it up looks into the cgroup afterwards: one of both sees the other.
    if is_hung_up(&leash)? {
        return Ok(());
    }
    drop(leash);
    run(config, engines)
}

/// Whether the other end of a socket is closed.
fn is_hung_up(socket: &std::os::unix::net::UnixStream) -> std::io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut polled = [PollFd::new(socket, PollFlags::RDHUP)];
    poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    Ok(polled[0].revents().intersects(PollFlags::RDHUP | PollFlags::HUP))
}

/// Waits for what a spare host is for, without starting a thread. Comes with where to complain, and with the socket, which is
/// closed by whoever does not want this process any more.
fn receive_config() -> anyhow::Result<Option<(HostConfig, OwnedFd, std::os::unix::net::UnixStream)>> {
    let null = std::fs::File::open("/dev/null").context("cannot open /dev/null")?;
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).context("cannot take standard input")?;
    rustix::stdio::dup2_stdin(&null).context("cannot close standard input")?;
    let socket = std::os::unix::net::UnixStream::from(socket);
    socket.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot wait")?;
    let leash = socket.try_clone().context("cannot keep the socket")?;
    let received = runtime.block_on(async { protocol::receive::<HostConfig>(&UnixStream::from_std(socket)?).await });
    let Some((config, fds)) = received.context("the configuration is not understood")? else { return Ok(None) };
    let voice = fds.into_iter().next().context("no descriptor to complain on came with the configuration")?;
    Ok(Some((config, voice, leash)))
}

fn serving_engines(swapped: bool) -> anyhow::Result<Engines> {
    Engines::new(Size::Serving { swapped }).map_err(anyhow::Error::from).context("cannot set up the engine")
}

fn run(config: HostConfig, engines: Option<Engines>) -> anyhow::Result<()> {
    confine::enter(&config)?;
    let socket = bind(&config)?;
    let swapped = !cgroup::keep_from_swap(&config.cgroup);
    let engines = match engines {
        Some(engines) if !swapped => engines,
        _ => serving_engines(swapped)?,
    };
    let null = std::fs::OpenOptions::new().write(true).open("/dev/null").context("cannot open /dev/null")?;
    // What it is asked for later is found out now: the machine is out of sight then.
    let budget = Arc::new(Budget::of_machine());
    // Kept by the library that asks the kernel for it, which is not answered later.
    let _ = rustix::param::page_size();
    let _ = machine();
    let socket_memory = SocketMemory::open(&config.cgroup);
    let rooms = confine::close_in(&config)?;
    engine::tick(&engines).context("cannot start the engines' clock")?;
    let descriptors = Stock::of_descriptors();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    // On a thread of its own: the daemon is answered however busy the guests are.
    let control =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let sites: Arc<Sites> = Arc::default();
    let sequential = engines.sequential.clone();
    let host = Host {
        main: runtime.handle().clone(),
        linkers: Linkers::default(),
        linker_p1: linker::new_p1(&engines.sequential)
            .map_err(anyhow::Error::from)
            .context("cannot link WASI preview 1")?,
        engines,
        programs: Mutex::default(),
        components: Mutex::default(),
        retiring: Mutex::default(),
        networks: Networks::default(),
        sites: Arc::clone(&sites),
        shared: Shared {
            engine: sequential,
            embedded: Arc::new(Embedded::new(rooms.kv, &descriptors)),
            neighbours: Arc::clone(&sites) as _,
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
    engines: Engines,
    linkers: Linkers,
    linker_p1: wasmtime::Linker<Guest>,
    /// By the device and the number of the file of their code.
    programs: Mutex<HashMap<(u64, u64), Weak<Program>>>,
    components: Mutex<HashMap<WorkloadId, Arc<Loaded>>>,
    /// Runs from which another has taken over.
    retiring: Mutex<Vec<Weak<Loaded>>>,
    networks: Networks,
    sites: Arc<Sites>,
    shared: Shared,
    /// Told when the last workload is gone.
    done: Notify,
    /// The output of attached clients that is on its way.
    feeding: TaskTracker,
    owner_uid: u32,
}

/// A workload with what is released when it is deleted.
struct Loaded {
    workload: Arc<Workload>,
    /// Where it answers.
    site_addresses: Vec<SiteAddress>,
    exit: Mutex<Option<std::fs::File>>,
    /// What brings it messages.
    subscription: Mutex<Weak<Subscription>>,
    /// The run that has taken over from this one.
    follower: OnceLock<Arc<Loaded>>,
    /// Its files, folders and listening sockets, which count before what guests open.
    _descriptors: Own,
}

fn refuse(kind: ErrorKind, message: impl Into<String>) -> Refusal {
    Refusal::new(kind, message)
}

impl Host {
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
                    let component = Arc::clone(&loaded.workload.component);
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
                value(&found.map(|loaded| *loaded.workload.phase().borrow() != Phase::Loaded))
            }
            Request::Load(load) => {
                self.reading(move |host| host.load(*load, fds)).await?;
                value(&self.brief())
            }
            Request::Renew(load) => {
                let id = load.spec.id.clone();
                self.reading(move |host| host.renew(*load, fds)).await?;
                // Before the answer: whoever attaches after it has the new run before him.
                self.find(&id)?.workload.component.log.disconnect().await;
                value(&())
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
            Request::Wait { id } => value(&wait(self.find(&id)?).await),
            Request::Usage { id } => value(&self.usage(&self.find(&id)?.workload.component)),
            Request::Instances { id } => value(&listed(self.find(&id)?.workload.instances())),
            Request::Invocations { id } => {
                let component = Arc::clone(&self.find(&id)?.workload.component);
                value(&component.metrics.snapshot(component.trigger.name()))
            }
            Request::BeginProfile { id } => value(&self.find(&id)?.workload.component.diagnosis.begin_profile()?),
            Request::EndProfile { id } => value(&self.find(&id)?.workload.component.diagnosis.end_profile()),
            Request::AwaitTrap { id } => {
                let Some(file) = fds.into_iter().next() else {
                    return Err(refuse(ErrorKind::Internal, "no file came for the core dump"));
                };
                value(&self.find(&id)?.workload.component.diagnosis.await_trap(file.into())?)
            }
            Request::Trapped { id, is_last } => value(&self.find(&id)?.workload.component.diagnosis.trapped(is_last)),
            Request::Names { changes } => {
                for (network, change) in changes {
                    self.networks.change(&network, change);
                }
                value(&())
            }
            Request::Networks { id, networks } => {
                self.find(&id)?.workload.component.set_names(self.networks.view(networks));
                value(&())
            }
            Request::Renamed { id, name } => {
                self.find(&id)?.workload.component.set_name(&name);
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

    /// Does what reads compiled code, which takes its time.
    async fn reading(
        self: &Arc<Self>,
        load: impl FnOnce(&Arc<Self>) -> Result<(), Refusal> + Send + 'static,
    ) -> Result<(), Refusal> {
        let host = Arc::clone(self);
        let loaded = self.main.spawn_blocking(move || {
            let _main = host.main.enter();
            load(&host)
        });
        loaded.await.unwrap_or_else(|error| Err(broke("load a component", &error)))
    }

    fn state(&self) -> HostState {
        let workloads = self
            .components
            .lock()
            .values()
            .map(|loaded| WorkloadState {
                id: loaded.workload.component.spec.id.clone(),
                started: *loaded.workload.phase().borrow() != Phase::Loaded,
            })
            .collect();
        let published = |address: &SiteAddress| match address {
            SiteAddress::Published(address) => Some(*address),
            SiteAddress::Inside(_) => None,
        };
        let listeners = self.lock_sites().keys().filter_map(published).collect();
        HostState { workloads, listeners }
    }

    fn brief(&self) -> Brief {
        let components = self.components.lock();
        let memory =
            components.values().fold(0u64, |sum, loaded| sum.saturating_add(loaded.workload.component.memory_most()));
        Brief { workloads: components.len(), memory }
    }

    /// What a component used, and its share of what the process takes beside all instances.
    fn usage(&self, component: &Component) -> protocol::Usage {
        let (count, live) = {
            let components = self.components.lock();
            let live = |loaded: &Arc<Loaded>| loaded.workload.component.metrics.memory.load(Relaxed);
            (components.len().max(1) as u64, components.values().map(live).sum::<u64>())
        };
        let resident = watch::resident().map_or(0, |resident| resident.anonymous + resident.shared);
        component.usage(resident.saturating_sub(live) / count)
    }

    /// Ends the instance that holds the most, if there is one.
    fn end_largest(&self) {
        let mut components: Vec<Arc<Loaded>> = self.components.lock().values().cloned().collect();
        components.extend(self.retiring.lock().iter().filter_map(Weak::upgrade));
        let largest = components.iter().filter_map(|loaded| loaded.workload.largest());
        if let Some(account) = largest.max_by_key(|account| account.used()) {
            account.doom();
        }
    }

    fn find(&self, id: &WorkloadId) -> Result<Arc<Loaded>, Refusal> {
        find_in(&self.components.lock(), id)
    }
}

/// One of `components`, for whoever has them locked.
fn find_in(components: &HashMap<WorkloadId, Arc<Loaded>>, id: &WorkloadId) -> Result<Arc<Loaded>, Refusal> {
    let found = components.get(id).cloned();
    found.ok_or_else(|| refuse(ErrorKind::NotFound, format!("this host process runs no component {}", id.short())))
}

/// As many instances as an answer holds, and of their work what fits beside it.
fn listed(mut instances: Vec<protocol::Instance>) -> Vec<protocol::Instance> {
    instances.truncate(protocol::MAX_INSTANCES);
    for instance in &mut instances {
        instance.work = one_line(&instance.work, protocol::MAX_WORK);
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
