//! Netlink: the messages by which the kernel's networking is configured.
//!
//! The kernel carries a request out while it is sent, so all answers stand ready when sending returns: a blocking
//! socket costs no more than the work itself. Several messages may be sent at once ([`Socket::request`]).
//!
//! Source: netlink(7), RFC 3549; extended acknowledgements in `include/uapi/linux/netlink.h`.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, sockopt};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
pub(crate) const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
pub(crate) const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;
const NLMSGERR_ATTR_MSG: u16 = 1;
const HEADER: usize = 16;

/// Which part of the kernel a socket speaks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subsystem {
    /// Links, addresses, routes.
    Route,
    /// nf_tables.
    Netfilter,
}

/// The kernel refused a request, or could not be reached.
#[derive(Debug)]
pub struct Refused {
    /// Which message of those sent at once, from 0.
    pub index: usize,
    /// Why. What failed before the kernel was asked has the number of that.
    pub errno: Errno,
    /// What the kernel says about it beyond the number.
    pub detail: Option<String>,
}

impl Refused {
    /// Whether a capability is missing.
    pub fn is_permission(&self) -> bool {
        matches!(self.errno, Errno::PERM | Errno::ACCESS)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", io::Error::from(self.errno))?;
        match &self.detail {
            Some(detail) => write!(f, " ({detail})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Refused {}

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Self {
        Self { index: 0, errno, detail: None }
    }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
        Self { index: 0, errno, detail: None }
    }
}

/// One message being written. Attributes are padded to four bytes, as the protocol demands.
#[derive(Clone, Debug)]
pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A message of type `kind` that begins with the fixed part `head`.
    pub(crate) fn new(kind: u16, flags: u16, head: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        let mut message = Self { bytes };
        message.raw(head);
        message
    }

    /// Appends bytes that are no attribute: the fixed part of a nested message.
    pub(crate) fn raw(&mut self, data: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(data);
        self.pad()
    }

    pub(crate) fn bytes(&mut self, kind: u16, data: &[u8]) -> &mut Self {
        let length = u16::try_from(data.len() + 4).expect("attributes of ours are shorter than 64 KiB");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.raw(data)
    }

    /// A text with its final zero byte.
    pub(crate) fn text(&mut self, kind: u16, text: &str) -> &mut Self {
        let mut data = Vec::with_capacity(text.len() + 1);
        data.extend_from_slice(text.as_bytes());
        data.push(0);
        self.bytes(kind, &data)
    }

    /// A number in the machine's byte order, as rtnetlink has them.
    pub(crate) fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// A number in the network's byte order, as nf_tables has them.
    pub(crate) fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        fill(self);
        let length = u16::try_from(self.bytes.len() - start).expect("attributes of ours are shorter than 64 KiB");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes[start + 2..start + 4].copy_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        self
    }

    /// What a receiver is given of it.
    #[cfg(test)]
    pub(crate) fn body(&self) -> &[u8] {
        &self.bytes[HEADER..]
    }

    fn pad(&mut self) -> &mut Self {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    fn finish(&self, out: &mut Vec<u8>, sequence: u32, flags: u16) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let length = u32::try_from(self.bytes.len()).expect("messages of ours are shorter than 4 GiB");
        out[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        let flags = flags | u16_at(&self.bytes, 6);
        out[start + 6..start + 8].copy_from_slice(&flags.to_ne_bytes());
        out[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
    }
}

/// A connection to the kernel, bound for good to the network namespace it was opened in.
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// One message received.
struct Answer<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    /// The number of the socket whose request it answers or tells of.
    number: u32,
    body: &'a [u8],
}

impl Socket {
    /// # Errors
    /// As socket(2).
    pub fn open(subsystem: Subsystem) -> io::Result<Self> {
        let protocol = match subsystem {
            Subsystem::Route => None,
            Subsystem::Netfilter => Some(netlink::NETFILTER),
        };
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        // A guard only: the kernel answers before sending returns.
        sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(Duration::from_secs(10)))?;
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
            set_option(&fd, option)?;
        }
        if subsystem == Subsystem::Netfilter {
            // A transaction is one message to the kernel, however many ports it holds. Needs CAP_NET_ADMIN; whoever
            // lacks it is told so by the first request.
            let _ = sockopt::set_socket_send_buffer_size_force(&fd, 16 << 20);
        }
        Ok(Self { fd, sequence: 0, buffer: vec![0; 64 << 10] })
    }

    /// Sends all `messages` at once and waits for each to be acknowledged. The kernel carries them out in order and
    /// goes on after one that fails; the first failure is answered.
    ///
    /// # Errors
    /// `EPERM` without the capability that a message needs; `EAGAIN` where the kernel does not answer within ten seconds;
    /// otherwise what the kernel refused first, as netlink(7) and the caller's messages have it.
    pub fn request(&mut self, messages: &[Message]) -> Result<(), Refused> {
        if messages.is_empty() {
            return Ok(());
        }
        let first = self.send(messages, |_| NLM_F_ACK)?;
        let mut failed = None;
        let mut open = messages.len();
        while open > 0 {
            self.receive(|answer| {
                let index = answer.sequence.wrapping_sub(first) as usize;
                if answer.kind == NLMSG_ERROR && index < messages.len() {
                    open = open.saturating_sub(1);
                    if let Some(refused) = refusal(&answer, index) {
                        failed.get_or_insert(refused);
                    }
                }
            })?;
        }
        failed.map_or(Ok(()), Err)
    }

    /// Sends `messages` as one transaction: the first and the last are its borders, the last but one is acknowledged.
    /// All are carried out or none.
    pub(crate) fn transaction(&mut self, messages: &[Message]) -> Result<(), Refused> {
        let acknowledged = messages.len() - 2;
        let first = self.send(messages, |index| if index == acknowledged { NLM_F_ACK } else { 0 })?;
        let mut failed = None;
        let mut done = false;
        while !done {
            self.receive(|answer| {
                let index = answer.sequence.wrapping_sub(first) as usize;
                if answer.kind == NLMSG_ERROR && index < messages.len() {
                    if let Some(refused) = refusal(&answer, index) {
                        failed.get_or_insert(refused);
                    }
                    // An answer to the border speaks for the whole: no right to do it, or the commit failed.
                    done |= index == 0 || index >= acknowledged;
                }
            })?;
        }
        failed.map_or(Ok(()), Err)
    }

    /// Sends one request whose answer is a message, which `read` is given without its header.
    pub(crate) fn get<T>(
        &mut self,
        message: &Message,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, Refused> {
        let sequence = self.send(std::slice::from_ref(message), |_| 0)?;
        let (mut found, mut failed, mut done) = (None, None, false);
        while !done {
            self.receive(|answer| {
                if answer.sequence == sequence {
                    done = true;
                    match answer.kind {
                        NLMSG_ERROR => failed = refusal(&answer, 0),
                        _ => found = read(answer.body),
                    }
                }
            })?;
        }
        failed.map_or(Ok(found), Err)
    }

    /// Sends one request that is answered by a list; `read` is given each without its header.
    pub(crate) fn dump<T>(&mut self, message: &Message, read: impl Fn(&[u8]) -> Option<T>) -> Result<Vec<T>, Refused> {
        // The kernel says when the list changed while it was read: read it again, but not for ever.
        for _ in 0..20 {
            let sequence = self.send(std::slice::from_ref(message), |_| NLM_F_DUMP)?;
            let (mut found, mut failed, mut done, mut torn) = (vec![], None, false, false);
            while !done {
                self.receive(|answer| {
                    if answer.sequence == sequence {
                        torn |= answer.flags & NLM_F_DUMP_INTR != 0;
                        match answer.kind {
                            NLMSG_DONE => done = true,
                            NLMSG_ERROR => {
                                done = true;
                                failed = refusal(&answer, 0);
                            }
                            _ => found.extend(read(answer.body)),
                        }
                    }
                })?;
            }
            match failed {
                Some(refused) => return Err(refused),
                None if torn => {}
                None => return Ok(found),
            }
        }
        Err(Errno::INTR.into())
    }

    fn send(&mut self, messages: &[Message], flags: impl Fn(usize) -> u16) -> Result<u32, Refused> {
        let first = self.sequence.wrapping_add(1);
        let mut out = Vec::with_capacity(messages.iter().map(|message| message.bytes.len()).sum());
        for (index, message) in messages.iter().enumerate() {
            self.sequence = self.sequence.wrapping_add(1);
            message.finish(&mut out, self.sequence, flags(index));
        }
        rustix::io::retry_on_intr(|| rustix::net::send(&self.fd, &out, SendFlags::empty()))?;
        Ok(first)
    }

    fn receive(&mut self, mut each: impl FnMut(Answer<'_>)) -> Result<(), Refused> {
        let (_, count) =
            rustix::io::retry_on_intr(|| rustix::net::recv(&self.fd, &mut self.buffer[..], RecvFlags::TRUNC))?;
        Ok(split(self.buffer.get(..count).ok_or(Errno::MSGSIZE)?, &mut each)?)
    }

    /// The number by which the kernel tells this socket's doings from those of others. The kernel gives it at the first
    /// request; 0 before.
    ///
    /// # Errors
    /// As getsockname(2).
    pub fn number(&self) -> io::Result<u32> {
        Ok(netlink::SocketAddrNetlink::try_from(rustix::net::getsockname(&self.fd)?)?.pid())
    }
}

/// Hears what the kernel tells a group of listeners, in the network namespace it was opened in. Does not block.
pub(crate) struct Listener {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

impl Listener {
    /// Of the netfilter subsystem.
    pub(crate) fn open(group: u32) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let protocol = Some(netlink::NETFILTER);
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        // What others change in one transaction comes at once. Less is enough, and what is lost is told.
        let _ = sockopt::set_socket_recv_buffer_size_force(&fd, 4 << 20);
        rustix::net::bind(&fd, &netlink::SocketAddrNetlink::new(0, 1 << (group - 1)))?;
        Ok(Self { fd, buffer: vec![0; 64 << 10] })
    }

    /// Gives `each` the kind, the causing socket's number and the body of every message that waits together.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] where nothing waits; `ENOBUFS` where something was lost.
    pub(crate) fn receive(&mut self, mut each: impl FnMut(u16, u32, &[u8])) -> io::Result<()> {
        let (_, count) =
            rustix::io::retry_on_intr(|| rustix::net::recv(&self.fd, &mut self.buffer[..], RecvFlags::TRUNC))?;
        let whole = self.buffer.get(..count).ok_or(Errno::NOBUFS)?;
        Ok(split(whole, &mut |answer| each(answer.kind, answer.number, answer.body))?)
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Each of the messages that came together.
fn split(mut rest: &[u8], each: &mut impl FnMut(Answer<'_>)) -> Result<(), Errno> {
    while rest.len() >= HEADER {
        let length = u32_at(rest, 0) as usize;
        if length < HEADER || length > rest.len() {
            return Err(Errno::BADMSG);
        }
        each(Answer {
            kind: u16_at(rest, 4),
            flags: u16_at(rest, 6),
            sequence: u32_at(rest, 8),
            number: u32_at(rest, 12),
            body: &rest[HEADER..length],
        });
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
    Ok(())
}

fn set_option(fd: &OwnedFd, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the pointer and the length are those of `on`, which outlives the call; the descriptor is open.
    #[expect(unsafe_code, reason = "rustix has no netlink options")]
    let answer = unsafe {
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_NETLINK, option, (&raw const on).cast(), size_of_val(&on) as u32)
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The failure that an acknowledgement tells of; `None` when it is success.
fn refusal(answer: &Answer<'_>, index: usize) -> Option<Refused> {
    let code = i32::from_ne_bytes(answer.body.get(..4)?.try_into().ok()?);
    if code == 0 {
        return None;
    }
    let mut detail = None;
    if answer.flags & NLM_F_ACK_TLVS != 0 {
        let echoed = if answer.flags & NLM_F_CAPPED != 0 { HEADER } else { u32_at(answer.body.get(4..)?, 0) as usize };
        if let Some(rest) = answer.body.get(4 + echoed.next_multiple_of(4)..) {
            detail = Attributes(rest).find(NLMSGERR_ATTR_MSG).map(text_of);
        }
    }
    Some(Refused { index, errno: Errno::from_raw_os_error(code.wrapping_neg()), detail })
}

/// Attributes of a message received.
#[derive(Clone, Copy)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Attributes<'a> {
    pub(crate) fn find(mut self, kind: u16) -> Option<&'a [u8]> {
        Iterator::find(&mut self, |(found, _)| *found == kind).map(|(_, data)| data)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.len() < 4 {
            return None;
        }
        let length = usize::from(u16_at(self.0, 0));
        if length < 4 || length > self.0.len() {
            return None;
        }
        let item = (u16_at(self.0, 2) & NLA_TYPE_MASK, &self.0[4..length]);
        self.0 = &self.0[length.next_multiple_of(4).min(self.0.len())..];
        Some(item)
    }
}

pub(crate) fn text_of(data: &[u8]) -> String {
    String::from_utf8_lossy(data.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

pub(crate) fn u32_of(data: &[u8]) -> Option<u32> {
    data.get(..4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// Callers checked the length.
pub(crate) fn u16_at(data: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([data[at], data[at + 1]])
}

/// Callers checked the length.
pub(crate) fn u32_at(data: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]])
}
