//! Reading a workload's log file, from the beginning, the end, or as it grows.
//!
//! The file is written by another process (`bireme_core::log_line`), one whole record per write, and may be rotated to
//! `path.1`, `path.2`, … at any moment. Reading follows the open file to its end, then turns to the new one.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bireme_core::log_line::{self, Record, Stream as Output};
use futures::Stream;
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};

use crate::request::LogQuery;
use crate::view::{Container, Status};
use crate::{EngineError, engine};

/// Records as they are read. Dropping it ends the reading.
pub struct LogStream {
    records: mpsc::Receiver<Result<Record, EngineError>>,
}

impl Stream for LogStream {
    type Item = Result<Record, EngineError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.records.poll_recv(context)
    }
}

/// How much is read at once.
const CHUNK: usize = 64 * 1024;

/// Starts reading `path` as `query` asks; `state` tells when nothing more will come.
/// A workload that does not run is not followed.
pub(crate) fn read(path: PathBuf, mut query: LogQuery, state: watch::Receiver<Arc<Container>>) -> LogStream {
    let (sender, records) = mpsc::channel(256);
    query.follow &= state.borrow().state.status != Status::Created;
    // Ends by itself when the receiver is dropped, the log is at its end, or the workload is gone.
    tokio::spawn(async move {
        let reader = Reader { path, query, state, sender };
        if let Err(Stopped::Failed(error)) = reader.run().await {
            tracing::debug!(%error, "log reading ended early");
        }
    });
    LogStream { records }
}

struct Reader {
    path: PathBuf,
    query: LogQuery,
    state: watch::Receiver<Arc<Container>>,
    sender: mpsc::Sender<Result<Record, EngineError>>,
}

enum Stopped {
    /// The receiver is gone, or a record past `until` was seen.
    Enough,
    Failed(EngineError),
}

impl Reader {
    async fn run(mut self) -> Result<(), Stopped> {
        let result = self.read().await;
        if let Err(Stopped::Failed(error)) = result {
            let _ = self.sender.send(Err(error)).await;
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<(), Stopped> {
        // Watching begins before the first read, so that nothing falls between.
        let mut watch =
            if self.query.follow { Some(Watch::new(&self.path).map_err(|e| self.failed(e))?) } else { None };
        let mut file = match self.query.tail {
            Some(0) => {
                let mut file = open(&self.path).map_err(|e| self.failed(e))?;
                if let Some(file) = &mut file {
                    file.file.seek(SeekFrom::End(0)).map_err(|e| self.failed(e))?;
                }
                file
            }
            Some(count) => self.tail(count).await?,
            None => {
                for old in rotated(&self.path) {
                    if let Some(mut old) = open(&old).map_err(|e| self.failed(e))? {
                        self.drain(&mut old).await?;
                    }
                }
                let mut file = open(&self.path).map_err(|e| self.failed(e))?;
                if let Some(file) = &mut file {
                    self.drain(file).await?;
                }
                file
            }
        };
        let Some(watch) = &mut watch else { return Ok(()) };
        let until = async {
            match self.query.until {
                Some(until) => {
                    let left = until.saturating_sub(engine::now()).max(0) as u64;
                    tokio::time::sleep(std::time::Duration::from_nanos(left)).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::pin!(until);
        loop {
            // The state is read before the file: what was written before the end is then seen in this round.
            let over = {
                let state = self.state.borrow_and_update();
                !matches!(state.state.status, Status::Running | Status::Paused | Status::Restarting | Status::Created)
            };
            let gone = self.state.has_changed().is_err();
            if let Some(open_file) = &mut file {
                self.drain(open_file).await?;
            }
            let replaced = match (&file, std::fs::metadata(&self.path)) {
                (Some(open_file), Ok(now)) => now.ino() != open_file.inode,
                (None, Ok(_)) => true,
                (_, Err(_)) => false,
            };
            if replaced {
                file = open(&self.path).map_err(|e| self.failed(e))?;
                continue;
            }
            if over || gone {
                return Ok(());
            }
            tokio::select! {
                () = watch.changed() => {}
                _ = self.state.changed() => {}
                () = self.sender.closed() => return Err(Stopped::Enough),
                () = &mut until => return Ok(()),
            }
        }
    }

    /// Sends every whole record from the file's position to its end.
    async fn drain(&self, file: &mut LogFile) -> Result<(), Stopped> {
        loop {
            let records = file.next_records().map_err(|e| self.failed(e))?;
            let Some(records) = records else { return Ok(()) };
            for record in records {
                self.deliver(record).await?;
            }
        }
    }

    async fn deliver(&self, record: Record) -> Result<(), Stopped> {
        let wanted = match record.stream {
            Output::Stdout => self.query.stdout,
            Output::Stderr => self.query.stderr,
        };
        if self.query.until.is_some_and(|until| record.time > until) {
            return Err(Stopped::Enough);
        }
        if !wanted || self.query.since.is_some_and(|since| record.time < since) {
            return Ok(());
        }
        self.sender.send(Ok(record)).await.map_err(|_| Stopped::Enough)
    }

    /// Sends what is wanted of the last `count` records, as Docker counts: of either stream, of any time. Answers the live file, read to its end.
    async fn tail(&self, count: usize) -> Result<Option<LogFile>, Stopped> {
        let mut last: VecDeque<Record> = VecDeque::new();
        let mut live = None;
        // Only as many files as needed, newest first; each is read backwards in steps that double.
        let files: Vec<PathBuf> =
            std::iter::once(self.path.clone()).chain(rotated(&self.path).into_iter().rev()).collect();
        for (at, path) in files.iter().enumerate() {
            let Some(mut file) = open(path).map_err(|e| self.failed(e))? else { continue };
            let records = file.last_records(count - last.len()).map_err(|e| self.failed(e))?;
            for record in records.into_iter().rev() {
                last.push_front(record);
            }
            if at == 0 {
                live = Some(file);
            }
            if last.len() >= count {
                break;
            }
        }
        for record in last {
            self.deliver(record).await?;
        }
        Ok(live)
    }

    fn failed(&self, source: io::Error) -> Stopped {
        Stopped::Failed(EngineError::File { path: self.path.clone(), source })
    }
}

/// One file of the log, with what was read but is no whole record yet.
struct LogFile {
    file: File,
    inode: u64,
    pending: Vec<u8>,
}

impl LogFile {
    /// The next whole records; `None` at the end of the file. What cannot be decoded is passed over.
    fn next_records(&mut self) -> io::Result<Option<Vec<Record>>> {
        let before = self.pending.len();
        self.pending.resize(before + CHUNK, 0);
        let read = loop {
            match self.file.read(&mut self.pending[before..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        self.pending.truncate(before + read);
        if read == 0 {
            return Ok(None);
        }
        let whole = self.pending.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let records = self.pending[..whole].split(|b| *b == b'\n').filter_map(log_line::decode).collect();
        self.pending.drain(..whole);
        Ok(Some(records))
    }

    /// The last `count` records, oldest first; the position is then the end.
    fn last_records(&mut self, count: usize) -> io::Result<Vec<Record>> {
        let length = self.file.metadata()?.len();
        let mut step = CHUNK as u64;
        loop {
            let from = length.saturating_sub(step);
            self.file.seek(SeekFrom::Start(from))?;
            self.pending.clear();
            let mut all = Vec::new();
            while let Some(records) = self.next_records()? {
                all.extend(records);
            }
            if from > 0 && !all.is_empty() {
                // The first may have been cut; it could not have been decoded then, but neither is it known whole.
                all.remove(0);
            }
            if all.len() >= count || from == 0 {
                return Ok(all.split_off(all.len().saturating_sub(count)));
            }
            step *= 4;
        }
    }
}

fn open(path: &Path) -> io::Result<Option<LogFile>> {
    match File::open(path) {
        Ok(file) => Ok(Some(LogFile { inode: file.metadata()?.ino(), file, pending: Vec::new() })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Rotated files that exist, oldest first: `path.9` … `path.1`.
fn rotated(path: &Path) -> Vec<PathBuf> {
    let name = |n: u32| PathBuf::from(format!("{}.{n}", path.display()));
    let mut found: Vec<PathBuf> = (1..).map(name).take_while(|path| path.exists()).collect();
    found.reverse();
    found
}

/// Tells when the folder of a log changed.
struct Watch {
    fd: AsyncFd<OwnedFd>,
}

impl Watch {
    #[expect(
        deprecated,
        reason = "its unsafe successor wants the promise that an OwnedFd keeps its file, which it does by its type"
    )]
    fn new(log: &Path) -> io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let folder = log.parent().unwrap_or(Path::new("/"));
        inotify::add_watch(
            &fd,
            folder,
            inotify::WatchFlags::MODIFY
                | inotify::WatchFlags::CREATE
                | inotify::WatchFlags::MOVED_TO
                | inotify::WatchFlags::DELETE_SELF,
        )?;
        Ok(Self { fd: AsyncFd::new(fd)? })
    }

    /// Waits for the next change; several at once count as one.
    async fn changed(&mut self) {
        let Ok(mut ready) = self.fd.readable_mut().await else { return std::future::pending().await };
        let mut buffer = [0u8; 4096];
        loop {
            match rustix::io::read(ready.get_inner(), &mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        ready.clear_ready();
    }
}
