//! The door that a client's files come through, for fuzzers and for the tests that do the same in little. Not for use
//! otherwise.

use std::os::fd::OwnedFd;

use bollard_buildkit_proto::fsutil::types::Packet;
use futures::stream;
use prost::Message as _;
use tokio::sync::mpsc;

use crate::files::{Failure, Folder, Limits, receive};

/// Bytes and entries that a fuzzed transfer may bring.
pub const LIMITS: Limits = Limits { bytes: 1 << 20, entries: 500 };

/// Receives a tree below `into`, which is empty, from packets that each stand behind their length in two bytes, the lower one
/// first; then the client is gone. `previous` is what an earlier transfer brought.
///
/// # Errors
/// What a client would be told.
pub fn files(bytes: &[u8], into: OwnedFd, previous: Option<OwnedFd>) -> Result<(), Failure> {
    let mut packets: Vec<Result<Packet, &str>> = Vec::new();
    let mut rest = bytes;
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let (packet, after) = after.split_at(usize::from(u16::from_le_bytes(*length)).min(after.len()));
        packets.push(Packet::decode(packet).map_err(|_| "no packet"));
        rest = after;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|error| Failure(error.to_string()))?;
    let (outgoing, _requests) = mpsc::unbounded_channel();
    runtime.block_on(receive(Folder::new(into, previous), LIMITS, None, stream::iter(packets), outgoing))
}
