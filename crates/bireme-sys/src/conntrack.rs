//! Connections that the kernel remembers: listed, and forgotten on request.
//!
//! Rules decide about the first packet of a connection; what follows goes by what was remembered then, rewritten addresses
//! included, for as long as packets keep coming. Whoever changes rules has to have forgotten what the old ones began.
//!
//! Source: `include/uapi/linux/netfilter/nfnetlink_conntrack.h`.

use std::net::{IpAddr, SocketAddr};

use rustix::io::Errno;

use crate::netlink::{Attributes, Message, NLA_F_NESTED, Refused, Socket};

const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

/// Requests sent at once: their answers must find room in the socket before the first is read.
const AT_ONCE: usize = 64;

/// From where to where packets of one direction go. The port is 0 where the protocol has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The source of its packets.
    pub from: SocketAddr,
    /// Their destination.
    pub to: SocketAddr,
}

/// A connection, as far as it can be told by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Number of the transport protocol: 6 is TCP, 17 is UDP.
    pub protocol: u8,
    /// As its first packet came, before anything was rewritten.
    pub original: Way,
    /// As answers to it leave whoever it came to: with a rewritten destination, `reply.from` is where it went.
    pub reply: Way,
}

/// Has the kernel forget all connections that are `stale`, in the network namespace of `socket` (of the netfilter
/// subsystem); answers how many. Reads all that the kernel remembers, once.
///
/// # Errors
/// `EINVAL` or `EOPNOTSUPP` where the kernel tracks no connections or tells of none, `EPERM` without `CAP_NET_ADMIN`.
pub fn forget(socket: &mut Socket, stale: impl Fn(&Flow) -> bool) -> Result<usize, Refused> {
    let message = Message::new(NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET, 0, &[0; 4]);
    let found = socket.dump(&message, |body| {
        let (flow, forget) = read(body)?;
        stale(&flow).then_some(forget)
    })?;
    for some in found.chunks(AT_ONCE) {
        match socket.request(some) {
            // It ended by itself meanwhile.
            Err(refused) if refused.errno == Errno::NOENT => {}
            answer => answer?,
        }
    }
    Ok(found.len())
}

/// A connection, and the request to forget it. `None` for what has no addresses or that this kernel tells otherwise: a
/// request without addresses would be one to forget everything.
fn read(body: &[u8]) -> Option<(Flow, Message)> {
    let (head, rest) = body.split_at_checked(4)?;
    let attributes = Attributes(rest);
    let original = attributes.find(CTA_TUPLE_ORIG)?;
    let (protocol, there) = way(original)?;
    let (_, back) = way(attributes.find(CTA_TUPLE_REPLY)?)?;
    let head = [*head.first()?, 0, 0, 0];
    let mut forget = Message::new(NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE, 0, &head);
    forget.bytes(CTA_TUPLE_ORIG | NLA_F_NESTED, original);
    for kind in [CTA_ZONE, CTA_ID] {
        if let Some(data) = attributes.find(kind) {
            forget.bytes(kind, data);
        }
    }
    Some((Flow { protocol, original: there, reply: back }, forget))
}

fn way(tuple: &[u8]) -> Option<(u8, Way)> {
    let (ip, proto) = (Attributes(Attributes(tuple).find(CTA_TUPLE_IP)?), Attributes(tuple).find(CTA_TUPLE_PROTO)?);
    let proto = Attributes(proto);
    // IPv4 has the numbers 1 and 2, IPv6 has 3 and 4.
    let address = |four: u16| -> Option<IpAddr> {
        match (ip.find(four), ip.find(four + 2)) {
            (Some(four), _) => Some(<[u8; 4]>::try_from(four).ok()?.into()),
            (None, Some(six)) => Some(<[u8; 16]>::try_from(six).ok()?.into()),
            (None, None) => None,
        }
    };
    let port = |kind: u16| match proto.find(kind) {
        Some(port) => port.try_into().map(u16::from_be_bytes).unwrap_or_default(),
        None => 0,
    };
    let from = SocketAddr::new(address(1)?, port(CTA_PROTO_SRC_PORT));
    let to = SocketAddr::new(address(2)?, port(CTA_PROTO_DST_PORT));
    Some((*proto.find(CTA_PROTO_NUM)?.first()?, Way { from, to }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_without_addresses_is_asked_to_be_forgotten() {
        assert!(read(&[2, 0, 0, 0]).is_none());
        let mut protocol = Message::new(0, 0, &[2, 0, 0, 0]);
        protocol.nest(CTA_TUPLE_ORIG, |tuple| {
            tuple.nest(CTA_TUPLE_PROTO, |proto| {
                proto.bytes(CTA_PROTO_NUM, &[17]);
            });
        });
        assert!(read(protocol.body()).is_none());
    }

    #[test]
    fn connections_are_read_as_the_kernel_writes_them() {
        let mut message = Message::new(0, 0, &[2, 0, 0, 0]);
        for (kind, from, to) in [
            (1, ([192, 0, 2, 7], 4000u16), ([192, 0, 2, 1], 5353u16)),
            (2, ([10, 1, 0, 2], 53), ([192, 0, 2, 7], 4000)),
        ] {
            message.nest(kind, |tuple| {
                tuple.nest(CTA_TUPLE_IP, |ip| {
                    ip.bytes(1, &from.0).bytes(2, &to.0);
                });
                tuple.nest(CTA_TUPLE_PROTO, |proto| {
                    proto.bytes(CTA_PROTO_NUM, &[17]).bytes(CTA_PROTO_SRC_PORT, &from.1.to_be_bytes());
                    proto.bytes(CTA_PROTO_DST_PORT, &to.1.to_be_bytes());
                });
            });
        }
        let (flow, _) = read(message.body()).unwrap();
        let way = |from: &str, to: &str| Way { from: from.parse().unwrap(), to: to.parse().unwrap() };
        let reply = way("10.1.0.2:53", "192.0.2.7:4000");
        assert_eq!(flow, Flow { protocol: 17, original: way("192.0.2.7:4000", "192.0.2.1:5353"), reply });
    }
}
