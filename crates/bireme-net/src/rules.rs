//! The nf_tables tables of one engine: `inet bireme_<instance>`, and of the family `bridge` the one of [`guard`].
//!
//! ```text
//! raw          to or from a loopback address, not by `lo` -> dropped; from a member's address, by neither a bridge of
//!              ours nor `lo` -> dropped
//! prerouting   from a bridge of ours to a gateway's port 53      -> the port our DNS really listens on
//! output       a published port on an address of the host        -> the workload
//! postrouting  from 127.0.0.0/8 into a bridge                    -> the bridge's address, so that answers come back
//!              published, from a member of ours to one           -> the same (hairpin)
//!              from a bridge of a network that masquerades, out  -> the host's address
//! input        from a bridge of ours with a source that is not behind it -> dropped; from `sealed` only to that
//!              bridge's own addresses, and to no published port
//! forward      replies pass; within one bridge as `same` says; from a bridge of ours with a source that is not behind
//!              it -> dropped; nothing leaves `sealed`; into a bridge of ours only what came by a published port
//! ```
//! The first is needed because bridges of ours have `route_localnet`, so that 127.0.0.1 of the host reaches published
//! ports: without it a frame to 127.0.0.1 would come to what the host serves to itself alone (CVE-2020-8558). The second
//! because the DNS knows its askers by their addresses.
//!
//! Where the kernel can (6.9), the tables are this daemon's own while it lives: `nft flush ruleset` leaves them alone. They
//! stay when it dies. Elsewhere they are made again as soon as somebody removes them (decision 15).
//!
//! Rules never change while the engine runs: networks and ports are elements of sets and maps, so that publishing a
//! port costs the same beside one other port or a thousand. Other tables' chains see every packet too: two engines,
//! or ours and Docker, each guard what is theirs.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use bireme_core::spec::Protocol;
use bireme_sys::netlink::{Refused, Socket};
use bireme_sys::nft::{
    Answers, Batch, Element, Family, Field, Hook, Key, Register, STATE_ESTABLISHED_RELATED, STATUS_DNAT, Step, Value,
    Verdict, table_exists,
};
use rustix::io::Errno;

use crate::guard::{self, Port};
use crate::{Forward, NetworkSpec};

const IPV4: u8 = 2;
const IPV6: u8 = 10;
const LOCAL: u32 = 2;
const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
/// For an earlier daemon to be gone altogether.
const OWNER_WAIT: Duration = Duration::from_secs(5);

/// Ports on which the DNS of one gateway listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DnsPorts {
    pub(crate) gateway: IpAddr,
    pub(crate) udp: u16,
    pub(crate) tcp: u16,
}

/// A network as the rules know it.
#[derive(Clone, Copy)]
pub(crate) struct Ruled<'a> {
    pub(crate) spec: &'a NetworkSpec,
    pub(crate) bridge: &'a str,
    pub(crate) mac: [u8; 6],
    pub(crate) dns: DnsPorts,
}

/// All that the rules are about.
#[derive(Default)]
pub(crate) struct Content<'a> {
    pub(crate) networks: Vec<Ruled<'a>>,
    pub(crate) ports: Vec<Port>,
    pub(crate) forwards: Vec<Forward>,
    /// Published ports that a socket of ours passes on.
    pub(crate) proxied: Vec<Proxied>,
    /// Those whose socket is somebody else's for now: nobody gets there by IPv6, rather than to him.
    pub(crate) missing: Vec<Proxied>,
}

/// A port that a socket of ours passes on.
pub(crate) type Proxied = (Protocol, u16);

pub(crate) struct Rules {
    table: String,
    /// What the names of our ports begin with.
    port_names: String,
    /// The families of our tables: `bridge` only where this kernel filters what passes a bridge.
    families: &'static [Family],
    /// Whether tables are made this daemon's own.
    owns: bool,
    /// Not any longer when all was cleared away.
    in_force: bool,
    holders: Holders,
    socket: Socket,
}

/// Elements by the set they belong to.
type Elements = Vec<(&'static str, Element)>;

/// Who has what nobody else may use. Two may have the same on different networks, as where both asked for it.
#[derive(Default)]
struct Holders(HashMap<(&'static str, Key), BTreeSet<String>>);

impl Holders {
    /// Of sets whose elements do not name their holder themselves.
    const SETS: [&'static str; 3] = ["known", "known6", "known_macs"];

    fn add(&mut self, holder: &str, elements: &[(&'static str, Element)]) {
        for (set, element) in elements.iter().filter(|(set, _)| Self::SETS.contains(set)) {
            self.0.entry((*set, element.key.clone())).or_default().insert(holder.to_owned());
        }
    }

    fn remove(&mut self, holder: &str, elements: &[(&'static str, Element)]) {
        for (set, element) in elements {
            let key = (*set, element.key.clone());
            if let Some(holders) = self.0.get_mut(&key) {
                holders.remove(holder);
                if holders.is_empty() {
                    self.0.remove(&key);
                }
            }
        }
    }

    /// Those of `elements` that nobody but `holder` has.
    fn of_nobody_but(&self, holder: &str, elements: Elements) -> Elements {
        let others = |(set, element): &(&'static str, Element)| {
            let holders = self.0.get(&(*set, element.key.clone()));
            holders.is_some_and(|holders| holders.iter().any(|other| other != holder))
        };
        elements.into_iter().filter(|element| !others(element)).collect()
    }
}

impl Rules {
    /// Makes the tables unless an earlier daemon left them, which then stay as they are until [`Self::rebuild`]. `own`:
    /// whether they shall be this daemon's own, where the kernel can.
    pub(crate) fn open(instance: &str, mut socket: Socket, own: bool) -> Result<Self, Refused> {
        let table = format!("bireme_{instance}");
        let families = if can_guard(&mut socket, &table)? { &GUARDED[..] } else { &GUARDED[..1] };
        let owns = own && can_own(&mut socket, &table);
        let (port_names, holders) = (format!("ve{instance}"), Holders::default());
        let mut rules = Self { table, port_names, families, owns, in_force: true, holders, socket };
        let lost = rules.lost(false)?;
        rules.make(&Content::default(), &lost)?;
        Ok(rules)
    }

    /// Puts the whole of both tables anew in one transaction: no packet meets the host without them.
    pub(crate) fn rebuild(&mut self, content: &Content<'_>) -> Result<(), Refused> {
        self.make(content, self.families)?;
        self.in_force = true;
        self.holders = Holders::default();
        for network in &content.networks {
            self.holders.add(network.bridge, &network_elements(network));
        }
        for port in &content.ports {
            self.holders.add(&port.interface, &port.elements());
        }
        Ok(())
    }

    /// Makes the tables of these families anew, in one transaction.
    fn make(&mut self, content: &Content<'_>, families: &[Family]) -> Result<(), Refused> {
        let mut batch = Batch::new(&self.table);
        for family in families {
            // Removing needs a table to be there.
            batch.on(*family, &self.table).add_table().delete_table();
            if self.owns {
                batch.add_owned_table();
            } else {
                batch.add_table();
            }
            match family {
                Family::Inet => skeleton(&mut batch),
                Family::Bridge => guard::skeleton(&mut batch, &self.port_names),
            }
        }
        let networks = content.networks.iter().flat_map(network_elements);
        let ports = content.ports.iter().flat_map(Port::elements);
        let forwards = content.forwards.iter().map(forward_element);
        let proxied = content.proxied.iter().map(proxied_element);
        let missing = content.missing.iter().map(missing_element);
        let all: Elements = networks.chain(ports).chain(forwards).chain(proxied).chain(missing).collect();
        for set in SETS.into_iter().chain(guard::SETS) {
            if let Some(family) = self.family_of(set).filter(|family| families.contains(family)) {
                let of_set: Vec<_> = all.iter().filter(|(name, _)| *name == set).map(|(_, one)| one.clone()).collect();
                batch.on(family, &self.table).add_elements(set, &of_set);
            }
        }
        let begin = Instant::now();
        loop {
            match batch.clone().commit(&mut self.socket) {
                // They are its own until a daemon that ends has closed its socket; our rights were tried by `open`.
                Err(refused) if refused.is_permission() && begin.elapsed() < OWNER_WAIT => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                answer => return answer,
            }
        }
    }

    /// Which of our tables are not there, or not what we made. `taken`: whether somebody else removed one, who may have
    /// put back an older one as well.
    pub(crate) fn lost(&mut self, taken: bool) -> Result<Vec<Family>, Refused> {
        if !self.in_force {
            return Ok(vec![]);
        }
        let mut there = vec![];
        for family in self.families {
            if table_exists(&mut self.socket, *family, &self.table)? {
                there.push(*family);
            }
        }
        Ok(lost(self.families, &there, taken))
    }

    pub(crate) fn table(&self) -> &str {
        &self.table
    }

    /// Takes every rule away, the tables themselves included.
    pub(crate) fn clear(&mut self) -> Result<(), Refused> {
        self.in_force = false;
        for family in self.families {
            if table_exists(&mut self.socket, *family, &self.table)? {
                let mut batch = Batch::new(&self.table);
                batch.on(*family, &self.table).delete_table();
                batch.commit(&mut self.socket)?;
            }
        }
        self.holders = Holders::default();
        Ok(())
    }

    pub(crate) fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// `None` for a set that this kernel has no table for.
    fn family_of(&self, set: &str) -> Option<Family> {
        match guard::SETS.contains(&set) {
            true => self.families.contains(&Family::Bridge).then_some(Family::Bridge),
            false => Some(Family::Inet),
        }
    }

    pub(crate) fn add_port(&mut self, port: &Port) -> Result<(), Refused> {
        self.add_of(&port.interface, &port.elements())
    }

    /// From now on nothing passes the port.
    pub(crate) fn remove_port(&mut self, port: &Port) -> Result<(), Refused> {
        self.remove_of(&port.interface, port.elements())
    }

    pub(crate) fn add_addresses(&mut self, port: &Port, addresses: &[IpAddr]) -> Result<(), Refused> {
        self.add_of(&port.interface, &port.address_elements(addresses))
    }

    pub(crate) fn remove_addresses(&mut self, port: &Port, addresses: &[IpAddr]) -> Result<(), Refused> {
        self.remove_of(&port.interface, port.address_elements(addresses))
    }

    pub(crate) fn add_proxied(&mut self, proxied: Proxied) -> Result<(), Refused> {
        self.add(&[proxied_element(&proxied)])
    }

    pub(crate) fn remove_proxied(&mut self, proxied: &[Proxied]) -> Result<(), Refused> {
        self.remove(&proxied.iter().map(proxied_element).collect::<Vec<_>>())
    }

    pub(crate) fn remove_missing(&mut self, missing: &[Proxied]) -> Result<(), Refused> {
        self.remove(&missing.iter().map(missing_element).collect::<Vec<_>>())
    }

    pub(crate) fn add_network(&mut self, network: &Ruled<'_>) -> Result<(), Refused> {
        self.add_of(network.bridge, &network_elements(network))
    }

    pub(crate) fn remove_network(&mut self, network: &Ruled<'_>) -> Result<(), Refused> {
        self.remove_of(network.bridge, network_elements(network))
    }

    pub(crate) fn add_forward(&mut self, forward: &Forward) -> Result<(), Refused> {
        self.add(&[forward_element(forward)])
    }

    pub(crate) fn remove_forwards(&mut self, forwards: &[Forward]) -> Result<(), Refused> {
        self.remove(&forwards.iter().map(forward_element).collect::<Vec<_>>())
    }

    fn add_of(&mut self, holder: &str, elements: &[(&'static str, Element)]) -> Result<(), Refused> {
        self.add(elements)?;
        self.holders.add(holder, elements);
        Ok(())
    }

    /// What others have too stays theirs.
    fn remove_of(&mut self, holder: &str, elements: Elements) -> Result<(), Refused> {
        self.remove(&self.holders.of_nobody_but(holder, elements.clone()))?;
        self.holders.remove(holder, &elements);
        Ok(())
    }

    fn add(&mut self, elements: &[(&'static str, Element)]) -> Result<(), Refused> {
        match self.commit(elements, Change::Add) {
            // An earlier daemon left some of them with other values: DNS ports differ at every start.
            Err(refused) if refused.errno == Errno::EXIST => {
                self.remove(elements)?;
                self.commit(elements, Change::Add)
            }
            answer => answer,
        }
    }

    /// What is not there is no error.
    fn remove(&mut self, elements: &[(&'static str, Element)]) -> Result<(), Refused> {
        match self.commit(elements, Change::Remove) {
            Err(refused) if refused.errno == Errno::NOENT && elements.len() > 1 => {
                elements.iter().try_for_each(|one| self.remove(std::slice::from_ref(one)))
            }
            Err(refused) if refused.errno == Errno::NOENT => Ok(()),
            answer => answer,
        }
    }

    fn commit(&mut self, elements: &[(&'static str, Element)], change: Change) -> Result<(), Refused> {
        let mut batch = Batch::new(&self.table);
        for (set, element) in elements {
            let Some(family) = self.family_of(set) else { continue };
            batch.on(family, &self.table);
            let element = std::slice::from_ref(element);
            match change {
                Change::Add => batch.add_elements(set, element),
                Change::Remove => batch.delete_elements(set, element),
            };
        }
        batch.commit(&mut self.socket)
    }
}

/// The families of our tables, the one that every kernel has first.
static GUARDED: [Family; 2] = [Family::Inet, Family::Bridge];

/// Which of `tables` are to be made anew, of which these are `there`.
fn lost(tables: &[Family], there: &[Family], taken: bool) -> Vec<Family> {
    tables.iter().filter(|family| taken || !there.contains(family)).copied().collect()
}

#[derive(Clone, Copy)]
enum Change {
    Add,
    Remove,
}

/// Whether the kernel has tables of the family `bridge` (`CONFIG_NF_TABLES_BRIDGE`).
fn can_guard(socket: &mut Socket, table: &str) -> Result<bool, Refused> {
    let name = format!("{table}_probe");
    let mut batch = Batch::new(&name);
    batch.on(Family::Bridge, &name).add_table().delete_table();
    match batch.commit(socket) {
        Ok(()) => Ok(true),
        Err(refused) if refused.is_permission() => Err(refused),
        Err(error) => {
            tracing::warn!(%error, "this kernel does not filter bridges: members of a network can pass themselves off as others");
            Ok(false)
        }
    }
}

/// Whether the kernel has tables that only one socket changes and that outlive it (6.9).
fn can_own(socket: &mut Socket, table: &str) -> bool {
    let name = format!("{table}_probe");
    let mut batch = Batch::new(&name);
    batch.add_owned_table().delete_table();
    batch.commit(socket).is_ok()
}

const SETS: [&str; 13] = [
    "bridges",
    "sealed",
    "masquerade",
    "same",
    "dns",
    "ports",
    "ports_at",
    "ports6",
    "ports6_at",
    "members",
    "members6",
    "proxied",
    "missing",
];

fn network_elements(network: &Ruled<'_>) -> Elements {
    let bridge = || Key::new().interface(network.bridge);
    let within = if network.spec.icc { Verdict::Accept } else { Verdict::Goto("published") };
    let mut elements = vec![
        ("bridges", Element { key: bridge(), value: None, ends_range: false }),
        (
            "same",
            Element { key: bridge().interface(network.bridge), value: Some(Value::Verdict(within)), ends_range: false },
        ),
    ];
    if network.spec.internal {
        elements.push(("sealed", Element { key: bridge(), value: None, ends_range: false }));
    } else if network.spec.masquerade {
        elements.push(("masquerade", Element { key: bridge(), value: None, ends_range: false }));
    }
    for (protocol, port) in [(UDP, network.dns.udp), (TCP, network.dns.tcp)] {
        let key = Key::new().address(network.dns.gateway).protocol(protocol);
        let to = Key::new().address(network.dns.gateway).port(port);
        elements.push(("dns", Element { key, value: Some(Value::Fields(to)), ends_range: false }));
    }
    elements.push(guard::known_mac(network.mac));
    for subnet in &network.spec.subnets {
        elements.push(guard::known(subnet.gateway));
        let set = if subnet.net.addr().is_ipv4() { "members" } else { "members6" };
        let start = Key::new().address(subnet.net.network());
        elements.push((set, Element { key: start, value: None, ends_range: false }));
        if let Some(next) = after(subnet.net.broadcast()) {
            elements.push((set, Element { key: Key::new().address(next), value: None, ends_range: true }));
        }
    }
    elements
}

/// `None` behind the last address there is: such a range has no end.
fn after(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => address.to_bits().checked_add(1).map(|next| Ipv4Addr::from_bits(next).into()),
        IpAddr::V6(address) => address.to_bits().checked_add(1).map(|next| Ipv6Addr::from_bits(next).into()),
    }
}

pub(crate) fn number_of(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
        Protocol::Sctp => 132,
    }
}

fn proxied_element((protocol, port): &Proxied) -> (&'static str, Element) {
    let key = Key::new().protocol(number_of(*protocol)).port(*port);
    ("proxied", Element { key, value: None, ends_range: false })
}

fn missing_element(missing: &Proxied) -> (&'static str, Element) {
    ("missing", proxied_element(missing).1)
}

fn forward_element(forward: &Forward) -> (&'static str, Element) {
    let protocol = number_of(forward.protocol);
    let (host, all) = (forward.host.ip(), forward.host.ip().is_unspecified());
    let set = match (host.is_ipv4(), all) {
        (true, true) => "ports",
        (true, false) => "ports_at",
        (false, true) => "ports6",
        (false, false) => "ports6_at",
    };
    let key = if all { Key::new() } else { Key::new().address(host) };
    let key = key.protocol(protocol).port(forward.host.port());
    let value = Key::new().address(forward.target.ip()).port(forward.target.port());
    (set, Element { key, value: Some(Value::Fields(value)), ends_range: false })
}

fn skeleton(batch: &mut Batch<'_>) {
    use Field::{Interface, Ipv4, Ipv6, Port, Protocol};
    batch
        .add_set("bridges", &[Interface], None)
        .add_set("sealed", &[Interface], None)
        .add_set("masquerade", &[Interface], None)
        .add_set("proxied", &[Protocol, Port], None)
        .add_set("missing", &[Protocol, Port], None)
        .add_range_set("members", Ipv4)
        .add_range_set("members6", Ipv6)
        .add_set("same", &[Interface, Interface], Some(Answers::Verdict))
        .add_set("dns", &[Ipv4, Protocol], Some(Answers::Fields(&[Ipv4, Port])))
        .add_set("ports", &[Protocol, Port], Some(Answers::Fields(&[Ipv4, Port])))
        .add_set("ports_at", &[Ipv4, Protocol, Port], Some(Answers::Fields(&[Ipv4, Port])))
        .add_set("ports6", &[Protocol, Port], Some(Answers::Fields(&[Ipv6, Port])))
        .add_set("ports6_at", &[Ipv6, Protocol, Port], Some(Answers::Fields(&[Ipv6, Port])));

    raw(batch);
    batch.add_chain("published").add_base_chain("prerouting", Hook::NatPrerouting);
    batch.add_base_chain("output", Hook::NatOutput).add_base_chain("postrouting", Hook::NatPostrouting);

    let first = Register::FIRST;
    let family = |number: u8| [Step::LoadFamily(first), Step::Equals(first, vec![number])];
    let source_loopback = {
        let load = Step::LoadNetwork { to: first, offset: 12, length: 1 };
        [family(IPV4).to_vec(), vec![load, Step::Equals(first, vec![127])]].concat()
    };
    let into_ours = [Step::LoadOutInterface(first), Step::InSet { from: first, set: "bridges" }];
    let from_ours = [Step::LoadInInterface(first), Step::InSet { from: first, set: "bridges" }];
    let out_of_ours = [Step::LoadOutInterface(first), Step::NotInSet { from: first, set: "bridges" }];

    // A neighbour on the wire may send to 127.0.0.1 here. A port published there alone is not for him: connections of
    // the host itself do not pass this chain.
    let destination_loopback = Step::LoadNetwork { to: first, offset: 16, length: 1 };
    let verdict = Step::Verdict(Verdict::Return);
    batch.add_rule(
        "prerouting",
        &[family(IPV4).to_vec(), vec![destination_loopback, Step::Equals(first, vec![127]), verdict]].concat(),
    );
    // DNS listens on a port of its own, so that a workload may publish port 53 and the host may have a DNS server.
    let dns = [
        Step::LoadPort(first),
        Step::Equals(first, 53u16.to_be_bytes().to_vec()),
        Step::LoadNetwork { to: first, offset: 16, length: 4 },
        Step::LoadTransport(Register::word(1)),
        Step::Map { from: first, map: "dns", to: first },
        Step::Dnat { family: IPV4, address: first, port: Register::word(1) },
    ];
    batch.add_rule("prerouting", &[from_ours.to_vec(), family(IPV4).to_vec(), dns.to_vec()].concat());
    // ::1 cannot be routed to a workload: the socket that holds the port passes it on (state/forward.rs).
    let destination_loopback6 = [
        Step::LoadNetwork { to: first, offset: 24, length: 16 },
        Step::Equals(first, Ipv6Addr::LOCALHOST.octets().to_vec()),
        Step::Verdict(Verdict::Return),
    ];
    batch.add_rule("output", &[family(IPV6).to_vec(), destination_loopback6.to_vec()].concat());
    for chain in ["prerouting", "output"] {
        for (number, width, offset, at, all) in
            [(IPV4, 1, 16, "ports_at", "ports"), (IPV6, 4, 24, "ports6_at", "ports6")]
        {
            let dnat = Step::Dnat { family: number, address: first, port: Register::word(width) };
            let exact = [
                Step::LoadNetwork { to: first, offset, length: width * 4 },
                Step::LoadTransport(Register::word(width)),
                Step::LoadPort(Register::word(width + 1)),
                Step::Map { from: first, map: at, to: first },
                dnat.clone(),
            ];
            batch.add_rule(chain, &[family(number).to_vec(), exact.to_vec()].concat());
            let any = [
                Step::LoadDestinationKind(first),
                Step::Equals(first, LOCAL.to_ne_bytes().to_vec()),
                Step::LoadTransport(first),
                Step::LoadPort(Register::word(1)),
                Step::Map { from: first, map: all, to: first },
                dnat,
            ];
            batch.add_rule(chain, &[family(number).to_vec(), any.to_vec()].concat());
        }
    }

    batch.add_rule("postrouting", &[source_loopback, into_ours.to_vec(), vec![Step::Masquerade]].concat());
    let rewritten = [Step::StatusAny { mask: STATUS_DNAT }, Step::Masquerade];
    // By address: where bridges pass frames through here (`bridge-nf-call-iptables`), no incoming interface is known.
    for (number, offset, length, set) in [(IPV4, 12, 4, "members"), (IPV6, 8, 16, "members6")] {
        let member = [Step::LoadNetwork { to: first, offset, length }, Step::InSet { from: first, set }];
        let rule = [family(number).to_vec(), member.to_vec(), into_ours.to_vec(), rewritten.to_vec()];
        batch.add_rule("postrouting", &rule.concat());
    }
    let masquerading = [Step::LoadInInterface(first), Step::InSet { from: first, set: "masquerade" }];
    batch.add_rule("postrouting", &[masquerading.to_vec(), out_of_ours.to_vec(), vec![Step::Masquerade]].concat());

    batch.add_rule("published", &[Step::StatusAny { mask: STATUS_DNAT }, Step::Verdict(Verdict::Accept)]);
    batch.add_rule("published", &[Step::Verdict(Verdict::Drop)]);

    let reply = [Step::StateAny { mask: STATE_ESTABLISHED_RELATED }, Step::Verdict(Verdict::Accept)];
    let same = [
        Step::LoadInInterface(first),
        Step::LoadOutInterface(Register::SECOND),
        Step::VerdictMap { from: first, map: "same" },
    ];
    let sealed =
        [Step::LoadInInterface(first), Step::InSet { from: first, set: "sealed" }, Step::Verdict(Verdict::Drop)];
    let goto = vec![Step::Verdict(Verdict::Goto("published"))];
    let astray =
        [Step::LoadWayBack(first), Step::Equals(first, 0u32.to_ne_bytes().to_vec()), Step::Verdict(Verdict::Drop)];
    let astray = [&from_ours[..], &astray].concat();
    batch.add_base_chain("forward", Hook::FilterForward);
    batch.add_rule("forward", &reply).add_rule("forward", &same).add_rule("forward", &astray);
    batch.add_rule("forward", &sealed);
    batch.add_rule("forward", &[into_ours.to_vec(), goto].concat());

    let from_sealed = [Step::LoadInInterface(first), Step::InSet { from: first, set: "sealed" }];
    let local = LOCAL.to_ne_bytes().to_vec();
    let elsewhere = [
        Step::LoadDestinationKind(first),
        Step::Equals(first, local.clone()),
        Step::LoadDestinationKindHere(first),
        Step::Differs(first, local),
        Step::Verdict(Verdict::Drop),
    ];
    let passed_on = [
        Step::LoadTransport(first),
        Step::LoadPort(Register::word(1)),
        Step::InSet { from: first, set: "proxied" },
        Step::Verdict(Verdict::Drop),
    ];
    batch.add_base_chain("input", Hook::FilterInput).add_rule("input", &astray);
    batch.add_rule("input", &[&from_sealed[..], &elsewhere].concat());
    batch.add_rule("input", &[&from_sealed[..], &passed_on].concat());
    let missing = [
        Step::LoadTransport(first),
        Step::LoadPort(Register::word(1)),
        Step::InSet { from: first, set: "missing" },
        Step::Verdict(Verdict::Drop),
    ];
    batch.add_rule("input", &[&family(IPV6)[..], &missing].concat());
}

/// Nothing but `lo` carries loopback addresses, and nothing but a bridge of ours brings what members send.
fn raw(batch: &mut Batch<'_>) {
    let first = Register::FIRST;
    let mut lo = b"lo".to_vec();
    lo.resize(16, 0);
    let not_lo = [Step::LoadInInterface(first), Step::Differs(first, lo)];
    batch.add_base_chain("raw", Hook::RawPrerouting);
    let (net, host) = (vec![127], Ipv6Addr::LOCALHOST.octets().to_vec());
    for (family, offset, value) in [(IPV4, 12, &net), (IPV4, 16, &net), (IPV6, 8, &host), (IPV6, 24, &host)] {
        let length = if family == IPV4 { 1 } else { 16 };
        let loopback = [
            Step::LoadFamily(first),
            Step::Equals(first, vec![family]),
            Step::LoadNetwork { to: first, offset, length },
            Step::Equals(first, value.clone()),
            Step::Verdict(Verdict::Drop),
        ];
        batch.add_rule("raw", &[&not_lo[..], &loopback].concat());
    }
    // By whichever bridge of ours it comes: one workload in another's name is the matter of `guard`.
    let elsewhere = [Step::LoadInInterface(first), Step::NotInSet { from: first, set: "bridges" }];
    for (family, offset, length, set) in [(IPV4, 12, 4, "members"), (IPV6, 8, 16, "members6")] {
        let member = [
            Step::LoadFamily(first),
            Step::Equals(first, vec![family]),
            Step::LoadNetwork { to: first, offset, length },
            Step::InSet { from: first, set },
        ];
        // A gateway's address is the machine's own.
        let own = [Step::LoadSourceKind(first), Step::Equals(first, LOCAL.to_ne_bytes().to_vec())];
        // Unless a route of the machine leads elsewhere: it may have joined a network whose addresses are among them. The best
        // route of all counts, not the best of the link that it came by, which may be the default route.
        let ours = [Step::LoadLinkBack(first), Step::InSet { from: first, set: "bridges" }];
        for way in [own, ours] {
            let drop = [Step::Verdict(Verdict::Drop)];
            batch.add_rule("raw", &[&not_lo[..], &elsewhere, &member, &way, &drop].concat());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_made_again_and_all_of_it_where_somebody_took_a_part() {
        let (inet, bridge) = (Family::Inet, Family::Bridge);
        assert!(lost(&GUARDED, &[inet, bridge], false).is_empty());
        assert_eq!(lost(&GUARDED, &[inet], false), [bridge]);
        assert_eq!(lost(&GUARDED, &[], false), GUARDED);
        assert_eq!(lost(&GUARDED, &[inet, bridge], true), GUARDED);
        assert_eq!(lost(&GUARDED[..1], &[], true), [inet]);
    }

    #[test]
    fn what_two_have_goes_with_the_second() {
        let port = |interface: &str, addresses: &[&str]| Port {
            interface: interface.into(),
            mac: [2, 0, 0, 0, 0, 7],
            addresses: addresses.iter().map(|one| one.parse().unwrap()).collect(),
            routes: false,
        };
        let (one, two) = (
            port("ve1", &["10.1.0.2", "169.254.1.1", "fd00:1::2"]),
            port("ve2", &["10.2.0.2", "169.254.1.1", "fd00:2::2"]),
        );
        let mut holders = Holders::default();
        holders.add(&one.interface, &one.elements());
        holders.add(&one.interface, &one.elements());
        holders.add(&two.interface, &two.elements());
        let going = |holders: &Holders, port: &Port| {
            let elements = holders.of_nobody_but(&port.interface, port.elements());
            let shared = elements.into_iter().filter(|(set, _)| Holders::SETS.contains(set));
            shared.map(|(set, one)| (set, one.key)).collect::<Vec<_>>()
        };
        let key = |address: &str| Key::new().address(address.parse().unwrap());
        assert_eq!(going(&holders, &one), [("known", key("10.1.0.2")), ("known6", key("fd00:1::2"))]);
        holders.remove(&one.interface, &one.elements());
        let all = going(&holders, &two);
        assert_eq!(all.len(), 5, "hardware, its own two, and the two that both had: {all:?}");
        holders.remove(&two.interface, &two.elements());
        assert!(holders.0.is_empty());
    }
}
