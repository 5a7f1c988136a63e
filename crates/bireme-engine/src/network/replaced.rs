//! A workload that takes the place of another keeps its addresses, where they are still free when it starts.
//!
//! Compose, ours and the real one, makes the new container before it stops the old one, and says by a label that it replaces
//! one of the same project, service and number. On Docker's engine the new one has another address then; who kept the old
//! one, such as a proxy, a resolver's cache or a connection pool, would miss it, above all where the kind changes. One that
//! is started while the old one runs (`engine/successor.rs`) has another: clients of its ports lose nothing, those of its
//! address look the name up again.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bireme_core::replaced::{is_replacement, replaces};
use bireme_net::addresses::{AddressError, AddressPool};
use ipnet::IpNet;

use crate::registry::Registry;
use crate::view::Endpoint;

/// Notes in the endpoints of a new workload the addresses that whatever it replaces has on the same networks.
pub(crate) fn keep_addresses(registry: &Registry, labels: &BTreeMap<String, String>, endpoints: &mut [Endpoint]) {
    if !is_replacement(labels) {
        return;
    }
    for old in registry.handles() {
        if !replaces(labels, &old.config.spec.labels) {
            continue;
        }
        for theirs in &old.view().endpoints {
            for ours in endpoints.iter_mut().filter(|ours| ours.network == theirs.network) {
                ours.preferred.extend(theirs.ipv4.iter().chain(&theirs.ipv6).map(|(address, _)| *address));
            }
        }
    }
}

/// Takes the address that is asked for, else a preferred one that is free, else the next.
pub(super) fn take(pool: &mut AddressPool, asked: Option<IpAddr>, preferred: &[IpAddr]) -> Result<IpNet, AddressError> {
    match asked {
        Some(address) => pool.take(address),
        None => first_free(preferred, |address| pool.take(address)).map_or_else(|| pool.take_next(), Ok),
    }
}

/// The first of the preferred addresses that can be had. `take` fails for one that is in use or of another family.
fn first_free<T, E>(preferred: &[IpAddr], mut take: impl FnMut(IpAddr) -> Result<T, E>) -> Option<T> {
    preferred.iter().find_map(|address| take(*address).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_taken_is_passed_over() {
        let address = |last| IpAddr::from([10, 0, 0, last]);
        let free = |wanted: IpAddr| if wanted == address(3) { Ok(wanted) } else { Err(()) };
        assert_eq!(first_free(&[address(2), address(3)], free), Some(address(3)));
        assert_eq!(first_free(&[address(2)], free), None);
    }
}
