//! What a Redis server may send: measured before any of it becomes a value.
//!
//! The client library reads whatever length it is told into memory, nested a hundred deep. A server that is broken, or
//! that a guest chose, must cost no more than an instance could take: [`Replies`] follows the protocol without keeping
//! any of it, and [`Measured`] is the connection that breaks where it says so.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use futures::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::log::LogHandle;
use crate::stock::Place;

/// Most bytes of a line: a status, an error, a number.
const MAX_LINE: usize = 64 << 10;
/// Most digits of a length, with its sign.
const MAX_DIGITS: usize = 20;
/// Most answers within each other.
const MAX_DEPTH: usize = 32;
/// What one value costs beside its bytes.
const VALUE: u64 = 64;
/// Most bytes of messages that wait for the one who handles them; further ones wait with the server.
const MAX_BACKLOG: u64 = 1 << 20;

/// Most bytes of one message of a server to a workload whose instances may have `memory`: it is in memory thrice before a guest
/// has it, as bytes, as values, and in the guest.
pub(super) fn longest_message(memory: u64) -> u64 {
    (memory / 4).clamp(1 << 20, 64 << 20)
}

/// Follows the answers of a server.
///
/// Source: <https://redis.io/docs/latest/develop/reference/protocol-spec/>, versions 2 and 3.
struct Replies {
    /// Most bytes that one answer may cost.
    limit: u64,
    /// What the answer that has begun costs so far.
    cost: u64,
    at: At,
    /// How many values are still to come in each of the answers that are open, outermost first.
    open: Vec<u64>,
}

#[derive(Clone, Copy)]
enum At {
    /// Before a value.
    Kind,
    /// In a line of which nothing but its end counts.
    Line { length: usize, returned: bool },
    /// In the length of what follows.
    Length { kind: u8, negative: bool, digits: usize, value: u64, returned: bool },
    /// In so many bytes of a string and the line end after it.
    Bytes(u64),
}

impl Replies {
    fn new(limit: u64) -> Self {
        Self { limit, cost: 0, at: At::Kind, open: Vec::new() }
    }

    /// Takes what came. `done` is told the cost of each answer that is whole.
    ///
    /// # Errors
    /// Why nothing more may be read, as the end of a sentence about the server.
    fn push(&mut self, mut bytes: &[u8], mut done: impl FnMut(u64)) -> Result<(), String> {
        while let Some((&byte, rest)) = bytes.split_first() {
            if let At::Bytes(left) = self.at {
                let taken = left.min(bytes.len() as u64);
                self.spend(taken)?;
                bytes = bytes.get(usize::try_from(taken).unwrap_or(usize::MAX)..).unwrap_or_default();
                if taken == left {
                    self.value_is_whole(&mut done);
                } else {
                    self.at = At::Bytes(left - taken);
                }
                continue;
            }
            self.spend(1)?;
            self.step(byte, &mut done)?;
            bytes = rest;
        }
        Ok(())
    }

    fn spend(&mut self, bytes: u64) -> Result<(), String> {
        self.cost = self.cost.saturating_add(bytes);
        self.check(self.cost)
    }

    fn check(&self, cost: u64) -> Result<(), String> {
        if cost <= self.limit {
            return Ok(());
        }
        Err(format!("sends an answer of more than {} MiB, the most that an instance could be given", self.limit >> 20))
    }

    fn step(&mut self, byte: u8, done: &mut impl FnMut(u64)) -> Result<(), String> {
        match self.at {
            At::Kind => {
                self.spend(VALUE)?;
                self.at = match byte {
                    b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => At::Line { length: 0, returned: false },
                    b'$' | b'!' | b'=' | b'*' | b'~' | b'>' | b'%' | b'|' => {
                        At::Length { kind: byte, negative: false, digits: 0, value: 0, returned: false }
                    }
                    other => return Err(format!("does not speak Redis: a value begins with the byte {other:#04x}")),
                };
            }
            At::Line { returned: true, .. } if byte == b'\n' => self.value_is_whole(done),
            At::Line { length, .. } => {
                if length >= MAX_LINE {
                    return Err(format!("sends a line of more than {} KiB", MAX_LINE >> 10));
                }
                self.at = At::Line { length: length + 1, returned: byte == b'\r' };
            }
            At::Length { kind, negative, value, returned: true, .. } if byte == b'\n' => {
                return self.length_is_known(kind, negative, value, done);
            }
            At::Length { kind, negative, digits, value, returned } => {
                let malformed = || "sends a length that is no number".to_owned();
                if returned || digits >= MAX_DIGITS {
                    return Err(malformed());
                }
                let next =
                    |negative, value, returned| At::Length { kind, negative, digits: digits + 1, value, returned };
                self.at = match byte {
                    b'\r' => next(negative, value, true),
                    b'-' | b'+' if digits == 0 => next(byte == b'-', 0, false),
                    b'0'..=b'9' => {
                        let value = value.checked_mul(10).and_then(|value| value.checked_add(u64::from(byte - b'0')));
                        next(negative, value.ok_or_else(malformed)?, false)
                    }
                    _ => return Err(malformed()),
                };
            }
            // Taken by whoever calls this.
            At::Bytes(_) => {}
        }
        Ok(())
    }

    fn length_is_known(
        &mut self,
        kind: u8,
        negative: bool,
        length: u64,
        done: &mut impl FnMut(u64),
    ) -> Result<(), String> {
        if negative && length > 0 {
            // Nothing is there: in version 2, of strings and lists alone.
            return match kind {
                b'$' | b'*' | b'~' | b'>' => {
                    self.value_is_whole(done);
                    Ok(())
                }
                _ => Err("sends a length below zero".to_owned()),
            };
        }
        let values = match kind {
            b'%' => length.checked_mul(2),
            // With the value that the attributes are of.
            b'|' => length.checked_mul(2).and_then(|values| values.checked_add(1)),
            b'*' | b'~' | b'>' => Some(length),
            _ => {
                self.check(self.cost.saturating_add(length))?;
                self.at = At::Bytes(length.saturating_add(2));
                return Ok(());
            }
        };
        let values = values.unwrap_or(u64::MAX);
        self.check(self.cost.saturating_add(values.saturating_mul(VALUE)))?;
        if values == 0 {
            self.value_is_whole(done);
            return Ok(());
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(format!("sends lists within lists, more than {MAX_DEPTH} deep"));
        }
        self.open.push(values);
        self.at = At::Kind;
        Ok(())
    }

    fn value_is_whole(&mut self, done: &mut impl FnMut(u64)) {
        self.at = At::Kind;
        while let Some(left) = self.open.last_mut() {
            *left = left.saturating_sub(1);
            if *left > 0 {
                return;
            }
            self.open.pop();
        }
        done(std::mem::take(&mut self.cost));
    }
}

/// What was read of a subscription and is not handled yet.
#[derive(Default)]
pub(crate) struct Backlog {
    waiting: Mutex<Waiting>,
    reader: AtomicWaker,
}

struct Waiting {
    /// What each message costs, oldest first.
    costs: VecDeque<u64>,
    sum: u64,
    /// When the server last sent anything.
    heard: Instant,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { costs: VecDeque::new(), sum: 0, heard: Instant::now() }
    }
}

impl Backlog {
    fn lock(&self) -> parking_lot::MutexGuard<'_, Waiting> {
        self.waiting.lock()
    }

    fn read(&self, cost: u64) {
        let mut waiting = self.lock();
        waiting.costs.push_back(cost);
        waiting.sum = waiting.sum.saturating_add(cost);
    }

    fn is_full(&self, waker: &Waker) -> bool {
        let full = || self.lock().sum >= MAX_BACKLOG;
        if !full() {
            return false;
        }
        self.reader.register(waker);
        full()
    }

    /// Begins to count: what was read until now were answers to what sets a connection up, and hardly more.
    pub(crate) fn begin(&self) {
        let mut waiting = self.lock();
        waiting.costs.clear();
        waiting.sum = 0;
        drop(waiting);
        self.reader.wake();
    }

    /// One message, or one answer, was taken out of it.
    pub(crate) fn taken(&self) {
        let mut waiting = self.lock();
        if let Some(cost) = waiting.costs.pop_front() {
            waiting.sum = waiting.sum.saturating_sub(cost);
        }
        drop(waiting);
        self.reader.wake();
    }

    /// When the server last sent anything that was read.
    pub(crate) fn heard(&self) -> Instant {
        self.lock().heard
    }
}

/// Bytes of answers that have begun, of all connections of one workload.
#[derive(Clone, Default)]
pub(crate) struct UnderWay(Arc<AtomicU64>);

/// A connection to a Redis server that breaks when it is sent more than it may be.
pub(crate) struct Measured {
    stream: TcpStream,
    replies: Replies,
    /// What of [`UnderWay`] is of this connection.
    counted: u64,
    under_way: UnderWay,
    /// Most bytes that all connections of the workload may have under way.
    limit: u64,
    backlog: Option<Arc<Backlog>>,
    log: LogHandle,
    host: String,
    /// Of what the component may have open, where it chose to connect.
    _place: Option<Place>,
}

impl Measured {
    /// `limit` is the memory that one instance of the workload may have.
    pub(crate) fn new(
        stream: TcpStream,
        host: &str,
        limit: u64,
        under_way: UnderWay,
        backlog: Option<Arc<Backlog>>,
        log: LogHandle,
        place: Option<Place>,
    ) -> Self {
        let replies = Replies::new(longest_message(limit));
        Self { stream, replies, counted: 0, under_way, limit, backlog, log, host: host.to_owned(), _place: place }
    }

    fn measure(&mut self, bytes: &[u8]) -> Result<(), String> {
        let backlog = self.backlog.as_deref();
        let measured = self.replies.push(bytes, |cost| {
            if let Some(backlog) = backlog {
                backlog.read(cost);
            }
        });
        if let Some(backlog) = backlog {
            backlog.lock().heard = Instant::now();
        }
        let (before, now) = (self.counted, self.replies.cost);
        self.counted = now;
        let all = if now >= before {
            self.under_way.0.fetch_add(now - before, Ordering::Relaxed).saturating_add(now - before)
        } else {
            self.under_way.0.fetch_sub(before - now, Ordering::Relaxed).saturating_sub(before - now)
        };
        measured?;
        if all > self.limit {
            return Err(format!(
                "and others send more than {} MiB at the same time, the memory limit of the component",
                self.limit >> 20
            ));
        }
        Ok(())
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        self.under_way.0.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

impl AsyncRead for Measured {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.backlog.as_ref().is_some_and(|backlog| backlog.is_full(cx.waker())) {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        let came = buffer.filled().get(before..).unwrap_or_default();
        if let Err(why) = this.measure(came) {
            let text = format!("the Redis server {} {why}; the connection was closed", this.host);
            this.log.note(&format!("bireme: {text}"));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, text)));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Measured {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: u64 = 1 << 20;

    /// How many whole answers `text` holds.
    fn whole(text: &[u8]) -> Result<usize, String> {
        let mut count = 0;
        Replies::new(LIMIT).push(text, |_| count += 1).map(|()| count)
    }

    #[test]
    fn answers_of_both_versions_are_followed() {
        for (text, expected) in [
            ("+OK\r\n", 1),
            ("-ERR no\r\n:7\r\n", 2),
            ("$5\r\nhello\r\n", 1),
            ("$0\r\n\r\n$-1\r\n*-1\r\n*0\r\n", 4),
            ("*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\n\r\n\r\n", 1),
            ("*2\r\n*1\r\n:1\r\n*2\r\n+a\r\n+b\r\n+next\r\n", 2),
            ("%1\r\n+k\r\n+v\r\n", 1),
            ("|1\r\n+k\r\n+v\r\n+value\r\n", 1),
            (">2\r\n+message\r\n_\r\n~1\r\n#t\r\n,1.5\r\n(12345678901234567890\r\n", 4),
            ("=7\r\ntxt:abc\r\n!3\r\nERR\r\n", 2),
            ("+a\rb\nc\r\n", 1),
            ("$5\r\nhel", 0),
            ("*2\r\n+a\r\n", 0),
        ] {
            assert_eq!(whole(text.as_bytes()), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn what_costs_too_much_is_refused_before_it_comes() {
        for (text, why) in [
            ("$1073741824\r\n", "more than 1 MiB"),
            ("$9223372036854775807\r\n", "more than 1 MiB"),
            ("*9223372036854775807\r\n", "more than 1 MiB"),
            ("%9223372036854775807\r\n", "more than 1 MiB"),
            ("|9223372036854775807\r\n", "more than 1 MiB"),
            ("|18446744073709551616\r\n", "no number"),
            ("*99999999999999999999999\r\n", "no number"),
            ("*1\r1", "no number"),
            ("$x\r\n", "no number"),
            ("=-1\r\n", "below zero"),
            ("HTTP/1.1 200 OK\r\n", "does not speak Redis"),
        ] {
            let refused = whole(text.as_bytes()).unwrap_err();
            assert!(refused.contains(why), "{text:?}: {refused}");
        }
        assert!(whole("*1\r\n".repeat(33).as_bytes()).unwrap_err().contains("32 deep"));
        assert!(whole(&[b"+", vec![b'x'; 70_000].as_slice()].concat()).unwrap_err().contains("64 KiB"));
        // Much that is small.
        let many = [b"*10000\r\n".as_slice(), "+\r\n".repeat(10_000).as_bytes()].concat();
        assert_eq!(whole(&many), Ok(1));
        let more = [b"*2\r\n".as_slice(), &many, b"*10000\r\n"].concat();
        assert!(whole(&more).unwrap_err().contains("more than 1 MiB"));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_bytes_are_cut(
            text in "([+:$*%|~>=!-]{1}-?[0-9]{0,3}\r\n[a-z]{0,4}(\r\n)?){0,8}",
            at in proptest::collection::vec(0usize..100, 0..8),
        ) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = at.into_iter().map(|at| at.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut replies = Replies::new(LIMIT);
            let mut count = 0;
            let parts = cuts.windows(2).try_for_each(|cut| replies.push(&bytes[cut[0]..cut[1]], |_| count += 1));
            prop_assert_eq!(parts.map(|()| count), whole(bytes));
        }
    }

    #[test]
    fn a_backlog_is_full_until_it_is_taken_from() {
        let backlog = Backlog::default();
        backlog.read(10);
        assert!(!backlog.is_full(Waker::noop()));
        backlog.read(MAX_BACKLOG);
        assert!(backlog.is_full(Waker::noop()));
        backlog.taken();
        assert!(backlog.is_full(Waker::noop()), "the large one is still there");
        backlog.taken();
        backlog.taken();
        assert!(!backlog.is_full(Waker::noop()));
    }
}
