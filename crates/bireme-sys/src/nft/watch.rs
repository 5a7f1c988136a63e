//! What others change.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use super::{NFNL_SUBSYS_NFTABLES, NFT_MSG_DELTABLE};
use crate::netlink::{Attributes, Listener, text_of};

/// The group of those who are told of every change.
const NFNLGRP_NFTABLES: u32 = 7;

/// A table that somebody removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// The name of the table, of whichever family.
    pub table: String,
    /// [`crate::netlink::Socket::number`] of whoever did it.
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
