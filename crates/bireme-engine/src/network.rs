//! Networks as clients know them, and the place of each workload on them.
//!
//! A *place* is made when a workload starts and given back when it ends: a sandbox (a network namespace, shared by the
//! components of an app), an address on each network, published ports. Ports reach a workload in the way its executor
//! says: as listening sockets handed over, or forwarded by the network.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use bireme_core::clock::now_nanos;
use bireme_core::spec::{Dns, NetworkMode, Protocol, WorkloadSpec};
use bireme_core::{Listener, NamedNetwork, Names, NamesChange, NetworkPlace, SandboxId};
use bireme_net::addresses::{AddressPool, SubnetPools, overlap};
use bireme_net::{Driver, Forward, NetworkId, NetworkSpec, Subnet};
use ipnet::IpNet;
use parking_lot::{Mutex, MutexGuard};

use crate::container::{Handle, MutableState};
use crate::engine::{self, Engine};
use crate::event::Event;
use crate::link::{self, Linked};
use crate::name_table::{Entry as NameEntry, NameTable};
use crate::request::{CreateNetwork, EndpointRequest, PoolRequest, Publish};
use crate::view::{Endpoint, Network, NetworkMember, PublishedPort};
use crate::{EngineError, bounds};

/// The network of workloads that name none; its members get no names, as with Docker.
pub(crate) const DEFAULT: &str = "bridge";
/// Option of a network: whether members reach each other.
const ICC: &str = "com.docker.network.bridge.enable_icc";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
/// The address that ports are published on where none is asked for.
const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
/// How members reach the world and are reached from it.
const GATEWAY_MODES: [&str; 2] =
    ["com.docker.network.bridge.gateway_mode_ipv4", "com.docker.network.bridge.gateway_mode_ipv6"];
const MTU: &str = "com.docker.network.driver.mtu";

/// The networks that exist, and who stands where.
#[derive(Default)]
pub(crate) struct Networks {
    list: Mutex<BTreeMap<String, Entry>>,
    /// Those whose records cannot be read, by ID.
    unreadable: Mutex<BTreeMap<String, String>>,
    sandboxes: Mutex<HashMap<SandboxId, Arc<tokio::sync::Mutex<Sandbox>>>>,
    ports: Mutex<HashMap<SocketAddr, SharedPort>>,
    /// Who is found under which name, by network.
    tables: Mutex<HashMap<String, NameTable>>,
    /// Networks are made and removed one at a time: none is removed that is half made, or made again meanwhile.
    making: tokio::sync::Mutex<()>,
    /// Names are changed and told under this, so that an older change never follows a newer one.
    naming: Naming,
}

/// Whose turn it is to change the names of each network: who is slow to hear of one holds up no other.
#[derive(Default)]
struct Naming(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Naming {
    fn of(&self, network: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut all = self.0.lock();
        if !all.contains_key(network) {
            all.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        Arc::clone(all.entry(network.to_owned()).or_default())
    }
}

struct Entry {
    network: Network,
    /// `None` for host and null.
    bridge: Option<Bridge>,
    /// Why it could not be made when the engine started: whatever is on it cannot start while that is so.
    left_out: Option<String>,
}

struct Bridge {
    spec: NetworkSpec,
    pool: AddressPool,
    pool6: Option<AddressPool>,
}

impl Bridge {
    /// Gives the addresses of an endpoint to nobody else.
    fn take_addresses(&mut self, endpoint: &Endpoint) {
        for address in addresses_of(endpoint) {
            let pool = if address.addr().is_ipv4() { Some(&mut self.pool) } else { self.pool6.as_mut() };
            if let Some(Err(error)) = pool.map(|pool| pool.take(address.addr())) {
                tracing::warn!(%address, %error, "an address in use could not be taken up again");
            }
        }
    }
}

#[derive(Default)]
struct Sandbox {
    members: HashSet<String>,
    /// Over which network its way out goes.
    default_route: Option<NetworkId>,
}

/// A host port whose listening socket was handed to a sandbox.
struct SharedPort {
    sandbox: SandboxId,
    /// `None` when an earlier daemon bound it: the sandbox's host process still holds it.
    socket: Option<OwnedFd>,
    users: HashSet<String>,
    /// Internal networks are kept from it.
    told: bool,
}

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
    fn list(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.list.lock()
    }

    fn tables(&self) -> MutexGuard<'_, HashMap<String, NameTable>> {
        self.tables.lock()
    }

    fn ports(&self) -> MutexGuard<'_, HashMap<SocketAddr, SharedPort>> {
        self.ports.lock()
    }

    fn sandbox(&self, id: &SandboxId) -> Arc<tokio::sync::Mutex<Sandbox>> {
        self.sandboxes.lock().entry(id.clone()).or_default().clone()
    }

    /// Takes up a remembered network.
    ///
    /// # Errors
    /// Where its record makes no network; it is known all the same, so that it can be removed.
    pub(crate) fn adopt(&self, network: Network) -> Result<Option<NetworkSpec>, EngineError> {
        let (bridge, error) = match bridge(&network) {
            Ok(bridge) => (bridge, None),
            Err(error) => (None, Some(error)),
        };
        let spec = bridge.as_ref().map(|bridge| bridge.spec.clone());
        let left_out = error.as_ref().map(ToString::to_string);
        self.list().insert(network.id.clone(), Entry { network, bridge, left_out });
        error.map_or(Ok(spec), Err)
    }

    /// Notes those whose records cannot be read: their names stay taken.
    pub(crate) fn note_unreadable(&self, all: &[(String, String)]) {
        self.unreadable.lock().extend(all.iter().cloned());
    }

    /// Notes that a network could not be made, and why.
    pub(crate) fn leave_out(&self, id: &str, why: String) {
        if let Some(entry) = self.list().get_mut(id) {
            entry.left_out = Some(why);
        }
    }

    /// Gives addresses, each on a network, to nobody else.
    pub(crate) fn take_addresses(&self, all: &[(String, IpAddr)]) {
        let mut list = self.list();
        for (network, address) in all {
            let Some(bridge) = list.get_mut(network).and_then(|entry| entry.bridge.as_mut()) else { continue };
            let pool = if address.is_ipv4() { Some(&mut bridge.pool) } else { bridge.pool6.as_mut() };
            // It may be noted already.
            let _ = pool.map(|pool| pool.take(*address));
        }
    }

    /// Takes up the place of a workload that runs on: its addresses and ports are in use.
    pub(crate) async fn adopt_place(&self, handle: &Handle, mutable: &MutableState) -> Vec<bireme_net::Endpoint> {
        let sandbox_id = handle.executor.sandbox(&handle.config.spec);
        let sandbox = self.sandbox(&sandbox_id);
        let mut sandbox = sandbox.lock().await;
        let mut kept = Vec::new();
        let mut list = self.list();
        for endpoint in &mutable.endpoints {
            let Some(bridge) = list.get_mut(&endpoint.network).and_then(|entry| entry.bridge.as_mut()) else {
                continue;
            };
            let addresses = all_addresses_of(endpoint);
            if addresses.is_empty() {
                continue;
            }
            bridge.take_addresses(endpoint);
            let default_route = wants_way_out(&mut sandbox, bridge);
            kept.push(bireme_net::Endpoint {
                sandbox: sandbox_id.clone(),
                network: bridge.spec.id.clone(),
                addresses,
                mac: endpoint.mac.as_deref().and_then(|mac| parse_mac(mac).ok()),
                default_route,
                routes: administers_network(&handle.config.spec),
                name: reverse_name(&handle.view().name, endpoint),
                owner: handle.id().to_owned(),
            });
        }
        sandbox.members.insert(handle.id().to_owned());
        if handle.executor.takes_listeners() {
            for port in &mutable.ports {
                let shared =
                    SharedPort { sandbox: sandbox_id.clone(), socket: None, users: HashSet::new(), told: true };
                self.ports().entry(port.host).or_insert(shared).users.insert(handle.id().to_owned());
            }
        }
        kept
    }

    /// The number of each port of the host whose socket a component was handed.
    pub(crate) fn handed(&self) -> Vec<u16> {
        self.ports().keys().map(SocketAddr::port).collect()
    }
}

/// The networks on which a workload with these endpoints finds others by their names.
pub(crate) fn named_networks(endpoints: &[Endpoint]) -> Vec<NamedNetwork> {
    let named = endpoints.iter().filter(|endpoint| endpoint.network_name != DEFAULT);
    named.map(|endpoint| NamedNetwork { id: endpoint.network.clone(), links: links_of(endpoint) }).collect()
}

fn links_of(endpoint: &Endpoint) -> BTreeMap<String, String> {
    let links = endpoint.request.links.iter();
    let link = |(alias, name): (&String, &String)| {
        // A whole id is known by its beginning.
        let name = if name.len() == 64 { &name[..12] } else { name.as_str() };
        (alias.to_ascii_lowercase(), name.to_ascii_lowercase())
    };
    links.map(|(alias, name)| link((alias, name))).collect()
}

/// What the workload of an endpoint is called there. Docker knows each name with that of its network behind it too.
fn entry_of(endpoint: &Endpoint) -> NameEntry {
    let names: BTreeSet<String> = endpoint
        .names
        .iter()
        .flat_map(|name| [name.to_ascii_lowercase(), format!("{name}.{}", endpoint.network_name).to_ascii_lowercase()])
        .collect();
    NameEntry {
        names: names.into_iter().collect(),
        addresses: addresses_of(endpoint).iter().map(IpNet::addr).collect(),
        links: links_of(endpoint),
    }
}

fn addresses_of(endpoint: &Endpoint) -> Vec<IpNet> {
    [endpoint.ipv4, endpoint.ipv6].into_iter().flatten().filter_map(|(ip, bits)| IpNet::new(ip, bits).ok()).collect()
}

/// What the interface has: the addresses by which it is found, and those asked for beside them.
fn all_addresses_of(endpoint: &Endpoint) -> Vec<IpNet> {
    let mut addresses = addresses_of(endpoint);
    if !addresses.is_empty() {
        let length = |address: IpAddr| if address.is_ipv4() { 16 } else { 64 };
        let further = endpoint.request.link_local.iter();
        addresses.extend(further.filter_map(|address| IpNet::new(*address, length(*address)).ok()));
    }
    addresses
}

/// What a reverse lookup of its addresses answers, as with Docker. On the default network there are no names.
fn reverse_name(name: &str, endpoint: &Endpoint) -> Option<String> {
    (endpoint.network_name != DEFAULT).then(|| format!("{name}.{}", endpoint.network_name))
}

/// The names that a workload has on a network.
fn names_on_network(spec: &WorkloadSpec, name: &str, endpoint: &Endpoint) -> Vec<String> {
    if endpoint.network_name == DEFAULT {
        return Vec::new();
    }
    let own = [name.to_owned(), spec.id.short().to_owned(), spec.hostname.clone()];
    let all = own.into_iter().chain(endpoint.request.aliases.iter().cloned());
    let unique: BTreeSet<String> = all.filter(|name| !name.is_empty()).collect();
    unique.into_iter().collect()
}

/// Whether it has `CAP_NET_ADMIN`, and may thus give itself addresses and pass on packets of others.
fn administers_network(spec: &WorkloadSpec) -> bool {
    let has = |list: &[String], wanted: &str| {
        list.iter().any(|name| name.to_ascii_uppercase().trim_start_matches("CAP_") == wanted)
    };
    let security = &spec.security;
    security.privileged
        || has(&security.cap_add, "NET_ADMIN")
        || (has(&security.cap_add, "ALL") && !has(&security.cap_drop, "NET_ADMIN"))
}

fn wants_way_out(sandbox: &mut Sandbox, bridge: &Bridge) -> bool {
    if bridge.spec.internal {
        return false;
    }
    *sandbox.default_route.get_or_insert_with(|| bridge.spec.id.clone()) == bridge.spec.id
}

/// What stands behind a network on the machine; `None` for host and null.
fn bridge(network: &Network) -> Result<Option<Bridge>, EngineError> {
    if network.driver != "bridge" {
        return Ok(None);
    }
    let invalid = |message: String| EngineError::invalid(format!("network {}: {message}", network.name));
    let mut subnets = Vec::new();
    let (mut pool4, mut pool6) = (None, None);
    for pool in &network.pools {
        let parse = |text: &String| {
            IpNet::from_str(text).map_err(|_| invalid(format!("{text:?} is not an address range such as 10.5.0.0/24")))
        };
        let net =
            pool.subnet.as_ref().map(parse).transpose()?.ok_or_else(|| invalid("a pool needs a subnet".to_owned()))?;
        if net != net.trunc() {
            return Err(invalid(format!("invalid subnet {net}: it should be {}", net.trunc())));
        }
        let range = pool.ip_range.as_ref().map(parse).transpose()?;
        let gateway = match &pool.gateway {
            Some(text) => text.parse().map_err(|_| invalid(format!("gateway {text:?} is not an address")))?,
            None => AddressPool::default_gateway(net),
        };
        if !net.contains(&gateway) {
            return Err(invalid(format!("no matching subnet for gateway {gateway}")));
        }
        let mut reserved = vec![gateway];
        for text in pool.reserved.values() {
            reserved.push(text.parse().map_err(|_| invalid(format!("auxiliary address {text:?} is not an address")))?);
        }
        let addresses = AddressPool::new(net, range, &reserved).map_err(|error| invalid(error.to_string()))?;
        let place = if net.addr().is_ipv4() { &mut pool4 } else { &mut pool6 };
        if place.replace(addresses).is_some() {
            return Err(invalid("more than one subnet of one family is not offered".to_owned()));
        }
        subnets.push(Subnet { net, gateway });
    }
    let pool = pool4.ok_or_else(|| invalid("it needs an IPv4 subnet".to_owned()))?;
    // What an older version took and nobody can read keeps members apart.
    let switch =
        |key: &str, unread: bool| network.options.get(key).is_none_or(|value| parse_bool(value).unwrap_or(unread));
    let mtu = match network.options.get(MTU) {
        Some(text) => Some(text.parse().map_err(|_| invalid(format!("{MTU} {text:?} is not a number")))?),
        None => None,
    };
    let spec = NetworkSpec {
        id: NetworkId::parse(&network.id).map_err(|error| invalid(error.to_string()))?,
        name: network.name.clone(),
        driver: Driver::Bridge,
        subnets,
        internal: network.internal,
        icc: switch(ICC, false),
        mtu,
        bridge_name: network.options.get(BRIDGE_NAME).cloned(),
        masquerade: switch(MASQUERADE, true),
    };
    Ok(Some(Bridge { spec, pool, pool6 }))
}

/// How often a subnet is chosen anew because another engine chose the same.
const MOST_CHOICES: usize = 8;

/// As Go reads a switch, and with it Docker.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Refuses options of a new network that would be taken for something else than was meant.
///
/// # Errors
/// `Invalid`, with the option and what can be written.
fn check_options(name: &str, options: &BTreeMap<String, String>) -> Result<(), EngineError> {
    for key in [ICC, MASQUERADE] {
        if let Some(value) = options.get(key).filter(|value| parse_bool(value).is_none()) {
            return Err(EngineError::invalid(format!("network {name}: {key} {value:?} is neither true nor false")));
        }
    }
    match options.get(HOST_BINDING) {
        Some(value) => bound_to(name, value).map(drop),
        None => Ok(()),
    }
}

/// The address that [`HOST_BINDING`] says; `None` for every one of the host.
fn bound_to(network: &str, text: &str) -> Result<Option<IpAddr>, EngineError> {
    let address: IpAddr = text.parse().map_err(|_| {
        EngineError::invalid(format!(
            "network {network}: {HOST_BINDING} {text:?} is not an address of this host such as 127.0.0.1: make the network anew with one, or without for every address"
        ))
    })?;
    Ok((!address.is_unspecified()).then_some(address))
}

impl Engine {
    /// Makes the networks that always exist.
    pub(crate) async fn make_default_networks(&self) -> Result<(), EngineError> {
        let missing = |name: &str| self.network(name).is_err();
        if missing(DEFAULT) {
            self.make_network(CreateNetwork { name: DEFAULT.to_owned(), ..CreateNetwork::default() }).await?;
        }
        for (name, driver) in [("host", "host"), ("none", "null")] {
            if missing(name) {
                let network = Network {
                    id: engine::random_hex(),
                    name: name.to_owned(),
                    driver: driver.to_owned(),
                    created: now_nanos(),
                    internal: false,
                    attachable: false,
                    ipv6: false,
                    pools: Vec::new(),
                    options: BTreeMap::new(),
                    labels: BTreeMap::new(),
                };
                self.store().put_network(&network).await?;
                self.network_list().adopt(network)?;
            }
        }
        Ok(())
    }

    /// Makes a network.
    ///
    /// # Errors
    /// `Conflict` when the name or the subnet is taken, `Invalid` for bad addresses, `Unsupported` for other drivers.
    /// # Cancel safety
    /// Once begun it is completed, also when the future is dropped.
    pub async fn create_network(&self, request: CreateNetwork) -> Result<Network, EngineError> {
        if matches!(request.name.as_str(), "bridge" | "host" | "none" | "default") {
            return Err(EngineError::Denied {
                message: format!("operation is not permitted on predefined {} network ", request.name),
            });
        }
        if !matches!(request.driver.as_str(), "" | "bridge" | "default") {
            return Err(EngineError::NotFound {
                message: format!(
                    "plugin \"{}\" not found: of the drivers for new networks, bridge is offered",
                    request.driver
                ),
            });
        }
        for key in GATEWAY_MODES {
            match request.options.get(key).map_or("", String::as_str) {
                "" | "nat" => {}
                mode @ ("routed" | "nat-unprotected" | "isolated") => {
                    return Err(EngineError::unsupported(format!(
                        "gateway mode {mode} is not offered ({key}): leave it out for nat, or make the network internal"
                    )));
                }
                mode => return Err(EngineError::invalid(format!("unknown gateway mode {mode}"))),
            }
        }
        check_options(&request.name, &request.options)?;
        let engine = self.clone();
        self.completed(async move {
            let _one_at_a_time = engine.network_list().making.lock().await;
            let network = engine.make_network(request).await?;
            engine.emit_network("create", &network, None);
            Ok(network)
        })
        .await
    }

    async fn make_network(&self, request: CreateNetwork) -> Result<Network, EngineError> {
        for _ in 1..MOST_CHOICES {
            if let Some(network) = self.try_network(request.clone(), false).await? {
                return Ok(network);
            }
            // Whoever chose the same looks for another one now, too.
            tokio::time::sleep(Duration::from_millis(rand::random_range(0..100))).await;
        }
        let made = self.try_network(request, true).await?;
        made.ok_or_else(|| EngineError::conflict("no subnet is free: name one"))
    }

    /// As [`Self::make_network`]. `None` when its subnet was chosen here and someone else took it meanwhile, which `last`
    /// lets pass.
    async fn try_network(&self, mut request: CreateNetwork, last: bool) -> Result<Option<Network>, EngineError> {
        // As in Docker, all else may be a name.
        if request.name.trim().is_empty() {
            return Err(EngineError::invalid("invalid name: name is empty"));
        }
        let routes = bireme_net::host_routes()?;
        let (network, chosen) = {
            let mut list = self.network_list().list();
            let unreadable = self.network_list().unreadable.lock().values().any(|name| *name == request.name);
            if unreadable || list.values().any(|entry| entry.network.name == request.name) {
                return Err(EngineError::conflict(format!("network with name {} already exists", request.name)));
            }
            let used: Vec<IpNet> = list
                .values()
                .filter_map(|entry| entry.bridge.as_ref())
                .flat_map(|b| b.spec.subnets.iter().map(|s| s.net))
                .collect();
            let asked = request.pools.clone();
            let has_v4 = request.pools.iter().filter_map(|p| p.subnet.as_ref()).any(|s| !s.contains(':'));
            let mut chosen = None;
            if !has_v4 {
                let taken: Vec<IpNet> = used.iter().chain(&routes).copied().collect();
                let subnet =
                    SubnetPools::default().next(&taken).map_err(|error| EngineError::conflict(error.to_string()))?;
                chosen = Some(IpNet::from(subnet));
                let keep = request.pools.iter().filter(|p| p.subnet.is_some()).cloned();
                request.pools =
                    std::iter::once(PoolRequest { subnet: Some(subnet.to_string()), ..PoolRequest::default() })
                        .chain(keep)
                        .collect();
            }
            let id = engine::random_hex();
            let has_v6 = request.pools.iter().filter_map(|p| p.subnet.as_ref()).any(|s| s.contains(':'));
            if request.ipv6 && !has_v6 {
                request.pools.push(PoolRequest { subnet: Some(unique_local(&id)), ..PoolRequest::default() });
            }
            let mut network = Network {
                id,
                name: request.name,
                driver: "bridge".to_owned(),
                created: now_nanos(),
                internal: request.internal,
                attachable: request.attachable,
                ipv6: request.ipv6,
                pools: request.pools,
                options: request.options,
                labels: request.labels,
            };
            let bridge = bridge(&network)?;
            let subnets = bridge.as_ref().map_or(&[][..], |bridge| &bridge.spec.subnets);
            if let Some(clash) = subnets.iter().find(|subnet| used.iter().any(|other| overlap(&subnet.net, other))) {
                return Err(EngineError::Denied {
                    message: format!("Pool overlaps with other one on this address space: {} is in use", clash.net),
                });
            }
            for (pool, subnet) in network.pools.iter_mut().zip(subnets) {
                // Of a subnet that was asked for, Docker shows what was asked for.
                if !asked.contains(pool) {
                    pool.gateway = Some(subnet.gateway.to_string());
                }
            }
            list.insert(network.id.clone(), Entry { network: network.clone(), bridge, left_out: None });
            (network, chosen)
        };
        let made = async {
            if let Some(spec) = self.network_spec(&network.id) {
                self.net().ensure_network(&spec).await?;
                if let Some(subnet) = chosen
                    && !last
                    && self.net().shares_subnet(&spec.id, subnet).await?
                {
                    return Ok(None);
                }
            }
            self.store().put_network(&network).await?;
            Ok(Some(network.clone()))
        };
        let made = made.await;
        if !matches!(made, Ok(Some(_))) {
            self.network_list().list().remove(&network.id);
            if let Ok(id) = NetworkId::parse(&network.id) {
                let _ = self.net().remove_network(&id).await;
            }
        }
        made
    }

    fn network_spec(&self, id: &str) -> Option<NetworkSpec> {
        self.network_list().list().get(id)?.bridge.as_ref().map(|bridge| bridge.spec.clone())
    }

    pub fn networks(&self) -> Vec<Network> {
        self.network_list().list().values().map(|entry| entry.network.clone()).collect()
    }

    /// By name, ID, or the beginning of an ID.
    ///
    /// # Errors
    /// `NotFound` in Docker's words; `Invalid` when several match.
    pub fn network(&self, name: &str) -> Result<Network, EngineError> {
        let list = self.network_list().list();
        if let Some(entry) = list.get(name).or_else(|| list.values().find(|entry| entry.network.name == name)) {
            return Ok(entry.network.clone());
        }
        let mut found = list.values().filter(|entry| !name.is_empty() && entry.network.id.starts_with(name));
        match (found.next(), found.next()) {
            (Some(entry), None) => Ok(entry.network.clone()),
            (Some(_), Some(_)) => Err(EngineError::Ambiguous { what: "network", name: name.to_owned() }),
            (None, _) => Err(EngineError::NotFound { message: format!("network {name} not found") }),
        }
    }

    /// The workloads that stand on a network now.
    pub fn network_members(&self, id: &str) -> Vec<NetworkMember> {
        let member = |view: Arc<crate::view::WorkloadView>| {
            let endpoint = view.endpoints.iter().find(|e| e.network == id && e.ipv4.is_some())?.clone();
            Some(NetworkMember { workload_id: view.id().to_owned(), name: view.name.clone(), endpoint })
        };
        self.handles().iter().filter_map(|handle| member(handle.view())).collect()
    }

    /// # Errors
    /// `Denied` for the predefined ones and for networks with workloads on them.
    /// # Cancel safety
    /// Once begun it is completed, also when the future is dropped.
    pub async fn remove_network(&self, name: &str) -> Result<(), EngineError> {
        let (engine, name) = (self.clone(), name.to_owned());
        self.completed(async move {
            let _one_at_a_time = engine.network_list().making.lock().await;
            engine.remove_made_network(&name).await
        })
        .await
    }

    async fn remove_made_network(&self, name: &str) -> Result<(), EngineError> {
        let unreadable = self.network_list().unreadable.lock().iter().find_map(|(id, called)| {
            let meant = id == name || called == name;
            meant.then(|| (id.clone(), called.clone()))
        });
        if let Some((id, called)) = unreadable {
            return self.remove_unreadable_network(&id, &called).await;
        }
        let network = self.network(name)?;
        if is_predefined(&network.name) {
            return Err(EngineError::Denied {
                message: format!("{} is a pre-defined network and cannot be removed", network.name),
            });
        }
        if !self.network_members(&network.id).is_empty() || !self.unreadable().mentioning(&network.id).is_empty() {
            return Err(EngineError::Denied {
                message: format!(
                    "error while removing network: network {} id {} has active endpoints",
                    network.name, network.id
                ),
            });
        }
        if let Ok(id) = NetworkId::parse(&network.id) {
            self.net().remove_network(&id).await?;
        }
        self.store().delete_network(&network.id).await?;
        self.network_list().list().remove(&network.id);
        self.forget_names(&network.id).await;
        self.emit_network("destroy", &network, None);
        Ok(())
    }

    /// Forgets a network of which nothing is known but ID and name. What there is of it in the kernel goes when the engine is
    /// started next.
    async fn remove_unreadable_network(&self, id: &str, name: &str) -> Result<(), EngineError> {
        let on_it = |handle: &Arc<Handle>| handle.view().endpoints.iter().any(|endpoint| endpoint.network == id);
        if self.handles().iter().any(on_it) || !self.unreadable().mentioning(id).is_empty() {
            return Err(EngineError::Denied {
                message: format!("error while removing network: network {name} id {id} has active endpoints"),
            });
        }
        self.store().delete_network(id).await?;
        self.network_list().unreadable.lock().remove(id);
        Ok(())
    }

    /// Removes those of the `wanted` networks that no workload is on, running or not.
    pub async fn prune_networks(&self, wanted: impl Fn(&Network) -> bool) -> Result<Vec<String>, EngineError> {
        let used: HashSet<String> = self
            .handles()
            .iter()
            .flat_map(|h| h.view().endpoints.iter().map(|e| e.network.clone()).collect::<Vec<_>>())
            .collect();
        let mut removed = Vec::new();
        let mut staying = Vec::new();
        for network in self.networks() {
            let predefined = is_predefined(&network.name);
            let used = used.contains(&network.id) || !self.unreadable().mentioning(&network.id).is_empty();
            if !predefined && !used && wanted(&network) {
                match self.remove_network(&network.id).await {
                    Ok(()) => removed.push(network.name),
                    // Gone, or taken meanwhile.
                    Err(EngineError::NotFound { .. } | EngineError::Denied { .. }) => {}
                    Err(error) => staying.push(error.to_string()),
                }
            }
        }
        engine::all_removed("networks", removed.len(), staying)?;
        Ok(removed)
    }

    /// Makes a network that could not be made when the engine started; nothing for all others.
    ///
    /// # Errors
    /// `Conflict` that names what still stands in its way.
    async fn make_left_out(&self, id: &str) -> Result<(), EngineError> {
        let left_out = |entry: &Entry| entry.left_out.is_some();
        if !self.network_list().list().get(id).is_some_and(left_out) {
            return Ok(());
        }
        // Not while it is removed.
        let _one_at_a_time = self.network_list().making.lock().await;
        let (name, spec, why) = {
            let list = self.network_list().list();
            let Some(entry) = list.get(id) else { return Ok(()) };
            let Some(why) = entry.left_out.clone() else { return Ok(()) };
            (entry.network.name.clone(), entry.bridge.as_ref().map(|bridge| bridge.spec.clone()), why)
        };
        let refused = |why: String| {
            EngineError::conflict(format!(
                "network {name} could not be made and is left out: {why}; mend that and start the container again, or remove the network"
            ))
        };
        let Some(spec) = spec else { return Err(refused(why)) };
        self.net().ensure_network(&spec).await.map_err(|error| refused(error.to_string()))?;
        tracing::info!(network = name, "a network that was left out is made");
        if let Some(entry) = self.network_list().list().get_mut(id) {
            entry.left_out = None;
        }
        Ok(())
    }

    /// Puts a workload on one more network; at once if it runs, otherwise at its next start.
    pub async fn connect(&self, network: &str, workload: &str, request: EndpointRequest) -> Result<(), EngineError> {
        let network = self.network(network)?;
        let handle = self.find(workload)?;
        let record = Box::new(network);
        handle.command(|reply| crate::actor::Command::Connect { network: record, request, reply }).await
    }

    /// Takes a workload off a network. `force` also forgets a workload that is gone.
    pub async fn disconnect(&self, network: &str, workload: &str, force: bool) -> Result<(), EngineError> {
        let network = self.network(network)?;
        let handle = match self.find(workload) {
            Ok(handle) => handle,
            Err(_) if force => return Ok(()),
            Err(error) => return Err(error),
        };
        handle.command(|reply| crate::actor::Command::Disconnect { network: network.id, reply }).await
    }

    /// Tells that a workload came to a network or left it.
    fn emit_endpoint(&self, action: &str, network: &str, handle: &Handle) {
        if let Ok(network) = self.network(network) {
            self.emit_network(action, &network, Some(handle.id()));
        }
    }

    fn emit_network(&self, action: &str, network: &Network, workload: Option<&str>) {
        let mut attributes =
            BTreeMap::from([("name".to_owned(), network.name.clone()), ("type".to_owned(), network.driver.clone())]);
        attributes.extend(workload.map(|id| ("container".to_owned(), id.to_owned())));
        self.emit(Event {
            kind: "network",
            action: action.to_owned(),
            id: network.id.clone(),
            attributes,
            time: now_nanos(),
        });
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
            let network = self.network(name).map_err(|error| EngineError::invalid(error.to_string()))?;
            if network.driver != "bridge" {
                return Err(EngineError::invalid(format!(
                    "network {} cannot be combined with others: use it as the network mode alone",
                    network.name
                )));
            }
            self.check_static(&network, request)?;
            if !endpoints.iter().any(|e| e.network == network.id) {
                endpoints.push(endpoint(&network, request.clone()));
            }
        }
        Ok(endpoints)
    }

    fn check_static(&self, network: &Network, request: &EndpointRequest) -> Result<(), EngineError> {
        let list = self.network_list().list();
        let Some(bridge) = list.get(&network.id).and_then(|entry| entry.bridge.as_ref()) else { return Ok(()) };
        for address in request.ipv4.iter().chain(&request.ipv6) {
            if !bridge.spec.subnets.iter().any(|subnet| subnet.net.contains(address)) {
                return Err(EngineError::invalid(format!(
                    "invalid config for network {}: invalid endpoint settings:\nno configured subnet or ip-range contain the IP address {address}: it has {}",
                    network.name,
                    bridge.spec.subnets.iter().map(|s| s.net.to_string()).collect::<Vec<_>>().join(", ")
                )));
            }
        }
        if let Some(address) = request.link_local.iter().find(|address| !is_link_local(**address)) {
            return Err(EngineError::invalid(format!(
                "invalid config for network {}: invalid endpoint settings:\ninvalid link-local IP address: {address}",
                network.name
            )));
        }
        if let Some(mac) = &request.mac {
            parse_mac(mac)?;
        }
        Ok(())
    }

    /// Makes the place of a workload that is about to start. What was made before an error is given back by
    /// [`Engine::detach_network`].
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
                let other = self.network_of(self.with_id(other)?)?;
                let Some(running) = other.workload() else {
                    return Err(EngineError::conflict(format!(
                        "cannot join network of a non running container: {}",
                        other.id()
                    )));
                };
                let sandbox = other.executor.sandbox(&other.config.spec);
                let netns = self.net().running_sandbox(&sandbox, running.pid()).await?;
                host = Some(other);
                Some(NetworkPlace { dns: self.net().dns_servers(&sandbox), sandbox, netns, addresses: Vec::new() })
            }
            NetworkMode::None | NetworkMode::Attached => {
                let id = handle.executor.sandbox(spec);
                let entry = self.network_list().sandbox(&id);
                let mut sandbox = entry.lock().await;
                let netns = self.net().ensure_sandbox(&id).await?;
                sandbox.members.insert(handle.id().to_owned());
                self.net().set_upstream(&id, &spec.dns.servers);
                for endpoint in &mut mutable.endpoints {
                    self.attach_endpoint(handle, name, &id, &mut sandbox, endpoint).await?;
                }
                if spec.namespaces.network == NetworkMode::None {
                    self.emit_endpoint("connect", "none", handle);
                }
                if finds_names(&mutable.endpoints) {
                    self.net().serve_inside(&id).await?;
                }
                let addresses = mutable.endpoints.iter().flat_map(addresses_of).map(|net| net.addr()).collect();
                // At the gateway of an internal network nobody is led outside, though another network may lead there.
                let dns = if finds_names(&mutable.endpoints) {
                    vec![IpAddr::V4(bireme_net::DNS_INSIDE)]
                } else {
                    self.net().dns_servers(&id)
                };
                Some(NetworkPlace { dns, sandbox: id, netns, addresses })
            }
        };
        let listeners = self.open_ports(handle, mutable).await?;
        handle.publish(name, mutable);
        self.names_changed(handle.id(), &mutable.endpoints).await;
        let linked = self.linked(name, &handle.view().links)?;
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

    /// The workload that has the network of `other`: itself, or whichever it shares one with.
    ///
    /// # Errors
    /// `Conflict` where that is the host's.
    fn network_of(&self, mut other: Arc<Handle>) -> Result<Arc<Handle>, EngineError> {
        // Each shares with one that was there before it: there is a first. By a name it could come back to itself.
        while let NetworkMode::Workload(next) = &other.config.spec.namespaces.network {
            other = self.with_id(next)?;
        }
        if other.config.spec.namespaces.network == NetworkMode::Host {
            return Err(EngineError::conflict(format!(
                "cannot join network of container {}: it has that of the host, use --network host",
                other.id()
            )));
        }
        Ok(other)
    }

    async fn attach_endpoint(
        &self,
        handle: &Handle,
        name: &str,
        id: &SandboxId,
        sandbox: &mut Sandbox,
        endpoint: &mut Endpoint,
    ) -> Result<(), EngineError> {
        self.make_left_out(&endpoint.network).await?;
        let request = {
            let mut list = self.network_list().list();
            let bridge = list.get_mut(&endpoint.network).and_then(|entry| entry.bridge.as_mut()).ok_or_else(|| {
                EngineError::NotFound { message: format!("network {} not found", endpoint.network_name) }
            })?;
            let taken = match endpoint.request.ipv4 {
                Some(address) => bridge.pool.take(address),
                None => bridge.pool.take_next(),
            };
            let address =
                taken.map_err(|error| EngineError::conflict(format!("network {}: {error}", endpoint.network_name)))?;
            endpoint.ipv4 = Some((address.addr(), address.prefix_len()));
            let gateway =
                |v4: bool| bridge.spec.subnets.iter().find(|s| s.net.addr().is_ipv4() == v4).map(|s| s.gateway);
            endpoint.gateway = gateway(true);
            endpoint.ipv6_gateway = gateway(false);
            if let Some(pool6) = &mut bridge.pool6 {
                let taken = match endpoint.request.ipv6 {
                    Some(address) => pool6.take(address),
                    None => pool6.take_next(),
                };
                let address = taken
                    .map_err(|error| EngineError::conflict(format!("network {}: {error}", endpoint.network_name)))?;
                endpoint.ipv6 = Some((address.addr(), address.prefix_len()));
            }
            bireme_net::Endpoint {
                sandbox: id.clone(),
                network: bridge.spec.id.clone(),
                addresses: all_addresses_of(endpoint),
                mac: endpoint.request.mac.as_deref().map(parse_mac).transpose()?,
                default_route: wants_way_out(sandbox, bridge),
                routes: administers_network(&handle.config.spec),
                name: reverse_name(name, endpoint),
                owner: handle.id().to_owned(),
            }
        };
        endpoint.endpoint_id = engine::random_hex();
        let attached = self.net().attach(&request).await?;
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
                self.net().set_reverse_name(&addresses, &reverse);
            }
        }
        handle.publish(name, mutable);
    }

    /// Gives back everything that [`Engine::place`] made; goes on over errors.
    pub(crate) async fn detach_network(&self, handle: &Arc<Handle>, mutable: &mut MutableState) {
        let report = |what: &str, error: &(dyn std::error::Error + 'static)| {
            tracing::warn!(workload.id = handle.id(), what, error, "something of the network could not be given back");
        };
        self.close_ports(handle).await;
        if let Err(error) = self.net().unpublish(handle.id()).await {
            report("published ports", &error);
        }
        mutable.ports.clear();
        match handle.config.spec.namespaces.network {
            NetworkMode::Host => self.emit_endpoint("disconnect", "host", handle),
            NetworkMode::None => self.emit_endpoint("disconnect", "none", handle),
            NetworkMode::Attached | NetworkMode::Workload(_) => {}
        }
        if matches!(handle.config.spec.namespaces.network, NetworkMode::None | NetworkMode::Attached) {
            let id = handle.executor.sandbox(&handle.config.spec);
            let entry = self.network_list().sandbox(&id);
            let mut sandbox = entry.lock().await;
            for endpoint in &mut mutable.endpoints {
                if let Err(error) = self.detach_endpoint(handle, &id, endpoint).await {
                    report(&endpoint.network_name, &error);
                }
            }
            sandbox.members.remove(handle.id());
            if !sandbox.members.is_empty() {
                if let Err(error) = self.lead_out(&id, &mut sandbox, &[]).await {
                    report("the way out of those who stay", &error);
                }
            } else {
                sandbox.default_route = None;
                if let Err(error) = self.net().remove_sandbox(&id).await {
                    report("network namespace", &error);
                }
                let mut sandboxes = self.network_list().sandboxes.lock();
                // Two owners: the map and this function. With a third, somebody waits to start in it.
                if Arc::strong_count(&entry) == 2 {
                    sandboxes.remove(&id);
                }
            }
        }
        let name = handle.view().name.clone();
        handle.publish(&name, mutable);
    }

    /// Sees to it that a sandbox has a way out as long as one of its networks has.
    async fn lead_out(&self, id: &SandboxId, sandbox: &mut Sandbox, endpoints: &[Endpoint]) -> Result<(), EngineError> {
        let wanted: Vec<_> = endpoints.iter().filter_map(|one| NetworkId::parse(&one.network).ok()).collect();
        // Not over one that is gone, should none be found.
        sandbox.default_route = None;
        sandbox.default_route = self.net().lead_out(id, &wanted).await?;
        Ok(())
    }

    async fn detach_endpoint(
        &self,
        handle: &Handle,
        id: &SandboxId,
        endpoint: &mut Endpoint,
    ) -> Result<(), EngineError> {
        let addresses = addresses_of(endpoint);
        if addresses.is_empty() {
            return Ok(());
        }
        let network = NetworkId::parse(&endpoint.network).map_err(|error| EngineError::invalid(error.to_string()))?;
        let request = bireme_net::Endpoint {
            sandbox: id.clone(),
            network,
            addresses: all_addresses_of(endpoint),
            mac: None,
            default_route: false,
            routes: false,
            name: None,
            owner: handle.id().to_owned(),
        };
        let detached = self.net().detach(&request).await;
        if let Some(bridge) =
            self.network_list().list().get_mut(&endpoint.network).and_then(|entry| entry.bridge.as_mut())
        {
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
        self.emit_endpoint("disconnect", &endpoint.network, handle);
        Ok(detached?)
    }

    pub(crate) async fn connect_endpoint(
        &self,
        handle: &Arc<Handle>,
        name: &str,
        mutable: &mut MutableState,
        network: &Network,
        request: EndpointRequest,
        alive: bool,
    ) -> Result<(), EngineError> {
        if handle.config.spec.namespaces.network == NetworkMode::None {
            return Err(EngineError::Denied {
                message:
                    "container cannot be connected to multiple networks with one of the networks in private (none) mode"
                        .to_owned(),
            });
        }
        if handle.config.spec.namespaces.network != NetworkMode::Attached {
            return Err(EngineError::Denied { message: "container sharing network namespace with another container or host cannot be connected to any other network".to_owned() });
        }
        if network.driver != "bridge" {
            return Err(EngineError::Denied {
                message: format!(
                    "container cannot be disconnected from host network or connected to host network: {} is a network mode only",
                    network.name
                ),
            });
        }
        if mutable.endpoints.iter().any(|endpoint| endpoint.network == network.id) {
            return Err(EngineError::Denied {
                message: format!("endpoint with name {name} already exists in network {}", network.name),
            });
        }
        self.check_static(network, &request)?;
        let mut new = endpoint(network, request);
        if alive {
            let id = handle.executor.sandbox(&handle.config.spec);
            let entry = self.network_list().sandbox(&id);
            let mut sandbox = entry.lock().await;
            let attached = async {
                self.attach_endpoint(handle, name, &id, &mut sandbox, &mut new).await?;
                if finds_names(std::slice::from_ref(&new)) {
                    self.net().serve_inside(&id).await?;
                }
                Ok(())
            };
            if let Err(error) = attached.await {
                self.leave(handle, &id, &mut sandbox, &mut new, mutable).await;
                return Err(error);
            }
            // One that lost its last way in gets its ports again with the next.
            let published = !handle.config.publish.is_empty() || handle.config.publish_all;
            let unreached = mutable.ports.is_empty() && ingress_endpoint(self, &mutable.endpoints).is_none();
            if published
                && unreached
                && !handle.executor.takes_listeners()
                && ingress_endpoint(self, &[new.clone()]).is_some()
            {
                mutable.endpoints.push(new);
                let opened = self.open_ports(handle, mutable).await;
                if let Err(error) = opened {
                    mutable.ports.clear();
                    if let Some(mut new) = mutable.endpoints.pop() {
                        self.leave(handle, &id, &mut sandbox, &mut new, mutable).await;
                    }
                    return Err(error);
                }
            } else {
                mutable.endpoints.push(new);
            }
        } else {
            mutable.endpoints.push(new);
        }
        handle.publish(name, mutable);
        self.names_changed(handle.id(), &mutable.endpoints).await;
        self.tell_networks(handle, &mutable.endpoints).await;
        Ok(())
    }

    /// Undoes what was begun of putting a workload that runs on one more network.
    async fn leave(
        &self,
        handle: &Handle,
        id: &SandboxId,
        sandbox: &mut Sandbox,
        new: &mut Endpoint,
        mutable: &MutableState,
    ) {
        let detached = self.detach_endpoint(handle, id, new).await;
        if let Err(error) = detached.and(self.lead_out(id, sandbox, &mutable.endpoints).await) {
            tracing::warn!(
                workload.id = handle.id(),
                network = new.network_name,
                error = &error as &dyn std::error::Error,
                "what was begun of a network could not be undone"
            );
        }
    }

    /// Tells a workload that runs on which networks it finds names now.
    async fn tell_networks(&self, handle: &Handle, endpoints: &[Endpoint]) {
        if let Some(workload) = handle.workload() {
            // Who is about to be ended need not know them.
            let _ = handle.unless_hurried(workload.networks_changed(named_networks(endpoints))).await;
        }
    }

    pub(crate) async fn disconnect_endpoint(
        &self,
        handle: &Arc<Handle>,
        mutable: &mut MutableState,
        network: &str,
    ) -> Result<(), EngineError> {
        let at = mutable.endpoints.iter().position(|endpoint| endpoint.network == network).ok_or_else(|| {
            let name = self.network(network).map_or_else(|_| network.to_owned(), |found| found.name);
            EngineError::Denied { message: format!("container {} is not connected to network {name}", handle.id()) }
        })?;
        let reached_by = ingress_endpoint(self, &mutable.endpoints).map(|endpoint| endpoint.network.clone());
        let loses_ports = !mutable.ports.is_empty() && reached_by.as_deref() == Some(network);
        if loses_ports && handle.executor.takes_listeners() {
            self.stays_served(handle, &mutable.endpoints, at)?;
        }
        // Before its address is anybody else's. What cannot be taken back keeps it.
        let ports = if loses_ports && !handle.executor.takes_listeners() {
            self.net().unpublish(handle.id()).await?;
            std::mem::take(&mut mutable.ports)
        } else {
            Vec::new()
        };
        let mut old = mutable.endpoints.remove(at);
        let id = handle.executor.sandbox(&handle.config.spec);
        let entry = self.network_list().sandbox(&id);
        let mut sandbox = entry.lock().await;
        let result = self.detach_endpoint(handle, &id, &mut old).await;
        let led = self.lead_out(&id, &mut sandbox, &mutable.endpoints).await;
        drop(sandbox);
        self.publish_again(handle, &ports, mutable).await;
        let result = result.and(led);
        let name = handle.view().name.clone();
        handle.publish(&name, mutable);
        self.names_changed(handle.id(), std::slice::from_ref(&old)).await;
        self.tell_networks(handle, &mutable.endpoints).await;
        result
    }

    /// That a component which runs is published by the same addresses without its endpoint `at`: its sockets are its own
    /// until it ends.
    ///
    /// # Errors
    /// `Conflict`, with what to do first.
    fn stays_served(&self, handle: &Handle, endpoints: &[Endpoint], at: usize) -> Result<(), EngineError> {
        let rest: Vec<Endpoint> = [&endpoints[..at], &endpoints[at + 1..]].concat();
        let next = ingress_endpoint(self, &rest);
        if let Some(next) = next
            && self.host_binding(next)? == self.host_binding(&endpoints[at])?
        {
            return Ok(());
        }
        let name = &handle.view().name;
        Err(EngineError::conflict(format!(
            "{name} is served on its published ports by way of network {}, and no other of its networks has them published so: stop {name} first, or put it on one that has",
            endpoints[at].network_name
        )))
    }

    /// Publishes again, by way of another network, what led to an endpoint that a workload no longer has. Where it has no
    /// other, and what cannot be published so, is published no longer.
    async fn publish_again(&self, handle: &Handle, ports: &[PublishedPort], mutable: &mut MutableState) {
        if ingress_endpoint(self, &mutable.endpoints).is_none() {
            return;
        }
        for publish in again(&handle.config.publish, ports) {
            if let Err(error) = self.open_forward(handle, &publish, mutable).await {
                tracing::warn!(
                    workload.id = handle.id(),
                    port = publish.host_ports.map(|(port, _)| port),
                    error = &error as &dyn std::error::Error,
                    "a port could not be published by way of another network, and is published no longer"
                );
            }
        }
    }

    /// Tells the DNS, and executors whose workloads resolve names themselves, what became of the names of `workload` on
    /// these networks: the change alone, once a network.
    pub(crate) async fn names_changed(&self, workload: &str, endpoints: &[Endpoint]) {
        for endpoint in endpoints.iter().filter(|endpoint| endpoint.network_name != DEFAULT) {
            let Ok(id) = NetworkId::parse(&endpoint.network) else { continue };
            // An older change never follows a newer one.
            let turn = self.network_list().naming.of(&endpoint.network);
            let _one_at_a_time = turn.lock().await;
            let (changed, linked) = {
                let mut tables = self.network_list().tables();
                let table = tables.entry(endpoint.network.clone()).or_default();
                (table.set(workload, entry_of(endpoint)), table.linked())
            };
            if changed.is_empty() {
                continue;
            }
            self.net().change_network_names(&id, &changed, linked);
            for resolver in self.resolvers() {
                resolver.names_changed(&endpoint.network, NamesChange::Some(changed.clone())).await;
            }
        }
    }

    /// Takes up the names of what an earlier daemon left running.
    pub(crate) fn adopt_names(&self, workload: &str, endpoints: &[Endpoint]) {
        let mut tables = self.network_list().tables();
        for endpoint in endpoints.iter().filter(|endpoint| endpoint.network_name != DEFAULT) {
            tables.entry(endpoint.network.clone()).or_default().set(workload, entry_of(endpoint));
        }
    }

    /// Tells everyone concerned all names that were taken up.
    pub(crate) async fn tell_all_names(&self) {
        let networks: Vec<String> = self.network_list().tables().keys().cloned().collect();
        for network in networks {
            let turn = self.network_list().naming.of(&network);
            let _one_at_a_time = turn.lock().await;
            let all = self.network_list().tables().get(&network).map(|table| (table.all(), table.linked()));
            let Some((names, linked)) = all else { continue };
            if let Ok(id) = NetworkId::parse(&network) {
                self.net().set_network_names(&id, names.clone(), linked);
            }
            for resolver in self.resolvers() {
                resolver.names_changed(&network, NamesChange::All(names.clone())).await;
            }
        }
    }

    /// Forgets the names of a network that is removed.
    async fn forget_names(&self, network: &str) {
        let turn = self.network_list().naming.of(network);
        let _one_at_a_time = turn.lock().await;
        if self.network_list().tables().remove(network).is_some() {
            for resolver in self.resolvers() {
                resolver.names_changed(network, NamesChange::All(Names::new())).await;
            }
        }
    }

    async fn open_ports(&self, handle: &Arc<Handle>, mutable: &mut MutableState) -> Result<Vec<Listener>, EngineError> {
        let config = &handle.config;
        if config.spec.namespaces.network != NetworkMode::Attached {
            return Ok(Vec::new());
        }
        let mut wanted = config.publish.clone();
        if config.publish_all {
            // One that an older version took may have more than are taken now.
            let further = bounds::all_published(&config.spec.ports, config.publish.iter().map(|one| one.container))?;
            wanted.extend(further.into_iter().map(|container| Publish { container, host_ip: None, host_ports: None }));
        }
        // A range takes what those leave that name one port, and who names none takes what is left of all.
        wanted.sort_by_key(|publish| publish.host_ports.map_or(u16::MAX, |(first, last)| last.saturating_sub(first)));
        let mut listeners = Vec::new();
        for publish in wanted {
            if handle.executor.takes_listeners() {
                listeners.extend(self.open_listeners(handle, &publish, mutable)?);
            } else {
                self.open_forward(handle, &publish, mutable).await?;
            }
        }
        // Before they are handed over.
        let untold = {
            let mut ports = self.network_list().ports();
            let untold = ports.iter_mut().filter(|(_, shared)| !shared.told && shared.users.contains(handle.id()));
            let numbers: Vec<u16> = untold.map(|(host, shared)| (host.port(), shared.told = true).0).collect();
            numbers
        };
        if !untold.is_empty() {
            self.net().hand_over(&untold).await?;
        }
        Ok(listeners)
    }

    fn open_listeners(
        &self,
        handle: &Handle,
        publish: &Publish,
        mutable: &mut MutableState,
    ) -> Result<Vec<Listener>, EngineError> {
        if publish.container.protocol != Protocol::Tcp {
            return Err(EngineError::unsupported(format!(
                "{} is a WebAssembly component and answers HTTP over TCP: port {}/{} cannot be published",
                handle.view().name,
                publish.container.number,
                publish.container.protocol.as_str()
            )));
        }
        let publish = &self.bound(handle, publish, self.published_by(handle, &mutable.endpoints)?)?;
        let (first, last) = publish.host_ports.unwrap_or((0, 0));
        let mut refusal = None;
        for number in first..=last {
            if let Err(error) = not_twice(handle, publish, number, mutable) {
                refusal = Some(error);
                continue;
            }
            match self.listen(handle, publish, number) {
                Ok(listeners) => {
                    mutable
                        .ports
                        .extend(listeners.iter().map(|l| PublishedPort { container: l.container, host: l.host }));
                    return Ok(listeners);
                }
                Err(error) => refusal = Some(error),
            }
        }
        Err(refusal.unwrap_or_else(|| EngineError::invalid("an empty range of host ports")))
    }

    /// Opens one host port on the addresses asked for. An IPv6 that this machine lacks is no error when every address was
    /// meant.
    fn listen(&self, handle: &Handle, publish: &Publish, number: u16) -> Result<Vec<Listener>, EngineError> {
        let sandbox = handle.executor.sandbox(&handle.config.spec);
        let mut ports = self.network_list().ports();
        let mut listeners: Vec<Listener> = Vec::new();
        let addresses = match publish.host_ip {
            Some(ip) => vec![ip],
            None => vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)],
        };
        let mut number = number;
        let taken = |host: SocketAddr, why: &str| {
            EngineError::conflict(format!(
                "driver failed programming external connectivity on endpoint {}: failed to bind host port for {host}: {why}",
                handle.view().name
            ))
        };
        let refused = |host: SocketAddr, source: &std::io::Error| match source.kind() {
            std::io::ErrorKind::AddrInUse => {
                taken(host, "address already in use: stop what listens there, or publish another port")
            }
            _ => taken(host, &source.to_string()),
        };
        for ip in addresses {
            let asked = SocketAddr::new(ip, number);
            if let Some(shared) = ports.get_mut(&asked) {
                if shared.sandbox != sandbox {
                    return Err(taken(
                        asked,
                        "port is already allocated to a component of another app: those of one app (a Compose \
                         project) share ports by their routes; publish another port, or give both the same label \
                         com.docker.compose.project",
                    ));
                }
                let socket = shared
                    .socket
                    .as_ref()
                    .map(OwnedFd::try_clone)
                    .transpose()
                    .map_err(|error| refused(asked, &error))?;
                shared.users.insert(handle.id().to_owned());
                listeners.push(Listener { host: asked, container: publish.container, socket });
                continue;
            }
            let socket = match bireme_sys::listen::tcp_to_serve_alone(asked) {
                Ok(socket) => socket,
                Err(error)
                    if ip.is_ipv6() && publish.host_ip.is_none() && error.kind() != std::io::ErrorKind::AddrInUse =>
                {
                    continue;
                }
                Err(error) => return Err(refused(asked, &error)),
            };
            let host = bireme_sys::listen::local_address(&socket).map_err(|error| refused(asked, &error))?;
            number = host.port();
            let copy = socket.try_clone().map_err(|error| refused(host, &error))?;
            let users = HashSet::from([handle.id().to_owned()]);
            ports.insert(host, SharedPort { sandbox: sandbox.clone(), socket: Some(socket), users, told: false });
            listeners.push(Listener { host, container: publish.container, socket: Some(copy) });
        }
        Ok(listeners)
    }

    async fn close_ports(&self, handle: &Handle) {
        let mut closed = Vec::new();
        self.network_list().ports().retain(|host, shared| {
            shared.users.remove(handle.id());
            if shared.users.is_empty() && shared.told {
                closed.push(host.port());
            }
            !shared.users.is_empty()
        });
        if !closed.is_empty()
            && let Err(error) = self.net().take_back(&closed).await
        {
            tracing::warn!(workload.id = handle.id(), %error, "ports stay closed to internal networks");
        }
    }

    /// The endpoint by which the ports of a workload are published.
    ///
    /// # Errors
    /// `Invalid` where no network of it has a way out.
    fn published_by<'a>(&self, handle: &Handle, endpoints: &'a [Endpoint]) -> Result<&'a Endpoint, EngineError> {
        ingress_endpoint(self, endpoints).ok_or_else(|| {
            EngineError::invalid(format!(
                "{} publishes a port and is on no network that has a way out",
                handle.view().name
            ))
        })
    }

    /// What is published without an address of its own is at that of the network.
    fn bound(&self, handle: &Handle, publish: &Publish, endpoint: &Endpoint) -> Result<Publish, EngineError> {
        let host_ip = match publish.host_ip {
            Some(asked) => Some(asked),
            None => self.host_binding(endpoint).inspect_err(|_| {
                tracing::warn!(workload.id = handle.id(), network = endpoint.network_name, "a port is not published");
            })?,
        };
        Ok(Publish { host_ip, ..publish.clone() })
    }

    async fn open_forward(
        &self,
        handle: &Handle,
        publish: &Publish,
        mutable: &mut MutableState,
    ) -> Result<(), EngineError> {
        let endpoint = self.published_by(handle, &mutable.endpoints)?;
        let network = NetworkId::parse(&endpoint.network).map_err(|error| EngineError::invalid(error.to_string()))?;
        let forward = |host: SocketAddr| {
            let target = target(endpoint, host.ip())?;
            Some(Forward {
                owner: handle.id().to_owned(),
                protocol: publish.container.protocol,
                host,
                target: SocketAddr::new(target, publish.container.number),
                network: network.clone(),
            })
        };
        let publish = &self.bound(handle, publish, endpoint)?;
        let (first, last) = publish.host_ports.unwrap_or((0, 0));
        // A port that the kernel chose for the first address may be taken on the second: then it chooses again.
        let tries = if first == 0 { 0..=8 } else { first..=last };
        let mut refusal = None;
        for number in tries {
            let number = if first == 0 { 0 } else { number };
            if let Err(error) = not_twice(handle, publish, number, mutable) {
                refusal = Some(error);
                continue;
            }
            match self.forward_all(handle, publish, number, &forward).await {
                Ok(hosts) => {
                    mutable
                        .ports
                        .extend(hosts.into_iter().map(|host| PublishedPort { container: publish.container, host }));
                    return Ok(());
                }
                Err(error) => refusal = Some(error),
            }
        }
        Err(refusal.unwrap_or_else(|| EngineError::invalid("an empty range of host ports")))
    }

    /// # Errors
    /// `Invalid` for one that an older version took and that is no address: nothing is published then.
    fn host_binding(&self, endpoint: &Endpoint) -> Result<Option<IpAddr>, EngineError> {
        let list = self.network_list().list();
        let asked = list.get(&endpoint.network).and_then(|entry| entry.network.options.get(HOST_BINDING));
        asked.map_or(Ok(None), |text| bound_to(&endpoint.network_name, text))
    }

    /// Publishes one port on the address asked for, or on every one of the host. An IPv6 that this machine lacks, or that
    /// nothing can lead from, is no error when every address was meant.
    async fn forward_all(
        &self,
        handle: &Handle,
        publish: &Publish,
        number: u16,
        forward: &impl Fn(SocketAddr) -> Option<Forward>,
    ) -> Result<Vec<SocketAddr>, EngineError> {
        let invalid = || EngineError::invalid(format!("{} has no address to forward to", handle.view().name));
        let host = publish.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let first = self.net().publish(&forward(SocketAddr::new(host, number)).ok_or_else(invalid)?).await?;
        let mut hosts = vec![first];
        let second = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), first.port());
        if let (None, Some(forward)) = (publish.host_ip, forward(second)) {
            match self.net().publish(&forward).await {
                Ok(host) => hosts.push(host),
                Err(error) if error.kind() == bireme_core::ErrorKind::Conflict => {
                    self.net().unpublish_one(handle.id(), first).await?;
                    return Err(error.into());
                }
                Err(error) => tracing::debug!(workload.id = handle.id(), %error, "a port is not published over IPv6"),
            }
        }
        Ok(hosts)
    }

    /// The forwards of a workload that runs on, for the network to take up again.
    pub(crate) fn forwards_of(&self, handle: &Handle, mutable: &MutableState) -> Vec<Forward> {
        if handle.executor.takes_listeners() {
            return Vec::new();
        }
        let Some(endpoint) = ingress_endpoint(self, &mutable.endpoints) else { return Vec::new() };
        let Ok(network) = NetworkId::parse(&endpoint.network) else { return Vec::new() };
        let forward = |port: &PublishedPort| {
            Some(Forward {
                owner: handle.id().to_owned(),
                protocol: port.container.protocol,
                host: port.host,
                target: SocketAddr::new(target(endpoint, port.host.ip())?, port.container.number),
                network: network.clone(),
            })
        };
        mutable.ports.iter().filter_map(forward).collect()
    }

    /// The host as seen from the workloads of these networks.
    pub(crate) fn host_gateway(&self, endpoints: &[Endpoint]) -> Option<IpAddr> {
        let list = self.network_list().list();
        let id = endpoints.first().map(|endpoint| endpoint.network.clone())?;
        list.get(&id)?.bridge.as_ref()?.spec.subnets.iter().map(|subnet| subnet.gateway).find(IpAddr::is_ipv4)
    }
}

/// A subnet of IPv6 that is a network's own, by its ID. Source: RFC 4193 for the prefix and its 40 random bits.
fn unique_local(id: &str) -> String {
    let digits = |range| id.get(range).unwrap_or("0");
    format!("fd{}:{}:{}::/64", digits(0..2), digits(2..6), digits(6..10))
}

/// Whether the engine makes a network of this name by itself.
pub(crate) fn is_predefined(name: &str) -> bool {
    matches!(name, "bridge" | "host" | "none")
}

/// Whether a workload with these endpoints finds others by their names.
pub(crate) fn finds_names(endpoints: &[Endpoint]) -> bool {
    endpoints.iter().any(|endpoint| endpoint.network_name != DEFAULT)
}

/// That a workload has not published the port before, to itself: nobody could tell the two apart.
///
/// # Errors
/// `PortAllocated`, in Docker's words.
fn not_twice(handle: &Handle, publish: &Publish, number: u16, mutable: &MutableState) -> Result<(), EngineError> {
    let wanted = publish.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let same_address = |other: IpAddr| {
        other.is_ipv4() == wanted.is_ipv4() && (other == wanted || other.is_unspecified() || wanted.is_unspecified())
    };
    let same = |port: &PublishedPort| {
        port.container.protocol == publish.container.protocol
            && port.host.port() == number
            && same_address(port.host.ip())
    };
    if number == 0 || !mutable.ports.iter().any(same) {
        return Ok(());
    }
    let owner = handle.view().name.clone();
    Err(bireme_net::NetError::PortAllocated { owner, host: SocketAddr::new(wanted, number) }.into())
}

/// What is to be asked for so that `held` ports are published again, at the numbers that they have and at the addresses that
/// were `asked` for: where none was, at those of the network by which they are published now.
fn again(asked: &[Publish], held: &[PublishedPort]) -> Vec<Publish> {
    let mut all: Vec<Publish> = Vec::new();
    for port in held {
        let number = port.host.port();
        let by_name = asked.iter().any(|one| {
            one.container == port.container
                && one.host_ip == Some(port.host.ip())
                && one.host_ports.is_none_or(|(first, last)| first == 0 || (first..=last).contains(&number))
        });
        let host_ip = by_name.then_some(port.host.ip());
        let publish = Publish { container: port.container, host_ip, host_ports: Some((number, number)) };
        if !all.contains(&publish) {
            all.push(publish);
        }
    }
    all
}

/// The endpoint that published ports lead to.
fn ingress_endpoint<'a>(engine: &Engine, endpoints: &'a [Endpoint]) -> Option<&'a Endpoint> {
    endpoints.iter().find(|e| e.ipv4.is_some() && engine.network(&e.network).is_ok_and(|n| !n.internal))
}

/// The address that a port of `host` leads to: of the same family where there is one.
fn target(endpoint: &Endpoint, host: IpAddr) -> Option<IpAddr> {
    let of_family = if host.is_ipv6() { endpoint.ipv6 } else { None };
    of_family.or(endpoint.ipv4).map(|(address, _)| address)
}

fn endpoint(network: &Network, request: EndpointRequest) -> Endpoint {
    Endpoint {
        network: network.id.clone(),
        network_name: network.name.clone(),
        endpoint_id: String::new(),
        request,
        ipv4: None,
        gateway: None,
        ipv6: None,
        ipv6_gateway: None,
        mac: None,
        names: Vec::new(),
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

fn parse_mac(text: &str) -> Result<[u8; 6], EngineError> {
    let mut mac = [0u8; 6];
    let mut parts = text.split([':', '-']);
    let mut ok = true;
    for byte in &mut mac {
        ok &= parts.next().and_then(|part| u8::from_str_radix(part, 16).ok()).map(|value| *byte = value).is_some();
    }
    if ok && parts.next().is_none() && mac[0] & 1 == 0 {
        return Ok(mac);
    }
    Err(EngineError::invalid(format!("invalid MAC address {text:?}: write six bytes such as 02:42:ac:11:00:02")))
}

/// `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname`.
fn etc_files(
    handle: &Handle,
    endpoints: &[Endpoint],
    place: Option<&NetworkPlace>,
    linked: &[Linked],
) -> Vec<(PathBuf, String)> {
    let spec = &handle.config.spec;
    let of_host = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mut hosts = match spec.namespaces.network {
        NetworkMode::Host => of_host("/etc/hosts"),
        _ => "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n".to_owned(),
    };
    for (name, address) in &spec.extra_hosts {
        hosts.push_str(&format!("{address}\t{name}\n"));
    }
    for one in linked {
        hosts.push_str(&format!("{}\t{}\n", one.address, one.names()));
    }
    let full =
        if spec.domainname.is_empty() { String::new() } else { format!("{}.{} ", spec.hostname, spec.domainname) };
    for endpoint in endpoints {
        for (address, _) in [endpoint.ipv4, endpoint.ipv6].into_iter().flatten() {
            hosts.push_str(&format!("{address}\t{full}{}\n", spec.hostname));
        }
    }
    let named = finds_names(endpoints);
    let ours: Vec<IpAddr> = place.map(|place| place.dns.clone()).unwrap_or_default();
    // Where there are no names of ours to be found, servers that were asked for are asked without a detour.
    let servers = match (named, spec.dns.servers.is_empty()) {
        (true, _) => vec![IpAddr::V4(bireme_net::DNS_INSIDE)],
        (false, true) => ours,
        (false, false) => spec.dns.servers.clone(),
    };
    vec![
        (PathBuf::from("/etc/hosts"), hosts),
        (PathBuf::from("/etc/resolv.conf"), resolv_conf(&of_host("/etc/resolv.conf"), &servers, &spec.dns, named)),
        (PathBuf::from("/etc/hostname"), format!("{}\n", spec.hostname)),
    ]
}

/// The `/etc/resolv.conf` of a workload: what was not asked for is the host's. With names of ours, one without a dot is
/// looked for as it stands first, as with Docker. Pure.
fn resolv_conf(of_host: &str, servers: &[IpAddr], asked: &Dns, named: bool) -> String {
    let lines = |key: &str| -> Vec<String> {
        let words = of_host.lines().filter_map(|line| line.trim().strip_prefix(key)?.strip_prefix([' ', '\t']));
        words.flat_map(str::split_whitespace).map(str::to_owned).collect()
    };
    let or = |asked: Vec<String>, key: &str| if asked.is_empty() { lines(key) } else { asked };
    let servers = or(servers.iter().map(ToString::to_string).collect(), "nameserver");
    let mut search = or(asked.search.clone(), "search");
    // A single dot asks for none.
    search.retain(|domain| domain != ".");
    let mut options = or(asked.options.clone(), "options");
    if named && !options.iter().any(|option| option.starts_with("ndots:")) {
        options.push("ndots:0".to_owned());
    }
    let mut text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    for (key, words) in [("search", search), ("options", options)] {
        if !words.is_empty() {
            text.push_str(&format!("{key} {}\n", words.join(" ")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use bireme_core::spec::Port;

    use super::*;

    #[test]
    fn ports_are_published_again_at_their_numbers_and_where_they_were_asked_for() {
        let port = |number| Port { number, protocol: Protocol::Tcp };
        let ask = |number, host_ip: Option<&str>, host_ports| Publish {
            container: port(number),
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
            host_ports,
        };
        let held = |number, host: &str| PublishedPort { container: port(number), host: host.parse().unwrap() };
        let asked = [ask(80, None, Some((8080, 8089))), ask(81, Some("127.0.0.1"), None), ask(82, None, None)];
        // The first network had its own address for what was asked for without one.
        let had =
            [held(80, "192.0.2.1:8081"), held(81, "127.0.0.1:4000"), held(82, "0.0.0.0:4001"), held(82, "[::]:4001")];
        let expected = [
            ask(80, None, Some((8081, 8081))),
            ask(81, Some("127.0.0.1"), Some((4000, 4000))),
            ask(82, None, Some((4001, 4001))),
        ];
        assert_eq!(again(&asked, &had), expected);
        assert!(again(&asked, &[]).is_empty());
    }

    #[test]
    fn options_that_cannot_be_read_are_refused_and_open_nothing() {
        let with = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        for (key, good, bad) in [
            (ICC, &["false", "0", "True"][..], &["no", "", "off"][..]),
            (MASQUERADE, &["true", "F"], &["yes"]),
            (HOST_BINDING, &["127.0.0.1", "0.0.0.0"], &["127.0.0.l", "", "localhost", "127.0.0.1:80"]),
        ] {
            for value in good {
                check_options("front", &with(key, value)).unwrap();
            }
            for value in bad {
                let refusal = check_options("front", &with(key, value)).unwrap_err().to_string();
                assert!(refusal.contains(key) && refusal.contains("front"), "{refusal}");
            }
        }
        assert_eq!(bound_to("front", "127.0.0.1").unwrap(), Some(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(bound_to("front", "0.0.0.0").unwrap(), None);
        assert!(bound_to("front", "127.0.0.l").is_err(), "also of a network of an older version");
    }

    #[test]
    fn resolv_conf_is_the_hosts_but_for_what_was_asked() {
        let host = "# by hand\nnameserver 10.0.0.1\nsearch corp lan\noptions timeout:1\n";
        let check = |servers: &[&str], search: &[&str], options: &[&str], named, expected: &str| {
            let own = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
            let servers: Vec<IpAddr> = servers.iter().map(|text| text.parse().unwrap()).collect();
            let asked = Dns { servers: Vec::new(), search: own(search), options: own(options) };
            assert_eq!(resolv_conf(host, &servers, &asked, named), expected);
        };
        check(&[], &[], &[], false, "nameserver 10.0.0.1\nsearch corp lan\noptions timeout:1\n");
        check(&["1.2.3.4"], &["."], &["ndots:3"], true, "nameserver 1.2.3.4\noptions ndots:3\n");
        check(&["1.2.3.4"], &["a.b"], &[], true, "nameserver 1.2.3.4\nsearch a.b\noptions timeout:1 ndots:0\n");
    }
}
