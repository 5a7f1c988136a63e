//! What the components of one process have in common and can run out of: descriptors, and threads that wait.
//!
//! Each component has a share, an equal part of what the process does not need for itself, so that one cannot take what
//! is another's; and no instance has more than half of its component's. What is taken is a [`Place`], which is given back
//! when it is dropped, wherever that is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// So much of one kind, for all components of this process together.
pub(crate) struct Stock {
    limit: u64,
    /// What the process took for its components, asked or not.
    own: AtomicU64,
    /// What instances have.
    used: AtomicU64,
    components: AtomicU64,
}

impl Stock {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        let (own, used, components) = Default::default();
        Arc::new(Self { limit, own, used, components })
    }

    /// The descriptors that guests may have: without those of the connections of clients, and without what accepting,
    /// the control socket, logs, the resolver and calls under way need.
    pub(crate) fn of_descriptors() -> Arc<Self> {
        let all = descriptors();
        Self::new(all.saturating_sub(of_clients(all)).saturating_sub((all / 8).clamp(64, 4096)).max(16))
    }

    /// Threads that may be held by what reads too slowly: a quarter of those that tokio makes for work that blocks, which
    /// are those of stores, files and lookups.
    pub(crate) fn of_threads() -> Arc<Self> {
        Self::new(128)
    }

    /// Notes `count` that the process has for one of its components, or for them all; never refused.
    pub(crate) fn own(self: &Arc<Self>, count: usize) -> Own {
        let count = count as u64;
        self.own.fetch_add(count, Relaxed);
        Own { stock: Arc::clone(self), count }
    }

    /// How many one component may have.
    fn share(&self) -> u64 {
        let shared = self.limit.saturating_sub(self.own.load(Relaxed));
        shared / self.components.load(Relaxed).max(1)
    }
}

/// Descriptors that this process may have open.
fn descriptors() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(1 << 20)
}

/// How many of `all` descriptors are for connections of clients: half, and no more than are of use.
fn of_clients(all: u64) -> u64 {
    (all / 2).clamp(64, 16_384)
}

/// Connections of clients that this process may have.
pub(crate) fn connections() -> usize {
    of_clients(descriptors()) as usize
}

/// What the process itself has until this is dropped.
pub(crate) struct Own {
    stock: Arc<Stock>,
    count: u64,
}

impl Drop for Own {
    fn drop(&mut self) {
        self.stock.own.fetch_sub(self.count, Relaxed);
    }
}

/// What one component has of a stock.
pub(crate) struct Share {
    stock: Arc<Stock>,
    used: AtomicU64,
}

impl Share {
    pub(crate) fn new(stock: &Arc<Stock>) -> Arc<Self> {
        stock.components.fetch_add(1, Relaxed);
        Arc::new(Self { stock: Arc::clone(stock), used: AtomicU64::new(0) })
    }

    /// How many the component may have at the moment: fewer once there are more components.
    pub(crate) fn limit(&self) -> u64 {
        self.stock.share()
    }

    /// One place; `None` where the component has its share already, or all is taken.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Place> {
        let share = self.limit();
        if self.used.fetch_add(1, Relaxed) >= share {
            self.used.fetch_sub(1, Relaxed);
            return None;
        }
        let place = Place { share: Arc::clone(self), instance: None };
        // Others may have more than their share, which was larger once.
        let stock = &self.stock;
        let all = stock.used.fetch_add(1, Relaxed) + stock.own.load(Relaxed);
        (all < stock.limit).then_some(place)
    }

    /// The same for an instance that has `instance` of them.
    pub(crate) fn take_for(self: &Arc<Self>, instance: &Arc<AtomicU64>) -> Option<Place> {
        if instance.fetch_add(1, Relaxed) >= (self.limit() / 2).max(1) {
            instance.fetch_sub(1, Relaxed);
            return None;
        }
        match self.take() {
            Some(mut place) => {
                place.instance = Some(Arc::clone(instance));
                Some(place)
            }
            None => {
                instance.fetch_sub(1, Relaxed);
                None
            }
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.stock.components.fetch_sub(1, Relaxed);
    }
}

/// One of a stock, until this is dropped.
pub(crate) struct Place {
    share: Arc<Share>,
    instance: Option<Arc<AtomicU64>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(instance) = &self.instance {
            instance.fetch_sub(1, Relaxed);
        }
        self.share.used.fetch_sub(1, Relaxed);
        self.share.stock.used.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(share: &Arc<Share>) -> Vec<Place> {
        std::iter::from_fn(|| share.take()).collect()
    }

    #[test]
    fn each_component_has_its_share_and_each_instance_half_of_it() {
        let stock = Stock::new(130);
        let of_process = stock.own(30);
        let (one, other) = (Share::new(&stock), Share::new(&stock));
        let greedy = all(&one);
        assert_eq!((greedy.len(), all(&other).len()), (50, 50));
        drop(greedy);
        let instance = Arc::default();
        let half: Vec<Place> = std::iter::from_fn(|| one.take_for(&instance)).collect();
        assert_eq!((half.len(), all(&one).len()), (25, 25));
        assert!(one.take_for(&Arc::default()).is_some(), "another instance has its own");
        drop((half, other));
        assert_eq!(instance.load(Relaxed), 0);
        assert_eq!(all(&one).len(), 100, "the share of who is gone");
        drop(of_process);
        assert_eq!(all(&one).len(), 130);
    }

    #[test]
    fn a_newcomer_gets_no_more_than_there_is() {
        let stock = Stock::new(100);
        let one = Share::new(&stock);
        let greedy = all(&one);
        let other = Share::new(&stock);
        assert_eq!((greedy.len(), all(&other).len()), (100, 0));
        drop(greedy);
        assert_eq!(all(&other).len(), 50);
        assert_eq!((one.used.load(Relaxed), other.used.load(Relaxed), stock.used.load(Relaxed)), (0, 0, 0));
    }
}
