//! Connections that the kernel remembers although the rules would no longer begin them.
//!
//! A remembered connection goes on for as long as packets come, past every rule that was changed since: one who keeps
//! sending to a port that was published would reach whoever gets the workload's address next, and one who began before a
//! port was published would never reach it. What is to be forgotten is gathered here while things change, and forgotten
//! all at once: the kernel has to be asked for everything it remembers.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use bireme_sys::conntrack::{self, Flow};
use bireme_sys::netlink::{Refused, Socket, Subsystem};
use bireme_sys::route;
use ipnet::IpNet;
use rustix::io::Errno;

use crate::rules::{UDP, number_of};
use crate::{Forward, NetworkSpec};

/// What became of networks, addresses and ports since connections were last forgotten.
#[derive(Default)]
pub(crate) struct Stale {
    /// Taken from whoever had them.
    addresses: HashSet<IpAddr>,
    /// Ranges in which nobody but these had an address.
    ranges: Vec<(IpNet, HashSet<IpAddr>)>,
    /// Protocol, address on the host and target of ports that are no longer published.
    removed: HashSet<(u8, SocketAddr, SocketAddr)>,
    /// Address on the host and target of UDP ports that are published now.
    published: HashSet<(SocketAddr, SocketAddr)>,
    /// Networks that stood without rules for some time.
    unguarded: Vec<NetworkSpec>,
}

impl Stale {
    pub(crate) fn is_empty(&self) -> bool {
        let Self { addresses, ranges, removed, published, unguarded } = self;
        let ports = removed.is_empty() && published.is_empty();
        ports && addresses.is_empty() && ranges.is_empty() && unguarded.is_empty()
    }

    pub(crate) fn freed(&mut self, addresses: &[IpAddr]) {
        self.addresses.extend(addresses);
    }

    /// All of `range` is free but for `kept`.
    pub(crate) fn free_but(&mut self, range: IpNet, kept: HashSet<IpAddr>) {
        self.ranges.push((range, kept));
    }

    pub(crate) fn removed(&mut self, forward: &Forward) {
        self.removed.insert((number_of(forward.protocol), forward.host, forward.target));
    }

    /// Of TCP nothing is remembered where nobody listened.
    pub(crate) fn published(&mut self, forward: &Forward) {
        if number_of(forward.protocol) == UDP {
            self.published.insert((forward.host, forward.target));
        }
    }

    pub(crate) fn unguarded(&mut self, network: &NetworkSpec) {
        self.unguarded.push(network.clone());
    }

    /// Whether connections of a former holder of `address` may be remembered yet.
    pub(crate) fn concerns(&self, address: IpAddr) -> bool {
        let within = |(range, kept): &(IpNet, HashSet<IpAddr>)| range.contains(&address) && !kept.contains(&address);
        self.addresses.contains(&address) || self.ranges.iter().any(within)
    }

    /// Whether connections of a port that `forward` takes anew may be remembered yet.
    pub(crate) fn concerns_port(&self, forward: &Forward) -> bool {
        let same = |(protocol, host, _): &(u8, SocketAddr, SocketAddr)| {
            *protocol == number_of(forward.protocol) && host.port() == forward.host.port()
        };
        self.removed.iter().any(same)
    }

    /// Whether `flow` is to be forgotten. `local` are the host's own addresses.
    pub(crate) fn matches(&self, flow: &Flow, local: &HashSet<IpAddr>) -> bool {
        let (there, back) = (flow.original, flow.reply);
        let is_local = |address: IpAddr| address.is_loopback() || local.contains(&address);
        let at = |host: &SocketAddr| {
            host.port() == there.to.port()
                && host.is_ipv4() == there.to.is_ipv4()
                && (host.ip().is_unspecified() || host.ip() == there.to.ip())
        };
        let removed = |(protocol, host, target): &(u8, SocketAddr, SocketAddr)| {
            *protocol == flow.protocol && at(host) && back.from == *target
        };
        let published = |(host, target): &(SocketAddr, SocketAddr)| {
            flow.protocol == UDP && at(host) && is_local(there.to.ip()) && back.from != *target
        };
        let unguarded = |network: &NetworkSpec| {
            let within = |address: IpAddr| network.subnets.iter().any(|subnet| subnet.net.contains(&address));
            let (from, to) = (there.from.ip(), there.to.ip());
            // Not by a published port: past it, from elsewhere.
            let entered = within(to) && back.from.ip() == to && !within(from) && !is_local(from);
            // Nothing was there that would have stopped it, or given it the host's address.
            let left = within(from) && back.to.ip() == from && !within(to) && !is_local(to);
            entered || (left && (network.internal || network.masquerade))
        };
        [there.from, there.to, back.from, back.to].iter().any(|one| self.concerns(one.ip()))
            || self.removed.iter().any(removed)
            || self.published.iter().any(published)
            || self.unguarded.iter().any(unguarded)
    }
}

/// Has the kernel forget what is `stale`, in the network namespace of the caller. One that remembers nothing has nothing to
/// forget.
///
/// Blocks for as long as it takes to read everything that the kernel remembers: some seconds where that is much, and those
/// who send decide how much it is. On sockets of its own, so that nobody need wait who is not concerned.
pub(crate) fn forget(stale: &Stale) {
    if stale.is_empty() {
        return;
    }
    let forgetting = || -> Result<usize, Refused> {
        let found = route::addresses(&mut Socket::open(Subsystem::Route)?)?;
        let local: HashSet<IpAddr> = found.into_iter().map(|(_, (address, _))| address).collect();
        conntrack::forget(&mut Socket::open(Subsystem::Netfilter)?, |flow| stale.matches(flow, &local))
    };
    match forgetting() {
        Ok(count) => tracing::debug!(count, "connections that are no longer let through are forgotten"),
        Err(refused) if matches!(refused.errno, Errno::INVAL | Errno::OPNOTSUPP | Errno::PERM | Errno::NOENT) => {
            tracing::debug!(%refused, "this kernel does not tell which connections it remembers");
        }
        Err(error) => {
            tracing::warn!(%error, "connections of removed workloads and ports may go on until they are silent");
        }
    }
}

#[cfg(test)]
mod tests {
    use bireme_core::spec::Protocol;
    use bireme_sys::conntrack::Way;

    use super::*;
    use crate::{Driver, NetworkId, Subnet};

    const OUTSIDE: &str = "192.0.2.7:4000";
    const HOST: &str = "192.0.2.1:5353";

    fn flow(protocol: u8, original: (&str, &str), reply: (&str, &str)) -> Flow {
        let way = |(from, to): (&str, &str)| Way { from: from.parse().unwrap(), to: to.parse().unwrap() };
        Flow { protocol, original: way(original), reply: way(reply) }
    }

    fn network() -> NetworkSpec {
        NetworkSpec {
            id: NetworkId::parse(&"1".repeat(64)).unwrap(),
            name: "one".into(),
            driver: Driver::Bridge,
            subnets: vec![Subnet { net: "10.1.0.0/24".parse().unwrap(), gateway: "10.1.0.1".parse().unwrap() }],
            internal: false,
            icc: true,
            mtu: None,
            bridge_name: None,
            masquerade: true,
        }
    }

    fn forward(protocol: Protocol, host: &str) -> Forward {
        let (host, target) = (host.parse().unwrap(), "10.1.0.2:53".parse().unwrap());
        Forward { owner: "web".into(), protocol, host, target, network: network().id }
    }

    fn local() -> HashSet<IpAddr> {
        ["192.0.2.1", "10.1.0.1"].map(|one| one.parse().unwrap()).into()
    }

    #[test]
    fn a_freed_address_takes_all_of_its_connections_along() {
        let mut stale = Stale::default();
        stale.freed(&["10.1.0.2".parse().unwrap()]);
        let inbound = flow(17, (OUTSIDE, HOST), ("10.1.0.2:53", OUTSIDE));
        let outbound = flow(6, ("10.1.0.2:4000", "198.51.100.7:443"), ("198.51.100.7:443", "192.0.2.1:4000"));
        let others = flow(6, ("10.1.0.3:4000", "198.51.100.7:443"), ("198.51.100.7:443", "192.0.2.1:4000"));
        assert_eq!([inbound, outbound, others].map(|one| stale.matches(&one, &local())), [true, true, false]);
        assert!(stale.concerns("10.1.0.2".parse().unwrap()));

        let mut stale = Stale::default();
        stale.free_but("10.1.0.0/24".parse().unwrap(), ["10.1.0.3".parse().unwrap()].into());
        assert_eq!([inbound, outbound, others].map(|one| stale.matches(&one, &local())), [true, true, false]);
    }

    #[test]
    fn a_port_that_is_no_longer_published_takes_its_own_and_no_others() {
        let mut stale = Stale::default();
        stale.removed(&forward(Protocol::Udp, "0.0.0.0:5353"));
        let its = flow(17, (OUTSIDE, HOST), ("10.1.0.2:53", OUTSIDE));
        let other_port = flow(17, (OUTSIDE, "192.0.2.1:5354"), ("10.1.0.2:53", OUTSIDE));
        let other_protocol = flow(6, (OUTSIDE, HOST), ("10.1.0.2:53", OUTSIDE));
        let other_target = flow(17, (OUTSIDE, HOST), ("10.1.0.3:53", OUTSIDE));
        let all = [its, other_port, other_protocol, other_target];
        assert_eq!(all.map(|one| stale.matches(&one, &local())), [true, false, false, false]);
        assert!(stale.concerns_port(&forward(Protocol::Udp, "192.0.2.1:5353")));
    }

    #[test]
    fn a_port_that_is_published_takes_what_came_before_and_nothing_that_only_passes() {
        let mut stale = Stale::default();
        stale.published(&forward(Protocol::Udp, "0.0.0.0:5353"));
        stale.published(&forward(Protocol::Tcp, "0.0.0.0:5354"));
        let before = flow(17, (OUTSIDE, HOST), (HOST, OUTSIDE));
        let since = flow(17, (OUTSIDE, HOST), ("10.1.0.2:53", OUTSIDE));
        let passing = flow(17, ("10.1.0.3:4000", "198.51.100.7:5353"), ("198.51.100.7:5353", "192.0.2.1:4000"));
        let tcp = flow(6, (OUTSIDE, "192.0.2.1:5354"), ("192.0.2.1:5354", OUTSIDE));
        assert_eq!([before, since, passing, tcp].map(|one| stale.matches(&one, &local())), [true, false, false, false]);
    }

    #[test]
    fn what_began_without_rules_is_forgotten_and_what_they_allow_is_not() {
        let mut stale = Stale::default();
        stale.unguarded(&network());
        let direct = flow(6, (OUTSIDE, "10.1.0.2:80"), ("10.1.0.2:80", OUTSIDE));
        let bare = flow(17, ("10.1.0.2:9", "198.51.100.7:9"), ("198.51.100.7:9", "10.1.0.2:9"));
        let published = flow(17, (OUTSIDE, HOST), ("10.1.0.2:53", OUTSIDE));
        let of_host = flow(6, ("10.1.0.1:4000", "10.1.0.2:80"), ("10.1.0.2:80", "10.1.0.1:4000"));
        let of_neighbour = flow(6, ("10.1.0.3:4000", "10.1.0.2:80"), ("10.1.0.2:80", "10.1.0.3:4000"));
        let outbound = flow(17, ("10.1.0.2:9", "198.51.100.7:9"), ("198.51.100.7:9", "192.0.2.1:9"));
        let all = [direct, bare, published, of_host, of_neighbour, outbound];
        assert_eq!(all.map(|one| stale.matches(&one, &local())), [true, true, false, false, false, false]);
    }
}
