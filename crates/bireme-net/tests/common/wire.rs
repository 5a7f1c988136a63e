//! Frames as somebody with raw sockets writes them, and the wire that they go over.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use bireme_sys::netlink::{Socket, Subsystem};
use bireme_sys::packet::PacketSocket;
use bireme_sys::{netns, route};

pub(crate) type Mac = [u8; 6];

pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const ARP: u16 = 0x0806;
pub(crate) const IPV6: u16 = 0x86dd;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMP6: u8 = 58;
pub(crate) const EVERYONE: Mac = [0xff; 6];

/// `eth0` of a sandbox, as someone with raw frames sees it.
pub(crate) struct Wire {
    pub(crate) socket: PacketSocket,
    pub(crate) mac: Mac,
}

impl Wire {
    pub(crate) fn of(netns: &Path) -> Self {
        Self::called(netns, "eth0")
    }

    pub(crate) fn called(netns: &Path, name: &str) -> Self {
        netns::run_in_netns(netns, || {
            let link = route::link(&mut Socket::open(Subsystem::Route).unwrap(), name).unwrap().unwrap();
            Self { socket: PacketSocket::open(link.index).unwrap(), mac: link.mac.try_into().unwrap() }
        })
        .unwrap()
    }

    pub(crate) fn send(&self, frame: &[u8]) {
        self.socket.send(frame).unwrap();
    }

    /// Whether a frame with `mark` in it comes in.
    pub(crate) fn sees(&self, mark: &[u8], limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            match self.socket.receive(left).unwrap() {
                Some(frame) if frame.windows(mark.len()).any(|window| window == mark) => return true,
                Some(_) => {}
                None => return false,
            }
        }
        false
    }
}

pub(crate) fn frame(to: Mac, from: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), payload].concat()
}

/// The Internet's checksum. Source: RFC 1071.
pub(crate) fn checksum(data: &[u8]) -> [u8; 2] {
    let pairs = data.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])));
    let mut sum: u32 = pairs.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

pub(crate) fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = (20 + payload.len() as u16).to_be_bytes();
    let mut header =
        [&[0x45, 0][..], &length, &[0, 0, 0, 0, 64, protocol, 0, 0], &from.octets(), &to.octets()].concat();
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    [header, payload.to_vec()].concat()
}

pub(crate) fn ipv6(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u16).to_be_bytes();
    [&[0x60, 0, 0, 0][..], &length, &[protocol, 255], &from.octets(), &to.octets(), payload].concat()
}

/// Without a checksum, which IPv4 allows.
pub(crate) fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len() as u16).to_be_bytes();
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &length, &[0, 0], payload].concat()
}

/// With the checksum that IPv6 demands.
pub(crate) fn udp6(from: (Ipv6Addr, u16), to: (Ipv6Addr, u16), payload: &[u8]) -> Vec<u8> {
    let mut datagram = udp(from.1, to.1, payload);
    let sum = checksum6(from.0, to.0, UDP, &datagram);
    datagram[6..8].copy_from_slice(&sum);
    ipv6(from.0, to.0, UDP, &datagram)
}

pub(crate) fn icmp6(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let sum = checksum6(from, to, ICMP6, &message);
    message[2..4].copy_from_slice(&sum);
    ipv6(from, to, ICMP6, &message)
}

pub(crate) fn checksum6(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, payload: &[u8]) -> [u8; 2] {
    let length = (payload.len() as u32).to_be_bytes();
    checksum(&[&from.octets()[..], &to.octets(), &length, &[0, 0, 0, protocol], payload].concat())
}

/// "`address` is at `mac`", asked by nobody.
pub(crate) fn arp_answer(mac: Mac, address: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    [&[0, 1, 8, 0, 6, 4, 0, 2][..], &mac, &address.octets(), &EVERYONE, &to.octets()].concat()
}
