//! Which workloads a host process has, as the daemon knows it: a host that was taken over says what it likes.

use std::collections::HashMap;

use bireme_core::WorkloadId;

/// The workloads that were loaded into one host and not deleted since, and the bytes that each may have.
#[derive(Debug, Default)]
pub(crate) struct Roster(HashMap<WorkloadId, u64>);

impl Roster {
    pub(crate) fn add(&mut self, id: WorkloadId, memory: u64) {
        self.0.insert(id, memory);
    }

    pub(crate) fn remove(&mut self, id: &WorkloadId) {
        self.0.remove(id);
    }

    pub(crate) fn has(&self, id: &WorkloadId) -> bool {
        self.0.contains_key(id)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether no process of this host may be there any more.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes that its workloads may have together, see [`crate::memory`].
    pub(crate) fn memory(&self) -> u64 {
        self.0.values().fold(0, |sum, memory| sum.saturating_add(*memory))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_follows_from_what_is_there() {
        let id = |n| WorkloadId::from_bytes([n; 32]);
        let mut roster = Roster::default();
        roster.add(id(1), 5);
        roster.add(id(2), 7);
        roster.add(id(2), 8);
        assert_eq!(roster.memory(), 13);
        roster.remove(&id(1));
        roster.remove(&id(3));
        assert!(roster.has(&id(2)) && !roster.has(&id(1)) && !roster.is_empty());
        roster.add(id(1), u64::MAX);
        assert_eq!(roster.memory(), u64::MAX);
        roster.remove(&id(1));
        roster.remove(&id(2));
        assert!(roster.is_empty() && roster.memory() == 0);
    }
}
