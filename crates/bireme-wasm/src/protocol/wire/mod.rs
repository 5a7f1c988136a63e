//! How messages cross the control socket, and what of them is refused unread.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::{MAX_FDS, Refusal, Request};

/// The most bytes of one message to a host.
const MAX_MESSAGE: usize = 16 << 20;
/// How long the rest of a message may take once its length is there: it is in memory for so long.
const BODY: Duration = Duration::from_secs(20);

/// Writes one message with `fds` attached.
///
/// # Errors
/// Those of the socket; `InvalidInput` for a message or a list of descriptors that is too long.
/// # Cancel safety
/// Not cancel safe: a dropped future may leave half a message behind. Close the connection then.
pub async fn send<T: Serialize>(stream: &UnixStream, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let body = serde_json::to_vec(message).map_err(io::Error::other)?;
    if body.len() > MAX_MESSAGE || fds.len() > MAX_FDS {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the message is too long"));
    }
    let mut bytes = u32::try_from(body.len()).map_err(io::Error::other)?.to_be_bytes().to_vec();
    bytes.extend_from_slice(&body);
    let mut sent = 0;
    while sent < bytes.len() {
        sent += stream
            .async_io(Interest::WRITABLE, || {
                let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                if sent == 0 && !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
                }
                let flags = SendFlags::NOSIGNAL;
                Ok(rustix::net::sendmsg(stream.as_fd(), &[IoSlice::new(&bytes[sent..])], &mut control, flags)?)
            })
            .await?;
    }
    Ok(())
}

/// Reads one message with the descriptors that came with it; `None` when the peer closed instead.
///
/// # Errors
/// Those of the socket; `InvalidData` for anything that is not a message, and for more than [`MAX_FDS`] descriptors.
/// # Cancel safety
/// Not cancel safe: close the connection if the future is dropped.
pub async fn receive<T: for<'de> Deserialize<'de>>(stream: &UnixStream) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut fds = Vec::new();
    let mut take = |bytes: &mut [u8]| -> io::Result<usize> {
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut rest = [IoSliceMut::new(bytes)];
        let got = rustix::net::recvmsg(stream.as_fd(), &mut rest, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        // Each byte may bring as many as the kernel takes at once.
        if fds.len() > MAX_FDS {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "too many descriptors came with a message"));
        }
        Ok(got.bytes)
    };
    let Some(body) = message(stream, MAX_MESSAGE, &mut take).await? else { return Ok(None) };
    Ok(Some((parse(&body)?, fds)))
}

/// Reads the answer to `request`; `None` when the host closed instead. Descriptors that come with it are the kernel's to
/// close: they are not asked for, so they never become the daemon's.
///
/// # Errors
/// As [`receive`]; also for more bytes than the answer to such a request may have.
/// # Cancel safety
/// Not cancel safe: close the connection if the future is dropped.
pub(crate) async fn receive_answer<T: for<'de> Deserialize<'de>>(
    stream: &UnixStream,
    request: &Request,
) -> io::Result<Option<Result<T, Refusal>>> {
    let mut take = |bytes: &mut [u8]| -> io::Result<usize> { Ok(rustix::io::read(stream.as_fd(), bytes)?) };
    let Some(body) = message(stream, request.most(), &mut take).await? else { return Ok(None) };
    parse(&body).map(Some)
}

fn parse<T: for<'de> Deserialize<'de>>(body: &[u8]) -> io::Result<T> {
    serde_json::from_slice(body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Reads the body of one message of at most `most` bytes by `take`, which reads what is there; `None` at end of file.
async fn message(
    stream: &UnixStream,
    most: usize,
    take: &mut impl FnMut(&mut [u8]) -> io::Result<usize>,
) -> io::Result<Option<Vec<u8>>> {
    let mut header = [0u8; 4];
    if !fill(stream, &mut header, take).await? {
        return Ok(None);
    }
    let length = u32::from_be_bytes(header) as usize;
    if length > most {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
    }
    let mut body = vec![0u8; length];
    let filled = tokio::time::timeout(BODY, fill(stream, &mut body, take)).await;
    match filled.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "a message was begun and not ended"))?? {
        true => Ok(Some(body)),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Reads exactly `bytes`, never more, so that what follows stays in the socket. False at end of file before the first.
async fn fill(
    stream: &UnixStream,
    bytes: &mut [u8],
    take: &mut impl FnMut(&mut [u8]) -> io::Result<usize>,
) -> io::Result<bool> {
    let mut filled = 0;
    while filled < bytes.len() {
        let n = stream.async_io(Interest::READABLE, || take(&mut bytes[filled..])).await?;
        if n == 0 {
            return if filled == 0 { Ok(false) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        filled += n;
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
