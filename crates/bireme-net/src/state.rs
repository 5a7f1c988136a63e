//! What stands in the kernel, and the blocking work that changes it. Callers hold a lock: the kernel itself does most
//! of this one at a time.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bireme_core::SandboxId;
use bireme_core::spec::Protocol;
use bireme_sys::netlink::{Refused, Socket, Subsystem};
use bireme_sys::nft::Removal;
use bireme_sys::packet::{self, PacketSocket};
use bireme_sys::{listen, netns, route};
use ipnet::IpNet;
use rustix::io::Errno;
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet};

use crate::addresses::overlap;
use crate::dns::Service;
use crate::flows::Stale;
use crate::forwarding::{self, Forwarding};
use crate::guard::Port;
use crate::proxy::{self, Passing, Pool};
use crate::rules::{Content, DnsPorts, Proxied, Ruled, Rules};
use crate::{Attached, Endpoint, Forward, NetError, NetworkId, NetworkSpec};

/// Longest name of a network interface.
const NAME_MAX: usize = 15;
const DEFAULT_MTU: u32 = 1500;
/// What is removed within this time is forgotten by the kernel at once: it is asked for all that it remembers.
const GATHERING: Duration = Duration::from_millis(20);

pub(crate) struct State {
    pub(crate) instance: String,
    pub(crate) route: Socket,
    pub(crate) rules: Rules,
    pub(crate) forwarding: Forwarding,
    /// What the kernel shall forget of connections.
    pub(crate) stale: Stale,
    /// What is being forgotten in this moment, without the lock.
    leaving_memory: Arc<Stale>,
    /// Whether somebody is about to call [`Self::begin_forgetting`].
    forgetting: bool,
    /// How long it took the last time.
    forgot_in: Duration,
    pub(crate) sandboxes: Sandboxes,
    pub(crate) service: Arc<Service>,
    runtime: Handle,
    /// The DNS inside sandboxes; dropping one ends it.
    pub(crate) inside: BTreeMap<SandboxId, JoinSet<()>>,
    pub(crate) networks: BTreeMap<NetworkId, Network>,
    pub(crate) links: BTreeMap<(SandboxId, NetworkId), Link>,
    pub(crate) forwards: Vec<Held>,
    /// How many sockets listen at each TCP port of the host for workloads that were handed them.
    pub(crate) handed: BTreeMap<u16, usize>,
    /// The places of all ports that are passed on here.
    pool: Arc<Pool>,
    /// Interfaces that the kernel is still removing, and the sandbox they are in.
    leaving: Vec<(SandboxId, JoinHandle<()>)>,
}

pub(crate) struct Network {
    pub(crate) spec: NetworkSpec,
    pub(crate) bridge: String,
    pub(crate) index: u32,
    mac: [u8; 6],
    pub(crate) dns: DnsPorts,
    /// Dropping it ends the DNS of this gateway.
    _serving: JoinSet<()>,
}

impl Network {
    pub(crate) fn ruled(&self) -> Ruled<'_> {
        Ruled { spec: &self.spec, bridge: &self.bridge, mac: self.mac, dns: self.dns }
    }
}

/// The one interface of a sandbox on a network.
pub(crate) struct Link {
    pub(crate) attached: Attached,
    /// As it was given; a workload with the right to may have changed it.
    pub(crate) mac: [u8; 6],
    pub(crate) routes: bool,
    /// By owner.
    pub(crate) endpoints: BTreeMap<String, Endpoint>,
}

impl Link {
    /// What the rules know of it.
    pub(crate) fn port(&self) -> Port {
        Port {
            interface: self.attached.host_interface.clone(),
            mac: self.mac,
            addresses: self.endpoints.values().flat_map(|one| &one.addresses).map(IpNet::addr).collect(),
            routes: self.routes,
        }
    }
}

impl Link {
    /// Whether the way out of its sandbox goes over it.
    fn leads_out(&self) -> bool {
        self.endpoints.values().any(|one| one.default_route)
    }
}

/// A published port and the socket that keeps others from it.
pub(crate) struct Held {
    /// With the port that the kernel chose, if it was asked to.
    pub(crate) forward: Forward,
    pub(crate) asked: SocketAddr,
    pub(crate) reservation: Reservation,
}

impl Held {
    /// What the rules are to know of the socket.
    pub(crate) fn proxied(&self) -> Option<Proxied> {
        matches!(self.reservation, Reservation::Passed(_)).then_some((self.forward.protocol, self.forward.host.port()))
    }

    /// What the rules are to know of a socket that is somebody else's.
    pub(crate) fn missing(&self) -> Option<Proxied> {
        let passes = self.forward.host.is_ipv6() && self.forward.protocol != Protocol::Sctp;
        let missing = matches!(self.reservation, Reservation::Missing) && passes;
        missing.then_some((self.forward.protocol, self.forward.host.port()))
    }

    /// Whether this one has a port that `other` would take.
    fn has_port_of(&self, other: &Forward) -> bool {
        let (own, host) = (self.forward.host, other.host);
        self.forward.protocol == other.protocol
            && own.port() == host.port()
            && own.is_ipv4() == host.is_ipv4()
            && (own.ip() == host.ip() || own.ip().is_unspecified() || host.ip().is_unspecified())
    }

    /// Whether the kernel forwards it; otherwise all of it goes through the socket.
    pub(crate) fn ruled(&self) -> bool {
        self.forward.host.is_ipv4() == self.forward.target.is_ipv4()
    }
}

/// Both end when dropped.
pub(crate) enum Reservation {
    /// Nobody ever connects to it: the rules come before.
    Held(#[expect(dead_code, reason = "it is there to be open")] OwnedFd),
    /// Passes on what the rules cannot: what comes to `::1`, and from IPv6 to an IPv4 workload. Stands still while the
    /// daemon does.
    Passed(Passing),
    /// Another program had the port when it was to be taken up again.
    Missing,
}

impl State {
    pub(crate) fn open(
        instance: &str,
        sandboxes: Sandboxes,
        service: Arc<Service>,
        runtime: Handle,
        own_tables: bool,
    ) -> Result<Self, NetError> {
        let route = Socket::open(Subsystem::Route).map_err(NetError::io("opening a netlink socket"))?;
        let filter = Socket::open(Subsystem::Netfilter).map_err(NetError::io("opening a netfilter socket"))?;
        let attempt = format!("setting up nf_tables table bireme_{instance}");
        let rules = Rules::open(instance, filter, own_tables).map_err(NetError::kernel(attempt))?;
        Ok(Self {
            instance: instance.to_owned(),
            route,
            rules,
            forwarding: Forwarding::load(&sandboxes.run_dir),
            stale: Stale::default(),
            leaving_memory: Arc::default(),
            forgetting: false,
            forgot_in: Duration::ZERO,
            sandboxes,
            service,
            runtime,
            inside: BTreeMap::new(),
            networks: BTreeMap::new(),
            links: BTreeMap::new(),
            forwards: Vec::new(),
            handed: BTreeMap::new(),
            pool: Arc::new(Pool::new(open_files())),
            leaving: Vec::new(),
        })
    }

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

    /// Changes the rules, which are made again first where somebody removed them.
    fn ruled(&mut self, change: impl Fn(&mut Rules) -> Result<(), Refused>) -> Result<(), Refused> {
        match change(&mut self.rules) {
            Err(refused) if refused.errno == Errno::NOENT => {
                self.rebuild()?;
                change(&mut self.rules)
            }
            answer => answer,
        }
    }

    /// Puts all rules anew.
    pub(crate) fn rebuild(&mut self) -> Result<(), Refused> {
        let forwards = self.forwards.iter().filter(|held| held.ruled());
        self.rules.rebuild(&Content {
            networks: self.networks.values().map(Network::ruled).collect(),
            ports: self.links.values().map(Link::port).collect(),
            forwards: forwards.map(|held| held.forward.clone()).collect(),
            proxied: self.proxied().collect(),
            missing: self.forwards.iter().filter_map(Held::missing).collect(),
        })
    }

    /// Every port of the host at which a socket listens for workloads, once or more often.
    fn proxied(&self) -> impl Iterator<Item = Proxied> {
        let handed = self.handed.keys().map(|port| (Protocol::Tcp, *port));
        self.forwards.iter().filter_map(Held::proxied).chain(handed)
    }

    /// Somebody removed tables, as `nft flush ruleset` does: makes again what is gone of ours, and has the kernel forget
    /// what began meanwhile. Nothing happens where `removed` are none of ours; where it tells of nothing, all are looked
    /// for.
    pub(crate) fn mend(&mut self, removed: &[Removal]) -> Result<(), NetError> {
        let number = self.rules.socket().number().map_err(NetError::io("asking for the number of a socket"))?;
        let by_others = |table: &str| removed.iter().any(|one| one.table == table && one.by != number);
        let taken = by_others(self.rules.table());
        if !(taken || removed.is_empty() || by_others(forwarding::TABLE)) {
            return Ok(());
        }
        let lost = self.rules.lost(taken).map_err(NetError::kernel("looking for the rules of nf_tables"))?;
        if !lost.is_empty() {
            let made = self.rebuild().map_err(NetError::kernel("making the rules of nf_tables again"));
            // Without rules a frame to 127.0.0.1 must not be routed (rules.rs).
            self.route_localnet(made.is_ok());
            made?;
            tracing::warn!(
                table = self.rules.table(),
                "somebody removed the rules that keep workloads apart: they are made again"
            );
            for network in self.networks.values() {
                self.stale.unguarded(&network.spec);
            }
            for held in self.forwards.iter().filter(|held| held.ruled()) {
                self.stale.published(&held.forward);
            }
        }
        let routed = self.networks.values().filter(|network| !network.spec.internal);
        let gateways = routed.flat_map(|network| network.spec.subnets.iter().map(|subnet| subnet.gateway));
        self.forwarding.open(self.rules.socket(), gateways)
    }

    /// Whether packets to loopback addresses pass our bridges at all.
    fn route_localnet(&self, on: bool) {
        for network in self.networks.values() {
            if let Err(error) = set_route_localnet(&network.bridge, on) {
                tracing::warn!(bridge = network.bridge, on, %error, "route_localnet could not be set");
            }
        }
    }

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

    pub(crate) fn shares_subnet(&mut self, id: &NetworkId, subnet: IpNet) -> Result<bool, NetError> {
        let network = self.networks.get(id).ok_or_else(|| NetError::NoNetwork(id.clone()))?;
        let addresses = route::addresses(&mut self.route).map_err(NetError::kernel("reading the host's addresses"))?;
        let mut others = addresses.iter().filter(|(index, _)| *index != network.index);
        Ok(others.any(|(_, (address, _))| subnet.contains(address)))
    }

    /// All of a network but its rules.
    pub(crate) fn prepare_network(&mut self, spec: &NetworkSpec) -> Result<Network, NetError> {
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

    /// `prefix`, the instance, and five characters out of `seed` so that no other link has the name, unless it is
    /// `acceptable`.
    fn free_name(
        &mut self,
        prefix: &str,
        seed: &str,
        acceptable: impl Fn(&route::Link) -> bool,
    ) -> Result<String, Refused> {
        const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let mut attempt = 0u32;
        loop {
            let mut hasher = DefaultHasher::new();
            (seed, attempt).hash(&mut hasher);
            let hash = hasher.finish();
            let tail: String = (0..5).map(|digit| char::from(DIGITS[(hash >> (digit * 5) & 31) as usize])).collect();
            let name = format!("{prefix}{}{tail}", self.instance);
            if route::link(&mut self.route, &name)?.is_none_or(|link| acceptable(&link)) {
                return Ok(name);
            }
            attempt += 1;
        }
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

    /// One that is gone is no error.
    pub(crate) fn delete_link(&mut self, index: u32) -> Result<(), Refused> {
        match self.route.request(&[route::delete_link(index)]) {
            Err(refused) if refused.errno == Errno::NODEV => Ok(()),
            answer => answer,
        }
    }

    pub(crate) fn serve_inside(
        &mut self,
        id: SandboxId,
        udp: std::net::UdpSocket,
        tcp: std::net::TcpListener,
    ) -> Result<(), NetError> {
        let attempt = format!("serving names inside {id}");
        let serving = self.service.serve(&self.runtime, udp, tcp, Some(&id)).map_err(NetError::io(attempt))?;
        self.inside.insert(id, serving);
        Ok(())
    }

    pub(crate) fn remove_sandbox(&mut self, id: &SandboxId) -> Result<(), NetError> {
        if let Some(mut serving) = self.inside.remove(id) {
            // Its sockets would keep the namespace alive.
            self.runtime.block_on(serving.shutdown());
        }
        let attached: Vec<_> = self.links.keys().filter(|(of, _)| of == id).cloned().collect();
        let mut first = None;
        for key in attached {
            if let Err(error) = self.drop_link(&key) {
                first.get_or_insert(error);
            }
        }
        if let Err(error) = self.sandboxes.remove(id) {
            first.get_or_insert(error);
        }
        first.map_or(Ok(()), Err)
    }

    /// Removes a sandbox's interface on a network, whoever uses it.
    fn drop_link(&mut self, key: &(SandboxId, NetworkId)) -> Result<(), NetError> {
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

    /// Waits until interfaces on their way out are gone: those of `sandbox`, or all.
    pub(crate) fn settle(&mut self, sandbox: Option<&SandboxId>) {
        for (_, task) in self.leaving.extract_if(.., |(of, _)| sandbox.is_none_or(|sandbox| sandbox == of)) {
            // Its own failures are logged; a runtime that ends takes it along.
            let _ = self.runtime.block_on(task);
        }
    }

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
            let socket = PacketSocket::open(bridge)?;
            addresses.iter().try_for_each(|address| socket.send(&packet::announcement(mac, *address)))?;
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

    pub(crate) fn detach(&mut self, endpoint: &Endpoint) -> Result<(), NetError> {
        let key = (endpoint.sandbox.clone(), endpoint.network.clone());
        let Some(link) = self.links.get_mut(&key) else { return Ok(()) };
        if link.endpoints.keys().all(|owner| *owner == endpoint.owner) {
            return self.drop_link(&key);
        }
        let Some(left) = link.endpoints.remove(&endpoint.owner) else { return Ok(()) };
        self.free(&key, &left.addresses)
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

    pub(crate) fn publish(&mut self, forward: &Forward) -> Result<SocketAddr, NetError> {
        let same = |held: &&Held| {
            let of = &held.forward;
            // Of ports that the kernel chooses, each is another one.
            let asked = forward.host.port() != 0;
            asked && of.owner == forward.owner && of.protocol == forward.protocol && of.target == forward.target
        };
        if let Some(held) = self.forwards.iter().filter(same).find(|held| held.asked == forward.host) {
            return Ok(held.forward.host);
        }
        // Of those that no socket keeps from others.
        let lost = |held: &Held| matches!(held.reservation, Reservation::Missing) && held.has_port_of(forward);
        if self.forwards.iter().any(lost) {
            return Err(NetError::PortAllocated { owner: short(&forward.owner), host: forward.host });
        }
        let mut held = self.reserve(forward)?;
        // A number that the kernel chose may be one whose last holder is not forgotten yet.
        for _ in 0..8 {
            if forward.host.port() != 0 || !self.remembers_port(&held.forward) {
                break;
            }
            held = self.reserve(forward)?;
        }
        let address = held.forward.host;
        let attempt = format!("publishing {address}/{}", forward.protocol.as_str());
        if held.ruled() {
            self.ruled(|rules| rules.add_forward(&held.forward)).map_err(NetError::kernel(attempt.clone()))?;
            self.stale.published(&held.forward);
        }
        if let Some(proxied) = held.proxied() {
            self.ruled(|rules| rules.add_proxied(proxied)).map_err(NetError::kernel(attempt))?;
        }
        self.forwards.push(held);
        Ok(address)
    }

    /// Checks a forward and takes its port on the host.
    pub(crate) fn reserve(&self, forward: &Forward) -> Result<Held, NetError> {
        let network =
            self.networks.get(&forward.network).ok_or_else(|| NetError::NoNetwork(forward.network.clone()))?;
        let protocol = forward.protocol.as_str();
        let refuse =
            |reason| Err(NetError::UnsupportedForward { host: forward.host, protocol, target: forward.target, reason });
        if network.spec.internal {
            return refuse("its network is internal; attach the workload to another network to publish its ports");
        }
        let proxied = forward.host.is_ipv6() && forward.protocol != Protocol::Sctp;
        if forward.host.is_ipv4() != forward.target.is_ipv4() && !proxied {
            return refuse(
                "SCTP does not lead from IPv6 to an IPv4 workload, and nothing the other way; publish it on an address of the workload's family",
            );
        }
        let (host, target) = (forward.host, forward.target);
        let bound = match forward.protocol {
            Protocol::Tcp => listen::tcp(host),
            Protocol::Udp => listen::udp(host),
            Protocol::Sctp => match listen::sctp(host) {
                Err(error) if Errno::from_io_error(&error) == Some(Errno::PROTONOSUPPORT) => {
                    return refuse("this kernel has no SCTP; load the module sctp");
                }
                answer => answer,
            },
        };
        let owner = short(&forward.owner);
        let reservation = bound.map_err(|source| {
            if source.kind() == io::ErrorKind::AddrInUse && self.forwards.iter().any(|held| held.has_port_of(forward)) {
                NetError::PortAllocated { owner: owner.clone(), host }
            } else {
                NetError::PortTaken { owner: owner.clone(), host, target, protocol, source }
            }
        })?;
        let actual = listen::local_address(&reservation).map_err(|source| NetError::PortTaken {
            owner,
            host,
            target,
            protocol,
            source,
        })?;
        let forward = Forward { host: SocketAddr::new(host.ip(), actual.port()), ..forward.clone() };
        let reservation = if proxied {
            let passing = match forward.protocol {
                Protocol::Udp => proxy::udp(&self.pool, &self.runtime, reservation.into(), target),
                Protocol::Tcp | Protocol::Sctp => proxy::tcp(&self.pool, &self.runtime, reservation.into(), target),
            };
            Reservation::Passed(passing.map_err(NetError::io("serving a published port"))?)
        } else {
            Reservation::Held(reservation)
        };
        Ok(Held { forward, asked: host, reservation })
    }

    /// Takes ports that another program had when they were to be taken up again. Answers how many are left.
    pub(crate) fn retake(&mut self) -> usize {
        let missing = |held: &Held| matches!(held.reservation, Reservation::Missing);
        let mut found = Vec::new();
        for at in 0..self.forwards.len() {
            if !missing(&self.forwards[at]) {
                continue;
            }
            let forward = self.forwards[at].forward.clone();
            let Ok(taken) = self.reserve(&forward) else { continue };
            if let Some(proxied) = taken.proxied()
                && let Err(error) = self.ruled(|rules| rules.add_proxied(proxied))
            {
                tracing::warn!(?forward, %error, "a port that is published again is open to internal networks");
            }
            tracing::info!(?forward, "a published port was taken up again");
            found.extend(self.forwards[at].missing());
            self.forwards[at].reservation = taken.reservation;
        }
        self.reopen(found);
        self.forwards.iter().filter(|held| missing(held)).count()
    }

    /// Lets requests to ports come in again that nobody else has any more.
    fn reopen(&mut self, mut ports: Vec<Proxied>) {
        ports.retain(|one| !self.forwards.iter().filter_map(Held::missing).any(|other| other == *one));
        if let Err(error) = self.rules.remove_missing(&ports) {
            tracing::warn!(%error, "a port stays closed");
        }
    }

    pub(crate) fn unpublish(&mut self, owner: &str) -> Result<(), NetError> {
        let mine = self.forwards.iter().filter(|held| held.forward.owner == owner && held.ruled());
        let mine: Vec<_> = mine.map(|held| held.forward.clone()).collect();
        let attempt = format!("taking back the published ports of {owner}");
        self.rules.remove_forwards(&mine).map_err(NetError::kernel(attempt))?;
        mine.iter().for_each(|forward| self.stale.removed(forward));
        self.release(|held| held.forward.owner == owner);
        Ok(())
    }

    /// Keeps internal networks from TCP ports of the host whose sockets are handed to workloads. Once for each socket.
    pub(crate) fn hand_over(&mut self, ports: &[u16]) -> Result<(), NetError> {
        // All of them first: each is taken back, whatever becomes of the rules.
        ports.iter().for_each(|port| *self.handed.entry(*port).or_default() += 1);
        for port in ports {
            let attempt = format!("closing port {port} to internal networks");
            self.ruled(|rules| rules.add_proxied((Protocol::Tcp, *port))).map_err(NetError::kernel(attempt))?;
        }
        Ok(())
    }

    /// The sockets of these ports, one for each, are closed.
    pub(crate) fn take_back(&mut self, ports: &[u16]) -> Result<(), NetError> {
        let mut closed = Vec::new();
        for port in ports {
            if let Some(count) = self.handed.get_mut(port) {
                *count -= 1;
                if *count == 0 {
                    self.handed.remove(port);
                    closed.push((Protocol::Tcp, *port));
                }
            }
        }
        closed.retain(|one| !self.proxied().any(|other| other == *one));
        self.rules.remove_proxied(&closed).map_err(NetError::kernel("opening ports to internal networks again"))
    }

    /// Takes back the ports that lead to these addresses of a network: whoever gets an address next gets no ports with it.
    fn unpublish_to(&mut self, network: &NetworkId, addresses: &[IpAddr]) -> Result<(), NetError> {
        let leads = |held: &Held| held.forward.network == *network && addresses.contains(&held.forward.target.ip());
        let ruled: Vec<_> =
            self.forwards.iter().filter(|held| leads(held) && held.ruled()).map(|held| held.forward.clone()).collect();
        self.rules
            .remove_forwards(&ruled)
            .map_err(NetError::kernel("taking back ports that lead to a freed address"))?;
        ruled.iter().for_each(|forward| self.stale.removed(forward));
        self.release(leads);
        Ok(())
    }

    pub(crate) fn unpublish_one(&mut self, owner: &str, host: SocketAddr) -> Result<(), NetError> {
        let which = |held: &Held| held.forward.owner == owner && held.forward.host == host;
        let ruled: Vec<_> =
            self.forwards.iter().filter(|held| which(held) && held.ruled()).map(|held| held.forward.clone()).collect();
        let attempt = format!("taking back the published port {host} of {owner}");
        self.rules.remove_forwards(&ruled).map_err(NetError::kernel(attempt))?;
        ruled.iter().for_each(|forward| self.stale.removed(forward));
        self.release(which);
        Ok(())
    }

    /// Lets go of reserved ports; they are free when this returns.
    pub(crate) fn release(&mut self, which: impl Fn(&Held) -> bool) {
        let (mut proxied, mut missing) = (Vec::new(), Vec::new());
        for held in self.forwards.extract_if(.., |held| which(held)) {
            proxied.extend(held.proxied());
            missing.extend(held.missing());
            if let Reservation::Passed(passing) = held.reservation {
                // Dropping would end the task some time later, and keep the port until then.
                self.runtime.block_on(passing.end());
            }
        }
        // The same number may be published on another address.
        proxied.retain(|one| !self.proxied().any(|other| other == *one));
        if let Err(error) = self.rules.remove_proxied(&proxied) {
            tracing::warn!(%error, "a port that is no longer published stays closed to internal networks");
        }
        self.reopen(missing);
    }
}

/// Where namespaces are bound.
#[derive(Clone)]
pub(crate) struct Sandboxes {
    pub(crate) folder: PathBuf,
    run_dir: PathBuf,
}

impl Sandboxes {
    pub(crate) fn open(run_dir: &Path) -> Result<Self, NetError> {
        let folder = run_dir.join("netns");
        std::fs::create_dir_all(&folder).map_err(NetError::io(format!("making {}", folder.display())))?;
        Ok(Self { folder, run_dir: run_dir.to_owned() })
    }

    pub(crate) fn path(&self, id: &SandboxId) -> PathBuf {
        self.folder.join(id.as_str())
    }

    pub(crate) fn ensure(&self, id: &SandboxId) -> Result<PathBuf, NetError> {
        let path = self.path(id);
        if netns::exists(&path) {
            return Ok(path);
        }
        let failed = || NetError::io(format!("making a network namespace for {id}"));
        // What a restart of the machine left: the file without the namespace.
        netns::remove(&path).map_err(failed())?;
        self.make(&path).map_err(failed())?;
        Ok(path)
    }

    /// The namespace that `id` has, for another workload to join: where its file is gone, that in which its process
    /// `running` is. Never a new one, which would be without a network.
    pub(crate) fn of_running(&self, id: &SandboxId, running: Option<u32>) -> Result<PathBuf, NetError> {
        let path = self.path(id);
        if netns::exists(&path) {
            return Ok(path);
        }
        let Some(pid) = running else { return Err(NetError::NoSandbox(id.clone())) };
        let failed = || NetError::io(format!("finding the network namespace of {id}"));
        netns::remove(&path).map_err(failed())?;
        netns::keep(&PathBuf::from(format!("/proc/{pid}/ns/net")), &path).map_err(failed())?;
        Ok(path)
    }

    fn make(&self, path: &Path) -> io::Result<()> {
        netns::create(path, || {
            let mut socket = Socket::open(Subsystem::Route)?;
            socket.request(&[route::raise(1)]).map_err(|refused| io::Error::from(refused.errno))?;
            set_sysctl("net/ipv4/ip_unprivileged_port_start", "0")?;
            set_sysctl("net/ipv4/ping_group_range", "0 2147483647")?;
            // Otherwise the first workload to leave a shared interface takes the addresses of all others with it.
            set_sysctl("net/ipv4/conf/all/promote_secondaries", "1")?;
            // Interfaces get IPv6 only on networks that have it; `lo` keeps ::1. Absent where the kernel has no IPv6.
            let _ = set_sysctl("net/ipv6/conf/default/disable_ipv6", "1");
            Ok(())
        })
    }

    pub(crate) fn remove(&self, id: &SandboxId) -> Result<(), NetError> {
        netns::remove(&self.path(id)).map_err(NetError::io(format!("removing the network namespace of {id}")))
    }
}

/// Gives the interface inside its addresses and the sandbox its way out.
fn configure(
    path: &Path,
    endpoint: &Endpoint,
    network: &str,
    interface: &str,
    addresses: &[IpNet],
    gateways: &[IpAddr],
) -> Result<(), NetError> {
    let work = || -> Result<(), Refused> {
        let mut socket = Socket::open(Subsystem::Route)?;
        let link = route::link(&mut socket, interface)?.ok_or(Errno::NODEV)?;
        if addresses.iter().any(|address| address.addr().is_ipv6()) {
            set_sysctl(&format!("net/ipv6/conf/{interface}/disable_ipv6"), "0")?;
        }
        let mut messages = vec![route::raise(link.index)];
        messages.extend(addresses.iter().map(|net| route::add_address(link.index, (net.addr(), net.prefix_len()))));
        let families: BTreeSet<_> = addresses.iter().map(|address| address.addr().is_ipv4()).collect();
        let ways = gateways.iter().filter(|gateway| families.contains(&gateway.is_ipv4()));
        messages.extend(ways.map(|gateway| route::add_default_route(link.index, *gateway)));
        match socket.request(&messages) {
            // A further workload of the sandbox asks for the way out that is there.
            Err(refused) if refused.errno == Errno::EXIST && refused.index > addresses.len() => Ok(()),
            answer => answer,
        }
    };
    let attempt = format!("configuring {interface} of {} on network {network}", endpoint.sandbox);
    let answer = netns::run_in_netns(path, work).map_err(NetError::io(attempt.clone()))?;
    answer.map_err(NetError::kernel(attempt))
}

/// Gives a sandbox its way out over an interface that it has already.
fn lead(path: &Path, sandbox: &SandboxId, interface: &str, gateways: &[IpAddr]) -> Result<(), NetError> {
    let attempt = format!("leading {sandbox} out by {interface}");
    let answer = netns::run_in_netns(path, || -> Result<(), Refused> {
        let mut socket = Socket::open(Subsystem::Route)?;
        let link = route::link(&mut socket, interface)?.ok_or(Errno::NODEV)?;
        for gateway in gateways {
            match socket.request(&[route::add_default_route(link.index, *gateway)]) {
                // A workload with the right to may have made one itself.
                Err(refused) if refused.errno == Errno::EXIST => {}
                answer => answer?,
            }
        }
        Ok(())
    });
    answer.map_err(NetError::io(attempt.clone()))?.map_err(NetError::kernel(attempt))
}

/// How many descriptors this process may have open.
pub(crate) fn open_files() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// What is gone already is no error.
fn take_addresses(path: &Path, sandbox: &SandboxId, interface: &str, addresses: &[IpNet]) -> Result<(), NetError> {
    let failed = || format!("taking addresses from {interface} of {sandbox}");
    let answer = netns::run_in_netns(path, || -> Result<(), Refused> {
        let mut socket = Socket::open(Subsystem::Route)?;
        let Some(link) = route::link(&mut socket, interface)? else { return Ok(()) };
        for address in addresses {
            let remove = route::delete_address(link.index, (address.addr(), address.prefix_len()));
            match socket.request(&[remove]) {
                Err(refused) if refused.errno != Errno::ADDRNOTAVAIL => return Err(refused),
                _ => {}
            }
        }
        Ok(())
    });
    match answer {
        Ok(answer) => answer.map_err(NetError::kernel(failed())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // The file of a namespace that a restart of the machine ended.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        Err(error) => Err(NetError::io(failed())(error)),
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

/// The ID of a workload as it is shown.
fn short(owner: &str) -> String {
    owner.chars().take(12).collect()
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

/// Addresses that a network need not have in its subnets.
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// The one asked for, or one made from the first address.
pub(crate) fn mac_for(endpoint: &Endpoint) -> [u8; 6] {
    let first = endpoint.addresses.iter().find_map(|address| match address.addr() {
        IpAddr::V4(address) => Some(address.octets()),
        IpAddr::V6(_) => None,
    });
    endpoint.mac.unwrap_or_else(|| mac_of(first.unwrap_or_default()))
}

/// Docker's way: the same address always has the same MAC, so that neighbours need not learn anew.
fn mac_of(address: [u8; 4]) -> [u8; 6] {
    let [a, b, c, d] = address;
    [0x02, 0x42, a, b, c, d]
}

pub(crate) fn mac_text(mac: &[u8]) -> String {
    mac.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// Whether the bridge routes packets to loopback addresses, as published ports of 127.0.0.1 need it.
fn set_route_localnet(bridge: &str, on: bool) -> io::Result<()> {
    set_sysctl(&format!("net/ipv4/conf/{bridge}/route_localnet"), if on { "1" } else { "0" })
}

/// Of the calling thread's network namespace.
fn set_sysctl(name: &str, value: &str) -> io::Result<()> {
    std::fs::write(format!("/proc/sys/{name}"), value)
}

pub(crate) fn host_routes() -> Result<Vec<IpNet>, NetError> {
    let failed = || NetError::kernel("reading the host's routes");
    let mut socket = Socket::open(Subsystem::Route).map_err(NetError::io("opening a netlink socket"))?;
    let mut found = route::destinations(&mut socket).map_err(failed())?;
    found.extend(route::addresses(&mut socket).map_err(failed())?.into_iter().map(|(_, prefix)| prefix));
    let mut nets: Vec<_> = found
        .into_iter()
        .filter_map(|(address, length)| IpNet::new(address, length).ok())
        .map(|net| net.trunc())
        .collect();
    let servers = Vec::from_iter(crate::dns::system_servers().into_iter().map(|server| IpNet::from(server.ip())));
    nets.extend(servers);
    nets.sort();
    nets.dedup();
    Ok(nets)
}
