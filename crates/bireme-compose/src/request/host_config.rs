//! `HostConfig`: what the machine gives a container and keeps from it.

use std::collections::HashMap;

use bollard_stubs::models::{
    DeviceMapping, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, Mount as WireMount, PortBinding,
    ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum, ThrottleDevice,
};

use super::network::namespace;
use super::storage::volumes_from;
use super::{Replica, some_map, some_vec};
use crate::model::{DeviceRate, Service, Ulimit};

pub(super) fn host_config(
    service: &Service,
    replica: &Replica,
    network_mode: Option<String>,
    binds: Vec<String>,
    mounts: Vec<WireMount>,
    bindings: HashMap<String, Option<Vec<PortBinding>>>,
) -> HostConfig {
    let resources = service.deploy.as_ref().map(|deploy| deploy.resources.clone()).unwrap_or_default();
    let limits = resources.limits.unwrap_or_default();
    let reservations = resources.reservations.unwrap_or_default();
    #[expect(clippy::cast_possible_truncation, reason = "decode bounds the number of processors")]
    let nano_cpus = limits.cpus.or(service.cpus).map(|cpus| (cpus * 1e9).round() as i64);
    let blkio = service.blkio_config.as_ref();
    HostConfig {
        blkio_weight: blkio.and_then(|blkio| blkio.weight),
        blkio_device_read_bps: rates(blkio.map(|blkio| &blkio.device_read_bps)),
        blkio_device_read_iops: rates(blkio.map(|blkio| &blkio.device_read_iops)),
        blkio_device_write_bps: rates(blkio.map(|blkio| &blkio.device_write_bps)),
        blkio_device_write_iops: rates(blkio.map(|blkio| &blkio.device_write_iops)),
        volumes_from: some_vec(volumes_from(service, replica)),
        annotations: some_map(&service.annotations),
        binds: some_vec(binds),
        mounts: some_vec(mounts),
        cap_add: some_vec(service.cap_add.clone()),
        cap_drop: some_vec(service.cap_drop.clone()),
        cgroup_parent: service.cgroup_parent.clone(),
        cgroupns_mode: service.cgroup.as_deref().map(|mode| match mode {
            "host" => HostConfigCgroupnsModeEnum::HOST,
            _ => HostConfigCgroupnsModeEnum::PRIVATE,
        }),
        cpu_period: service.cpu_period,
        cpu_quota: service.cpu_quota,
        cpu_shares: service.cpu_shares,
        cpuset_cpus: service.cpuset.clone(),
        nano_cpus,
        memory: limits.memory.or(service.mem_limit),
        memory_reservation: reservations.memory.or(service.mem_reservation),
        memory_swap: service.memswap_limit,
        memory_swappiness: service.mem_swappiness,
        pids_limit: limits.pids.or(service.pids_limit),
        oom_kill_disable: service.oom_kill_disable.then_some(true),
        oom_score_adj: service.oom_score_adj,
        shm_size: service.shm_size,
        ulimits: some_vec(
            service
                .ulimits
                .iter()
                .map(|(name, limit)| {
                    let (soft, hard) = match limit {
                        Ulimit::Single(both) => (*both, *both),
                        Ulimit::Pair { soft, hard } => (*soft, *hard),
                    };
                    ResourcesUlimits { name: Some(name.clone()), soft: Some(soft), hard: Some(hard) }
                })
                .collect(),
        ),
        devices: some_vec(
            service
                .devices
                .iter()
                .map(|device| DeviceMapping {
                    path_on_host: Some(device.source.clone()),
                    path_in_container: Some(device.target.clone()),
                    cgroup_permissions: Some(device.permissions.clone()),
                })
                .collect(),
        ),
        device_cgroup_rules: some_vec(service.device_cgroup_rules.clone()),
        dns: some_vec(service.dns.clone()),
        dns_options: some_vec(service.dns_opt.clone()),
        dns_search: some_vec(service.dns_search.clone()),
        extra_hosts: some_vec(service.extra_hosts.iter().map(|pair| pair.replacen('=', ":", 1)).collect()),
        group_add: some_vec(service.group_add.clone()),
        init: service.init,
        ipc_mode: service.ipc.as_ref().map(|mode| namespace(mode, replica)),
        pid_mode: service.pid.as_ref().map(|mode| namespace(mode, replica)),
        log_config: service
            .logging
            .as_ref()
            .map(|logging| HostConfigLogConfig { typ: logging.driver.clone(), config: some_map(&logging.options) }),
        network_mode,
        port_bindings: (!bindings.is_empty()).then_some(bindings),
        privileged: Some(service.privileged),
        readonly_rootfs: Some(service.read_only),
        restart_policy: restart_policy(service),
        runtime: service.runtime.clone(),
        security_opt: some_vec(service.security_opt.clone()),
        sysctls: some_map(&service.sysctls),
        tmpfs: (!service.tmpfs.is_empty()).then(|| {
            service
                .tmpfs
                .iter()
                .map(|entry| entry.split_once(':').unwrap_or((entry, "")))
                .map(|(path, options)| (path.to_owned(), options.to_owned()))
                .collect()
        }),
        userns_mode: service.userns_mode.clone(),
        uts_mode: service.uts.clone(),
        ..HostConfig::default()
    }
}

fn rates(limits: Option<&Vec<DeviceRate>>) -> Option<Vec<ThrottleDevice>> {
    some_vec(
        limits
            .into_iter()
            .flatten()
            .map(|limit| ThrottleDevice { path: Some(limit.path.clone()), rate: limit.rate })
            .collect(),
    )
}

fn restart_policy(service: &Service) -> Option<RestartPolicy> {
    if let Some(word) = &service.restart {
        let (name, count) =
            word.split_once(':').map_or((word.as_str(), None), |(name, count)| (name, count.parse().ok()));
        let name = match name {
            "always" => RestartPolicyNameEnum::ALWAYS,
            "unless-stopped" => RestartPolicyNameEnum::UNLESS_STOPPED,
            "on-failure" => RestartPolicyNameEnum::ON_FAILURE,
            _ => RestartPolicyNameEnum::NO,
        };
        return Some(RestartPolicy { name: Some(name), maximum_retry_count: count });
    }
    let policy = service.deploy.as_ref()?.restart_policy.as_ref()?;
    let name = match policy.condition.as_deref() {
        Some("none") => RestartPolicyNameEnum::NO,
        Some("on-failure") => RestartPolicyNameEnum::ON_FAILURE,
        _ => RestartPolicyNameEnum::ALWAYS,
    };
    let count = policy.max_attempts.filter(|_| name == RestartPolicyNameEnum::ON_FAILURE).map(i64::from);
    Some(RestartPolicy { name: Some(name), maximum_retry_count: count })
}
