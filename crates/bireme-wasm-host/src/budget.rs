//! The memory that all instances of this process may have together.
//!
//! Each instance has a limit of its own, and there may be a thousand: without a limit on their sum they could take the
//! whole machine. An instance that is refused more sees its memory not grow, as at its own limit; no other is harmed.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bireme_wasm::memory;

pub(crate) struct Budget {
    used: AtomicU64,
    limit: u64,
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Self {
        Self { used: AtomicU64::new(0), limit }
    }

    /// Three quarters of the machine's memory.
    pub(crate) fn of_machine() -> Self {
        Self::new(memory::soft(u64::MAX, memory::of_machine()))
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Takes `bytes`, to be given back; false when there are not as many left.
    pub(crate) fn take(&self, bytes: u64) -> bool {
        let before = self.used.fetch_add(bytes, Relaxed);
        let fits = before.checked_add(bytes).is_some_and(|after| after <= self.limit);
        if !fits {
            self.give(bytes);
        }
        fits
    }

    pub(crate) fn give(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_no_more_than_there_is() {
        let budget = Budget::new(100);
        assert!(budget.take(60));
        assert!(!budget.take(41));
        assert!(budget.take(40));
        budget.give(60);
        assert!(!budget.take(u64::MAX));
        assert!(budget.take(60) && !budget.take(1));
    }

    #[test]
    fn a_machine_has_a_limit() {
        assert!((1 << 20..u64::MAX).contains(&Budget::of_machine().limit()));
    }
}
