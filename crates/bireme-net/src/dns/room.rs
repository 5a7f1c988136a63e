//! How much is done at once, and who gets a place where there are only so many.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bireme_core::SandboxId;
use parking_lot::Mutex;

use crate::NetworkId;
use crate::places::share_of_dns;

/// Questions over UDP being worked on at once, at one gateway and of one asker.
pub(super) const AT_ONCE: Limits = Limits { all: 512, each: 64 };
/// Connections open at once, at one gateway and of one asker.
pub(super) const CONNECTIONS: Limits = Limits { all: 256, each: 16 };
/// The same of the whole engine, and of one asker wherever it asks; fewer where the daemon may have few descriptors.
pub(super) const CONNECTIONS_OF_ALL: Limits = Limits { all: 1024, each: 64 };
/// Questions that wait for upstream servers at once, of the whole engine and of one asker wherever it asks: each holds a
/// socket.
pub(super) const UPSTREAM_AT_ONCE: Limits = Limits { all: 1024, each: 64 };
/// So many of one asker come before the many of another.
pub(super) const FEW: usize = 4;
/// A question waits so long for a place; its resolver then asks again.
const PLACE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often it looks. Being told of every place would wake all that wait for each.
const PLACE_INTERVAL: Duration = Duration::from_millis(25);

/// How much is done at once: in all, and for each asker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) all: usize,
    pub(super) each: usize,
}

impl Limits {
    /// For a process that may have so many descriptors.
    pub(super) fn with(self, files: u64) -> Self {
        Self { all: share_of_dns(files, self.all), ..self }
    }

    /// Whether one more finds a place, with `own` of its asker and `near` of the asker's network among `taken`. One who
    /// has few gets up to all of the places, one who has many only some: of half of them a quarter each network. So those
    /// who ask much, however many they are, leave room for others; and whole networks do.
    fn admit(self, own: usize, near: usize, taken: usize) -> bool {
        if own < FEW.min(self.each) {
            taken < self.all && near < self.all / 2
        } else {
            own < self.each && taken < self.all / 2 && near < self.all / 4
        }
    }
}

/// Where what is done at once is counted.
pub(super) struct Room {
    pub(super) limits: Limits,
    pub(super) taken: Mutex<Taken>,
}

#[derive(Default)]
pub(super) struct Taken {
    pub(super) all: usize,
    pub(super) askers: HashMap<SandboxId, usize>,
    pub(super) networks: HashMap<NetworkId, usize>,
}

/// A place in a [`Room`], given back when dropped.
pub(super) struct Place {
    room: Arc<Room>,
    of: SandboxId,
    network: Option<NetworkId>,
}

impl Room {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, taken: Mutex::default() })
    }

    /// `None` where there is none left. Networks have no share where `network` is not told.
    pub(super) fn place(self: &Arc<Self>, of: &SandboxId, network: Option<&NetworkId>) -> Option<Place> {
        let mut taken = self.taken.lock();
        let own = taken.askers.get(of).copied().unwrap_or_default();
        let near = network.and_then(|network| taken.networks.get(network)).copied().unwrap_or_default();
        if !self.limits.admit(own, near, taken.all) {
            return None;
        }
        taken.all += 1;
        *taken.askers.entry(of.clone()).or_default() += 1;
        if let Some(network) = network {
            *taken.networks.entry(network.clone()).or_default() += 1;
        }
        Some(Place { room: Arc::clone(self), of: of.clone(), network: network.cloned() })
    }

    /// Waits a moment for one. Callers are bounded themselves.
    pub(super) async fn wait_for_place(self: &Arc<Self>, of: &SandboxId, network: Option<&NetworkId>) -> Option<Place> {
        let end = tokio::time::Instant::now() + PLACE_TIMEOUT;
        loop {
            let place = self.place(of, network);
            if place.is_some() || tokio::time::Instant::now() >= end {
                return place;
            }
            tokio::time::sleep(PLACE_INTERVAL).await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.room.taken.lock();
        taken.all -= 1;
        release(&mut taken.askers, &self.of);
        if let Some(network) = &self.network {
            release(&mut taken.networks, network);
        }
    }
}

/// Nobody is remembered who has none.
fn release<K: Eq + std::hash::Hash>(counts: &mut HashMap<K, usize>, of: &K) {
    if let Some(count) = counts.get_mut(of) {
        *count -= 1;
        if *count == 0 {
            counts.remove(of);
        }
    }
}
