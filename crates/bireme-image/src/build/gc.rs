//! Which parts of the cache of builds go by themselves, so that it does not grow for ever. Pure.
//!
//! Source: BuildKit, `cmd/buildkitd/config/gcpolicy.go`; moby, `builder/builder-next/worker/gc.go`.

use std::time::Duration;

use crate::error::ImageError;
use crate::model::{CacheKind, CacheRecord};
use crate::store::ImageStore;

/// What is kept of the cache of builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CachePolicy {
    /// Bytes that everything together may have; what was unused for longest goes first.
    pub most_bytes: u64,
    /// What nobody used for so long goes, whatever there is room for.
    pub unused: Duration,
    /// The same for what is easily made again: contexts and mounts of type cache beyond `passing_bytes`.
    pub passing_unused: Duration,
    /// Bytes of contexts and mounts of type cache that stay in any case until `unused`.
    pub passing_bytes: u64,
}

impl CachePolicy {
    /// BuildKit's own defaults for a disk of that many bytes: a tenth of it, and no less than 2 GB.
    pub fn for_disk(bytes: u64) -> Self {
        let day = Duration::from_secs(24 * 3600);
        Self {
            most_bytes: (bytes / 10).max(2_000_000_000),
            unused: 60 * day,
            passing_unused: 2 * day,
            passing_bytes: 512 << 20,
        }
    }
}

/// The records that go, by their place. `now` in milliseconds since the Unix epoch.
pub(crate) fn to_clear(policy: &CachePolicy, records: &[CacheRecord], now: i64) -> Vec<usize> {
    // What images have takes no room of the cache's, and what somebody has in his hands stays.
    let mut open: Vec<usize> = (0..records.len()).filter(|at| !records[*at].shared && !records[*at].in_use).collect();
    open.sort_by_key(|at| records[*at].last_used);
    let age = |at: usize| Duration::from_millis(u64::try_from(now.saturating_sub(records[at].last_used)).unwrap_or(0));
    let passing = |at: usize| records[at].kind != CacheKind::Layer;
    let mut all: u64 = records.iter().filter(|record| !record.shared).map(|record| record.size).sum();
    let mut passing_bytes: u64 = (0..records.len()).filter(|at| passing(*at)).map(|at| records[at].size).sum();
    let mut cleared = Vec::new();
    for at in open {
        let unused = age(at) > policy.unused;
        let beyond = passing(at) && passing_bytes > policy.passing_bytes && age(at) > policy.passing_unused;
        if unused || beyond || all > policy.most_bytes {
            all -= records[at].size.min(all);
            if passing(at) {
                passing_bytes -= records[at].size.min(passing_bytes);
            }
            cleared.push(at);
        }
    }
    cleared
}

impl ImageStore {
    /// Forgets steps that changed nothing, last used before `until` in milliseconds since the Unix epoch; all without it.
    ///
    /// # Errors
    /// `Database`.
    pub fn forget_empty_steps(&self, until: Option<i64>) -> Result<(), ImageError> {
        self.inner.db.forget_empty_steps(until)
    }

    /// Clears away what the policy does not keep. Answers how many bytes that freed.
    ///
    /// # Errors
    /// `Database`; what was cleared by then stays so.
    pub async fn collect_build_cache(&self, policy: &CachePolicy) -> Result<u64, ImageError> {
        let unused = i64::try_from(policy.unused.as_millis()).unwrap_or(i64::MAX);
        self.forget_empty_steps(Some(chrono::Utc::now().timestamp_millis().saturating_sub(unused)))?;
        let records = self.build_cache().await?;
        let now = chrono::Utc::now().timestamp_millis();
        let chosen: Vec<&CacheRecord> = to_clear(policy, &records, now).into_iter().map(|at| &records[at]).collect();
        if chosen.is_empty() {
            return Ok(0);
        }
        // Used meanwhile, it stays.
        let unused = |record: &CacheRecord| {
            chosen.iter().any(|one| (one.id.as_str(), one.last_used) == (record.id.as_str(), record.last_used))
        };
        let cleared = self.clear_build_cache(None, Some(&unused)).await?;
        Ok(cleared.iter().map(|record| record.size).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(kind: CacheKind, size: u64, last_used: i64) -> CacheRecord {
        let id = format!("{last_used}-{size}");
        CacheRecord {
            id,
            kind,
            size,
            shared: false,
            in_use: false,
            created: 0,
            last_used,
            uses: 1,
            description: String::new(),
        }
    }

    fn policy(most_bytes: u64) -> CachePolicy {
        CachePolicy { most_bytes, passing_bytes: 5, ..CachePolicy::for_disk(0) }
    }

    #[test]
    fn the_longest_unused_goes_first_and_only_as_much_as_is_too_much() {
        let records: Vec<_> = (0..10).map(|at| record(CacheKind::Layer, 10, 1000 - at)).collect();
        assert_eq!(to_clear(&policy(70), &records, 2000), [9, 8, 7]);
        assert_eq!(to_clear(&policy(100), &records, 2000), Vec::<usize>::new());
        let old = i64::try_from(policy(1000).unused.as_millis()).unwrap() + 995;
        assert_eq!(to_clear(&policy(1000), &records, old), [9, 8, 7, 6]);
    }

    #[test]
    fn contexts_go_sooner_and_what_is_used_stays() {
        let mut records =
            vec![record(CacheKind::Context, 4, 1), record(CacheKind::Mount, 4, 2), record(CacheKind::Layer, 4, 3)];
        let later = i64::try_from(policy(0).passing_unused.as_millis()).unwrap() + 100;
        assert_eq!(to_clear(&policy(1000), &records, later), [0]);
        records[0].in_use = true;
        assert_eq!(to_clear(&policy(1000), &records, later), [1]);
        records[2].shared = true;
        assert_eq!(to_clear(&policy(0), &records, later), [1]);
    }

    proptest! {
        #[test]
        fn what_is_kept_fits(sizes in prop::collection::vec((0u64..100, 0i64..1000), 0..40), most in 0u64..2000) {
            let records: Vec<_> = sizes.iter().map(|(size, used)| record(CacheKind::Layer, *size, *used)).collect();
            let cleared = to_clear(&policy(most), &records, 1000);
            let kept = (0..records.len()).filter(|at| !cleared.contains(at));
            prop_assert!(kept.map(|at| records[at].size).sum::<u64>() <= most);
        }
    }
}
