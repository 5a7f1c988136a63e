//! What is refused before anything else is read: words out of a closed set that are none of it, and what is known and not
//! offered, by its name.

use std::collections::HashMap;

use bireme_api::models::{ContainerCreateBody, HostConfig, HostConfigIsolationEnum};
use serde_json::Value;

use super::restart::check_restart_name;
use crate::convert::Refusal;
use crate::convert::inspect::RUNTIME_COMPONENT;

/// Words out of a closed set get Docker's own sentences rather than a parser's.
pub(super) fn check_words(body: &Value) -> Result<(), Refusal> {
    let host = &body["HostConfig"];
    if let Some(name) = host["RestartPolicy"]["Name"].as_str() {
        check_restart_name(name)?;
    }
    if let Some(mode) = host["CgroupnsMode"].as_str()
        && !["", "private", "host"].contains(&mode)
    {
        return Err(Refusal::invalid(format!("invalid cgroup namespace mode: {mode}")));
    }
    if let Some(isolation) = host["Isolation"].as_str()
        && !["", "default"].contains(&isolation)
    {
        return Err(Refusal::invalid(format!("invalid isolation '{isolation}' on linux: leave it out")));
    }
    for mount in host["Mounts"].as_array().into_iter().flatten() {
        if let Some(kind) = mount["Type"].as_str()
            && !["bind", "volume", "tmpfs", "image", "npipe", "cluster"].contains(&kind)
        {
            return Err(Refusal::invalid(format!("mount type unknown: \"{kind}\": use bind, volume or tmpfs")));
        }
    }
    Ok(())
}

/// Refuses what is known and not offered, by its name. `body` has what the generated types left behind.
pub(super) fn refuse_unoffered(body: &Value, wire: &ContainerCreateBody, host: &HostConfig) -> Result<(), Refusal> {
    fn some<T>(list: &Option<Vec<T>>) -> bool {
        list.as_ref().is_some_and(|list| !list.is_empty())
    }
    fn map(map: &Option<HashMap<String, String>>) -> bool {
        map.as_ref().is_some_and(|map| !map.is_empty())
    }
    fn number(number: Option<i64>) -> bool {
        number.is_some_and(|number| number != 0)
    }
    let host_number = |field: &str| body["HostConfig"][field].as_i64().is_some_and(|number| number != 0);
    let runtime = host.runtime.as_deref().unwrap_or_default();
    if !["", "runc", "bireme", "io.containerd.runc.v2", RUNTIME_COMPONENT].contains(&runtime) {
        return Err(Refusal::invalid(format!(
            "unknown or invalid runtime name: {runtime}: leave it out, the image's platform says how it runs"
        )));
    }
    if let Some(request) = host.device_requests.iter().flatten().next() {
        // Docker's words on a machine that has no driver for them.
        let capabilities = request.capabilities.clone().unwrap_or_default();
        let capabilities: Vec<String> = capabilities.iter().map(|all| format!("[{}]", all.join(" "))).collect();
        return Err(Refusal::unsupported(format!(
            "could not select device driver \"{}\" with capabilities: [{}]: name single devices in Devices",
            request.driver.as_deref().unwrap_or_default(),
            capabilities.join(" ")
        )));
    }
    let driver = host.volume_driver.as_deref().unwrap_or_default();
    let table: [(bool, &str, &str); 16] = [
        (some(&wire.shell), "Shell", "name the shell in Cmd or in the health check itself"),
        (map(&host.storage_opt), "StorageOpt", "leave it out"),
        (some(&host.blkio_weight_device), "BlkioWeightDevice", "leave it out"),
        (number(host.cpu_realtime_period), "CpuRealtimePeriod", "use NanoCpus"),
        (number(host.cpu_realtime_runtime), "CpuRealtimeRuntime", "use NanoCpus"),
        (host_number("KernelMemory"), "KernelMemory", "use Memory"),
        (host_number("KernelMemoryTCP"), "KernelMemoryTCP", "use Memory"),
        (number(host.cpu_count), "CpuCount", "it is for Windows; use NanoCpus"),
        (number(host.cpu_percent), "CpuPercent", "it is for Windows; use NanoCpus"),
        (number(host.io_maximum_iops), "IOMaximumIOps", "it is for Windows; leave it out"),
        (number(host.io_maximum_bandwidth), "IOMaximumBandwidth", "it is for Windows; leave it out"),
        (host.cgroup.as_deref().is_some_and(|cgroup| !cgroup.is_empty()), "Cgroup", "use CgroupParent"),
        (!["", "local"].contains(&driver), "VolumeDriver", "local is the only one"),
        (
            !["", "host"].contains(&host.userns_mode.as_deref().unwrap_or_default()),
            "UsernsMode",
            "user namespaces are not used; leave it out",
        ),
        (
            !matches!(host.isolation, None | Some(HostConfigIsolationEnum::EMPTY | HostConfigIsolationEnum::DEFAULT)),
            "Isolation",
            "it is for Windows; leave it out",
        ),
        (host.ipc_mode.as_deref() == Some("none"), "IpcMode none", "use private"),
    ];
    match table.iter().find(|(asked, ..)| *asked) {
        Some((_, field, instead)) => Err(Refusal::unsupported(format!("{field} is not offered: {instead}"))),
        None => Ok(()),
    }
}
