//! What the kernel tells of a connected socket.

#![expect(unsafe_code, reason = "TCP_INFO and SIOCOUTQ have no safe wrapper")]

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

/// The state of a TCP socket that is closed, as with a reset. Source: `enum` in the kernel's `include/net/tcp_states.h`.
const CLOSED: u8 = 7;

/// Bytes that were written to a TCP socket and that the other end has not confirmed, its end among them; 0 when the connection
/// is no more.
///
/// # Errors
/// Those of getsockopt(2) and ioctl(2), as for what is no TCP socket. Source: tcp(7), `TCP_INFO` and `SIOCOUTQ`.
pub fn unsent(socket: impl AsFd) -> io::Result<u32> {
    let fd = socket.as_fd().as_raw_fd();
    let mut state = 0u8;
    let mut length: libc::socklen_t = 1;
    // SAFETY: writes one byte, the first of the structure, into a byte of ours.
    let asked =
        unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut state).cast(), &mut length) };
    if asked != 0 {
        return Err(io::Error::last_os_error());
    }
    if state == CLOSED {
        return Ok(0);
    }
    let mut bytes: libc::c_int = 0;
    // SAFETY: writes one integer into ours. SIOCOUTQ is the same number.
    if unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &mut bytes) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u32::try_from(bytes).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_nobody_reads_is_unsent_until_the_connection_is_no_more() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut server = listener.accept().unwrap().0;
        assert_eq!(unsent(&server).unwrap(), 0);
        server.set_nonblocking(true).unwrap();
        while server.write(&[0; 65536]).is_ok() {}
        assert!(unsent(&server).unwrap() > 1000);
        let mut buffer = [0; 65536];
        client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        while client.read(&mut buffer).is_ok() {}
        assert_eq!(unsent(&server).unwrap(), 0);
        while server.write(&[0; 65536]).is_ok() {}
        // With what it has not read: a reset.
        drop(client);
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(unsent(&server).unwrap(), 0);
        assert!(unsent(std::fs::File::open("/dev/null").unwrap()).is_err());
    }
}
