//! Networks as clients know them, and the place of each workload on them.
//!
//! ```text
//! spec       what is asked of a network, and what stands behind it (pure)
//! registry   made, found, removed
//! endpoint   a workload is put on its networks as it starts, and taken off as it ends: sandbox, addresses
//! replaced   whose addresses one keeps that takes the place of another
//! connect    it is put on one more, or taken off one, in between
//! address    the addresses of endpoints (pure)
//! names      who is found under which name, and who is told
//! ports      published ports: sockets that are handed over, or forwards
//! etc_files  /etc/hosts, /etc/resolv.conf, /etc/hostname
//! ```
//!
//! What a workload is given when it starts is taken back when it ends: a sandbox (a network namespace, shared by the
//! components of an app), an address on each network, published ports.

mod address;
mod connect;
mod endpoint;
mod etc_files;
mod names;
mod ports;
mod registry;
mod replaced;
mod spec;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bireme_core::SandboxId;
use bireme_net::addresses::AddressPool;
use bireme_net::{NetworkId, NetworkSpec};
use parking_lot::{Mutex, MutexGuard};

use self::address::{addresses_of, all_addresses_of, parse_mac};
pub(crate) use self::endpoint::NetworkAttachment;
use self::endpoint::{administers_network, wants_default_route};
use self::names::{Naming, reverse_name};
pub(crate) use self::names::{finds_names, named_networks};
use self::ports::SharedPort;
pub(crate) use self::replaced::keep_addresses;
use self::spec::bridge;
pub(crate) use self::spec::{as_far_as_it_goes, is_predefined};
use crate::EngineError;
use crate::container::{Handle, MutableState};
use crate::name_table::NameTable;
use crate::services::Services;
use crate::state_store::Unread;
use crate::unreadable::Unreadable;
use crate::view::{Endpoint, Network};

/// The networks that exist, and who stands where.
pub(crate) struct Networks {
    services: Arc<Services>,
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

/// Where a workload is that runs on.
struct Place<'a> {
    owner: &'a str,
    name: &'a str,
    sandbox: &'a SandboxId,
    routes: bool,
    listens: bool,
}

#[derive(Default)]
struct Sandbox {
    members: HashSet<String>,
    /// Over which network its way out goes.
    default_route: Option<NetworkId>,
}

impl Networks {
    pub(crate) fn new(services: Arc<Services>) -> Self {
        Self {
            services,
            list: Mutex::default(),
            unreadable: Mutex::default(),
            sandboxes: Mutex::default(),
            ports: Mutex::default(),
            tables: Mutex::default(),
            making: tokio::sync::Mutex::default(),
            naming: Naming::default(),
        }
    }

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

    /// Takes up one whose record cannot be read, as far as that can be, or as far as who is on it tells; `None` where that makes
    /// no network.
    pub(crate) fn adopt_damaged(&self, record: &Unread, endpoints: &[Endpoint]) -> Option<Option<NetworkSpec>> {
        for network in as_far_as_it_goes(record, endpoints) {
            if let Ok(spec) = self.adopt(network) {
                return Some(spec);
            }
            self.list().remove(&record.key);
        }
        None
    }

    /// Notes one whose record cannot be read: its name stays taken, and no prune takes it.
    pub(crate) fn note_unreadable(&self, one: &Unread) {
        self.unreadable.lock().insert(one.key.clone(), one.name.clone());
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
        let place = Place {
            owner: handle.id(),
            name: &handle.view().name,
            sandbox: &handle.executor.sandbox(&handle.config.spec),
            routes: administers_network(&handle.config.spec),
            listens: handle.executor.takes_listeners(),
        };
        self.take_up(&place, mutable).await
    }

    /// The same of one of which nothing is known but its state, in a `sandbox` that is its own as far as can be known; with
    /// its forwards. One that `listens` was handed its sockets.
    pub(crate) async fn adopt_unreadable(
        &self,
        one: &Unreadable,
        sandbox: &SandboxId,
        state: &MutableState,
        listens: bool,
    ) -> (Vec<bireme_net::Endpoint>, Vec<bireme_net::Forward>) {
        let place = Place { owner: &one.id, name: &one.name, sandbox, routes: false, listens };
        let endpoints = self.take_up(&place, state).await;
        let forwards = if listens { Vec::new() } else { self.forwards(&one.id, state) };
        (endpoints, forwards)
    }

    async fn take_up(&self, place: &Place<'_>, mutable: &MutableState) -> Vec<bireme_net::Endpoint> {
        let sandbox = self.sandbox(place.sandbox);
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
            let default_route = wants_default_route(&mut sandbox, bridge);
            kept.push(bireme_net::Endpoint {
                sandbox: place.sandbox.clone(),
                network: bridge.spec.id.clone(),
                addresses,
                mac: endpoint.mac.as_deref().and_then(|mac| parse_mac(mac).ok()),
                default_route,
                routes: place.routes,
                name: reverse_name(place.name, endpoint),
                owner: place.owner.to_owned(),
            });
        }
        sandbox.members.insert(place.owner.to_owned());
        if place.listens {
            for port in &mutable.ports {
                let shared =
                    SharedPort { sandbox: place.sandbox.clone(), socket: None, users: HashSet::new(), told: true };
                self.ports().entry(port.host).or_insert(shared).users.insert(place.owner.to_owned());
            }
        }
        kept
    }

    /// The number of each port of the host whose socket a component was handed.
    pub(crate) fn handed(&self) -> Vec<u16> {
        self.ports().keys().map(SocketAddr::port).collect()
    }
}
