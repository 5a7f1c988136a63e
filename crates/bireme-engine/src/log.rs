//! Reading a workload's log file, from the beginning, the end, or as it grows.
//!
//! The file is written by another process (`bireme_core::log_line`), one whole record per write, and may be rotated to
//! `path.1`, `path.2`, … at any moment. Reading follows the open file to its end, then turns to the new one.
//!
//! That process may have been taken over: a component's host may put into the folder whatever it likes. So what is read
//! is a regular file of one name, found below the folder and not through a link, and what is no record is bounded. Files
//! are read on threads that may block, some megabytes at a time, and a reader whose client left stops.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bireme_core::clock::now_nanos;
use bireme_core::log_line::{self, Record, Stream as Output};
use futures::Stream;
use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, inotify};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::request::LogQuery;
use crate::view::{Status, WorkloadView};
use crate::{EngineError, log_options};

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

/// Bytes of one file that are no records: beyond, it is not the log that was written. A sparse file of terabytes would
/// otherwise be read for hours.
const MOST_JUNK: u64 = 64 << 20;

/// Rotated files that are looked at, whatever a workload asked for: those that `--tail` needs are open at once.
const MOST_ROTATED: u32 = 999;

/// Readers at work at once. The others wait for their turn, which is over after [`TURN_READ`].
static READERS: Semaphore = Semaphore::const_new(32);

/// Bytes that are read in one turn, and bytes of records that end it earlier.
const TURN_READ: usize = 4 << 20;
const TURN_FOUND: usize = 256 << 10;

/// How often a log is looked at where the kernel cannot tell of changes.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Starts reading `path` as `query` asks; `state` tells when nothing more will come.
/// A workload that does not run is not followed.
pub(crate) fn read(path: PathBuf, mut query: LogQuery, state: watch::Receiver<Arc<WorkloadView>>) -> LogStream {
    let (sender, records) = mpsc::channel(256);
    let rotated = {
        let view = state.borrow();
        query.follow &= view.state.status != Status::Created;
        log_options::target(&view.config).max_files.saturating_sub(1).min(MOST_ROTATED)
    };
    let place = Arc::new(Place { path, rotated });
    // Ends by itself when the receiver is dropped, the log is at its end, or the workload is gone.
    tokio::spawn(async move {
        let reader = Reader { place, query, state, sender };
        reader.run().await;
    });
    LogStream { records }
}

struct Reader {
    place: Arc<Place>,
    query: LogQuery,
    state: watch::Receiver<Arc<WorkloadView>>,
    sender: mpsc::Sender<Result<Record, EngineError>>,
}

enum Stopped {
    /// The receiver is gone, or a record past `until` was seen.
    Enough,
    Failed(EngineError),
}

/// What reading on a blocking thread has at hand.
struct Task {
    place: Arc<Place>,
    query: LogQuery,
    sender: mpsc::Sender<Result<Record, EngineError>>,
}

impl Task {
    /// Whether nobody waits for what is read.
    fn is_vain(&self) -> bool {
        self.sender.is_closed()
    }
}

impl Reader {
    async fn run(mut self) {
        if let Err(Stopped::Failed(error)) = self.read().await {
            tracing::debug!(%error, "log reading ended early");
            let _ = self.sender.send(Err(error)).await;
        }
    }

    /// Does `work` on a thread that may block, when it is this reader's turn.
    async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Task) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Stopped> {
        let permit = tokio::select! {
            permit = READERS.acquire() => permit.map_err(|_| Stopped::Failed(EngineError::Stopping))?,
            () = self.sender.closed() => return Err(Stopped::Enough),
        };
        let task = Task { place: self.place.clone(), query: self.query, sender: self.sender.clone() };
        let done = tokio::task::spawn_blocking(move || work(&task)).await;
        drop(permit);
        done.map_err(|_| Stopped::Failed(EngineError::Stopping))?.map_err(|source| self.failed(source))
    }

    async fn read(&mut self) -> Result<(), Stopped> {
        // Watching begins before the first read, so that nothing falls between.
        let mut watch = if self.query.follow { Some(Watch::new(self.place.folder())) } else { None };
        let mut file = match self.query.tail {
            Some(0) => {
                self.apart(|task| {
                    let mut file = task.place.open(0)?;
                    if let Some(file) = &mut file {
                        file.file.seek(SeekFrom::End(0))?;
                    }
                    Ok(file)
                })
                .await?
            }
            Some(count) => self.tail(count).await?,
            None => {
                let oldest = self.apart(|task| task.place.rotated()).await?;
                let mut live = None;
                for number in (0..=oldest).rev() {
                    live = self.apart(move |task| task.place.open(number)).await?;
                    if let Some(file) = live.take() {
                        live = Some(self.drain(file).await?);
                    }
                }
                live
            }
        };
        let Some(watch) = &mut watch else { return Ok(()) };
        let end = self.query.until;
        let until = async {
            match end {
                Some(until) => {
                    let left = until.saturating_sub(now_nanos()).max(0) as u64;
                    tokio::time::sleep(Duration::from_nanos(left)).await;
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
            if let Some(open) = file.take() {
                file = Some(self.drain(open).await?);
            }
            let now = self.apart(|task| task.place.inode(0)).await?;
            if now.is_some() && now != file.as_ref().map(|file| file.inode) {
                // What was written to the old one between its end and its renaming.
                if let Some(old) = file.take() {
                    self.drain(old).await?;
                }
                file = self.apart(|task| task.place.open(0)).await?;
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

    /// Sends what is wanted from the file's position to its end, and gives the file back.
    async fn drain(&self, mut file: LogFile) -> Result<LogFile, Stopped> {
        loop {
            let (read, records, end) = self
                .apart(move |task| {
                    let (records, end) = file.turn(&task.query, || task.is_vain())?;
                    Ok((file, records, end))
                })
                .await?;
            file = read;
            // Whoever takes its records slowly holds up no other reader: this is not its turn.
            for record in records {
                self.sender.send(Ok(record)).await.map_err(|_| Stopped::Enough)?;
            }
            match end {
                End::Turn => {}
                End::File => return Ok(file),
                End::All => return Err(Stopped::Enough),
            }
        }
    }

    /// Sends what is wanted of the last `count` records, as Docker counts: of either stream, of any time. Answers the live
    /// file, read to its end.
    async fn tail(&self, count: usize) -> Result<Option<LogFile>, Stopped> {
        // Only as many files as needed, newest first; where reading begins is found before anything is read.
        let look = move |task: &Task| {
            let mut files = Vec::new();
            let mut left = count;
            for number in 0..=task.place.rotated {
                match task.place.open(number)? {
                    Some(mut file) => {
                        left -= file.seek_last(left, || task.is_vain())?;
                        files.push((number, file));
                    }
                    None if number > 0 => break,
                    None => {}
                }
                if left == 0 {
                    break;
                }
            }
            Ok(files)
        };
        let mut files = self.apart(look).await?;
        let mut live = None;
        while let Some((number, file)) = files.pop() {
            let file = self.drain(file).await?;
            if number == 0 {
                live = Some(file);
            }
        }
        Ok(live)
    }

    fn failed(&self, source: io::Error) -> Stopped {
        Stopped::Failed(EngineError::File { path: self.place.path.clone(), source })
    }
}

/// What becomes of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Sent,
    Skipped,
    /// It is later than what was asked for, and so is all that follows.
    Late,
}

/// Pure.
fn judge(query: &LogQuery, record: &Record) -> Verdict {
    let wanted = match record.stream {
        Output::Stdout => query.stdout,
        Output::Stderr => query.stderr,
    };
    if query.until.is_some_and(|until| record.time > until) {
        Verdict::Late
    } else if wanted && query.since.is_none_or(|since| record.time >= since) {
        Verdict::Sent
    } else {
        Verdict::Skipped
    }
}

/// Where the files of a log lie: `path`, and `path.1`, the newest of those put aside, to `path.ROTATED` at most.
///
/// The folder is the engine's and stands below folders that are closed to others; what is in it may be anybody's.
struct Place {
    path: PathBuf,
    rotated: u32,
}

impl Place {
    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    fn name(&self, number: u32) -> OsString {
        let mut name = self.path.file_name().unwrap_or(OsStr::new("")).to_owned();
        if number > 0 {
            name.push(format!(".{number}"));
        }
        name
    }

    fn opened(&self) -> io::Result<Option<OwnedFd>> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        found(fs::openat(CWD, self.folder(), flags, Mode::empty()))
    }

    /// Which file has this number now, without following a link.
    fn inode(&self, number: u32) -> io::Result<Option<u64>> {
        let Some(folder) = self.opened()? else { return Ok(None) };
        let about = found(fs::statat(folder, self.name(number), AtFlags::SYMLINK_NOFOLLOW))?;
        Ok(about.map(|about| about.st_ino))
    }

    /// The number of the oldest rotated file; 0 where there is none.
    fn rotated(&self) -> io::Result<u32> {
        let Some(folder) = self.opened()? else { return Ok(0) };
        let there = |number: &u32| fs::statat(&folder, self.name(*number), AtFlags::SYMLINK_NOFOLLOW).is_ok();
        Ok((1..=self.rotated).take_while(there).last().unwrap_or(0))
    }

    /// # Errors
    /// For what is no regular file with this name alone: a link, or a second name, leads to another's log; to open a pipe
    /// or a device may block or do something. For a file that its writer has reserved (a lease of fcntl(2)).
    fn open(&self, number: u32) -> io::Result<Option<LogFile>> {
        let Some(folder) = self.opened()? else { return Ok(None) };
        let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Some(stands) = found(fs::openat(folder, self.name(number), look, Mode::empty()))? else { return Ok(None) };
        let about = fs::fstat(&stands)?;
        if FileType::from_raw_mode(about.st_mode) != FileType::RegularFile || about.st_nlink > 1 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "what stands there is no log file: it is a link, has a second name, or is no file at all. \
                 Remove it, and find out what put it there",
            ));
        }
        // Opened by its descriptor: nothing can have taken its place.
        let path = format!("/proc/self/fd/{}", stands.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = fs::open(path, flags, Mode::empty()).map_err(|error| match error {
            Errno::AGAIN => io::Error::new(
                io::ErrorKind::WouldBlock,
                "its writer has reserved it (a lease of fcntl(2)): stop the workload, then read its log",
            ),
            error => error.into(),
        })?;
        Ok(Some(LogFile::new(file.into(), about.st_ino)))
    }
}

/// What is not there is no error.
fn found<T>(result: rustix::io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Why a turn is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Turn,
    File,
    /// Nothing more is wanted, of this file or any other.
    All,
}

/// One file of the log, with what was read but is no whole record yet.
struct LogFile {
    file: File,
    inode: u64,
    pending: Vec<u8>,
    /// The record that is being read is too long to be one of ours: what is left of it is passed over.
    skipping: bool,
    /// Bytes that were no records.
    junk: u64,
}

impl LogFile {
    fn new(file: File, inode: u64) -> Self {
        Self { file, inode, pending: Vec::new(), skipping: false, junk: 0 }
    }

    /// Reads on, for so long that other readers have their turn too; answers what is wanted of it.
    fn turn(&mut self, query: &LogQuery, is_vain: impl Fn() -> bool) -> io::Result<(Vec<Record>, End)> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        for _ in 0..TURN_READ / CHUNK {
            if is_vain() {
                return Ok((Vec::new(), End::All));
            }
            let Some(records) = self.next_records()? else { return Ok((taken, End::File)) };
            for record in records {
                match judge(query, &record) {
                    Verdict::Late => return Ok((taken, End::All)),
                    Verdict::Skipped => {}
                    Verdict::Sent => {
                        bytes += record.text.len() + size_of::<Record>();
                        taken.push(record);
                    }
                }
            }
            if bytes > TURN_FOUND {
                break;
            }
        }
        Ok((taken, End::Turn))
    }

    /// The next whole records; `None` at the end of the file. What cannot be decoded is passed over.
    ///
    /// # Errors
    /// `InvalidData` where that is more than [`MOST_JUNK`].
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
            let passed = end(&self.pending);
            self.skipping = passed.is_none();
            let passed = passed.unwrap_or(self.pending.len());
            self.junk += passed as u64;
            self.pending.drain(..passed);
        }
        let whole = self.pending.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let mut records = Vec::new();
        for line in self.pending[..whole].split_inclusive(|b| *b == b'\n') {
            match log_line::decode(line) {
                Some(record) => records.push(record),
                None => self.junk += line.len() as u64,
            }
        }
        self.pending.drain(..whole);
        if self.pending.len() > LONGEST {
            self.junk += self.pending.len() as u64;
            self.pending = Vec::new();
            self.skipping = true;
        }
        if self.junk > MOST_JUNK {
            let text = format!(
                "more than {} MiB of it are no records, so something else wrote to it: what follows is not read. \
                 Remove the file, and find out what wrote it",
                MOST_JUNK >> 20
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(Some(records))
    }

    /// Goes to where the last `count` records begin; answers how many there are, if fewer. Looks no further back than
    /// [`MOST_JUNK`] of what cannot be records.
    fn seek_last(&mut self, count: usize, is_vain: impl Fn() -> bool) -> io::Result<usize> {
        let mut at = self.file.metadata()?.len();
        // Each record ends a line; the one behind the last line end is not whole yet.
        let mut ends = 0;
        // Where the line that is being looked through ends, and bytes of those that were too long.
        let (mut line_end, mut junk) = (at, 0);
        let too_long = |length: u64| if length > LONGEST as u64 { length } else { 0 };
        let mut chunk = vec![0; CHUNK];
        while at > 0 {
            if is_vain() || junk + too_long(line_end - at) > MOST_JUNK {
                self.file.seek(SeekFrom::Start(line_end))?;
                return Ok(ends);
            }
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
                let begins = at + offset as u64 + 1;
                if ends == count {
                    self.file.seek(SeekFrom::Start(begins))?;
                    return Ok(count);
                }
                ends += 1;
                junk += too_long(line_end - begins);
                line_end = begins;
            }
        }
        self.file.seek(SeekFrom::Start(0))?;
        Ok(ends)
    }
}

/// Tells when the folder of a log changed.
enum Watch {
    Told(AsyncFd<OwnedFd>),
    /// The kernel has no watch left, of which a user has 128, containers' root among them: it is looked at now and then.
    Asked,
}

impl Watch {
    fn new(folder: &Path) -> Self {
        Self::begin(folder).unwrap_or_else(|error| {
            tracing::debug!(folder = %folder.display(), %error, "a log is looked at now and then instead of watched");
            Self::Asked
        })
    }

    #[expect(
        deprecated,
        reason = "its unsafe successor wants the promise that an OwnedFd keeps its file, which it does by its type"
    )]
    fn begin(folder: &Path) -> io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(
            &fd,
            folder,
            inotify::WatchFlags::MODIFY
                | inotify::WatchFlags::CREATE
                | inotify::WatchFlags::MOVED_TO
                | inotify::WatchFlags::DELETE_SELF
                | inotify::WatchFlags::ONLYDIR,
        )?;
        Ok(Self::Told(AsyncFd::new(fd)?))
    }

    /// Waits for the next change; several at once count as one.
    async fn changed(&mut self) {
        let ready = match self {
            Self::Told(fd) => fd.readable_mut().await,
            Self::Asked => return tokio::time::sleep(LOOK_EVERY).await,
        };
        let Ok(mut ready) = ready else { return tokio::time::sleep(LOOK_EVERY).await };
        let mut buffer = [0u8; 4096];
        // Whoever writes faster than this is told of again.
        for _ in 0..16 {
            match rustix::io::read(ready.get_inner(), &mut buffer) {
                Ok(0) | Err(_) => return ready.clear_ready(),
                Ok(_) => {}
            }
        }
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
        LogFile::new(file, 0)
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

    #[test]
    fn a_file_that_is_no_log_is_read_for_a_moment_and_no_longer() {
        let file = tempfile::tempfile().unwrap();
        // On one side of the hole a record each, so that both directions have to pass it.
        let hole = 4_u64 << 40;
        std::os::unix::fs::FileExt::write_all_at(&file, &line("first\n"), 0).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &line("last\n"), hole).unwrap();
        let all = LogQuery { stdout: true, stderr: true, follow: false, since: None, until: None, tail: None };
        let mut log = LogFile::new(file.try_clone().unwrap(), 0);
        let (mut told, mut turns) = (Vec::new(), 0);
        let refused = loop {
            turns += 1;
            match log.turn(&all, || false) {
                Ok((records, _)) => told.extend(records.into_iter().map(|record| record.text)),
                Err(error) => break error,
            }
        };
        assert_eq!(told, ["first\n"]);
        assert!(refused.to_string().contains("are no records"), "{refused}");
        assert!(turns <= 1 + MOST_JUNK as usize / TURN_READ, "{turns} turns");
        let mut log = LogFile::new(file, 0);
        // The end of the record that stands behind the hole is a line's; its beginning is not found.
        assert!(log.seek_last(10, || false).unwrap() <= 1);
        assert!(log.file.stream_position().unwrap() > hole - (1 << 30));
    }

    #[test]
    fn reading_ends_when_nobody_waits_for_it_and_lets_others_read() {
        let one = line(&"x".repeat(1000));
        let bytes = one.repeat(20 << 10);
        let query = |since| LogQuery { stdout: true, stderr: true, follow: false, since, until: None, tail: None };
        let mut log = written(&bytes);
        assert_eq!(log.turn(&query(None), || true).unwrap(), (Vec::new(), End::All));
        // Records that are not wanted do not make a turn longer.
        assert_eq!(log.turn(&query(Some(i64::MAX)), || false).unwrap(), (Vec::new(), End::Turn));
        assert_eq!(log.file.stream_position().unwrap(), TURN_READ as u64);
        let (records, end) = log.turn(&query(None), || false).unwrap();
        assert_eq!(end, End::Turn);
        assert!(records.len() * 1000 < 2 * TURN_FOUND, "{} records", records.len());
        let looked = std::cell::Cell::new(0);
        let vain = || {
            looked.set(looked.get() + 1);
            looked.get() > 3
        };
        log.seek_last(usize::MAX, vain).unwrap();
        assert_eq!(looked.get(), 4);
    }

    #[test]
    fn only_a_regular_file_of_one_name_is_taken_for_a_log() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        let place = Place { path: at("log"), rotated: 2 };
        let refused = |what: &str| {
            let error = place.open(0).err().unwrap_or_else(|| panic!("{what} was opened"));
            assert!(error.to_string().contains("is no log file"), "{what}: {error}");
            std::fs::remove_file(at("log")).unwrap();
        };
        assert!(place.open(0).unwrap().is_none() && place.inode(0).unwrap().is_none());
        std::fs::write(at("secret"), line("of another\n")).unwrap();
        std::os::unix::fs::symlink(at("secret"), at("log")).unwrap();
        assert_ne!(
            place.inode(0).unwrap(),
            Some(std::os::unix::fs::MetadataExt::ino(&at("secret").metadata().unwrap()))
        );
        refused("a link");
        std::fs::hard_link(at("secret"), at("log")).unwrap();
        refused("a second name");
        fs::mknodat(CWD, at("log"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        refused("a pipe");
        std::fs::write(at("log"), line("own\n")).unwrap();
        assert_eq!(texts(&mut place.open(0).unwrap().unwrap()), ["own\n"]);
        // Without end, and each a link: no more are looked at than the workload may have.
        for number in 1..10 {
            std::os::unix::fs::symlink("nowhere", at(&format!("log.{number}"))).unwrap();
        }
        assert_eq!(place.rotated().unwrap(), 2);
    }

    #[tokio::test]
    async fn a_log_that_cannot_be_watched_is_looked_at_now_and_then() {
        let mut watch = Watch::new(Path::new("/nowhere"));
        assert!(matches!(watch, Watch::Asked));
        tokio::time::timeout(Duration::from_secs(10), watch.changed()).await.unwrap();
    }

    proptest! {
        #[test]
        fn reading_begins_at_the_last_records(lines in proptest::collection::vec("[a-z]{0,3000}", 0..80), count in 0_usize..90) {
            let bytes: Vec<u8> = lines.iter().flat_map(|text| line(text)).chain(*b"{\"log\":\"half").collect();
            let mut file = written(&bytes);
            let found = file.seek_last(count, || false).unwrap();
            prop_assert_eq!(found, count.min(lines.len()));
            prop_assert_eq!(texts(&mut file), &lines[lines.len() - found..]);
        }
    }
}
