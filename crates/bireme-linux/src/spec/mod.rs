//! From a [`WorkloadSpec`] to an OCI runtime specification, Docker's defaults included.
//!
//! The user's own mounts are not in it: the runner puts them into the root filesystem before libcontainer mounts `/proc`
//! and its kin over them, so that none of them can ever lie over `/proc` (CVE-2025-52881).

mod devices;
mod seccomp;

use std::collections::{BTreeSet, HashMap};
use std::path::{Component, Path, PathBuf};

use bireme_core::spec::{MountSource, NamespaceMode, NetworkMode, Propagation, Resources, Seccomp, Security};
use bireme_core::{ErrorKind, WorkloadSpec};
use serde_json::{Value, json};

use crate::cgroup::Layout;
use crate::limits;
use crate::protocol::{Failure, RunnerConfig};
use crate::users::User;

/// What root in a container may do, as in Docker.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Every capability by its number. Source: capabilities(7).
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

const ULIMITS: [&str; 16] = [
    "as",
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

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(ErrorKind::Invalid, message)
}

/// Checks all of `spec` that can be known without its root filesystem.
///
/// # Errors
/// `Invalid` or `Unsupported` with a sentence naming what is refused.
pub fn check(spec: &WorkloadSpec) -> Result<(), Failure> {
    match spec.args.first() {
        None => return Err(invalid("no command specified: give one, or set Cmd or Entrypoint in the image")),
        Some(program) if program.is_empty() => return Err(invalid("the command is empty")),
        Some(_) => {}
    }
    if spec.args.iter().chain(&spec.env).any(|text| text.contains('\0')) {
        return Err(invalid("an argument or environment variable holds a zero byte"));
    }
    if !spec.cwd.is_empty() && !spec.cwd.starts_with('/') {
        return Err(invalid(format!(
            "the working directory {:?} is invalid, it needs to be an absolute path",
            spec.cwd
        )));
    }
    if spec.hostname.len() > 64 || spec.domainname.len() > 64 {
        return Err(invalid("hostname and domain name have at most 64 characters each"));
    }
    capabilities(&spec.security, u64::MAX)?;
    seccomp::section(&spec.security.seccomp, &BTreeSet::new())?;
    for mount in &spec.mounts {
        check_target(&mount.target)?;
        match &mount.source {
            MountSource::Bind { path, .. } if !path.is_absolute() => {
                return Err(invalid(format!("mount source {} must be an absolute path", path.display())));
            }
            // libcontainer mounts below `/dev`, and takes a source by name.
            MountSource::Subpath { .. } if below_dev(&mount.target) => {
                return Err(invalid(format!(
                    "mount target {}: a part of a volume cannot be mounted below /dev; mount the whole volume",
                    mount.target
                )));
            }
            MountSource::Bind { .. } | MountSource::Subpath { .. } | MountSource::Tmpfs { .. } => {}
        }
    }
    let mounts = spec.mounts.iter().map(|mount| mount.target.as_str());
    let mut targets: Vec<&str> =
        mounts.chain(spec.security.devices.iter().map(|device| device.target.as_str())).collect();
    if spec.namespaces.ipc != NamespaceMode::Private {
        // A mount too, of others, who may put links in it.
        targets.push("/dev/shm");
    }
    if let Some((outer, inner)) = nested_in_dev(&targets) {
        // libcontainer finds its place below `/dev` by name, where the outer mount may have put a link.
        return Err(invalid(format!(
            "mount target {inner} lies in the mount at {outer}: below /dev, one mount may not lie in another"
        )));
    }
    for limit in &spec.resources.ulimits {
        if !ULIMITS.contains(&limit.name.as_str()) {
            return Err(invalid(format!("unknown ulimit {:?}: use one of {}", limit.name, ULIMITS.join(", "))));
        }
        if limit.soft > limit.hard {
            return Err(invalid(format!(
                "ulimit {} has a soft limit {} above its hard limit {}",
                limit.name, limit.soft, limit.hard
            )));
        }
    }
    check_resources(spec)?;
    for device in &spec.security.devices {
        if device.permissions.is_empty() || !device.permissions.bytes().all(|b| b"rwm".contains(&b)) {
            return Err(invalid(format!(
                "permissions {:?} of device {} must be of r, w and m",
                device.permissions, device.host
            )));
        }
        if !device.target.starts_with("/dev/") || has_dots(&device.target) {
            return Err(invalid(format!("device target {:?} must be a path below /dev", device.target)));
        }
    }
    for rule in &spec.security.device_rules {
        devices::parse_rule(rule)?;
    }
    for name in spec.security.sysctls.keys() {
        check_sysctl(name, spec)?;
    }
    Ok(())
}

fn check_resources(spec: &WorkloadSpec) -> Result<(), Failure> {
    let resources = &spec.resources;
    if resources.memory.is_some_and(|memory| memory < 6 << 20) {
        return Err(invalid("Minimum memory limit allowed is 6MB"));
    }
    match (resources.memory, resources.memory_swap) {
        (None, Some(swap)) if swap > 0 => {
            return Err(invalid("a limit of memory and swap together needs a memory limit as well"));
        }
        (Some(memory), Some(swap)) if swap > 0 && u64::try_from(swap).is_ok_and(|swap| swap < memory) => {
            return Err(invalid("Minimum memoryswap limit should be larger than memory limit"));
        }
        _ => {}
    }
    if resources.nano_cpus.is_some_and(|cpus| cpus != 0)
        && (resources.cpu_quota.is_some_and(|quota| quota != 0)
            || resources.cpu_period.is_some_and(|period| period != 0))
    {
        return Err(invalid("Conflicting options: Nano CPUs and CPU Quota or Period cannot both be set"));
    }
    check_processors(resources)?;
    if resources.blkio.weight.is_some_and(|weight| !(10..=1000).contains(&weight)) {
        return Err(invalid("Range of blkio weight is from 10 to 1000"));
    }
    if let Some(swappiness) = resources.memory_swappiness.filter(|swappiness| *swappiness > 100) {
        return Err(invalid(format!("Invalid value: {swappiness}, valid memory swappiness range is 0-100")));
    }
    let blkio = &resources.blkio;
    for (path, _) in blkio.read_bps.iter().chain(&blkio.write_bps).chain(&blkio.read_iops).chain(&blkio.write_iops) {
        if limits::device_number(path).is_none() {
            return Err(invalid(format!("stat {path}: no such device: its reads and writes cannot be limited")));
        }
    }
    if resources.oom_score_adj.is_some_and(|score| !(-1000..=1000).contains(&score)) {
        return Err(invalid("OOM score adjustment must be between -1000 and 1000"));
    }
    if let Some(parent) = &resources.cgroup_parent
        && (has_dots(parent) || parent.contains(|c: char| c.is_whitespace() || c.is_control()))
    {
        return Err(invalid(format!("parent cgroup {parent:?} must be a plain path without . or .. in it")));
    }
    Ok(())
}

/// What this machine's processors and memory nodes allow.
///
/// Source: `verifyPlatformContainerResources` of moby for the words.
fn check_processors(resources: &Resources) -> Result<(), Failure> {
    if let (Some(nanos), Some(most)) = (resources.nano_cpus.filter(|nanos| *nanos > 0), limits::processors())
        && !(10_000_000..=most * 1_000_000_000).contains(&nanos)
    {
        return Err(invalid(format!(
            "Range of CPUs is from 0.01 to {most}.00, as there are only {most} CPUs available"
        )));
    }
    for (wanted, file, name) in [(&resources.cpuset, "cpus", "CPUs"), (&resources.cpuset_mems, "mems", "memory nodes")]
    {
        let Some(wanted) = wanted.as_deref().filter(|wanted| !wanted.is_empty()) else { continue };
        let list = limits::parse_list(wanted)
            .ok_or_else(|| invalid(format!("Invalid value {wanted} for cpuset {file}: invalid format: {wanted}")))?;
        let Some(available) = limits::available(file) else { continue };
        let have = limits::parse_list(&available).unwrap_or_default();
        if list.iter().any(|one| !have.contains(one)) {
            return Err(invalid(format!(
                "Requested {name} are not available - requested {wanted}, available: {available}"
            )));
        }
    }
    Ok(())
}

/// What of `spec` has no effect on this machine, or is likely to do harm, in Docker's words.
pub fn warnings(spec: &WorkloadSpec) -> Vec<String> {
    let limits = &spec.resources;
    let v2 = matches!(Layout::of_this_machine(), Layout::V2(_));
    let mut all = Vec::new();
    let mut warn = |holds: bool, text: &str| all.extend(holds.then(|| text.to_owned()));
    warn(
        limits.memory.is_some() && !limits::counts_swap(),
        "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.",
    );
    warn(
        limits.memory_swappiness.is_some() && v2,
        "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.",
    );
    warn(limits.oom_kill_disable && v2, "Your kernel does not support OomKillDisable. OomKillDisable discarded.");
    warn(
        limits.oom_kill_disable && !v2 && limits.memory.is_none(),
        "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.",
    );
    warn(
        limits.blkio.weight.is_some() && !limits::has_weights(),
        "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.",
    );
    all
}

/// Two targets below `/dev` of which the second lies in the first.
fn nested_in_dev<'a>(targets: &[&'a str]) -> Option<(&'a str, &'a str)> {
    let below: Vec<&str> = targets.iter().copied().filter(|target| below_dev(target)).collect();
    let pairs = below.iter().flat_map(|outer| below.iter().map(move |inner| (*outer, *inner)));
    pairs.into_iter().find(|(outer, inner)| outer != inner && Path::new(inner).starts_with(outer))
}

fn has_dots(path: &str) -> bool {
    path.split('/').any(|part| part == "." || part == "..")
}

/// A mount may lie anywhere but at the root and over what the kernel shows of itself.
///
/// # Errors
/// `Invalid` naming the target.
pub fn check_target(target: &str) -> Result<(), Failure> {
    if !target.starts_with('/') || has_dots(target) || target.contains('\0') {
        return Err(invalid(format!("mount target {target:?} must be an absolute path without . or .. in it")));
    }
    let parts: Vec<&str> = target.split('/').filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        [] => Err(invalid("invalid mount target: destination can't be '/'")),
        ["proc" | "sys", ..] => Err(invalid(format!(
            "mount target {target} lies in /proc or /sys, where a mount could mislead the kernel's own files; choose another path"
        ))),
        ["dev"] => Err(invalid("mounting over /dev is not supported; name single devices with --device")),
        _ => Ok(()),
    }
}

fn check_sysctl(name: &str, spec: &WorkloadSpec) -> Result<(), Failure> {
    let ipc = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let refuse = |why: &str| Err(invalid(format!("sysctl {name:?} is not allowed: {why}")));
    if has_dots(&name.replace('.', "/")) || name.contains('/') {
        return refuse("it must be a plain name such as net.core.somaxconn");
    }
    if ipc.contains(&name) || name.starts_with("fs.mqueue.") {
        return match spec.namespaces.ipc {
            NamespaceMode::Private => Ok(()),
            _ => refuse("the container shares the IPC namespace it belongs to"),
        };
    }
    if name.starts_with("net.") {
        return match spec.namespaces.network {
            NetworkMode::Host | NetworkMode::Workload(_) => {
                refuse("the container shares the network namespace it belongs to")
            }
            NetworkMode::Attached | NetworkMode::None => Ok(()),
        };
    }
    refuse("it is not one of the container's own (net., fs.mqueue., kernel.sem, kernel.msg*, kernel.shm*)")
}

/// The capabilities a container has, without their `CAP_` prefix. `available` is the set of whoever starts it, as in
/// `/proc/self/status`.
///
/// # Errors
/// `Invalid` for a name that is none, `Denied` for one that is not available here.
pub fn capabilities(security: &Security, available: u64) -> Result<BTreeSet<String>, Failure> {
    let known = |name: &str| CAPABILITIES.iter().position(|capability| *capability == name);
    let have = |name: &str| known(name).is_some_and(|number| available >> number & 1 == 1);
    let all = || CAPABILITIES.iter().filter(|name| have(name)).map(|name| (*name).to_owned());
    let plain = |name: &String| name.to_ascii_uppercase().trim_start_matches("CAP_").to_owned();
    let (add, drop): (Vec<String>, Vec<String>) =
        (security.cap_add.iter().map(plain).collect(), security.cap_drop.iter().map(plain).collect());
    for name in add.iter().chain(&drop) {
        if name != "ALL" && known(name).is_none() {
            return Err(invalid(format!("unknown capability {name:?}: see capabilities(7) for their names")));
        }
    }
    if security.privileged {
        return Ok(all().collect());
    }
    let mut set: BTreeSet<String> = if add.iter().any(|name| name == "ALL") {
        all().collect()
    } else if drop.iter().any(|name| name == "ALL") {
        BTreeSet::new()
    } else {
        DEFAULT_CAPABILITIES.iter().filter(|name| have(name)).map(|name| (*name).to_owned()).collect()
    };
    for name in &drop {
        set.remove(name);
    }
    for name in add.iter().filter(|name| *name != "ALL") {
        if !have(name) {
            return Err(Failure::new(
                ErrorKind::Denied,
                format!("capability {name} is not available on this machine; leave it out"),
            ));
        }
        set.insert(name.clone());
    }
    Ok(set)
}

/// The environment of a process: Docker's defaults, the workload's, then `extra`; each name once. A name without a value
/// takes away what came before. Source: `ReplaceOrAppendEnvVars` of moby.
pub fn environment(spec: &WorkloadSpec, user: &User, tty: bool, extra: &[String]) -> Vec<String> {
    let hostname = format!("HOSTNAME={}", spec.hostname);
    let ours = [PATH, hostname.as_str()].into_iter().chain(tty.then_some("TERM=xterm"));
    let mut all: Vec<Option<&str>> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for entry in ours.chain(spec.env.iter().chain(extra).map(String::as_str)) {
        let (name, value) = entry.split_once('=').map_or((entry, None), |(name, value)| (name, Some(value)));
        match (places.get(name), value) {
            (Some(at), Some(_)) => all[*at] = Some(entry),
            (None, Some(_)) => {
                places.insert(name, all.len());
                all.push(Some(entry));
            }
            (Some(at), None) => all[*at] = None,
            (None, None) => {}
        }
    }
    let mut all: Vec<String> = all.into_iter().flatten().filter(|entry| *entry != "HOME=").map(str::to_owned).collect();
    if !all.iter().any(|entry| entry.starts_with("HOME=")) {
        all.push(format!("HOME={}", user.home));
    }
    all
}

/// What the runner found out before the specification is written.
pub struct Found<'a> {
    pub user: &'a User,
    /// Where the root filesystem is mounted.
    pub root: &'a Path,
    /// The network namespace to join; `None` is the host's.
    pub network: Option<String>,
    /// The set of the runner itself.
    pub capabilities: u64,
}

/// Writes the OCI runtime specification.
///
/// # Errors
/// `Invalid` or `Denied` naming what is refused.
pub fn oci(config: &RunnerConfig, found: &Found<'_>) -> Result<Value, Failure> {
    let spec = &config.spec;
    let security = &spec.security;
    let names = capabilities(security, found.capabilities)?;
    let listed: Vec<String> = names.iter().map(|name| format!("CAP_{name}")).collect();
    let profile = if security.privileged { &Seccomp::Unconfined } else { &security.seccomp };
    let user = found.user;

    let mut process = json!({
        "terminal": spec.tty,
        "user": { "uid": user.uid, "gid": user.gid, "additionalGids": user.groups },
        "args": spec.args,
        "env": environment(spec, user, spec.tty, &[]),
        "cwd": if spec.cwd.is_empty() { "/" } else { &spec.cwd },
        // None are inheritable (CVE-2022-24769).
        "capabilities": { "bounding": listed, "effective": listed, "permitted": listed, "inheritable": [], "ambient": [] },
        "rlimits": spec.resources.ulimits.iter().map(|limit| json!({
            "type": format!("RLIMIT_{}", limit.name.to_ascii_uppercase()), "soft": limit.soft, "hard": limit.hard,
        })).collect::<Vec<_>>(),
    });
    // Absent and false differ for libcontainer: absent loads the seccomp filter while it still may.
    if security.no_new_privileges {
        process["noNewPrivileges"] = json!(true);
    }
    let devices = devices::of(security)?;
    let mut linux = json!({
        "cgroupsPath": config.cgroup,
        "namespaces": namespaces(config, found),
        "resources": resources(spec, devices.rules),
        "devices": devices.nodes,
        "sysctl": security.sysctls,
        "maskedPaths": paths(security.masked_paths.as_deref(), &MASKED, security.privileged),
        "readonlyPaths": paths(security.readonly_paths.as_deref(), &READ_ONLY, security.privileged)
            .into_iter()
            .filter(|path| is_kernels(path))
            .collect::<Vec<_>>(),
    });
    if !security.privileged && matches!(Layout::of_this_machine(), Layout::V1(_)) {
        // Only the folder that holds the hierarchies: each of them is mounted read-only by itself.
        if let Some(list) = linux["readonlyPaths"].as_array_mut() {
            list.push(json!("/sys/fs/cgroup"));
        }
    }
    if let Some(section) = seccomp::section(profile, &names)? {
        linux["seccomp"] = section;
    }
    let shares = |mount: &bireme_core::spec::Mount| {
        matches!(mount.source, MountSource::Bind { propagation: Propagation::Shared, .. })
    };
    if spec.mounts.iter().any(shares) {
        // Otherwise everything is made a slave of the host's, shared binds included. Source: `withMounts` of moby.
        linux["rootfsPropagation"] = json!("shared");
    }
    let mut out = json!({
        "ociVersion": "1.1.0",
        "process": process,
        "root": { "path": found.root, "readonly": security.read_only_root },
        "mounts": mounts(config),
        "linux": linux,
    });
    if matches!(spec.namespaces.uts, NamespaceMode::Private) {
        out["hostname"] = json!(spec.hostname);
        if !spec.domainname.is_empty() {
            out["domainname"] = json!(spec.domainname);
        }
    }
    Ok(out)
}

/// `path` below the root, without `.` and `..`, by its words alone.
pub fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => drop(plain.pop()),
            _ => {}
        }
    }
    plain
}

/// Whether `path` is the root, or among the files of the kernel that are mounted after all else: libcontainer makes those
/// read-only, and the runner what is not.
pub fn is_kernels(path: &str) -> bool {
    let plain = plain(Path::new(path));
    plain == Path::new("/") || ["/proc", "/sys", "/dev"].iter().any(|kernels| plain.starts_with(kernels))
}

fn paths(chosen: Option<&[String]>, default: &[&str], privileged: bool) -> Vec<String> {
    match chosen {
        Some(chosen) => chosen.to_vec(),
        None if privileged => Vec::new(),
        None => default.iter().map(|path| (*path).to_owned()).collect(),
    }
}

fn namespaces(config: &RunnerConfig, found: &Found<'_>) -> Value {
    let modes = &config.spec.namespaces;
    let mut list = vec![json!({ "type": "mount" })];
    if modes.cgroup == NamespaceMode::Private {
        list.push(json!({ "type": "cgroup" }));
    }
    let mut add = |kind: &str, file: &str, mode: &NamespaceMode, joined: Option<u32>| match (mode, joined) {
        (NamespaceMode::Host, _) => {}
        (_, Some(pid)) => list.push(json!({ "type": kind, "path": format!("/proc/{pid}/ns/{file}") })),
        (_, None) => list.push(json!({ "type": kind })),
    };
    add("pid", "pid", &modes.pid, config.joins.pid);
    add("ipc", "ipc", &modes.ipc, config.joins.ipc);
    add("uts", "uts", &modes.uts, config.joins.uts);
    if let Some(path) = &found.network {
        list.push(json!({ "type": "network", "path": path }));
    }
    Value::Array(list)
}

fn resources(spec: &WorkloadSpec, device_rules: Value) -> Value {
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

/// What every container has; see the module's head for what is missing here.
fn mounts(config: &RunnerConfig) -> Value {
    let spec = &config.spec;
    let privileged = spec.security.privileged;
    let mount = |kind: &str, target: &str, options: &[&str]| json!({ "destination": target, "type": kind, "source": kind, "options": options });
    let bind = |source: &str, target: &str, options: &[&str]| json!({ "destination": target, "type": "bind", "source": source, "options": options });
    let access = if privileged { "rw" } else { "ro" };
    let mut list = vec![
        mount("proc", "/proc", &["nosuid", "noexec", "nodev"]),
        mount("tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("devpts", "/dev/pts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        mount("sysfs", "/sys", &["nosuid", "noexec", "nodev", access]),
    ];
    match Layout::of_this_machine() {
        Layout::V2(_) => {
            list.push(mount("cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", "relatime", access]))
        }
        Layout::V1(hierarchies) => {
            // libcontainer mounts v1 hierarchies writable whatever the options say: root in a container raised its own
            // memory limit. So each is bound here, read-only for real, at the name or names programs look for.
            list.push(mount("tmpfs", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", "mode=755"]));
            for (controllers, at) in hierarchies {
                let source = at.join(config.cgroup.trim_start_matches('/'));
                let source = source.to_string_lossy();
                let mut names: BTreeSet<&str> = controllers.iter().map(String::as_str).collect();
                names.extend(at.file_name().and_then(|name| name.to_str()));
                for name in names {
                    list.push(bind(
                        &source,
                        &format!("/sys/fs/cgroup/{name}"),
                        &["bind", "nosuid", "noexec", "nodev", access],
                    ));
                }
            }
        }
    }
    let taken = |target: &str| spec.mounts.iter().any(|mount| Path::new(&mount.target) == Path::new(target));
    if matches!(spec.namespaces.ipc, NamespaceMode::Host) {
        for target in ["/dev/mqueue", "/dev/shm"] {
            if !taken(target) && Path::new(target).exists() {
                list.push(bind(target, target, &["bind", "nosuid", "noexec", "nodev"]));
            }
        }
    } else {
        if !taken("/dev/mqueue") {
            list.push(mount("mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]));
        }
        if !taken("/dev/shm") {
            list.push(match config.joins.ipc {
                // The runner brings it there: for the processes of one namespace it must be one and the same.
                Some(_) => {
                    let source = shared_memory(&config.run_dir);
                    bind(&source.to_string_lossy(), "/dev/shm", &["bind", "nosuid", "noexec", "nodev"])
                }
                None => {
                    let size = format!("size={}", if spec.shm_size == 0 { 64 << 20 } else { spec.shm_size });
                    let mut shm = mount("tmpfs", "/dev/shm", &["nosuid", "noexec", "nodev", "mode=1777", &size]);
                    shm["source"] = json!("shm");
                    shm
                }
            });
        }
    }
    for own in spec.mounts.iter().filter(|mount| below_dev(&mount.target)) {
        let access = if own.read_only { "ro" } else { "rw" };
        list.push(match &own.source {
            // Refused by `check`.
            MountSource::Subpath { .. } => continue,
            MountSource::Bind { path, recursive, .. } => {
                let mut options = vec![if *recursive { "rbind" } else { "bind" }, access];
                if own.read_only {
                    // What is mounted below it too.
                    options.push("rro");
                }
                if !spec.security.privileged && !brings_devices(path) {
                    options.push("rnodev");
                }
                bind(&path.to_string_lossy(), &own.target, &options)
            }
            MountSource::Tmpfs { size, mode, .. } => {
                let (size, mode) =
                    (size.map(|size| format!("size={size}")), format!("mode={:o}", mode.unwrap_or(0o1777)));
                let mut options = vec!["nosuid", "noexec", "nodev", access, &mode];
                options.extend(size.as_deref());
                mount("tmpfs", &own.target, &options)
            }
        });
    }
    Value::Array(list)
}

/// Where the `/dev/shm` of a container whose IPC namespace is joined is mounted, for the runner alone to see.
pub fn shared_memory(run_dir: &Path) -> PathBuf {
    run_dir.join("shm")
}

/// Whether the machine's device nodes are in what is mounted from `source`: they were meant to be used.
pub fn brings_devices(source: &Path) -> bool {
    let devices = Path::new("/dev");
    source.starts_with(devices) || devices.starts_with(source)
}

/// Whether a mount must wait until `/dev` is there, and is therefore libcontainer's.
pub fn below_dev(target: &str) -> bool {
    Path::new(target).starts_with("/dev")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_caps(add: &[&str], drop: &[&str], available: u64, expected: Option<(&[&str], &[&str])>) {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let security = Security { cap_add: list(add), cap_drop: list(drop), ..Security::default() };
        match (capabilities(&security, available), expected) {
            (Ok(set), Some((with, without))) => {
                assert!(with.iter().all(|name| set.contains(*name)), "{add:?} {drop:?} {set:?}");
                assert!(without.iter().all(|name| !set.contains(*name)), "{add:?} {drop:?} {set:?}");
            }
            (Err(_), None) => {}
            (got, _) => panic!("{add:?} {drop:?} {got:?}"),
        }
    }

    #[test]
    fn capabilities_are_dockers() {
        check_caps(&[], &[], u64::MAX, Some((&["CHOWN", "NET_RAW"], &["SYS_ADMIN", "NET_ADMIN"])));
        check_caps(&["NET_ADMIN"], &["ALL"], u64::MAX, Some((&["NET_ADMIN"], &["CHOWN"])));
        check_caps(&["ALL"], &["SYS_ADMIN"], u64::MAX, Some((&["SYS_TIME"], &["SYS_ADMIN"])));
        check_caps(&["CAP_SYS_TIME"], &[], u64::MAX, Some((&["SYS_TIME"], &[])));
        check_caps(&["SYS_RESOURCE"], &[], !(1 << 24), None);
        check_caps(&["NONSENSE"], &[], u64::MAX, None);
    }

    #[test]
    fn mounts_below_dev_do_not_lie_in_each_other() {
        assert_eq!(nested_in_dev(&["/data", "/data/in", "/dev/shm", "/dev/a", "/dev/ab"]), None);
        assert_eq!(nested_in_dev(&["/dev/a/b/c", "/data", "/dev/a"]), Some(("/dev/a", "/dev/a/b/c")));
        assert_eq!(nested_in_dev(&["/dev/shm", "/dev/shm/x"]), Some(("/dev/shm", "/dev/shm/x")));
    }

    #[test]
    fn targets_over_the_kernels_files_are_refused() {
        for bad in
            ["/", "//", "/proc", "/proc/sys/kernel", "//proc/1", "/sys/fs/cgroup", "/a/../proc", "relative", "/dev"]
        {
            assert!(check_target(bad).is_err(), "{bad}");
        }
        for good in ["/data", "/procfs", "/dev/shm", "/etc/hosts"] {
            assert!(check_target(good).is_ok(), "{good}");
        }
    }
}
