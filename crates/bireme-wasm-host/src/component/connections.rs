//! The Redis connections of one workload: how many there are, who holds them, and which may be closed.
//!
//! They are made by `host::redis`; here they are only kept.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

use crate::host::resp::UnderWay;

/// Most connections of one workload at once: guests choose the addresses, and each costs the server and us.
const MAX_CONNECTIONS: usize = 32;
/// How long the closing of an idle connection is waited for where its place is needed.
const CLOSING: Duration = Duration::from_secs(1);
/// How long a connection that nobody holds is kept for the next instance.
pub(crate) const IDLE: Duration = Duration::from_secs(60);

/// The open connections of one workload, one per URL. One that breaks is forgotten, and made anew at the next use; one that
/// nobody used for a while is closed.
#[derive(Clone, Default)]
pub(crate) struct Connections {
    open: Arc<Mutex<HashMap<String, Open>>>,
    /// Places for connections, each of which is taken until its socket is closed: one that was forgotten may still be used.
    places: Places,
    pub under_way: UnderWay,
}

#[derive(Clone)]
struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_CONNECTIONS)))
    }
}

/// The place of one connection.
pub(crate) type Permit = Arc<OwnedSemaphorePermit>;

/// Counts who uses a connection.
pub(crate) type Held = Arc<()>;

struct Open {
    /// Kept here until the connection is made, which keeps it then.
    permit: Permit,
    /// Filled by the first who asks; the others wait for that.
    connection: Arc<OnceCell<MultiplexedConnection>>,
    held: Held,
    /// When it was last asked for.
    used: Instant,
    /// Tells a connection from the one that took its place.
    number: u64,
}

impl Open {
    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.held) == 1
    }

    /// Counts whoever asks as one who uses it.
    fn enter(&mut self) -> Entered {
        self.used = Instant::now();
        let (cell, held, permit) = (Arc::clone(&self.connection), Arc::clone(&self.held), Arc::clone(&self.permit));
        Entered { cell, held, permit, number: self.number }
    }
}

/// A connection of [`Connections`] as one who asks for it has it.
pub(crate) struct Entered {
    /// Filled by the first who asks; the others wait for that.
    pub cell: Arc<OnceCell<MultiplexedConnection>>,
    pub held: Held,
    pub permit: Permit,
    pub number: u64,
}

impl Connections {
    /// The connection to `url`, made or being made, if there is one.
    pub(crate) fn known(&self, url: &str) -> Option<Entered> {
        self.lock().get_mut(url).map(Open::enter)
    }

    /// A place for one more connection: the oldest that nobody uses is closed for it.
    ///
    /// # Errors
    /// A sentence when all are in use.
    ///
    /// # Cancel safety
    /// At most an idle connection was closed.
    pub(crate) async fn permit(&self) -> Result<Permit, String> {
        let full = || format!("{MAX_CONNECTIONS} connections are in use, and no component may have more");
        if let Ok(permit) = Arc::clone(&self.places.0).try_acquire_owned() {
            return Ok(Arc::new(permit));
        }
        {
            let mut open = self.lock();
            let idle = open.iter().filter(|(_, known)| known.is_idle()).min_by_key(|(_, known)| known.used);
            let oldest = idle.map(|(url, _)| url.clone()).ok_or_else(full)?;
            open.remove(&oldest);
        }
        let closed = tokio::time::timeout(CLOSING, Arc::clone(&self.places.0).acquire_owned()).await;
        closed.ok().and_then(Result::ok).map(Arc::new).ok_or_else(full)
    }

    /// Enters a connection that is to be made; `permit` is given back where another has done so meanwhile.
    pub(crate) fn enter(&self, url: &str, permit: Permit) -> Entered {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let mut open = self.lock();
        let new = || Open {
            permit,
            connection: Arc::default(),
            held: Held::default(),
            used: Instant::now(),
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
        };
        open.entry(url.to_owned()).or_insert_with(new).enter()
    }

    fn lock(&self) -> parking_lot::MutexGuard<'_, HashMap<String, Open>> {
        self.open.lock()
    }

    pub(crate) fn remove(&self, url: &str, number: u64) {
        let mut open = self.lock();
        if open.get(url).is_some_and(|known| known.number == number) {
            open.remove(url);
        }
    }

    pub(crate) fn close_idle(&self) {
        self.lock().retain(|_, known| !known.is_idle() || known.used.elapsed() < IDLE);
    }

    /// Forgets connections, so that the next use looks their names up again.
    pub(crate) fn forget(&self) {
        self.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_component_has_few_connections_and_those_in_use_stay() {
        let all = Connections::default();
        let mut held = Vec::new();
        for n in 0..MAX_CONNECTIONS {
            held.push(all.enter(&format!("redis://{n}"), all.permit().await.unwrap()).held);
        }
        assert!(all.permit().await.unwrap_err().contains("32 connections are in use"));
        assert!(all.known("redis://0").is_some(), "one that is open is shared");
        held.remove(0);
        all.enter("redis://one-more", all.permit().await.expect("the idle one makes room"));
        assert_eq!(all.lock().len(), MAX_CONNECTIONS);
        assert!(!all.lock().contains_key("redis://0"));
        for open in all.lock().values_mut() {
            open.used -= IDLE * 2;
        }
        all.close_idle();
        assert_eq!(all.lock().len(), MAX_CONNECTIONS - 1, "what is in use is not closed, the idle one is");
    }

    #[tokio::test]
    async fn connections_that_were_forgotten_count_until_they_are_closed() {
        let all = Connections::default();
        let mut driven = Vec::new();
        for n in 0..MAX_CONNECTIONS {
            driven.push(all.enter(&format!("redis://{n}"), all.permit().await.unwrap()).permit);
        }
        all.forget();
        assert!(all.known("redis://0").is_none(), "its name is looked up again");
        assert!(all.permit().await.is_err());
        driven.pop();
        assert!(all.permit().await.is_ok());
    }
}
