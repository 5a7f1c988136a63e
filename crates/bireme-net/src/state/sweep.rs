//! What a daemon finds when it starts: its own network, some of it wanted, some left over.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use bireme_core::SandboxId;
use bireme_sys::netlink::{Socket, Subsystem};
use bireme_sys::{netns, route};
use ipnet::IpNet;

use super::State;
use super::endpoint::Link;
use super::forward::{Held, Reservation};
use super::mac::{mac_for, mac_text};
use crate::flows;
use crate::{Attached, Endpoint, Keep, NetError, NetworkId, NetworkSpec, SweepReport};

impl State {
    pub(crate) fn sweep(&mut self, keep: Keep) -> Result<SweepReport, NetError> {
        let mut report = SweepReport::default();
        self.release(|_| true);
        self.settle(None);
        self.handed.clear();
        for port in &keep.handed {
            *self.handed.entry(*port).or_default() += 1;
        }
        self.links.clear();
        self.inside.clear();

        // Bridges first, so that what cannot be made again is known before anything is judged by it.
        self.networks.retain(|id, _| keep.networks.iter().any(|kept| kept.id == *id));
        for spec in &keep.networks {
            // One that cannot be made, as when its bridge's name is somebody else's, costs no other.
            match self.prepare_network(spec) {
                Ok(network) => drop(self.networks.insert(spec.id.clone(), network)),
                Err(error) => {
                    self.networks.remove(&spec.id);
                    report.left_out.push((spec.id.clone(), error.to_string()));
                }
            }
        }
        let links = route::links(&mut self.route).map_err(NetError::kernel("listing the host's interfaces"))?;
        self.adopt(&keep.endpoints, &links, &mut report);

        // In one transaction, and before leftovers go: their ports and networks end here.
        for forward in keep.forwards {
            match self.reserve(&forward) {
                Ok(held) => self.forwards.push(held),
                // Its rules stay: without them all that comes would go to whoever has it.
                Err(error @ NetError::PortTaken { .. }) => {
                    let asked = forward.host;
                    self.forwards.push(Held { forward: forward.clone(), asked, reservation: Reservation::Missing });
                    report.taken.push((forward, error.to_string()));
                }
                Err(error) => {
                    self.stale.removed(&forward);
                    report.refused.push((forward, error.to_string()));
                }
            }
        }
        self.rebuild().map_err(NetError::kernel("setting the rules of nf_tables"))?;
        for network in self.networks.values() {
            for (range, kept) in unused(&network.spec, &self.links) {
                self.stale.free_but(range, kept);
            }
        }

        self.remove_links(&links, &(&keep.untouched, &keep.untouched_networks), &mut report);
        let kept = keep
            .untouched
            .into_iter()
            .chain(keep.sandboxes)
            .chain(keep.endpoints.into_iter().map(|endpoint| endpoint.sandbox));
        self.remove_namespaces(&kept.collect(), &mut report);
        Ok(report)
    }

    /// Removes everything of this instance.
    pub(crate) fn clear(&mut self) -> Result<SweepReport, NetError> {
        let ranges: Vec<IpNet> =
            self.networks.values().flat_map(|one| one.spec.subnets.iter().map(|s| s.net)).collect();
        let report = self.sweep(Keep::default())?;
        self.rules.clear().map_err(NetError::kernel("removing the rules of nf_tables"))?;
        ranges.into_iter().for_each(|range| self.stale.free_but(range, HashSet::new()));
        flows::forget(&self.begin_forgetting());
        self.forgot(Duration::ZERO);
        self.forwarding.close(self.rules.socket())?;
        Ok(report)
    }

    fn adopt(&mut self, endpoints: &[Endpoint], links: &[route::Link], report: &mut SweepReport) {
        let mut found: BTreeMap<(SandboxId, NetworkId), Link> = BTreeMap::new();
        for endpoint in endpoints {
            let key = (endpoint.sandbox.clone(), endpoint.network.clone());
            if !found.contains_key(&key)
                && let Some(attached) = self.find_attached(endpoint, links)
            {
                let link =
                    Link { attached, mac: mac_for(endpoint), routes: endpoint.routes, endpoints: BTreeMap::new() };
                found.insert(key.clone(), link);
            }
            let Some(link) = found.get_mut(&key) else {
                if netns::exists(&self.sandboxes.path(&endpoint.sandbox))
                    && self.networks.contains_key(&endpoint.network)
                {
                    report.detached.push(endpoint.clone());
                }
                report.lost.push(endpoint.clone());
                continue;
            };
            link.endpoints.insert(endpoint.owner.clone(), endpoint.clone());
            let addresses: Vec<_> = endpoint.addresses.iter().map(IpNet::addr).collect();
            self.service.directory.add_client(&endpoint.sandbox, &endpoint.network, &addresses);
            self.service.directory.set_reverse(&addresses, endpoint.name.as_deref());
            report.adopted.push(endpoint.clone());
        }
        self.links = found;
        for ((sandbox, network), link) in &self.links {
            if let Err(error) = self.remove_strays(sandbox, network, link) {
                tracing::warn!(%sandbox, %error, "addresses that nobody has may be left in a sandbox");
            }
        }
    }

    /// Removes the addresses of members that a daemon was killed over before they were remembered: the next to get one would
    /// be taken for this sandbox. What a container that administers its network gave itself is its own.
    fn remove_strays(&self, sandbox: &SandboxId, network: &NetworkId, link: &Link) -> Result<(), NetError> {
        // A sandbox of one workload goes with it; and what shares it may have given itself addresses.
        let of_one = link.endpoints.keys().any(|owner| owner == sandbox.as_str());
        let Some(network) = self.networks.get(network).filter(|_| !link.routes && !of_one) else { return Ok(()) };
        let known: HashSet<IpAddr> =
            link.endpoints.values().flat_map(|endpoint| endpoint.addresses.iter().map(IpNet::addr)).collect();
        let within = |address: &IpAddr| network.spec.subnets.iter().any(|subnet| subnet.net.contains(address));
        let interface = link.attached.interface.clone();
        let attempt = || format!("looking through the addresses of {sandbox}");
        let removed = netns::run_in_netns(&self.sandboxes.path(sandbox), || {
            let mut socket = Socket::open(Subsystem::Route)?;
            let Some(inner) = route::link(&mut socket, &interface)? else { return Ok(()) };
            for (index, (address, length)) in route::addresses(&mut socket)? {
                if index == inner.index && within(&address) && !known.contains(&address) {
                    tracing::info!(%sandbox, %address, "an address that nobody has is removed");
                    socket.request(&[route::delete_address(index, (address, length))])?;
                }
            }
            Ok(())
        });
        removed.map_err(NetError::io(attempt()))?.map_err(NetError::kernel(attempt()))
    }

    /// The interface of an endpoint, if both of its ends are where they were.
    fn find_attached(&self, endpoint: &Endpoint, links: &[route::Link]) -> Option<Attached> {
        let bridge = self.networks.get(&endpoint.network)?.index;
        let alias = format!("bireme:{}:{}:{}", self.instance, endpoint.network, endpoint.sandbox);
        let outer = links.iter().find(|link| link.alias == alias && link.master == Some(bridge))?;
        let path = self.sandboxes.path(&endpoint.sandbox);
        if !netns::exists(&path) {
            return None;
        }
        let inside = netns::run_in_netns(&path, || route::links(&mut Socket::open(Subsystem::Route)?));
        let inner = inside.ok()?.ok()?.into_iter().find(|link| Some(link.index) == outer.peer)?;
        Some(Attached { interface: inner.name, mac: mac_text(&inner.mac), host_interface: outer.name.clone() })
    }

    fn remove_links(
        &mut self,
        links: &[route::Link],
        (sandboxes, networks): &(&Vec<SandboxId>, &Vec<String>),
        report: &mut SweepReport,
    ) {
        let kept: BTreeSet<String> = self
            .links
            .values()
            .map(|link| link.attached.host_interface.clone())
            .chain(self.networks.values().map(|network| network.bridge.clone()))
            .collect();
        let alias = format!("bireme:{}:", self.instance);
        // One that a daemon was killed over between making and marking it has only its name.
        let names = [format!("ve{}", self.instance), format!("br{}", self.instance)];
        let ours = |link: &route::Link| {
            link.alias.starts_with(&alias) || names.iter().any(|prefix| link.name.starts_with(prefix.as_str()))
        };
        // A bridge has its network in the alias, an interface its sandbox behind that.
        let untouched = |link: &route::Link| {
            let Some(rest) = link.alias.strip_prefix(&alias) else { return false };
            let (network, sandbox) = rest.split_once(':').map_or((rest, None), |(network, of)| (network, Some(of)));
            networks.iter().any(|id| id == network) || sandboxes.iter().any(|id| Some(id.as_str()) == sandbox)
        };
        let stays = |link: &route::Link| kept.contains(&link.name) || untouched(link);
        let addresses = route::addresses(&mut self.route).unwrap_or_default();
        for link in links.iter().filter(|link| ours(link) && !stays(link)) {
            // Of a network that an earlier daemon removed last, the kernel may remember connections yet.
            for (_, (address, length)) in addresses.iter().filter(|(index, _)| *index == link.index) {
                if let Ok(net) = IpNet::new(*address, *length) {
                    self.stale.free_but(net.trunc(), HashSet::new());
                }
            }
            match self.delete_link(link.index) {
                Ok(()) => report.removed.push(link.name.clone()),
                Err(error) => tracing::warn!(link = link.name, %error, "a leftover interface stays"),
            }
        }
    }

    fn remove_namespaces(&self, kept: &BTreeSet<SandboxId>, report: &mut SweepReport) {
        let Ok(entries) = std::fs::read_dir(&self.sandboxes.folder) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if kept.iter().any(|id| id.as_str() == name) {
                continue;
            }
            match netns::remove(&entry.path()) {
                Ok(()) => report.removed.push(format!("netns/{name}")),
                Err(error) => tracing::warn!(path = %entry.path().display(), %error, "a leftover namespace stays"),
            }
        }
    }
}

/// The ranges of `network` without the addresses in use: what an earlier daemon removed last, the kernel may remember
/// yet. None where a member may have addresses that nobody gave it.
fn unused(
    network: &NetworkSpec,
    links: &BTreeMap<(SandboxId, NetworkId), Link>,
) -> impl Iterator<Item = (IpNet, HashSet<IpAddr>)> {
    let members = || links.iter().filter(|((_, of), _)| *of == network.id).map(|(_, link)| link);
    let used: HashSet<IpAddr> = members()
        .flat_map(|link| link.port().addresses)
        .chain(network.subnets.iter().map(|subnet| subnet.gateway))
        .collect();
    let ranges = if members().any(|link| link.routes) { &[][..] } else { &network.subnets[..] };
    ranges.iter().map(move |subnet| (subnet.net, used.clone()))
}
