//! What becomes of entries of a stream that were delivered and not acknowledged. Pure.

use std::time::Duration;

use bireme_core::labels::Group;

/// How long after its first failure an entry is tried again; doubled with each further one, to the last.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(30);

/// An entry that was delivered to a consumer of the group and not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pending {
    /// Whether it was delivered to this consumer.
    pub(super) own: bool,
    /// Whether an instance of this process has it.
    pub(super) under_way: bool,
    /// Since its last delivery.
    pub(super) idle: Duration,
    pub(super) deliveries: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Somebody has it, or its pause is not over.
    Leave,
    /// It is handled again.
    Retry,
    /// It has failed too often, and is put aside.
    Bury,
}

/// How long an entry may be with another consumer before that one is taken for gone: longer than any instance that handles it
/// may take, with the wait for a free one.
pub(super) fn given_up(timeout: Duration) -> Duration {
    timeout.saturating_mul(2).saturating_add(Duration::from_secs(10))
}

/// How long nobody has it before it is handled again.
pub(super) fn pause(entry: Pending, timeout: Duration) -> Duration {
    if !entry.own {
        return given_up(timeout);
    }
    let doublings = u32::try_from(entry.deliveries.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    FIRST_PAUSE.saturating_mul(1 << doublings).min(LAST_PAUSE)
}

pub(super) fn fate(entry: Pending, group: &Group, timeout: Duration) -> Fate {
    if entry.under_way || entry.idle < pause(entry, timeout) {
        Fate::Leave
    } else if entry.deliveries >= u64::from(group.attempts) {
        Fate::Bury
    } else {
        Fate::Retry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_tried_again_with_growing_pauses_and_put_aside_at_last() {
        let group = Group { name: "g".to_owned(), attempts: 3, dead: "d".to_owned() };
        let timeout = Duration::from_secs(30);
        let seconds = Duration::from_secs;
        let own = Pending { own: true, under_way: false, idle: seconds(1), deliveries: 1 };
        let other = Pending { own: false, idle: seconds(70), ..own };
        for (entry, expected) in [
            (own, Fate::Retry),
            (Pending { idle: Duration::from_millis(999), ..own }, Fate::Leave),
            (Pending { deliveries: 2, ..own }, Fate::Leave),
            (Pending { deliveries: 2, idle: seconds(2), ..own }, Fate::Retry),
            (Pending { deliveries: 3, idle: seconds(4), ..own }, Fate::Bury),
            (Pending { deliveries: u64::MAX, idle: seconds(30), ..own }, Fate::Bury),
            // Whoever has it is done with it in time, or is gone.
            (Pending { under_way: true, idle: seconds(3600), ..own }, Fate::Leave),
            (Pending { idle: seconds(69), ..other }, Fate::Leave),
            (other, Fate::Retry),
            (Pending { deliveries: 3, ..other }, Fate::Bury),
        ] {
            assert_eq!(fate(entry, &group, timeout), expected, "{entry:?}");
        }
    }
}
