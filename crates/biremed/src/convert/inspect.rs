//! `GET /containers/{id}/json`: a workload in full.
//!
//! Docker echoes the client's own host configuration with every default filled in, and the configuration as merged with
//! the image's. The former is the request laid over [`host_defaults`]; the latter comes from the specification.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use bireme_core::WorkloadKind;
use bireme_core::spec::{NamespaceMode, NetworkMode, Resources};
use bireme_engine::request::{HealthCheck, RestartPolicy};
use bireme_engine::update::with_swap;
use bireme_engine::view::{Health, MountKind, MountPoint, State, Status, WorkloadView};
use serde_json::{Map, Value, json};

use super::{network, ports, time};
use crate::version::ApiVersion;

/// The runtimes under whose names our two kinds of workload are known to Docker's clients.
pub const RUNTIME_CONTAINER: &str = "runc";
/// See [`RUNTIME_CONTAINER`].
pub const RUNTIME_COMPONENT: &str = "io.containerd.wasmtime.v1";

/// The whole answer. `etc` is where the files for names and hosts lie, `links` the names and aliases of what it is linked
/// to.
pub fn inspect(
    container: &WorkloadView,
    etc: Option<&[PathBuf; 3]>,
    links: &[(String, String)],
    version: ApiVersion,
) -> Value {
    let config = &container.config;
    let spec = &config.spec;
    let etc = |at: usize| etc.map(|files| files[at].display().to_string()).unwrap_or_default();
    let (path, args) = spec.args.split_first().map_or(("", &[][..]), |(path, args)| (path.as_str(), args));
    let mut wire = json!({
        "Id": container.id(),
        "Created": time::rfc3339(config.created),
        "Path": path,
        "Args": args,
        "State": state(&container.state, container.health.as_ref()),
        "Image": config.image_id,
        "ResolvConfPath": etc(1),
        "HostnamePath": etc(2),
        "HostsPath": etc(0),
        // Docker has no word for where its driver `local` writes.
        "LogPath": config.log_path.as_ref().filter(|_| config.log.driver != "local").map(|path| path.display().to_string()).unwrap_or_default(),
        "Name": format!("/{}", container.name),
        "RestartCount": container.restart_count,
        "Driver": "overlay2",
        "Platform": config.platform.split('/').next().unwrap_or_default(),
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": (!container.execs.is_empty()).then_some(&container.execs),
        "HostConfig": host_config(container, links),
        "GraphDriver": { "Data": {}, "Name": "overlay2" },
        "Mounts": mounts(container),
        "Config": merged_config(container),
        "NetworkSettings": network_settings(container, version),
    });
    if spec.kind == WorkloadKind::Component {
        // Docker has no word for it: where it may connect to, and what its image asks for that nobody granted.
        let allowed = spec.bireme.allow.clone().unwrap_or_default();
        wire["Bireme"] = json!({ "Allow": allowed, "Requested": spec.bireme.requested });
    }
    wire
}

fn state(state: &State, health: Option<&Health>) -> Value {
    let mut wire = json!({
        "Status": state.status.as_str(),
        // Docker counts a workload between two runs as running.
        "Running": state.status.is_alive() || state.status == Status::Restarting,
        "Paused": state.status == Status::Paused,
        "Restarting": state.status == Status::Restarting,
        "OOMKilled": state.oom_killed,
        "Dead": state.status == Status::Dead,
        "Pid": state.pid.unwrap_or_default(),
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": time::rfc3339_or_never(state.started_at),
        "FinishedAt": time::rfc3339_or_never(state.finished_at),
    });
    if let Some(health) = health {
        let log: Vec<Value> = health
            .log
            .iter()
            .map(|probe| {
                json!({
                    "Start": time::rfc3339(probe.start),
                    "End": time::rfc3339(probe.end),
                    "ExitCode": probe.exit_code,
                    "Output": probe.output,
                })
            })
            .collect();
        wire["Health"] = json!({ "Status": health.status, "FailingStreak": health.failing_streak, "Log": log });
    }
    wire
}

/// The network mode as Docker shows it: the default one by its name, and another workload by its ID, whatever it was asked
/// for by.
pub fn network_mode(container: &WorkloadView) -> Cow<'_, str> {
    if let NetworkMode::Workload(other) = &container.config.spec.namespaces.network {
        return format!("container:{other}").into();
    }
    Cow::Borrowed(match container.config.as_asked["HostConfig"]["NetworkMode"].as_str() {
        Some("") | None | Some("default") => match container.config.spec.namespaces.network {
            NetworkMode::None => "none",
            NetworkMode::Host => "host",
            _ => "bridge",
        },
        Some(mode) => mode,
    })
}

fn host_config(container: &WorkloadView, links: &[(String, String)]) -> Value {
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

/// The environment, with the names alone that were asked for: they take a variable of the image away, and are shown.
fn environment(env: &[String], asked: &Value) -> Vec<String> {
    let asked = asked.as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut names = asked.enumerate().filter(|(_, entry)| !entry.contains('=')).peekable();
    let mut env = env.iter();
    let mut shown = Vec::new();
    loop {
        let name = names.next_if(|(at, _)| *at <= shown.len()).map(|(_, name)| name.to_owned());
        match name.or_else(|| env.next().cloned()).or_else(|| names.next().map(|(_, name)| name.to_owned())) {
            Some(entry) => shown.push(entry),
            None => return shown,
        }
    }
}

/// What it was created with, the image's part included.
pub fn merged_config(container: &WorkloadView) -> Value {
    let config = &container.config;
    let (spec, asked) = (&config.spec, &config.as_asked);
    let flag = |field: &str| asked[field].as_bool().unwrap_or(false);
    let list = |words: &[String]| if words.is_empty() { Value::Null } else { json!(words) };
    let mut wire = json!({
        "Hostname": spec.hostname,
        "Domainname": spec.domainname,
        "User": spec.user,
        "AttachStdin": flag("AttachStdin"),
        "AttachStdout": flag("AttachStdout"),
        "AttachStderr": flag("AttachStderr"),
        "Tty": spec.tty,
        "OpenStdin": spec.open_stdin,
        "StdinOnce": spec.stdin_once,
        "Env": environment(&spec.env, &asked["Env"]),
        "Cmd": list(&config.command),
        "Image": spec.image,
        "Volumes": volumes(&config.mounts, &asked["Volumes"]),
        "WorkingDir": if spec.cwd == "/" { "" } else { spec.cwd.as_str() },
        "Entrypoint": list(&config.entrypoint),
        "OnBuild": null,
        "Labels": spec.labels,
    });
    if !spec.ports.is_empty() {
        wire["ExposedPorts"] = ports::set(&spec.ports);
        // As they were asked for: `80` stays `80`.
        for asked in asked["ExposedPorts"].as_object().into_iter().flat_map(|asked| asked.keys()) {
            if let Some(shown) = wire["ExposedPorts"].as_object_mut().filter(|_| !asked.contains('/')) {
                shown.remove(&format!("{asked}/tcp"));
                shown.insert(asked.clone(), json!({}));
            }
        }
    }
    if let Some(health) = &config.health {
        wire["Healthcheck"] = healthcheck(health);
    }
    if spec.stop_signal != bireme_core::spec::Signal::TERM
        || asked["StopSignal"].as_str().is_some_and(|s| !s.is_empty())
    {
        wire["StopSignal"] = json!(spec.stop_signal.name().unwrap_or_else(|| spec.stop_signal.0.to_string()));
    }
    if let Some(seconds) = asked["StopTimeout"].as_i64() {
        wire["StopTimeout"] = json!(seconds);
    }
    wire
}

fn healthcheck(health: &HealthCheck) -> Value {
    let mut wire = Map::new();
    if !health.test.is_empty() {
        wire.insert("Test".to_owned(), json!(health.test));
    }
    for (key, span) in [
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ] {
        if !span.is_zero() {
            wire.insert(key.to_owned(), json!(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)));
        }
    }
    if health.retries > 0 {
        wire.insert("Retries".to_owned(), json!(health.retries));
    }
    Value::Object(wire)
}

/// Paths that were declared to be volumes, by the image or by the request.
fn volumes(mounts: &[MountPoint], asked: &Value) -> Value {
    let mut paths: BTreeMap<&str, Value> =
        asked.as_object().into_iter().flatten().map(|(path, _)| (path.as_str(), json!({}))).collect();
    paths.extend(mounts.iter().filter(|mount| mount.declared).map(|mount| (mount.target.as_str(), json!({}))));
    if paths.is_empty() { Value::Null } else { json!(paths) }
}

/// `Mounts`, as lists and inspections show them. What was asked for by `--tmpfs` stands in the host configuration alone.
pub fn mounts(container: &WorkloadView) -> Value {
    let by_option = &container.config.as_asked["HostConfig"]["Tmpfs"];
    let by_option = by_option.as_object().into_iter().flat_map(Map::keys);
    let by_option: HashSet<String> = by_option.filter_map(|target| super::mounts::clean_target(target).ok()).collect();
    let shown = container
        .config
        .mounts
        .iter()
        .filter(|mount| mount.kind != MountKind::Tmpfs || !by_option.contains(&mount.target));
    let asked = container.config.as_asked["HostConfig"]["Binds"].as_array();
    let modes: HashMap<String, &str> = asked
        .into_iter()
        .flatten()
        .filter_map(|bind| {
            let (_, rest) = bind.as_str()?.split_once(':')?;
            let (target, mode) = rest.split_once(':')?;
            Some((super::mounts::clean_target(target).ok()?, mode))
        })
        .collect();
    shown.map(|point| mount(point, modes.get(&point.target).copied())).collect()
}

/// `mode` is what stood behind the last colon of `-v`.
fn mount(mount: &MountPoint, mode: Option<&str>) -> Value {
    let mut wire = Map::new();
    let mut put = |key: &str, value: Value| wire.insert(key.to_owned(), value);
    put(
        "Type",
        json!(match mount.kind {
            MountKind::Bind => "bind",
            MountKind::Volume => "volume",
            MountKind::Tmpfs => "tmpfs",
        }),
    );
    if mount.kind == MountKind::Volume {
        put("Name", json!(mount.name));
        put("Driver", json!("local"));
    }
    put("Source", json!(mount.source));
    put("Destination", json!(mount.target));
    put(
        "Mode",
        json!(mode.unwrap_or(match mount.kind {
            // One of the image's, by `Volumes` or of another workload, is as it comes.
            MountKind::Volume if !(mount.inherited || mount.anonymous && mount.declared) => "z",
            _ => "",
        })),
    );
    put("RW", json!(!mount.read_only));
    put("Propagation", json!(mount.propagation));
    Value::Object(wire)
}

/// `Networks`, the two that nobody is attached to included.
pub fn networks(container: &WorkloadView, version: ApiVersion) -> Value {
    let mut networks = network::endpoints(&container.endpoints);
    let mode = network_mode(container);
    if networks.is_empty() && matches!(&*mode, "host" | "none") {
        networks.insert(&mode, network::nowhere());
    }
    if version < network::SINCE_28 {
        for endpoint in networks.values_mut().filter_map(Value::as_object_mut) {
            endpoint.remove("GwPriority");
        }
    }
    json!(networks)
}

fn network_settings(container: &WorkloadView, version: ApiVersion) -> Value {
    let alive = container.state.status.is_alive();
    let exposed = if alive { container.config.spec.ports.as_slice() } else { &[] };
    let sandbox = if alive { container.id() } else { "" };
    let networks = networks(container, version);
    let mut wire = json!({
        "Bridge": "",
        "SandboxID": sandbox,
        "SandboxKey": "",
        "Ports": ports::inspected(exposed, &container.ports),
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": null,
        "SecondaryIPv6Addresses": null,
    });
    // Deprecated, and still what scripts read: the default bridge's, beside the networks.
    let bridge = networks.get("bridge").cloned().unwrap_or_else(network::nowhere);
    for field in [
        "EndpointID",
        "Gateway",
        "GlobalIPv6Address",
        "GlobalIPv6PrefixLen",
        "IPAddress",
        "IPPrefixLen",
        "IPv6Gateway",
        "MacAddress",
    ] {
        wire[field] = bridge[field].clone();
    }
    wire["Networks"] = networks;
    wire
}

#[cfg(test)]
mod tests {
    use bireme_api::models::ContainerInspectResponse;

    use super::super::list::tests::container;
    use super::*;

    #[test]
    fn names_without_a_value_are_shown_where_they_were_asked_for() {
        let env = ["A=1", "B=2", "PATH=/bin"].map(str::to_owned);
        assert_eq!(environment(&env, &json!(["A=1", "HOME", "B=2"])), ["A=1", "HOME", "B=2", "PATH=/bin"]);
        assert_eq!(environment(&env, &json!(["X", "Y"])), ["X", "Y", "A=1", "B=2", "PATH=/bin"]);
        assert_eq!(environment(&env, &Value::Null), env);
    }

    #[test]
    fn an_inspection_has_dockers_shape() {
        let wire = inspect(&container(), None, &[("db".to_owned(), "data".to_owned())], ApiVersion::MAX);
        serde_json::from_value::<ContainerInspectResponse>(wire.clone()).unwrap();
        insta::assert_json_snapshot!(wire);
    }

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
