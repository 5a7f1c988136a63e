//! Who is on which network, what is called how there, and so what is answered to whom.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

use bireme_core::{Names, SandboxId};
use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::PTR;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use parking_lot::RwLock;

use super::message::{TTL, is_small, record, reply, reverse};
use crate::NetworkId;

/// Who is on which network, and what is called how there.
#[derive(Default)]
pub(crate) struct Directory {
    inner: RwLock<Known>,
    turn: AtomicUsize,
}

#[derive(Default)]
struct Known {
    clients: HashMap<IpAddr, SandboxId>,
    /// On which network a client has an address, and what a reverse lookup answers.
    homes: HashMap<IpAddr, NetworkId>,
    reverse: HashMap<IpAddr, String>,
    /// In the order of being attached.
    places: HashMap<SandboxId, Vec<NetworkId>>,
    names: HashMap<NetworkId, Names>,
    /// Names that one client alone uses.
    linked: HashMap<NetworkId, HashMap<IpAddr, Names>>,
    gateways: HashMap<NetworkId, IpAddr>,
    internal: HashSet<NetworkId>,
    /// Of sandboxes that have servers of their own.
    upstream: HashMap<SandboxId, Vec<SocketAddr>>,
}

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    pub(super) sandbox: SandboxId,
    /// From its address on which network; `None` where it asks inside its namespace.
    pub(super) over: Option<NetworkId>,
}

/// What shall be done with a question.
pub(super) enum Decision {
    Answer(Vec<u8>),
    /// To these servers, to the machine's where there are none; counted among the questions of a network.
    Forward(Vec<SocketAddr>, Option<NetworkId>),
    Ignore,
}

impl Known {
    fn set_linked(&mut self, network: &NetworkId, linked: HashMap<IpAddr, Names>) {
        if linked.is_empty() {
            self.linked.remove(network);
        } else {
            self.linked.insert(network.clone(), linked);
        }
    }
}

impl Directory {
    pub(crate) fn set_network(&self, network: &NetworkId, internal: bool, gateway: IpAddr) {
        let mut known = self.inner.write();
        known.gateways.insert(network.clone(), gateway);
        if internal {
            known.internal.insert(network.clone());
        } else {
            known.internal.remove(network);
        }
    }

    pub(crate) fn forget_network(&self, network: &NetworkId) {
        let mut known = self.inner.write();
        known.internal.remove(network);
        known.names.remove(network);
        known.linked.remove(network);
        known.gateways.remove(network);
    }

    pub(crate) fn set_upstream(&self, sandbox: &SandboxId, servers: &[IpAddr]) {
        let mut known = self.inner.write();
        if servers.is_empty() {
            known.upstream.remove(sandbox);
        } else {
            let servers = servers.iter().map(|server| SocketAddr::new(*server, 53)).collect();
            known.upstream.insert(sandbox.clone(), servers);
        }
    }

    pub(crate) fn servers(&self, sandbox: &SandboxId) -> Vec<IpAddr> {
        let known = self.inner.read();
        let places = known.places.get(sandbox).into_iter().flatten();
        places.filter_map(|place| known.gateways.get(place)).copied().collect()
    }

    pub(crate) fn set_names(&self, network: &NetworkId, names: Names, linked: HashMap<IpAddr, Names>) {
        let names = names.into_iter().map(|(name, to)| (name.trim_end_matches('.').to_lowercase(), to)).collect();
        let mut known = self.inner.write();
        known.names.insert(network.clone(), names);
        known.set_linked(network, linked);
    }

    pub(crate) fn change_names(&self, network: &NetworkId, changed: &Names, linked: HashMap<IpAddr, Names>) {
        let mut known = self.inner.write();
        let names = known.names.entry(network.clone()).or_default();
        for (name, to) in changed {
            let name = name.trim_end_matches('.').to_lowercase();
            if to.is_empty() {
                names.remove(&name);
            } else {
                names.insert(name, to.clone());
            }
        }
        known.set_linked(network, linked);
    }

    pub(crate) fn add_client(&self, sandbox: &SandboxId, network: &NetworkId, addresses: &[IpAddr]) {
        let mut known = self.inner.write();
        known.clients.extend(addresses.iter().map(|address| (*address, sandbox.clone())));
        known.homes.extend(addresses.iter().map(|address| (*address, network.clone())));
        let places = known.places.entry(sandbox.clone()).or_default();
        if !places.contains(network) {
            places.push(network.clone());
        }
    }

    /// `left`: whether the sandbox is no longer on `network` at all.
    pub(crate) fn remove_client(&self, sandbox: &SandboxId, network: &NetworkId, addresses: &[IpAddr], left: bool) {
        let mut known = self.inner.write();
        for address in addresses {
            // One that is its own on two networks (link-local) stays with whoever got it last.
            if known.clients.get(address) == Some(sandbox) && known.homes.get(address) == Some(network) {
                known.clients.remove(address);
                known.homes.remove(address);
                known.reverse.remove(address);
            }
        }
        if left && let Some(places) = known.places.get_mut(sandbox) {
            places.retain(|place| place != network);
            if places.is_empty() {
                known.places.remove(sandbox);
                known.upstream.remove(sandbox);
            }
        }
    }

    pub(crate) fn set_reverse(&self, addresses: &[IpAddr], name: Option<&str>) {
        let mut known = self.inner.write();
        for address in addresses {
            match name {
                Some(name) => known.reverse.insert(*address, name.to_owned()),
                None => known.reverse.remove(address),
            };
        }
    }

    /// Who asks at a gateway from `address`.
    pub(super) fn client(&self, address: IpAddr) -> Option<Asker> {
        let known = self.inner.read();
        let sandbox = known.clients.get(&address)?.clone();
        Some(Asker { sandbox, over: known.homes.get(&address).cloned() })
    }

    pub(super) fn decide(&self, question: &[u8], asker: &Asker, limit: Option<u16>) -> Decision {
        let sandbox = &asker.sandbox;
        if !is_small(question) {
            return Decision::Ignore;
        }
        let Ok(asked) = Message::from_vec(question) else { return Decision::Ignore };
        if asked.metadata.message_type != MessageType::Query {
            return Decision::Ignore;
        }
        let answer = |code, records| reply(&asked, code, records, limit).map_or(Decision::Ignore, Decision::Answer);
        let known = self.inner.read();
        let (OpCode::Query, [query]) = (asked.metadata.op_code, &asked.queries[..]) else {
            return answer(ResponseCode::NotImp, vec![]);
        };
        let places = known.places.get(sandbox).map(Vec::as_slice).unwrap_or_default();
        // It may ask from its address on another network than the one where it has the link.
        let linked = places.iter().filter_map(|place| known.linked.get(place)).flatten();
        let linked = linked.filter(|(from, _)| known.clients.get(from) == Some(sandbox)).map(|(_, names)| names);
        let names = places.iter().filter_map(|place| known.names.get(place));
        if query.query_class == DNSClass::IN {
            let text = query.name.to_ascii().trim_end_matches('.').to_lowercase();
            let all = linked.chain(names.clone());
            let mut found = all.clone().filter_map(|names| names.get(&text)).flatten().copied().peekable();
            if found.peek().is_some() || all.clone().any(|names| names.contains_key(&text)) {
                let mut addresses: Vec<IpAddr> = vec![];
                for address in found {
                    if !addresses.contains(&address) {
                        addresses.push(address);
                    }
                }
                let mut records: Vec<_> =
                    addresses.iter().filter_map(|to| record(&query.name, query.query_type, *to)).collect();
                if records.len() > 1 {
                    let turn = self.turn.fetch_add(1, Ordering::Relaxed) % records.len();
                    records.rotate_left(turn);
                }
                return answer(ResponseCode::NoError, records);
            }
            if let Some(address) = reverse(&query.name) {
                // The workload's own name comes before other names that lead to it.
                let near = known.homes.get(&address).is_some_and(|home| places.contains(home));
                let own = known.reverse.get(&address).filter(|_| near);
                let mut called = own.into_iter().map(String::as_str).chain(called(names, address));
                if let Some(name) = called.next().and_then(|name| Name::from_ascii(format!("{name}.")).ok()) {
                    let record = Record::from_rdata(query.name.clone(), TTL, RData::PTR(PTR(name)));
                    let wanted = matches!(query.query_type, RecordType::PTR);
                    return answer(ResponseCode::NoError, if wanted { vec![record] } else { vec![] });
                }
            }
        }
        // A name can carry data out: who may reach nothing outside may not ask outside either (CVE-2024-29018).
        let closed = |place: &NetworkId| known.internal.contains(place);
        if asker.over.as_ref().is_some_and(closed) || places.iter().all(closed) {
            return answer(ResponseCode::Refused, vec![]);
        }
        let open = places.iter().find(|place| !closed(place)).cloned();
        Decision::Forward(known.upstream.get(sandbox).cloned().unwrap_or_default(), open)
    }
}

/// The names that lead to `address`.
fn called<'a>(tables: impl Iterator<Item = &'a Names>, address: IpAddr) -> impl Iterator<Item = &'a str> {
    tables.flatten().filter(move |(_, to)| to.contains(&address)).map(|(name, _)| name.as_str())
}
