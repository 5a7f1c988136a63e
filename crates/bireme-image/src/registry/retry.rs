//! How often something is asked of a registry, and how long to wait in between.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use super::{Failure, Remote};
use crate::error::ImageError;

/// How often one request is made before it counts as failed.
const ATTEMPTS: u32 = 5;

/// The same of a place after which there is another to ask.
const ATTEMPTS_OF_A_MIRROR: u32 = 2;

/// The longest that a registry which is busy is waited for.
const MOST_WAIT: Duration = Duration::from_secs(60);

/// The same of a place after which there is another to ask.
const MOST_WAIT_FOR_A_MIRROR: Duration = Duration::from_secs(2);

/// How often something was tried.
#[derive(Debug, Default)]
pub(crate) struct Tries {
    failed: u32,
    logged_in: bool,
}

impl Tries {
    /// Counts a failure, and waits until it makes sense to try once more. A token that ran out is replaced.
    ///
    /// # Errors
    /// That of the failure, where it makes none.
    pub(crate) async fn again(&mut self, remote: &Remote, failure: Failure) -> Result<(), ImageError> {
        if failure.unauthorized && !self.logged_in && remote.shows_a_token() {
            self.logged_in = true;
            return remote.log_in().await;
        }
        self.wait(failure, remote.is_last()).await
    }

    /// Counts a failure, and waits until it makes sense to try once more.
    ///
    /// # Errors
    /// That of the failure, where it makes none.
    pub(super) async fn wait(&mut self, failure: Failure, last: bool) -> Result<(), ImageError> {
        let Some(wait) = self.count(&failure, last) else { return Err(failure.into()) };
        tracing::debug!(error = %failure.error, ?wait, "asking a registry once more");
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Something arrived: what failed before that does not count any more.
    pub(crate) fn anew(&mut self) {
        *self = Self::default();
    }

    /// How long to wait before the next attempt; `None` if there should be none.
    fn count(&mut self, failure: &Failure, last: bool) -> Option<Duration> {
        let (most, longest) = if last { (ATTEMPTS, MOST_WAIT) } else { (ATTEMPTS_OF_A_MIRROR, MOST_WAIT_FOR_A_MIRROR) };
        let wait = back_off(self.failed).max(failure.after.unwrap_or_default());
        self.failed += 1;
        (failure.retry && self.failed < most && wait <= longest).then_some(wait)
    }
}

/// Doubles from a quarter of a second. Up to a quarter of it is chance, so that many who failed together do not come back
/// together.
fn back_off(failed: u32) -> Duration {
    let whole = 250_u64 << failed.min(5);
    Duration::from_millis(whole - whole / 4 + RandomState::new().hash_one(failed) % (whole / 4))
}

impl From<Failure> for ImageError {
    /// Tells of a wait that was too long what it was.
    fn from(failure: Failure) -> Self {
        match (failure.error, failure.after) {
            (Self::Registry { registry, attempt, reason }, Some(after)) if after > MOST_WAIT => {
                let reason = format!("{reason}; it wants to be asked again in {} seconds", after.as_secs());
                Self::Registry { registry, attempt, reason }
            }
            (error, _) => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(retry: bool, after: Option<u64>) -> Failure {
        let (registry, attempt, reason) = ("r".to_owned(), "pull".to_owned(), "busy".to_owned());
        let error = ImageError::Registry { registry, attempt, reason };
        Failure { retry, after: after.map(Duration::from_secs), ..Failure::last(error) }
    }

    #[test]
    fn waits_grow_and_end() {
        let mut tries = Tries::default();
        let waits: Vec<Duration> = std::iter::from_fn(|| tries.count(&failure(true, None), true)).collect();
        assert_eq!(waits.len(), 4);
        assert!(waits.windows(2).all(|pair| pair[0] < pair[1]), "{waits:?}");
        assert!(waits[0] >= Duration::from_millis(187) && waits[3] <= Duration::from_secs(2));
        assert_eq!(Tries::default().count(&failure(false, None), true), None);
        let mut mirror = Tries::default();
        assert!(
            mirror.count(&failure(true, None), false).is_some() && mirror.count(&failure(true, None), false).is_none()
        );
    }

    #[test]
    fn a_busy_registry_is_left_alone_for_as_long_as_it_wants_but_not_for_hours() {
        assert_eq!(Tries::default().count(&failure(true, Some(7)), true), Some(Duration::from_secs(7)));
        assert_eq!(Tries::default().count(&failure(true, Some(3600)), true), None);
        assert_eq!(Tries::default().count(&failure(true, Some(7)), false), None, "the next place is asked instead");
        let told = ImageError::from(failure(true, Some(3600))).to_string();
        assert!(told.contains("asked again in 3600 seconds"), "{told}");
    }
}
