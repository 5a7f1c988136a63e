//! Published ports that a socket of ours passes on, because no rule can: from IPv6 to an IPv4 workload, and from `::1`.
//!
//! There are only so many places, for each port and for all of them together, and who gets one is decided in
//! [`crate::places`].

mod pool;
mod tcp;
mod udp;

pub(crate) use pool::Pool;
pub(crate) use tcp::tcp;
pub(crate) use udp::udp;

use std::collections::HashMap;
use std::time::Duration;

use pool::{Activity, Ticket};
use tokio::task::{AbortHandle, JoinSet};

use crate::places::{Decision, Held, Source, decide};

/// How much is passed on at once for one port.
#[derive(Clone, Copy)]
struct Bounds {
    /// Connections, or clients that are remembered.
    most: usize,
    /// What has been silent for so long makes room for what is new.
    quiet: Duration,
}

const TCP: Bounds = Bounds { most: 1024, quiet: Duration::from_secs(10) };
const UDP: Bounds = Bounds { most: 1024, quiet: Duration::from_secs(1) };

/// A port being passed on; it ends when dropped.
pub(crate) struct Passing(JoinSet<()>);

impl Passing {
    /// Ends it; the port is free when this returns.
    pub(crate) async fn end(mut self) {
        self.0.shutdown().await;
    }
}

/// Somebody who has a place; what is done for him ends when it is dropped.
struct Guest<T> {
    source: Source,
    activity: Activity,
    serving: AbortHandle,
    what: T,
    _ticket: Ticket,
}

impl<T> Drop for Guest<T> {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Whether there is a place for `source`, where need be somebody else's, whose guest is dropped.
fn room<K: Clone + Eq + std::hash::Hash, T>(guests: &mut HashMap<K, Guest<T>>, source: Source, bounds: Bounds) -> bool {
    if guests.len() < bounds.most {
        return true;
    }
    let keys: Vec<K> = guests.keys().cloned().collect();
    let held = guests.values().map(|guest| Held { source: guest.source, silent: guest.activity.silent() });
    match decide(&held.collect::<Vec<_>>(), source, bounds.quiet) {
        Decision::Instead(at) => guests.remove(&keys[at]).is_some(),
        Decision::Refuse => false,
    }
}

#[cfg(test)]
mod tests;
