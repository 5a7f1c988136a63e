//! The receiving end: drives a [`Receive`] with what a sender says.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use futures::{Stream, StreamExt as _};
use tokio::sync::mpsc;

use super::entry::{Entry, EntryKind};
use super::order::Order;

/// How many files are asked for before their content is there. Bounds what a receiver has open; the sender's own pace is
/// set by the connection.
const IN_FLIGHT: usize = 256;
/// How many packets (of 32 KiB, as clients send them) wait for the receiver.
const AHEAD: usize = 32;

/// Whether the content of a file is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// It is asked for, and given to [`Receive::data`].
    Want,
    /// The receiver has it (the same file of an earlier transfer), or has no use for it.
    Have,
}

/// Why a transfer was given up; a sentence for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

/// What comes of a tree of files that comes in.
///
/// The calls come from one thread, which may block. Paths are safe: below the root, in order, each folder before what is in
/// it, none twice, none below anything but a folder; a hard link names a file that came earlier.
pub trait Receive: Send + 'static {
    /// What [`finish`](Self::finish) makes of it.
    type Done: Send + 'static;

    /// The next entry of the walk. The answer counts for files alone.
    ///
    /// # Errors
    /// What it fails with ends the transfer.
    fn entry(&mut self, index: u32, entry: &Entry) -> Result<Content, Failure>;

    /// The next bytes of the file that is entry `index`, which was wanted. Bytes of several files come mixed.
    ///
    /// # Errors
    /// What it fails with ends the transfer.
    fn data(&mut self, index: u32, bytes: &[u8]) -> Result<(), Failure>;

    /// The file that is entry `index` is complete. Its length may differ from what the walk said, if it changed meanwhile.
    ///
    /// # Errors
    /// What it fails with ends the transfer.
    fn end(&mut self, index: u32) -> Result<(), Failure>;

    /// All is there. Not called after a failure: then the receiver is dropped as it is.
    ///
    /// # Errors
    /// What it fails with is the transfer's failure.
    fn finish(self) -> Result<Self::Done, Failure>;
}

/// How much may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of content.
    pub bytes: u64,
    /// Entries.
    pub entries: u32,
}

impl Default for Limits {
    /// 64 GiB in a million entries.
    fn default() -> Self {
        Self { bytes: 64 << 30, entries: 1_000_000 }
    }
}

/// Receives one tree: takes the sender's packets from `incoming`, puts ours into `outgoing`, counts bytes of content into
/// `transferred`.
///
/// Dropping the future ends the receiver's thread at the next packet.
///
/// # Errors
/// When the sender breaks the protocol or a limit, tells of a failure of its own or goes away; when the receiver fails.
pub(crate) async fn receive<R, S, E>(
    mut receiver: R,
    limits: Limits,
    transferred: Option<Arc<AtomicU64>>,
    mut incoming: S,
    outgoing: mpsc::UnboundedSender<Packet>,
) -> Result<R::Done, Failure>
where
    R: Receive,
    S: Stream<Item = Result<Packet, E>> + Unpin,
    E: std::fmt::Display,
{
    let (ahead, mut packets) = mpsc::channel::<Packet>(AHEAD);
    let worker = tokio::task::spawn_blocking(move || {
        let mut state = Receiving::new(limits, transferred);
        while let Some(packet) = packets.blocking_recv() {
            for answer in state.take(packet, &mut receiver)? {
                // A connection that is gone shows itself by the end of what comes in.
                let _ = outgoing.send(answer);
            }
            if state.finished {
                return receiver.finish().map(Some);
            }
        }
        Ok(None)
    });
    let mut broken = None;
    loop {
        let packet = tokio::select! {
            packet = incoming.next() => packet,
            // The worker has failed, or has all.
            () = ahead.closed() => break,
        };
        match packet {
            Some(Ok(packet)) => {
                if ahead.send(packet).await.is_err() {
                    break;
                }
            }
            Some(Err(error)) => {
                broken = Some(error.to_string());
                break;
            }
            None => break,
        }
    }
    drop(ahead);
    match worker.await {
        Ok(Ok(Some(done))) => Ok(done),
        Ok(Ok(None)) => Err(Failure(match broken {
            Some(error) => format!("the client broke the transfer of files off: {error}"),
            None => "the client ended the transfer of files before all was there".to_owned(),
        })),
        Ok(Err(failure)) => Err(failure),
        Err(_) => Err(Failure("a defect of this engine ended the transfer of files".to_owned())),
    }
}

/// Where a transfer is: pure but for what the receiver does.
struct Receiving {
    order: Order,
    limits: Limits,
    transferred: Option<Arc<AtomicU64>>,
    /// The number of the next entry.
    next: u32,
    bytes: u64,
    /// Wanted and not asked for yet.
    waiting: VecDeque<u32>,
    /// Asked for and not complete.
    asked: HashSet<u32>,
    walked: bool,
    /// We said that we have all.
    fin_sent: bool,
    /// So did the sender.
    finished: bool,
}

impl Receiving {
    fn new(limits: Limits, transferred: Option<Arc<AtomicU64>>) -> Self {
        Self {
            order: Order::default(),
            limits,
            transferred,
            next: 0,
            bytes: 0,
            waiting: VecDeque::new(),
            asked: HashSet::new(),
            walked: false,
            fin_sent: false,
            finished: false,
        }
    }

    /// Takes one packet and answers with those to be sent.
    fn take<R: Receive>(&mut self, packet: Packet, receiver: &mut R) -> Result<Vec<Packet>, Failure> {
        match packet.r#type() {
            PacketType::PacketStat => match packet.stat {
                Some(stat) => self.entry(stat, receiver)?,
                None if self.walked => return Err(broken("it ended its walk twice")),
                None => self.walked = true,
            },
            PacketType::PacketData => self.data(packet.id, &packet.data, receiver)?,
            PacketType::PacketFin if self.fin_sent => self.finished = true,
            PacketType::PacketFin => return Err(broken("it ended the transfer before all was there")),
            PacketType::PacketErr => {
                let said: String = String::from_utf8_lossy(&packet.data).chars().take(1000).collect();
                return Err(Failure(format!("the client could not send its files: {said}")));
            }
            PacketType::PacketReq => return Err(broken("it asked the receiver for content")),
        }
        let mut answers = Vec::new();
        while self.asked.len() < IN_FLIGHT
            && let Some(id) = self.waiting.pop_front()
        {
            self.asked.insert(id);
            answers.push(Packet { r#type: PacketType::PacketReq.into(), id, ..Packet::default() });
        }
        if self.walked && self.asked.is_empty() && !self.fin_sent {
            self.fin_sent = true;
            answers.push(Packet { r#type: PacketType::PacketFin.into(), ..Packet::default() });
        }
        Ok(answers)
    }

    fn entry<R: Receive>(&mut self, stat: Stat, receiver: &mut R) -> Result<(), Failure> {
        if self.walked {
            return Err(broken("it named an entry after the end of its walk"));
        }
        if self.next >= self.limits.entries {
            return Err(Failure(format!(
                "the client sends more than {} files; leave out what the build does not need with a .dockerignore",
                self.limits.entries
            )));
        }
        let entry = Entry::from_stat(stat).map_err(|why| broken(&why))?;
        self.order.accept(&entry).map_err(|why| broken(&why))?;
        let wanted = receiver.entry(self.next, &entry)? == Content::Want;
        if wanted && matches!(entry.kind, EntryKind::File { .. }) {
            self.waiting.push_back(self.next);
        }
        self.next += 1;
        Ok(())
    }

    fn data<R: Receive>(&mut self, id: u32, bytes: &[u8], receiver: &mut R) -> Result<(), Failure> {
        if !self.asked.contains(&id) {
            return Err(broken("it sent content that was not asked for"));
        }
        if bytes.is_empty() {
            self.asked.remove(&id);
            return receiver.end(id);
        }
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        if let Some(count) = &self.transferred {
            count.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        if self.bytes > self.limits.bytes {
            return Err(Failure(format!(
                "the client sends more than {} bytes; leave out what the build does not need with a .dockerignore",
                self.limits.bytes
            )));
        }
        receiver.data(id, bytes)
    }
}

fn broken(what: &str) -> Failure {
    Failure(format!("the client's files were refused: {what}"))
}
