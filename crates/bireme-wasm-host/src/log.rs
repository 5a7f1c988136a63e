//! The log of one workload: what its instances print, in the order in which lines were finished.
//!
//! Instances hand finished lines, and a command what it prints at once, to one writer through a bounded channel; when the disk is slower than the instances,
//! they wait, each in its turn: however many handles an instance has of a stream, they have one turn together. Lines of
//! different instances never mix.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bireme_core::clock::now_nanos;
use bireme_core::log_line::{MAX_TEXT, Splitter, Stream};
use bireme_wasm::protocol::Log;
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

/// Chunks that may wait for the writer; each holds at most [`CHUNK`] bytes.
const WAITING: usize = 256;
const CHUNK: usize = 64 << 10;
/// Chunks of one stream of one instance that may wait for the writer, so that those of others find room.
const UNDER_WAY: usize = 16;
/// Bytes that one stream of an instance may keep beside those: each of its handles was told of room that another took.
const KEPT: usize = 4 * CHUNK;
/// Instances that ended while the log was full and whose last words wait for room; those of more are lost.
const LAST_WORDS: u32 = 64;
/// Frames that may wait for one attached client before the workload waits for it.
const CLIENT_WAITING: usize = 256;
/// How long an attached client may take nothing while the workload waits for it.
const CLIENT_STALL: Duration = Duration::from_secs(30);

enum Message {
    Output {
        stream: Stream,
        bytes: Bytes,
        time: i64,
        /// More of the same line may follow: it is one in the file.
        goes_on: bool,
        /// Of those that its stream may have under way; `None` for what no instance wrote.
        _under_way: Option<OwnedSemaphorePermit>,
    },
    Attach(mpsc::Sender<Bytes>),
    /// Whoever is attached is told that nothing more comes.
    Disconnect,
    /// Answered when everything before it is written and whoever is attached has been told that nothing more comes.
    Finish(oneshot::Sender<()>),
}

/// Where instances and triggers write to.
#[derive(Clone)]
pub(crate) struct LogHandle {
    sender: mpsc::Sender<Message>,
    last_words: Arc<Semaphore>,
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
        Ok(Self { sender, last_words: Arc::new(Semaphore::new(LAST_WORDS as usize)) })
    }

    /// One sentence of ours, to the workload's standard error. Dropped when the log is full: never blocks.
    pub(crate) fn note(&self, text: &str) {
        let _ = self.sender.try_send(sentence(text));
    }

    /// The same of a sentence that nobody may miss, as why a command ended: waits for room.
    pub(crate) async fn note_surely(&self, text: &str) {
        let _ = self.sender.send(sentence(text)).await;
    }

    /// Whole lines of an instance, to the workload's standard error: waits for room.
    ///
    /// # Cancel safety
    /// A part of them may have been handed over.
    pub(crate) async fn line(&self, text: String) {
        let mut rest = Bytes::from(text);
        while !rest.is_empty() {
            let bytes = rest.split_to(rest.len().min(CHUNK));
            let (stream, time, goes_on) = (Stream::Stderr, now_nanos(), !rest.is_empty());
            let _ = self.sender.send(Message::Output { stream, bytes, time, goes_on, _under_way: None }).await;
        }
    }

    /// Everything that is handed over from now on, in the frames of Docker's attach protocol, for [`feed`].
    pub(crate) async fn attach(&self) -> mpsc::Receiver<Bytes> {
        let (sender, frames) = mpsc::channel(CLIENT_WAITING);
        let _ = self.sender.send(Message::Attach(sender)).await;
        frames
    }

    /// Ends the streams of clients that are attached, after what was handed over so far. The log goes on.
    pub(crate) async fn disconnect(&self) {
        let _ = self.sender.send(Message::Disconnect).await;
    }

    /// Waits until everything handed over so far is written, and ends the streams of attached clients after it. What comes
    /// later goes to the file alone.
    pub(crate) async fn finish(&self) {
        let last_words = self.last_words.acquire_many(LAST_WORDS).await;
        let (done, wait) = oneshot::channel();
        if self.sender.send(Message::Finish(done)).await.is_ok() {
            let _ = wait.await;
        }
        drop(last_words);
    }

    /// The output stream of a new instance. Where it is the only one of the workload (`alone`), what it prints leaves at once,
    /// as that of a process does; otherwise in whole lines.
    pub(crate) fn stream(&self, stream: Stream, alone: bool) -> InstanceOutput {
        InstanceOutput(Arc::new(Output {
            log: self.clone(),
            stream,
            alone,
            text: Mutex::default(),
            under_way: Arc::new(Semaphore::new(UNDER_WAY)),
        }))
    }
}

fn sentence(text: &str) -> Message {
    let bytes = Bytes::from(format!("{text}\n"));
    Message::Output { stream: Stream::Stderr, bytes, time: now_nanos(), goes_on: false, _under_way: None }
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
    // Of an instance that is alone.
    let mut lines = [Stream::Stdout, Stream::Stderr].map(Splitter::new);
    let mut finished = false;
    let mut batch = Vec::new();
    let mut records = Vec::new();
    while receiver.recv_many(&mut batch, WAITING).await > 0 {
        let mut waiting = Vec::new();
        for message in batch.drain(..) {
            match message {
                Message::Output { stream, bytes, time, goes_on, _under_way } => {
                    if file.is_some() && goes_on && !finished {
                        lines[usize::from(stream == Stream::Stderr)].push(&bytes, time, &mut records);
                    } else if file.is_some() {
                        // What was printed before stands before it.
                        lines.iter_mut().for_each(|line| line.finish(time, &mut records));
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
                Message::Disconnect => clients.clear(),
                Message::Finish(done) => {
                    finished = true;
                    lines.iter_mut().for_each(|line| line.finish(now_nanos(), &mut records));
                    clients.clear();
                    waiting.push(done);
                }
            }
        }
        append(file.as_mut(), &mut records);
        for done in waiting {
            let _ = done.send(());
        }
    }
    lines.iter_mut().for_each(|line| line.finish(now_nanos(), &mut records));
    append(file.as_mut(), &mut records);
}

fn append(file: Option<&mut LogFile>, records: &mut Vec<u8>) {
    // Appending to a file of the page cache takes microseconds; a thread of its own would cost more.
    if let Some(open) = file.filter(|_| !records.is_empty())
        && let Err(error) = open.append(records)
    {
        crate::complain(&format!("cannot write the log {}: {error}", open.name));
    }
    records.clear();
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

/// Standard output or error of one instance, for any number of handles.
pub(crate) struct InstanceOutput(Arc<Output>);

/// Output leaves in whole lines, or when the instance ends; at once where no other instance prints.
struct Output {
    log: LogHandle,
    stream: Stream,
    alone: bool,
    /// What was not handed over: the line that is not finished yet, and before it what found the log full.
    text: Mutex<Vec<u8>>,
    /// Places for what is under way to the log.
    under_way: Arc<Semaphore>,
}

/// Why nothing can be written.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the log is closed")]
    Closed,
    #[error("too much output waits for the log")]
    Full,
}

impl From<Refused> for std::io::Error {
    fn from(refused: Refused) -> Self {
        Self::new(std::io::ErrorKind::BrokenPipe, refused)
    }
}

impl Output {
    fn lock(&self) -> parking_lot::MutexGuard<'_, Vec<u8>> {
        self.text.lock()
    }

    /// Takes one chunk from the beginning of `text`, of which `finished` bytes are finished.
    fn chunk(&self, text: &mut Vec<u8>, finished: usize, under_way: Option<OwnedSemaphorePermit>) -> Message {
        let end = if finished <= CHUNK { finished } else { whole_lines(&text[..CHUNK]).unwrap_or(CHUNK) };
        let rest = text.split_off(end);
        let bytes = std::mem::replace(text, rest).into();
        Message::Output { stream: self.stream, bytes, time: now_nanos(), goes_on: self.alone, _under_way: under_way }
    }

    /// How many bytes of `text` may leave: those of whole lines, or all of a line that is too long to wait for its end.
    fn finished(&self, text: &[u8]) -> usize {
        let too_long = text.len() >= MAX_TEXT;
        let lines = if self.alone { None } else { whole_lines(text) };
        lines.unwrap_or(if self.alone || too_long { text.len() } else { 0 })
    }

    /// Hands over what is finished; false where some of it has to wait.
    fn flush(&self, text: &mut Vec<u8>) -> Result<bool, Refused> {
        loop {
            let finished = self.finished(text);
            if finished == 0 {
                return Ok(true);
            }
            let Ok(under_way) = Arc::clone(&self.under_way).try_acquire_owned() else { return Ok(false) };
            match self.log.sender.try_reserve() {
                Ok(place) => place.send(self.chunk(text, finished, Some(under_way))),
                Err(mpsc::error::TrySendError::Full(())) => return Ok(false),
                Err(mpsc::error::TrySendError::Closed(())) => return Err(Refused::Closed),
            }
        }
    }

    /// Whether there is room for a chunk. No place is taken for it: whoever is told so may never write.
    fn has_room(&self) -> Result<bool, Refused> {
        if self.log.sender.is_closed() {
            return Err(Refused::Closed);
        }
        Ok(self.flush(&mut self.lock())? && self.under_way.available_permits() > 0 && self.log.sender.capacity() > 0)
    }

    /// Takes `bytes`, also where the log is full by now.
    fn write(&self, bytes: &[u8]) -> Result<(), Refused> {
        let mut text = self.lock();
        if text.len() + bytes.len() > KEPT {
            self.flush(&mut text)?;
        }
        if text.len() + bytes.len() > KEPT {
            return Err(Refused::Full);
        }
        text.extend_from_slice(bytes);
        self.flush(&mut text).map(drop)
    }

    /// Waits for its turn and hands over what has been waiting. Whoever waited may write a chunk then: the place itself is
    /// left to the next where there is nothing to hand over, and might be passed round for ever otherwise.
    ///
    /// # Cancel safety
    /// The turn is given up.
    async fn turn(&self) {
        let Ok(under_way) = Arc::clone(&self.under_way).acquire_owned().await else { return };
        let Ok(place) = self.log.sender.reserve().await else { return };
        let mut text = self.lock();
        let finished = self.finished(&text);
        if finished > 0 {
            place.send(self.chunk(&mut text, finished, Some(under_way)));
        }
    }
}

/// How many bytes of `text` belong to whole lines; `None` where there is none.
fn whole_lines(text: &[u8]) -> Option<usize> {
    text.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1)
}

impl Drop for Output {
    fn drop(&mut self) {
        // The last of the instance's handles writes the unfinished line.
        let mut text = std::mem::take(self.text.get_mut());
        while !text.is_empty() {
            let Ok(place) = self.log.sender.try_reserve() else { break };
            let length = text.len();
            place.send(self.chunk(&mut text, length, None));
        }
        if text.is_empty() {
            return;
        }
        let waiting = Arc::clone(&self.log.last_words).try_acquire_owned();
        if let (Ok(waiting), Ok(runtime)) = (waiting, tokio::runtime::Handle::try_current()) {
            let (sender, stream, goes_on) = (self.log.sender.clone(), self.stream, self.alone);
            runtime.spawn(async move {
                let (bytes, time) = (Bytes::from(text), now_nanos());
                let _ = sender.send(Message::Output { stream, bytes, time, goes_on, _under_way: None }).await;
                drop(waiting);
            });
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
        Box::new(SyncOutput { output: Arc::clone(&self.0), waited: false, room: 0 })
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(AsyncOutput { output: Arc::clone(&self.0), turn: Mutex::default() })
    }
}

/// A handle of WASI 0.2.
struct SyncOutput {
    output: Arc<Output>,
    /// Its turn has come: there is room whatever the log says.
    waited: bool,
    /// Bytes that the guest was told it may write.
    room: usize,
}

impl OutputStream for SyncOutput {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let Some(room) = self.room.checked_sub(bytes.len()) else {
            let text = wasmtime::format_err!("it wrote {} bytes where there was room for {}", bytes.len(), self.room);
            return Err(StreamError::Trap(text));
        };
        self.room = room;
        self.output.write(&bytes).map_err(|refused| match refused {
            Refused::Closed => StreamError::Closed,
            Refused::Full => StreamError::LastOperationFailed(refused.into()),
        })
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        let has_room = self.output.has_room().map_err(|_| StreamError::Closed)?;
        self.room = if std::mem::take(&mut self.waited) || has_room { CHUNK } else { 0 };
        Ok(self.room)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for SyncOutput {
    async fn ready(&mut self) {
        if !self.waited && matches!(self.output.has_room(), Ok(false)) {
            self.output.turn().await;
            self.waited = true;
        }
    }
}

/// A stream of WASI 0.3.
struct AsyncOutput {
    output: Arc<Output>,
    /// Waits for its turn, where there was no room. Behind a lock that nobody contends for, since it need not be shared.
    turn: Mutex<Option<BoxFuture<'static, ()>>>,
}

impl AsyncWrite for AsyncOutput {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let this = &mut *self;
        let turn = this.turn.get_mut();
        let bytes = &bytes[..bytes.len().min(CHUNK)];
        loop {
            let mut waited = false;
            if let Some(turn) = turn.as_mut() {
                ready!(turn.as_mut().poll(cx));
                waited = true;
            }
            *turn = None;
            if waited || this.output.has_room()? {
                match this.output.write(bytes) {
                    Err(Refused::Full) => {}
                    written => return Poll::Ready(written.map(|()| bytes.len()).map_err(Into::into)),
                }
            }
            let output = Arc::clone(&this.output);
            *turn = Some(Box::pin(async move { output.turn().await }));
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
