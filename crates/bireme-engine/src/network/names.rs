//! Who is found under which name on which network, and who is told.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bireme_core::spec::WorkloadSpec;
use bireme_core::{NamedNetwork, Names, NamesChange};
use bireme_net::NetworkId;
use ipnet::IpNet;
use parking_lot::Mutex;

use super::Networks;
use super::address::addresses_of;
use crate::name_table::Entry as NameEntry;
use crate::view::{DEFAULT_NETWORK as DEFAULT, Endpoint};

/// Whose turn it is to change the names of each network: who is slow to hear of one holds up no other.
#[derive(Default)]
pub(super) struct Naming(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Naming {
    pub(super) fn of(&self, network: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut all = self.0.lock();
        if !all.contains_key(network) {
            all.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        Arc::clone(all.entry(network.to_owned()).or_default())
    }
}

/// The networks on which a workload with these endpoints finds others by their names.
pub(crate) fn named_networks(endpoints: &[Endpoint]) -> Vec<NamedNetwork> {
    let named = endpoints.iter().filter(|endpoint| endpoint.network_name != DEFAULT);
    named.map(|endpoint| NamedNetwork { id: endpoint.network.clone(), links: links_of(endpoint) }).collect()
}

pub(super) fn links_of(endpoint: &Endpoint) -> BTreeMap<String, String> {
    let links = endpoint.request.links.iter();
    let link = |(alias, name): (&String, &String)| {
        // A whole id is known by its beginning.
        let name = if name.len() == 64 { &name[..12] } else { name.as_str() };
        (alias.to_ascii_lowercase(), name.to_ascii_lowercase())
    };
    links.map(|(alias, name)| link((alias, name))).collect()
}

/// What the workload of an endpoint is called there. Docker knows each name with that of its network behind it too.
pub(super) fn entry_of(endpoint: &Endpoint) -> NameEntry {
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

/// What a reverse lookup of its addresses answers, as with Docker. On the default network there are no names.
pub(super) fn reverse_name(name: &str, endpoint: &Endpoint) -> Option<String> {
    (endpoint.network_name != DEFAULT).then(|| format!("{name}.{}", endpoint.network_name))
}

/// The names that a workload has on a network.
pub(super) fn names_on_network(spec: &WorkloadSpec, name: &str, endpoint: &Endpoint) -> Vec<String> {
    if endpoint.network_name == DEFAULT {
        return Vec::new();
    }
    let own = [name.to_owned(), spec.id.short().to_owned(), spec.hostname.clone()];
    let all = own.into_iter().chain(endpoint.request.aliases.iter().cloned());
    let unique: BTreeSet<String> = all.filter(|name| !name.is_empty()).collect();
    unique.into_iter().collect()
}

/// Whether a workload with these endpoints finds others by their names.
pub(crate) fn finds_names(endpoints: &[Endpoint]) -> bool {
    endpoints.iter().any(|endpoint| endpoint.network_name != DEFAULT)
}

impl Networks {
    /// Tells the DNS, and executors whose workloads resolve names themselves, what became of the names of `workload` on
    /// these networks: the change alone, once a network.
    pub(crate) async fn names_changed(&self, workload: &str, endpoints: &[Endpoint]) {
        for endpoint in endpoints.iter().filter(|endpoint| endpoint.network_name != DEFAULT) {
            let Ok(id) = NetworkId::parse(&endpoint.network) else { continue };
            // An older change never follows a newer one.
            let turn = self.naming.of(&endpoint.network);
            let _one_at_a_time = turn.lock().await;
            let (changed, linked) = {
                let mut tables = self.tables();
                let table = tables.entry(endpoint.network.clone()).or_default();
                (table.set(workload, entry_of(endpoint)), table.linked())
            };
            if changed.is_empty() {
                continue;
            }
            self.services.net().change_network_names(&id, &changed, linked);
            for resolver in self.services.resolvers() {
                resolver.names_changed(&endpoint.network, NamesChange::Some(changed.clone())).await;
            }
        }
    }

    /// Takes up the names of what an earlier daemon left running.
    pub(crate) fn adopt_names(&self, workload: &str, endpoints: &[Endpoint]) {
        let mut tables = self.tables();
        for endpoint in endpoints.iter().filter(|endpoint| endpoint.network_name != DEFAULT) {
            tables.entry(endpoint.network.clone()).or_default().set(workload, entry_of(endpoint));
        }
    }

    /// Tells everyone concerned all names that were taken up.
    pub(crate) async fn tell_all_names(&self) {
        let networks: Vec<String> = self.tables().keys().cloned().collect();
        for network in networks {
            let turn = self.naming.of(&network);
            let _one_at_a_time = turn.lock().await;
            let all = self.tables().get(&network).map(|table| (table.all(), table.linked()));
            let Some((names, linked)) = all else { continue };
            if let Ok(id) = NetworkId::parse(&network) {
                self.services.net().set_network_names(&id, names.clone(), linked);
            }
            for resolver in self.services.resolvers() {
                resolver.names_changed(&network, NamesChange::All(names.clone())).await;
            }
        }
    }

    /// Forgets the names of a network that is removed.
    pub(super) async fn forget_names(&self, network: &str) {
        let turn = self.naming.of(network);
        let _one_at_a_time = turn.lock().await;
        if self.tables().remove(network).is_some() {
            for resolver in self.services.resolvers() {
                resolver.names_changed(network, NamesChange::All(Names::new())).await;
            }
        }
    }
}
