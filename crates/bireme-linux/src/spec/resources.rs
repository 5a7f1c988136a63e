//! The limits of a container, as `linux.resources` of an OCI runtime specification.

use bireme_core::WorkloadSpec;
use serde_json::{Value, json};

use crate::cgroup::Layout;
use crate::limits;

/// `device_rules`: those of [`super::devices`].
pub(super) fn of(spec: &WorkloadSpec, device_rules: Value) -> Value {
    let limits = &spec.resources;
    let mut out = json!({ "devices": device_rules });
    let mut memory = json!({});
    if let Some(limit) = limits.memory.filter(|limit| *limit > 0) {
        memory["limit"] = json!(limit);
        // Kernels without swap accounting have no such file.
        if limits::counts_swap() {
            memory["swap"] = json!(limits::memory_and_swap(limits));
        }
    }
    if let Some(reservation) = limits.memory_reservation.filter(|bytes| *bytes > 0) {
        memory["reservation"] = json!(reservation);
    }
    if let (Some(swappiness), Layout::V1(_)) = (limits.memory_swappiness, Layout::of_this_machine()) {
        memory["swappiness"] = json!(swappiness);
    }
    if memory.as_object().is_some_and(|object| !object.is_empty()) {
        out["memory"] = memory;
    }
    let mut cpu = json!({});
    let timed = [limits.nano_cpus.unwrap_or(0), limits.cpu_period.unwrap_or(0)];
    if timed.iter().any(|set| *set != 0) || limits.cpu_quota.is_some_and(|quota| quota != 0) {
        let (period, quota) = limits::processor_time(limits);
        cpu["period"] = json!(period);
        cpu["quota"] = json!(quota);
    }
    if let Some(shares) = limits.cpu_shares.filter(|shares| *shares > 0) {
        cpu["shares"] = json!(shares);
    }
    if let Some(cpus) = limits.cpuset.as_deref().filter(|cpus| !cpus.is_empty()) {
        cpu["cpus"] = json!(cpus);
    }
    if let Some(mems) = limits.cpuset_mems.as_deref().filter(|mems| !mems.is_empty()) {
        cpu["mems"] = json!(mems);
    }
    if cpu.as_object().is_some_and(|object| !object.is_empty()) {
        out["cpu"] = cpu;
    }
    if let Some(pids) = limits.pids.filter(|pids| *pids > 0) {
        out["pids"] = json!({ "limit": pids });
    }
    let mut blkio = json!({});
    if let Some(weight) = limits.blkio.weight.filter(|_| limits::has_weights()) {
        blkio["weight"] = json!(weight);
    }
    for (key, rates) in [
        ("throttleReadBpsDevice", &limits.blkio.read_bps),
        ("throttleWriteBpsDevice", &limits.blkio.write_bps),
        ("throttleReadIOPSDevice", &limits.blkio.read_iops),
        ("throttleWriteIOPSDevice", &limits.blkio.write_iops),
    ] {
        let list: Vec<Value> = rates
            .iter()
            .filter_map(|(path, rate)| {
                let (major, minor) = limits::device_number(path)?;
                Some(json!({ "major": major, "minor": minor, "rate": rate }))
            })
            .collect();
        if !list.is_empty() {
            blkio[key] = json!(list);
        }
    }
    if blkio.as_object().is_some_and(|object| !object.is_empty()) {
        out["blockIO"] = blkio;
    }
    out
}
