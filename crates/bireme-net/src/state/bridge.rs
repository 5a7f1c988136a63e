//! Networks: the bridge of each, its addresses, settings and DNS, and its part of the rules.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use bireme_sys::{listen, route};
use ipnet::IpNet;
use tokio::task::JoinSet;

use super::mac::mac_of;
use super::{DEFAULT_MTU, State, set_sysctl};
use crate::addresses::overlap;
use crate::rules::{DnsPorts, Ruled};
use crate::{NetError, NetworkId, NetworkSpec};

/// Longest name of a network interface.
const NAME_MAX: usize = 15;

pub(super) struct Network {
    pub(super) spec: NetworkSpec,
    pub(super) bridge: String,
    pub(super) index: u32,
    mac: [u8; 6],
    pub(super) dns: DnsPorts,
    /// Dropping it ends the DNS of this gateway.
    _serving: JoinSet<()>,
}

impl Network {
    pub(super) fn ruled(&self) -> Ruled<'_> {
        Ruled { spec: &self.spec, bridge: &self.bridge, mac: self.mac, dns: self.dns }
    }
}

impl State {
    /// Makes or adopts the bridge, then the rules and the DNS.
    pub(crate) fn ensure_network(&mut self, spec: &NetworkSpec) -> Result<(), NetError> {
        if self.networks.get(&spec.id).is_some_and(|known| known.spec == *spec) {
            return Ok(());
        }
        let network = self.prepare_network(spec)?;
        let attempt = format!("adding network {} to the rules", spec.name);
        self.ruled(|rules| rules.add_network(&network.ruled())).map_err(NetError::kernel(attempt))?;
        self.networks.insert(spec.id.clone(), network);
        Ok(())
    }

    pub(crate) fn shares_subnet(&mut self, id: &NetworkId, subnet: IpNet) -> Result<bool, NetError> {
        let network = self.networks.get(id).ok_or_else(|| NetError::NoNetwork(id.clone()))?;
        let addresses = route::addresses(&mut self.route).map_err(NetError::kernel("reading the host's addresses"))?;
        let mut others = addresses.iter().filter(|(index, _)| *index != network.index);
        Ok(others.any(|(_, (address, _))| subnet.contains(address)))
    }

    /// All of a network but its rules.
    pub(super) fn prepare_network(&mut self, spec: &NetworkSpec) -> Result<Network, NetError> {
        check_network(spec)?;
        for other in self.networks.values().filter(|other| other.spec.id != spec.id) {
            let shared = |subnet: &crate::Subnet| other.spec.subnets.iter().any(|its| overlap(&its.net, &subnet.net));
            if let Some(subnet) = spec.subnets.iter().find(|subnet| shared(subnet)) {
                return Err(NetError::NetworkConflict {
                    network: spec.name.clone(),
                    reason: format!(
                        "Pool overlaps with other one on this address space: {} is part of network {}, choose another subnet",
                        subnet.net, other.spec.name
                    ),
                });
            }
        }
        let alias = format!("bireme:{}:{}", self.instance, spec.id);
        let attempt = |what: &str| format!("{what} the bridge of network {}", spec.name);
        let bridge = match self.networks.get(&spec.id) {
            Some(known) => known.bridge.clone(),
            None => self.bridge_name(spec, &alias)?,
        };
        let found = route::link(&mut self.route, &bridge).map_err(NetError::kernel(attempt("looking for")))?;
        let made = found.is_none();
        if let Some(other) = found.filter(|found| found.alias != alias) {
            let reason = format!(
                "an interface called {bridge} exists and is not this network's bridge{}; choose another name or remove it",
                if other.alias.is_empty() { String::new() } else { format!(" (it is {:?})", other.alias) }
            );
            return Err(NetError::NetworkConflict { network: spec.name.clone(), reason });
        }
        if made {
            let gateway = spec.subnets.iter().find_map(|subnet| match subnet.gateway {
                IpAddr::V4(gateway) => Some(gateway.octets()),
                IpAddr::V6(_) => None,
            });
            let add = route::add_bridge(&bridge, mac_of(gateway.unwrap_or_default()), spec.mtu.unwrap_or(DEFAULT_MTU));
            self.route
                .request(&[add, route::set_link(&bridge, &alias, None)])
                .map_err(NetError::kernel(attempt("making")))?;
        }
        let finished = self.finish_network(spec, &bridge);
        if finished.is_err()
            && made
            && let Ok(Some(link)) = route::link(&mut self.route, &bridge)
        {
            let _ = self.route.request(&[route::delete_link(link.index)]);
        }
        finished
    }

    fn finish_network(&mut self, spec: &NetworkSpec, bridge: &str) -> Result<Network, NetError> {
        let failed = |what: &str| format!("{what} of the bridge of network {}", spec.name);
        let link = route::link(&mut self.route, bridge).map_err(NetError::kernel(failed("asking for the index")))?;
        let link = link.ok_or_else(|| NetError::NoNetwork(spec.id.clone()))?;
        let (index, mac) = (link.index, link.mac.try_into().unwrap_or_default());

        // 127.0.0.1 of the host reaches published ports; see rules.rs for what keeps others from it.
        let sysctl = |name: &str, value: &str| set_sysctl(&format!("net/{}", name.replace('*', bridge)), value);
        set_route_localnet(bridge, true).map_err(NetError::io(failed("setting route_localnet")))?;
        if spec.subnets.iter().any(|subnet| subnet.net.addr().is_ipv6()) {
            // Workloads are no routers to the host (CVE-2020-13401).
            let set = ["accept_ra", "accept_redirects", "disable_ipv6"]
                .iter()
                .try_for_each(|name| sysctl(&format!("ipv6/conf/*/{name}"), "0"));
            set.map_err(NetError::io(failed("enabling IPv6")))?;
        } else {
            // Absent where the kernel has no IPv6.
            let _ = sysctl("ipv6/conf/*/disable_ipv6", "1");
        }

        if !spec.internal {
            self.forwarding.open(self.rules.socket(), spec.subnets.iter().map(|subnet| subnet.gateway))?;
        }

        let wanted = spec.subnets.iter().map(|subnet| (subnet.gateway, subnet.net.prefix_len()));
        let there = route::addresses(&mut self.route).map_err(NetError::kernel(failed("asking for the addresses")))?;
        let missing = wanted.filter(|prefix| !there.contains(&(index, *prefix)));
        let add: Vec<_> = missing.map(|prefix| route::add_address(index, prefix)).collect();
        self.route.request(&add).map_err(NetError::kernel(failed("setting the addresses")))?;

        let gateway = spec.subnets.iter().map(|subnet| subnet.gateway).find(IpAddr::is_ipv4);
        let gateway = gateway.ok_or_else(|| NetError::NoNetwork(spec.id.clone()))?;
        let attempt = failed("opening the DNS");
        let (udp, tcp) = open_dns(gateway).map_err(NetError::io(attempt.clone()))?;
        let port = |address: io::Result<SocketAddr>| address.map(|address| address.port());
        let dns = DnsPorts {
            gateway,
            udp: port(udp.local_addr()).map_err(NetError::io(attempt.clone()))?,
            tcp: port(tcp.local_addr()).map_err(NetError::io(attempt.clone()))?,
        };
        let serving = self.service.serve(&self.runtime, udp, tcp, None).map_err(NetError::io(attempt))?;
        self.service.directory.set_network(&spec.id, spec.internal, gateway);
        Ok(Network { spec: spec.clone(), bridge: bridge.to_owned(), index, mac, dns, _serving: serving })
    }

    /// The name asked for, or the first of ours that is free or already this network's.
    fn bridge_name(&mut self, spec: &NetworkSpec, alias: &str) -> Result<String, NetError> {
        if let Some(name) = &spec.bridge_name {
            return Ok(name.clone());
        }
        self.free_name("br", spec.id.as_str(), |link| link.alias == alias)
            .map_err(NetError::kernel(format!("choosing a name for the bridge of network {}", spec.name)))
    }

    pub(crate) fn remove_network(&mut self, id: &NetworkId) -> Result<(), NetError> {
        let Some(network) = self.networks.get(id) else { return Ok(()) };
        let name = network.spec.name.clone();
        let used: Vec<_> =
            self.links.keys().filter(|(_, of)| of == id).map(|(sandbox, _)| sandbox.to_string()).collect();
        if !used.is_empty() {
            let reason = format!("error while removing network: it has active endpoints ({})", used.join(", "));
            return Err(NetError::NetworkConflict { network: name, reason });
        }
        self.rules
            .remove_network(&network.ruled())
            .map_err(NetError::kernel(format!("taking network {name} out of the rules")))?;
        let index = network.index;
        network.spec.subnets.iter().for_each(|subnet| self.stale.free_but(subnet.net, HashSet::new()));
        self.settle(None);
        self.networks.remove(id);
        self.service.directory.forget_network(id);
        self.delete_link(index).map_err(NetError::kernel(format!("removing the bridge of network {name}")))
    }
}

fn check_network(spec: &NetworkSpec) -> Result<(), NetError> {
    let refuse = |reason: String| Err(NetError::InvalidNetwork { network: spec.name.clone(), reason });
    let count = |v4: bool| spec.subnets.iter().filter(|subnet| subnet.gateway.is_ipv4() == v4).count();
    if count(true) != 1 || count(false) > 1 {
        return refuse("it needs one IPv4 subnet, where its DNS listens, and at most one of IPv6".into());
    }
    for subnet in &spec.subnets {
        if !subnet.net.contains(&subnet.gateway) {
            return refuse(format!("gateway {} is not in subnet {}: choose one that is", subnet.gateway, subnet.net));
        }
    }
    if let Some(mtu) = spec.mtu
        && !(68..=65535).contains(&mtu)
    {
        return refuse(format!("MTU {mtu} is not between 68 and 65535"));
    }
    if let Some(name) = &spec.bridge_name {
        let plain = |b: u8| b.is_ascii_graphic() && b != b'/' && b != b':';
        if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(plain) || matches!(name.as_str(), "." | "..") {
            return refuse(format!(
                "{name:?} cannot name a bridge: use 1 to {NAME_MAX} letters, digits, `-`, `_` or `.`"
            ));
        }
    }
    Ok(())
}

fn open_dns(gateway: IpAddr) -> io::Result<(std::net::UdpSocket, std::net::TcpListener)> {
    /// Ports that only root binds, so that nobody else answers members while no daemon does; of those that no service has.
    const PORTS: std::ops::RangeInclusive<u16> = 915..=952;
    let open = |bind: fn(SocketAddr) -> io::Result<OwnedFd>| {
        let mut tried = PORTS.map(|port| bind(SocketAddr::new(gateway, port)));
        tried.find(Result::is_ok).unwrap_or_else(|| bind(SocketAddr::new(gateway, 0)))
    };
    Ok((open(listen::udp)?.into(), open(listen::tcp)?.into()))
}

/// Whether the bridge routes packets to loopback addresses, as published ports of 127.0.0.1 need it.
pub(super) fn set_route_localnet(bridge: &str, on: bool) -> io::Result<()> {
    set_sysctl(&format!("net/ipv4/conf/{bridge}/route_localnet"), if on { "1" } else { "0" })
}
