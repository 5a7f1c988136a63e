//! Changes, which come into force together.

use super::element::{Answers, Element, Field, TYPE_VERDICT, Value, byte_orders, length_of, type_of, write_verdict};
use super::step::{Step, write_step};
use super::{Family, NFNL_SUBSYS_NFTABLES, NFT_MSG_DELTABLE};
use crate::netlink::{Message, NLM_F_CREATE, NLM_F_EXCL, Refused, Socket};

const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;
const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_NEWRULE: u16 = 6;
const NFT_MSG_NEWSET: u16 = 9;
const NFT_MSG_NEWSETELEM: u16 = 12;
const NFT_MSG_DELSETELEM: u16 = 14;
const NLM_F_APPEND: u16 = 0x800;
const NFT_TABLE_F_OWNER: u32 = 2;
const NFT_TABLE_F_PERSIST: u32 = 4;
const NFT_SET_INTERVAL: u32 = 4;
const NFT_SET_MAP: u32 = 8;
const NFT_SET_ELEM_INTERVAL_END: u32 = 1;
/// Elements per message: one list of elements must stay below 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 400;

/// Where a base chain stands.
#[derive(Clone, Copy, Debug)]
pub enum Hook {
    /// Before connections are tracked and destinations rewritten.
    RawPrerouting,
    /// What comes in, before it is routed: destinations are rewritten here.
    NatPrerouting,
    /// What the host itself sends: destinations are rewritten here.
    NatOutput,
    /// What goes out, after it was routed: sources are rewritten here.
    NatPostrouting,
    /// What is for the host itself.
    FilterInput,
    /// What the host passes on.
    FilterForward,
    /// Where a frame enters a bridge, before the bridge learns who is behind the port. Of the family `bridge`.
    BridgePrerouting,
}

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

    /// Makes a chain that packets come to at `hook`; what no rule of it decides passes.
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

    /// A chain reached by [`super::Verdict::Goto`] only.
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
