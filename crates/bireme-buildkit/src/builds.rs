//! The builds that are open, and for some minutes the progress of those that were.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bireme_core::ErrorKind;
use bollard_buildkit_proto::pb;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::build::Build;
use crate::builder::{Output, Solved};
use crate::error::BuildError;
use crate::outputs::Results;
use crate::progress::Progress;

/// How long a builder may clean up after its build was given up.
pub const CANCEL_GRACE: Duration = Duration::from_secs(30);

/// How long a call waits for the build that it names. Clients give `Ping` 15 seconds.
const WAIT: Duration = Duration::from_secs(12);
/// How many builds may be open.
const MAX_BUILDS: usize = 1024;
/// For how many that have ended, and how long, progress is kept.
const MAX_ENDED: usize = 64;
const KEEP_ENDED: Duration = Duration::from_secs(120);

/// What a client returned: what it chose of the results, or its failure.
pub(crate) type Returned = Result<Option<Solved>, BuildError>;

/// A build that is open.
pub(crate) struct OpenBuild {
    pub(crate) build: Arc<Build>,
    /// What `Control/Solve` brought as inputs, for `Inputs`.
    pub(crate) inputs: HashMap<String, pb::Definition>,
    returned: Mutex<Option<oneshot::Sender<Returned>>>,
    /// Handles of its results.
    outputs: Mutex<Vec<String>>,
    table: Results,
}

impl OpenBuild {
    /// Takes what the client returned.
    pub(crate) fn give_back(&self, returned: Returned) -> Result<(), BuildError> {
        let taken = self.returned.lock().take().and_then(|waiting| waiting.send(returned).ok());
        taken.ok_or_else(|| BuildError::new(ErrorKind::Conflict, "this build has no place for a result (any more)"))
    }

    /// Keeps a result of it and answers with its handle.
    pub(crate) fn keep(&self, output: Output) -> Result<String, BuildError> {
        let id = self.table.keep(output)?;
        let mut outputs = self.outputs.lock();
        outputs.push(id.clone());
        // The build has ended meanwhile, so that nobody else lets go of this one.
        if self.build.cancelled().is_cancelled() {
            self.table.release(std::mem::take(&mut *outputs));
        }
        Ok(id)
    }
}

/// All builds.
#[derive(Clone, Default)]
pub(crate) struct Builds {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    open: Mutex<HashMap<String, Arc<OpenBuild>>>,
    ended: Mutex<VecDeque<(Instant, String, Progress)>>,
    changed: watch::Sender<()>,
}

impl Builds {
    /// Opens a build; it is open until the guard is dropped. The receiver gets what the client returns.
    pub(crate) fn open(
        &self,
        build: Build,
        inputs: HashMap<String, pb::Definition>,
        table: Results,
    ) -> Result<(Guard, oneshot::Receiver<Returned>), BuildError> {
        let id = build.id().to_owned();
        let (returned, waiting) = oneshot::channel();
        let open = Arc::new(OpenBuild {
            build: Arc::new(build),
            inputs,
            returned: Mutex::new(Some(returned)),
            outputs: Mutex::default(),
            table,
        });
        let mut builds = self.shared.open.lock();
        if builds.len() >= MAX_BUILDS {
            let message = format!("{MAX_BUILDS} builds are open already; wait for some to end");
            return Err(BuildError::new(ErrorKind::Unavailable, message));
        }
        if id.is_empty() || builds.contains_key(&id) {
            let shown: String = id.chars().take(64).collect();
            return Err(BuildError::new(
                ErrorKind::Conflict,
                format!("the build {shown:?} was refused: its ID is taken"),
            ));
        }
        builds.insert(id, open.clone());
        drop(builds);
        self.shared.changed.send_replace(());
        Ok((Guard { shared: self.shared.clone(), open }, waiting))
    }

    /// The open build with this ID, which may be about to come.
    pub(crate) async fn get(&self, id: &str) -> Result<Arc<OpenBuild>, BuildError> {
        self.find(id, |shared| shared.open.lock().get(id).cloned()).await
    }

    /// The progress of a build that is open, has ended lately, or is about to come.
    pub(crate) async fn progress(&self, id: &str) -> Result<Progress, BuildError> {
        self.find(id, |shared| {
            let open = shared.open.lock().get(id).map(|open| open.build.progress().clone());
            open.or_else(|| {
                let ended = shared.ended.lock();
                ended.iter().rev().find(|(_, ended, _)| ended == id).map(|(_, _, progress)| progress.clone())
            })
        })
        .await
    }

    async fn find<T>(&self, id: &str, look: impl Fn(&Shared) -> Option<T>) -> Result<T, BuildError> {
        let mut changed = self.shared.changed.subscribe();
        let found = async {
            loop {
                changed.mark_unchanged();
                if let Some(found) = look(&self.shared) {
                    return Some(found);
                }
                changed.changed().await.ok()?;
            }
        };
        tokio::time::timeout(WAIT, found).await.ok().flatten().ok_or_else(|| {
            let shown: String = id.chars().take(64).collect();
            BuildError::new(
                ErrorKind::NotFound,
                format!("no such build {shown:?}: it has ended, or was never asked for"),
            )
        })
    }
}

/// Ends a build when dropped, whether its call ended or was given up.
pub(crate) struct Guard {
    shared: Arc<Shared>,
    pub(crate) open: Arc<OpenBuild>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let build = &self.open.build;
        build.cancelled().cancel();
        build.progress().end();
        let now = Instant::now();
        let mut ended = self.shared.ended.lock();
        ended.push_back((now, build.id().to_owned(), build.progress().clone()));
        while ended.front().is_some_and(|(then, ..)| ended.len() > MAX_ENDED || now - *then > KEEP_ENDED) {
            ended.pop_front();
        }
        drop(ended);
        self.shared.open.lock().remove(build.id());
        self.open.table.release(std::mem::take(&mut *self.open.outputs.lock()));
    }
}

/// Runs a part of a build in a task of its own, so that it can clean up after the client is gone. Dropping the future gives
/// the build up.
pub(crate) async fn run<T: Send + 'static>(
    build: &Build,
    work: impl Future<Output = Result<T, BuildError>> + Send + 'static,
) -> Result<T, BuildError> {
    let cancelled = build.cancelled().clone();
    let id = build.id().to_owned();
    let mut task = tokio::spawn({
        let cancelled = cancelled.clone();
        async move {
            let too_long = async {
                cancelled.cancelled().await;
                tokio::time::sleep(CANCEL_GRACE).await;
            };
            tokio::select! {
                result = work => result,
                () = too_long => {
                    tracing::warn!(build = id, "a build did not end {CANCEL_GRACE:?} after it was given up, and was dropped");
                    Err(BuildError::cancelled())
                }
            }
        }
    });
    let guard = cancelled.drop_guard();
    let result = (&mut task).await;
    guard.disarm();
    result.unwrap_or_else(|_| Err(BuildError::failed("a defect of this engine ended the build; its log has more")))
}
