//! Limits: memory, processors, devices' rates, ulimits.

use bireme_api::models::{HostConfig, ResourcesUlimits, ThrottleDevice};
use bireme_core::linux_names;
use bireme_core::spec::{Blkio, Resources, Ulimit};

use super::text;
use crate::convert::Refusal;

/// Docker's least memory limit.
const MEMORY_FLOOR: i64 = 6 << 20;

/// What limits are read for: some rules hold for a new container alone, since an update may complete what is set already.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::convert) enum For {
    Create,
    Update,
}

/// Source: `verifyPlatformContainerResources` of moby for the rules and their words.
pub(in crate::convert) fn resources(host: &HostConfig, what_for: For) -> Result<Resources, Refusal> {
    let positive = |value: Option<i64>, field: &str| match value {
        None | Some(0) => Ok(None),
        Some(value) => match u64::try_from(value) {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(Refusal::invalid(format!("{field} cannot be negative: {value}"))),
        },
    };
    let memory = host.memory.unwrap_or_default();
    if memory != 0 && memory < MEMORY_FLOOR {
        return Err(Refusal::invalid("Minimum memory limit allowed is 6MB"));
    }
    let swap = host.memory_swap.unwrap_or_default();
    if memory > 0 && swap > 0 && swap < memory {
        return Err(Refusal::invalid("Minimum memoryswap limit should be larger than memory limit, see usage"));
    }
    if memory == 0 && swap > 0 && what_for == For::Create {
        return Err(Refusal::invalid("You should always set the Memory limit when using Memoryswap limit, see usage"));
    }
    let reservation = host.memory_reservation.unwrap_or_default();
    if reservation > 0 && reservation < MEMORY_FLOOR {
        return Err(Refusal::invalid("Minimum memory reservation allowed is 6MB"));
    }
    if memory > 0 && reservation > memory {
        return Err(Refusal::invalid("Minimum memory limit can not be less than memory reservation limit, see usage"));
    }
    let nano_cpus = positive(host.nano_cpus, "NanoCPUs")?;
    let cpu_period = positive(host.cpu_period, "CPU cfs period")?;
    let cpu_quota = host.cpu_quota.filter(|quota| *quota != 0);
    if nano_cpus.is_some() && (cpu_period.is_some() || cpu_quota.is_some()) {
        return Err(Refusal::invalid(
            "Conflicting options: Nano CPUs and CPU Period or Quota cannot both be set: use one of them",
        ));
    }
    if cpu_period.is_some_and(|period| !(1000..=1_000_000).contains(&period)) {
        return Err(Refusal::invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ));
    }
    if cpu_quota.is_some_and(|quota| quota > 0 && quota < 1000) {
        return Err(Refusal::invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)"));
    }
    let weight = host.blkio_weight.unwrap_or_default();
    if weight != 0 && !(10..=1000).contains(&weight) {
        return Err(Refusal::invalid("Range of blkio weight is from 10 to 1000"));
    }
    let swappiness = host.memory_swappiness.filter(|swappiness| *swappiness != -1);
    if let Some(swappiness) = swappiness.filter(|swappiness| !(0..=100).contains(swappiness)) {
        return Err(Refusal::invalid(format!("Invalid value: {swappiness}, valid memory swappiness range is 0-100")));
    }
    let score = host.oom_score_adj.unwrap_or_default();
    if !(-1000..=1000).contains(&score) {
        return Err(Refusal::invalid(format!("Invalid value {score}, range for oom score adj is [-1000, 1000]")));
    }
    Ok(Resources {
        memory: positive(host.memory, "Memory")?,
        memory_swap: host.memory_swap.filter(|swap| *swap != 0),
        memory_reservation: positive(host.memory_reservation, "MemoryReservation")?,
        nano_cpus,
        cpu_quota,
        cpu_period,
        cpu_shares: positive(host.cpu_shares, "CPU shares")?,
        cpuset: text(host.cpuset_cpus.clone()),
        cpuset_mems: text(host.cpuset_mems.clone()),
        memory_swappiness: swappiness.map(i64::unsigned_abs),
        blkio: Blkio {
            weight: Some(weight).filter(|weight| *weight != 0),
            read_bps: throttle(host.blkio_device_read_bps.as_deref())?,
            write_bps: throttle(host.blkio_device_write_bps.as_deref())?,
            read_iops: throttle(host.blkio_device_read_iops.as_deref())?,
            write_iops: throttle(host.blkio_device_write_iops.as_deref())?,
        },
        pids: host.pids_limit.filter(|limit| *limit > 0),
        oom_kill_disable: host.oom_kill_disable == Some(true),
        oom_score_adj: (score != 0).then(|| i32::try_from(score).expect("checked above")),
        ulimits: host.ulimits.clone().unwrap_or_default().into_iter().map(ulimit).collect::<Result<_, _>>()?,
        cgroup_parent: text(host.cgroup_parent.clone()),
    })
}

fn throttle(devices: Option<&[ThrottleDevice]>) -> Result<Vec<(String, u64)>, Refusal> {
    devices
        .into_iter()
        .flatten()
        .map(|device| {
            let path = device.path.clone().unwrap_or_default();
            let rate = device.rate.unwrap_or_default();
            let rate = u64::try_from(rate)
                .map_err(|_| Refusal::invalid(format!("the rate {rate} of device {path} cannot be negative")))?;
            Ok((path, rate))
        })
        .collect()
}

fn ulimit(wire: ResourcesUlimits) -> Result<Ulimit, Refusal> {
    let name = wire.name.unwrap_or_default();
    let names = linux_names::docker_limits();
    if !names.contains(&name.as_str()) {
        return Err(Refusal::invalid(format!("invalid ulimit type: {name}: use one of {}", names.join(", "))));
    }
    // -1 is without limit: all bits set, as the kernel has it.
    let value = |value: Option<i64>| value.unwrap_or_default().cast_unsigned();
    let (soft, hard) = (value(wire.soft), value(wire.hard));
    if soft > hard {
        return Err(Refusal::invalid(format!(
            "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        )));
    }
    Ok(Ulimit { name, soft, hard })
}
