//! What happened, for whoever listens: Docker's events.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use futures::stream::{self, Stream, StreamExt as _};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

/// How many past events are kept for `since`.
const KEPT: usize = 1024;

/// Something that happened to a workload, image, network or volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Docker's `Type`: `container`, `image`, `network`, `volume`.
    pub kind: &'static str,
    pub action: String,
    pub id: String,
    pub attributes: BTreeMap<String, String>,
    /// Nanoseconds since the Unix epoch.
    pub time: i64,
}

/// Which events. Times are nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default)]
pub struct EventQuery {
    /// `None`: only what happens from now on.
    pub since: Option<i64>,
    /// `None`: without end.
    pub until: Option<i64>,
}

pub(crate) struct Events {
    past: Mutex<VecDeque<Event>>,
    live: broadcast::Sender<Event>,
}

impl Events {
    pub(crate) fn new() -> Self {
        Self { past: Mutex::default(), live: broadcast::channel(KEPT).0 }
    }

    pub(crate) fn emit(&self, event: Event) {
        let mut past = self.past.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if past.len() == KEPT {
            past.pop_front();
        }
        past.push_back(event.clone());
        // Sent under the lock, so that a listener who takes both sees each event once. No listener is no error.
        let _ = self.live.send(event);
    }

    /// Past events from `since` on, then live ones until `until`. A listener too slow to follow misses events.
    pub(crate) fn listen(&self, query: EventQuery) -> impl Stream<Item = Event> + Send + Unpin + 'static {
        let (past, live) = {
            let past = self.past.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            (past.iter().cloned().collect::<Vec<_>>(), self.live.subscribe())
        };
        let begins = query.since.unwrap_or(i64::MAX);
        let ends = query.until.unwrap_or(i64::MAX);
        let past = past.into_iter().filter(move |event| event.time >= begins && event.time <= ends);
        let patience = query.until.map(|until| {
            let left = until.saturating_sub(crate::engine::now());
            std::time::Duration::from_nanos(left.max(0) as u64)
        });
        let over = async move {
            match patience {
                Some(patience) => tokio::time::sleep(patience).await,
                None => std::future::pending().await,
            }
        };
        let live = BroadcastStream::new(live).filter_map(async |event| event.ok()).take_until(over);
        Box::pin(stream::iter(past).chain(live))
    }
}
