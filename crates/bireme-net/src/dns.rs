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
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bireme_core::{Names, SandboxId};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use parking_lot::{Mutex, RwLock};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use crate::NetworkId;
use crate::places::share_of_dns;

/// Questions over UDP being worked on at once, at one gateway and of one asker.
const AT_ONCE: Limits = Limits { all: 512, each: 64 };
/// Connections open at once, at one gateway and of one asker.
const CONNECTIONS: Limits = Limits { all: 256, each: 16 };
/// The same of the whole engine, and of one asker wherever it asks; fewer where the daemon may have few descriptors.
const CONNECTIONS_OF_ALL: Limits = Limits { all: 1024, each: 64 };
/// Questions that wait for upstream servers at once, of the whole engine and of one asker wherever it asks: each holds a
/// socket.
const UPSTREAM_AT_ONCE: Limits = Limits { all: 1024, each: 64 };
/// So many of one asker come before the many of another.
const FEW: usize = 4;
/// A question waits so long for a place; its resolver then asks again.
const PLACE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often it looks. Being told of every place would wake all that wait for each.
const PLACE_INTERVAL: Duration = Duration::from_millis(25);
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
    fn client(&self, address: IpAddr) -> Option<Asker> {
        let known = self.inner.read();
        let sandbox = known.clients.get(&address)?.clone();
        Some(Asker { sandbox, over: known.homes.get(&address).cloned() })
    }

    fn decide(&self, question: &[u8], asker: &Asker, limit: Option<u16>) -> Decision {
        let sandbox = &asker.sandbox;
        if !is_small(question) {
            return Decision::Ignore;
        }
        let Ok(asked) = Message::from_vec(question) else { return Decision::Ignore };
        if asked.metadata.message_type != MessageType::Query {
            return Decision::Ignore;
        }
        let known = self.inner.read();
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
        let open = places.iter().find(|place| !closed(place)).cloned();
        Decision::Forward(known.upstream.get(sandbox).cloned().unwrap_or_default(), open)
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
    room: Arc<Room>,
}

impl Upstream {
    fn new(fixed: Option<Vec<SocketAddr>>, files: u64) -> Self {
        Self { fixed, read: Mutex::default(), room: Room::new(UPSTREAM_AT_ONCE.with(files)) }
    }

    fn servers(&self) -> Vec<SocketAddr> {
        if let Some(fixed) = &self.fixed {
            return fixed.clone();
        }
        let changed = std::fs::metadata(RESOLV_CONF).and_then(|file| file.modified()).ok();
        let mut read = self.read.lock();
        if read.0 != changed || changed.is_none() {
            *read = (changed, name_servers(&std::fs::read_to_string(RESOLV_CONF).unwrap_or_default()));
        }
        read.1.clone()
    }

    /// The first answer of the servers in their order; of a server that answers nothing the next one is asked.
    async fn ask(
        &self,
        (asker, network): (&SandboxId, Option<&NetworkId>),
        own: Vec<SocketAddr>,
        question: &[u8],
        over_tcp: bool,
    ) -> Option<Vec<u8>> {
        let _place = self.room.wait_for_place(asker, network).await?;
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

/// Whether a message is no larger than any question: ten thousand names that are pointers to one long name take 50 ms to read.
///
/// Source: RFC 1035, 4.1.1.
fn is_small(question: &[u8]) -> bool {
    const LARGEST: usize = 4096;
    const MOST_RECORDS: u32 = 8;
    let Some((head, _)) = question.split_first_chunk::<12>() else { return false };
    let counts = head[4..].as_chunks::<2>().0.iter().map(|count| u32::from(u16::from_be_bytes(*count)));
    question.len() <= LARGEST && counts.sum::<u32>() <= MOST_RECORDS
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
#[derive(Clone, Copy, Debug)]
struct Limits {
    all: usize,
    each: usize,
}

impl Limits {
    /// For a process that may have so many descriptors.
    fn with(self, files: u64) -> Self {
        Self { all: share_of_dns(files, self.all), ..self }
    }

    /// Whether one more finds a place, with `own` of its asker and `near` of the asker's network among `taken`. One who
    /// has few gets up to all of the places, one who has many only some: of half of them a quarter each network. So those
    /// who ask much, however many they are, leave room for others; and whole networks do.
    fn admit(self, own: usize, near: usize, taken: usize) -> bool {
        if own < FEW.min(self.each) {
            taken < self.all && near < self.all / 2
        } else {
            own < self.each && taken < self.all / 2 && near < self.all / 4
        }
    }
}

/// Where what is done at once is counted.
struct Room {
    limits: Limits,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    askers: HashMap<SandboxId, usize>,
    networks: HashMap<NetworkId, usize>,
}

/// A place in a [`Room`], given back when dropped.
struct Place {
    room: Arc<Room>,
    of: SandboxId,
    network: Option<NetworkId>,
}

impl Room {
    fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, taken: Mutex::default() })
    }

    /// `None` where there is none left. Networks have no share where `network` is not told.
    fn place(self: &Arc<Self>, of: &SandboxId, network: Option<&NetworkId>) -> Option<Place> {
        let mut taken = self.taken.lock();
        let own = taken.askers.get(of).copied().unwrap_or_default();
        let near = network.and_then(|network| taken.networks.get(network)).copied().unwrap_or_default();
        if !self.limits.admit(own, near, taken.all) {
            return None;
        }
        taken.all += 1;
        *taken.askers.entry(of.clone()).or_default() += 1;
        if let Some(network) = network {
            *taken.networks.entry(network.clone()).or_default() += 1;
        }
        Some(Place { room: Arc::clone(self), of: of.clone(), network: network.cloned() })
    }

    /// Waits a moment for one. Callers are bounded themselves.
    async fn wait_for_place(self: &Arc<Self>, of: &SandboxId, network: Option<&NetworkId>) -> Option<Place> {
        let end = tokio::time::Instant::now() + PLACE_TIMEOUT;
        loop {
            let place = self.place(of, network);
            if place.is_some() || tokio::time::Instant::now() >= end {
                return place;
            }
            tokio::time::sleep(PLACE_INTERVAL).await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.room.taken.lock();
        taken.all -= 1;
        give_back(&mut taken.askers, &self.of);
        if let Some(network) = &self.network {
            give_back(&mut taken.networks, network);
        }
    }
}

/// Nobody is remembered who has none.
fn give_back<K: Eq + std::hash::Hash>(counts: &mut HashMap<K, usize>, of: &K) {
    if let Some(count) = counts.get_mut(of) {
        *count -= 1;
        if *count == 0 {
            counts.remove(of);
        }
    }
}

/// What all sockets of the DNS share.
pub(crate) struct Service {
    pub(crate) directory: Directory,
    upstream: Upstream,
    connections: Arc<Room>,
}

impl Service {
    /// `files`: how many descriptors this process may have.
    pub(crate) fn new(upstream: Option<Vec<SocketAddr>>, files: u64) -> Self {
        let connections = Room::new(CONNECTIONS_OF_ALL.with(files));
        Self { directory: Directory::default(), upstream: Upstream::new(upstream, files), connections }
    }

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
        let room = Room::new(AT_ONCE);
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
            let Some(place) = room.place(&asker.sandbox, None) else { continue };
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
        let room = Room::new(CONNECTIONS);
        let mut tasks = JoinSet::new();
        loop {
            while tasks.try_join_next().is_some() {}
            let Ok((mut stream, client)) = listener.accept().await else {
                // Out of descriptors: wait for some connection to end rather than spin.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let Some(asker) = inside.clone().or_else(|| self.directory.client(client.ip())) else { continue };
            let Some(place) = room.place(&asker.sandbox, None) else { continue };
            let Some(of_all) = self.connections.place(&asker.sandbox, None) else { continue };
            let service = Arc::clone(&self);
            tasks.spawn(async move {
                let _places = (place, of_all);
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
            Decision::Forward(own, network) => {
                match self.upstream.ask((&asker.sandbox, network.as_ref()), own, question, over_tcp).await {
                    Some(answer) => Some(answer),
                    None => match reply(&Message::from_vec(question).ok()?, ResponseCode::ServFail, vec![], None) {
                        Decision::Answer(answer) => Some(answer),
                        _ => None,
                    },
                }
            }
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

    fn room() -> (Arc<Room>, [NetworkId; 2]) {
        let network = |digit: &str| NetworkId::parse(&digit.repeat(64)).unwrap();
        (Room::new(UPSTREAM_AT_ONCE), [network("1"), network("2")])
    }

    /// As many places as are to be had.
    fn greedy(room: &Arc<Room>, name: &str, network: Option<&NetworkId>) -> Vec<Place> {
        let of = SandboxId::parse(name).unwrap();
        std::iter::from_fn(|| room.place(&of, network)).collect()
    }

    #[test]
    fn however_many_ask_much_others_find_places() {
        let (room, [near, far]) = room();
        let held: Vec<_> = (0..60).map(|number| greedy(&room, &format!("greedy{number}"), Some(&near))).collect();
        assert_eq!(held[0].len(), UPSTREAM_AT_ONCE.each, "one alone has many");
        let all: usize = held.iter().map(Vec::len).sum();
        assert!(all <= UPSTREAM_AT_ONCE.all / 2, "one network has no more than half: {all}");
        assert!(greedy(&room, "neighbour", Some(&near)).len() >= FEW, "few are left on their own network");
        assert!(greedy(&room, "modest", Some(&far)).len() > FEW, "and many on another");
        drop(held);
        assert!(greedy(&room, "greedy0", Some(&near)).len() == UPSTREAM_AT_ONCE.each, "what is given back is there");
        let taken = room.taken.lock();
        assert_eq!((taken.all, taken.askers.len(), taken.networks.len()), (0, 0, 0), "and nobody is remembered");
    }

    #[test]
    fn a_message_that_takes_long_to_read_is_none() {
        let message = |counts: [u16; 4], length: usize| {
            let mut bytes = vec![0; length.max(12)];
            for (at, count) in counts.into_iter().enumerate() {
                bytes[4 + 2 * at..6 + 2 * at].copy_from_slice(&count.to_be_bytes());
            }
            bytes
        };
        assert!(is_small(&message([1, 0, 0, 1], 60)) && is_small(&message([1, 0, 0, 0], 4096)));
        assert!(!is_small(&message([10_000, 0, 0, 0], 4000)) && !is_small(&message([1, 0, 0, 9], 60)));
        assert!(!is_small(&message([1, 0, 0, 0], 4097)) && !is_small(&[0; 11]));
    }

    #[test]
    fn a_gateway_is_not_filled_by_those_who_ask_much() {
        let room = Room::new(AT_ONCE);
        let _held: Vec<_> = (0..20).map(|number| greedy(&room, &format!("greedy{number}"), None)).collect();
        assert_eq!(greedy(&room, "modest", None).len(), FEW);
    }

    /// However many gateways and sandboxes there are to ask at.
    #[test]
    fn connections_of_all_gateways_together_leave_descriptors() {
        let service = Service::new(None, 256);
        let (all, of) = (32, |number: usize| format!("greedy{number}"));
        let held: Vec<_> = (0..100).flat_map(|number| greedy(&service.connections, &of(number), None)).collect();
        assert!(held.len() <= all && service.upstream.room.limits.all == all, "{}", held.len());
        assert_eq!(greedy(&service.connections, "modest", None).len().min(1), usize::from(held.len() < all));
    }

    #[tokio::test]
    async fn a_question_waits_for_a_place() {
        let (room, _) = room();
        let mut held = greedy(&room, "one", None);
        let of = SandboxId::parse("one").unwrap();
        let (place, ()) = tokio::join!(room.wait_for_place(&of, None), async { drop(held.pop()) });
        assert!(place.is_some());
    }
}
