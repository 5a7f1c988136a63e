//! Networks are made, found, pruned and removed; those that always exist are made at start.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bireme_core::clock::now_nanos;
use bireme_net::addresses::{SubnetPools, overlap};
use bireme_net::{NetworkId, NetworkSpec};
use ipnet::IpNet;

use super::spec::{GATEWAY_MODES, bridge, check_options, is_predefined, unique_local};
use super::{Entry, Networks};
use crate::container::Handle;
use crate::event::Event;
use crate::refusal::NetworkRefusal;
use crate::request::{CreateNetwork, PoolRequest};
use crate::view::{DEFAULT_NETWORK as DEFAULT, Network, NetworkMember};
use crate::{EngineError, error, names};

/// How often a subnet is chosen anew because another engine chose the same.
const MOST_CHOICES: usize = 8;

impl Networks {
    /// Makes the networks that always exist, with the IDs that they had by their names.
    pub(crate) async fn make_default(&self, ids: &BTreeMap<String, String>) -> Result<(), EngineError> {
        let missing = |name: &str| self.get(name).is_err();
        if missing(DEFAULT) {
            let request = CreateNetwork { name: DEFAULT.to_owned(), ..CreateNetwork::default() };
            self.make_network(request, ids.get(DEFAULT)).await?;
        }
        for (name, driver) in [("host", "host"), ("none", "null")] {
            if missing(name) {
                let network = Network {
                    id: ids.get(name).cloned().unwrap_or_else(names::random_hex),
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
                self.services.store.put_network(&network).await?;
                self.adopt(network)?;
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
    pub(crate) async fn create(self: &Arc<Self>, request: CreateNetwork) -> Result<Network, EngineError> {
        if matches!(request.name.as_str(), "bridge" | "host" | "none" | "default") {
            return Err(NetworkRefusal::NamePredefined { network: request.name }.into());
        }
        if !matches!(request.driver.as_str(), "" | "bridge" | "default") {
            return Err(NetworkRefusal::NoDriver { driver: request.driver }.into());
        }
        for key in GATEWAY_MODES {
            match request.options.get(key).map_or("", String::as_str) {
                "" | "nat" => {}
                mode @ ("routed" | "nat-unprotected" | "isolated") => {
                    return Err(NetworkRefusal::GatewayMode { mode: mode.to_owned(), key }.into());
                }
                mode => return Err(NetworkRefusal::UnknownGatewayMode { mode: mode.to_owned() }.into()),
            }
        }
        check_options(&request.name, &request.options)?;
        let networks = Arc::clone(self);
        self.services
            .tasks
            .completed(async move {
                let _one_at_a_time = networks.making.lock().await;
                let network = networks.make_network(request, None).await?;
                networks.emit_network("create", &network, None);
                Ok(network)
            })
            .await
    }

    pub(super) async fn make_network(
        &self,
        request: CreateNetwork,
        id: Option<&String>,
    ) -> Result<Network, EngineError> {
        for _ in 1..MOST_CHOICES {
            if let Some(network) = self.try_network(request.clone(), id, false).await? {
                return Ok(network);
            }
            // Whoever chose the same looks for another one now, too.
            tokio::time::sleep(Duration::from_millis(rand::random_range(0..100))).await;
        }
        let made = self.try_network(request, id, true).await?;
        made.ok_or_else(|| NetworkRefusal::NoSubnet.into())
    }

    /// As [`Self::make_network`]. `None` when its subnet was chosen here and someone else took it meanwhile, which `last`
    /// lets pass.
    pub(super) async fn try_network(
        &self,
        mut request: CreateNetwork,
        id: Option<&String>,
        last: bool,
    ) -> Result<Option<Network>, EngineError> {
        // As in Docker, all else may be a name.
        if request.name.trim().is_empty() {
            return Err(NetworkRefusal::NameEmpty.into());
        }
        let routes = self.services.net().host_routes()?;
        let (network, chosen) = {
            let mut list = self.list();
            let unreadable = self.unreadable.lock().values().any(|name| *name == request.name);
            if unreadable || list.values().any(|entry| entry.network.name == request.name) {
                return Err(NetworkRefusal::NameTaken { network: request.name }.into());
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
                let subnet = SubnetPools::default().next(&taken).map_err(NetworkRefusal::Subnets)?;
                chosen = Some(IpNet::from(subnet));
                let keep = request.pools.iter().filter(|p| p.subnet.is_some()).cloned();
                request.pools =
                    std::iter::once(PoolRequest { subnet: Some(subnet.to_string()), ..PoolRequest::default() })
                        .chain(keep)
                        .collect();
            }
            let id = id.cloned().unwrap_or_else(names::random_hex);
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
                return Err(NetworkRefusal::Overlap { subnet: clash.net }.into());
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
                self.services.net().ensure_network(&spec).await?;
                if let Some(subnet) = chosen
                    && !last
                    && self.services.net().shares_subnet(&spec.id, subnet).await?
                {
                    return Ok(None);
                }
            }
            self.services.store.put_network(&network).await?;
            Ok(Some(network.clone()))
        };
        let made = made.await;
        if !matches!(made, Ok(Some(_))) {
            self.list().remove(&network.id);
            if let Ok(id) = NetworkId::parse(&network.id) {
                let _ = self.services.net().remove_network(&id).await;
            }
        }
        made
    }

    pub(super) fn network_spec(&self, id: &str) -> Option<NetworkSpec> {
        self.list().get(id)?.bridge.as_ref().map(|bridge| bridge.spec.clone())
    }

    pub(crate) fn all(&self) -> Vec<Network> {
        self.list().values().map(|entry| entry.network.clone()).collect()
    }

    /// By name, ID, or the beginning of an ID.
    ///
    /// # Errors
    /// `NotFound` in Docker's words; `Invalid` when several match.
    pub(crate) fn get(&self, name: &str) -> Result<Network, EngineError> {
        let list = self.list();
        if let Some(entry) = list.get(name).or_else(|| list.values().find(|entry| entry.network.name == name)) {
            return Ok(entry.network.clone());
        }
        let mut found = list.values().filter(|entry| !name.is_empty() && entry.network.id.starts_with(name));
        match (found.next(), found.next()) {
            (Some(entry), None) => Ok(entry.network.clone()),
            (Some(_), Some(_)) => Err(EngineError::Ambiguous { what: "network", name: name.to_owned() }),
            (None, _) => Err(NetworkRefusal::NotFound { network: name.to_owned() }.into()),
        }
    }

    /// The workloads that stand on a network now.
    pub(crate) fn members(&self, id: &str) -> Vec<NetworkMember> {
        let member = |view: Arc<crate::view::WorkloadView>| {
            let endpoint = view.endpoints.iter().find(|e| e.network == id && e.ipv4.is_some())?.clone();
            Some(NetworkMember { workload_id: view.id().to_owned(), name: view.name.clone(), endpoint })
        };
        self.services.registry.handles().iter().filter_map(|handle| member(handle.view())).collect()
    }

    /// # Errors
    /// `Denied` for the predefined ones and for networks with workloads on them.
    /// # Cancel safety
    /// Once begun it is completed, also when the future is dropped.
    pub(crate) async fn remove(self: &Arc<Self>, name: &str) -> Result<(), EngineError> {
        let (networks, name) = (Arc::clone(self), name.to_owned());
        self.services
            .tasks
            .completed(async move {
                let _one_at_a_time = networks.making.lock().await;
                networks.remove_made(&name).await
            })
            .await
    }

    pub(super) async fn remove_made(&self, name: &str) -> Result<(), EngineError> {
        let unreadable = self.unreadable.lock().iter().find_map(|(id, called)| {
            let meant = id == name || called == name;
            meant.then(|| (id.clone(), called.clone()))
        });
        if let Some((id, called)) = unreadable {
            return self.remove_unreadable(&id, &called).await;
        }
        let network = self.get(name)?;
        if is_predefined(&network.name) {
            return Err(NetworkRefusal::Predefined { network: network.name }.into());
        }
        if !self.members(&network.id).is_empty()
            || !self.services.registry.unreadable().mentioning(&network.id).is_empty()
        {
            return Err(NetworkRefusal::InUse { network: network.name, id: network.id }.into());
        }
        if let Ok(id) = NetworkId::parse(&network.id) {
            self.services.net().remove_network(&id).await?;
        }
        self.services.store.delete_network(&network.id).await?;
        self.list().remove(&network.id);
        self.forget_names(&network.id).await;
        self.emit_network("destroy", &network, None);
        Ok(())
    }

    /// Forgets a network whose record cannot be read.
    pub(super) async fn remove_unreadable(&self, id: &str, name: &str) -> Result<(), EngineError> {
        let on_it = |handle: &Arc<Handle>| handle.view().endpoints.iter().any(|endpoint| endpoint.network == id);
        if self.services.registry.handles().iter().any(on_it)
            || !self.services.registry.unreadable().mentioning(id).is_empty()
        {
            return Err(NetworkRefusal::InUse { network: name.to_owned(), id: id.to_owned() }.into());
        }
        if let Ok(id) = NetworkId::parse(id) {
            self.services.net().remove_network(&id).await?;
        }
        self.services.store.delete_network(id).await?;
        self.unreadable.lock().remove(id);
        if self.list().remove(id).is_some() {
            self.forget_names(id).await;
        }
        Ok(())
    }

    /// Removes those of the `wanted` networks that no workload is on, running or not.
    pub(crate) async fn prune(self: &Arc<Self>, wanted: impl Fn(&Network) -> bool) -> Result<Vec<String>, EngineError> {
        let used: HashSet<String> = self
            .services
            .registry
            .handles()
            .iter()
            .flat_map(|h| h.view().endpoints.iter().map(|e| e.network.clone()).collect::<Vec<_>>())
            .collect();
        let mut removed = Vec::new();
        let mut staying = Vec::new();
        for network in self.all() {
            let kept = is_predefined(&network.name) || self.unreadable.lock().contains_key(&network.id);
            let used =
                used.contains(&network.id) || !self.services.registry.unreadable().mentioning(&network.id).is_empty();
            if !kept && !used && wanted(&network) {
                match self.remove(&network.id).await {
                    Ok(()) => removed.push(network.name),
                    // Gone, or taken meanwhile.
                    Err(EngineError::Network(NetworkRefusal::NotFound { .. } | NetworkRefusal::InUse { .. })) => {}
                    Err(error) => staying.push(error),
                }
            }
        }
        error::all_removed("networks", removed.len(), staying)?;
        Ok(removed)
    }

    /// Makes a network that could not be made when the engine started; nothing for all others.
    ///
    /// # Errors
    /// `Conflict` that names what still stands in its way.
    pub(super) async fn make_left_out(&self, id: &str) -> Result<(), EngineError> {
        let left_out = |entry: &Entry| entry.left_out.is_some();
        if !self.list().get(id).is_some_and(left_out) {
            return Ok(());
        }
        // Not while it is removed.
        let _one_at_a_time = self.making.lock().await;
        let (name, spec, why) = {
            let list = self.list();
            let Some(entry) = list.get(id) else { return Ok(()) };
            let Some(why) = entry.left_out.clone() else { return Ok(()) };
            (entry.network.name.clone(), entry.bridge.as_ref().map(|bridge| bridge.spec.clone()), why)
        };
        let Some(spec) = spec else { return Err(NetworkRefusal::LeftOut { network: name, why }.into()) };
        let made = self.services.net().ensure_network(&spec).await;
        made.map_err(|source| NetworkRefusal::StillLeftOut { network: name.clone(), source: Box::new(source) })?;
        tracing::info!(network = name, "a network that was left out is made");
        if let Some(entry) = self.list().get_mut(id) {
            entry.left_out = None;
        }
        Ok(())
    }

    pub(super) fn emit_network(&self, action: &str, network: &Network, workload: Option<&str>) {
        let mut attributes =
            BTreeMap::from([("name".to_owned(), network.name.clone()), ("type".to_owned(), network.driver.clone())]);
        attributes.extend(workload.map(|id| ("container".to_owned(), id.to_owned())));
        self.services.events.emit(Event {
            kind: "network",
            action: action.to_owned(),
            id: network.id.clone(),
            attributes,
            time: now_nanos(),
        });
    }
}
