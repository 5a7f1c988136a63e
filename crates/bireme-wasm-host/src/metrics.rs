//! What became of a component's instances, counted without locks.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bireme_core::InvocationStats;

/// Upper bounds of the latency histogram, in microseconds: four per doubling, from 16 µs to 33 minutes and more.
const BUCKETS: usize = 4 * 27;

#[derive(Debug)]
pub(crate) struct Metrics {
    pub started: AtomicU64,
    pub alive: AtomicU64,
    pub queued: AtomicU64,
    pub succeeded: AtomicU64,
    pub failed: AtomicU64,
    pub timed_out: AtomicU64,
    pub rejected: AtomicU64,
    /// Nanoseconds that instances were being run.
    pub cpu: AtomicU64,
    /// Bytes of linear memory of live instances.
    pub memory: AtomicU64,
    pub memory_peak: AtomicU64,
    latency: [AtomicU64; BUCKETS],
}

impl Default for Metrics {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            started: zero(),
            alive: zero(),
            queued: zero(),
            succeeded: zero(),
            failed: zero(),
            timed_out: zero(),
            rejected: zero(),
            cpu: zero(),
            memory: zero(),
            memory_peak: zero(),
            latency: [const { AtomicU64::new(0) }; BUCKETS],
        }
    }
}

/// The bucket of a latency in microseconds.
fn bucket(micros: u64) -> usize {
    let micros = micros.max(16);
    let doubling = 63 - micros.leading_zeros() as usize;
    // The two bits below the highest tell quarters of a doubling apart.
    let quarter = (micros >> (doubling - 2)) as usize & 3;
    ((doubling - 4) * 4 + quarter).min(BUCKETS - 1)
}

/// The greatest latency, in microseconds, that falls into a bucket.
fn upper_bound(bucket: usize) -> u64 {
    let (doubling, quarter) = (bucket / 4 + 4, bucket as u64 % 4);
    (1 << doubling) + ((quarter + 1) << (doubling - 2)) - 1
}

impl Metrics {
    pub(crate) fn record(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latency[bucket(micros)].fetch_add(1, Relaxed);
    }

    pub(crate) fn snapshot(&self, trigger: &str) -> InvocationStats {
        let mut total = 0;
        let mut latency = Vec::new();
        for (at, count) in self.latency.iter().enumerate() {
            let count = count.load(Relaxed);
            if count > 0 {
                total += count;
                latency.push((upper_bound(at), total));
            }
        }
        InvocationStats {
            trigger: trigger.to_owned(),
            started: self.started.load(Relaxed),
            alive: self.alive.load(Relaxed),
            queued: self.queued.load(Relaxed),
            succeeded: self.succeeded.load(Relaxed),
            failed: self.failed.load(Relaxed),
            timed_out: self.timed_out.load(Relaxed),
            rejected: self.rejected.load(Relaxed),
            latency,
            memory_peak: self.memory_peak.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_latency_is_within_its_bucket(micros in 0u64..4_000_000_000) {
            let at = bucket(micros);
            prop_assert!(micros <= upper_bound(at) || at == BUCKETS - 1);
            prop_assert!(at == 0 || micros > upper_bound(at - 1));
        }
    }
}
