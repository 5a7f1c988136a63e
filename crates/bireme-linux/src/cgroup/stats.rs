//! What the kernel counts for a cgroup.

use std::fs;

use bireme_core::Stats;

use super::{Cgroup, value};

impl Cgroup {
    /// How often the kernel ended a process here because the memory limit was reached.
    pub fn oom_kills(&self) -> u64 {
        let file = if self.is_v2() { "memory.events" } else { "memory.oom_control" };
        self.dir("memory")
            .and_then(|dir| fs::read_to_string(dir.join(file)).ok())
            .and_then(|text| value(&text, "oom_kill"))
            .unwrap_or(0)
    }

    /// Processor, memory, processes and block device counters; the networks are left empty.
    pub fn stats(&self) -> Stats {
        let read = |controller: &str, file: &str| {
            self.dir(controller).and_then(|dir| fs::read_to_string(dir.join(file)).ok()).unwrap_or_default()
        };
        let number = |controller: &str, file: &str| read(controller, file).trim().parse::<u64>().ok();
        let mut stats = Stats {
            pids: number("pids", "pids.current").unwrap_or(0),
            pids_limit: number("pids", "pids.max"),
            ..Stats::default()
        };
        if self.is_v2() {
            let cpu = read("cpu", "cpu.stat");
            let micros = |name| value(&cpu, name).unwrap_or(0) * 1000;
            (stats.cpu_total, stats.cpu_user, stats.cpu_system) =
                (micros("usage_usec"), micros("user_usec"), micros("system_usec"));
            stats.throttled_periods = value(&cpu, "nr_throttled").unwrap_or(0);
            stats.throttled_time = micros("throttled_usec");
            stats.memory_usage = number("memory", "memory.current").unwrap_or(0);
            stats.memory_peak = number("memory", "memory.peak").unwrap_or(0);
            stats.memory_limit = number("memory", "memory.max");
            stats.memory_inactive_file = value(&read("memory", "memory.stat"), "inactive_file").unwrap_or(0);
            for field in read("blkio", "io.stat").split_whitespace() {
                match field.split_once('=') {
                    Some(("rbytes", bytes)) => stats.block_read += bytes.parse().unwrap_or(0),
                    Some(("wbytes", bytes)) => stats.block_write += bytes.parse().unwrap_or(0),
                    _ => {}
                }
            }
        } else {
            let times = read("cpuacct", "cpuacct.stat");
            // In ticks of USER_HZ, which is 100 on every architecture we run on.
            let ticks = |name| value(&times, name).unwrap_or(0) * 10_000_000;
            stats.cpu_total = number("cpuacct", "cpuacct.usage").unwrap_or(0);
            (stats.cpu_user, stats.cpu_system) = (ticks("user"), ticks("system"));
            let throttling = read("cpu", "cpu.stat");
            stats.throttled_periods = value(&throttling, "nr_throttled").unwrap_or(0);
            stats.throttled_time = value(&throttling, "throttled_time").unwrap_or(0);
            stats.memory_usage = number("memory", "memory.usage_in_bytes").unwrap_or(0);
            stats.memory_peak = number("memory", "memory.max_usage_in_bytes").unwrap_or(0);
            // "No limit" is the greatest multiple of the page size.
            stats.memory_limit = number("memory", "memory.limit_in_bytes").filter(|limit| *limit < 1 << 62);
            stats.memory_inactive_file = value(&read("memory", "memory.stat"), "total_inactive_file").unwrap_or(0);
            for line in read("blkio", "blkio.throttle.io_service_bytes").lines() {
                let mut fields = line.split_whitespace().skip(1);
                match (fields.next(), fields.next().and_then(|bytes| bytes.parse::<u64>().ok())) {
                    (Some("Read"), Some(bytes)) => stats.block_read += bytes,
                    (Some("Write"), Some(bytes)) => stats.block_write += bytes,
                    _ => {}
                }
            }
        }
        stats
    }
}
