//! What workloads use, and what became of their instances.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A snapshot of what a workload uses. Counters only grow while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Processor time in nanoseconds.
    pub cpu_total: u64,
    /// The part of it spent in the processes themselves, in nanoseconds.
    pub cpu_user: u64,
    /// The part of it spent in the kernel, in nanoseconds.
    pub cpu_system: u64,
    /// How many periods of the limit ended with its processor time used up.
    pub throttled_periods: u64,
    /// How long it had to wait for that, in nanoseconds.
    pub throttled_time: u64,
    /// Bytes in use, page cache included.
    pub memory_usage: u64,
    /// Bytes of page cache that could be dropped.
    pub memory_inactive_file: u64,
    /// The most bytes that were in use; 0 where the kernel does not tell.
    pub memory_peak: u64,
    /// Bytes; `None` is unlimited.
    pub memory_limit: Option<u64>,
    /// Processes and threads; of a component, live instances.
    pub pids: u64,
    /// The most of them there may be; `None` is unlimited.
    pub pids_limit: Option<u64>,
    /// Bytes read from block devices.
    pub block_read: u64,
    /// Bytes written to block devices.
    pub block_write: u64,
    /// By the name of the interface inside.
    pub networks: BTreeMap<String, InterfaceStats>,
}

/// Counters of one network interface, as the workload sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStats {
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Packets that came damaged.
    pub rx_errors: u64,
    /// Packets that came and found no room.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
    /// Packets that were to be sent and found no room.
    pub tx_dropped: u64,
}

/// As `docker top` prints it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessTable {
    /// The heads of the columns.
    pub titles: Vec<String>,
    /// A row for each process, with a cell for each head.
    pub rows: Vec<Vec<String>>,
}

/// What became of a component's instances. Counters only grow while it runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InvocationStats {
    /// `http`, `redis` or `command`.
    pub trigger: String,
    /// Instances that were made.
    pub started: u64,
    /// Alive now.
    pub alive: u64,
    /// Waiting for a free place now.
    pub queued: u64,
    /// Ended well.
    pub succeeded: u64,
    /// Ended in a trap or an error.
    pub failed: u64,
    /// Ended because their time was up.
    pub timed_out: u64,
    /// Refused because the queue was full.
    pub rejected: u64,
    /// Latency in microseconds: `(upper bound, invocations at or below it)`, cumulative, ascending, over the lifetime.
    pub latency: Vec<(u64, u64)>,
    /// Bytes of the largest linear memory any instance had.
    pub memory_peak: u64,
}

/// What a component's instances spent processor time in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Between two looks at an instance that computes, in microseconds.
    pub interval: u64,
    /// How often one was seen, with those whose stack is not among `stacks`.
    pub samples: u64,
    /// Names of functions, the outermost first, with `;` between them, and how often they were seen so.
    pub stacks: Vec<(String, u64)>,
}

/// The state in which an instance trapped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoreDump {
    /// Why it trapped.
    pub reason: String,
    /// Bytes that were written; 0 where it has no place in memory, which `reason` says.
    pub size: u64,
}
