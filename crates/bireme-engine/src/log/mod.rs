//! Reading a workload's log file, from the beginning, the end, or as it grows.
//!
//! The file is written by another process (`bireme_core::log_line`), one whole record per write, and may be rotated to
//! `path.1`, `path.2`, … at any moment. Reading follows the open file to its end, then turns to the new one.
//!
//! That process may have been taken over: a component's host may put into the folder whatever it likes. So what is read
//! is a regular file of one name, found below the folder and not through a link, and what is no record is bounded. Files
//! are read on threads that may block, some megabytes at a time, and a reader whose client left stops.
//!
//! ```text
//! place     the files of one log, live and rotated
//! file      one of them, read piece by piece
//! watcher   when to look again
//! ```

mod file;
mod place;
#[cfg(test)]
mod tests;
mod watcher;

use std::io::{self, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bireme_core::clock::now_nanos;
use bireme_core::log_line::Record;
use futures::Stream;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::request::LogQuery;
use crate::view::{Status, WorkloadView};
use crate::{EngineError, log_options};

use self::file::{End, LogFile};
use self::place::{MOST_ROTATED, Place};
use self::watcher::Watch;

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

/// Readers at work at once. The others wait for their turn, which is over after [`TURN_READ`].
static READERS: Semaphore = Semaphore::const_new(32);

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
