//! The log of one workload: what its instances print, in the order in which lines were finished.
//!
//! Instances hand finished lines to one writer through a bounded channel; when the disk is slower than the instances,
//! they wait. Lines of different instances never mix.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bireme_core::log_line::{MAX_TEXT, Splitter, Stream};
use bireme_wasm::protocol::Log;
use bytes::Bytes;
use rustix::fs::{Mode, OFlags};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::PollSender;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

/// Chunks that may wait for the writer; each holds at most [`CHUNK`] bytes.
const WAITING: usize = 256;
const CHUNK: usize = 64 << 10;
/// Frames that may wait for one attached client before the workload waits for it.
const CLIENT_WAITING: usize = 256;
/// How long an attached client may take nothing while the workload waits for it.
const CLIENT_STALL: Duration = Duration::from_secs(30);

enum Message {
    Output {
        stream: Stream,
        bytes: Bytes,
        time: i64,
    },
    Attach(mpsc::Sender<Bytes>),
    /// Answered when everything before it is written and whoever is attached has been told that nothing more comes.
    Finish(oneshot::Sender<()>),
}

/// Where instances and triggers write to.
#[derive(Clone)]
pub(crate) struct LogHandle {
    sender: mpsc::Sender<Message>,
}

pub(crate) fn now() -> i64 {
    chrono::Utc::now().timestamp_nanos_opt().unwrap_or_default()
}

impl LogHandle {
    /// Starts the writer. `folder` holds the file that `log` names.
    pub(crate) fn start(log: Log, folder: Option<OwnedFd>) -> std::io::Result<Self> {
        let file = match (&log.file, folder) {
            (Some(name), Some(folder)) => Some(LogFile::open(name.clone(), folder, &log)?),
            _ => None,
        };
        let (sender, receiver) = mpsc::channel(WAITING);
        tokio::spawn(write(receiver, file));
        Ok(Self { sender })
    }

    /// One sentence of ours, to the workload's standard error. Dropped when the log is full: never blocks.
    pub(crate) fn note(&self, text: &str) {
        let bytes = Bytes::from(format!("{text}\n"));
        let _ = self.sender.try_send(Message::Output { stream: Stream::Stderr, bytes, time: now() });
    }

    /// Everything that is handed over from now on, in the frames of Docker's attach protocol, for [`feed`].
    pub(crate) async fn attach(&self) -> mpsc::Receiver<Bytes> {
        let (sender, frames) = mpsc::channel(CLIENT_WAITING);
        let _ = self.sender.send(Message::Attach(sender)).await;
        frames
    }

    /// Waits until everything handed over so far is written, and ends the streams of attached clients after it. What comes
    /// later goes to the file alone.
    pub(crate) async fn finish(&self) {
        let (done, wait) = oneshot::channel();
        if self.sender.send(Message::Finish(done)).await.is_ok() {
            let _ = wait.await;
        }
    }

    /// The output stream of a new instance.
    pub(crate) fn stream(&self, stream: Stream) -> InstanceOutput {
        InstanceOutput { sender: self.sender.clone(), stream, last: Arc::default() }
    }
}

/// A log file that is rotated by size.
struct LogFile {
    folder: OwnedFd,
    name: String,
    file: File,
    size: u64,
    max_size: u64,
    max_files: u32,
}

impl LogFile {
    fn open(name: String, folder: OwnedFd, log: &Log) -> std::io::Result<Self> {
        let file = Self::open_file(&folder, &name, OFlags::APPEND)?;
        let size = file.metadata()?.len();
        Ok(Self {
            folder,
            name,
            file,
            size,
            max_size: log.max_size.unwrap_or(u64::MAX),
            max_files: log.max_files.max(1),
        })
    }

    fn open_file(folder: &OwnedFd, name: &str, more: OFlags) -> std::io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW | more;
        Ok(rustix::fs::openat(folder, name, flags, Mode::from_raw_mode(0o640))?.into())
    }

    /// Appends whole records, each of which ends with its only line end. None is divided between files; one that is
    /// longer than a file may be gets a file of its own.
    fn append(&mut self, mut records: &[u8]) -> std::io::Result<()> {
        while !records.is_empty() {
            let room = usize::try_from(self.max_size.saturating_sub(self.size)).unwrap_or(usize::MAX);
            let fitting = match records.get(..room) {
                None => records.len(),
                Some(part) => part.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1),
            };
            if fitting == 0 && self.size > 0 {
                self.rotate()?;
                continue;
            }
            let first = || records.iter().position(|byte| *byte == b'\n').map_or(records.len(), |at| at + 1);
            let (now, later) = records.split_at(if fitting == 0 { first() } else { fitting });
            self.file.write_all(now)?;
            self.size += now.len() as u64;
            records = later;
        }
        Ok(())
    }

    fn rotate(&mut self) -> std::io::Result<()> {
        let numbered = |n: u32| if n == 0 { self.name.clone() } else { format!("{}.{n}", self.name) };
        for n in (1..self.max_files).rev() {
            match rustix::fs::renameat(&self.folder, numbered(n - 1), &self.folder, numbered(n)) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.file = Self::open_file(&self.folder, &self.name, OFlags::APPEND | OFlags::TRUNC)?;
        self.size = 0;
        Ok(())
    }
}

async fn write(mut receiver: mpsc::Receiver<Message>, mut file: Option<LogFile>) {
    let mut clients: Vec<mpsc::Sender<Bytes>> = Vec::new();
    let mut finished = false;
    let mut batch = Vec::new();
    let mut records = Vec::new();
    while receiver.recv_many(&mut batch, WAITING).await > 0 {
        let mut waiting = Vec::new();
        for message in batch.drain(..) {
            match message {
                Message::Output { stream, bytes, time } => {
                    if file.is_some() {
                        let mut splitter = Splitter::new(stream);
                        splitter.push(&bytes, time, &mut records);
                        splitter.finish(time, &mut records);
                    }
                    if !clients.is_empty() {
                        let frame = frame(stream, &bytes);
                        // A slow client slows the workload down rather than miss a line; one that takes nothing at all
                        // is cut off in the end.
                        let mut reading = Vec::with_capacity(clients.len());
                        for client in clients.drain(..) {
                            if client.send_timeout(frame.clone(), CLIENT_STALL).await.is_ok() {
                                reading.push(client);
                            }
                        }
                        clients = reading;
                    }
                }
                // A stream of the clients' outlives the workload otherwise, since they hold it and it holds this writer.
                Message::Attach(client) if finished => drop(client),
                Message::Attach(client) => clients.push(client),
                Message::Finish(done) => {
                    finished = true;
                    clients.clear();
                    waiting.push(done);
                }
            }
        }
        if let Some(open) = file.as_mut().filter(|_| !records.is_empty()) {
            // Appending to a file of the page cache takes microseconds; a thread of its own would cost more.
            if let Err(error) = open.append(&records) {
                crate::complain(&format!("cannot write the log {}: {error}", open.name));
            }
        }
        records.clear();
        for done in waiting {
            let _ = done.send(());
        }
    }
}

/// One frame of Docker's attach protocol.
fn frame(stream: Stream, bytes: &[u8]) -> Bytes {
    let mut frame = Vec::with_capacity(bytes.len() + 8);
    frame.extend_from_slice(&[stream.number(), 0, 0, 0]);
    frame.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(bytes);
    frame.into()
}

/// Sends an attached client its frames until either ends.
pub(crate) async fn feed(mut client: impl AsyncWrite + Unpin, mut frames: mpsc::Receiver<Bytes>) {
    while let Some(frame) = frames.recv().await {
        if client.write_all(&frame).await.is_err() {
            return;
        }
    }
    let _ = client.shutdown().await;
}

/// Standard output or error of one instance. Output leaves in whole lines, or when the instance ends.
pub(crate) struct InstanceOutput {
    sender: mpsc::Sender<Message>,
    stream: Stream,
    /// The line that is not finished yet.
    last: Arc<Mutex<Vec<u8>>>,
}

impl InstanceOutput {
    /// Takes what is finished of `bytes`; the rest waits for its end.
    fn finished(&self, bytes: &[u8]) -> Option<Message> {
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        last.extend_from_slice(bytes);
        let end = match last.iter().rposition(|b| *b == b'\n') {
            Some(at) => at + 1,
            None if last.len() >= MAX_TEXT => last.len(),
            None => return None,
        };
        let rest = last.split_off(end);
        let whole = std::mem::replace(&mut *last, rest);
        Some(Message::Output { stream: self.stream, bytes: whole.into(), time: now() })
    }

    fn duplicate(&self) -> Self {
        Self { sender: self.sender.clone(), stream: self.stream, last: Arc::clone(&self.last) }
    }
}

impl Drop for InstanceOutput {
    fn drop(&mut self) {
        // The last of the instance's streams writes the unfinished line.
        if Arc::strong_count(&self.last) == 1 {
            let last = std::mem::take(&mut *self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
            if !last.is_empty() {
                let message = Message::Output { stream: self.stream, bytes: last.into(), time: now() };
                let _ = self.sender.try_send(message);
            }
        }
    }
}

impl IsTerminal for InstanceOutput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for InstanceOutput {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(SyncOutput { output: self.duplicate(), place: None })
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(AsyncOutput { sender: PollSender::new(self.sender.clone()), output: self.duplicate() })
    }
}

struct SyncOutput {
    output: InstanceOutput,
    /// A place in the channel, held so that the next write cannot fail.
    place: Option<mpsc::OwnedPermit<Message>>,
}

impl OutputStream for SyncOutput {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let Some(message) = self.output.finished(&bytes) else { return Ok(()) };
        match self.place.take().or_else(|| self.output.sender.clone().try_reserve_owned().ok()) {
            Some(place) => {
                place.send(message);
                Ok(())
            }
            None => Err(StreamError::Closed),
        }
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        if self.place.is_none() {
            match self.output.sender.clone().try_reserve_owned() {
                Ok(place) => self.place = Some(place),
                Err(mpsc::error::TrySendError::Full(_)) => return Ok(0),
                Err(mpsc::error::TrySendError::Closed(_)) => return Err(StreamError::Closed),
            }
        }
        Ok(CHUNK)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for SyncOutput {
    async fn ready(&mut self) {
        if self.place.is_none() {
            self.place = self.output.sender.clone().reserve_owned().await.ok();
        }
    }
}

struct AsyncOutput {
    sender: PollSender<Message>,
    output: InstanceOutput,
}

impl AsyncWrite for AsyncOutput {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let closed = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        ready!(self.sender.poll_reserve(cx)).map_err(|_| closed())?;
        let bytes = &bytes[..bytes.len().min(CHUNK)];
        if let Some(message) = self.output.finished(bytes) {
            self.sender.send_item(message).map_err(|_| closed())?;
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
