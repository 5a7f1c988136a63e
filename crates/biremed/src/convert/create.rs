//! `POST /containers/create`: from Docker's body to [`CreateRequest`].
//!
//! The order follows `daemon/create.go` of moby: first the configuration, then the host configuration, then networks.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use bireme_api::models::{
    ContainerCreateBody, DeviceMapping, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigIsolationEnum,
    HostConfigLogConfig, ResourcesUlimits, RestartPolicy as WireRestart, RestartPolicyNameEnum, ThrottleDevice,
};
use bireme_core::spec::{Blkio, Device, Dns, Resources, Seccomp, Security, Signal, Ulimit};
use bireme_engine::request::{
    CreateRequest, EndpointRequest, HealthCheck, LogRequest, ModeRequest, MountRequest, NetworkModeRequest,
    RestartPolicy,
};
use serde_json::Value;

use super::inspect::RUNTIME_COMPONENT;
use super::{Refusal, mounts, network, ports};

/// A time to stop that never runs out, for Docker's negative timeouts.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 86_400);
/// Docker's least memory limit.
const MEMORY_FLOOR: i64 = 6 << 20;

/// Reads a body as it came in. `name` and `platform` are query parameters.
///
/// # Errors
/// `Invalid` for what contradicts itself, `Unsupported` for each field that is known and not offered.
pub fn create(mut body: Value, name: Option<&str>, platform: Option<&str>) -> Result<CreateRequest, Refusal> {
    if body.as_object().is_none_or(serde_json::Map::is_empty) {
        return Err(Refusal::invalid("config cannot be empty in order to create a container"));
    }
    for field in ["Cmd", "Entrypoint"] {
        // Docker takes one word in place of a list.
        if let Some(word) = body.get(field).and_then(Value::as_str).map(str::to_owned) {
            body[field] = Value::from(vec![word]);
        }
    }
    check_words(&body)?;
    let wire: ContainerCreateBody =
        serde_json::from_value(body.clone()).map_err(|error| Refusal::invalid(format!("invalid JSON: {error}")))?;
    let host = wire.host_config.clone().unwrap_or_default();
    refuse_unoffered(&body, &wire, &host)?;

    let mut create = CreateRequest {
        name: name.map(|name| name.trim_start_matches('/').to_owned()).filter(|name| !name.is_empty()),
        image: wire.image.clone().unwrap_or_default(),
        // Docker's own way to ask for a component, from before images said it themselves.
        platform: platform
            .or((host.runtime.as_deref() == Some(RUNTIME_COMPONENT)).then_some("wasi/wasm"))
            .map(str::to_owned),
        entrypoint: wire.entrypoint.clone(),
        command: wire.cmd.clone(),
        env: environment(wire.env.clone().unwrap_or_default())?,
        user: text(wire.user.clone()),
        working_dir: text(wire.working_dir.clone()),
        hostname: text(wire.hostname.clone()),
        domainname: text(wire.domainname.clone()),
        tty: wire.tty == Some(true),
        console_size: console_size(host.console_size.as_deref())?,
        open_stdin: wire.open_stdin == Some(true),
        stdin_once: wire.stdin_once == Some(true),
        labels: wire.labels.clone().unwrap_or_default().into_iter().collect(),
        stop_signal: match text(wire.stop_signal.clone()) {
            None => None,
            Some(text) => {
                Some(Signal::parse(&text).ok_or_else(|| Refusal::invalid(format!("invalid signal: {text}")))?)
            }
        },
        stop_timeout: wire.stop_timeout.map(|seconds| u64::try_from(seconds).map_or(FOR_EVER, Duration::from_secs)),
        health: wire.healthcheck.clone().map(health).transpose()?,
        resources: resources(&host, For::Create)?,
        security: security(&host)?,
        pid_mode: pid_mode(host.pid_mode.as_deref())?,
        ipc_mode: ipc_mode(host.ipc_mode.as_deref())?,
        uts_mode: uts_mode(host.uts_mode.as_deref())?,
        cgroup_host: host.cgroupns_mode == Some(HostConfigCgroupnsModeEnum::HOST),
        extra_hosts: extra_hosts(host.extra_hosts.clone().unwrap_or_default())?,
        dns: dns(&host)?,
        shm_size: match host.shm_size {
            None | Some(0) => None,
            Some(size) => Some(u64::try_from(size).map_err(|_| Refusal::invalid("SHM size can not be less than 0"))?),
        },
        init: host.init == Some(true),
        auto_remove: host.auto_remove == Some(true),
        restart: restart(host.restart_policy.clone().unwrap_or_default(), host.auto_remove == Some(true))?,
        publish: ports::bindings(&host.port_bindings.clone().unwrap_or_default())?,
        publish_all: host.publish_all_ports == Some(true),
        log: log(host.log_config.clone().unwrap_or_default()),
        as_asked: body,
        ..CreateRequest::default()
    };
    create.exposed = ports::parse_all(wire.exposed_ports.iter().flatten())?.into_iter().collect();
    create.mounts = all_mounts(&host)?;
    if !of_own_network(host.network_mode.as_deref().unwrap_or_default()) {
        create.links = links(host.links.as_deref())?;
    }
    create.volumes_from = volumes_from(host.volumes_from.as_deref())?;
    let targets: HashSet<&str> = create.mounts.iter().map(|mount| mount.target.as_str()).collect();
    for volume in wire.volumes.clone().unwrap_or_default() {
        let path = mounts::clean_target(&volume)
            .map_err(|reason| Refusal::invalid(format!("invalid volume specification: '{volume}': {reason}")))?;
        if !targets.contains(path.as_str()) {
            create.volumes.push(path);
        }
    }
    create.volumes.sort();
    networks(&mut create, &wire, &host)?;
    check_modes(&create)?;
    Ok(create)
}

fn text(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// Words out of a closed set get Docker's own sentences rather than a parser's.
fn check_words(body: &Value) -> Result<(), Refusal> {
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

/// # Errors
/// `Invalid`, in Docker's words, for a restart policy that is none.
pub(super) fn check_restart_name(name: &str) -> Result<(), Refusal> {
    if ["", "no", "always", "unless-stopped", "on-failure"].contains(&name) {
        return Ok(());
    }
    Err(Refusal::invalid(format!(
        "invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
    )))
}

/// Whether the default network is one of the user's: links there stand with the endpoints, and Docker passes over these.
pub(super) fn of_own_network(mode: &str) -> bool {
    !matches!(mode, "" | "default" | "bridge" | "host" | "none") && !mode.starts_with("container:")
}

/// Refuses what is known and not offered, by its name. `body` has what the generated types left behind.
fn refuse_unoffered(body: &Value, wire: &ContainerCreateBody, host: &HostConfig) -> Result<(), Refusal> {
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

/// Columns and rows of Docker's `[height, width]`; zeros are none, as is what is missing. What follows is passed over.
pub fn console_size(wire: Option<&[usize]>) -> Result<Option<(u16, u16)>, Refusal> {
    let Some([rows @ 1..=usize::MAX, columns @ 1..=usize::MAX, ..]) = wire else { return Ok(None) };
    match (u16::try_from(*columns), u16::try_from(*rows)) {
        (Ok(columns), Ok(rows)) => Ok(Some((columns, rows))),
        _ => Err(Refusal::invalid(format!("invalid ConsoleSize [{rows}, {columns}]: at most 65535 each"))),
    }
}

fn environment(env: Vec<String>) -> Result<Vec<String>, Refusal> {
    match env.iter().find(|entry| entry.is_empty() || entry.starts_with('=')) {
        Some(bad) => Err(Refusal::invalid(format!("invalid environment variable: {bad}"))),
        None => Ok(env),
    }
}

fn health(wire: HealthConfig) -> Result<HealthCheck, Refusal> {
    let span = |nanos: Option<i64>, field: &str| match nanos.unwrap_or_default() {
        0 => Ok(Duration::ZERO),
        nanos if nanos < 1_000_000 => Err(Refusal::invalid(format!("{field} in Healthcheck cannot be less than 1ms"))),
        nanos => Ok(Duration::from_nanos(nanos.unsigned_abs())),
    };
    let test = wire.test.unwrap_or_default();
    match test.first().map(String::as_str) {
        None | Some("" | "NONE") => {}
        Some("CMD" | "CMD-SHELL") if test.len() > 1 => {}
        Some(word @ ("CMD" | "CMD-SHELL")) => {
            return Err(Refusal::invalid(format!("Healthcheck: {word} needs a command behind it")));
        }
        Some(other) => {
            return Err(Refusal::invalid(format!(
                "Unknown healthcheck type '{other}' in Test of Healthcheck (expected 'CMD', 'CMD-SHELL' or 'NONE')"
            )));
        }
    }
    let retries = wire.retries.unwrap_or_default();
    Ok(HealthCheck {
        test: test.into_iter().filter(|word| !word.is_empty()).collect(),
        interval: span(wire.interval, "Interval")?,
        timeout: span(wire.timeout, "Timeout")?,
        start_period: span(wire.start_period, "StartPeriod")?,
        start_interval: span(wire.start_interval, "StartInterval")?,
        retries: u32::try_from(retries).map_err(|_| Refusal::invalid("Retries in Healthcheck cannot be negative"))?,
    })
}

/// A restart policy; `auto_remove` contradicts all but none.
pub(super) fn restart(wire: WireRestart, auto_remove: bool) -> Result<RestartPolicy, Refusal> {
    let count = wire.maximum_retry_count.unwrap_or_default();
    let policy = match wire.name.unwrap_or(RestartPolicyNameEnum::EMPTY) {
        RestartPolicyNameEnum::EMPTY | RestartPolicyNameEnum::NO => RestartPolicy::No,
        RestartPolicyNameEnum::ALWAYS => RestartPolicy::Always,
        RestartPolicyNameEnum::UNLESS_STOPPED => RestartPolicy::UnlessStopped,
        RestartPolicyNameEnum::ON_FAILURE => RestartPolicy::OnFailure(
            u32::try_from(count)
                .map_err(|_| Refusal::invalid("invalid restart policy: maximum retry count cannot be negative"))?,
        ),
    };
    if count != 0 && !matches!(policy, RestartPolicy::OnFailure(_)) {
        return Err(Refusal::invalid("invalid restart policy: maximum retry count can only be used with 'on-failure'"));
    }
    if auto_remove && policy != RestartPolicy::No {
        return Err(Refusal::invalid("can't create 'AutoRemove' container with restart policy"));
    }
    Ok(policy)
}

fn log(wire: HostConfigLogConfig) -> LogRequest {
    LogRequest { driver: wire.typ.unwrap_or_default(), options: wire.config.unwrap_or_default().into_iter().collect() }
}

/// What limits are read for: some rules hold for a new container alone, since an update may complete what is set already.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    Create,
    Update,
}

/// Source: `verifyPlatformContainerResources` of moby for the rules and their words.
pub(super) fn resources(host: &HostConfig, what_for: For) -> Result<Resources, Refusal> {
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
    const NAMES: [&str; 15] = [
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    let name = wire.name.unwrap_or_default();
    if !NAMES.contains(&name.as_str()) {
        return Err(Refusal::invalid(format!("invalid ulimit type: {name}: use one of {}", NAMES.join(", "))));
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

fn security(host: &HostConfig) -> Result<Security, Refusal> {
    let mut security = Security {
        privileged: host.privileged == Some(true),
        cap_add: capabilities(host.cap_add.clone().unwrap_or_default())?,
        cap_drop: capabilities(host.cap_drop.clone().unwrap_or_default())?,
        read_only_root: host.readonly_rootfs == Some(true),
        group_add: host.group_add.clone().unwrap_or_default(),
        masked_paths: host.masked_paths.clone(),
        readonly_paths: host.readonly_paths.clone(),
        devices: host.devices.clone().unwrap_or_default().into_iter().map(device).collect::<Result<_, _>>()?,
        device_rules: device_rules(host.device_cgroup_rules.as_deref())?,
        sysctls: host.sysctls.clone().unwrap_or_default().into_iter().collect(),
        ..Security::default()
    };
    for option in host.security_opt.iter().flatten() {
        security_option(option, &mut security)?;
    }
    Ok(security)
}

/// Source: `deviceCgroupRuleRegex` of moby; what the executor says about the parts comes on top.
fn device_rules(rules: Option<&[String]>) -> Result<Vec<String>, Refusal> {
    let rules = rules.unwrap_or_default();
    match rules.iter().find(|rule| rule.split(' ').count() != 3) {
        Some(bad) => Err(Refusal::invalid(format!("invalid device cgroup rule format: '{bad}'"))),
        None => Ok(rules.to_vec()),
    }
}

/// `key=value`, in old clients `key:value`.
fn security_option(option: &str, security: &mut Security) -> Result<(), Refusal> {
    let (key, value) = match option.split_once(['=', ':']) {
        Some((key, value)) => (key, value),
        None => (option, ""),
    };
    match (key, value) {
        ("no-new-privileges", "" | "true") => security.no_new_privileges = true,
        ("no-new-privileges", "false") => security.no_new_privileges = false,
        ("seccomp", "unconfined") => security.seccomp = Seccomp::Unconfined,
        ("seccomp", "builtin") => security.seccomp = Seccomp::Default,
        ("seccomp", profile) => {
            if serde_json::from_str::<serde_json::Map<String, Value>>(profile).is_err() {
                return Err(Refusal::invalid(
                    "Decoding seccomp profile failed: expected unconfined, builtin, or a profile as JSON",
                ));
            }
            security.seccomp = Seccomp::Profile(profile.to_owned());
        }
        // Neither AppArmor nor SELinux is applied here: switching them off asks for nothing.
        ("apparmor", "unconfined") | ("label", "disable") => {}
        ("systempaths", "unconfined") => {
            security.masked_paths = Some(Vec::new());
            security.readonly_paths = Some(Vec::new());
        }
        ("apparmor" | "label" | "systempaths" | "writable-cgroups" | "credentialspec", _) => {
            return Err(Refusal::unsupported(format!("security option {option:?} is not offered: leave it out")));
        }
        _ => return Err(Refusal::invalid(format!("invalid --security-opt: {option:?}"))),
    }
    Ok(())
}

/// Every capability of Linux 6, without the prefix. Source: capabilities(7).
const CAPABILITIES: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

fn capabilities(names: Vec<String>) -> Result<Vec<String>, Refusal> {
    names
        .into_iter()
        .map(|asked| {
            let upper = asked.to_ascii_uppercase();
            let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
            if name == "ALL" || CAPABILITIES.contains(&name) {
                Ok(name.to_owned())
            } else {
                Err(Refusal::invalid(format!("invalid capability: unknown capability: \"CAP_{name}\"")))
            }
        })
        .collect()
}

fn device(wire: DeviceMapping) -> Result<Device, Refusal> {
    let host = wire.path_on_host.unwrap_or_default();
    let target = text(wire.path_in_container).unwrap_or_else(|| host.clone());
    let permissions = text(wire.cgroup_permissions).unwrap_or_else(|| "rwm".to_owned());
    if !host.starts_with('/') || !target.starts_with('/') {
        return Err(Refusal::invalid(format!("invalid device {host:?}: paths must be absolute")));
    }
    if !permissions.bytes().all(|byte| b"rwm".contains(&byte)) {
        return Err(Refusal::invalid(format!("invalid device mode of {host}: {permissions}: use letters of rwm")));
    }
    Ok(Device { host, target, permissions })
}

fn of_workload(mode: &str, kind: &str) -> Result<Option<String>, Refusal> {
    match mode.strip_prefix("container:") {
        Some("") => Err(Refusal::invalid(format!("invalid {kind} mode: {mode}: name a container"))),
        name => Ok(name.map(str::to_owned)),
    }
}

fn pid_mode(mode: Option<&str>) -> Result<ModeRequest, Refusal> {
    match mode.unwrap_or_default() {
        "" | "private" => Ok(ModeRequest::Private),
        "host" => Ok(ModeRequest::Host),
        mode => match of_workload(mode, "PID")? {
            Some(name) => Ok(ModeRequest::Workload(name)),
            None => Err(Refusal::invalid(format!("invalid PID mode: {mode}"))),
        },
    }
}

fn ipc_mode(mode: Option<&str>) -> Result<ModeRequest, Refusal> {
    match mode.unwrap_or_default() {
        // Any workload's IPC namespace may be shared by another that names it.
        "" | "private" | "shareable" => Ok(ModeRequest::Private),
        "host" => Ok(ModeRequest::Host),
        mode => match of_workload(mode, "IPC")? {
            Some(name) => Ok(ModeRequest::Workload(name)),
            None => Err(Refusal::invalid(format!("invalid IPC mode: {mode}"))),
        },
    }
}

fn uts_mode(mode: Option<&str>) -> Result<ModeRequest, Refusal> {
    match mode.unwrap_or_default() {
        "" => Ok(ModeRequest::Private),
        "host" => Ok(ModeRequest::Host),
        mode => Err(Refusal::invalid(format!("invalid UTS mode: {mode}"))),
    }
}

fn extra_hosts(hosts: Vec<String>) -> Result<Vec<(String, String)>, Refusal> {
    hosts
        .into_iter()
        .map(|entry| {
            let malformed = || Refusal::invalid(format!("bad format for add-host: \"{entry}\": expected name:address"));
            let (name, address) = entry.split_once(['=', ':']).ok_or_else(malformed)?;
            let address = address.trim_start_matches('[').trim_end_matches(']');
            if name.is_empty() || address.is_empty() {
                return Err(malformed());
            }
            if address != "host-gateway" && address.parse::<IpAddr>().is_err() {
                return Err(Refusal::invalid(format!("invalid IP address in add-host: \"{address}\"")));
            }
            Ok((name.to_owned(), address.to_owned()))
        })
        .collect()
}

fn dns(host: &HostConfig) -> Result<Dns, Refusal> {
    let servers = host.dns.iter().flatten().map(|server| {
        server.parse().map_err(|_| Refusal::invalid(format!("IP address is not correctly formatted: {server}")))
    });
    Ok(Dns {
        servers: servers.collect::<Result<_, _>>()?,
        search: host.dns_search.clone().unwrap_or_default(),
        options: host.dns_options.clone().unwrap_or_default(),
    })
}

fn all_mounts(host: &HostConfig) -> Result<Vec<MountRequest>, Refusal> {
    let mut all = Vec::new();
    for bind in host.binds.iter().flatten() {
        all.push(mounts::bind(bind)?);
    }
    for mount in host.mounts.iter().flatten() {
        all.push(mounts::mount(mount)?);
    }
    let tmpfs: BTreeMap<&String, &String> = host.tmpfs.iter().flatten().collect();
    for (target, options) in tmpfs {
        all.push(mounts::tmpfs(target, options)?);
    }
    mounts::check_targets(&all)?;
    Ok(all)
}

/// `name[:alias]`.
fn links(list: Option<&[String]>) -> Result<Vec<(String, String)>, Refusal> {
    let one = |text: &String| match text.split(':').collect::<Vec<_>>()[..] {
        [name] if !name.is_empty() => Ok((name.to_owned(), name.trim_start_matches('/').to_owned())),
        // As inspect shows it, the alias has the workload's own name before it: `/db:/web/alias`.
        [name, alias] if !name.is_empty() && !alias.is_empty() => {
            Ok((name.to_owned(), alias.rsplit('/').next().unwrap_or(alias).to_owned()))
        }
        _ => Err(Refusal::invalid(format!("bad format for links: {text}"))),
    };
    list.into_iter().flatten().map(one).collect()
}

/// `name[:ro|rw]`.
fn volumes_from(list: Option<&[String]>) -> Result<Vec<(String, bool)>, Refusal> {
    let one = |text: &String| match text.split_once(':') {
        None => Ok((text.clone(), false)),
        Some((name, mode)) => {
            let words = || mode.split(',');
            match words().find(|word| !["ro", "rw", "z", "Z", "nocopy"].contains(word)) {
                Some(_) => Err(Refusal::invalid(format!("invalid mode: {mode}"))),
                None => Ok((name.to_owned(), words().any(|word| word == "ro"))),
            }
        }
    };
    list.into_iter().flatten().map(one).collect()
}

/// The network mode, and the networks with what is wanted on each.
fn networks(create: &mut CreateRequest, wire: &ContainerCreateBody, host: &HostConfig) -> Result<(), Refusal> {
    let mut endpoints: BTreeMap<String, EndpointRequest> = BTreeMap::new();
    let wanted = wire.networking_config.clone().unwrap_or_default().endpoints_config.unwrap_or_default();
    for (name, settings) in wanted {
        // The default network goes by two names.
        let name = if name == "default" { "bridge".to_owned() } else { name };
        let endpoint = network::endpoint(&name, settings)?;
        endpoints.insert(name, endpoint);
    }
    let mode = host.network_mode.as_deref().unwrap_or_default();
    let mode = if wire.network_disabled == Some(true) { "none" } else { mode };
    create.network_mode = match mode {
        "" | "default" => NetworkModeRequest::Default,
        "none" => NetworkModeRequest::None,
        "host" => NetworkModeRequest::Host,
        mode => match of_workload(mode, "network")? {
            Some(name) => NetworkModeRequest::Workload(name),
            None => {
                endpoints.entry(mode.to_owned()).or_default();
                NetworkModeRequest::Default
            }
        },
    };
    if create.network_mode != NetworkModeRequest::Default {
        // Docker's clients name the mode itself as a network here; it is none that one could be put on.
        endpoints.remove(mode);
        if let Some(other) = endpoints.keys().next() {
            return Err(Refusal::invalid(format!(
                "conflicting options: cannot attach both user-defined and non-user-defined network-modes: {mode} and {other}"
            )));
        }
    }
    // Deprecated since 1.44: the address stood beside the networks and was meant for the only one.
    if let Some(mac) = create.as_asked.get("MacAddress").and_then(Value::as_str).filter(|mac| !mac.is_empty()) {
        match create.network_mode {
            NetworkModeRequest::Default => {
                if endpoints.is_empty() {
                    endpoints.insert("bridge".to_owned(), EndpointRequest::default());
                }
                for endpoint in endpoints.values_mut().take(1) {
                    endpoint.mac.get_or_insert_with(|| mac.to_owned());
                }
            }
            _ => return Err(Refusal::invalid("conflicting options: mac-address and the network mode")),
        }
    }
    create.networks = endpoints;
    Ok(())
}

/// What cannot be had together with a namespace of someone else.
///
/// Source: `validateNetMode` of moby for the words.
fn check_modes(create: &CreateRequest) -> Result<(), Refusal> {
    let refuse = |what: &str| Err(Refusal::invalid(format!("conflicting options: {what}")));
    if create.uts_mode == ModeRequest::Host && create.hostname.is_some() {
        return refuse("hostname and the UTS mode");
    }
    if let NetworkModeRequest::Workload(_) = create.network_mode {
        if create.hostname.is_some() {
            return refuse("hostname and the network mode");
        }
        if !create.dns.servers.is_empty() {
            return refuse("dns and the network mode");
        }
        if !create.extra_hosts.is_empty() {
            return refuse("custom host-to-IP mapping and the network mode");
        }
        if !create.publish.is_empty() || create.publish_all {
            return refuse("port publishing and the container type network mode");
        }
        if !create.exposed.is_empty() {
            return refuse("port exposing and the container type network mode");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: Value) -> Result<CreateRequest, Refusal> {
        create(body, Some("/web"), None)
    }

    fn check(host: Value, expected: &str) {
        let got = match read(json!({ "Image": "busybox", "HostConfig": host })) {
            Ok(_) => "ok".to_owned(),
            Err(refusal) => format!("{:?}: {}", refusal.kind, refusal.message),
        };
        assert_eq!(got, expected, "{host}");
    }

    #[test]
    fn the_cli_s_own_body_is_taken_whole() {
        // As docker 28.2.2 sends it for a run without options.
        let body = json!({
            "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": true,
            "AttachStderr": true, "Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": null, "Cmd": ["true"],
            "Image": "busybox", "Volumes": {}, "WorkingDir": "", "Entrypoint": null, "OnBuild": null, "Labels": {},
            "HostConfig": {
                "Binds": null, "ContainerIDFile": "", "LogConfig": { "Type": "", "Config": {} }, "NetworkMode": "default",
                "PortBindings": {}, "RestartPolicy": { "Name": "no", "MaximumRetryCount": 0 }, "AutoRemove": false,
                "VolumeDriver": "", "VolumesFrom": null, "ConsoleSize": [0, 0], "CapAdd": null, "CapDrop": null,
                "CgroupnsMode": "", "Dns": [], "DnsOptions": [], "DnsSearch": [], "ExtraHosts": null, "GroupAdd": null,
                "IpcMode": "", "Cgroup": "", "Links": null, "OomScoreAdj": 0, "PidMode": "", "Privileged": false,
                "PublishAllPorts": false, "ReadonlyRootfs": false, "SecurityOpt": null, "UTSMode": "", "UsernsMode": "",
                "ShmSize": 0, "Isolation": "", "CpuShares": 0, "Memory": 0, "NanoCpus": 0, "CgroupParent": "",
                "BlkioWeight": 0, "BlkioWeightDevice": [], "BlkioDeviceReadBps": [], "BlkioDeviceWriteBps": [],
                "BlkioDeviceReadIOps": [], "BlkioDeviceWriteIOps": [], "CpuPeriod": 0, "CpuQuota": 0,
                "CpuRealtimePeriod": 0, "CpuRealtimeRuntime": 0, "CpusetCpus": "", "CpusetMems": "", "Devices": [],
                "DeviceCgroupRules": null, "DeviceRequests": null, "MemoryReservation": 0, "MemorySwap": 0,
                "MemorySwappiness": -1, "OomKillDisable": false, "PidsLimit": 0, "Ulimits": [], "CpuCount": 0,
                "CpuPercent": 0, "IOMaximumIOps": 0, "IOMaximumBandwidth": 0, "MaskedPaths": null, "ReadonlyPaths": null
            },
            "NetworkingConfig": { "EndpointsConfig": { "default": {
                "IPAMConfig": null, "Links": null, "Aliases": null, "MacAddress": "", "DriverOpts": null, "GwPriority": 0,
                "NetworkID": "", "EndpointID": "", "Gateway": "", "IPAddress": "", "IPPrefixLen": 0, "IPv6Gateway": "",
                "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "DNSNames": null
            } } }
        });
        let mut create = read(body.clone()).unwrap();
        assert_eq!(std::mem::take(&mut create.as_asked), body);
        insta::assert_debug_snapshot!(create);
    }

    #[test]
    fn a_full_host_configuration_is_put_into_our_terms() {
        let mut create = read(json!({
            "Image": "busybox", "Cmd": "top", "Env": ["A=b", "C"], "StopSignal": "SIGINT", "StopTimeout": -1,
            "ExposedPorts": { "81/udp": {} }, "Volumes": { "/v": {} }, "Labels": { "a": "b" },
            "Healthcheck": { "Test": ["CMD-SHELL", "true"], "Interval": 1000000000, "Retries": 3 },
            "HostConfig": {
                "Binds": ["/tmp:/t:ro"], "Tmpfs": { "/q": "size=1m" }, "NetworkMode": "front",
                "PortBindings": { "80/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "8080" }] },
                "RestartPolicy": { "Name": "on-failure", "MaximumRetryCount": 2 }, "Memory": 67108864, "NanoCpus": 500000000,
                "PidsLimit": 10, "CapAdd": ["cap_net_admin"], "CapDrop": ["ALL"], "ReadonlyRootfs": true, "Init": true,
                "SecurityOpt": ["no-new-privileges", "seccomp=unconfined", "systempaths=unconfined"],
                "Ulimits": [{ "Name": "nofile", "Soft": 1024, "Hard": -1 }], "ExtraHosts": ["a:10.0.0.1", "b=host-gateway"],
                "Dns": ["1.1.1.1"], "Devices": [{ "PathOnHost": "/dev/fuse" }], "IpcMode": "shareable",
                "PidMode": "container:db", "ShmSize": 1048576, "Sysctls": { "net.ipv4.ip_forward": "1" }
            },
            "NetworkingConfig": { "EndpointsConfig": { "front": { "Aliases": ["web"] }, "back": {} } }
        }))
        .unwrap();
        create.as_asked = Value::Null;
        insta::assert_debug_snapshot!(create);
    }

    #[test]
    fn what_is_not_offered_is_refused_by_its_name() {
        check(json!({}), "ok");
        check(json!({ "VolumesFrom": ["x:odd"] }), "Invalid: invalid mode: odd");
        check(json!({ "Links": ["a:b:c"] }), "Invalid: bad format for links: a:b:c");
        check(json!({ "KernelMemory": 7 }), "Unsupported: KernelMemory is not offered: use Memory");
        check(json!({ "BlkioWeight": 5 }), "Invalid: Range of blkio weight is from 10 to 1000");
        check(json!({ "StorageOpt": { "size": "1g" } }), "Unsupported: StorageOpt is not offered: leave it out");
        check(
            json!({ "DeviceRequests": [{ "Count": -1 }] }),
            "Unsupported: could not select device driver \"\" with capabilities: []: name single devices in Devices",
        );
        check(
            json!({ "Runtime": "kata" }),
            "Invalid: unknown or invalid runtime name: kata: leave it out, the image's platform says how it runs",
        );
        check(json!({ "Runtime": "io.containerd.wasmtime.v1" }), "ok");
        check(json!({ "IpcMode": "none" }), "Unsupported: IpcMode none is not offered: use private");
        check(
            json!({ "SecurityOpt": ["apparmor=mine"] }),
            "Unsupported: security option \"apparmor=mine\" is not offered: leave it out",
        );
        check(json!({ "SecurityOpt": ["apparmor=unconfined", "label=disable", "seccomp=builtin"] }), "ok");
    }

    #[test]
    fn what_contradicts_itself_is_refused_in_dockers_words() {
        check(
            json!({ "AutoRemove": true, "RestartPolicy": { "Name": "always" } }),
            "Invalid: can't create 'AutoRemove' container with restart policy",
        );
        check(
            json!({ "RestartPolicy": { "Name": "sometimes" } }),
            "Invalid: invalid restart policy: unknown policy 'sometimes'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
        );
        check(json!({ "Memory": 1024 }), "Invalid: Minimum memory limit allowed is 6MB");
        check(
            json!({ "MemorySwap": 67108864 }),
            "Invalid: You should always set the Memory limit when using Memoryswap limit, see usage",
        );
        check(json!({ "CapAdd": ["FLY"] }), "Invalid: invalid capability: unknown capability: \"CAP_FLY\"");
        check(
            json!({ "SecurityOpt": ["seccomp={bad"] }),
            "Invalid: Decoding seccomp profile failed: expected unconfined, builtin, or a profile as JSON",
        );
        check(json!({ "SecurityOpt": ["nonsense"] }), "Invalid: invalid --security-opt: \"nonsense\"");
        check(json!({ "Binds": ["/a:/x", "/b:/x"] }), "Invalid: Duplicate mount point: /x");
        check(json!({ "PidMode": "odd" }), "Invalid: invalid PID mode: odd");
        check(
            json!({ "NetworkMode": "container:db", "PortBindings": { "80/tcp": [{}] } }),
            "Invalid: conflicting options: port publishing and the container type network mode",
        );
        check(
            json!({ "Ulimits": [{ "Name": "files", "Soft": 1, "Hard": 1 }] }),
            "Invalid: invalid ulimit type: files: use one of core, cpu, data, fsize, locks, memlock, msgqueue, nice, nofile, nproc, rss, rtprio, rttime, sigpending, stack",
        );
        check(
            json!({ "Mounts": [{ "Type": "odd", "Target": "/x" }] }),
            "Invalid: mount type unknown: \"odd\": use bind, volume or tmpfs",
        );
        assert_eq!(
            create(json!({}), None, None).unwrap_err().message,
            "config cannot be empty in order to create a container"
        );
    }

    #[test]
    fn network_modes_are_told_apart() {
        let networks = |mode: &str, endpoints: Value| {
            read(json!({
                "Image": "x", "HostConfig": { "NetworkMode": mode }, "NetworkingConfig": { "EndpointsConfig": endpoints }
            }))
            .map(|create| (create.network_mode, create.networks.into_keys().collect::<Vec<_>>()))
            .map_err(|refusal| refusal.message)
        };
        use NetworkModeRequest::{Default, Host, None, Workload};
        assert_eq!(networks("", json!({})), Ok((Default, vec![])));
        assert_eq!(networks("default", json!({ "default": {} })), Ok((Default, vec!["bridge".to_owned()])));
        assert_eq!(networks("app", json!({ "db": {} })), Ok((Default, vec!["app".to_owned(), "db".to_owned()])));
        assert_eq!(networks("none", json!({ "none": {} })), Ok((None, vec![])));
        assert_eq!(networks("host", json!({})), Ok((Host, vec![])));
        assert_eq!(networks("container:a", json!({})), Ok((Workload("a".to_owned()), vec![])));
        assert!(networks("host", json!({ "db": {} })).unwrap_err().starts_with("conflicting options"));
    }
}
