//! Steps of a rule, and how the kernel is told of them.

use super::element::{Verdict, write_verdict};
use crate::netlink::Message;

const NFT_LOOKUP_F_INV: u32 = 1;
/// The register that holds a verdict.
const VERDICT: u32 = 0;

/// A place of 16 bytes in which a rule keeps what it loaded, or a place of 4 within the first two of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register(u32);

impl Register {
    /// The first place of 16 bytes.
    pub const FIRST: Self = Self(1);
    /// The second place of 16 bytes.
    pub const SECOND: Self = Self(2);

    /// The place of 4 bytes at `word` words behind the start of the first.
    pub const fn word(word: u32) -> Self {
        Self(8 + word)
    }
}

/// One step of a rule. A step that compares ends the rule where it does not match.
#[derive(Clone, Debug)]
pub enum Step {
    /// The name of the link that the packet came in by: 16 bytes.
    LoadInInterface(Register),
    /// The name of the link that it leaves by: 16 bytes.
    LoadOutInterface(Register),
    /// IPv4 is 2, IPv6 is 10.
    LoadFamily(Register),
    /// Number of the transport protocol: 1 byte.
    LoadTransport(Register),
    /// The kind of frame, as in the Ethernet header; two bytes.
    LoadFrameKind(Register),
    /// What kind of link the packet came in by, such as `bridge`. Ends the rule where it is none.
    LoadInKind(Register),
    /// What kind of link the packet leaves by.
    LoadOutKind(Register),
    /// From the Ethernet header.
    LoadEthernet {
        /// Where the first of the bytes is loaded to; the others follow it.
        to: Register,
        /// Bytes after the beginning of the header.
        offset: u32,
        /// How many bytes.
        length: u32,
    },
    /// From the transport header. Ends the rule in a fragment that has none.
    LoadSegment {
        /// Where the first of the bytes is loaded to; the others follow it.
        to: Register,
        /// Bytes after the beginning of the header.
        offset: u32,
        /// How many bytes.
        length: u32,
    },
    /// From the network header.
    LoadNetwork {
        /// Where the first of the bytes is loaded to; the others follow it.
        to: Register,
        /// Bytes after the beginning of the header.
        offset: u32,
        /// How many bytes.
        length: u32,
    },
    /// The port that a packet is sent to.
    LoadPort(Register),
    /// Whether the destination is one of the host's own addresses: 2 when it is.
    LoadDestinationKind(Register),
    /// The same, but only of the link that the packet came in by.
    LoadDestinationKindHere(Register),
    /// The index of the link by which the source would be answered, if it is the one that the packet came in by;
    /// otherwise 0.
    LoadWayBack(Register),
    /// The name of the link by which the source would be answered; zeros where none leads there, or where it is the host's own.
    LoadLinkBack(Register),
    /// Whether the source is one of the host's own addresses: 2 when it is.
    LoadSourceKind(Register),
    /// The register begins with these bytes.
    Equals(Register, Vec<u8>),
    /// The register begins with other bytes.
    Differs(Register, Vec<u8>),
    /// Connection tracking: the state shares a bit with `mask`.
    StateAny {
        /// Of these bits, one is enough.
        mask: u32,
    },
    /// Connection tracking: the status shares a bit with `mask`.
    StatusAny {
        /// Of these bits, one is enough.
        mask: u32,
    },
    /// An element of the set has what stands in the register and behind it as its key.
    InSet {
        /// Where the key begins.
        from: Register,
        /// A set of the same table.
        set: &'static str,
    },
    /// No element has.
    NotInSet {
        /// Where the key begins.
        from: Register,
        /// A set of the same table.
        set: &'static str,
    },
    /// Looks up a map of fields.
    Map {
        /// Where the key begins.
        from: Register,
        /// A map of the same table. Ends the rule where it has no such key.
        map: &'static str,
        /// Where the value is loaded to.
        to: Register,
    },
    /// Looks up a map of verdicts and does as it says.
    VerdictMap {
        /// Where the key begins.
        from: Register,
        /// A map of the same table. Ends the rule where it has no such key.
        map: &'static str,
    },
    /// Ends the chain with this verdict.
    Verdict(Verdict),
    /// Rewrites the destination.
    Dnat {
        /// As of [`Self::LoadFamily`].
        family: u8,
        /// Where the new address stands.
        address: Register,
        /// Where the new port stands.
        port: Register,
    },
    /// Rewrites the source to the host's address towards the destination.
    Masquerade,
}

/// A reply and what belongs to a connection that was let through.
pub const STATE_ESTABLISHED_RELATED: u32 = 0b110;
/// The destination was rewritten.
pub const STATUS_DNAT: u32 = 0x20;

fn expression(list: &mut Message, name: &str, fill: impl FnOnce(&mut Message)) {
    list.nest(1, |element| {
        element.text(1, name).nest(2, fill);
    });
}

pub(super) fn write_step(list: &mut Message, step: &Step) {
    const META_PROTOCOL: u32 = 1;
    const META_IIFNAME: u32 = 6;
    const META_OIFNAME: u32 = 7;
    const META_NFPROTO: u32 = 15;
    const META_L4PROTO: u32 = 16;
    const META_IIFKIND: u32 = 26;
    const META_OIFKIND: u32 = 27;
    const CT_STATE: u32 = 0;
    const CT_STATUS: u32 = 2;
    const BASE_LINK: u32 = 0;
    const BASE_NETWORK: u32 = 1;
    const BASE_TRANSPORT: u32 = 2;
    const NAT_DESTINATION: u32 = 1;
    const FIB_LINK: u32 = 1;
    const FIB_LINK_NAME: u32 = 2;
    const FIB_ADDRESS_TYPE: u32 = 3;
    const FIB_F_SADDR: u32 = 1;
    const FIB_F_DADDR: u32 = 2;
    const FIB_F_IIF: u32 = 8;

    let meta = |list: &mut Message, to: Register, key: u32| {
        expression(list, "meta", |e| {
            e.be32(1, to.0).be32(2, key);
        });
    };
    let payload = |list: &mut Message, to: Register, base: u32, offset: u32, length: u32| {
        expression(list, "payload", |e| {
            e.be32(1, to.0).be32(2, base).be32(3, offset).be32(4, length);
        });
    };
    let fib = |list: &mut Message, to: Register, result: u32, flags: u32| {
        expression(list, "fib", |e| {
            e.be32(1, to.0).be32(2, result).be32(3, flags);
        });
    };
    let compare = |list: &mut Message, from: Register, operation: u32, value: &[u8]| {
        expression(list, "cmp", |e| {
            e.be32(1, from.0).be32(2, operation).nest(3, |data| {
                data.bytes(1, value);
            });
        });
    };
    // Loads, masks and asks that something is left: all bits are lost where the packet is not tracked.
    let tracked = |list: &mut Message, key: u32, mask: u32| {
        let register = Register::FIRST.0;
        expression(list, "ct", |e| {
            e.be32(1, register).be32(2, key);
        });
        expression(list, "bitwise", |e| {
            e.be32(1, register).be32(2, register).be32(3, 4);
            e.nest(4, |data| {
                data.u32(1, mask);
            });
            e.nest(5, |data| {
                data.u32(1, 0);
            });
        });
        expression(list, "cmp", |e| {
            e.be32(1, register).be32(2, 1).nest(3, |data| {
                data.u32(1, 0);
            });
        });
    };
    match step {
        Step::LoadInInterface(to) => meta(list, *to, META_IIFNAME),
        Step::LoadOutInterface(to) => meta(list, *to, META_OIFNAME),
        Step::LoadFamily(to) => meta(list, *to, META_NFPROTO),
        Step::LoadTransport(to) => meta(list, *to, META_L4PROTO),
        Step::LoadNetwork { to, offset, length } => payload(list, *to, BASE_NETWORK, *offset, *length),
        Step::LoadPort(to) => payload(list, *to, BASE_TRANSPORT, 2, 2),
        Step::LoadFrameKind(to) => meta(list, *to, META_PROTOCOL),
        Step::LoadInKind(to) => meta(list, *to, META_IIFKIND),
        Step::LoadOutKind(to) => meta(list, *to, META_OIFKIND),
        Step::LoadEthernet { to, offset, length } => payload(list, *to, BASE_LINK, *offset, *length),
        Step::LoadSegment { to, offset, length } => payload(list, *to, BASE_TRANSPORT, *offset, *length),
        Step::LoadDestinationKind(to) => fib(list, *to, FIB_ADDRESS_TYPE, FIB_F_DADDR),
        Step::LoadDestinationKindHere(to) => fib(list, *to, FIB_ADDRESS_TYPE, FIB_F_DADDR | FIB_F_IIF),
        Step::LoadWayBack(to) => fib(list, *to, FIB_LINK, FIB_F_SADDR | FIB_F_IIF),
        Step::LoadSourceKind(to) => fib(list, *to, FIB_ADDRESS_TYPE, FIB_F_SADDR),
        Step::LoadLinkBack(to) => fib(list, *to, FIB_LINK_NAME, FIB_F_SADDR),
        Step::Equals(from, value) => compare(list, *from, 0, value),
        Step::Differs(from, value) => compare(list, *from, 1, value),
        Step::StateAny { mask } => tracked(list, CT_STATE, *mask),
        Step::StatusAny { mask } => tracked(list, CT_STATUS, *mask),
        Step::InSet { from, set } => expression(list, "lookup", |e| {
            e.text(1, set).be32(2, from.0);
        }),
        Step::NotInSet { from, set } => expression(list, "lookup", |e| {
            e.text(1, set).be32(2, from.0).be32(5, NFT_LOOKUP_F_INV);
        }),
        Step::Map { from, map, to } => expression(list, "lookup", |e| {
            e.text(1, map).be32(2, from.0).be32(3, to.0);
        }),
        Step::VerdictMap { from, map } => expression(list, "lookup", |e| {
            e.text(1, map).be32(2, from.0).be32(3, VERDICT);
        }),
        Step::Verdict(verdict) => expression(list, "immediate", |e| {
            e.be32(1, VERDICT).nest(2, |data| write_verdict(data, verdict));
        }),
        Step::Dnat { family, address, port } => expression(list, "nat", |e| {
            e.be32(1, NAT_DESTINATION).be32(2, u32::from(*family)).be32(3, address.0).be32(5, port.0);
        }),
        Step::Masquerade => expression(list, "masq", |_| {}),
    }
}
