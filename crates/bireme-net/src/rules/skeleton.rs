//! What never changes of our table: its sets, chains and rules.

use std::net::Ipv6Addr;

use bireme_sys::nft::{Answers, Batch, Field, Hook, Register, STATE_ESTABLISHED_RELATED, STATUS_DNAT, Step, Verdict};

/// NFPROTO_IPV4 of the kernel.
const IPV4: u8 = 2;
/// NFPROTO_IPV6 of the kernel.
const IPV6: u8 = 10;
/// RTN_LOCAL of the kernel: an address of the host itself.
const LOCAL: u32 = 2;

pub(super) fn skeleton(batch: &mut Batch<'_>) {
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
