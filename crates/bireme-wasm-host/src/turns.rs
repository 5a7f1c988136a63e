//! Wakes of an instance while it is polled.
//!
//! What an instance is made of wakes itself again and again: the parts of a call pass each other the word. For the runtime
//! each of these would be a task to be scheduled, and another thread to be woken to look for it, which costs more than the
//! call. So whoever polls an instance polls it again right there where it was woken meanwhile, for a while.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed, Ordering::SeqCst};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures::task::AtomicWaker;

/// How long an instance that wakes itself is polled without a turn of others.
pub(crate) const AT_ONCE: Duration = Duration::from_micros(200);

/// Polls what belongs to one instance until it neither is ready nor was woken by what it did: `poll` is handed a context whose
/// wakes are seen here, and wake the task of `cx` as soon as this has returned.
///
/// `waker` calls [`Turns::wake`] of `turns`.
pub(crate) fn at_once<T>(
    turns: &Turns,
    waker: &Waker,
    cx: &mut Context<'_>,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    let mut inner = Context::from_waker(waker);
    let since = Instant::now();
    loop {
        turns.begin(cx.waker());
        let polled = poll(&mut inner);
        turns.is_inside.store(false, Relaxed);
        if polled.is_ready() || !turns.end() {
            return polled;
        }
        if since.elapsed() > AT_ONCE {
            // It computes: others have their turn.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
    }
}

/// Nobody polls: whoever wakes wakes the task.
const IDLE: u8 = 0;
/// Somebody polls, or it is over.
const POLLED: u8 = 1;
/// It was woken since the poll began.
const WOKEN: u8 = 2;

#[derive(Default)]
pub(crate) struct Turns {
    state: AtomicU8,
    task: AtomicWaker,
    /// [`at_once`] polls in this moment.
    is_inside: AtomicBool,
}

impl Turns {
    /// A poll begins, in the task that `task` wakes.
    fn begin(&self, task: &Waker) {
        self.task.register(task);
        self.state.store(POLLED, SeqCst);
        self.is_inside.store(true, Relaxed);
    }

    /// Whether it will be polled again at once, for whoever is polled.
    pub(crate) fn is_woken(&self) -> bool {
        self.is_inside.load(Relaxed) && self.state.load(SeqCst) == WOKEN
    }

    /// A poll has ended without an end of the instance. Whether it was woken meanwhile: then it is to be polled again, and
    /// otherwise the task is woken when there is reason to.
    fn end(&self) -> bool {
        self.state.compare_exchange(POLLED, IDLE, SeqCst, SeqCst).is_err()
    }

    pub(crate) fn wake(&self) {
        // Before the poll looks, or after it has let go: no wake is lost.
        let state = self.state.fetch_update(SeqCst, SeqCst, |state| (state == POLLED).then_some(WOKEN));
        if state == Err(IDLE) {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::{Arc, Barrier};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn a_wake_within_a_poll_is_another_poll_and_no_wake_of_the_task() {
        let (turns, task) = (Turns::default(), Arc::new(Counted::default()));
        let waker = Waker::from(Arc::clone(&task));
        let woken = || task.0.load(SeqCst);
        turns.begin(&waker);
        assert!(!turns.end() && woken() == 0);
        turns.wake();
        assert_eq!(woken(), 1, "nobody polls");
        turns.begin(&waker);
        turns.wake();
        turns.wake();
        assert!(turns.end() && woken() == 1);
        turns.begin(&waker);
        assert!(!turns.end(), "that was of the poll before");
        turns.begin(&waker);
        // It has ended: nobody calls `end`.
        turns.wake();
        assert_eq!(woken(), 1);
    }

    /// Whenever another thread wakes within a poll: the poll sees it, or the task does, and not both.
    #[test]
    fn no_wake_is_lost() {
        for _ in 0..2000 {
            let (turns, task) = (Turns::default(), Arc::new(Counted::default()));
            let both = Barrier::new(2);
            turns.begin(&Waker::from(Arc::clone(&task)));
            let again = std::thread::scope(|scope| {
                scope.spawn(|| {
                    both.wait();
                    turns.wake();
                });
                both.wait();
                turns.end()
            });
            assert_eq!(usize::from(again) + task.0.load(SeqCst), 1);
        }
    }
}
