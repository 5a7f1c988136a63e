//! File descriptors sent between processes over a Unix socket (`SCM_RIGHTS`).
//!
//! Both functions take anything with a file descriptor. On a non-blocking socket they answer
//! [`io::ErrorKind::WouldBlock`], so that `tokio::net::UnixStream::async_io` can drive them.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};

/// The most descriptors that Linux sends in one message (`SCM_MAX_FD`).
pub const MAX_FDS: usize = 253;

/// Sends all of `data` with `fds` attached to its first byte.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] when `data` is empty (descriptors travel only with a byte) or there are more than
/// [`MAX_FDS`]; [`io::ErrorKind::WriteZero`] when a non-blocking socket took only a part of `data`: keep messages small.
///
/// Source: unix(7), "Ancillary messages".
pub fn send(socket: impl AsFd, data: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if data.is_empty() || fds.len() > MAX_FDS {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("descriptors are sent with at least one byte and at most {MAX_FDS} at once"),
        ));
    }
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut sent = 0;
    while sent < data.len() {
        let mut control = SendAncillaryBuffer::new(&mut space);
        if sent == 0 && !fds.is_empty() {
            let fits = control.push(SendAncillaryMessage::ScmRights(fds));
            debug_assert!(fits, "the buffer has room for MAX_FDS descriptors");
        }
        let part = [IoSlice::new(&data[sent..])];
        match rustix::net::sendmsg(socket.as_fd(), &part, &mut control, SendFlags::NOSIGNAL) {
            Ok(count) => sent += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) if sent > 0 => return Err(io::ErrorKind::WriteZero.into()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Whether the other end of a Unix socket has read all that was written to it.
///
/// # Errors
/// What ioctl(2) answers.
///
/// Source: `unix_outq_len` of Linux, SIOCOUTQ.
#[expect(unsafe_code, reason = "rustix has no TIOCOUTQ")]
pub fn all_read(socket: impl AsFd) -> io::Result<bool> {
    let mut unread: libc::c_int = 0;
    // SAFETY: the descriptor is borrowed for the call, which writes one int to the pointer, that of a local.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut unread) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(unread == 0) }
}

/// Marks every open descriptor from `first` on close-on-exec: what whoever started this process left open does not go on to
/// what it starts. They stay open here.
///
/// # Errors
/// What close_range(2) answers; kernels before 5.11 know no such mark.
#[expect(unsafe_code, reason = "rustix has no close_range")]
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    let mark = libc::CLOSE_RANGE_CLOEXEC as libc::c_int;
    // SAFETY: with this flag no descriptor is closed; the call takes numbers alone.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, mark) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Receives up to `data.len()` bytes and the descriptors that came with them, close-on-exec.
///
/// Answers 0 bytes when the other side closed. A stream keeps no message borders, but the kernel never joins the bytes
/// of two messages that both carry descriptors.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] when descriptors were lost because this process may not open more.
pub fn recv(socket: impl AsFd, data: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let answer = loop {
        let mut part = [IoSliceMut::new(data)];
        match rustix::net::recvmsg(socket.as_fd(), &mut part, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            answer => break answer?,
        }
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    if answer.flags.contains(rustix::net::ReturnFlags::CTRUNC) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "descriptors were lost on the way: this process may not open more files, raise its limit (ulimit -n)",
        ));
    }
    Ok((answer.bytes, fds))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn descriptors_arrive_and_work() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut kept, given) = UnixStream::pair().unwrap();
        send(&ours, b"hello", &[given.as_fd(), ours.as_fd()]).unwrap();
        let mut data = [0; 16];
        let (count, mut fds) = recv(&theirs, &mut data).unwrap();
        assert_eq!((&data[..count], fds.len()), (&b"hello"[..], 2));
        drop(given);
        kept.write_all(b"x").unwrap();
        let mut received = UnixStream::from(fds.remove(0));
        let mut byte = [0];
        received.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }

    #[test]
    fn what_the_other_end_has_not_read_is_known() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        assert!(all_read(&ours).unwrap());
        ours.write_all(b"head").unwrap();
        assert!(!all_read(&ours).unwrap());
        theirs.read_exact(&mut [0; 4]).unwrap();
        assert!(all_read(&ours).unwrap());
    }

    #[test]
    fn no_byte_no_descriptor() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert_eq!(send(&ours, b"", &[ours.as_fd()]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn closed_peer_is_zero_bytes() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(ours);
        assert_eq!(recv(&theirs, &mut [0; 4]).unwrap().0, 0);
    }
}
