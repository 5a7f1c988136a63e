//! The door that a client's files come through, for fuzzers and for the tests that do the same in little. Not for use
//! otherwise.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;

use bollard_buildkit_proto::fsutil::types::Packet;
use futures::stream;
use prost::Message as _;
use tokio::sync::mpsc;

use crate::files::{Failure, Folder, Limits, receive};

/// Bytes and entries that a fuzzed transfer may bring.
pub const LIMITS: Limits = Limits { bytes: 1 << 20, entries: 500 };

/// Receives a tree from packets that each stand behind their length in two bytes, the lower one first; then the client is gone.
/// What an earlier transfer brought is there: a file `f`, and a link `l` to a file beside. All of it is made in `outer`, which
/// is empty.
///
/// # Panics
/// When anything changes beside the folder that receives, or folders and files cannot be made.
pub fn files(bytes: &[u8], outer: &Path) {
    let [into, before, victim] = ["into", "before", "victim"].map(|name| outer.join(name));
    for folder in [&into, &before] {
        fs::create_dir(folder).expect("a folder can be made");
    }
    fs::write(before.join("f"), "before").expect("a file can be written");
    symlink("../victim", before.join("l")).expect("a link can be made");
    fs::write(&victim, "untouched").expect("a file can be written");
    let open = |path: &Path| OwnedFd::from(File::open(path).expect("the folder can be opened"));
    let _ = transfer(bytes, open(&into), open(&before));
    assert_eq!(fs::read(&victim).expect("the file is there"), b"untouched");
    assert_eq!(fs::metadata(&victim).expect("the file is there").nlink(), 1);
    assert_eq!(fs::read(before.join("f")).expect("the file is there"), b"before");
    assert_eq!(fs::read_dir(outer).expect("the folder can be listed").count(), 3);
}

fn transfer(bytes: &[u8], into: OwnedFd, previous: OwnedFd) -> Result<(), Failure> {
    let mut packets: Vec<Result<Packet, &str>> = Vec::new();
    let mut rest = bytes;
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let (packet, after) = after.split_at(usize::from(u16::from_le_bytes(*length)).min(after.len()));
        packets.push(Packet::decode(packet).map_err(|_| "no packet"));
        rest = after;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|error| Failure(error.to_string()))?;
    let (outgoing, _requests) = mpsc::unbounded_channel();
    runtime.block_on(receive(Folder::new(into, Some(previous)), LIMITS, None, stream::iter(packets), outgoing))
}
