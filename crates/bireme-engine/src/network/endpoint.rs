//! A workload is put on its networks as it starts, and taken off as it ends: its sandbox, its addresses, its way out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use bireme_core::linux_names::plain_capability;
use bireme_core::spec::{NetworkMode, WorkloadSpec};
use bireme_core::{Listener, NamedNetwork, NetworkPlace, SandboxId, WorkloadId};
use bireme_net::NetworkId;
use ipnet::IpNet;

use super::address::{addresses_of, all_addresses_of, is_link_local, parse_mac};
use super::etc_files::etc_files;
use super::names::{finds_names, named_networks, names_on_network, reverse_name};
use super::replaced::take;
use super::{Bridge, Networks, Sandbox};
use crate::container::{Handle, MutableState};
use crate::refusal::{ContainerRefusal, NetworkRefusal, RequestRefusal};
use crate::request::EndpointRequest;
use crate::view::{DEFAULT_NETWORK as DEFAULT, Endpoint, Network, PublishedPort};
use crate::{EngineError, link, names};

/// What a start needs of the network.
pub(crate) struct NetworkAttachment {
    pub(crate) network: Option<NetworkPlace>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) networks: Vec<NamedNetwork>,
    pub(crate) etc: Vec<(PathBuf, String)>,
    /// Variables about what it is linked to.
    pub(crate) env: Vec<String>,
}

impl Networks {
    /// Tells that a workload came to a network or left it.
    pub(super) fn emit_endpoint(&self, action: &str, network: &str, handle: &Handle) {
        if let Ok(network) = self.get(network) {
            self.emit_network(action, &network, Some(handle.id()));
        }
    }

    /// The endpoints a new workload will have, in the order in which they are attached.
    pub(crate) fn wanted_endpoints(
        &self,
        networks: &BTreeMap<String, EndpointRequest>,
    ) -> Result<Vec<Endpoint>, EngineError> {
        let default = BTreeMap::from([(DEFAULT.to_owned(), EndpointRequest::default())]);
        let wanted = if networks.is_empty() { &default } else { networks };
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for (name, request) in wanted {
            // Not "not found": Docker's client takes that for a missing image, and pulls it.
            let network = self.get(name).map_err(RequestRefusal::reference)?;
            if network.driver != "bridge" {
                return Err(NetworkRefusal::NotCombinable { network: network.name }.into());
            }
            self.check_static(&network, request)?;
            if !endpoints.iter().any(|e| e.network == network.id) {
                endpoints.push(endpoint(&network, request.clone()));
            }
        }
        Ok(endpoints)
    }

    pub(super) fn check_static(&self, network: &Network, request: &EndpointRequest) -> Result<(), EngineError> {
        let list = self.list();
        let Some(bridge) = list.get(&network.id).and_then(|entry| entry.bridge.as_ref()) else { return Ok(()) };
        for address in request.ipv4.iter().chain(&request.ipv6) {
            if !bridge.spec.subnets.iter().any(|subnet| subnet.net.contains(address)) {
                return Err(NetworkRefusal::AddressOutside {
                    network: network.name.clone(),
                    address: *address,
                    subnets: bridge.spec.subnets.iter().map(|subnet| subnet.net).collect(),
                }
                .into());
            }
        }
        if let Some(address) = request.link_local.iter().find(|address| !is_link_local(**address)) {
            return Err(NetworkRefusal::NotLinkLocal { network: network.name.clone(), address: *address }.into());
        }
        if let Some(mac) = &request.mac {
            parse_mac(mac)?;
        }
        Ok(())
    }

    /// Makes the place of a workload that is about to start. What was made before an error is given back by
    /// [`Networks::detach_network`].
    pub(crate) async fn attach_network(
        &self,
        handle: &Arc<Handle>,
        name: &str,
        mutable: &mut MutableState,
    ) -> Result<NetworkAttachment, EngineError> {
        let spec = &handle.config.spec;
        // Whose network it shares, and with it the names of its hosts.
        let mut host = None;
        let place = match &spec.namespaces.network {
            NetworkMode::Host => {
                self.emit_endpoint("connect", "host", handle);
                None
            }
            NetworkMode::Workload(other) => {
                let other = self.network_of(self.services.registry.with_id(other)?)?;
                let Some(running) = other.workload() else {
                    return Err(ContainerRefusal::JoinOfStopped { id: other.id().to_owned() }.into());
                };
                let sandbox = other.executor.sandbox(&other.config.spec);
                let netns = self.services.net().running_sandbox(&sandbox, running.pid()).await?;
                host = Some(other);
                Some(NetworkPlace {
                    dns: self.services.net().dns_servers(&sandbox),
                    sandbox,
                    netns,
                    addresses: Vec::new(),
                })
            }
            NetworkMode::None | NetworkMode::Attached => {
                let id = handle.executor.sandbox(spec);
                let entry = self.sandbox(&id);
                let mut sandbox = entry.lock().await;
                let netns = self.services.net().ensure_sandbox(&id).await?;
                sandbox.members.insert(handle.id().to_owned());
                self.services.net().set_upstream(&id, &spec.dns.servers);
                for endpoint in &mut mutable.endpoints {
                    self.attach_endpoint(handle, name, &id, &mut sandbox, endpoint).await?;
                }
                if spec.namespaces.network == NetworkMode::None {
                    self.emit_endpoint("connect", "none", handle);
                }
                if finds_names(&mutable.endpoints) {
                    self.services.net().serve_inside(&id).await?;
                }
                Some(self.place(id, netns, &mutable.endpoints))
            }
        };
        let listeners = self.open_ports(handle, mutable).await?;
        handle.publish(name, mutable);
        self.names_changed(handle.id(), &mutable.endpoints).await;
        let linked = link::linked(&self.services.registry, name, &handle.view().links)?;
        let etc = match &host {
            Some(other) => etc_files(other, &other.view().endpoints, place.as_ref(), &[]),
            None => etc_files(handle, &mutable.endpoints, place.as_ref(), &linked),
        };
        Ok(NetworkAttachment {
            etc,
            env: linked.iter().flat_map(|one| link::environment(name, one)).collect(),
            network: place,
            listeners,
            networks: named_networks(&mutable.endpoints),
        })
    }

    /// What [`Networks::attach_network`] answers, of a workload that has its place: for another run of it. `None` where that
    /// has none of its own. Its listening sockets are with the first.
    pub(crate) async fn attachment(
        &self,
        handle: &Handle,
        name: &str,
        mutable: &MutableState,
    ) -> Result<Option<NetworkAttachment>, EngineError> {
        let spec = &handle.config.spec;
        let network = match &spec.namespaces.network {
            NetworkMode::Host => None,
            NetworkMode::Attached => {
                let sandbox = handle.executor.sandbox(spec);
                let netns = self.services.net().running_sandbox(&sandbox, mutable.state.pid).await?;
                Some(self.place(sandbox, netns, &mutable.endpoints))
            }
            NetworkMode::None | NetworkMode::Workload(_) => return Ok(None),
        };
        let linked = link::linked(&self.services.registry, name, &handle.view().links)?;
        let listener = |port: &PublishedPort| Listener { host: port.host, container: port.container, socket: None };
        Ok(Some(NetworkAttachment {
            etc: etc_files(handle, &mutable.endpoints, network.as_ref(), &linked),
            env: linked.iter().flat_map(|one| link::environment(name, one)).collect(),
            network,
            listeners: mutable.ports.iter().map(listener).collect(),
            networks: named_networks(&mutable.endpoints),
        }))
    }

    /// The place in `sandbox` of a workload that has these endpoints.
    fn place(&self, sandbox: SandboxId, netns: PathBuf, endpoints: &[Endpoint]) -> NetworkPlace {
        // At the gateway of an internal network nobody is led outside, though another network may lead there.
        let dns = if finds_names(endpoints) {
            vec![IpAddr::V4(bireme_net::DNS_INSIDE)]
        } else {
            self.services.net().dns_servers(&sandbox)
        };
        let addresses = endpoints.iter().flat_map(addresses_of).map(|net| net.addr()).collect();
        NetworkPlace { dns, sandbox, netns, addresses }
    }

    /// The workload that has the network of `other`: itself, or whichever it shares one with.
    ///
    /// # Errors
    /// `Conflict` where that is the host's.
    pub(super) fn network_of(&self, mut other: Arc<Handle>) -> Result<Arc<Handle>, EngineError> {
        // Each shares with one that was there before it: there is a first. By a name it could come back to itself.
        while let NetworkMode::Workload(next) = &other.config.spec.namespaces.network {
            other = self.services.registry.with_id(next)?;
        }
        if other.config.spec.namespaces.network == NetworkMode::Host {
            return Err(ContainerRefusal::JoinOfHost { id: other.id().to_owned() }.into());
        }
        Ok(other)
    }

    pub(super) async fn attach_endpoint(
        &self,
        handle: &Handle,
        name: &str,
        id: &SandboxId,
        sandbox: &mut Sandbox,
        endpoint: &mut Endpoint,
    ) -> Result<(), EngineError> {
        self.make_left_out(&endpoint.network).await?;
        // The engine makes this network by itself: it may have been made anew.
        if endpoint.network_name == DEFAULT
            && !self.list().contains_key(&endpoint.network)
            && let Ok(network) = self.get(DEFAULT)
        {
            endpoint.network = network.id;
        }
        let request = {
            let mut list = self.list();
            let bridge = list
                .get_mut(&endpoint.network)
                .and_then(|entry| entry.bridge.as_mut())
                .ok_or_else(|| NetworkRefusal::NotFound { network: endpoint.network_name.clone() })?;
            let exhausted = |source| NetworkRefusal::Address { network: endpoint.network_name.clone(), source };
            let address = take(&mut bridge.pool, endpoint.request.ipv4, &endpoint.preferred).map_err(exhausted)?;
            endpoint.ipv4 = Some((address.addr(), address.prefix_len()));
            let gateway =
                |v4: bool| bridge.spec.subnets.iter().find(|s| s.net.addr().is_ipv4() == v4).map(|s| s.gateway);
            endpoint.gateway = gateway(true);
            endpoint.ipv6_gateway = gateway(false);
            if let Some(pool6) = &mut bridge.pool6 {
                let address = take(pool6, endpoint.request.ipv6, &endpoint.preferred).map_err(exhausted)?;
                endpoint.ipv6 = Some((address.addr(), address.prefix_len()));
            }
            bireme_net::Endpoint {
                sandbox: id.clone(),
                network: bridge.spec.id.clone(),
                addresses: all_addresses_of(endpoint),
                mac: endpoint.request.mac.as_deref().map(parse_mac).transpose()?,
                default_route: wants_default_route(sandbox, bridge),
                routes: administers_network(&handle.config.spec),
                name: reverse_name(name, endpoint),
                owner: handle.id().to_owned(),
            }
        };
        endpoint.endpoint_id = names::random_hex();
        let attached = self.services.net().attach(&request).await?;
        endpoint.mac = Some(attached.mac);
        endpoint.names = names_on_network(&handle.config.spec, name, endpoint);
        self.emit_endpoint("connect", &endpoint.network, handle);
        Ok(())
    }

    /// Has a workload that was renamed be found by its new name, and no longer by the old one.
    pub(crate) fn rename_endpoints(&self, handle: &Handle, name: &str, mutable: &mut MutableState) {
        for endpoint in mutable.endpoints.iter_mut().filter(|endpoint| !endpoint.names.is_empty()) {
            endpoint.names = names_on_network(&handle.config.spec, name, endpoint);
            if let Some(reverse) = reverse_name(name, endpoint) {
                let addresses: Vec<_> = addresses_of(endpoint).iter().map(IpNet::addr).collect();
                self.services.net().set_reverse_name(&addresses, &reverse);
            }
        }
        handle.publish(name, mutable);
    }

    /// Gives back everything that [`Networks::attach_network`] made; goes on over errors.
    pub(crate) async fn detach_network(&self, handle: &Arc<Handle>, mutable: &mut MutableState) {
        self.close_ports(handle.id()).await;
        if let Err(error) = self.services.net().unpublish(handle.id()).await {
            not_given_back(handle.id(), "published ports", &error);
        }
        mutable.ports.clear();
        match handle.config.spec.namespaces.network {
            NetworkMode::Host => self.emit_endpoint("disconnect", "host", handle),
            NetworkMode::None => self.emit_endpoint("disconnect", "none", handle),
            NetworkMode::Attached | NetworkMode::Workload(_) => {}
        }
        if matches!(handle.config.spec.namespaces.network, NetworkMode::None | NetworkMode::Attached) {
            let id = handle.executor.sandbox(&handle.config.spec);
            let entry = self.sandbox(&id);
            let mut sandbox = entry.lock().await;
            for endpoint in &mut mutable.endpoints {
                if let Err(error) = self.detach_endpoint(handle, &id, endpoint).await {
                    not_given_back(handle.id(), &endpoint.network_name, &error);
                }
            }
            self.leave_sandbox(handle.id(), &id, &entry, &mut sandbox).await;
        }
        let name = handle.view().name.clone();
        handle.publish(&name, mutable);
    }

    /// Takes a workload off its sandbox, which goes with the last: those who stay keep a way out. `entry` is the sandbox that
    /// is locked.
    async fn leave_sandbox(
        &self,
        owner: &str,
        id: &SandboxId,
        entry: &Arc<tokio::sync::Mutex<Sandbox>>,
        sandbox: &mut Sandbox,
    ) {
        sandbox.members.remove(owner);
        if !sandbox.members.is_empty() {
            if let Err(error) = self.lead_out(id, sandbox, &[]).await {
                not_given_back(owner, "the way out of those who stay", &error);
            }
            return;
        }
        sandbox.default_route = None;
        if let Err(error) = self.services.net().remove_sandbox(id).await {
            not_given_back(owner, "network namespace", &error);
        }
        let mut sandboxes = self.sandboxes.lock();
        // Two owners: the map and the caller. With a third, somebody waits to start in it.
        if Arc::strong_count(entry) == 2 {
            sandboxes.remove(id);
        }
    }

    /// Sees to it that a sandbox has a way out as long as one of its networks has.
    pub(super) async fn lead_out(
        &self,
        id: &SandboxId,
        sandbox: &mut Sandbox,
        endpoints: &[Endpoint],
    ) -> Result<(), EngineError> {
        let wanted: Vec<_> = endpoints.iter().filter_map(|one| NetworkId::parse(&one.network).ok()).collect();
        // Not over one that is gone, should none be found.
        sandbox.default_route = None;
        sandbox.default_route = self.services.net().lead_out(id, &wanted).await?;
        Ok(())
    }

    pub(super) async fn detach_endpoint(
        &self,
        handle: &Handle,
        id: &SandboxId,
        endpoint: &mut Endpoint,
    ) -> Result<(), EngineError> {
        if endpoint.ipv4.is_none() && endpoint.ipv6.is_none() {
            return Ok(());
        }
        let detached = self.release_endpoint(handle.id(), id, endpoint).await;
        self.emit_endpoint("disconnect", &endpoint.network, handle);
        detached
    }

    /// Takes an endpoint off its network, and gives its addresses back, whether or not that fails.
    async fn release_endpoint(&self, owner: &str, id: &SandboxId, endpoint: &mut Endpoint) -> Result<(), EngineError> {
        let addresses = addresses_of(endpoint);
        if addresses.is_empty() {
            return Ok(());
        }
        let network = NetworkId::parse(&endpoint.network).map_err(NetworkRefusal::Id)?;
        let request = bireme_net::Endpoint {
            sandbox: id.clone(),
            network,
            addresses: all_addresses_of(endpoint),
            mac: None,
            default_route: false,
            routes: false,
            name: None,
            owner: owner.to_owned(),
        };
        let detached = self.services.net().detach(&request).await;
        if let Some(bridge) = self.list().get_mut(&endpoint.network).and_then(|entry| entry.bridge.as_mut()) {
            for address in addresses {
                match address.addr() {
                    IpAddr::V4(_) => bridge.pool.free(address.addr()),
                    IpAddr::V6(_) => {
                        if let Some(pool) = bridge.pool6.as_mut() {
                            pool.free(address.addr());
                        }
                    }
                }
            }
        }
        endpoint.ipv4 = None;
        endpoint.ipv6 = None;
        endpoint.gateway = None;
        endpoint.ipv6_gateway = None;
        endpoint.mac = None;
        endpoint.endpoint_id = String::new();
        Ok(detached?)
    }

    /// Gives back everything of the network that a workload had of which nothing is known but its state.
    pub(crate) async fn detach_unreadable(&self, id: &WorkloadId, state: &mut MutableState) {
        let owner = id.as_str();
        self.close_ports(owner).await;
        if let Err(error) = self.services.net().unpublish(owner).await {
            not_given_back(owner, "published ports", &error);
        }
        let known: Vec<_> = self.sandboxes.lock().iter().map(|(id, entry)| (id.clone(), Arc::clone(entry))).collect();
        for (id, entry) in known {
            let mut sandbox = entry.lock().await;
            if !sandbox.members.contains(owner) {
                continue;
            }
            for endpoint in &mut state.endpoints {
                if let Err(error) = self.release_endpoint(owner, &id, endpoint).await {
                    not_given_back(owner, &endpoint.network_name, &error);
                }
            }
            self.leave_sandbox(owner, &id, &entry, &mut sandbox).await;
        }
    }

    /// The host as seen from the workloads of these networks.
    pub(crate) fn host_gateway(&self, endpoints: &[Endpoint]) -> Option<IpAddr> {
        let list = self.list();
        let id = endpoints.first().map(|endpoint| endpoint.network.clone())?;
        list.get(&id)?.bridge.as_ref()?.spec.subnets.iter().map(|subnet| subnet.gateway).find(IpAddr::is_ipv4)
    }
}

fn not_given_back(owner: &str, what: &str, error: &(dyn std::error::Error + 'static)) {
    tracing::warn!(workload.id = owner, what, error, "something of the network could not be given back");
}

/// Whether it has `CAP_NET_ADMIN`, and may thus give itself addresses and pass on packets of others.
pub(super) fn administers_network(spec: &WorkloadSpec) -> bool {
    let has = |list: &[String], wanted: &str| list.iter().any(|name| plain_capability(name) == wanted);
    let security = &spec.security;
    security.privileged
        || has(&security.cap_add, "NET_ADMIN")
        || (has(&security.cap_add, "ALL") && !has(&security.cap_drop, "NET_ADMIN"))
}

pub(super) fn wants_default_route(sandbox: &mut Sandbox, bridge: &Bridge) -> bool {
    if bridge.spec.internal {
        return false;
    }
    *sandbox.default_route.get_or_insert_with(|| bridge.spec.id.clone()) == bridge.spec.id
}

pub(super) fn endpoint(network: &Network, request: EndpointRequest) -> Endpoint {
    Endpoint {
        network: network.id.clone(),
        network_name: network.name.clone(),
        endpoint_id: String::new(),
        request,
        preferred: Vec::new(),
        ipv4: None,
        gateway: None,
        ipv6: None,
        ipv6_gateway: None,
        mac: None,
        names: Vec::new(),
    }
}
