//! What a container uses.

use std::collections::BTreeMap;

use super::answers;

answers! {
    /// One sample, with the one before it.
    ///
    /// Source: Docker Engine API, `ContainerStats`.
    pub struct Stats {
        /// 64 hexadecimal digits; `None` from older engines.
        id: Option<String>,
        /// With a slash before it.
        name: String,
        /// Processor time now.
        cpu_stats: CpuStats,
        /// Processor time at the sample before.
        precpu_stats: CpuStats,
        /// Memory now.
        memory_stats: MemoryStats,
        /// Counters since the start, by interface.
        networks: BTreeMap<String, InterfaceStats>,
        /// Counters of block devices since the start.
        blkio_stats: BlkioStats,
        /// Processes and threads.
        pids_stats: PidsStats,
    }

    /// Processor time.
    pub struct CpuStats {
        /// The container's own.
        cpu_usage: CpuUsage,
        /// Nanoseconds that the whole machine has had.
        system_cpu_usage: u64,
        /// Processors that it may run on; zero from older engines.
        online_cpus: u64,
    }

    /// A container's processor time since its start.
    pub struct CpuUsage {
        /// Nanoseconds.
        total_usage: u64,
        /// Nanoseconds on each processor; empty with version 2 of cgroups.
        percpu_usage: Vec<u64>,
    }

    /// Memory of a container.
    pub struct MemoryStats {
        /// Bytes, pages of files included.
        usage: u64,
        /// Bytes; the machine's memory when there is no limit of its own.
        limit: u64,
        /// The kernel's own figures.
        stats: MemoryDetail,
    }

    /// The kernel's figures of memory, as far as they are read.
    pub struct MemoryDetail {
        /// Bytes of pages of files that could be dropped. Version 1 of cgroups.
        total_inactive_file: Option<u64>,
        /// The same. Version 2 of cgroups.
        inactive_file: Option<u64>,
    }

    /// Counters of one network interface.
    pub struct InterfaceStats {
        /// Bytes received.
        rx_bytes: u64,
        /// Bytes sent.
        tx_bytes: u64,
    }

    /// Counters of block devices.
    pub struct BlkioStats {
        /// Bytes, an entry for each device and operation.
        io_service_bytes_recursive: Vec<BlkioEntry>,
    }

    /// Bytes that one operation moved on one device.
    pub struct BlkioEntry {
        /// `read` or `write`, in any case; others are not counted.
        op: String,
        /// Bytes.
        value: u64,
    }

    /// How many processes there are.
    pub struct PidsStats {
        /// Threads included.
        current: u64,
    }
}
