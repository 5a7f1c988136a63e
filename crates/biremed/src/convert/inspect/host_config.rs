//! `HostConfig`: what the client asked for, laid over the defaults of dockerd, with what has changed since.

use bireme_core::WorkloadKind;
use bireme_core::spec::{NamespaceMode, Resources};
use bireme_engine::request::RestartPolicy;
use bireme_engine::update::with_swap;
use bireme_engine::view::WorkloadView;
use serde_json::{Map, Value, json};

use super::networks::network_mode;
use super::{RUNTIME_COMPONENT, RUNTIME_CONTAINER};

pub(super) fn host_config(container: &WorkloadView, links: &[(String, String)]) -> Value {
    let config = &container.config;
    let mut host = host_defaults();
    let wire = host.as_object_mut().expect("written as an object below");
    if let Some(asked) = config.as_asked["HostConfig"].as_object() {
        for (key, value) in asked {
            // What Docker's clients send for "not set" must not hide a default.
            let unset = match value {
                Value::Null => true,
                Value::String(text) => text.is_empty(),
                Value::Number(number) => {
                    number.as_i64() == Some(0) || (key == "MemorySwappiness" && number.as_i64() == Some(-1))
                }
                _ => false,
            };
            if !unset {
                wire.insert(key.clone(), value.clone());
            }
        }
    }
    // By the names of today. Links in networks of one's own stand with the endpoints.
    let link = |(to, alias): &(String, String)| format!("/{to}:/{}/{alias}", container.name);
    let links: Vec<String> = links.iter().map(link).collect();
    wire.insert("Links".to_owned(), json!((!links.is_empty()).then_some(links)));
    let of_host = |key: &str| config.as_asked["HostConfig"][key] == "host";
    let open = config.as_asked["HostConfig"]["Privileged"] == true || of_host("PidMode") || of_host("IpcMode");
    if open && wire["SecurityOpt"].is_null() {
        wire.insert("SecurityOpt".to_owned(), json!(["label=disable"]));
    }
    // With a limit of memory alone, as much swap is allowed again.
    if let (Some(memory @ 1..), Some(0)) = (wire["Memory"].as_i64(), wire["MemorySwap"].as_i64()) {
        wire.insert("MemorySwap".to_owned(), json!(memory.saturating_mul(2)));
    }
    let (name, count) = match container.restart {
        RestartPolicy::No => ("no", 0),
        RestartPolicy::Always => ("always", 0),
        RestartPolicy::UnlessStopped => ("unless-stopped", 0),
        RestartPolicy::OnFailure(count) => ("on-failure", count),
    };
    let driver = if config.log.driver.is_empty() { "json-file" } else { &config.log.driver };
    let runtime = match config.spec.kind {
        WorkloadKind::Container => RUNTIME_CONTAINER,
        WorkloadKind::Component => RUNTIME_COMPONENT,
    };
    let namespaces = &config.spec.namespaces;
    for (key, mode) in [("PidMode", &namespaces.pid), ("IpcMode", &namespaces.ipc)] {
        if let NamespaceMode::Workload(other) = mode {
            wire.insert(key.to_owned(), json!(format!("container:{other}")));
        }
    }
    limits(wire, container.resources.as_ref().unwrap_or(&config.spec.resources));
    for (key, value) in [
        ("NetworkMode", json!(network_mode(container))),
        ("RestartPolicy", json!({ "Name": name, "MaximumRetryCount": count })),
        ("LogConfig", json!({ "Type": driver, "Config": config.log.options })),
        ("ShmSize", json!(config.spec.shm_size)),
        ("Runtime", json!(runtime)),
    ] {
        wire.insert(key.to_owned(), value);
    }
    host
}

/// The limits that may change after create, as they are now.
fn limits(wire: &mut Map<String, Value>, limits: &Resources) {
    for (key, value) in [
        ("Memory", json!(limits.memory.unwrap_or_default())),
        ("MemorySwap", json!(with_swap(limits))),
        ("MemoryReservation", json!(limits.memory_reservation.unwrap_or_default())),
        ("NanoCpus", json!(limits.nano_cpus.unwrap_or_default())),
        ("CpuPeriod", json!(limits.cpu_period.unwrap_or_default())),
        ("CpuQuota", json!(limits.cpu_quota.unwrap_or_default())),
        ("CpuShares", json!(limits.cpu_shares.unwrap_or_default())),
        ("CpusetCpus", json!(limits.cpuset.as_deref().unwrap_or_default())),
        ("CpusetMems", json!(limits.cpuset_mems.as_deref().unwrap_or_default())),
        ("BlkioWeight", json!(limits.blkio.weight.unwrap_or_default())),
        ("PidsLimit", json!(limits.pids)),
    ] {
        wire.insert(key.to_owned(), value);
    }
}

/// `HostConfig` of a container that asked for nothing, as dockerd answers it.
fn host_defaults() -> Value {
    json!({
        "Binds": null,
        "ContainerIDFile": "",
        "LogConfig": { "Type": "json-file", "Config": {} },
        "NetworkMode": "bridge",
        "PortBindings": null,
        "RestartPolicy": { "Name": "no", "MaximumRetryCount": 0 },
        "AutoRemove": false,
        "VolumeDriver": "",
        "VolumesFrom": null,
        "ConsoleSize": [0, 0],
        "CapAdd": null,
        "CapDrop": null,
        "CgroupnsMode": "private",
        "Dns": null,
        "DnsOptions": null,
        "DnsSearch": null,
        "ExtraHosts": null,
        "GroupAdd": null,
        "IpcMode": "private",
        "Cgroup": "",
        "Links": null,
        "OomScoreAdj": 0,
        "PidMode": "",
        "Privileged": false,
        "PublishAllPorts": false,
        "ReadonlyRootfs": false,
        "SecurityOpt": null,
        "UTSMode": "",
        "UsernsMode": "",
        "ShmSize": 67_108_864,
        "Runtime": RUNTIME_CONTAINER,
        "Isolation": "",
        "CpuShares": 0,
        "Memory": 0,
        "NanoCpus": 0,
        "CgroupParent": "",
        "BlkioWeight": 0,
        "BlkioWeightDevice": null,
        "BlkioDeviceReadBps": null,
        "BlkioDeviceWriteBps": null,
        "BlkioDeviceReadIOps": null,
        "BlkioDeviceWriteIOps": null,
        "CpuPeriod": 0,
        "CpuQuota": 0,
        "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0,
        "CpusetCpus": "",
        "CpusetMems": "",
        "Devices": null,
        "DeviceCgroupRules": null,
        "DeviceRequests": null,
        "MemoryReservation": 0,
        "MemorySwap": 0,
        "MemorySwappiness": null,
        "OomKillDisable": false,
        "PidsLimit": null,
        "Ulimits": null,
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
        "MaskedPaths": [
            "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
            "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
            "/sys/devices/virtual/powercap"
        ],
        "ReadonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::list::tests::container;

    #[test]
    fn what_clients_send_for_not_set_hides_no_default() {
        let mut container = container();
        let config = std::sync::Arc::make_mut(&mut container.config);
        config.as_asked =
            json!({ "HostConfig": { "IpcMode": "", "MemorySwappiness": -1, "PidsLimit": 0, "CapAdd": null } });
        let host = host_config(&container, &[]);
        assert_eq!(host["IpcMode"], "private");
        assert_eq!(host["MemorySwappiness"], Value::Null);
        assert_eq!(host["PidsLimit"], Value::Null);
        assert_eq!(host["NetworkMode"], "bridge");
    }
}
