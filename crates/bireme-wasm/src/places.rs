//! Places of compilations: how many run at once, and which gives way when others wait.
//!
//! A component may take minutes to compile, by mistake or on purpose. So there is a place apart for what takes long: a
//! compilation moves there when it has run for a while, and whoever waits gets the place that it had. Where that one is
//! taken, too, what has used very much is ended rather than that it keeps all others waiting. That is counted in processor
//! time: on a busy machine anything takes long.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};

/// How long a compilation runs before it counts as long.
const LONG: Duration = Duration::from_secs(10);
/// Processor time of one that keeps others waiting.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// How long one that keeps others waiting may take in all: what sleeps uses nothing.
const SLEEPING: Duration = Duration::from_secs(600);
/// How often is looked at what runs.
const INTERVAL: Duration = Duration::from_secs(1);
/// Places at most, the one for long compilations among them.
const MOST_PLACES: usize = 3;

/// Places on a machine with `total` bytes of memory, and the most bytes that the compilation in each may take: half of the
/// machine's memory together, within reason. One GiB of it is what the compiler's allocator sets aside when it starts.
pub(crate) fn share(total: u64) -> (usize, u64) {
    const LEAST: u64 = 3 << 29;
    const MOST: u64 = 4 << 30;
    let half = total / 2;
    let places = usize::try_from(half / LEAST).unwrap_or(MOST_PLACES).clamp(1, MOST_PLACES);
    (places, (half / places as u64).clamp(LEAST, MOST))
}

/// What becomes of a compilation that runs.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Stay,
    /// To the place for long ones.
    Move,
    End,
}

/// What becomes of one that has run for `elapsed` and used `used` of a processor.
fn next(elapsed: Duration, used: Duration, is_long: bool, long_is_free: bool, others_wait: bool) -> Step {
    match () {
        () if is_long || elapsed < LONG => Step::Stay,
        () if long_is_free => Step::Move,
        () if others_wait && (used >= PATIENCE || elapsed >= SLEEPING) => Step::End,
        () => Step::Stay,
    }
}

pub(crate) struct Places {
    quick: Semaphore,
    long: Semaphore,
    waiting: AtomicUsize,
}

/// One place, as long as this is kept.
pub(crate) struct Place<'a> {
    places: &'a Places,
    since: Instant,
    permit: SemaphorePermit<'a>,
    is_long: bool,
}

/// One more that waits, until this is dropped.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Places {
    /// `all` places; one of them, where there are several, for long compilations.
    pub(crate) fn new(all: usize) -> Self {
        let long = usize::from(all > 1);
        Self { quick: Semaphore::new(all - long), long: Semaphore::new(long), waiting: AtomicUsize::new(0) }
    }

    /// Waits for a place. Cancel safe: who gives up keeps none.
    pub(crate) async fn take(&self) -> Place<'_> {
        let _waits = Waits::new(&self.waiting);
        let permit = self.quick.acquire().await.expect("the semaphore is never closed");
        Place { places: self, since: Instant::now(), permit, is_long: false }
    }
}

impl Place<'_> {
    /// Returns when the compilation here must give way, which may never be; moves to the place for long ones meanwhile.
    /// `used` tells its processor time.
    pub(crate) async fn until_others_need_it(&mut self, used: impl Fn() -> Duration) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            self.pass(self.since.elapsed());
            let others_wait = self.places.waiting.load(Ordering::Relaxed) > 0;
            if next(self.since.elapsed(), used(), self.is_long, false, others_wait) == Step::End {
                return;
            }
        }
    }

    /// Moves to the place for long compilations, if it is free and this is one.
    fn pass(&mut self, elapsed: Duration) {
        if next(elapsed, elapsed, self.is_long, true, false) == Step::Move
            && let Ok(permit) = self.places.long.try_acquire()
        {
            self.permit = permit;
            self.is_long = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn compilations_share_half_of_the_machine() {
        for total in [0, GIB, 4 * GIB, 6 * GIB, 8 * GIB, 12 * GIB, 64 * GIB] {
            let (places, each) = share(total);
            assert!((1..=MOST_PLACES).contains(&places) && each >= 3 << 29, "{total}: {places} of {each}");
            // The least that a compiler needs is more than half of a small machine.
            assert!(places as u64 * each <= (total / 2).max(3 << 29), "{total}: {places} of {each}");
        }
        assert_eq!(share(24 * GIB), (3, 4 * GIB));
    }

    #[test]
    fn a_long_compilation_keeps_nobody_waiting() {
        let moment = Duration::from_millis(1);
        for (elapsed, used, is_long, long_is_free, others_wait, step) in [
            (LONG - moment, LONG, false, true, true, Step::Stay),
            (LONG, LONG, false, true, false, Step::Move),
            (LONG, LONG, false, false, true, Step::Stay),
            (PATIENCE, PATIENCE, false, false, false, Step::Stay),
            (PATIENCE, PATIENCE, false, false, true, Step::End),
            (PATIENCE, PATIENCE, false, true, true, Step::Move),
            (2 * PATIENCE, PATIENCE, true, false, true, Step::Stay),
            // The machine is busy with other things.
            (5 * PATIENCE, LONG, false, false, true, Step::Stay),
            (SLEEPING, LONG, false, false, true, Step::End),
        ] {
            let case = (elapsed, used, is_long, long_is_free, others_wait);
            assert_eq!(next(elapsed, used, is_long, long_is_free, others_wait), step, "{case:?}");
        }
    }

    #[tokio::test]
    async fn whoever_waits_gets_the_place_of_a_long_one() {
        let places = Places::new(2);
        let mut first = places.take().await;
        let wait = tokio::time::timeout(Duration::from_millis(50), places.take());
        assert!(wait.await.is_err(), "there is one quick place");
        assert_eq!(places.waiting.load(Ordering::Relaxed), 0, "it gave up");
        first.pass(LONG);
        let mut second = places.take().await;
        second.pass(LONG);
        assert!(first.is_long && !second.is_long, "there is one place for long ones");
        drop(first);
        second.pass(LONG);
        assert!(second.is_long);
        drop(places.take().await);
        drop(second);
        assert_eq!((places.quick.available_permits(), places.long.available_permits()), (1, 1));
    }
}
