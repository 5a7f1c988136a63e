//! Messages: one fresh instance for each. They come from Redis, from a channel or a stream.

mod call;
mod channel;
mod entry;
mod pending;
mod stream;

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use self::stream::Entries;
pub(crate) use self::stream::machine;
use crate::workload::{Invocation, Workload};

/// How long to wait before another attempt to connect: doubled from the first to the last.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LAST_WAIT: Duration = Duration::from_secs(5);
/// How long a connection must have lasted before the log is told of its end again.
const STEADY: Duration = Duration::from_secs(10);
/// How long a server may take to answer what begins a connection.
const BEGIN: Duration = Duration::from_secs(10);

const SILENT: &str = "the server does not answer";

/// What brings messages to a workload, and to the one that takes over from it: the connection goes on, so that none is lost
/// or comes twice.
pub(crate) struct Subscription {
    workload: watch::Sender<Arc<Workload>>,
    takers: Mutex<Takers>,
    entries: Arc<Entries>,
}

/// Who else may have its messages.
#[derive(Default)]
struct Takers {
    /// Those from which it was taken and that go on, the last of them last.
    earlier: Vec<Weak<Workload>>,
    /// Nobody any more.
    closed: bool,
}

/// What the log was told last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    End,
    Again,
}

/// One connection, as its log tells of it.
struct Connection {
    /// Since when messages can come.
    begun: Option<Instant>,
    told: Told,
}

impl Connection {
    /// Messages can come from now on.
    fn begin(&mut self, workload: &Workload, source: &str) {
        if self.told == Told::End {
            workload.component.log.note(&format!("bireme: subscribed to {source} again"));
            self.told = Told::Again;
        }
        self.begun = Some(Instant::now());
        workload.component.redis.forget();
    }
}

/// What begins a connection, in time.
async fn begun<T>(connect: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    tokio::time::timeout(BEGIN, connect).await.unwrap_or_else(|_| Err(SILENT.to_owned()))
}

impl Subscription {
    /// Brings messages to `workload` until it stops. Neither a bad message nor a server that goes away ends it.
    pub(crate) fn begin(workload: &Arc<Workload>) -> Weak<Self> {
        let subscription = Arc::new(Self {
            workload: watch::Sender::new(Arc::clone(workload)),
            takers: Mutex::default(),
            entries: Arc::default(),
        });
        let weak = Arc::downgrade(&subscription);
        tokio::spawn(async move { subscription.listen().await });
        weak
    }

    /// Brings the messages to `next` from now on. They come back where `next` stops and the one before has not. False where it
    /// has come to its end.
    pub(crate) fn hand_over(&self, next: &Arc<Workload>) -> bool {
        let mut takers = self.takers.lock();
        if !takers.closed {
            let before = self.workload.send_replace(Arc::clone(next));
            takers.earlier.retain(|one| one.strong_count() > 0);
            takers.earlier.push(Arc::downgrade(&before));
        }
        !takers.closed
    }

    fn current(&self) -> Arc<Workload> {
        Arc::clone(&self.workload.borrow())
    }

    async fn listen(&self) {
        let mut wait = FIRST_WAIT;
        let mut connection = Connection { begun: None, told: Told::Nothing };
        let mut over = std::pin::pin!(self.over());
        loop {
            connection.begun = None;
            let ended = tokio::select! {
                ended = self.connect(&mut connection) => ended,
                () = over.as_mut() => return,
            };
            let lasted = connection.begun.map_or(Duration::ZERO, |begun| begun.elapsed());
            // A server that accepts and drops us is no better than one that does not answer.
            if lasted >= wait {
                wait = FIRST_WAIT;
            }
            if connection.told == Told::Nothing || lasted >= STEADY {
                let workload = self.current();
                let spec = &workload.component.spec.bireme;
                let source = spec.subscribe.as_ref().map_or("", |subscription| &subscription.channel);
                let text = format!("bireme: the subscription to {source} broke off ({ended}); trying again");
                workload.component.log.note(&text);
                connection.told = Told::End;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = over.as_mut() => return,
            }
            wait = (wait * 2).min(LAST_WAIT);
        }
    }

    /// Serves one connection to its end and answers why it ended.
    async fn connect(&self, connection: &mut Connection) -> String {
        let workload = self.current();
        let Some(label) = workload.component.spec.bireme.subscribe.clone() else {
            return "no channel is set".to_owned();
        };
        match &label.group {
            None => channel::serve(self, workload, &label, connection).await,
            Some(group) => stream::serve(self, workload, &label, group, connection).await,
        }
    }

    /// Waits until nobody takes messages any more.
    async fn over(&self) {
        let mut current = self.workload.subscribe();
        loop {
            let workload = Arc::clone(&current.borrow_and_update());
            tokio::select! {
                () = workload.stopped().cancelled_owned() => {
                    let mut takers = self.takers.lock();
                    if !Arc::ptr_eq(&workload, &self.workload.borrow()) {
                        // Handed over in this moment.
                        continue;
                    }
                    let mut earlier = std::iter::from_fn(|| takers.earlier.pop());
                    match earlier.find_map(|one| one.upgrade().filter(|one| !one.is_stopping())) {
                        Some(before) => drop(self.workload.send_replace(before)),
                        None => {
                            takers.closed = true;
                            return;
                        }
                    }
                }
                changed = current.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Lets a message in as `work`, where there is a free instance, of whoever takes messages then.
    ///
    /// # Cancel safety
    /// Nothing has begun when the future is dropped.
    async fn admit(&self, work: &str) -> Invocation {
        let mut current = self.workload.subscribe();
        loop {
            let workload = Arc::clone(&current.borrow_and_update());
            if let Ok(invocation) = workload.admit_waiting(work.into()).await {
                return invocation;
            }
            // It stops. Another takes over, or `over` ends all.
            if current.wait_for(|now| !Arc::ptr_eq(now, &workload)).await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}
