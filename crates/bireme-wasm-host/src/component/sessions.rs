//! Sessions with database servers. One guest at a time has a session, so that transactions and settings are its own; when it
//! is done, the session is made as new and kept for the next instance.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::IDLE;

/// Most sessions of one workload with servers of one kind.
const MOST: usize = 32;
/// How long a place is waited for where all are taken.
const WAIT: Duration = Duration::from_secs(10);
/// Longest time to make a session as new, or to have a server end what it is at.
const CLEANING: Duration = Duration::from_secs(5);

/// A session with a server, as its kind has it.
pub(crate) trait Session: Send + Sized + 'static {
    /// Whether nothing is under way and the server is still there.
    fn is_at_rest(&self) -> bool;

    /// Makes it as new: no transaction, no setting, no lock, no temporary table is left. False where it cannot be used any
    /// more.
    fn reset(&mut self) -> impl Future<Output = bool> + Send;

    /// Has the server end what is under way, and closes the session.
    fn abandon(self) -> impl Future<Output = ()> + Send;
}

/// The sessions of one workload with servers of all kinds, which are told apart by the type of a session.
#[derive(Default)]
pub(crate) struct Kinds(Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>);

impl Kinds {
    pub(crate) fn of<S: Session>(&self) -> Sessions<S> {
        let mut kinds = self.0.lock();
        let known = kinds.entry(TypeId::of::<S>()).or_insert_with(|| Arc::new(Pool::<S>::default()));
        // What stands by a type is of that type.
        Sessions(Arc::clone(known).downcast().unwrap_or_default())
    }
}

/// The sessions of one workload with servers of one kind.
pub(crate) struct Sessions<S>(Arc<Pool<S>>);

struct Pool<S> {
    idle: Mutex<AtRest<S>>,
    places: Arc<Semaphore>,
    /// Somebody closes those that nobody used for a while.
    is_swept: AtomicBool,
}

/// The sessions that nobody has, in the order in which they were given back.
struct AtRest<S> {
    all: Vec<Idle<S>>,
    /// How many wait for a place: as long as there are any, what comes back makes room.
    waiting: usize,
}

struct Idle<S> {
    address: String,
    session: S,
    place: OwnedSemaphorePermit,
    since: Instant,
}

impl<S> Default for Pool<S> {
    fn default() -> Self {
        let idle = Mutex::new(AtRest { all: Vec::new(), waiting: 0 });
        Self { idle, places: Arc::new(Semaphore::new(MOST)), is_swept: AtomicBool::new(false) }
    }
}

impl<S: Session> Sessions<S> {
    /// An idle session with the server at `address`, or the one that `connect` makes. What is in `address` is all that
    /// tells sessions apart.
    ///
    /// # Errors
    /// Those of `connect`, and a sentence where all are in use.
    ///
    /// # Cancel safety
    /// At most idle sessions were closed.
    pub(crate) async fn lend<E: From<String>>(
        &self,
        address: &str,
        connect: impl Future<Output = Result<S, E>>,
    ) -> Result<Lent<S>, E> {
        let pool = Arc::downgrade(&self.0);
        while let Some(Idle { address, session, place, .. }) = self.0.take(|idle| idle.address == address) {
            if session.is_at_rest() {
                return Ok(Lent { held: Some((session, place)), address, pool });
            }
        }
        let place = match Arc::clone(&self.0.places).try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                let waiting = Waiting::new(&self.0);
                let waited = tokio::time::timeout(WAIT, Arc::clone(&self.0.places).acquire_owned()).await;
                drop(waiting);
                let full = || format!("{MOST} connections are in use, and no component may have more");
                waited.ok().and_then(Result::ok).ok_or_else(full)?
            }
        };
        let session = connect.await?;
        Ok(Lent { held: Some((session, place)), address: address.to_owned(), pool })
    }
}

impl<S: Session> Pool<S> {
    /// Of those that fit the one that was used last.
    fn take(&self, fits: impl Fn(&Idle<S>) -> bool) -> Option<Idle<S>> {
        let mut idle = self.idle.lock();
        let at = idle.all.iter().rposition(fits)?;
        Some(idle.all.remove(at))
    }

    /// Keeps a session for the next, unless somebody waits for its place.
    fn keep(self: &Arc<Self>, one: Idle<S>) {
        let mut idle = self.idle.lock();
        if idle.waiting > 0 {
            drop(idle);
            return;
        }
        idle.all.push(one);
        drop(idle);
        if !self.is_swept.swap(true, Relaxed) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }
}

/// Somebody waits for a place. The session that was not used for longest is closed for it, where one is idle.
struct Waiting<'a, S>(&'a Pool<S>);

impl<'a, S> Waiting<'a, S> {
    fn new(pool: &'a Pool<S>) -> Self {
        let mut idle = pool.idle.lock();
        idle.waiting += 1;
        let oldest = (!idle.all.is_empty()).then(|| idle.all.remove(0));
        drop(idle);
        drop(oldest);
        Self(pool)
    }
}

impl<S> Drop for Waiting<'_, S> {
    fn drop(&mut self) {
        self.0.idle.lock().waiting -= 1;
    }
}

/// Closes sessions that nobody used for a while, until none is idle.
async fn sweep<S: Session>(pool: Weak<Pool<S>>) {
    loop {
        tokio::time::sleep(IDLE / 2).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut idle = pool.idle.lock();
        let old = idle.all.partition_point(|one| one.since.elapsed() >= IDLE);
        let closed: Vec<_> = idle.all.drain(..old).collect();
        let is_empty = idle.all.is_empty();
        if is_empty {
            pool.is_swept.store(false, Relaxed);
        }
        drop(idle);
        drop(closed);
        if is_empty {
            return;
        }
    }
}

/// A session that somebody has. When it is dropped, the next may have it.
pub(crate) struct Lent<S: Session> {
    /// Until it is dropped.
    held: Option<(S, OwnedSemaphorePermit)>,
    address: String,
    pool: Weak<Pool<S>>,
}

impl<S: Session> Lent<S> {
    /// Closes it, and gives its place back.
    pub(crate) fn close(&mut self) {
        self.held = None;
    }

    pub(crate) fn session(&mut self) -> Option<&mut S> {
        self.held.as_mut().map(|(session, _)| session)
    }
}

impl<S: Session> Drop for Lent<S> {
    fn drop(&mut self) {
        let Some((mut session, place)) = self.held.take() else { return };
        let (address, pool) = (std::mem::take(&mut self.address), self.pool.clone());
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            if !session.is_at_rest() {
                let _ = tokio::time::timeout(CLEANING, session.abandon()).await;
                return;
            }
            match (tokio::time::timeout(CLEANING, session.reset()).await, pool.upgrade()) {
                (Ok(true), Some(pool)) => pool.keep(Idle { address, session, place, since: Instant::now() }),
                (Ok(_), _) => {}
                (Err(_), _) => drop(tokio::time::timeout(CLEANING, session.abandon()).await),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// What became of a session.
    #[derive(Default)]
    struct Seen {
        made: AtomicUsize,
        reset: AtomicUsize,
        abandoned: AtomicUsize,
    }

    struct Fake {
        seen: Arc<Seen>,
        is_busy: bool,
        resets: bool,
    }

    impl Session for Fake {
        fn is_at_rest(&self) -> bool {
            !self.is_busy
        }

        async fn reset(&mut self) -> bool {
            self.seen.reset.fetch_add(1, Relaxed);
            self.resets
        }

        async fn abandon(self) {
            self.seen.abandoned.fetch_add(1, Relaxed);
        }
    }

    async fn lend(sessions: &Sessions<Fake>, seen: &Arc<Seen>, address: &str) -> Lent<Fake> {
        let made = async {
            seen.made.fetch_add(1, Relaxed);
            Ok::<_, String>(Fake { seen: Arc::clone(seen), is_busy: false, resets: true })
        };
        sessions.lend(address, made).await.unwrap()
    }

    async fn settle() {
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_is_made_as_new_before_the_next_has_it() {
        let (sessions, seen) = (Kinds::default().of(), Arc::new(Seen::default()));
        drop(lend(&sessions, &seen, "a").await);
        settle().await;
        let again = lend(&sessions, &seen, "a").await;
        // One that is held is nobody else's, and one for another server is none for this.
        let second = lend(&sessions, &seen, "a").await;
        let other = lend(&sessions, &seen, "b").await;
        assert_eq!((seen.made.load(Relaxed), seen.reset.load(Relaxed)), (3, 1));
        drop((again, second, other));
        settle().await;
        assert_eq!(sessions.0.idle.lock().all.len(), 3);
        tokio::time::sleep(IDLE * 2).await;
        assert!(sessions.0.idle.lock().all.is_empty(), "closed after a while");
        assert_eq!(sessions.0.places.available_permits(), MOST);
    }

    #[tokio::test(start_paused = true)]
    async fn one_with_something_under_way_is_abandoned_and_one_that_cannot_be_reset_is_closed() {
        let (sessions, seen) = (Kinds::default().of(), Arc::new(Seen::default()));
        let mut busy = lend(&sessions, &seen, "a").await;
        busy.session().unwrap().is_busy = true;
        let mut broken = lend(&sessions, &seen, "a").await;
        broken.session().unwrap().resets = false;
        drop((busy, broken));
        settle().await;
        assert_eq!((seen.abandoned.load(Relaxed), seen.reset.load(Relaxed)), (1, 1));
        assert!(sessions.0.idle.lock().all.is_empty());
        assert_eq!(sessions.0.places.available_permits(), MOST);
    }

    #[tokio::test(start_paused = true)]
    async fn where_all_are_taken_an_idle_one_makes_room_and_else_it_is_told() {
        let (sessions, seen) = (Kinds::default().of(), Arc::new(Seen::default()));
        let mut held = Vec::new();
        for _ in 0..MOST {
            held.push(lend(&sessions, &seen, "a").await);
        }
        let more = sessions.lend("a", async { Err::<Fake, _>("made".to_owned()) }).await;
        assert!(more.err().unwrap().contains("32 connections are in use"));
        held.pop();
        settle().await;
        drop(lend(&sessions, &seen, "b").await);
        assert_eq!(seen.made.load(Relaxed), MOST + 1);
        settle().await;
        held.push(lend(&sessions, &seen, "b").await);
        // One who waits has the place of what comes back.
        let (sessions, waiting) = (Arc::new(sessions), Arc::clone(&seen));
        let of_waiting = Arc::clone(&sessions);
        let waits = tokio::spawn(async move { drop(lend(&of_waiting, &waiting, "c").await) });
        settle().await;
        assert!(!waits.is_finished());
        held.pop();
        let since = Instant::now();
        waits.await.unwrap();
        assert!(since.elapsed() < WAIT, "it did not wait in vain");
        assert_eq!(sessions.0.idle.lock().waiting, 0);
    }
}
