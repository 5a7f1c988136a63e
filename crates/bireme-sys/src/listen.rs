//! Bound and listening sockets, close-on-exec.

#![expect(unsafe_code, reason = "filters of sockets have no safe wrapper")]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};

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
    let socket = bound(address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// As [`tcp`], of a socket that is handed to a process which may be anybody's: neither it nor what it accepts can be made
/// to connect to anything, or to serve another port. Whoever holds it is in another network, and would be in this one by it:
/// a socket that is shut down or disconnected may be connected and bound anew, in the namespace that it was made in.
///
/// The socket has a filter that it does not lose: what is not sent to its port, and its address where it is bound to one, is
/// dropped, and whatever answers a request to connect.
///
/// # Errors
/// As [`tcp`].
pub fn tcp_to_serve_alone(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = bound(address)?;
    set_filter(&socket, &only_served(local_address(&socket)?))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

fn bound(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = open(address, SocketType::STREAM, ipproto::TCP)?;
    // Otherwise connections that closed a minute ago would keep the port. A listening socket still excludes us.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}

/// A filter of segments, from the TCP header on: those pass that are sent to the port of `served`, and to its address where
/// it has one, and are no answer to a request to connect.
///
/// Source: socket(7), `SO_ATTACH_FILTER`; the kernel's documentation, `networking/filter`, `SKF_NET_OFF`; RFC 9293 section
/// 3.1, RFC 791 section 3.1, RFC 8200 section 3.
fn only_served(served: SocketAddr) -> Vec<libc::sock_filter> {
    const LOAD_WORD: u16 = 0x20;
    const LOAD_HALF: u16 = 0x28;
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const SYN_ACK: u32 = 0x12;
    /// Where the header of the Internet protocol begins.
    const NETWORK: u32 = libc::SKF_NET_OFF.cast_unsigned();
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    // Each comparison with whether what equals passes; to be followed in order.
    let mut checks = vec![
        (vec![step(LOAD_HALF, 0, 0, 2)], u32::from(served.port()), true),
        (vec![step(LOAD_BYTE, 0, 0, 13), step(AND, 0, 0, SYN_ACK)], SYN_ACK, false),
    ];
    let destination = match served.ip() {
        address if address.is_unspecified() => Vec::new(),
        IpAddr::V4(address) => vec![(16, u32::from(address))],
        IpAddr::V6(address) => {
            let bits = u128::from(address);
            (0..4).map(|word| (24 + 4 * word, (bits >> (96 - 32 * word)) as u32)).collect()
        }
    };
    let load = |at: u32| vec![step(LOAD_WORD, 0, 0, NETWORK.wrapping_add(at))];
    checks.extend(destination.into_iter().map(|(at, word)| (load(at), word, true)));

    let length: usize = checks.iter().map(|(loads, ..)| loads.len() + 1).sum();
    let mut steps = Vec::new();
    for (loads, value, passes) in checks {
        steps.extend(loads);
        // To the last step, past the one that lets it pass. A dozen steps at most.
        let drop = u8::try_from(length - steps.len()).unwrap_or(u8::MAX);
        steps.push(if passes { step(IF_EQUAL, 0, drop, value) } else { step(IF_EQUAL, drop, 0, value) });
    }
    steps.push(step(RETURN, 0, 0, u32::MAX));
    steps.push(step(RETURN, 0, 0, 0));
    steps
}

/// Gives a socket a filter for good: those that it accepts inherit it, and nobody takes it off.
fn set_filter(socket: &OwnedFd, steps: &[libc::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(steps.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len: length, filter: steps.as_ptr().cast_mut() };
    let lock: libc::c_int = 1;
    set_option(socket, libc::SO_ATTACH_FILTER, &program)?;
    set_option(socket, libc::SO_LOCK_FILTER, &lock)
}

fn set_option<T>(socket: &OwnedFd, option: libc::c_int, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes of `value`, and of a program the steps behind its pointer, which outlive the
    // call and are not written.
    let answer = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, std::ptr::from_ref(value).cast(), length)
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Opens a UDP socket bound to `address`; port 0 lets the kernel choose.
///
/// # Errors
/// As [`tcp`].
pub fn udp(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = open(address, SocketType::DGRAM, ipproto::UDP)?;
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}

/// Opens an SCTP socket listening at `address`.
///
/// # Errors
/// As [`tcp`], and `EPROTONOSUPPORT` where the kernel has no SCTP.
pub fn sctp(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = open(address, SocketType::STREAM, ipproto::SCTP)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// The address a socket is bound to.
///
/// # Errors
/// `InvalidInput` for a socket that is not of the Internet; otherwise as getsockname(2).
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

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    const SOON: Duration = Duration::from_millis(500);

    fn anywhere() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    /// Has `socket` be connected to nothing, so that it may be used anew.
    fn disconnect(socket: &OwnedFd) {
        let nothing = libc::sockaddr { sa_family: libc::AF_UNSPEC as u16, sa_data: [0; 14] };
        let length = size_of::<libc::sockaddr>() as libc::socklen_t;
        // SAFETY: the address is of this length, and outlives the call.
        let answer = unsafe { libc::connect(socket.as_raw_fd(), &raw const nothing, length) };
        assert_eq!(answer, 0, "{}", io::Error::last_os_error());
    }

    /// What whoever has it may try.
    fn reaches(socket: OwnedFd, address: SocketAddr) -> bool {
        let stream = TcpStream::from(socket);
        stream.set_nonblocking(true).unwrap();
        let _ = rustix::net::connect(&stream, &address);
        std::thread::sleep(SOON);
        stream.peer_addr().is_ok()
    }

    #[test]
    fn a_socket_to_serve_alone_serves() {
        let listener = TcpListener::from(tcp_to_serve_alone(anywhere()).unwrap());
        let address = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let text = vec![7; 1 << 20];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                client.write_all(&text).unwrap();
                client.shutdown(Shutdown::Write).unwrap();
                let mut back = Vec::new();
                client.read_to_end(&mut back).unwrap();
                assert_eq!(back, text);
            });
            let mut got = Vec::new();
            server.read_to_end(&mut got).unwrap();
            server.write_all(&got).unwrap();
            drop(server);
        });
    }

    #[test]
    fn a_socket_to_serve_alone_serves_addresses_of_both_kinds_and_all() {
        for (bound, asked) in [("[::1]:0", "[::1]"), ("0.0.0.0:0", "127.0.0.3"), ("[::]:0", "[::1]")] {
            let listener = TcpListener::from(tcp_to_serve_alone(bound.parse().unwrap()).unwrap());
            let address = format!("{asked}:{}", listener.local_addr().unwrap().port());
            let client = TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_secs(5));
            assert!(client.is_ok(), "{bound} at {address}: {client:?}");
        }
    }

    #[test]
    fn a_socket_to_serve_alone_connects_to_nothing() {
        let secret = TcpListener::bind(anywhere()).unwrap();
        let target = secret.local_addr().unwrap();
        // The test itself: an ordinary socket comes through.
        let ordinary = tcp(anywhere()).unwrap();
        rustix::net::shutdown(&ordinary, rustix::net::Shutdown::Read).unwrap();
        assert!(reaches(ordinary, target));

        let listener = tcp_to_serve_alone(anywhere()).unwrap();
        let client = TcpStream::connect(local_address(&listener).unwrap()).unwrap();
        let accepted = rustix::net::accept(&listener).unwrap();
        drop(client);
        rustix::net::shutdown(&listener, rustix::net::Shutdown::Read).unwrap();
        assert!(!reaches(listener, target));
        disconnect(&accepted);
        assert!(!reaches(accepted, target));
    }

    #[test]
    fn a_socket_to_serve_alone_serves_no_other_port() {
        let listener = tcp_to_serve_alone(anywhere()).unwrap();
        let client = TcpStream::connect(local_address(&listener).unwrap()).unwrap();
        let accepted = rustix::net::accept(&listener).unwrap();
        drop(client);
        disconnect(&accepted);
        rustix::net::bind(&accepted, &anywhere()).unwrap();
        rustix::net::listen(&accepted, 1).unwrap();
        let there = local_address(&accepted).unwrap();
        assert!(TcpStream::connect_timeout(&there, SOON).is_err());
        // Nor its own port of another address.
        let elsewhere = SocketAddr::from(([127, 0, 0, 2], local_address(&listener).unwrap().port()));
        let client = TcpStream::connect(local_address(&listener).unwrap()).unwrap();
        let another = rustix::net::accept(&listener).unwrap();
        drop(client);
        disconnect(&another);
        rustix::net::bind(&another, &elsewhere).unwrap();
        rustix::net::listen(&another, 1).unwrap();
        assert!(TcpStream::connect_timeout(&elsewhere, SOON).is_err());
        let off: libc::c_int = 0;
        assert!(set_option(&accepted, libc::SO_DETACH_FILTER, &off).is_err());
        assert!(set_option(&accepted, libc::SO_LOCK_FILTER, &off).is_err());
        assert!(set_filter(&accepted, &[]).is_err());
    }
}
