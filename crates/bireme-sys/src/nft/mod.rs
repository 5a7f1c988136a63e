//! nf_tables: tables, sets, chains and rules, changed in transactions.
//!
//! Just as much of the language as a container engine's table needs. Nothing is sent before [`Batch::commit`]; then all
//! of it comes into force at one moment or none does. Keys, values and operands are bytes as the kernel compares them;
//! each part of a compound key is padded to four bytes ([`Key`]).
//!
//! Source: `include/uapi/linux/netfilter/nf_tables.h`; `nft --debug=netlink` prints what it would send.

mod batch;
mod element;
mod query;
mod step;
mod watch;

pub use batch::{Batch, Hook};
pub use element::{Answers, Element, Field, Key, Value, Verdict};
pub use query::{Dropping, chains, dropping, table_exists, tables};
pub use step::{Register, STATE_ESTABLISHED_RELATED, STATUS_DNAT, Step};
pub use watch::{Removal, Watch};

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_DELTABLE: u16 = 2;

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
