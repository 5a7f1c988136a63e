//! Restart policies and their back-off. Pure.

use std::time::Duration;

use crate::request::RestartPolicy;

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// A run this long counts as a success: the back-off begins anew.
const LONG_RUN: Duration = Duration::from_secs(10);

/// How often in a row a workload was restarted, which is how long to wait the next time.
#[derive(Clone, Debug, Default)]
pub struct BackOff {
    in_a_row: u32,
}

impl BackOff {
    /// Decides after an end: the delay before the next start, or `None` to leave it ended.
    ///
    /// `stopped` is true when somebody asked for the end; `ran` is how long it ran; `restarts` how often it was started by
    /// its policy since somebody started it, which an engine remembers beyond its own end.
    ///
    /// Source: Docker's restart policies: 100 ms, doubled each time up to a minute, forgotten after ten seconds of life;
    /// `on-failure:N` counts all restarts, as moby's `restartmanager` does.
    pub fn after_end(
        &mut self,
        policy: RestartPolicy,
        exit_code: i32,
        stopped: bool,
        ran: Duration,
        restarts: u64,
    ) -> Option<Duration> {
        if ran >= LONG_RUN {
            self.in_a_row = 0;
        }
        let again = match policy {
            _ if stopped => false,
            RestartPolicy::No => false,
            RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
            RestartPolicy::OnFailure(0) => exit_code != 0,
            RestartPolicy::OnFailure(most) => exit_code != 0 && restarts < u64::from(most),
        };
        if !again {
            self.in_a_row = 0;
            return None;
        }
        let delay = FIRST_DELAY.saturating_mul(1 << self.in_a_row.min(16)).min(LONGEST_DELAY);
        self.in_a_row += 1;
        Some(delay)
    }
}

/// Whether a workload that does not run is to be started when the engine starts.
///
/// `was_running`: it ran, or waited to be restarted, when the engine was last seen; `stopped`: somebody had asked for its
/// end.
pub fn at_engine_start(policy: RestartPolicy, was_running: bool, stopped: bool, exit_code: i32) -> bool {
    match policy {
        RestartPolicy::No => false,
        RestartPolicy::Always => true,
        RestartPolicy::UnlessStopped => !stopped,
        RestartPolicy::OnFailure(_) => was_running && !stopped && exit_code != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_minute_and_are_forgotten_after_a_long_run() {
        let mut back_off = BackOff::default();
        let short = Duration::from_secs(1);
        let delays: Vec<u128> = (0..12)
            .map(|_| back_off.after_end(RestartPolicy::Always, 1, false, short, 0).unwrap().as_millis())
            .collect();
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000]);
        let after_long = back_off.after_end(RestartPolicy::Always, 1, false, LONG_RUN, 0);
        assert_eq!(after_long, Some(FIRST_DELAY));
    }

    #[test]
    fn policies_are_dockers() {
        let check = |policy, code, stopped, expected: bool| {
            let got = BackOff::default().after_end(policy, code, stopped, Duration::ZERO, 0).is_some();
            assert_eq!(got, expected, "{policy:?} {code} {stopped}");
        };
        check(RestartPolicy::No, 1, false, false);
        check(RestartPolicy::Always, 0, false, true);
        check(RestartPolicy::Always, 0, true, false);
        check(RestartPolicy::UnlessStopped, 0, false, true);
        check(RestartPolicy::OnFailure(0), 0, false, false);
        check(RestartPolicy::OnFailure(0), 3, false, true);
    }

    #[test]
    fn failures_are_counted_over_the_end_of_an_engine() {
        // Each engine begins with a back-off of its own; the count is remembered.
        let ends: Vec<bool> = (0..4)
            .map(|restarts| {
                BackOff::default().after_end(RestartPolicy::OnFailure(2), 1, false, LONG_RUN, restarts).is_some()
            })
            .collect();
        assert_eq!(ends, [true, true, false, false]);
    }
}
