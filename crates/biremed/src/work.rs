//! Long work that reports lines while it goes on: pull, load and build.
//!
//! It runs on a thread of its own: it is bound by disk and registry, and its futures borrow in ways that keep them from
//! moving between threads. When the answer is dropped, because the client is gone or the daemon stops, the work is
//! dropped too.

use axum::response::Response;
use bireme_core::error::chain;
use bireme_engine::{Preparation, PreparationStep};
use bireme_image::{ImageError, Progress};
use futures::{Stream, StreamExt as _};
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::convert::image;
use crate::stream;

/// Lines of a build that wait for its client. One holds 64 KiB at most, what a command prints at once.
const WAITING: usize = 64;

/// Lines of other work that wait: a few words each, some for each layer. Work that holds what others wait for, as a pull
/// does, must not stand still with it for a client that was put aside.
const WAITING_WORDS: usize = 8192;

/// Pieces of long work, uploads and downloads at once. Each holds a thread or two for as long as its client likes, out of
/// some hundreds that short work needs too: without a bound, clients that send slowly would keep every container from being
/// started and stopped.
static TAKING: Semaphore = Semaphore::const_new(64);
/// Apart from those, for what is sent: of `docker export | docker import` each waits for the other.
static GIVING: Semaphore = Semaphore::const_new(64);

/// Which way what takes long goes.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// From the client, from a registry, or nowhere: an upload, a pull, a build.
    In,
    /// To the client.
    Out,
}

/// Waits for a place for long work, which is given back when the answer is dropped. Cancel safe.
pub async fn place(way: Way) -> Option<SemaphorePermit<'static>> {
    let places = match way {
        Way::In => &TAKING,
        Way::Out => &GIVING,
    };
    // Never closed.
    places.acquire().await.ok()
}

/// Where work leaves its lines.
#[derive(Clone)]
pub struct Report(mpsc::Sender<Value>);

impl Report {
    /// Leaves a line. Where the client does not read, the work stands still until it does. Nobody reads it when the client
    /// is gone, which is no error.
    pub fn line(&self, line: Value) {
        let Err(mpsc::error::TrySendError::Full(line)) = self.0.try_send(line) else { return };
        // Reports are made from plain functions that cannot await; the thread is the work's own.
        tokio::task::block_in_place(|| {
            let _ = self.0.blocking_send(line);
        });
    }
}

impl Report {
    /// Leaves a line that the next one of its kind makes worthless, unless others wait already.
    pub fn passing(&self, line: Value) {
        if self.0.max_capacity() - self.0.capacity() < WAITING {
            let _ = self.0.try_send(line);
        }
    }

    /// Leaves how far the compilation of a component is.
    pub fn preparation(&self, preparation: &Preparation) {
        let line = image::preparation(preparation);
        match preparation.step {
            PreparationStep::Going(_) => self.passing(line),
            _ => self.line(line),
        }
    }

    /// Leaves what a layer came to.
    pub fn progress(&self, line: &Progress) {
        match line.total {
            Some(_) => self.passing(image::progress(line)),
            None => self.line(image::progress(line)),
        }
    }
}

/// Work that goes on.
pub struct Work {
    lines: mpsc::Receiver<Value>,
    ended: oneshot::Receiver<Result<(), ImageError>>,
    _cancel_on_drop: DropGuard,
}

/// Starts `work` whose lines are few and short.
pub fn start<F, Fut>(work: F) -> Work
where
    F: FnOnce(Report) -> Fut + Send + 'static,
    Fut: Future<Output = Result<(), ImageError>>,
{
    start_with(WAITING_WORDS, work)
}

/// Starts `work` that passes on what others print. It stands still where its client does not read.
pub fn start_build<F, Fut>(work: F) -> Work
where
    F: FnOnce(Report) -> Fut + Send + 'static,
    Fut: Future<Output = Result<(), ImageError>>,
{
    start_with(WAITING, work)
}

fn start_with<F, Fut>(waiting: usize, work: F) -> Work
where
    F: FnOnce(Report) -> Fut + Send + 'static,
    Fut: Future<Output = Result<(), ImageError>>,
{
    let (sender, lines) = mpsc::channel(waiting);
    let (answer, ended) = oneshot::channel();
    let cancel = CancellationToken::new();
    let cancelled = cancel.clone();
    let runtime = tokio::runtime::Handle::current();
    tokio::spawn(async move {
        let place = tokio::select! {
            place = place(Way::In) => place,
            () = cancelled.cancelled() => return,
        };
        tokio::task::spawn_blocking(move || {
            let _place = place;
            runtime.block_on(async {
                tokio::select! {
                    outcome = work(Report(sender)) => {
                        let _ = answer.send(outcome);
                    }
                    () = cancelled.cancelled() => {}
                }
            });
        });
    });
    Work { lines, ended, _cancel_on_drop: cancel.drop_guard() }
}

impl Work {
    /// The answer, once `first` lines are there or all there will be: a refusal before them has a status of its own.
    ///
    /// # Errors
    /// Those of work that fails before it has reported `first` lines.
    pub async fn answer(mut self, first: usize, stop: &CancellationToken) -> Result<Response, ImageError> {
        let mut held = Vec::new();
        while held.len() < first {
            match self.line().await {
                Some(line) => held.push(line),
                None => {
                    self.outcome().await?;
                    return Ok(stream::json_lines(futures::stream::iter(held), stop));
                }
            }
        }
        Ok(stream::json_lines(futures::stream::iter(held).chain(self.into_lines()), stop))
    }

    /// The next line, or `None` when there will be none.
    pub async fn line(&mut self) -> Option<Value> {
        self.lines.recv().await
    }

    /// How it ended. To be asked after the last line.
    pub async fn outcome(self) -> Result<(), ImageError> {
        // Without an answer it was cancelled or its thread panicked: there is nobody to tell, or the log has it.
        self.ended.await.unwrap_or(Ok(()))
    }

    /// The remaining lines, and one more if it fails: the status went out long ago.
    pub fn into_lines(self) -> impl Stream<Item = Value> + Send + 'static {
        futures::stream::unfold(Some(self), async |work| {
            let mut work = work?;
            if let Some(line) = work.line().await {
                return Some((line, Some(work)));
            }
            let error = work.outcome().await.err()?;
            tracing::warn!(error = %chain(&error), "long work failed");
            Some((image::failure(&error), None))
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn lines_come_before_the_failure() {
        let work = start(async |report| {
            report.line(json!(1));
            tokio::task::yield_now().await;
            report.line(json!(2));
            Err(ImageError::BuildRequest { reason: "no".to_owned() })
        });
        let lines: Vec<Value> = work.into_lines().collect().await;
        assert_eq!(lines[..2], [json!(1), json!(2)]);
        assert_eq!(lines[2]["error"], "cannot build: no");
        assert_eq!(lines.len(), 3);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn work_stands_still_while_nobody_reads() {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicUsize, Ordering};

        let told = Arc::new(AtomicUsize::new(0));
        let count = told.clone();
        let mut work = start_build(async move |report| {
            for number in 0..10_000 {
                report.line(json!(number));
                count.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        });
        while told.load(Ordering::SeqCst) < WAITING {
            tokio::task::yield_now().await;
        }
        // Long enough for it to run ahead, if it did.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        assert_eq!(told.load(Ordering::SeqCst), WAITING);
        for number in 0..10_000 {
            assert_eq!(work.line().await, Some(json!(number)));
        }
        assert_eq!(work.line().await, None);
        work.outcome().await.unwrap();
    }

    #[tokio::test]
    async fn lines_that_pass_are_not_kept_for_later() {
        let mut work = start(async move |report| {
            for number in 0..10_000 {
                report.passing(json!(number));
            }
            report.line(json!("end"));
            Ok(())
        });
        let (mut passed, mut last) = (0, Value::Null);
        while let Some(line) = work.line().await {
            (passed, last) = (passed + 1, line);
        }
        assert!(passed < 10_000);
        assert_eq!(last, json!("end"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn work_that_stands_still_ends_with_its_client() {
        let (gone, noticed) = oneshot::channel::<()>();
        let work = start_build(async move |report| {
            let _held = gone;
            loop {
                report.line(json!("again"));
                tokio::task::yield_now().await;
            }
        });
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        drop(work);
        assert!(noticed.await.is_err());
    }

    #[tokio::test]
    async fn work_is_dropped_with_its_answer() {
        let (gone, noticed) = oneshot::channel::<()>();
        let work = start(async move |_| {
            let _held = gone;
            std::future::pending().await
        });
        drop(work);
        assert!(noticed.await.is_err());
    }
}
