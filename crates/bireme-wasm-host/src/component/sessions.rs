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
    /// In the order in which they were given back.
    idle: Mutex<Vec<Idle<S>>>,
    places: Arc<Semaphore>,
    /// Somebody closes those that nobody used for a while.
    is_swept: AtomicBool,
}

struct Idle<S> {
    address: String,
    session: S,
    place: OwnedSemaphorePermit,
    since: Instant,
}

impl<S> Default for Pool<S> {
    fn default() -> Self {
        Self { idle: Mutex::default(), places: Arc::new(Semaphore::new(MOST)), is_swept: AtomicBool::new(false) }
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
                self.0.close_oldest();
                let waited = tokio::time::timeout(WAIT, Arc::clone(&self.0.places).acquire_owned()).await;
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
        let at = idle.iter().rposition(fits)?;
        Some(idle.remove(at))
    }

    fn close_oldest(&self) {
        let mut idle = self.idle.lock();
        let oldest = (!idle.is_empty()).then(|| idle.remove(0));
        drop(idle);
        drop(oldest);
    }

    fn keep(self: &Arc<Self>, idle: Idle<S>) {
        self.idle.lock().push(idle);
        if !self.is_swept.swap(true, Relaxed) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }
}

/// Closes sessions that nobody used for a while, until none is idle.
async fn sweep<S: Session>(pool: Weak<Pool<S>>) {
    loop {
        tokio::time::sleep(IDLE / 2).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut idle = pool.idle.lock();
        let old = idle.partition_point(|one| one.since.elapsed() >= IDLE);
        let closed: Vec<_> = idle.drain(..old).collect();
        let is_empty = idle.is_empty();
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
            if tokio::time::timeout(CLEANING, session.reset()).await == Ok(true)
                && let Some(pool) = pool.upgrade()
            {
                pool.keep(Idle { address, session, place, since: Instant::now() });
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::any::{Any, TypeId};
    use std::collections::HashMap;
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
        assert_eq!(sessions.0.idle.lock().len(), 3);
        tokio::time::sleep(IDLE * 2).await;
        assert!(sessions.0.idle.lock().is_empty(), "closed after a while");
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
        assert!(sessions.0.idle.lock().is_empty());
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
    }
}
