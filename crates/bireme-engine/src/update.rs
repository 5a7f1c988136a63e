//! What becomes of a workload's limits when some of them are changed. Pure.

use bireme_core::spec::Resources;

use crate::refusal::UpdateConflict;

/// The limits after `change`, of which only what is set counts; `pids` of zero or less is without limit.
///
/// # Errors
/// The contradiction, for a change that contradicts what is set already.
///
/// Source: `UpdateContainer` of moby for the rules and their words.
pub(crate) fn merge(current: &Resources, change: &Resources) -> Result<Resources, UpdateConflict> {
    let set = |value: Option<u64>| value.is_some_and(|value| value > 0);
    let quota = |limits: &Resources| limits.cpu_quota.is_some_and(|quota| quota > 0);
    for (holds, why) in [
        (set(change.nano_cpus) && set(current.cpu_period), UpdateConflict::PeriodIsSet),
        (set(change.nano_cpus) && quota(current), UpdateConflict::QuotaIsSet),
        (set(change.cpu_period) && set(current.nano_cpus), UpdateConflict::PeriodAfterNanoCpus),
        (quota(change) && set(current.nano_cpus), UpdateConflict::QuotaAfterNanoCpus),
    ] {
        if holds {
            return Err(why);
        }
    }
    let swap = with_swap(current);
    if let (Some(memory), None) = (change.memory, change.memory_swap)
        && i64::try_from(memory).is_ok_and(|memory| memory > swap)
    {
        return Err(UpdateConflict::AboveMemorySwap);
    }
    let mut merged = current.clone();
    // What followed from the memory limit so far is set from now on.
    merged.memory_swap = change.memory_swap.or_else(|| Some(swap).filter(|swap| *swap != 0));
    for (to, from) in [
        (&mut merged.memory, change.memory),
        (&mut merged.memory_reservation, change.memory_reservation),
        (&mut merged.nano_cpus, change.nano_cpus),
        (&mut merged.cpu_period, change.cpu_period),
        (&mut merged.cpu_shares, change.cpu_shares),
    ] {
        *to = from.or(*to);
    }
    merged.cpu_quota = change.cpu_quota.or(merged.cpu_quota);
    merged.cpuset = change.cpuset.clone().or(merged.cpuset);
    merged.cpuset_mems = change.cpuset_mems.clone().or(merged.cpuset_mems);
    merged.blkio.weight = change.blkio.weight.or(merged.blkio.weight);
    merged.pids = change.pids.or(merged.pids).filter(|pids| *pids > 0);
    Ok(merged)
}

/// Memory and swap together as Docker shows it: twice the memory where nothing was said, 0 without any limit.
pub fn with_swap(limits: &Resources) -> i64 {
    match (limits.memory, limits.memory_swap) {
        (_, Some(swap)) => swap,
        (Some(memory), None) => i64::try_from(memory.saturating_mul(2)).unwrap_or(i64::MAX),
        (None, None) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(memory: Option<u64>, memory_swap: Option<i64>) -> Resources {
        Resources { memory, memory_swap, ..Resources::default() }
    }

    #[test]
    fn memory_stays_below_memory_and_swap() {
        let check = |current: Resources, change: Resources, expected: Option<(Option<u64>, Option<i64>)>| {
            let got = merge(&current, &change).ok().map(|merged| (merged.memory, merged.memory_swap));
            assert_eq!(got, expected, "{current:?} {change:?}");
        };
        check(memory(None, None), memory(Some(64), None), None);
        check(memory(None, None), memory(Some(64), Some(128)), Some((Some(64), Some(128))));
        check(memory(Some(64), None), memory(Some(100), None), Some((Some(100), Some(128))));
        check(memory(Some(64), None), memory(Some(129), None), None);
        check(memory(Some(64), Some(-1)), memory(Some(32), None), None);
        check(memory(Some(64), Some(-1)), memory(None, None), Some((Some(64), Some(-1))));
        check(memory(None, None), memory(None, None), Some((None, None)));
    }

    #[test]
    fn two_spellings_of_processor_time_do_not_mix() {
        let cpus = Resources { nano_cpus: Some(1), ..Resources::default() };
        let quota = Resources { cpu_quota: Some(1000), ..Resources::default() };
        assert!(merge(&cpus, &quota).is_err());
        assert!(merge(&quota, &cpus).is_err());
        assert_eq!(merge(&Resources::default(), &cpus).unwrap().nano_cpus, Some(1));
    }

    #[test]
    fn the_number_of_processes_can_be_freed() {
        let limits = |pids| Resources { pids, ..Resources::default() };
        assert_eq!(merge(&limits(Some(20)), &limits(Some(0))).unwrap().pids, None);
        assert_eq!(merge(&limits(Some(20)), &limits(None)).unwrap().pids, Some(20));
    }
}
