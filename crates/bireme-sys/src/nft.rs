//! nf_tables: tables, sets, chains and rules, changed in transactions.
//!
//! Just as much of the language as a container engine's table needs. Nothing is sent before [`Batch::commit`]; then all
//! of it comes into force at one moment or none does. Keys, values and operands are bytes as the kernel compares them;
//! each part of a compound key is padded to four bytes ([`Key`]).
//!
//! Source: `include/uapi/linux/netfilter/nf_tables.h`; `nft --debug=netlink` prints what it would send.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, RawFd};

use rustix::io::Errno;

use crate::netlink::{Attributes, Listener, Message, NLM_F_CREATE, NLM_F_EXCL, Refused, Socket, text_of};

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;
const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_GETTABLE: u16 = 1;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_GETCHAIN: u16 = 4;
const NFT_MSG_NEWRULE: u16 = 6;
const NFT_MSG_NEWSET: u16 = 9;
const NFT_MSG_NEWSETELEM: u16 = 12;
const NFT_MSG_DELSETELEM: u16 = 14;
const NLM_F_APPEND: u16 = 0x800;
/// The group of those who are told of every change.
const NFNLGRP_NFTABLES: u32 = 7;

const NFT_TABLE_F_OWNER: u32 = 2;
const NFT_TABLE_F_PERSIST: u32 = 4;

const NFT_SET_INTERVAL: u32 = 4;
const NFT_SET_MAP: u32 = 8;
const NFT_SET_ELEM_INTERVAL_END: u32 = 1;
const TYPE_VERDICT: u32 = 0xffff_ff00;
const NFT_LOOKUP_F_INV: u32 = 1;
/// Elements per message: one list of elements must stay below 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 400;

/// The register that holds a verdict.
const VERDICT: u32 = 0;

/// Which packets the chains of a table see. Tables of different families may have the same name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Family {
    /// IPv4 and IPv6.
    #[default]
    Inet = 1,
    /// Frames that pass a bridge.
    Bridge = 7,
}

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

/// What sets compare and maps answer; the numbers are those by which `nft` prints them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Ipv4,
    Ipv6,
    Protocol,
    Port,
    Interface,
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
    Fields(&'static [Field]),
    Verdict,
}

/// A compound key or value being written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Key(Vec<u8>);

impl Key {
    pub fn new() -> Self {
        Self::default()
    }
    #[must_use]
    pub fn address(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.part(&address.octets(), 4),
            IpAddr::V6(address) => self.part(&address.octets(), 16),
        }
    }
    #[must_use]
    pub fn protocol(self, number: u8) -> Self {
        self.part(&[number], 4)
    }
    #[must_use]
    pub fn port(self, port: u16) -> Self {
        self.part(&port.to_be_bytes(), 4)
    }
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

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Drop,
    Return,
    Goto(&'static str),
}

/// One element of a set or map.
#[derive(Clone, Debug)]
pub struct Element {
    pub key: Key,
    pub value: Option<Value>,
    /// In a set of ranges: the first key that is no longer in the range begun by the one before.
    pub ends_range: bool,
}

#[derive(Clone, Debug)]
pub enum Value {
    Fields(Key),
    Verdict(Verdict),
}

/// Where a base chain stands.
#[derive(Clone, Copy, Debug)]
pub enum Hook {
    /// Before connections are tracked and destinations rewritten.
    RawPrerouting,
    NatPrerouting,
    NatOutput,
    NatPostrouting,
    FilterInput,
    FilterForward,
    /// Where a frame enters a bridge, before the bridge learns who is behind the port. Of the family `bridge`.
    BridgePrerouting,
}

/// One step of a rule. A step that compares ends the rule where it does not match.
#[derive(Clone, Debug)]
pub enum Step {
    LoadInInterface(Register),
    LoadOutInterface(Register),
    /// IPv4 is 2, IPv6 is 10.
    LoadFamily(Register),
    LoadTransport(Register),
    /// The kind of frame, as in the Ethernet header; two bytes.
    LoadFrameKind(Register),
    /// What kind of link the packet came in by, such as `bridge`. Ends the rule where it is none.
    LoadInKind(Register),
    /// What kind of link the packet leaves by.
    LoadOutKind(Register),
    /// From the Ethernet header.
    LoadEthernet {
        to: Register,
        offset: u32,
        length: u32,
    },
    /// From the transport header. Ends the rule in a fragment that has none.
    LoadSegment {
        to: Register,
        offset: u32,
        length: u32,
    },
    /// From the network header.
    LoadNetwork {
        to: Register,
        offset: u32,
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
    Equals(Register, Vec<u8>),
    Differs(Register, Vec<u8>),
    /// Connection tracking: the state shares a bit with `mask`.
    StateAny {
        mask: u32,
    },
    /// Connection tracking: the status shares a bit with `mask`.
    StatusAny {
        mask: u32,
    },
    InSet {
        from: Register,
        set: &'static str,
    },
    NotInSet {
        from: Register,
        set: &'static str,
    },
    /// Looks up a map of fields.
    Map {
        from: Register,
        map: &'static str,
        to: Register,
    },
    /// Looks up a map of verdicts and does as it says.
    VerdictMap {
        from: Register,
        map: &'static str,
    },
    Verdict(Verdict),
    /// Rewrites the destination.
    Dnat {
        family: u8,
        address: Register,
        port: Register,
    },
    /// Rewrites the source to the host's address towards the destination.
    Masquerade,
}

/// A reply and what belongs to a connection that was let through.
pub const STATE_ESTABLISHED_RELATED: u32 = 0b110;
/// The destination was rewritten.
pub const STATUS_DNAT: u32 = 0x20;

/// Changes to one table, or to several in turn.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    family: Family,
    table: &'a str,
    messages: Vec<Message>,
}

impl<'a> Batch<'a> {
    /// Begins with changes to `table` of the family `inet`.
    pub fn new(table: &'a str) -> Self {
        let border = [0, 0, 0, NFNL_SUBSYS_NFTABLES as u8];
        Self { family: Family::Inet, table, messages: vec![Message::new(NFNL_MSG_BATCH_BEGIN, 0, &border)] }
    }

    /// What follows changes `table` of `family`.
    pub fn on(&mut self, family: Family, table: &'a str) -> &mut Self {
        (self.family, self.table) = (family, table);
        self
    }

    /// Whether nothing was asked for.
    pub fn is_empty(&self) -> bool {
        self.messages.len() == 1
    }

    /// Makes the table unless it exists.
    pub fn add_table(&mut self) -> &mut Self {
        let table = self.table;
        self.add(NFT_MSG_NEWTABLE, NLM_F_CREATE, |message| {
            message.text(1, table);
        })
    }

    /// Makes the table the committing socket's own: until the socket closes nobody else changes or removes it, flushing
    /// all rules included. Then it stays, and is anybody's. The table must not exist.
    ///
    /// Kernels before 6.9 refuse it with `EOPNOTSUPP`.
    pub fn add_owned_table(&mut self) -> &mut Self {
        let table = self.table;
        self.add(NFT_MSG_NEWTABLE, NLM_F_CREATE, |message| {
            message.text(1, table).be32(2, NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST);
        })
    }

    /// Makes a table that is gone when the committing socket closes, and that nobody else has: `EEXIST` or `EPERM` where
    /// somebody has it.
    ///
    /// Kernels before 5.12 refuse it with `EOPNOTSUPP` or `EINVAL`.
    pub fn hold_table(&mut self) -> &mut Self {
        let table = self.table;
        self.add(NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, |message| {
            message.text(1, table).be32(2, NFT_TABLE_F_OWNER);
        })
    }

    /// Removes the table, which must exist, and all that is in it.
    pub fn delete_table(&mut self) -> &mut Self {
        let table = self.table;
        self.add(NFT_MSG_DELTABLE, 0, |message| {
            message.text(1, table);
        })
    }

    pub fn add_base_chain(&mut self, name: &str, hook: Hook) -> &mut Self {
        let (kind, number, priority): (_, u32, i32) = match hook {
            Hook::RawPrerouting | Hook::BridgePrerouting => ("filter", 0, -300),
            Hook::NatPrerouting => ("nat", 0, -100),
            Hook::FilterInput => ("filter", 1, 0),
            Hook::FilterForward => ("filter", 2, 0),
            Hook::NatOutput => ("nat", 3, -100),
            Hook::NatPostrouting => ("nat", 4, 100),
        };
        self.named(NFT_MSG_NEWCHAIN, NLM_F_CREATE, |message| {
            message.text(3, name).text(7, kind).nest(4, |place| {
                place.be32(1, number).be32(2, priority.cast_unsigned());
            });
        })
    }

    /// A chain reached by [`Verdict::Goto`] only.
    pub fn add_chain(&mut self, name: &str) -> &mut Self {
        self.named(NFT_MSG_NEWCHAIN, NLM_F_CREATE, |message| {
            message.text(3, name);
        })
    }

    /// Makes a set of ranges of addresses: each is an element at its start and one at its end.
    pub fn add_range_set(&mut self, name: &str, field: Field) -> &mut Self {
        self.set(name, &[field], None, NFT_SET_INTERVAL)
    }

    /// Makes a set, or with `answers` a map.
    pub fn add_set(&mut self, name: &str, fields: &[Field], answers: Option<Answers>) -> &mut Self {
        self.set(name, fields, answers, if answers.is_some() { NFT_SET_MAP } else { 0 })
    }

    fn set(&mut self, name: &str, fields: &[Field], answers: Option<Answers>, flags: u32) -> &mut Self {
        let id = u32::try_from(self.messages.len()).expect("a transaction has few messages");
        self.named(NFT_MSG_NEWSET, NLM_F_CREATE, |message| {
            message.text(2, name).be32(3, flags).be32(4, type_of(fields)).be32(5, length_of(fields)).be32(10, id);
            message.bytes(13, &byte_orders(fields));
            match answers {
                Some(Answers::Fields(fields)) => {
                    message.be32(6, type_of(fields)).be32(7, length_of(fields));
                }
                Some(Answers::Verdict) => {
                    message.be32(6, TYPE_VERDICT);
                }
                None => {}
            }
        })
    }

    /// Adds elements; one that is there with the same value is no error, with another value it is `EEXIST`.
    pub fn add_elements(&mut self, set: &str, elements: &[Element]) -> &mut Self {
        self.elements(NFT_MSG_NEWSETELEM, NLM_F_CREATE, set, elements)
    }

    /// Removes elements, which must be there.
    pub fn delete_elements(&mut self, set: &str, elements: &[Element]) -> &mut Self {
        self.elements(NFT_MSG_DELSETELEM, 0, set, elements)
    }

    fn elements(&mut self, kind: u16, flags: u16, set: &str, elements: &[Element]) -> &mut Self {
        for some in elements.chunks(ELEMENTS_PER_MESSAGE) {
            self.named(kind, flags, |message| {
                message.text(2, set).nest(3, |list| {
                    for element in some {
                        list.nest(1, |one| {
                            one.nest(1, |key| {
                                key.bytes(1, &element.key.0);
                            });
                            if element.ends_range {
                                one.be32(3, NFT_SET_ELEM_INTERVAL_END);
                            }
                            match &element.value {
                                Some(Value::Fields(value)) => {
                                    one.nest(2, |data| {
                                        data.bytes(1, &value.0);
                                    });
                                }
                                Some(Value::Verdict(verdict)) => {
                                    one.nest(2, |data| write_verdict(data, verdict));
                                }
                                None => {}
                            }
                        });
                    }
                });
            });
        }
        self
    }

    /// Appends a rule to a chain.
    pub fn add_rule(&mut self, chain: &str, steps: &[Step]) -> &mut Self {
        self.named(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, |message| {
            message.text(2, chain).nest(4, |list| {
                for step in steps {
                    write_step(list, step);
                }
            });
        })
    }

    /// Has the kernel carry all of it out, in one transaction.
    ///
    /// # Errors
    /// What the kernel refused first; then nothing was changed.
    pub fn commit(mut self, socket: &mut Socket) -> Result<(), Refused> {
        if self.is_empty() {
            return Ok(());
        }
        let border = [0, 0, 0, NFNL_SUBSYS_NFTABLES as u8];
        self.messages.push(Message::new(NFNL_MSG_BATCH_END, 0, &border));
        socket.transaction(&self.messages)
    }

    fn named(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Message)) -> &mut Self {
        let table = self.table;
        self.add(kind, flags, |message| {
            message.text(1, table);
            fill(message);
        })
    }

    fn add(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Message)) -> &mut Self {
        let flags = if kind == NFT_MSG_NEWSET { flags | NLM_F_EXCL } else { flags };
        let mut message = Message::new(NFNL_SUBSYS_NFTABLES << 8 | kind, flags, &[self.family as u8, 0, 0, 0]);
        fill(&mut message);
        self.messages.push(message);
        self
    }
}

/// Whether the table exists.
pub fn table_exists(socket: &mut Socket, family: Family, table: &str) -> Result<bool, Refused> {
    let mut message = Message::new(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE, 0, &[family as u8, 0, 0, 0]);
    message.text(1, table);
    match socket.get(&message, |_| Some(())) {
        Err(refused) if refused.errno == Errno::NOENT => Ok(false),
        answer => answer.map(|found| found.is_some()),
    }
}

/// Names of all tables of `family`.
pub fn tables(socket: &mut Socket, family: Family) -> Result<Vec<String>, Refused> {
    let message = Message::new(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE, 0, &[family as u8, 0, 0, 0]);
    socket.dump(&message, |body| Some(text_of(Attributes(body.get(4..)?).find(1)?)))
}

/// Names of the chains of a table; none where there is no such table.
pub fn chains(socket: &mut Socket, family: Family, table: &str) -> Result<Vec<String>, Refused> {
    let message = Message::new(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN, 0, &[family as u8, 0, 0, 0]);
    socket.dump(&message, |body| {
        let attributes = Attributes(body.get(4..)?);
        (text_of(attributes.find(1)?) == table).then(|| attributes.find(3).map(text_of)).flatten()
    })
}

/// A chain of somebody's, of the machine's own firewall for one, that drops what none of its rules accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropping {
    pub table: String,
    pub chain: String,
    /// Whether it sees what the machine forwards; otherwise, what is for the machine itself.
    pub forwards: bool,
}

/// All chains at the input and forward hooks, of any family, that drop by default.
///
/// Source: `linux/netfilter/nf_tables.h`, `nft_chain_attributes`, `nft_hook_attributes`.
pub fn dropping(socket: &mut Socket) -> Result<Vec<Dropping>, Refused> {
    const INPUT: u32 = 1;
    const FORWARD: u32 = 2;
    const DROP: u32 = 0;
    // The same numbers mean other things there.
    const BRIDGED: [u8; 3] = [Family::Bridge as u8, 3, 5];
    let number = |bytes: &[u8]| Some(u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?));
    let message = Message::new(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN, 0, &[0, 0, 0, 0]);
    socket.dump(&message, |body| {
        let attributes = Attributes(body.get(4..)?);
        let hook = number(Attributes(attributes.find(4)?).find(1)?)?;
        let drops = number(attributes.find(5)?)? == DROP && matches!(hook, INPUT | FORWARD);
        (drops && !BRIDGED.contains(body.first()?)).then_some(Dropping {
            table: text_of(attributes.find(1)?),
            chain: text_of(attributes.find(3)?),
            forwards: hook == FORWARD,
        })
    })
}

/// A table that somebody removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    pub table: String,
    /// [`Socket::number`] of whoever did it.
    pub by: u32,
}

/// Hears of tables being removed in the network namespace it was opened in.
pub struct Watch(Listener);

impl Watch {
    /// # Errors
    /// `EPERM` without `CAP_NET_ADMIN`.
    pub fn open() -> io::Result<Self> {
        Listener::open(NFNLGRP_NFTABLES).map(Self)
    }

    /// What was removed since. Does not wait; empty where something else was changed.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] where nothing changed; `ENOBUFS` where so much was changed that some of it is lost.
    pub fn removed(&mut self) -> io::Result<Vec<Removal>> {
        let mut removed = vec![];
        self.0.receive(|kind, by, body| {
            if kind == NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_DELTABLE
                && let Some(table) = body.get(4..).and_then(|rest| Attributes(rest).find(1))
            {
                removed.push(Removal { table: text_of(table), by });
            }
        })?;
        Ok(removed)
    }
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

fn type_of(fields: &[Field]) -> u32 {
    fields.iter().fold(0, |all, field| all << 6 | field.number())
}

/// For `nft list` alone: whether keys are texts in the machine's order (1) or numbers in the network's (2).
fn byte_orders(fields: &[Field]) -> [u8; 6] {
    let order = if matches!(fields, [Field::Interface]) { 1u32 } else { 2 };
    let [a, b, c, d] = order.to_ne_bytes();
    [0, 4, a, b, c, d]
}

fn length_of(fields: &[Field]) -> u32 {
    fields.iter().map(|field| field.length()).sum()
}

fn write_verdict(data: &mut Message, verdict: &Verdict) {
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

fn expression(list: &mut Message, name: &str, fill: impl FnOnce(&mut Message)) {
    list.nest(1, |element| {
        element.text(1, name).nest(2, fill);
    });
}

fn write_step(list: &mut Message, step: &Step) {
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
