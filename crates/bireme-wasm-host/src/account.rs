//! What one instance costs: its linear memory, and what the host holds on its behalf.
//!
//! Both count against the memory limit of its workload. What an instance has the host keep (the values behind its
//! handles, connections, arguments of calls under way) is charged with a [`Charge`] that gives it back when dropped; what
//! the WASI crates keep by themselves is bounded by how many handles there may be and how large each may become, see
//! [`Bounds`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use std::task::{Context, Poll, Wake, Waker};

use futures::task::AtomicWaker;

use crate::component::Component;
use crate::stock::Place;
use crate::turns::{Turns, at_once};

/// The account of one instance.
pub(crate) struct Account {
    pub component: Arc<Component>,
    used: AtomicU64,
    /// How many descriptors the process has open for the instance.
    descriptors: Arc<AtomicU64>,
    /// Something was refused because of the workload's limit.
    refused: AtomicBool,
    /// It shall end, so that the process goes on.
    doomed: AtomicBool,
    waker: AtomicWaker,
    /// Who is woken by what the instance waits for.
    pub turns: Turns,
}

/// Wakes the instance.
impl Wake for Account {
    fn wake(self: Arc<Self>) {
        self.turns.wake();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.turns.wake();
    }
}

impl Account {
    pub(crate) fn new(component: Arc<Component>) -> Self {
        Self {
            component,
            used: AtomicU64::new(0),
            descriptors: Arc::default(),
            refused: AtomicBool::new(false),
            doomed: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            turns: Turns::default(),
        }
    }

    /// As [`at_once`], for what belongs to the instance.
    pub(crate) fn at_once<T>(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        at_once(&self.turns, &Waker::from(Arc::clone(self)), cx, poll)
    }

    /// Bytes that the instance has now.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// Whether the instance was refused memory at its workload's limit.
    pub(crate) fn was_refused(&self) -> bool {
        self.refused.load(Relaxed)
    }

    /// Takes `bytes`, to be given back; false where they are more than the limit leaves, or all instances of the process
    /// together may have.
    pub(crate) fn take(&self, bytes: u64) -> bool {
        let component = &self.component;
        let limit = component.memory_limit;
        if bytes > limit {
            self.refused.store(true, Relaxed);
            return false;
        }
        // Both are at most some GiB: no overflow.
        let after = self.used.fetch_add(bytes, Relaxed) + bytes;
        if after > limit {
            self.used.fetch_sub(bytes, Relaxed);
            self.refused.store(true, Relaxed);
            return false;
        }
        if !component.budget.take(bytes) {
            self.used.fetch_sub(bytes, Relaxed);
            component.log.note(&format!(
                "bireme: an instance was refused {} KiB of memory: all instances of this app together would have more \
                 than {} MiB, three quarters of the machine's; lower bireme.instances or the memory limit",
                bytes >> 10,
                component.budget.limit() >> 20
            ));
            return false;
        }
        let metrics = &component.metrics;
        metrics.memory.fetch_add(bytes, Relaxed);
        if after > metrics.memory_peak.load(Relaxed) {
            metrics.memory_peak.fetch_max(after, Relaxed);
        }
        true
    }

    pub(crate) fn give(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Relaxed);
        self.component.budget.give(bytes);
        self.component.metrics.memory.fetch_sub(bytes, Relaxed);
    }

    /// Takes `bytes` for as long as the answer lives.
    ///
    /// # Errors
    /// A sentence for the guest and the log.
    pub(crate) fn charge(self: &Arc<Self>, bytes: usize) -> Result<Charge, String> {
        let bytes = bytes as u64;
        if self.take(bytes) {
            return Ok(Charge { account: Arc::clone(self), bytes });
        }
        Err(format!("the host would hold {} KiB more for this instance, and {}", bytes >> 10, self.limit_text()))
    }

    /// Takes a place for a descriptor that is to be opened for the instance; `None` where it may have no more. The log is
    /// told.
    pub(crate) fn descriptor(&self) -> Option<Place> {
        let place = self.component.descriptors.take_for(&self.descriptors);
        if place.is_none() {
            self.component.note_descriptors();
        }
        place
    }

    /// Names the limit, for messages.
    pub(crate) fn limit_text(&self) -> String {
        let limit = self.component.memory_limit;
        let amount = if limit >= 1 << 20 { format!("{} MiB", limit >> 20) } else { format!("{} KiB", limit >> 10) };
        format!("it may have {amount} (docker run --memory, mem_limit)")
    }

    /// Whether it was doomed.
    pub(crate) fn is_ending(&self) -> bool {
        self.doomed.load(Relaxed)
    }

    /// Has the instance end at once.
    pub(crate) fn doom(&self) {
        self.doomed.store(true, Relaxed);
        self.waker.wake();
    }

    /// Whether it shall end; otherwise `waker` is told when it shall.
    pub(crate) fn is_doomed(&self, waker: &std::task::Waker) -> bool {
        if !self.doomed.load(Relaxed) {
            self.waker.register(waker);
        }
        self.doomed.load(Relaxed)
    }
}

/// Bytes that are taken from an account until this is dropped.
pub(crate) struct Charge {
    account: Arc<Account>,
    bytes: u64,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.give(self.bytes);
    }
}

/// Who pays for what is read from a store: it is charged before it is copied.
#[derive(Clone)]
pub(crate) struct Payer(Option<Arc<Account>>);

impl Payer {
    pub(crate) fn new(account: &Arc<Account>) -> Self {
        Self(Some(Arc::clone(account)))
    }

    #[cfg(test)]
    pub(crate) fn nobody() -> Self {
        Self(None)
    }

    /// # Errors
    /// A sentence for the guest: what is read is more than its limit leaves.
    pub(crate) fn pay(&self, bytes: usize) -> Result<Option<Charge>, String> {
        let paid = self.0.as_ref().map(|account| account.charge(bytes)).transpose();
        // In the words of Spin, which guests may look for.
        paid.map_err(|text| format!("query result exceeds limit: {text}"))
    }
}

/// How much of what is not charged one by one an instance may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Handles of the host's resources: streams, requests, files.
    pub handles: usize,
    /// Bytes of one set of HTTP fields.
    pub fields: usize,
    /// Bytes that one call may have the host copy: no guest has more to show without showing the same twice.
    pub call: usize,
}

impl Bounds {
    /// For a workload with `memory` bytes: as many full sets of fields as fit into it, some hundred to some thousand.
    pub(crate) fn of(memory: u64) -> Self {
        let memory = usize::try_from(memory).unwrap_or(usize::MAX);
        let fields = (memory / 1024).clamp(16 << 10, 64 << 10);
        Self { handles: (memory / fields).clamp(256, 4096), fields, call: memory.clamp(1 << 20, 128 << 20) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_not_charged_stays_within_the_limit(memory in (6u64 << 20)..(4 << 30)) {
            let bounds = Bounds::of(memory);
            prop_assert!((bounds.handles * bounds.fields) as u64 <= memory);
            prop_assert!((256..=4096).contains(&bounds.handles));
            prop_assert!(bounds.call as u64 <= memory);
        }
    }
}
