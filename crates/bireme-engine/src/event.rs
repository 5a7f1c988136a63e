//! What happened, for whoever listens: Docker's events.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bireme_core::clock::now_nanos;
use futures::stream::{self, Stream, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::watch;

/// How many past events are kept, for `since` and for listeners that are slow, and bytes of their texts: labels may be
/// long.
const KEPT: usize = 1024;
const KEPT_BYTES: usize = 8 << 20;

/// Something that happened to a workload, image, network or volume.
///
/// Source: Docker Engine API, `SystemEvents`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Docker's `Type`: `container`, `image`, `network`, `volume`.
    pub kind: &'static str,
    /// Docker's `Action`, such as `start` or `exec_create: sh -c true`.
    pub action: String,
    /// Docker's `Actor.ID`: ID of a workload, image or network, name of a volume.
    pub id: String,
    /// Docker's `Actor.Attributes`; of a workload also its name, image and labels.
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

impl Event {
    fn bytes(&self) -> usize {
        let attributes: usize = self.attributes.iter().map(|(key, value)| key.len() + value.len() + 96).sum();
        size_of::<Self>() + self.action.len() + self.id.len() + attributes
    }
}

/// What happened lately. Every listener reads it from here, so that one that is slow holds nothing more.
#[derive(Default)]
struct Past {
    events: VecDeque<Arc<Event>>,
    /// The number of the event at the front.
    first: u64,
    bytes: usize,
}

impl Past {
    fn push(&mut self, event: Arc<Event>) {
        self.bytes += event.bytes();
        self.events.push_back(event);
        while self.events.len() > KEPT || (self.bytes > KEPT_BYTES && self.events.len() > 1) {
            if let Some(old) = self.events.pop_front() {
                self.bytes -= old.bytes();
                self.first += 1;
            }
        }
    }

    fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    /// The first event from number `at` on, and its number.
    fn from(&self, at: u64) -> Option<(u64, Arc<Event>)> {
        let at = at.max(self.first);
        self.events.get(usize::try_from(at - self.first).ok()?).map(|event| (at, event.clone()))
    }
}

pub(crate) struct Events {
    past: Arc<Mutex<Past>>,
    /// The number of the event to come.
    live: watch::Sender<u64>,
}

impl Events {
    pub(crate) fn new() -> Self {
        Self { past: Arc::default(), live: watch::Sender::new(0) }
    }

    pub(crate) fn emit(&self, event: Event) {
        let end = {
            let mut past = self.past.lock();
            past.push(Arc::new(event));
            past.end()
        };
        self.live.send_modify(|told| *told = end.max(*told));
    }

    /// Past events from `since` on, then live ones until `until`. A listener too slow to follow misses events.
    pub(crate) fn listen(&self, query: EventQuery) -> impl Stream<Item = Event> + Send + Unpin + 'static {
        let live = self.live.subscribe();
        let past = self.past.clone();
        let now = past.lock().end();
        let begins = query.since.unwrap_or(i64::MAX);
        let ends = query.until.unwrap_or(i64::MAX);
        let patience = query.until.map(|until| {
            let left = until.saturating_sub(now_nanos());
            std::time::Duration::from_nanos(left.max(0) as u64)
        });
        let over = async move {
            match patience {
                // A sleep of no time lets others in first.
                Some(patience) if patience.is_zero() => {}
                Some(patience) => tokio::time::sleep(patience).await,
                None => std::future::pending().await,
            }
        };
        let look = move |at: u64| past.lock().from(at);
        // Of what is past, the times count; what comes from now on is wanted whatever its time says.
        let first = if query.since.is_some() { 0 } else { now };
        let then = look.clone();
        let before = stream::unfold(first, move |at| {
            let found = look(at).filter(|(number, _)| *number < now);
            async move { found.map(|(number, event)| (event, number + 1)) }
        });
        let before = before.filter(move |event| std::future::ready(event.time >= begins && event.time <= ends));
        let after = stream::unfold((now, live), move |(at, mut live)| {
            let look = then.clone();
            async move {
                loop {
                    // Marked as seen before looking, so that nothing falls between.
                    live.borrow_and_update();
                    if let Some((number, event)) = look(at) {
                        return Some((event, (number + 1, live)));
                    }
                    live.changed().await.ok()?;
                }
            }
        });
        Box::pin(before.chain(after.take_until(over)).map(Arc::unwrap_or_clone))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: &str, size: usize) -> Event {
        let attributes = BTreeMap::from([("label".to_owned(), "x".repeat(size))]);
        Event { kind: "container", action: action.to_owned(), id: String::new(), attributes, time: 1 }
    }

    #[tokio::test]
    async fn past_and_live_events_come_once_each_and_in_order() {
        let events = Events::new();
        events.emit(event("one", 0));
        let mut all = events.listen(EventQuery { since: Some(0), until: None });
        let mut live = events.listen(EventQuery::default());
        events.emit(event("two", 0));
        assert_eq!(all.next().await.unwrap().action, "one");
        assert_eq!(all.next().await.unwrap().action, "two");
        assert_eq!(live.next().await.unwrap().action, "two");
        drop(events);
        assert_eq!(live.next().await, None);
    }

    #[tokio::test]
    async fn a_listener_that_does_not_read_holds_nothing_and_goes_on_with_what_is_left() {
        let events = Events::new();
        let mut slow = events.listen(EventQuery::default());
        for at in 0..5000 {
            events.emit(event(&at.to_string(), 10));
        }
        assert_eq!(slow.next().await.unwrap().action, (5000 - KEPT).to_string());
        assert_eq!(slow.next().await.unwrap().action, (5001 - KEPT).to_string());
    }

    #[test]
    fn events_with_long_texts_are_bounded_in_bytes() {
        let events = Events::new();
        for _ in 0..100 {
            events.emit(event("create", 4 << 20));
        }
        let past = events.past.lock();
        assert!(past.bytes <= KEPT_BYTES && past.events.len() == 1, "{} bytes", past.bytes);
        assert_eq!(past.end(), 100);
    }
}
