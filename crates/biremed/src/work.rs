//! Long work that reports lines while it goes on: pull, load and build.
//!
//! It runs on a thread of its own: it is bound by disk and registry, and its futures borrow in ways that keep them from
//! moving between threads. When the answer is dropped, because the client is gone or the daemon stops, the work is
//! dropped too.

use axum::response::Response;
use bireme_image::ImageError;
use futures::{Stream, StreamExt as _};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::convert::image;
use crate::error::chain;
use crate::stream;

/// Where work leaves its lines. Not bounded: reports are made from plain functions that cannot wait, and there are few of
/// them, one for each half megabyte at most.
#[derive(Clone)]
pub struct Report(mpsc::UnboundedSender<Value>);

impl Report {
    /// Leaves a line. Nobody reads it when the client is gone, which is no error.
    pub fn line(&self, line: Value) {
        let _ = self.0.send(line);
    }
}

/// Work that goes on.
pub struct Work {
    lines: mpsc::UnboundedReceiver<Value>,
    ended: oneshot::Receiver<Result<(), ImageError>>,
    _cancel_on_drop: DropGuard,
}

/// Starts `work`.
pub fn start<F, Fut>(work: F) -> Work
where
    F: FnOnce(Report) -> Fut + Send + 'static,
    Fut: Future<Output = Result<(), ImageError>>,
{
    let (sender, lines) = mpsc::unbounded_channel();
    let (answer, ended) = oneshot::channel();
    let cancel = CancellationToken::new();
    let cancelled = cancel.clone();
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        runtime.block_on(async {
            tokio::select! {
                outcome = work(Report(sender)) => {
                    let _ = answer.send(outcome);
                }
                () = cancelled.cancelled() => {}
            }
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
