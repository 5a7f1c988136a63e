//! One loaded workload, and one invocation of it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bireme_core::{AllowList, Exit, WorkloadSpec};
use bireme_wasm::memory;
use bireme_wasm::protocol::{self, Trigger};
use parking_lot::{Mutex, RwLock};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::rustls::ClientConfig;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::account::Account;
use crate::budget::Budget;
use crate::engine::{DEFAULT_MEMORY, MAX_MEMORY};
use crate::host::redis::Connections;
use crate::host::sockets::LookedUp;
use crate::host::store::Embedded;
use crate::log::LogHandle;
use crate::metrics::Metrics;
use crate::names::View;
use crate::stock::{Share, Stock};
use crate::trigger::clients::Served;
use crate::trigger::http::Places;

/// Where a workload is in its life: `Loaded -> Running -> Stopping -> Ended`, steps may be skipped.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Phase {
    Loaded,
    Running,
    /// Takes no new work and waits for what is under way.
    Stopping,
    Ended(Exit),
}

/// A folder that is preopened in each instance.
pub(crate) struct Folder {
    pub target: String,
    pub read_only: bool,
    /// The open folder, as a path that stays good without any right to the folder's real path.
    pub path: PathBuf,
    pub open: std::os::fd::OwnedFd,
}

/// How often a component is told that work is turned away, or that it may open no more.
const BUSY_TOLD: Duration = Duration::from_secs(10);

/// Standard input: what attached clients send, for the one instance of a command.
pub(crate) struct Input {
    client: tokio::sync::Mutex<Option<DuplexStream>>,
    guest: Mutex<Option<DuplexStream>>,
    /// The first client that has nothing more to send ends it for good.
    once: bool,
}

impl Input {
    fn new(once: bool) -> Self {
        let (client, guest) = tokio::io::duplex(64 << 10);
        Self { client: tokio::sync::Mutex::new(Some(client)), guest: Mutex::new(Some(guest)), once }
    }

    /// What the instance reads; the first call has it.
    pub(crate) fn take(&self) -> Option<DuplexStream> {
        self.guest.lock().take()
    }

    /// Hands over what `from` sends until it ends or nobody reads any more.
    pub(crate) async fn feed(&self, mut from: impl tokio::io::AsyncRead + Unpin) {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let mut client = self.client.lock().await;
            let Some(open) = client.as_mut() else { return };
            if open.write_all(&buffer[..length]).await.is_err() {
                *client = None;
                return;
            }
        }
        if self.once {
            *self.client.lock().await = None;
        }
    }
}

/// What the components of one process share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub engine: wasmtime::Engine,
    pub embedded: Arc<Embedded>,
    pub places: Arc<Places>,
    pub budget: Arc<Budget>,
    pub descriptors: Arc<Stock>,
    pub threads: Arc<Stock>,
    pub lookups: Arc<Semaphore>,
}

/// Questions of all components of a process to DNS at once.
pub(crate) const MOST_LOOKUPS_OF_ALL: usize = 128;
/// Questions of one component to DNS at once. A silent server holds each for tens of seconds, also when nobody waits for the
/// answer any more, and the threads are those that stores use.
const MOST_LOOKUPS: usize = 32;

/// One workload as its instances see it.
pub(crate) struct Component {
    pub spec: WorkloadSpec,
    pub trigger: Trigger,
    pub program: crate::trigger::Program,
    pub engine: wasmtime::Engine,
    pub log: LogHandle,
    pub metrics: Metrics,
    pub env: Vec<(String, String)>,
    pub folders: Vec<Folder>,
    /// Its own in the sandbox, which it shares with others: where its connections come from.
    pub addresses: Vec<IpAddr>,
    pub allow: AllowList,
    pub memory_limit: u64,
    pub budget: Arc<Budget>,
    pub embedded: Arc<Embedded>,
    pub redis: Connections,
    pub looked_up: LookedUp,
    /// Places for questions to DNS, each of which holds a thread until it is answered or given up.
    pub lookups: Arc<Semaphore>,
    /// The same of all components of the process.
    pub lookups_of_all: Arc<Semaphore>,
    /// What its instances and its connections may have open.
    pub descriptors: Arc<Share>,
    /// Threads that its instances may hold by reading too slowly.
    pub threads: Arc<Share>,
    pub tls: Arc<ClientConfig>,
    pub places: Arc<Places>,
    /// Standard input of a command, where it was asked for.
    pub input: Option<Input>,
    /// As it is called now; `spec` has what it was called when it was loaded.
    name: RwLock<Arc<str>>,
    /// When it was last told that work is turned away, and how often it was since.
    busy: Mutex<(Option<Instant>, u64)>,
    /// When it was last told that its instances may open no more.
    told_descriptors: Mutex<Option<Instant>>,
    names: RwLock<Arc<View>>,
    phase: watch::Sender<Phase>,
    /// Cuts every invocation at once.
    cut: CancellationToken,
    /// Cancelled when no new invocations are taken any more.
    stopped: CancellationToken,
    stopping: AtomicBool,
    /// The exit code of a command that is cut off.
    cut_code: AtomicI32,
    idle: Notify,
    slots: Arc<Semaphore>,
    numbers: AtomicU64,
    /// Live invocations, spread so that threads rarely meet.
    live: [Mutex<Vec<Live>>; 8],
}

struct Live {
    number: u64,
    started: Instant,
    work: Arc<str>,
    account: Arc<Account>,
}

/// Why an invocation was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The queue is full, or the wait in it was too long.
    Busy,
    Stopping,
}

/// Why an invocation was ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    Timeout,
    CpuTime,
    Stopped,
    /// So that the process stays within its memory.
    Memory,
    /// The host failed while it ran the instance; told already.
    Broken,
}

/// Where a component stands on its networks.
pub(crate) struct NetworkIdentity {
    pub addresses: Vec<IpAddr>,
    pub names: View,
    /// Whom it trusts there.
    pub tls: Arc<ClientConfig>,
}

impl Component {
    pub(crate) fn new(
        spec: WorkloadSpec,
        trigger: Trigger,
        program: crate::trigger::Program,
        log: LogHandle,
        folders: Vec<Folder>,
        standing: NetworkIdentity,
        shared: Shared,
    ) -> Self {
        let env =
            spec.env.iter().map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (k.into(), v.into()));
        Self {
            env: env.collect(),
            trigger,
            program,
            engine: shared.engine,
            log,
            metrics: Metrics::default(),
            folders,
            addresses: standing.addresses,
            embedded: shared.embedded,
            places: shared.places,
            budget: shared.budget,
            redis: Connections::default(),
            looked_up: LookedUp::default(),
            lookups: Arc::new(Semaphore::new(MOST_LOOKUPS)),
            lookups_of_all: shared.lookups,
            descriptors: Share::new(&shared.descriptors),
            threads: Share::new(&shared.threads),
            tls: standing.tls,
            allow: spec.bireme.allow.clone().unwrap_or_default(),
            memory_limit: spec.resources.memory.unwrap_or(DEFAULT_MEMORY).min(MAX_MEMORY),
            input: spec.open_stdin.then(|| Input::new(spec.stdin_once)),
            name: RwLock::new(spec.name.as_str().into()),
            busy: Mutex::default(),
            told_descriptors: Mutex::default(),
            names: RwLock::new(Arc::new(standing.names)),
            phase: watch::Sender::new(Phase::Loaded),
            cut: CancellationToken::new(),
            stopped: CancellationToken::new(),
            stopping: AtomicBool::new(false),
            cut_code: AtomicI32::new(137),
            idle: Notify::new(),
            slots: Arc::new(Semaphore::new(spec.bireme.instances as usize)),
            numbers: AtomicU64::new(1),
            live: Default::default(),
            spec,
        }
    }

    pub(crate) fn name(&self) -> Arc<str> {
        Arc::clone(&self.name.read())
    }

    pub(crate) fn set_name(&self, name: &str) {
        *self.name.write() = name.into();
    }

    /// Counts one that was refused. How many were since that was last told, where it is time to tell it again.
    fn busy_now(&self) -> Option<u64> {
        let mut busy = self.busy.lock();
        if busy.0.is_some_and(|told| told.elapsed() < BUSY_TOLD) {
            busy.1 += 1;
            return None;
        }
        Some(std::mem::replace(&mut *busy, (Some(Instant::now()), 0)).1)
    }

    /// Tells in the log that `what` found no free instance: once in a while, with how often it came to that in between.
    pub(crate) fn note_busy(&self, what: &str) {
        let Some(more) = self.busy_now() else { return };
        let more = match more {
            0 => String::new(),
            more => format!(" ({more} more since this was last told)"),
        };
        let (instances, queue) = (self.spec.bireme.instances, self.spec.bireme.queue);
        self.log.note(&format!(
            "bireme: {what} was answered with 503: no instance came free (bireme.instances={instances}, \
             bireme.queue={queue}); raise them, or make answers faster{more}"
        ));
    }

    /// The same where there was no room in the process: components of one app have its 2,000 memories together.
    pub(crate) fn note_full(&self, what: &str) {
        if self.busy_now().is_some() {
            self.log.note(&format!(
                "bireme: {what} was answered with 503: the instances of all components of this app have the memories that its process can have; lower bireme.instances where requests are slow"
            ));
        }
    }

    /// Tells in the log, once in a while, that an instance was refused a descriptor.
    pub(crate) fn note_descriptors(&self) {
        let mut told = self.told_descriptors.lock();
        if told.is_some_and(|told| told.elapsed() < BUSY_TOLD) {
            return;
        }
        *told = Some(Instant::now());
        drop(told);
        let share = self.descriptors.limit();
        self.log.note(&format!(
            "bireme: an instance may open no more files, sockets or connections: this component may have {share} \
             descriptors of its host process, and one instance half of them; close what is not needed, or raise the limit \
             of open files that biremed is started with (ulimit -n, LimitNOFILE)"
        ));
    }

    pub(crate) fn names(&self) -> Arc<View> {
        Arc::clone(&self.names.read())
    }

    pub(crate) fn set_names(&self, names: View) {
        *self.names.write() = Arc::new(names);
    }

    pub(crate) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Goes from `Loaded` to `Running`; false when it is past that.
    pub(crate) fn run(&self) -> bool {
        self.phase.send_if_modified(|phase| {
            let may = *phase == Phase::Loaded;
            if may {
                *phase = Phase::Running;
            }
            may
        })
    }

    /// Takes no new invocations from now on and answers once the last has ended.
    ///
    /// # Cancel safety
    /// New invocations stay refused; it may be called again.
    pub(crate) async fn drain(&self) {
        self.refuse_more();
        self.phase.send_if_modified(|phase| {
            let may = *phase == Phase::Running;
            if may {
                *phase = Phase::Stopping;
            }
            may
        });
        loop {
            let idle = self.idle.notified();
            if self.metrics.alive.load(Relaxed) == 0 {
                return;
            }
            // The counter and the notification are not one step: look again before long.
            let _ = tokio::time::timeout(Duration::from_millis(50), idle).await;
        }
    }

    /// Ends every invocation at once. `code` is what a command ends with; the first call decides.
    pub(crate) fn cut(&self, code: i32) {
        if !self.cut.is_cancelled() {
            self.cut_code.store(code, Relaxed);
        }
        self.refuse_more();
        self.cut.cancel();
    }

    fn refuse_more(&self) {
        self.stopping.store(true, Relaxed);
        self.stopped.cancel();
    }

    /// Cancelled when no new invocations are taken any more.
    pub(crate) fn stopped(&self) -> CancellationToken {
        self.stopped.clone()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }

    pub(crate) fn cut_code(&self) -> i32 {
        self.cut_code.load(Relaxed)
    }

    pub(crate) fn cancelled(&self) -> CancellationToken {
        self.cut.clone()
    }

    /// Records the end, once; later calls change nothing.
    pub(crate) fn end(&self, exit: Exit) -> bool {
        self.refuse_more();
        self.phase.send_if_modified(|phase| {
            let first = !matches!(phase, Phase::Ended(_));
            if first {
                *phase = Phase::Ended(exit);
            }
            first
        })
    }

    /// Lets one invocation in, waiting for a free place if the queue has room.
    ///
    /// # Cancel safety
    /// Dropping the future gives the place in the queue up.
    pub(crate) async fn admit(self: &Arc<Self>, work: Arc<str>) -> Result<Invocation, Refused> {
        if self.is_stopping() {
            return Err(Refused::Stopping);
        }
        let permit = match Arc::clone(&self.slots).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let waiting = Waiting::new(self).ok_or(Refused::Busy)?;
                let acquire = Arc::clone(&self.slots).acquire_owned();
                let permit = tokio::time::timeout(self.spec.bireme.timeout, acquire).await;
                drop(waiting);
                permit.ok().and_then(Result::ok).ok_or_else(|| {
                    self.metrics.rejected.fetch_add(1, Relaxed);
                    Refused::Busy
                })?
            }
        };
        self.begin(permit, work)
    }

    /// The same for work that has its own queue: waits as long as it takes.
    ///
    /// # Cancel safety
    /// Nothing has begun when the future is dropped.
    pub(crate) async fn admit_waiting(self: &Arc<Self>, work: Arc<str>) -> Result<Invocation, Refused> {
        let permit = tokio::select! {
            permit = Arc::clone(&self.slots).acquire_owned() => permit.map_err(|_| Refused::Stopping)?,
            () = self.stopped.cancelled() => return Err(Refused::Stopping),
        };
        self.begin(permit, work)
    }

    fn begin(self: &Arc<Self>, permit: OwnedSemaphorePermit, work: Arc<str>) -> Result<Invocation, Refused> {
        let number = self.numbers.fetch_add(1, Relaxed);
        self.metrics.started.fetch_add(1, Relaxed);
        self.metrics.alive.fetch_add(1, Relaxed);
        let started = Instant::now();
        let account = Arc::new(Account::new(Arc::clone(self)));
        self.shard(number).push(Live { number, started, work, account: Arc::clone(&account) });
        let invocation = Invocation {
            component: Arc::clone(self),
            account,
            number,
            started,
            outcome: Outcome::Succeeded,
            served: None,
            _permit: permit,
        };
        // After the counter, so that `drain` sees either the invocation or none.
        if self.is_stopping() { Err(Refused::Stopping) } else { Ok(invocation) }
    }

    fn shard(&self, number: u64) -> parking_lot::MutexGuard<'_, Vec<Live>> {
        self.live[number as usize % self.live.len()].lock()
    }

    pub(crate) fn instances(&self) -> Vec<protocol::Instance> {
        let mut found = Vec::new();
        for shard in &self.live {
            for live in shard.lock().iter() {
                found.push(protocol::Instance {
                    number: live.number,
                    trigger: self.trigger.name().to_owned(),
                    age: u64::try_from(live.started.elapsed().as_millis()).unwrap_or(u64::MAX),
                    work: live.work.to_string(),
                });
            }
        }
        found.sort_by_key(|instance| instance.number);
        found
    }

    /// The live instance that has the most memory, of those that are not being ended.
    pub(crate) fn largest(&self) -> Option<Arc<Account>> {
        let largest_in = |shard: &Mutex<Vec<Live>>| {
            let live = shard.lock();
            let open = live.iter().filter(|live| !live.account.is_ending());
            open.map(|live| Arc::clone(&live.account)).max_by_key(|account| account.used())
        };
        self.live.iter().filter_map(largest_in).max_by_key(|account| account.used())
    }

    /// Bytes that all its instances may have together, with what the engine keeps for the next.
    pub(crate) fn memory_most(&self) -> u64 {
        let instances = if self.trigger.name() == "command" { 1 } else { u64::from(self.spec.bireme.instances) };
        memory::of_workload(self.memory_limit, instances)
    }

    /// What it used so far. `overhead` is what of the process's memory no instance accounts for and falls to it.
    pub(crate) fn usage(&self, overhead: u64) -> protocol::Usage {
        protocol::Usage {
            cpu: self.metrics.cpu.load(Relaxed),
            memory: self.metrics.memory.load(Relaxed) + overhead,
            memory_peak: self.metrics.memory_peak.load(Relaxed),
            memory_limit: memory::soft(self.memory_most(), memory::of_machine()),
            instances: self.metrics.alive.load(Relaxed),
        }
    }
}

/// A place in the queue.
struct Waiting<'a>(&'a Component);

impl<'a> Waiting<'a> {
    fn new(component: &'a Component) -> Option<Self> {
        let metrics = &component.metrics;
        if metrics.queued.fetch_add(1, Relaxed) >= u64::from(component.spec.bireme.queue) {
            metrics.queued.fetch_sub(1, Relaxed);
            metrics.rejected.fetch_add(1, Relaxed);
            return None;
        }
        Some(Self(component))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.metrics.queued.fetch_sub(1, Relaxed);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Succeeded,
    Failed,
    TimedOut,
}

/// One instance at work. Counted as what `outcome` says when it is dropped.
pub(crate) struct Invocation {
    pub component: Arc<Component>,
    pub account: Arc<Account>,
    pub number: u64,
    started: Instant,
    pub outcome: Outcome,
    /// The connection that it works for.
    pub served: Option<Served>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Invocation {
    fn drop(&mut self) {
        let component = &self.component;
        let metrics = &component.metrics;
        match self.outcome {
            Outcome::Succeeded => &metrics.succeeded,
            Outcome::Failed => &metrics.failed,
            Outcome::TimedOut => &metrics.timed_out,
        }
        .fetch_add(1, Relaxed);
        metrics.record(self.started.elapsed());
        component.shard(self.number).retain(|live| live.number != self.number);
        metrics.alive.fetch_sub(1, Relaxed);
        if component.is_stopping() {
            component.idle.notify_waiters();
        }
    }
}

/// Runs a guest's future under the limits of its workload: wall time, processor time, and the end of the workload.
///
/// The timer and the registration for the workload's end are made when the guest first waits for something; an
/// invocation that never waits pays for neither. A guest that computes is interrupted by the epoch every 10 ms, so it
/// cannot outrun them.
///
/// A panic of the host below it ends this instance and no more; the future must not be polled again.
pub(crate) struct Guarded<F> {
    inner: Pin<Box<F>>,
    account: Arc<Account>,
    deadline: Option<tokio::time::Instant>,
    waits: Option<Waits>,
    spent: Duration,
}

struct Waits {
    timer: Option<Pin<Box<tokio::time::Sleep>>>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<F: Future> Guarded<F> {
    /// `limit` is on wall time.
    pub(crate) fn new(account: Arc<Account>, limit: Option<Duration>, inner: F) -> Self {
        // A limit beyond what the clock can hold is none.
        let deadline = limit.and_then(|limit| tokio::time::Instant::now().checked_add(limit));
        Self { inner: Box::pin(inner), account, deadline, waits: None, spent: Duration::ZERO }
    }
}

impl<F: Future> Future for Guarded<F> {
    type Output = Result<F::Output, Cut>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let component = &this.account.component;
        let before = Instant::now();
        let inner = &mut this.inner;
        // What it leaves half done is its own state, which is thrown away: see the type.
        let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| inner.as_mut().poll(cx)));
        let spent = before.elapsed();
        this.spent += spent;
        component.metrics.cpu.fetch_add(u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        match polled {
            Ok(Poll::Ready(output)) => return Poll::Ready(Ok(output)),
            Ok(Poll::Pending) => {}
            Err(panic) => {
                let said = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
                let said = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
                let text =
                    format!("the host process failed while it ran an instance of {}: {said}", component.spec.name);
                crate::complain(&text);
                component.log.note(&format!("bireme: {text}"));
                return Poll::Ready(Err(Cut::Broken));
            }
        }
        if component.spec.bireme.cpu_time.is_some_and(|limit| this.spent > limit) {
            return Poll::Ready(Err(Cut::CpuTime));
        }
        if this.account.is_doomed(cx.waker()) {
            return Poll::Ready(Err(Cut::Memory));
        }
        let waits = this.waits.get_or_insert_with(|| Waits {
            timer: this.deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline))),
            cut: Box::pin(component.cut.clone().cancelled_owned()),
        });
        if waits.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(Cut::Stopped));
        }
        if waits.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Err(Cut::Timeout));
        }
        Poll::Pending
    }
}
