//! Links, addresses and routes over rtnetlink.
//!
//! Functions that answer a [`Message`] only write it: send one or many at once with [`Socket::request`].
//!
//! Source: rtnetlink(7), `include/uapi/linux/{rtnetlink,if_link,if_addr}.h`.

use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use rustix::io::Errno;

use crate::netlink::{
    Attributes, Message, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Refused, Socket, text_of, u32_at, u32_of,
};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const VETH_INFO_PEER: u16 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_F_NODAD: u8 = 0x02;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTN_UNICAST: u8 = 1;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_NOARP: u16 = 0x40;
const NTF_MASTER: u8 = 0x04;

const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
const AF_INET6: u8 = 10;
const IFF_UP: u32 = 1;

/// An address and the length of its network's prefix in bits.
pub type Prefix = (IpAddr, u8);

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The number by which the kernel knows it in this namespace, from 1.
    pub index: u32,
    /// At most 15 bytes.
    pub name: String,
    /// Free text kept with it by the kernel, at most 255 bytes.
    pub alias: String,
    /// Empty where the link has none.
    pub mac: Vec<u8>,
    /// Index of the bridge it is a port of.
    pub master: Option<u32>,
    /// Of a veth: the index of the other end, in whichever namespace that is.
    pub peer: Option<u32>,
    /// Whether it is switched on (`IFF_UP`); a carrier it may lack all the same.
    pub up: bool,
}

/// One end on a bridge of the host, the other inside a namespace.
#[derive(Clone, Copy, Debug)]
pub struct Veth<'a> {
    /// Of the end on the host: at most 15 bytes, and free there.
    pub name: &'a str,
    /// Of the end inside: at most 15 bytes, and free in that namespace.
    pub peer_name: &'a str,
    /// Hardware address of the end inside.
    pub peer_mac: [u8; 6],
    /// The network namespace that the end inside is made in.
    pub peer_namespace: BorrowedFd<'a>,
    /// Largest packet of both ends, in bytes.
    pub mtu: u32,
}

/// All links of the namespace `socket` was opened in.
///
/// # Errors
/// `EINTR` where the list never stands still while it is read; otherwise what the kernel refuses.
pub fn links(socket: &mut Socket) -> Result<Vec<Link>, Refused> {
    socket.dump(&Message::new(RTM_GETLINK, 0, &link_head(AF_UNSPEC, 0, 0, 0)), read_link)
}

/// The link called `name`, if there is one.
///
/// # Errors
/// What the kernel refuses.
pub fn link(socket: &mut Socket, name: &str) -> Result<Option<Link>, Refused> {
    let mut message = Message::new(RTM_GETLINK, 0, &link_head(AF_UNSPEC, 0, 0, 0));
    message.text(IFLA_IFNAME, name);
    match socket.get(&message, read_link) {
        Err(refused) if refused.errno == Errno::NODEV => Ok(None),
        answer => answer,
    }
}

/// Index of the link and the address, for all addresses of the namespace.
///
/// # Errors
/// As [`links`].
pub fn addresses(socket: &mut Socket) -> Result<Vec<(u32, Prefix)>, Refused> {
    socket.dump(&Message::new(RTM_GETADDR, 0, &[0; 8]), |body| {
        let (head, rest) = body.split_at_checked(8)?;
        let attributes = Attributes(rest);
        // Of a point-to-point link IFA_ADDRESS is the other side; elsewhere both are the same or only it is there.
        let address = attributes.find(IFA_LOCAL).or_else(|| attributes.find(IFA_ADDRESS))?;
        Some((u32_at(head, 4), (ip_of(address)?, head[1])))
    })
}

/// Destinations of all routes in all tables but default routes, those to one's own addresses included.
///
/// # Errors
/// As [`links`].
pub fn destinations(socket: &mut Socket) -> Result<Vec<Prefix>, Refused> {
    let found = socket.dump(&Message::new(RTM_GETROUTE, 0, &[0; 12]), |body| {
        let (head, rest) = body.split_at_checked(12)?;
        Some((ip_of(Attributes(rest).find(RTA_DST)?)?, head[1]))
    })?;
    Ok(found.into_iter().filter(|(_, length)| *length > 0).collect())
}

/// Makes a bridge. Its MAC address stays when ports come and go, because it is given.
pub fn add_bridge(name: &str, mac: [u8; 6], mtu: u32) -> Message {
    let mut message = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link_head(AF_UNSPEC, 0, 0, 0));
    message.text(IFLA_IFNAME, name).bytes(IFLA_ADDRESS, &mac).u32(IFLA_MTU, mtu).nest(IFLA_LINKINFO, |info| {
        info.text(IFLA_INFO_KIND, "bridge");
    });
    message
}

/// Makes a pair of linked interfaces.
pub fn add_veth(veth: &Veth<'_>) -> Message {
    let mut message = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link_head(AF_UNSPEC, 0, 0, 0));
    message.text(IFLA_IFNAME, veth.name).u32(IFLA_MTU, veth.mtu).nest(IFLA_LINKINFO, |info| {
        info.text(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |data| {
            data.nest(VETH_INFO_PEER, |peer| {
                let namespace = veth.peer_namespace.as_raw_fd().cast_unsigned();
                peer.raw(&link_head(AF_UNSPEC, 0, 0, 0))
                    .text(IFLA_IFNAME, veth.peer_name)
                    .bytes(IFLA_ADDRESS, &veth.peer_mac)
                    .u32(IFLA_MTU, veth.mtu)
                    .u32(IFLA_NET_NS_FD, namespace);
            });
        });
    });
    message
}

/// Gives the link `name` its alias, raises it, makes it a port of the bridge `master`; it takes no IPv6 address by
/// itself.
pub fn set_link(name: &str, alias: &str, master: Option<u32>) -> Message {
    let mut message = Message::new(RTM_SETLINK, 0, &link_head(AF_UNSPEC, 0, IFF_UP, IFF_UP));
    message.text(IFLA_IFNAME, name).text(IFLA_IFALIAS, alias);
    if let Some(master) = master {
        message.u32(IFLA_MASTER, master);
        message.nest(IFLA_AF_SPEC, |families| {
            families.nest(u16::from(AF_INET6), |six| {
                six.bytes(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
            });
        });
    }
    message
}

/// Gives the link `index` an alias and nothing else.
pub fn set_alias(index: u32, alias: &str) -> Message {
    let mut message = Message::new(RTM_SETLINK, 0, &link_head(AF_UNSPEC, index, 0, 0));
    message.text(IFLA_IFALIAS, alias);
    message
}

/// Raises the link `index`.
pub fn raise(index: u32) -> Message {
    Message::new(RTM_SETLINK, 0, &link_head(AF_UNSPEC, index, IFF_UP, IFF_UP))
}

/// How the bridge treats its port `name`: with `hairpin`, frames may leave by the port they came in by; an `isolated`
/// port may speak with the bridge itself and with ports that are not.
pub fn set_bridge_port(name: &str, hairpin: bool, isolated: bool) -> Message {
    let mut message = Message::new(RTM_NEWLINK, 0, &link_head(AF_UNSPEC, 0, 0, 0));
    message.text(IFLA_IFNAME, name).nest(IFLA_LINKINFO, |info| {
        info.text(IFLA_INFO_SLAVE_KIND, "bridge").nest(IFLA_INFO_SLAVE_DATA, |port| {
            port.bytes(IFLA_BRPORT_MODE, &[u8::from(hairpin)]).bytes(IFLA_BRPORT_ISOLATED, &[u8::from(isolated)]);
        });
    });
    message
}

/// Removes the link `index`, and its other end if it is one of a pair.
pub fn delete_link(index: u32) -> Message {
    Message::new(RTM_DELLINK, 0, &link_head(AF_UNSPEC, index, 0, 0))
}

/// Gives the link `index` an address, usable at once.
pub fn add_address(index: u32, prefix: Prefix) -> Message {
    address_message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, index, prefix)
}

/// Takes an address from the link `index`.
pub fn delete_address(index: u32, prefix: Prefix) -> Message {
    address_message(RTM_DELADDR, 0, index, prefix)
}

/// Sends what has no other route to `gateway` over the link `index`.
pub fn add_default_route(index: u32, gateway: IpAddr) -> Message {
    let head = [family(gateway), 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST, 0, 0, 0, 0];
    let mut message = Message::new(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &head);
    message.bytes(RTA_GATEWAY, &octets(gateway)).u32(RTA_OIF, index);
    message
}

/// Has the host ask anew who has `address` behind the link `index`. `ENOENT` where it knows nobody by it.
pub fn forget_neighbour(index: u32, address: IpAddr) -> Message {
    let mut message = Message::new(RTM_DELNEIGH, 0, &neighbour_head(family(address), index, 0, 0));
    message.bytes(NDA_DST, &octets(address));
    message
}

/// Has the bridge send what is for `mac` to its port `port`, whoever it learned to have it before.
pub fn place_hardware(port: u32, mac: [u8; 6]) -> Message {
    let head = neighbour_head(AF_BRIDGE, port, NUD_NOARP, NTF_MASTER);
    let mut message = Message::new(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &head);
    message.bytes(NDA_LLADDR, &mac);
    message
}

fn neighbour_head(family: u8, index: u32, state: u16, flags: u8) -> [u8; 12] {
    let mut head = [0; 12];
    head[0] = family;
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    head[8..10].copy_from_slice(&state.to_ne_bytes());
    head[10] = flags;
    head
}

fn address_message(kind: u16, flags: u16, index: u32, (address, length): Prefix) -> Message {
    let flag = if address.is_ipv6() { IFA_F_NODAD } else { 0 };
    let mut head = vec![family(address), length, flag, 0];
    head.extend_from_slice(&index.to_ne_bytes());
    let mut message = Message::new(kind, flags, &head);
    message.bytes(IFA_LOCAL, &octets(address)).bytes(IFA_ADDRESS, &octets(address));
    message
}

fn link_head(family: u8, index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut head = [0; 16];
    head[0] = family;
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    head[8..12].copy_from_slice(&flags.to_ne_bytes());
    head[12..16].copy_from_slice(&change.to_ne_bytes());
    head
}

fn read_link(body: &[u8]) -> Option<Link> {
    let (head, rest) = body.split_at_checked(16)?;
    let mut link = Link { index: u32_at(head, 4), up: u32_at(head, 8) & IFF_UP != 0, ..Link::default() };
    for (kind, data) in Attributes(rest) {
        match kind {
            IFLA_IFNAME => link.name = text_of(data),
            IFLA_IFALIAS => link.alias = text_of(data),
            IFLA_ADDRESS => link.mac = data.to_vec(),
            IFLA_MASTER => link.master = u32_of(data),
            IFLA_LINK => link.peer = u32_of(data),
            _ => {}
        }
    }
    Some(link)
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn ip_of(data: &[u8]) -> Option<IpAddr> {
    match data.len() {
        4 => <[u8; 4]>::try_from(data).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(data).ok().map(IpAddr::from),
        _ => None,
    }
}
