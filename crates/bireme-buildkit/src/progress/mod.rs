//! What a build does, as clients show it: vertices, what they transfer, what they print, warnings (`client.SolveStatus`).
//!
//! A [`Progress`] keeps the newest state of each, so that readers may come at any time, as many as want; a slow one skips what
//! was overtaken meanwhile and is not waited for. The stream of each ends once, after [`Progress::end`].

mod state;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bollard_buildkit_proto::moby::buildkit::v1::StatusResponse;
use futures::Stream;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use crate::place::{Lines, SourceFile};
use state::State;
pub(crate) use state::timestamp;

/// Changes are gathered for so long before they are sent.
const GATHER: Duration = Duration::from_millis(20);

/// Where a build tells what it does. Clones tell of the same build.
#[derive(Clone, Debug)]
pub struct Progress {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Told of every change.
    changed: watch::Sender<()>,
    /// Makes digests of vertices that no other build has.
    seed: [u8; 16],
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    /// Nothing done yet.
    pub fn new() -> Self {
        let shared = Shared { state: Mutex::default(), changed: watch::Sender::default(), seed: rand::random() };
        Self { shared: Arc::new(shared) }
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let value = change(&mut self.shared.state.lock());
        self.shared.changed.send_modify(|_| {});
        value
    }

    /// Tells of a step: `[base 2/3] COPY a.txt /a.txt`, `[internal] load build context`. It stands upon `inputs`, and has not
    /// started yet.
    pub fn vertex(&self, name: &str, inputs: &[&Vertex]) -> Vertex {
        let index = self.change(|state| {
            let digest = {
                let count = state.vertices() as u64;
                let hash = Sha256::new().chain_update(self.shared.seed).chain_update(count.to_be_bytes()).finalize();
                let hex = hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
                format!("sha256:{hex}")
            };
            let inputs = inputs.iter().map(|input| input.digest().to_owned()).collect();
            state.add_vertex(digest.clone(), name, inputs).map(|index| (index, digest))
        });
        let (index, digest) = match index {
            Some((index, digest)) => (Some(index), digest),
            None => (None, String::new()),
        };
        Vertex { progress: self.clone(), index, digest: digest.into() }
    }

    /// Warns, of a vertex or of the build as a whole.
    pub fn warn(&self, vertex: Option<&Vertex>, warning: Warning) {
        let digest = vertex.map(|vertex| vertex.digest().to_owned());
        self.change(|state| state.warn(digest, warning));
    }

    pub(crate) fn warn_raw(&self, warning: bollard_buildkit_proto::moby::buildkit::v1::VertexWarning) {
        self.change(|state| state.warn_raw(warning));
    }

    /// The build has ended: no more is told. Vertices that are still at work count as given up. Calling it again does nothing.
    pub fn end(&self) {
        self.change(|state| state.end(SystemTime::now()));
    }

    /// All that was told and will be, for one reader.
    pub(crate) fn follow(&self) -> impl Stream<Item = StatusResponse> + Send + use<> {
        let changed = self.shared.changed.subscribe();
        futures::stream::unfold(
            (self.clone(), changed, state::Seen::default()),
            |(progress, mut changed, mut seen)| async move {
                let ended = |_: &()| progress.shared.state.lock().ended();
                loop {
                    changed.mark_unchanged();
                    let (news, all) = progress.shared.state.lock().since(&mut seen);
                    match news {
                        Some(news) => return Some((news, (progress, changed, seen))),
                        None if all => return None,
                        None => {
                            changed.changed().await.ok()?;
                            // Whoever waits for the end has it at once.
                            let _ = tokio::time::timeout(GATHER, changed.wait_for(ended)).await;
                        }
                    }
                }
            },
        )
    }
}

/// One step of a build. Clones are the same step.
///
/// What is told of a vertex after it has ended, or after the build has, is dropped.
#[derive(Clone, Debug)]
pub struct Vertex {
    progress: Progress,
    /// `None` for one beyond the number that is kept, of which nothing is told.
    index: Option<usize>,
    digest: Arc<str>,
}

/// Which of a process's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Vertex {
    /// By which errors name it ([`BuildError::of_vertex`](crate::BuildError::of_vertex)).
    pub fn digest(&self) -> &str {
        &self.digest
    }

    fn change(&self, change: impl FnOnce(&mut State, usize)) {
        if let Some(index) = self.index {
            self.progress.change(|state| change(state, index));
        }
    }

    /// It starts.
    pub fn start(&self) {
        self.change(|state, index| state.start(index, SystemTime::now()));
    }

    /// It ended, and well.
    pub fn complete(&self) {
        self.change(|state, index| state.complete(index, false, String::new(), SystemTime::now()));
    }

    /// It ended at once, as its result was there already.
    pub fn cached(&self) {
        self.change(|state, index| state.complete(index, true, String::new(), SystemTime::now()));
    }

    /// It failed.
    pub fn fail(&self, why: &str) {
        let why = why.chars().take(4096).collect();
        self.change(|state, index| state.complete(index, false, why, SystemTime::now()));
    }

    /// It was given up; clients print `CANCELED`.
    pub fn cancel(&self) {
        self.fail("context canceled");
    }

    /// Something within it that takes its time: `transferring context:`, `sha256:…`, `exporting layers`.
    pub fn task(&self, name: &str) -> Task {
        let mut id = None;
        self.change(|state, index| id = state.add_task(index, name, SystemTime::now()));
        Task { progress: self.progress.clone(), id }
    }

    /// Runs something within it that takes its time.
    pub async fn during<T>(&self, name: &str, work: impl Future<Output = T> + Send) -> T {
        let task = self.task(name);
        let value = work.await;
        task.done();
        value
    }

    /// What it printed. Beyond two MiB a vertex, or 32 MiB a build, a line says so and the rest is dropped.
    pub fn log(&self, stream: LogStream, bytes: &[u8]) {
        self.change(|state, index| state.log(index, stream, bytes, SystemTime::now()));
    }
}

/// Something within a vertex that takes its time.
#[derive(Debug)]
pub struct Task {
    progress: Progress,
    id: Option<usize>,
}

impl Task {
    /// How far it is, in bytes; `total` 0 if that is not known.
    pub fn set(&self, current: u64, total: u64) {
        if let Some(id) = self.id {
            self.progress.change(|state| state.set_task(id, current, total, SystemTime::now()));
        }
    }

    /// It ended.
    pub fn done(&self) {
        if let Some(id) = self.id {
            self.progress.change(|state| state.end_task(id, SystemTime::now()));
        }
    }
}

/// A warning, as `docker build --check` and builds print it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Warning {
    /// 1 for a rule of the linter, 0 for more urgent ones.
    pub level: u8,
    /// One line.
    pub short: String,
    /// More lines.
    pub detail: Vec<String>,
    /// Where to read on, or empty.
    pub url: String,
    /// Where in which file.
    pub place: Option<(SourceFile, Vec<Lines>)>,
}
