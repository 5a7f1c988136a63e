//! Reading a workload's log file, from the beginning, the end, or as it grows.
//!
//! The file is written by another process (`bireme_core::log_line`), one whole record per write, and may be rotated to
//! `path.1`, `path.2`, … at any moment. Reading follows the open file to its end, then turns to the new one.

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

/// Bytes of the longest record: its text with every byte escaped, and what stands round it. What is longer is none of ours.
const LONGEST: usize = log_line::MAX_TEXT * 6 + 1024;

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

    /// Sends what is wanted of the last `count` records, as Docker counts: of either stream, of any time. Answers the live
    /// file, read to its end.
    async fn tail(&self, count: usize) -> Result<Option<LogFile>, Stopped> {
        // Only as many files as needed, newest first; where reading begins is found before anything is read.
        let paths = std::iter::once(self.path.clone()).chain(rotated(&self.path).into_iter().rev());
        let mut files = Vec::new();
        let mut left = count;
        for (at, path) in paths.enumerate() {
            let Some(mut file) = open(&path).map_err(|e| self.failed(e))? else { continue };
            left -= file.seek_last(left).map_err(|e| self.failed(e))?;
            files.push((at, file));
            if left == 0 {
                break;
            }
        }
        let mut live = None;
        while let Some((at, mut file)) = files.pop() {
            self.drain(&mut file).await?;
            if at == 0 {
                live = Some(file);
            }
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
    /// The record that is being read is too long to be one of ours: what is left of it is passed over.
    skipping: bool,
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
        let end = |bytes: &[u8]| bytes.iter().position(|b| *b == b'\n').map(|at| at + 1);
        if self.skipping {
            match end(&self.pending) {
                Some(at) => {
                    self.pending.drain(..at);
                    self.skipping = false;
                }
                None => self.pending.clear(),
            }
        }
        let whole = self.pending.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let records = self.pending[..whole].split(|b| *b == b'\n').filter_map(log_line::decode).collect();
        self.pending.drain(..whole);
        if self.pending.len() > LONGEST {
            self.pending = Vec::new();
            self.skipping = true;
        }
        Ok(Some(records))
    }

    /// Goes to where the last `count` records begin; answers how many there are, if fewer.
    fn seek_last(&mut self, count: usize) -> io::Result<usize> {
        let mut at = self.file.metadata()?.len();
        // Each record ends a line; the one behind the last line end is not whole yet.
        let mut ends = 0;
        let mut chunk = vec![0; CHUNK];
        while at > 0 {
            let size = at.min(CHUNK as u64);
            at -= size;
            let piece = &mut chunk[..usize::try_from(size).unwrap_or(CHUNK)];
            self.file.seek(SeekFrom::Start(at))?;
            // It may have been cut meanwhile: then there is nothing to go to.
            if let Err(error) = self.file.read_exact(piece) {
                if error.kind() != io::ErrorKind::UnexpectedEof {
                    return Err(error);
                }
                self.file.seek(SeekFrom::Start(0))?;
                return Ok(0);
            }
            for (offset, _) in piece.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
                if ends == count {
                    self.file.seek(SeekFrom::Start(at + offset as u64 + 1))?;
                    return Ok(count);
                }
                ends += 1;
            }
        }
        self.file.seek(SeekFrom::Start(0))?;
        Ok(ends)
    }
}

fn open(path: &Path) -> io::Result<Option<LogFile>> {
    match File::open(path) {
        Ok(file) => Ok(Some(LogFile { inode: file.metadata()?.ino(), file, pending: Vec::new(), skipping: false })),
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write as _;

    fn written(bytes: &[u8]) -> LogFile {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        LogFile { file, inode: 0, pending: Vec::new(), skipping: false }
    }

    fn line(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        log_line::encode(&mut out, Output::Stdout, text.as_bytes(), 1);
        out
    }

    fn texts(file: &mut LogFile) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(records) = file.next_records().unwrap() {
            all.extend(records.into_iter().map(|record| record.text));
            assert!(file.pending.capacity() <= 4 * (LONGEST + CHUNK), "{} bytes", file.pending.capacity());
        }
        all
    }

    #[test]
    fn a_line_without_end_is_passed_over_in_flat_memory() {
        let mut bytes = line("before\n");
        bytes.extend(std::iter::repeat_n(b'a', 20 << 20));
        bytes.push(b'\n');
        bytes.extend(line("after\n"));
        assert_eq!(texts(&mut written(&bytes)), ["before\n", "after\n"]);
    }

    #[test]
    fn the_longest_record_is_read() {
        let longest = "\u{1}".repeat(log_line::MAX_TEXT);
        assert_eq!(texts(&mut written(&line(&longest))), [longest]);
    }

    proptest! {
        #[test]
        fn reading_begins_at_the_last_records(lines in proptest::collection::vec("[a-z]{0,3000}", 0..80), count in 0_usize..90) {
            let bytes: Vec<u8> = lines.iter().flat_map(|text| line(text)).chain(*b"{\"log\":\"half").collect();
            let mut file = written(&bytes);
            let found = file.seek_last(count).unwrap();
            prop_assert_eq!(found, count.min(lines.len()));
            prop_assert_eq!(texts(&mut file), &lines[lines.len() - found..]);
        }
    }
}
