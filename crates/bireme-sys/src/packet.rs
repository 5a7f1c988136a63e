//! Whole Ethernet frames, sent and received past everything that the kernel would add: what tests of fences stand on.
//!
//! Source: packet(7).

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

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
        let address = libc::sockaddr_ll {
            sll_family: u16::try_from(libc::AF_PACKET).unwrap_or_default(),
            sll_protocol: everything,
            sll_ifindex: index.cast_signed(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
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
