//! The nf_tables table `bridge bireme_<instance>`: nobody on our bridges passes himself off as another.
//!
//! ```text
//! prerouting   from a port of ours  -> `strict`, or `routing` for a workload that may administer its network
//!              from a port of ours that is none (any longer)          -> dropped
//! strict       what does not come from the port's own hardware and IP addresses is dropped, ARP and neighbour
//!              discovery included
//! routing      what comes from the addresses of another is dropped
//! ```
//! It stands before the bridge learns who is behind a port, so that neither its table of hardware addresses nor the
//! neighbours' tables of IP addresses can be taught a lie. Routers announce themselves nowhere here: whoever does is
//! dropped (CVE-2020-13401). A tag of a VLAN inside another would hide what is in a frame (CVE-2021-27853).
//!
//! A workload with `CAP_NET_ADMIN` may have further addresses, and pass on packets of others (a router, a virtual
//! machine, a node of a cluster): but not those of anybody here.

use std::net::{IpAddr, Ipv6Addr};

use bireme_sys::nft::{Answers, Batch, Element, Field, Hook, Key, Register, Step, Value, Verdict};

/// Sets of the table.
pub(crate) const SETS: [&str; 7] = ["guarded", "own", "own6", "own_macs", "known", "known6", "known_macs"];

const ICMPV6: u8 = 58;

/// A port of one of our bridges, and who is behind it.
#[derive(Clone, Debug)]
pub(crate) struct Port {
    pub(crate) interface: String,
    pub(crate) mac: [u8; 6],
    pub(crate) addresses: Vec<IpAddr>,
    /// Whether it may have addresses that nobody here has.
    pub(crate) routes: bool,
}

impl Port {
    /// What is behind the port but for its addresses.
    pub(crate) fn elements(&self) -> Vec<(&'static str, Element)> {
        let chain = if self.routes { "routing" } else { "strict" };
        let port = || Key::new().interface(&self.interface);
        let guarded = Element { key: port(), value: Some(Value::Verdict(Verdict::Goto(chain))), ends_range: false };
        let mut elements = vec![("guarded", guarded), ("own_macs", element(port().hardware(self.mac)))];
        elements.push(known_mac(self.mac));
        elements.extend(self.address_elements(&self.addresses));
        if self.addresses.iter().any(IpAddr::is_ipv6) {
            elements.extend(self.address_elements(&[link_local(self.mac).into()]));
        }
        elements
    }

    /// Some addresses of the port.
    pub(crate) fn address_elements(&self, addresses: &[IpAddr]) -> Vec<(&'static str, Element)> {
        let one = |address: &IpAddr| {
            let set = if address.is_ipv4() { "own" } else { "own6" };
            [(set, element(Key::new().interface(&self.interface).address(*address))), known(*address)]
        };
        addresses.iter().flat_map(one).collect()
    }
}

/// An address that somebody has, and nobody else may use.
pub(crate) fn known(address: IpAddr) -> (&'static str, Element) {
    (if address.is_ipv4() { "known" } else { "known6" }, element(Key::new().address(address)))
}

pub(crate) fn known_mac(mac: [u8; 6]) -> (&'static str, Element) {
    ("known_macs", element(Key::new().hardware(mac)))
}

fn element(key: Key) -> Element {
    Element { key, value: None, ends_range: false }
}

/// What the kernel gives an interface by itself. Source: RFC 4291, appendix A.
fn link_local([a, b, c, d, e, f]: [u8; 6]) -> Ipv6Addr {
    let pair = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(0xfe80, 0, 0, 0, pair(a ^ 2, b), pair(c, 0xff), pair(0xfe, d), pair(e, f))
}

/// The chains, into the table that `batch` is on. `ports` begins the names of all ports of ours.
pub(crate) fn skeleton(batch: &mut Batch<'_>, ports: &str) {
    use Field::{Hardware, Interface, Ipv4, Ipv6};
    batch
        .add_set("guarded", &[Interface], Some(Answers::Verdict))
        .add_set("own", &[Interface, Ipv4], None)
        .add_set("own6", &[Interface, Ipv6], None)
        .add_set("own_macs", &[Interface, Hardware], None)
        .add_set("known", &[Ipv4], None)
        .add_set("known6", &[Ipv6], None)
        .add_set("known_macs", &[Hardware], None);
    batch.add_chain("strict").add_chain("routing").add_base_chain("prerouting", Hook::BridgePrerouting);

    let first = Register::FIRST;
    let drop = Step::Verdict(Verdict::Drop);
    batch.add_rule("prerouting", &[Step::LoadInInterface(first), Step::VerdictMap { from: first, map: "guarded" }]);
    // One that is on its way out, or that was left over.
    let ours = Step::Equals(first, ports.as_bytes().to_vec());
    batch.add_rule("prerouting", &[Step::LoadInInterface(first), ours, drop.clone()]);

    // Behind the interface's name, which takes 16 bytes.
    let second = Register::word(4);
    let mac = |to| Step::LoadEthernet { to, offset: 6, length: 6 };
    let arp_sender = |to| Step::LoadNetwork { to, offset: 14, length: 4 };
    let source = |to| Step::LoadNetwork { to, offset: 12, length: 4 };
    let source6 = |to| Step::LoadNetwork { to, offset: 8, length: 16 };
    let target6 = |to| Step::LoadSegment { to, offset: 8, length: 16 };
    let frame = |kind: u16| vec![Step::LoadFrameKind(first), Step::Equals(first, kind.to_be_bytes().to_vec())];
    let icmp6 = |kind: u8| {
        let transport = [Step::LoadTransport(first), Step::Equals(first, vec![ICMPV6])];
        let load = Step::LoadSegment { to: first, offset: 0, length: 1 };
        [frame(0x86dd), transport.to_vec(), vec![load, Step::Equals(first, vec![kind])]].concat()
    };
    // What is looked at of which frames, its length, and the sets in which it is looked for.
    type Load<'a> = &'a dyn Fn(Register) -> Step;
    let checks: [(Vec<Step>, Load<'_>, usize, &'static str, &'static str); 5] = [
        (vec![], &mac, 6, "own_macs", "known_macs"),
        (frame(0x0806), &arp_sender, 4, "own", "known"),
        (frame(0x0800), &source, 4, "own", "known"),
        (frame(0x86dd), &source6, 16, "own6", "known6"),
        (icmp6(136), &target6, 16, "own6", "known6"),
    ];
    for chain in ["strict", "routing"] {
        for tag in [0x8100, 0x88a8, 0x9100] {
            batch.add_rule(chain, &[frame(tag), vec![drop.clone()]].concat());
        }
        for router in [134, 137] {
            batch.add_rule(chain, &[icmp6(router), vec![drop.clone()]].concat());
        }
        for (kind, load, length, own, known) in &checks {
            let foreign = [
                Step::LoadInInterface(first),
                load(second),
                Step::NotInSet { from: first, set: own },
                load(first),
                // One that is only coming asks with no address of its own; no network has it.
                if chain == "strict" {
                    Step::Differs(first, vec![0; *length])
                } else {
                    Step::InSet { from: first, set: known }
                },
                drop.clone(),
            ];
            batch.add_rule(chain, &[kind.as_slice(), &foreign].concat());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_address_follows_from_the_hardwares() {
        assert_eq!(link_local([0x02, 0x42, 0x0a, 0x01, 0x00, 0x02]).to_string(), "fe80::42:aff:fe01:2");
    }
}
