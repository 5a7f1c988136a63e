//! The life of one workload of this process, and the invocations that it lets in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bireme_core::Exit;
use bireme_wasm::protocol;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::account::Account;
use crate::clients::Served;
use crate::component::Component;
use crate::program::Program;

/// Where a workload is in its life: `Loaded -> Running -> Stopping -> Ended`, steps may be skipped.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Phase {
    Loaded,
    Running,
    /// Takes no new work and waits for what is under way.
    Stopping,
    Ended(Exit),
}

/// A component with its program, where it is in its life, and what of it is under way.
pub(crate) struct Workload {
    pub component: Arc<Component>,
    pub program: Arc<Program>,
    phase: watch::Sender<Phase>,
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

impl Workload {
    pub(crate) fn new(component: Component, program: Arc<Program>) -> Self {
        Self {
            program,
            phase: watch::Sender::new(Phase::Loaded),
            stopped: CancellationToken::new(),
            stopping: AtomicBool::new(false),
            cut_code: AtomicI32::new(137),
            idle: Notify::new(),
            slots: Arc::new(Semaphore::new(component.spec.bireme.instances as usize)),
            numbers: AtomicU64::new(1),
            live: Default::default(),
            component: Arc::new(component),
        }
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

    /// Goes from `Running` to `Stopping`, which still lets invocations in; false when it is not `Running`.
    pub(crate) fn begin_stop(&self) -> bool {
        self.phase.send_if_modified(|phase| {
            let may = *phase == Phase::Running;
            if may {
                *phase = Phase::Stopping;
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
        self.begin_stop();
        loop {
            let idle = self.idle.notified();
            if self.component.metrics.alive.load(SeqCst) == 0 {
                return;
            }
            // The counter and the notification are not one step: look again before long.
            let _ = tokio::time::timeout(Duration::from_millis(50), idle).await;
        }
    }

    /// Ends every invocation at once. `code` is what a command ends with; the first call decides.
    pub(crate) fn cut(&self, code: i32) {
        if !self.component.cut.is_cancelled() {
            self.cut_code.store(code, Relaxed);
        }
        self.refuse_more();
        self.component.cut.cancel();
    }

    fn refuse_more(&self) {
        self.stopping.store(true, SeqCst);
        self.stopped.cancel();
    }

    /// Cancelled when no new invocations are taken any more.
    pub(crate) fn stopped(&self) -> CancellationToken {
        self.stopped.clone()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(SeqCst)
    }

    pub(crate) fn cut_code(&self) -> i32 {
        self.cut_code.load(Relaxed)
    }

    pub(crate) fn cancelled(&self) -> CancellationToken {
        self.component.cut.clone()
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

    /// How many instances may be started at once now, without a wait.
    pub(crate) fn free_slots(&self) -> usize {
        self.slots.available_permits()
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
                let waiting = Waiting::new(&self.component).ok_or(Refused::Busy)?;
                let acquire = Arc::clone(&self.slots).acquire_owned();
                let permit = tokio::time::timeout(self.component.spec.bireme.timeout, acquire).await;
                drop(waiting);
                permit.ok().and_then(Result::ok).ok_or_else(|| {
                    self.component.metrics.rejected.fetch_add(1, Relaxed);
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

    /// Nothing is counted of what is refused.
    fn begin(self: &Arc<Self>, permit: OwnedSemaphorePermit, work: Arc<str>) -> Result<Invocation, Refused> {
        let metrics = &self.component.metrics;
        // `refuse_more` and `drain` say that it stops and then look at the count; this counts and then looks whether it
        // stops. In one order for all threads (SeqCst), so either `drain` waits for this invocation, or this sees the stop.
        metrics.alive.fetch_add(1, SeqCst);
        if self.is_stopping() {
            metrics.alive.fetch_sub(1, SeqCst);
            self.idle.notify_waiters();
            return Err(Refused::Stopping);
        }
        metrics.started.fetch_add(1, Relaxed);
        let number = self.numbers.fetch_add(1, Relaxed);
        let started = Instant::now();
        let account = Arc::new(Account::new(Arc::clone(&self.component)));
        self.shard(number).push(Live { number, started, work, account: Arc::clone(&account) });
        Ok(Invocation {
            workload: Arc::clone(self),
            account,
            number,
            started,
            outcome: Outcome::Succeeded,
            served: None,
            _permit: permit,
        })
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
                    trigger: self.component.trigger.name().to_owned(),
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
    pub workload: Arc<Workload>,
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
        let workload = &self.workload;
        let metrics = &workload.component.metrics;
        match self.outcome {
            Outcome::Succeeded => &metrics.succeeded,
            Outcome::Failed => &metrics.failed,
            Outcome::TimedOut => &metrics.timed_out,
        }
        .fetch_add(1, Relaxed);
        metrics.record(self.started.elapsed());
        workload.shard(self.number).retain(|live| live.number != self.number);
        metrics.alive.fetch_sub(1, SeqCst);
        if workload.is_stopping() {
            workload.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests;
