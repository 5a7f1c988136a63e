//! What every handler works with.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bireme_buildkit::Results;
use bireme_engine::{Engine, EngineError};
use bireme_image::{CachePolicy, ImageStore};
use parking_lot::Mutex;
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
    /// What clients of BuildKit's protocol may build upon.
    pub build_results: Results,
    /// When the cache of builds is cleared up.
    pub collecting: Arc<Mutex<Throttle>>,
}

/// When something that many ask for is done: a little later, for all of them together, and not again before a while. Pure.
#[derive(Debug, Default)]
pub struct Throttle {
    last: Option<Instant>,
    /// It will be done.
    asked: bool,
}

impl Throttle {
    const LATER: Duration = Duration::from_secs(1);
    const EVERY: Duration = Duration::from_mins(1);

    /// How long to wait before it is done; `None` where somebody waits already.
    fn ask(&mut self, now: Instant) -> Option<Duration> {
        if std::mem::replace(&mut self.asked, true) {
            return None;
        }
        let since = self.last.map_or(Self::EVERY, |last| now.saturating_duration_since(last));
        Some(Self::LATER.max(Self::EVERY.saturating_sub(since)))
    }

    /// It is done now: whoever asks from here on asks for another time.
    fn began(&mut self, now: Instant) {
        (self.last, self.asked) = (Some(now), false);
    }
}

impl App {
    /// What is kept of the cache of builds; `None` where it is not cleared up by itself.
    pub fn cache_policy(&self) -> Option<CachePolicy> {
        let disk = rustix::fs::statvfs(&self.settings.data_root).map_or(0, |disk| disk.f_blocks * disk.f_frsize);
        self.settings.build_cache.policy(disk)
    }

    async fn collect(&self) {
        if let Some(policy) = self.cache_policy()
            && let Err(error) = self.images.collect_build_cache(&policy).await
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "the cache of builds could not be cleared up");
        }
        if let Err(error) = self.engine.forget_unused_programs().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "code of components that are gone could not be removed"
            );
        }
    }

    /// Has what is not kept of the cache of builds cleared away, and code of components that no image has: a little later, so
    /// that no client waits for it, and once a minute at most.
    ///
    /// Source: BuildKit, `control/control.go`, `throttledGC`.
    pub fn collect_soon(&self) {
        let Some(wait) = self.collecting.lock().ask(Instant::now()) else { return };
        let app = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = app.stop.cancelled() => return,
            }
            app.collecting.lock().began(Instant::now());
            tokio::select! {
                () = app.collect() => {}
                () = app.stop.cancelled() => {}
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_who_ask_have_it_done_once_and_not_again_before_a_minute() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        assert_eq!(throttle.ask(start), Some(Throttle::LATER));
        assert_eq!(throttle.ask(start), None);
        throttle.began(start);
        let soon = start + Duration::from_secs(10);
        assert_eq!(throttle.ask(soon), Some(Duration::from_secs(50)));
        assert_eq!(throttle.ask(soon), None);
        throttle.began(soon);
        assert_eq!(throttle.ask(soon + Duration::from_mins(10)), Some(Throttle::LATER));
    }
}
