//! Under which names a component looked addresses up: what a permission by name covers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::names::View;

/// Most addresses of which one workload's instances know the names; the oldest knowledge is dropped as a whole.
const MAX_ADDRESSES: usize = 1024;
/// Names that are remembered of one address, the newest: a wildcard permits a guest to ask for as many as it likes.
const MAX_NAMES: usize = 64;

/// How long an address belongs to the name that DNS gave it for.
const KNOWN_FOR: Duration = Duration::from_secs(300);

/// Under which names an address was looked up.
#[derive(Default)]
pub(crate) struct LookedUp(Mutex<HashMap<IpAddr, Vec<Known>>>);

struct Known {
    /// As the component's networks know it.
    name: String,
    /// When DNS said so; `None` where a network of the component's did.
    answered: Option<Instant>,
}

impl LookedUp {
    /// Remembers that `name`, written as in `view`, leads to `addresses`. `view` are the names of the component's networks.
    pub(crate) fn remember(&self, view: &View, name: &str, addresses: &[IpAddr]) {
        let answered = (!view.contains_key(name)).then(Instant::now);
        let mut known = self.0.lock();
        if known.len() > MAX_ADDRESSES {
            known.clear();
        }
        for address in addresses {
            let names = known.entry(*address).or_default();
            names.retain(|known| known.name != name && known.answered.is_none_or(|at| at.elapsed() < KNOWN_FOR));
            if names.len() >= MAX_NAMES {
                names.remove(0);
            }
            names.push(Known { name: name.to_owned(), answered });
        }
    }

    /// The names that `address` still has, and whether a network of the component's gave it, by `view`, which answers the
    /// names of its networks now: asked once what is known is locked, so that none older is held against what was
    /// remembered since. One that a network gave it goes when the network takes it away: the address may be another
    /// workload's by then.
    pub(crate) fn names(&self, view: impl FnOnce() -> Arc<View>, address: IpAddr) -> Vec<(String, bool)> {
        let mut known = self.0.lock();
        let Some(names) = known.get_mut(&address) else { return Vec::new() };
        let view = view();
        names.retain(|known| match (view.get(&known.name), known.answered) {
            (Some(addresses), _) => addresses.contains(&address),
            (None, Some(answered)) => answered.elapsed() < KNOWN_FOR,
            (None, None) => false,
        });
        names.iter().map(|known| (known.name.clone(), view.contains_key(&known.name))).collect()
    }
}
