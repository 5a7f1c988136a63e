//! The memory of the process, which the kernel would end, with every component in it, at the limit of its cgroup.

use std::time::Duration;

use bireme_wasm::cgroup::SocketMemory;
use bireme_wasm::memory;

use crate::trigger::clients;

/// How often it is looked at.
const WATCH: Duration = Duration::from_millis(50);

/// Bytes of this process that are in memory.
pub(crate) struct Resident {
    pub anonymous: u64,
    /// Files and memory that may be shared with others.
    pub shared: u64,
}

/// `None` where /proc does not tell.
pub(crate) fn resident() -> Option<Resident> {
    // In pages: all, resident, and of these the shared. See proc_pid_statm(5).
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = text.split_ascii_whitespace().skip(1).map_while(|word| word.parse::<u64>().ok());
    let size = rustix::param::page_size() as u64;
    let (resident, shared) = (pages.next()? * size, pages.next()? * size);
    Some(Resident { anonymous: resident.saturating_sub(shared), shared })
}

/// Closes connections that wait, then ends the largest instance, whenever the process has more memory than all its
/// workloads may have together, or the kernel has kept half of what it may in `sockets`. Instances are counted as they grow;
/// what is left is what the host's libraries and the kernel hold for them and for clients, without an account.
///
/// `workloads` answers what all of them may have together, in bytes; `end_largest` ends the instance that holds the most. Goes
/// on until it is aborted; ends where /proc does not tell.
pub(crate) async fn memory(sockets: Option<SocketMemory>, workloads: impl Fn() -> u64, end_largest: impl Fn()) {
    let machine = memory::of_machine();
    let mut every = tokio::time::interval(WATCH);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let Some(resident) = resident() else { return };
        let workloads = workloads();
        let in_sockets = sockets.as_ref().and_then(SocketMemory::bytes).unwrap_or(0);
        if resident.anonymous <= memory::soft(workloads, machine)
            && in_sockets <= memory::sockets(workloads, machine) / 2
        {
            continue;
        }
        // What these hold is nobody's, and whoever waits may come again.
        if clients::shed() == 0 {
            end_largest();
        }
    }
}
