//! Tasks of the engine: they end with it.

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::EngineError;

/// All tasks of one engine.
#[derive(Default)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    cancel: CancellationToken,
}

impl Tasks {
    /// Cancelled when the engine ends.
    pub(crate) fn cancel(&self) -> CancellationToken {
        self.cancel.clone()
    }

    /// Runs a task that ends by itself when the engine does.
    pub(crate) fn spawn_own(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(task);
    }

    /// Runs a task to its end, whose beginning may be outside of any task. Nothing runs it when there is no runtime: the
    /// engine is ending then.
    pub(crate) fn spawn_anywhere(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(self.tracker.spawn_on(task, &runtime));
        }
    }

    /// Ends all tasks, and waits for them at most `patience`.
    pub(crate) async fn close(&self, patience: std::time::Duration) {
        self.cancel.cancel();
        self.tracker.close();
        let _ = tokio::time::timeout(patience, self.tracker.wait()).await;
    }

    /// Runs a task, and drops it when the engine ends.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let cancel = self.cancel.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Does `work` to its end, also when the future is dropped: of what is half done, nobody would know.
    ///
    /// # Errors
    /// Those of `work`; `Stopping` when the engine ends first.
    pub(crate) async fn completed<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, EngineError>> + Send + 'static,
    ) -> Result<T, EngineError> {
        let (done, result) = tokio::sync::oneshot::channel();
        self.spawn(async move {
            let _ = done.send(work.await);
        });
        result.await.map_err(|_| EngineError::Stopping)?
    }
}
