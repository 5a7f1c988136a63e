//! Packets to and from a MySQL server.

use mysql_common::constants::MAX_PAYLOAD_LEN;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};

use crate::host::server::Stream;

/// A connection that speaks in packets: three bytes of length, a number that counts them, the payload. A payload of the
/// greatest length goes on in the next packet.
///
/// Source: "MySQL Packets" in MySQL's internals.
pub(super) struct Packets {
    stream: BufReader<Stream>,
    next: u8,
    /// Most bytes of one payload.
    limit: usize,
}

impl Packets {
    pub(super) fn new(stream: Stream, limit: usize) -> Self {
        Self { stream: BufReader::new(stream), next: 0, limit }
    }

    /// The connection, of which nothing may have been read ahead.
    ///
    /// # Errors
    /// A sentence where something was: whoever sent it did not wait for TLS.
    pub(super) fn into_stream(self) -> Result<(Stream, u8), String> {
        if self.stream.buffer().is_empty() {
            Ok((self.stream.into_inner(), self.next))
        } else {
            Err("the server sends more than it was asked for".to_owned())
        }
    }

    /// The same on another connection, in the middle of a count.
    pub(super) fn going_on(stream: Stream, next: u8, limit: usize) -> Self {
        Self { next, ..Self::new(stream, limit) }
    }

    /// Begins a command, from which packets are counted anew.
    pub(super) fn begin(&mut self) {
        self.next = 0;
    }

    pub(super) async fn write(&mut self, mut payload: &[u8]) -> std::io::Result<()> {
        loop {
            let (part, rest) = payload.split_at(payload.len().min(MAX_PAYLOAD_LEN));
            let length = (part.len() as u32).to_le_bytes();
            let mut packet = Vec::with_capacity(4 + part.len());
            packet.extend_from_slice(&[length[0], length[1], length[2], self.next]);
            packet.extend_from_slice(part);
            self.next = self.next.wrapping_add(1);
            self.stream.get_mut().write_all(&packet).await?;
            payload = rest;
            if part.len() < MAX_PAYLOAD_LEN {
                return self.stream.get_mut().flush().await;
            }
        }
    }

    pub(super) async fn read(&mut self) -> std::io::Result<Vec<u8>> {
        let mut payload = Vec::new();
        loop {
            let mut head = [0u8; 4];
            self.stream.read_exact(&mut head).await?;
            let length = u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize;
            self.next = head[3].wrapping_add(1);
            if payload.len() + length > self.limit {
                return Err(std::io::Error::other(format!(
                    "the server sends a packet of more than {} MiB, the most that an instance could be given",
                    self.limit >> 20
                )));
            }
            // Room is made for what is there, and not for what is said to come.
            let read = (&mut self.stream).take(length as u64).read_to_end(&mut payload).await?;
            if read < length {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if length < MAX_PAYLOAD_LEN {
                return Ok(payload);
            }
        }
    }

    pub(super) fn stream(&self) -> &Stream {
        self.stream.get_ref()
    }

    /// Whether nothing was sent that nobody asked for.
    pub(super) fn is_quiet(&self) -> bool {
        self.stream.buffer().is_empty() && self.stream.get_ref().is_quiet()
    }
}
