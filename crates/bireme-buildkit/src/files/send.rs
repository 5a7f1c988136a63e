//! The sending end: shows a [`Source`] to a receiver.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use bollard_buildkit_proto::fsutil::types::Packet;
use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::entry::Entry;
use super::receive::Failure;

/// Bytes of content per packet, as BuildKit's own sender has it.
const CHUNK: usize = 32 << 10;

/// A tree of files that goes out. Called from threads of its own, which may block; `open` while the walk goes on.
pub trait Source: Send + Sync + 'static {
    /// Names each entry: names of one folder in the order of their bytes, each folder right before what is in it.
    ///
    /// # Errors
    /// What it fails with, or what `each` answers with, ends the transfer.
    fn walk(&self, each: &mut dyn FnMut(Entry) -> Result<(), Failure>) -> Result<(), Failure>;

    /// Opens the content of a file that the walk named.
    ///
    /// # Errors
    /// What it fails with ends the transfer.
    fn open(&self, path: &str) -> Result<Box<dyn Read + Send>, Failure>;
}

/// Sends one tree: takes the receiver's packets from `incoming`, puts ours into `outgoing`.
///
/// # Errors
/// When the source fails; when the receiver breaks the protocol, tells of a failure of its own or goes away.
pub(crate) async fn send<S, E>(
    source: Arc<dyn Source>,
    mut incoming: S,
    outgoing: mpsc::Sender<Packet>,
) -> Result<(), Failure>
where
    S: Stream<Item = Result<Packet, E>> + Unpin,
    E: std::fmt::Display,
{
    let gone = || Failure("the client ended the transfer of files before all was sent".to_owned());
    // What was named and may be asked for, once each.
    let files = Arc::new(Mutex::new(HashMap::new()));
    let (ask, asked) = std::sync::mpsc::channel::<(u32, String)>();
    let mut walk = tokio::task::spawn_blocking({
        let (source, files, outgoing) = (source.clone(), files.clone(), outgoing.clone());
        move || walk(&*source, &files, &outgoing)
    });
    let mut content = tokio::task::spawn_blocking({
        let outgoing = outgoing.clone();
        move || {
            for (id, path) in asked {
                content(&*source, id, &path, &outgoing)?;
            }
            Ok(())
        }
    });
    let mut walked = false;
    let result = loop {
        tokio::select! {
            result = &mut walk, if !walked => {
                walked = true;
                if let Err(failure) = flatten(result) {
                    break Err(failure);
                }
            }
            // It ends by itself only when it fails: its questions end with this function.
            result = &mut content => break flatten(result).and_then(|()| Err(gone())),
            packet = incoming.next() => match packet {
                Some(Ok(packet)) => match packet.r#type() {
                    PacketType::PacketReq => {
                        let Some(path) = files.lock().remove(&packet.id) else {
                            break Err(Failure("the client asked for a file that it was not offered".to_owned()));
                        };
                        let _ = ask.send((packet.id, path));
                    }
                    PacketType::PacketFin => break Ok(()),
                    PacketType::PacketErr => {
                        let said: String = String::from_utf8_lossy(&packet.data).chars().take(1000).collect();
                        break Err(Failure(format!("the client could not take the files: {said}")));
                    }
                    PacketType::PacketStat | PacketType::PacketData => {
                        break Err(Failure("the client sent files where it was to receive them".to_owned()));
                    }
                },
                Some(Err(error)) => break Err(Failure(format!("the client broke the transfer of files off: {error}"))),
                None => break Err(gone()),
            },
        }
    };
    let last = match &result {
        Ok(()) => Packet { r#type: PacketType::PacketFin.into(), ..Packet::default() },
        Err(failure) => {
            Packet { r#type: PacketType::PacketErr.into(), data: failure.0.clone().into_bytes(), ..Packet::default() }
        }
    };
    let _ = outgoing.send(last).await;
    drop((ask, outgoing));
    if result.is_ok() {
        // The client's answer to FIN is the end of the call: by then it has written all.
        while let Some(packet) = incoming.next().await {
            packet.map_err(|error| Failure(format!("the client could not take the files: {error}")))?;
        }
    }
    result
}

fn flatten(result: Result<Result<(), Failure>, tokio::task::JoinError>) -> Result<(), Failure> {
    result.unwrap_or_else(|_| Err(Failure("a defect of this engine ended the transfer of files".to_owned())))
}

fn walk(
    source: &dyn Source,
    files: &Mutex<HashMap<u32, String>>,
    outgoing: &mpsc::Sender<Packet>,
) -> Result<(), Failure> {
    let gone = |_| Failure("the client ended the transfer of files".to_owned());
    let mut next = 0_u32;
    source.walk(&mut |entry| {
        let stat = entry.to_stat();
        if Entry::has_content(stat.mode) {
            files.lock().insert(next, entry.path);
        }
        next = next.checked_add(1).ok_or_else(|| Failure("there are too many files to send".to_owned()))?;
        outgoing.blocking_send(Packet { stat: Some(stat), ..Packet::default() }).map_err(gone)
    })?;
    outgoing.blocking_send(Packet::default()).map_err(gone)
}

fn content(source: &dyn Source, id: u32, path: &str, outgoing: &mpsc::Sender<Packet>) -> Result<(), Failure> {
    let gone = |_| Failure("the client ended the transfer of files".to_owned());
    let mut file = source.open(path)?;
    loop {
        let mut data = vec![0; CHUNK];
        let read = match file.read(&mut data) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            read => read.map_err(|error| Failure(format!("cannot read {path:?}: {error}")))?,
        };
        data.truncate(read);
        outgoing
            .blocking_send(Packet { r#type: PacketType::PacketData.into(), id, data, ..Packet::default() })
            .map_err(gone)?;
        if read == 0 {
            return Ok(());
        }
    }
}
