//! The places of all ports together, and when something last passed for whoever has one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::TCP;
use crate::places::{Decision, Held, Source, decide, places_of_all_ports};

/// When something last passed.
#[derive(Clone)]
pub(super) struct Activity {
    since: Instant,
    /// Nanoseconds after `since`: many come within a millisecond.
    last: Arc<AtomicU64>,
}

impl Activity {
    pub(super) fn begin() -> Self {
        Self { since: Instant::now(), last: Arc::default() }
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(super) fn note(&self) {
        self.last.store(self.elapsed(), Ordering::Relaxed);
    }

    pub(super) fn silent(&self) -> Duration {
        Duration::from_nanos(self.elapsed().saturating_sub(self.last.load(Ordering::Relaxed)))
    }
}

/// The places of all ports of one engine: each takes descriptors of the daemon, which needs some for everything else.
pub(crate) struct Pool {
    most: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
pub(super) struct Taken {
    last: u64,
    pub(super) guests: HashMap<u64, Pooled>,
}

pub(super) struct Pooled {
    source: Source,
    activity: Activity,
    /// `None` until it is being served.
    serving: Option<AbortHandle>,
}

impl Pool {
    /// Of a process that may have so many descriptors.
    pub(crate) fn new(files: u64) -> Self {
        Self { most: places_of_all_ports(files), taken: Mutex::default() }
    }

    pub(super) fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock()
    }

    /// A place for `source`, where need be that of somebody at whichever port, who is served no longer then.
    pub(super) fn place(self: &Arc<Self>, source: Source, activity: &Activity) -> Option<Ticket> {
        let mut taken = self.taken();
        if taken.guests.len() >= self.most {
            let (numbers, held): (Vec<u64>, Vec<Held>) = taken
                .guests
                .iter()
                .map(|(number, one)| (*number, Held { source: one.source, silent: one.activity.silent() }))
                .unzip();
            let Decision::Instead(at) = decide(&held, source, TCP.quiet) else { return None };
            if let Some(serving) = taken.guests.remove(&numbers[at]).and_then(|one| one.serving) {
                serving.abort();
            }
        }
        taken.last += 1;
        let number = taken.last;
        taken.guests.insert(number, Pooled { source, activity: activity.clone(), serving: None });
        drop(taken);
        Some(Ticket { pool: Arc::clone(self), number })
    }
}

/// A place in a [`Pool`], given back when dropped.
pub(super) struct Ticket {
    pool: Arc<Pool>,
    number: u64,
}

impl Ticket {
    /// By this the place is taken away again.
    pub(super) fn serves(&self, serving: &AbortHandle) {
        match self.pool.taken().guests.get_mut(&self.number) {
            Some(one) => one.serving = Some(serving.clone()),
            // Somebody has it already.
            None => serving.abort(),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.pool.taken().guests.remove(&self.number);
    }
}
