//! What a PostgreSQL server may send: measured before any of it becomes a message.
//!
//! The client library reads a message of whatever length it is told into memory. A server that is broken, or that a guest
//! chose, must cost no more than an instance could be given.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::host::server::Stream;

/// Most bytes of settings that a server may tell of itself, each of which is kept.
const SETTINGS: usize = 64 << 10;
/// Most statements that a server may finish in one step of the client, which asks for types that it does not know one by one,
/// each within the one before.
const ANSWERS: usize = 256;
/// The kinds of such messages.
const SETTING: u8 = b'S';
const READY: u8 = b'Z';

/// What a server told so far.
#[derive(Default)]
pub(super) struct Told {
    settings: AtomicUsize,
    answers: AtomicUsize,
}

impl Told {
    /// The client begins another step.
    pub(super) fn begin(&self) {
        self.answers.store(0, Relaxed);
    }

    /// Whether another guest may have the session before it breaks.
    pub(super) fn may_go_on(&self) -> bool {
        self.settings.load(Relaxed) < SETTINGS / 2
    }
}

/// Follows the messages of a server without keeping any of them: a byte of kind, the length with itself, the rest.
///
/// Source: PostgreSQL's documentation, "Message Formats".
struct Frames {
    limit: usize,
    told: Arc<Told>,
    at: At,
}

enum At {
    Kind,
    Length { kind: u8, read: u8, value: u32 },
    Rest(usize),
}

impl Frames {
    /// # Errors
    /// Why nothing more may be read, as the end of a sentence about the server.
    fn push(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while let Some((&byte, rest)) = bytes.split_first() {
            match &mut self.at {
                At::Kind => self.at = At::Length { kind: byte, read: 0, value: 0 },
                At::Length { kind, read, value } => {
                    *value = *value << 8 | u32::from(byte);
                    *read += 1;
                    if *read == 4 {
                        let (kind, length) = (*kind, *value as usize);
                        self.begin(kind, length)?;
                    }
                }
                At::Rest(left) => {
                    let taken = (*left).min(bytes.len());
                    *left -= taken;
                    if *left == 0 {
                        self.at = At::Kind;
                    }
                    bytes = bytes.get(taken..).unwrap_or_default();
                    continue;
                }
            }
            bytes = rest;
        }
        Ok(())
    }

    fn begin(&mut self, kind: u8, length: usize) -> Result<(), String> {
        if length > self.limit {
            let most = self.limit >> 20;
            return Err(format!("sends a message of more than {most} MiB, the most that an instance could be given"));
        }
        if kind == SETTING && self.told.settings.fetch_add(length, Relaxed) > SETTINGS {
            return Err(format!("tells more than {} KiB of settings", SETTINGS >> 10));
        }
        if kind == READY && self.told.answers.fetch_add(1, Relaxed) > ANSWERS {
            return Err(format!("has types of more than {ANSWERS} other types"));
        }
        let rest = length.checked_sub(4).ok_or("sends a message that is shorter than its length")?;
        self.at = if rest == 0 { At::Kind } else { At::Rest(rest) };
        Ok(())
    }
}

/// The connection, which breaks where the server sends too much.
pub(super) struct Measured {
    stream: Stream,
    frames: Frames,
}

impl Measured {
    pub(super) fn new(stream: Stream, limit: usize, told: Arc<Told>) -> Self {
        Self { stream, frames: Frames { limit, told, at: At::Kind } }
    }
}

impl AsyncRead for Measured {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, into))?;
        let measured = self.frames.push(&into.filled()[before..]);
        Poll::Ready(measured.map_err(|what| io::Error::other(format!("the server {what}"))))
    }
}

impl AsyncWrite for Measured {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(kind: u8, body: usize) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend_from_slice(&(body as u32 + 4).to_be_bytes());
        bytes.resize(5 + body, b'x');
        bytes
    }

    fn frames() -> Frames {
        Frames { limit: 100 << 10, told: Arc::default(), at: At::Kind }
    }

    #[test]
    fn what_is_too_much_is_told_before_it_is_read() {
        assert!(frames().push(&message(b'D', 90 << 10)).is_ok());
        // Its length alone is enough.
        assert!(frames().push(&message(b'D', 101 << 10)[..5]).unwrap_err().contains("a message of more than"));
        assert!(frames().push(&[b'D', 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(frames().push(&[b'D', 0, 0, 0, 3]).is_err());
        let mut chatty = frames();
        assert!((0..100).any(|_| chatty.push(&message(SETTING, 1000)).is_err()));
        let mut nested = frames();
        assert!((0..ANSWERS).all(|_| nested.push(&message(READY, 1)).is_ok()));
        nested.told.begin();
        assert!((0..2 * ANSWERS).any(|_| nested.push(&message(READY, 1)).is_err()));
    }

    proptest! {
        #[test]
        fn it_makes_no_difference_how_messages_are_cut(sizes in proptest::collection::vec(0usize..300, 1..20), cut in 1usize..70) {
            let all: Vec<u8> = sizes.iter().flat_map(|size| message(b'D', *size)).collect();
            let mut frames = frames();
            for part in all.chunks(cut) {
                prop_assert!(frames.push(part).is_ok());
            }
            prop_assert!(matches!(frames.at, At::Kind));
        }
    }
}
