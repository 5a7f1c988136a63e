//! The DNS that workloads ask: names of their own networks are answered here, everything else is passed on.
//!
//! Who asks is known by the namespace in which he asks; at a gateway by the source address, which the rules hold to the
//! port of the bridge that it belongs to. Strangers get no answer at all. Each network's gateway, and each sandbox with
//! names to find, has one UDP and one TCP socket. Work is bounded, for each asker and for all: what exceeds it is dropped,
//! and asked again by the resolver.
//!
//! At the gateway of an internal network nobody is led outside, whoever he is: one who is on another network too asks
//! inside his namespace.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, SystemTime};

use bireme_core::{Names, SandboxId};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::NetworkId;

/// Questions over UDP being worked on at once, at one gateway and of one asker.
const AT_ONCE: usize = 512;
const AT_ONCE_EACH: usize = 64;
/// Connections open at once, at one gateway and of one asker.
const CONNECTIONS: usize = 256;
const CONNECTIONS_EACH: usize = 16;
/// Questions that wait for upstream servers at once, of the whole engine: each holds a socket.
const UPSTREAM_AT_ONCE: usize = 1024;
/// An upstream server's answer over UDP, in bytes; a longer one is asked for again over TCP by the resolver.
const UPSTREAM_ANSWER: usize = 8192;
/// For one upstream server; the next one is asked then.
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(2);
/// A TCP connection whose client does not say a whole question in this time, or does not take the answer, is closed.
const IDLE: Duration = Duration::from_secs(5);
/// Seconds. Short, because workloads move; long enough for a burst of requests.
const TTL: u32 = 5;
const RESOLV_CONF: &str = "/etc/resolv.conf";

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
struct Asker {
    sandbox: SandboxId,
    /// From its address on which network; `None` where it asks inside its namespace.
    over: Option<NetworkId>,
}

/// What shall be done with a question.
enum Decision {
    Answer(Vec<u8>),
    /// To these servers; to the machine's where there are none.
    Forward(Vec<SocketAddr>),
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
        let mut known = self.inner.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.gateways.insert(network.clone(), gateway);
        if internal {
            known.internal.insert(network.clone());
        } else {
            known.internal.remove(network);
        }
    }

    pub(crate) fn forget_network(&self, network: &NetworkId) {
        let mut known = self.inner.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.internal.remove(network);
        known.names.remove(network);
        known.linked.remove(network);
        known.gateways.remove(network);
    }

    pub(crate) fn set_upstream(&self, sandbox: &SandboxId, servers: &[IpAddr]) {
        let mut known = self.inner.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if servers.is_empty() {
            known.upstream.remove(sandbox);
        } else {
            let servers = servers.iter().map(|server| SocketAddr::new(*server, 53)).collect();
            known.upstream.insert(sandbox.clone(), servers);
        }
    }

    pub(crate) fn servers(&self, sandbox: &SandboxId) -> Vec<IpAddr> {
        let known = self.inner.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let places = known.places.get(sandbox).into_iter().flatten();
        places.filter_map(|place| known.gateways.get(place)).copied().collect()
    }

    pub(crate) fn set_names(&self, network: &NetworkId, names: Names, linked: HashMap<IpAddr, Names>) {
        let names = names.into_iter().map(|(name, to)| (name.trim_end_matches('.').to_lowercase(), to)).collect();
        let mut known = self.inner.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.names.insert(network.clone(), names);
        known.set_linked(network, linked);
    }

    pub(crate) fn change_names(&self, network: &NetworkId, changed: &Names, linked: HashMap<IpAddr, Names>) {
        let mut known = self.inner.write().unwrap_or_else(std::sync::PoisonError::into_inner);
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
        let mut known = self.inner.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.clients.extend(addresses.iter().map(|address| (*address, sandbox.clone())));
        known.homes.extend(addresses.iter().map(|address| (*address, network.clone())));
        let places = known.places.entry(sandbox.clone()).or_default();
        if !places.contains(network) {
            places.push(network.clone());
        }
    }

    /// `left`: whether the sandbox is no longer on `network` at all.
    pub(crate) fn remove_client(&self, sandbox: &SandboxId, network: &NetworkId, addresses: &[IpAddr], left: bool) {
        let mut known = self.inner.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        for address in addresses {
            known.clients.remove(address);
            known.homes.remove(address);
            known.reverse.remove(address);
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
        let mut known = self.inner.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        for address in addresses {
            match name {
                Some(name) => known.reverse.insert(*address, name.to_owned()),
                None => known.reverse.remove(address),
            };
        }
    }

    /// Who asks at a gateway from `address`.
    fn client(&self, address: IpAddr) -> Option<Asker> {
        let known = self.inner.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let sandbox = known.clients.get(&address)?.clone();
        Some(Asker { sandbox, over: known.homes.get(&address).cloned() })
    }

    fn decide(&self, question: &[u8], asker: &Asker, limit: Option<u16>) -> Decision {
        let sandbox = &asker.sandbox;
        let Ok(asked) = Message::from_vec(question) else { return Decision::Ignore };
        if asked.metadata.message_type != MessageType::Query {
            return Decision::Ignore;
        }
        let known = self.inner.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (OpCode::Query, [query]) = (asked.metadata.op_code, &asked.queries[..]) else {
            return reply(&asked, ResponseCode::NotImp, vec![], limit);
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
                return reply(&asked, ResponseCode::NoError, records, limit);
            }
            if let Some(address) = reverse(&query.name) {
                // The workload's own name comes before other names that lead to it.
                let near = known.homes.get(&address).is_some_and(|home| places.contains(home));
                let own = known.reverse.get(&address).filter(|_| near);
                let mut called = own.into_iter().map(String::as_str).chain(called(names, address));
                if let Some(name) = called.next().and_then(|name| Name::from_ascii(format!("{name}.")).ok()) {
                    let record = Record::from_rdata(query.name.clone(), TTL, RData::PTR(PTR(name)));
                    let wanted = matches!(query.query_type, RecordType::PTR);
                    return reply(&asked, ResponseCode::NoError, if wanted { vec![record] } else { vec![] }, limit);
                }
            }
        }
        // A name can carry data out: who may reach nothing outside may not ask outside either (CVE-2024-29018).
        let closed = |place: &NetworkId| known.internal.contains(place);
        if asker.over.as_ref().is_some_and(closed) || places.iter().all(closed) {
            return reply(&asked, ResponseCode::Refused, vec![], limit);
        }
        Decision::Forward(known.upstream.get(sandbox).cloned().unwrap_or_default())
    }
}

/// The names that lead to `address`.
fn called<'a>(tables: impl Iterator<Item = &'a Names>, address: IpAddr) -> impl Iterator<Item = &'a str> {
    tables.flatten().filter(move |(_, to)| to.contains(&address)).map(|(name, _)| name.as_str())
}

fn record(name: &Name, kind: RecordType, to: IpAddr) -> Option<Record> {
    let data = match (kind, to) {
        (RecordType::A, IpAddr::V4(to)) => RData::A(A(to)),
        (RecordType::AAAA, IpAddr::V6(to)) => RData::AAAA(AAAA(to)),
        _ => return None,
    };
    Some(Record::from_rdata(name.clone(), TTL, data))
}

/// The address that a name under `in-addr.arpa` or `ip6.arpa` stands for.
fn reverse(name: &Name) -> Option<IpAddr> {
    let net = name.parse_arpa_name().ok()?;
    (net.prefix_len() == net.max_prefix_len()).then(|| net.addr())
}

fn reply(asked: &Message, code: ResponseCode, records: Vec<Record>, limit: Option<u16>) -> Decision {
    let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
    answer.metadata.recursion_desired = asked.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.metadata.authoritative = code == ResponseCode::NoError;
    answer.metadata.response_code = code;
    answer.add_queries(asked.queries.iter().cloned()).add_answers(records);
    if asked.edns.is_some() {
        answer.set_edns(Edns::new());
    }
    match answer.to_vec() {
        Ok(bytes) if limit.is_some_and(|limit| bytes.len() > usize::from(limit.max(asked.max_payload()))) => {
            answer.truncate().to_vec().map_or(Decision::Ignore, Decision::Answer)
        }
        Ok(bytes) => Decision::Answer(bytes),
        Err(_) => Decision::Ignore,
    }
}

/// Where questions about the rest of the world go.
pub(crate) struct Upstream {
    fixed: Option<Vec<SocketAddr>>,
    read: Mutex<(Option<SystemTime>, Vec<SocketAddr>)>,
    room: Semaphore,
}

impl Upstream {
    pub(crate) fn new(fixed: Option<Vec<SocketAddr>>) -> Self {
        Self { fixed, read: Mutex::default(), room: Semaphore::new(UPSTREAM_AT_ONCE) }
    }

    fn servers(&self) -> Vec<SocketAddr> {
        if let Some(fixed) = &self.fixed {
            return fixed.clone();
        }
        let changed = std::fs::metadata(RESOLV_CONF).and_then(|file| file.modified()).ok();
        let mut read = self.read.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if read.0 != changed || changed.is_none() {
            *read = (changed, name_servers(&std::fs::read_to_string(RESOLV_CONF).unwrap_or_default()));
        }
        read.1.clone()
    }

    /// The first answer of the servers in their order; of a server that answers nothing the next one is asked.
    async fn ask(&self, own: Vec<SocketAddr>, question: &[u8], over_tcp: bool) -> Option<Vec<u8>> {
        let _place = self.room.try_acquire().ok()?;
        for server in if own.is_empty() { self.servers() } else { own } {
            let asked =
                async { if over_tcp { ask_tcp(server, question).await } else { ask_udp(server, question).await } };
            match tokio::time::timeout(UPSTREAM_TIMEOUT, asked).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => tracing::debug!(%server, %error, "upstream DNS server failed"),
                Err(_) => tracing::debug!(%server, "upstream DNS server did not answer in time"),
            }
        }
        None
    }
}

/// The servers a resolv.conf names, or the local one if it names none. Source: resolv.conf(5).
fn name_servers(text: &str) -> Vec<SocketAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        // A scope (`fe80::1%eth0`) would need an interface index: such servers are left out.
        (words.next() == Some("nameserver")).then(|| words.next()?.parse::<IpAddr>().ok()).flatten()
    });
    let servers: Vec<_> = named.map(|address| SocketAddr::new(address, 53)).collect();
    if servers.is_empty() { vec![(Ipv4Addr::LOCALHOST, 53).into()] } else { servers }
}

/// The servers of this machine's resolv.conf.
pub(crate) fn system_servers() -> Vec<SocketAddr> {
    name_servers(&std::fs::read_to_string(RESOLV_CONF).unwrap_or_default())
}

async fn ask_udp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any = if server.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut answer = vec![0; UPSTREAM_ANSWER];
    loop {
        let count = socket.recv(&mut answer).await?;
        if count >= 12 && answer.get(..2) == question.get(..2) {
            if count == UPSTREAM_ANSWER {
                // The rest is lost: its head says that it is cut short, with no records behind it.
                return cut_short(question);
            }
            answer.truncate(count);
            return Ok(answer);
        }
    }
}

fn cut_short(question: &[u8]) -> io::Result<Vec<u8>> {
    let asked = Message::from_vec(question).map_err(|_| io::ErrorKind::InvalidData)?;
    match reply(&asked, ResponseCode::NoError, vec![], Some(0)) {
        Decision::Answer(answer) => Ok(answer),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

async fn ask_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_message(&mut stream, question).await?;
    read_message(&mut stream).await
}

async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}

/// How much is done at once: in all, and for each asker.
struct Room {
    all: usize,
    each: usize,
    taken: Mutex<HashMap<SandboxId, usize>>,
}

/// A place in a [`Room`], given back when dropped.
struct Place {
    room: Arc<Room>,
    of: SandboxId,
}

impl Room {
    fn new(all: usize, each: usize) -> Arc<Self> {
        Arc::new(Self { all, each, taken: Mutex::default() })
    }

    /// `None` where there is none left.
    fn place(self: &Arc<Self>, of: &SandboxId) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if taken.values().sum::<usize>() >= self.all || taken.get(of).is_some_and(|own| *own >= self.each) {
            return None;
        }
        *taken.entry(of.clone()).or_default() += 1;
        Some(Place { room: Arc::clone(self), of: of.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.room.taken.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.of) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.of);
            }
        }
    }
}

/// What all sockets of the DNS share.
pub(crate) struct Service {
    pub(crate) directory: Directory,
    pub(crate) upstream: Upstream,
}

impl Service {
    /// Serves one gateway, or the workloads of one sandbox, until the answer is dropped.
    pub(crate) fn serve(
        self: &Arc<Self>,
        runtime: &tokio::runtime::Handle,
        udp: std::net::UdpSocket,
        tcp: std::net::TcpListener,
        sandbox: Option<&SandboxId>,
    ) -> io::Result<JoinSet<()>> {
        let _inside = runtime.enter();
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        let (udp, tcp) = (Arc::new(UdpSocket::from_std(udp)?), TcpListener::from_std(tcp)?);
        let inside = sandbox.map(|sandbox| Asker { sandbox: sandbox.clone(), over: None });
        let mut tasks = JoinSet::new();
        tasks.spawn_on(Arc::clone(self).serve_udp(udp, inside.clone()), runtime);
        tasks.spawn_on(Arc::clone(self).serve_tcp(tcp, inside), runtime);
        Ok(tasks)
    }

    async fn serve_udp(self: Arc<Self>, socket: Arc<UdpSocket>, inside: Option<Asker>) {
        let room = Room::new(AT_ONCE, AT_ONCE_EACH);
        let mut tasks = JoinSet::new();
        let mut buffer = vec![0; 4096];
        loop {
            while tasks.try_join_next().is_some() {}
            let Ok((count, client)) = socket.recv_from(&mut buffer).await else {
                // An ICMP error of an earlier answer; nothing is wrong with the socket.
                tokio::task::yield_now().await;
                continue;
            };
            // The cheap checks come before anything is spent on the sender.
            let Some(asker) = inside.clone().or_else(|| self.directory.client(client.ip())) else { continue };
            let Some(place) = room.place(&asker.sandbox) else { continue };
            let (service, socket, question) = (Arc::clone(&self), Arc::clone(&socket), buffer[..count].to_vec());
            tasks.spawn(async move {
                let _place = place;
                if let Some(answer) = service.answer(&question, &asker, false).await {
                    let _ = socket.send_to(&answer, client).await;
                }
            });
        }
    }

    async fn serve_tcp(self: Arc<Self>, listener: TcpListener, inside: Option<Asker>) {
        let room = Room::new(CONNECTIONS, CONNECTIONS_EACH);
        let mut tasks = JoinSet::new();
        loop {
            while tasks.try_join_next().is_some() {}
            let Ok((mut stream, client)) = listener.accept().await else {
                // Out of descriptors: wait for some connection to end rather than spin.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let Some(asker) = inside.clone().or_else(|| self.directory.client(client.ip())) else { continue };
            let Some(place) = room.place(&asker.sandbox) else { continue };
            let service = Arc::clone(&self);
            tasks.spawn(async move {
                let _place = place;
                while let Ok(Ok(question)) = tokio::time::timeout(IDLE, read_message(&mut stream)).await {
                    let Some(answer) = service.answer(&question, &asker, true).await else { break };
                    // One that never reads holds no place for good.
                    let written = tokio::time::timeout(IDLE, write_message(&mut stream, &answer)).await;
                    if !matches!(written, Ok(Ok(()))) {
                        break;
                    }
                }
            });
        }
    }

    async fn answer(&self, question: &[u8], asker: &Asker, over_tcp: bool) -> Option<Vec<u8>> {
        match self.directory.decide(question, asker, (!over_tcp).then_some(512)) {
            Decision::Answer(answer) => Some(answer),
            Decision::Ignore => None,
            Decision::Forward(own) => match self.upstream.ask(own, question, over_tcp).await {
                Some(answer) => Some(answer),
                None => match reply(&Message::from_vec(question).ok()?, ResponseCode::ServFail, vec![], None) {
                    Decision::Answer(answer) => Some(answer),
                    _ => None,
                },
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read_as_the_manual_says() {
        let servers = name_servers("# x\nsearch a b\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\n nameserver ::1\n");
        assert_eq!(servers, vec!["10.0.0.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
        assert_eq!(name_servers(""), vec!["127.0.0.1:53".parse().unwrap()]);
    }
}
