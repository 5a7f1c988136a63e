//! Endpoints: the interface of a sandbox on a network, and whose addresses it has.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd as _;

use bireme_core::SandboxId;
use bireme_sys::netlink::{Refused, Socket, Subsystem};
use bireme_sys::packet::{self, PacketSender};
use bireme_sys::{netns, route};
use ipnet::IpNet;
use rustix::io::Errno;

use super::interface::{configure, lead, take_addresses};
use super::mac::{mac_for, mac_text};
use super::{DEFAULT_MTU, State};
use crate::guard::Port;
use crate::{Attached, Endpoint, NetError, NetworkId, NetworkSpec};

/// The one interface of a sandbox on a network.
pub(super) struct Link {
    pub(super) attached: Attached,
    /// As it was given; a workload with the right to may have changed it.
    pub(super) mac: [u8; 6],
    pub(super) routes: bool,
    /// By owner.
    pub(super) endpoints: BTreeMap<String, Endpoint>,
}

impl Link {
    /// What the rules know of it.
    pub(super) fn port(&self) -> Port {
        Port {
            interface: self.attached.host_interface.clone(),
            mac: self.mac,
            addresses: self.endpoints.values().flat_map(|one| &one.addresses).map(IpNet::addr).collect(),
            routes: self.routes,
        }
    }

    /// Whether the way out of its sandbox goes over it.
    fn leads_out(&self) -> bool {
        self.endpoints.values().any(|one| one.default_route)
    }
}

impl State {
    pub(crate) fn attach(&mut self, endpoint: &Endpoint) -> Result<Attached, NetError> {
        let network =
            self.networks.get(&endpoint.network).ok_or_else(|| NetError::NoNetwork(endpoint.network.clone()))?;
        let spec = network.spec.clone();
        let (bridge, path) = (network.index, self.sandboxes.path(&endpoint.sandbox));
        if !netns::exists(&path) {
            return Err(NetError::NoSandbox(endpoint.sandbox.clone()));
        }
        self.check_endpoint(endpoint, &spec)?;
        let key = (endpoint.sandbox.clone(), endpoint.network.clone());
        let addresses: Vec<_> = endpoint.addresses.iter().map(IpNet::addr).collect();
        let gateways: Vec<_> = if endpoint.default_route && !spec.internal {
            spec.subnets.iter().map(|subnet| subnet.gateway).collect()
        } else {
            vec![]
        };

        if let Some(link) = self.links.get(&key) {
            let (attached, port) = (link.attached.clone(), link.port());
            let held: BTreeSet<_> = link.endpoints.values().flat_map(|other| &other.addresses).copied().collect();
            let before = link.endpoints.get(&endpoint.owner).map(|before| before.addresses.clone());
            let new: Vec<_> = endpoint.addresses.iter().filter(|address| !held.contains(address)).copied().collect();
            if !new.is_empty() || endpoint.default_route {
                let added: Vec<_> = new.iter().map(IpNet::addr).collect();
                let attempt = format!("adding addresses of {} to the rules", endpoint.sandbox);
                self.ruled(|rules| rules.add_addresses(&port, &added)).map_err(NetError::kernel(attempt))?;
                configure(&path, endpoint, &spec.name, &attached.interface, &new, &gateways)?;
            }
            if let Some(link) = self.links.get_mut(&key) {
                link.endpoints.insert(endpoint.owner.clone(), endpoint.clone());
                let kept = link.port().addresses;
                let freed: Vec<_> =
                    before.into_iter().flatten().filter(|address| !kept.contains(&address.addr())).collect();
                if !freed.is_empty() {
                    self.free(&key, &freed)?;
                }
            }
            self.service.directory.add_client(&endpoint.sandbox, &endpoint.network, &addresses);
            self.service.directory.set_reverse(&addresses, endpoint.name.as_deref());
            if !new.is_empty() {
                self.tell_neighbours(&key, &new);
            }
            return Ok(attached);
        }

        self.settle(Some(&endpoint.sandbox));
        let interface = self.free_interface(&endpoint.sandbox);
        let failed = |what: &str| format!("{what} the interface of {} on network {}", endpoint.sandbox, spec.name);
        let namespace = File::open(&path).map_err(NetError::io(failed("finding the namespace for")))?;
        let alias = format!("bireme:{}:{}:{}", self.instance, endpoint.network, endpoint.sandbox);
        let seed = format!("{}{}", endpoint.sandbox, endpoint.network);
        let name = self.free_name("ve", &seed, |_| false).map_err(NetError::kernel(failed("choosing a name for")))?;
        let mac = self.free_mac(endpoint);
        let attached = Attached { interface: interface.clone(), mac: mac_text(&mac), host_interface: name.clone() };
        let endpoints = BTreeMap::from([(endpoint.owner.clone(), endpoint.clone())]);
        let link = Link { attached: attached.clone(), mac, routes: endpoint.routes, endpoints };
        // Before there is an interface: a workload that runs already could use it at once.
        let port = link.port();
        self.ruled(|rules| rules.add_port(&port)).map_err(NetError::kernel(failed("adding to the rules")))?;
        let veth = route::Veth {
            name: &name,
            peer_name: &interface,
            peer_mac: mac,
            peer_namespace: namespace.as_fd(),
            mtu: spec.mtu.unwrap_or(DEFAULT_MTU),
        };
        let made = self
            .route
            .request(&[
                route::add_veth(&veth),
                route::set_link(&name, &alias, Some(bridge)),
                // A workload that asks for its own published port comes back to itself.
                route::set_bridge_port(&name, true, !spec.icc),
            ])
            .map_err(NetError::kernel(failed("making")))
            .and_then(|()| configure(&path, endpoint, &spec.name, &interface, &endpoint.addresses, &gateways));
        if let Err(error) = made {
            if let Ok(Some(link)) = route::link(&mut self.route, &name) {
                let _ = self.delete_link(link.index);
            }
            let _ = self.rules.remove_port(&port);
            if let NetError::Kernel { source, .. } = &error
                && source.errno == Errno::XFULL
            {
                let reason = "the kernel's bridge takes no more than 1023 members: make a further network".to_owned();
                return Err(NetError::EndpointConflict {
                    sandbox: endpoint.sandbox.clone(),
                    network: spec.name,
                    reason,
                });
            }
            return Err(error);
        }
        self.links.insert(key.clone(), link);
        self.service.directory.add_client(&endpoint.sandbox, &endpoint.network, &addresses);
        self.service.directory.set_reverse(&addresses, endpoint.name.as_deref());
        self.tell_neighbours(&key, &endpoint.addresses);
        Ok(attached)
    }

    pub(crate) fn detach(&mut self, endpoint: &Endpoint) -> Result<(), NetError> {
        let key = (endpoint.sandbox.clone(), endpoint.network.clone());
        let Some(link) = self.links.get_mut(&key) else { return Ok(()) };
        if link.endpoints.keys().all(|owner| *owner == endpoint.owner) {
            return self.drop_link(&key);
        }
        let Some(left) = link.endpoints.remove(&endpoint.owner) else { return Ok(()) };
        self.free(&key, &left.addresses)
    }

    /// Has the way out of a sandbox go over another network where the one it went over is gone: the first of `wanted` that
    /// it is on and that has one, else any. Answers over which it goes.
    pub(crate) fn lead_out(
        &mut self,
        sandbox: &SandboxId,
        wanted: &[NetworkId],
    ) -> Result<Option<NetworkId>, NetError> {
        let mine = self.links.iter().filter(|((of, _), _)| of == sandbox);
        let open = mine.filter(|((_, on), _)| self.networks.get(on).is_some_and(|network| !network.spec.internal));
        let open: Vec<_> = open.map(|((_, on), link)| (on.clone(), link.leads_out())).collect();
        if let Some((on, _)) = open.iter().find(|(_, leads)| *leads) {
            return Ok(Some(on.clone()));
        }
        let preferred = wanted.iter().find(|one| open.iter().any(|(on, _)| on == *one));
        let Some(on) = preferred.or(open.first().map(|(on, _)| on)).cloned() else { return Ok(None) };
        // The interface that is on its way out may still have a route.
        self.settle(Some(sandbox));
        let (Some(network), Some(link)) = (self.networks.get(&on), self.links.get_mut(&(sandbox.clone(), on.clone())))
        else {
            return Ok(None);
        };
        let families: BTreeSet<_> = link.port().addresses.iter().map(IpAddr::is_ipv4).collect();
        let gateways = network.spec.subnets.iter().map(|subnet| subnet.gateway);
        let gateways: Vec<_> = gateways.filter(|gateway| families.contains(&gateway.is_ipv4())).collect();
        lead(&self.sandboxes.path(sandbox), sandbox, &link.attached.interface, &gateways)?;
        link.endpoints.values_mut().for_each(|one| one.default_route = true);
        Ok(Some(on))
    }

    /// Removes a sandbox's interface on a network, whoever uses it.
    pub(super) fn drop_link(&mut self, key: &(SandboxId, NetworkId)) -> Result<(), NetError> {
        let Some(link) = self.links.get(key) else { return Ok(()) };
        let addresses: Vec<_> = link.endpoints.values().flat_map(|one| &one.addresses).map(IpNet::addr).collect();
        self.unpublish_to(&key.1, &addresses)?;
        let Some(link) = self.links.remove(key) else { return Ok(()) };
        self.service.directory.remove_client(&key.0, &key.1, &addresses, true);
        let name = &link.attached.host_interface;
        self.rules
            .remove_port(&link.port())
            .map_err(NetError::kernel(format!("taking interface {name} of {} out of the rules", key.0)))?;
        self.stale.freed(&addresses);
        let failed = || NetError::kernel(format!("removing interface {name} of {}", key.0));
        let Some(found) = route::link(&mut self.route, name).map_err(failed())? else { return Ok(()) };
        // The kernel takes some 30 ms over it, waiting for every processor to let go. All that others could notice ends
        // now: without addresses nobody reaches the workload, and a later daemon does not take the rest for its own.
        let gone = format!("bireme:{}:gone", self.instance);
        self.route.request(&[route::set_alias(found.index, &gone)]).map_err(failed())?;
        let addresses: Vec<_> = link.endpoints.into_values().flat_map(|one| one.addresses).collect();
        take_addresses(&self.sandboxes.path(&key.0), &key.0, &link.attached.interface, &addresses)?;
        let remove = move || {
            let answer = Socket::open(Subsystem::Route)
                .map_err(Refused::from)
                .and_then(|mut socket| socket.request(&[route::delete_link(found.index)]));
            match answer {
                Err(error) if error.errno != Errno::NODEV => {
                    tracing::warn!(link = found.name, %error, "an interface stays until the daemon starts again");
                }
                _ => {}
            }
        };
        self.leaving.retain(|(_, task)| !task.is_finished());
        self.leaving.push((key.0.clone(), self.runtime.spawn_blocking(remove)));
        Ok(())
    }

    /// Takes addresses that no endpoint has any longer from the interface of a sandbox, which keeps others.
    fn free(&mut self, key: &(SandboxId, NetworkId), freed: &[IpNet]) -> Result<(), NetError> {
        let Some(link) = self.links.get(key) else { return Ok(()) };
        let (interface, port) = (link.attached.interface.clone(), link.port());
        let addresses: Vec<_> = freed.iter().map(IpNet::addr).collect();
        self.unpublish_to(&key.1, &addresses)?;
        self.service.directory.remove_client(&key.0, &key.1, &addresses, false);
        let attempt = format!("taking addresses of {} out of the rules", key.0);
        self.rules.remove_addresses(&port, &addresses).map_err(NetError::kernel(attempt))?;
        self.stale.freed(&addresses);
        take_addresses(&self.sandboxes.path(&key.0), &key.0, &interface, freed)
    }

    /// Has everybody on the network know who has these addresses now: one with the right to use free addresses may have
    /// had them before, and what is sent to them would go on to him.
    ///
    /// It is said by the bridge, which reaches all of its ports at once; that of the newcomer takes a moment to open.
    fn tell_neighbours(&mut self, key: &(SandboxId, NetworkId), addresses: &[IpNet]) {
        let (Some(link), Some(network)) = (self.links.get(key), self.networks.get(&key.1)) else { return };
        let (bridge, mac, name) = (network.index, link.mac, link.attached.host_interface.clone());
        let addresses: Vec<_> = addresses.iter().map(IpNet::addr).collect();
        let mut told = || -> Result<(), Refused> {
            let port = route::link(&mut self.route, &name)?.ok_or(Errno::NODEV)?.index;
            self.route.request(&[route::place_hardware(port, mac)])?;
            for address in &addresses {
                match self.route.request(&[route::forget_neighbour(bridge, *address)]) {
                    // The host knows nobody by that address.
                    Err(refused) if refused.errno == Errno::NOENT => {}
                    answer => answer?,
                }
            }
            let frames = match &mut self.frames {
                Some(frames) => frames,
                none => none.insert(PacketSender::open()?),
            };
            let announce = |address: &IpAddr| frames.send(bridge, &packet::announcement(mac, *address));
            addresses.iter().try_for_each(announce)?;
            Ok(())
        };
        if let Err(error) = told() {
            tracing::warn!(sandbox = %key.0, network = %key.1, %error, "neighbours may send what is for a newcomer to whoever had its address");
        }
    }

    /// The hardware address asked for, or the one made from the first address, unless somebody has that: who was given the
    /// address before may have left his hardware address to those he shared a sandbox with.
    fn free_mac(&self, endpoint: &Endpoint) -> [u8; 6] {
        let mut mac = mac_for(endpoint);
        let taken = |mac| self.links.iter().any(|((_, on), link)| *on == endpoint.network && link.mac == mac);
        while endpoint.mac.is_none() && taken(mac) {
            mac[1] = mac[1].wrapping_add(1);
        }
        mac
    }

    fn check_endpoint(&self, endpoint: &Endpoint, spec: &NetworkSpec) -> Result<(), NetError> {
        let (sandbox, network) = (endpoint.sandbox.clone(), spec.name.clone());
        let invalid = |reason| NetError::InvalidEndpoint { sandbox: sandbox.clone(), network: network.clone(), reason };
        if endpoint.addresses.is_empty() {
            return Err(invalid("it has no address: give at least one of the network's subnet".into()));
        }
        if endpoint.addresses.iter().all(|address| is_link_local(address.addr())) {
            return Err(invalid("it has no address of the network's subnet: give at least one".into()));
        }
        for address in &endpoint.addresses {
            let within =
                |subnet: &crate::Subnet| subnet.net.contains(&address.addr()) && subnet.gateway != address.addr();
            if !is_link_local(address.addr()) && !spec.subnets.iter().any(within) {
                return Err(invalid(format!("address {address} is not a free one of the network's subnets")));
            }
            let others = self.links.iter().filter(|((_, of), _)| *of == endpoint.network);
            let mut holders = others.flat_map(|((of, _), link)| link.endpoints.values().map(move |one| (of, one)));
            let same = |of: &SandboxId, one: &Endpoint| *of == endpoint.sandbox && one.owner == endpoint.owner;
            if let Some((of, _)) =
                holders.find(|(of, one)| !same(of, one) && one.addresses.iter().any(|its| its.addr() == address.addr()))
            {
                let reason = format!("Address already in use: {address} belongs to {of}, choose another");
                return Err(NetError::EndpointConflict { sandbox, network, reason });
            }
        }
        Ok(())
    }

    /// `eth0`, or the first with a higher number that the sandbox does not have.
    fn free_interface(&self, sandbox: &SandboxId) -> String {
        let mine = self.links.iter().filter(|((of, _), _)| of == sandbox);
        let used: BTreeSet<_> = mine.map(|(_, link)| link.attached.interface.as_str()).collect();
        let mut number = 0;
        loop {
            let name = format!("eth{number}");
            if !used.contains(name.as_str()) {
                return name;
            }
            number += 1;
        }
    }
}

/// Addresses that a network need not have in its subnets.
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}
