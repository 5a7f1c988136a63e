//! What the kernel shall forget of connections, and until when whoever gets an address or a port next has to wait.

use std::sync::Arc;
use std::time::Duration;

use super::State;
use crate::flows::Stale;
use crate::{Endpoint, Forward};

/// What is removed within this time is forgotten by the kernel at once: it is asked for all that it remembers.
const GATHERING: Duration = Duration::from_millis(20);

impl State {
    /// In what time [`Self::begin_forgetting`] shall be called; `None` where nothing is to be forgotten or somebody is about
    /// to.
    pub(crate) fn forget_in(&mut self) -> Option<Duration> {
        if self.forgetting || self.stale.is_empty() {
            return None;
        }
        self.forgetting = true;
        Some(GATHERING.max(self.forgot_in * 4))
    }

    /// What the kernel shall forget now, which takes as long as others have it remember much: the lock is not held over it.
    /// [`Self::forgot`] follows.
    pub(crate) fn begin_forgetting(&mut self) -> Arc<Stale> {
        self.forgetting = false;
        self.leaving_memory = Arc::new(std::mem::take(&mut self.stale));
        Arc::clone(&self.leaving_memory)
    }

    pub(crate) fn forgot(&mut self, took: Duration) {
        self.leaving_memory = Arc::default();
        self.forgot_in = took;
    }

    /// Whether connections of whoever had one of these addresses before may be remembered yet.
    pub(crate) fn remembers(&self, endpoint: &Endpoint) -> bool {
        let of = |stale: &Stale| endpoint.addresses.iter().any(|address| stale.concerns(address.addr()));
        of(&self.stale) || of(&self.leaving_memory)
    }

    /// Whether connections of whoever had a port before may be remembered yet.
    pub(crate) fn remembers_port(&self, forward: &Forward) -> bool {
        self.stale.concerns_port(forward) || self.leaving_memory.concerns_port(forward)
    }
}
