//! Bound and listening sockets, close-on-exec.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

/// Connections that may wait to be accepted; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Opens a TCP socket listening at `address`; port 0 lets the kernel choose.
///
/// An IPv6 address never takes the IPv4 port with it.
///
/// # Errors
/// [`io::ErrorKind::AddrInUse`], [`io::ErrorKind::AddrNotAvailable`], [`io::ErrorKind::PermissionDenied`] as bind(2).
pub fn tcp(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = open(address, SocketType::STREAM, ipproto::TCP)?;
    // Otherwise connections that closed a minute ago would keep the port. A listening socket still excludes us.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Opens a UDP socket bound to `address`; port 0 lets the kernel choose. Errors as [`tcp`].
pub fn udp(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = open(address, SocketType::DGRAM, ipproto::UDP)?;
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}

/// Opens an SCTP socket listening at `address`. Errors as [`tcp`], and `EPROTONOSUPPORT` where the kernel has no SCTP.
pub fn sctp(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = open(address, SocketType::STREAM, ipproto::SCTP)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// The address a socket is bound to.
pub fn local_address(socket: &OwnedFd) -> io::Result<SocketAddr> {
    SocketAddr::try_from(rustix::net::getsockname(socket)?).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn open(address: SocketAddr, kind: SocketType, protocol: rustix::net::Protocol) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, Some(protocol))?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    Ok(socket)
}
