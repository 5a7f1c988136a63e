//! Whole Ethernet frames, sent and received past everything that the kernel would add: to tell a network who has an
//! address, and what tests of fences stand on.
//!
//! Source: packet(7); RFC 5227 for announcements of IPv4, RFC 4861 for those of IPv6.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

/// The frame by which `mac` tells everybody on a link that it has `address` now, whoever they believed to have it.
pub fn announcement(mac: [u8; 6], address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => {
            let address = address.octets();
            let head = [&[0xff; 6][..], &mac, &[0x08, 0x06]].concat();
            // A request for one's own address, as Linux announces its.
            let arp = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &mac, &address, &[0; 6], &address].concat();
            [head, arp].concat()
        }
        IpAddr::V6(address) => {
            let (from, to) = (address.octets(), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).octets());
            // Nobody asked for it, and it overrides what was known.
            let option = [&[2, 1][..], &mac].concat();
            let mut message = [&[136, 0, 0, 0, 0x20, 0, 0, 0][..], &from, &option].concat();
            let length = u16::try_from(message.len()).unwrap_or_default();
            let pseudo = [&from[..], &to, &[0, 0], &length.to_be_bytes(), &[0, 0, 0, 58]].concat();
            let sum = checksum(&[&pseudo[..], &message].concat());
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            let head = [&[0x33, 0x33, 0, 0, 0, 1][..], &mac, &[0x86, 0xdd, 0x60, 0, 0, 0]].concat();
            [head, length.to_be_bytes().to_vec(), vec![58, 255], from.to_vec(), to.to_vec(), message].concat()
        }
    }
}

/// Source: RFC 1071. The number of `bytes` is even.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

/// A socket of one interface of the namespace it was opened in.
#[derive(Debug)]
pub struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// Sees every frame that comes in by the interface `index` or leaves by it.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_RAW`; `ENODEV` for an interface that is not there.
    pub fn open(index: u32) -> io::Result<Self> {
        let everything = u16::try_from(libc::ETH_P_ALL).unwrap_or_default().to_be();
        let protocol = Protocol::from_raw(u32::from(everything).try_into().map_err(|_| io::ErrorKind::InvalidInput)?);
        let fd =
            rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))?;
        let address = link_address(index, everything);
        let length = u32::try_from(size_of_val(&address)).unwrap_or_default();
        // SAFETY: the pointer and the length are those of `address`, which outlives the call; the descriptor is open.
        #[expect(unsafe_code, reason = "rustix has no addresses of the family AF_PACKET")]
        let answer = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) };
        if answer == 0 { Ok(Self(fd)) } else { Err(io::Error::last_os_error()) }
    }

    /// Sends one frame, its Ethernet header included.
    ///
    /// # Errors
    /// As send(2).
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        rustix::net::send(&self.0, frame, SendFlags::empty())?;
        Ok(())
    }

    /// The next frame, or `None` where there is none for as long as `limit`.
    ///
    /// # Errors
    /// As recv(2).
    pub fn receive(&self, limit: Duration) -> io::Result<Option<Vec<u8>>> {
        sockopt::set_socket_timeout(&self.0, sockopt::Timeout::Recv, Some(limit))?;
        let mut frame = vec![0; 65_536];
        match rustix::net::recv(&self.0, &mut frame[..], RecvFlags::empty()) {
            Ok((_, count)) => {
                frame.truncate(count);
                Ok(Some(frame))
            }
            Err(rustix::io::Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// A socket that sends by any interface of the namespace it was opened in, and receives nothing. To be kept: closing one, as
/// binding a [`PacketSocket`], waits until all processors have let go of the old list of receivers, 10 to 30 ms.
///
/// Source: packet(7); `packet_release` of Linux, net/packet/af_packet.c.
#[derive(Debug)]
pub struct PacketSender(OwnedFd);

impl PacketSender {
    /// Opens it in the caller's namespace.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_RAW`.
    pub fn open() -> io::Result<Self> {
        // Of no protocol, so that the kernel puts it in no list of receivers.
        Ok(Self(rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None)?))
    }

    /// Sends one frame by the interface `index`, its Ethernet header included.
    ///
    /// # Errors
    /// As sendto(2); `EINVAL` for what is shorter than an Ethernet header.
    pub fn send(&self, index: u32, frame: &[u8]) -> io::Result<()> {
        let kind = frame.get(12..14).ok_or(io::ErrorKind::InvalidInput)?;
        let address = link_address(index, u16::from_ne_bytes([kind[0], kind[1]]));
        let length = u32::try_from(size_of_val(&address)).unwrap_or_default();
        // SAFETY: pointers and lengths are those of `frame` and `address`, which outlive the call; the descriptor is open.
        #[expect(unsafe_code, reason = "rustix has no addresses of the family AF_PACKET")]
        let sent = unsafe {
            libc::sendto(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0, (&raw const address).cast(), length)
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// `protocol` in network byte order.
fn link_address(index: u32, protocol: u16) -> libc::sockaddr_ll {
    libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).unwrap_or_default(),
        sll_protocol: protocol,
        sll_ifindex: index.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    }
}
