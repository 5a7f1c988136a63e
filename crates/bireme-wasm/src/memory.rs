//! How much memory the host process of a sandbox may have.
//!
//! ```text
//!  0 ............ what all its workloads may have, with what the process itself takes: the host ends its largest
//!                 instance whenever it has more
//!  + clients .... what their connections take at most while nothing is ended yet
//!  + RESERVE .... the limit of its cgroup: the kernel would end the process, and with it all workloads of the app
//! ```
//!
//! cgroup v2 counts what the kernel keeps in the process's sockets to the same limit, and v1 does not. So `memory.max` has
//! room for it ([`sockets`]) that nothing else of the process may take.

use std::sync::LazyLock;

use bireme_core::WorkloadSpec;
use bireme_core::spec::MountSource;

/// Most bytes of one instance where no memory limit is set.
pub const DEFAULT_LIMIT: u64 = 256 << 20;
/// The largest memory limit of one instance, in bytes: what 32-bit code can address.
pub const MAX_LIMIT: u64 = 4 << 30;

/// What a host takes without any instance: the engine, its threads, and buffers.
pub const BASE: u64 = 96 << 20;
/// What the engine keeps of a place that an instance has left, for the next, and in how many places at most.
const KEPT: (u64, u64) = (3 << 20, 128);
/// Between what the host and its clients' connections may have and what the kernel allows it.
const RESERVE: u64 = 64 << 20;
/// Bytes of a client's connection at most: what is read of a request that waits for an instance, of another behind it, with
/// its task and what is written.
pub const CONNECTION: u64 = 192 << 10;
/// Connections at least, so that a small component has clients.
pub const CONNECTIONS: u64 = 1024;
/// What there is room for in the sockets of a host at least: twice what 1,024 connections of clients hold that send and
/// read nothing, in the kernel's first size of a receive buffer (128 KiB).
const SOCKETS: u64 = 256 << 20;

/// Bytes of the machine, from `/proc/meminfo`.
pub fn of_machine() -> u64 {
    static TOTAL: LazyLock<u64> = LazyLock::new(|| {
        let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib: Option<u64> =
            text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
        kib.map_or(u64::MAX, |kib| kib << 10)
    });
    *TOTAL
}

/// What one workload adds: `limit` bytes for each of `instances`.
pub fn of_workload(limit: u64, instances: u64) -> u64 {
    limit.saturating_mul(instances).saturating_add(KEPT.0 * instances.min(KEPT.1))
}

/// The same, as the specification has it, with its folders in memory. A command has one instance.
pub fn of_spec(spec: &WorkloadSpec, command: bool) -> u64 {
    let limit = of_instance(spec);
    let folders = spec.mounts.iter().fold(0u64, |sum, mount| match mount.source {
        MountSource::Tmpfs { size, .. } => sum.saturating_add(of_tmpfs(size, limit)),
        _ => sum,
    });
    of_workload(limit, if command { 1 } else { spec.bireme.instances.into() }).saturating_add(folders)
}

/// Most bytes of one instance.
pub fn of_instance(spec: &WorkloadSpec) -> u64 {
    spec.resources.memory.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT)
}

/// Bytes of a folder in memory of a component whose instances have `limit`: as many where nothing else is said, since the
/// kernel would let it have half of the machine's.
pub fn of_tmpfs(size: Option<u64>, limit: u64) -> u64 {
    size.filter(|size| *size > 0).unwrap_or(limit)
}

/// What the host allows itself when its workloads have `workloads` together: three quarters of the machine at most.
pub fn soft(workloads: u64, machine: u64) -> u64 {
    workloads.saturating_add(BASE).min(machine / 4 * 3)
}

/// What its cgroup allows it.
pub fn hard(workloads: u64, machine: u64) -> u64 {
    let soft = soft(workloads, machine);
    soft.saturating_add(clients(workloads, machine)).saturating_add(RESERVE).min(machine)
}

/// What connections of clients may take in the process together: a quarter of what the host allows itself, and room for
/// [`CONNECTIONS`] at least.
pub fn clients(workloads: u64, machine: u64) -> u64 {
    (soft(workloads, machine) / 4).max(CONNECTIONS * CONNECTION)
}

/// What the kernel may keep in its sockets: as much as its clients' connections may take in the process itself, a quarter of
/// what the host allows itself. The host closes connections from half of that on.
pub fn sockets(workloads: u64, machine: u64) -> u64 {
    (soft(workloads, machine) / 4).max(SOCKETS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_acts_before_the_kernel_does() {
        let machine = 8 << 30;
        for (limit, instances) in [(16 << 20, 1), (256 << 20, 1000), (4 << 30, 2000), (0, 0)] {
            let workloads = of_workload(limit, instances);
            let (soft, hard) = (soft(workloads, machine), hard(workloads, machine));
            let all = soft + clients(workloads, machine) + RESERVE;
            assert!(hard == all.min(machine), "{limit} {instances}: {soft} {hard}");
            assert!(soft >= BASE);
            assert!(sockets(workloads, machine) >= SOCKETS);
        }
        assert!(hard(of_workload(16 << 20, 1), machine) < 400 << 20, "a small command has a small host");
        assert!((1 << 20..u64::MAX).contains(&of_machine()));
    }
}
