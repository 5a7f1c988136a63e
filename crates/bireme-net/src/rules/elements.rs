//! Elements of the sets and maps of our table: networks, published ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bireme_core::spec::Protocol;
use bireme_sys::nft::{Element, Key, Value, Verdict};

use crate::guard;
use crate::{Forward, NetworkSpec};

const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

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

/// A port that a socket of ours passes on.
pub(crate) type Proxied = (Protocol, u16);

/// Elements by the set they belong to.
pub(super) type Elements = Vec<(&'static str, Element)>;

pub(super) const SETS: [&str; 13] = [
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

pub(super) fn network_elements(network: &Ruled<'_>) -> Elements {
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

pub(super) fn proxied_element((protocol, port): &Proxied) -> (&'static str, Element) {
    let key = Key::new().protocol(number_of(*protocol)).port(*port);
    ("proxied", Element { key, value: None, ends_range: false })
}

pub(super) fn missing_element(missing: &Proxied) -> (&'static str, Element) {
    ("missing", proxied_element(missing).1)
}

pub(super) fn forward_element(forward: &Forward) -> (&'static str, Element) {
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
