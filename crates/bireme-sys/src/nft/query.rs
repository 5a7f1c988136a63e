//! What is there: tables, chains.

use rustix::io::Errno;

use super::{Family, NFNL_SUBSYS_NFTABLES};
use crate::netlink::{Attributes, Message, Refused, Socket, text_of};

const NFT_MSG_GETTABLE: u16 = 1;
const NFT_MSG_GETCHAIN: u16 = 4;

/// Whether the table exists.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN`; `EINVAL` where the kernel has no nf_tables.
pub fn table_exists(socket: &mut Socket, family: Family, table: &str) -> Result<bool, Refused> {
    let mut message = Message::new(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE, 0, &[family as u8, 0, 0, 0]);
    message.text(1, table);
    match socket.get(&message, |_| Some(())) {
        Err(refused) if refused.errno == Errno::NOENT => Ok(false),
        answer => answer.map(|found| found.is_some()),
    }
}

/// Names of all tables of `family`.
///
/// # Errors
/// As [`table_exists`]; `EINTR` where the list never stands still while it is read.
pub fn tables(socket: &mut Socket, family: Family) -> Result<Vec<String>, Refused> {
    let message = Message::new(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE, 0, &[family as u8, 0, 0, 0]);
    socket.dump(&message, |body| Some(text_of(Attributes(body.get(4..)?).find(1)?)))
}

/// Names of the chains of a table; none where there is no such table.
///
/// # Errors
/// As [`table_exists`]; `EINTR` where the list never stands still while it is read.
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
    /// The name of its table; tables of several families may share it.
    pub table: String,
    /// Its own name, unique within the table.
    pub chain: String,
    /// Whether it sees what the machine forwards; otherwise, what is for the machine itself.
    pub forwards: bool,
}

/// All chains at the input and forward hooks, of any family, that drop by default.
///
/// Source: `linux/netfilter/nf_tables.h`, `nft_chain_attributes`, `nft_hook_attributes`.
///
/// # Errors
/// As [`table_exists`]; `EINTR` where the list never stands still while it is read.
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
