//! What every handler works with.

use std::sync::Arc;

use bireme_engine::{Engine, EngineError};
use bireme_image::{CachePolicy, ImageStore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::host::Host;
use crate::settings::Settings;

/// The daemon as its handlers see it. Clones share everything.
#[derive(Clone)]
pub struct App {
    pub engine: Engine,
    pub images: ImageStore,
    pub settings: Arc<Settings>,
    pub host: Arc<Host>,
    /// Cancelled when the daemon is to stop: streams without end then end.
    pub stop: CancellationToken,
    /// Changes that are under way, whether or not their clients are still there.
    pub changes: TaskTracker,
}

impl App {
    /// What is kept of the cache of builds by itself.
    pub fn cache_policy(&self) -> CachePolicy {
        let disk = rustix::fs::statvfs(&self.settings.data_root).map_or(0, |disk| disk.f_blocks * disk.f_frsize);
        CachePolicy::for_disk(disk)
    }

    /// Begins to clear away what is not kept of it.
    pub fn collect_build_cache(&self) {
        let (images, policy, stop) = (self.images.clone(), self.cache_policy(), self.stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                collected = images.collect_build_cache(&policy) => {
                    if let Err(error) = collected {
                        tracing::warn!(error = &error as &dyn std::error::Error, "the cache of builds could not be cleared up");
                    }
                }
                () = stop.cancelled() => {}
            }
        });
    }

    /// Has the engine change something, to the end even if the client leaves: half a change helps nobody.
    pub async fn change<F, Fut, T>(&self, change: F) -> Result<T, EngineError>
    where
        F: FnOnce(Engine) -> Fut,
        Fut: Future<Output = Result<T, EngineError>> + Send + 'static,
        T: Send + 'static,
    {
        match self.changes.spawn(change(self.engine.clone())).await {
            Ok(outcome) => outcome,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only the end of the runtime cancels these tasks.
                Err(_) => Err(EngineError::Stopping),
            },
        }
    }
}
