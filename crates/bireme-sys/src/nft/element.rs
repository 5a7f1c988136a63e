//! What sets and maps are made of: fields, keys, values.

use std::net::IpAddr;

use crate::netlink::Message;

pub(super) const TYPE_VERDICT: u32 = 0xffff_ff00;

/// What sets compare and maps answer; the numbers are those by which `nft` prints them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// 4 bytes.
    Ipv4,
    /// 16 bytes.
    Ipv6,
    /// Number of the transport protocol (6 is TCP, 17 is UDP): 1 byte.
    Protocol,
    /// 2 bytes, the higher first.
    Port,
    /// Name of a link: 16 bytes, filled up with zeros.
    Interface,
    /// Ethernet address: 6 bytes.
    Hardware,
}

impl Field {
    const fn number(self) -> u32 {
        match self {
            Self::Ipv4 => 7,
            Self::Ipv6 => 8,
            Self::Hardware => 9,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::Interface => 41,
        }
    }

    const fn length(self) -> u32 {
        match self {
            Self::Ipv4 | Self::Protocol | Self::Port => 4,
            Self::Hardware => 8,
            Self::Ipv6 | Self::Interface => 16,
        }
    }
}

/// What a map answers.
#[derive(Clone, Copy, Debug)]
pub enum Answers {
    /// A compound value, to be loaded into registers.
    Fields(&'static [Field]),
    /// What becomes of the packet.
    Verdict,
}

/// A compound key or value being written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Key(pub(super) Vec<u8>);

impl Key {
    /// Without parts. They are added in the order of the set's fields.
    pub fn new() -> Self {
        Self::default()
    }
    /// A part of the kind [`Field::Ipv4`] or [`Field::Ipv6`].
    #[must_use]
    pub fn address(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.part(&address.octets(), 4),
            IpAddr::V6(address) => self.part(&address.octets(), 16),
        }
    }
    /// A part of the kind [`Field::Protocol`].
    #[must_use]
    pub fn protocol(self, number: u8) -> Self {
        self.part(&[number], 4)
    }
    /// A part of the kind [`Field::Port`].
    #[must_use]
    pub fn port(self, port: u16) -> Self {
        self.part(&port.to_be_bytes(), 4)
    }
    /// A part of the kind [`Field::Hardware`].
    #[must_use]
    pub fn hardware(self, address: [u8; 6]) -> Self {
        self.part(&address, 8)
    }
    /// Names longer than 15 bytes are cut: the kernel has none.
    #[must_use]
    pub fn interface(self, name: &str) -> Self {
        self.part(&name.as_bytes()[..name.len().min(15)], 16)
    }
    fn part(mut self, data: &[u8], length: usize) -> Self {
        let end = self.0.len() + length;
        self.0.extend_from_slice(data);
        self.0.resize(end, 0);
        self
    }
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passes this hook's chain; chains of other tables may drop it yet.
    Accept,
    /// It is gone, whatever other tables say.
    Drop,
    /// Nothing more of this chain; in a base chain, it passes.
    Return,
    /// What that chain of the same table says.
    Goto(&'static str),
}

/// One element of a set or map.
#[derive(Clone, Debug)]
pub struct Element {
    /// With all fields of the set, in their order.
    pub key: Key,
    /// Of maps alone.
    pub value: Option<Value>,
    /// In a set of ranges: the first key that is no longer in the range begun by the one before.
    pub ends_range: bool,
}

/// What a map answers for one key.
#[derive(Clone, Debug)]
pub enum Value {
    /// With all fields that the map answers, in their order.
    Fields(Key),
    /// Of a map that answers verdicts.
    Verdict(Verdict),
}

pub(super) fn type_of(fields: &[Field]) -> u32 {
    fields.iter().fold(0, |all, field| all << 6 | field.number())
}

/// For `nft list` alone: whether keys are texts in the machine's order (1) or numbers in the network's (2).
pub(super) fn byte_orders(fields: &[Field]) -> [u8; 6] {
    let order = if matches!(fields, [Field::Interface]) { 1u32 } else { 2 };
    let [a, b, c, d] = order.to_ne_bytes();
    [0, 4, a, b, c, d]
}

pub(super) fn length_of(fields: &[Field]) -> u32 {
    fields.iter().map(|field| field.length()).sum()
}

pub(super) fn write_verdict(data: &mut Message, verdict: &Verdict) {
    let (code, chain): (i32, _) = match verdict {
        Verdict::Drop => (0, None),
        Verdict::Accept => (1, None),
        Verdict::Goto(chain) => (-4, Some(chain)),
        Verdict::Return => (-5, None),
    };
    data.nest(2, |verdict| {
        verdict.be32(1, code.cast_unsigned());
        if let Some(chain) = chain {
            verdict.text(2, chain);
        }
    });
}
