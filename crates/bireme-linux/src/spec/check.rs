//! What is refused before anything is made, and what is warned of.

use std::collections::BTreeSet;

use bireme_core::WorkloadSpec;
use bireme_core::linux_names::{docker_limits, limit_number};
use bireme_core::spec::{MountSource, NamespaceMode, NetworkMode, Resources};

use super::capabilities::capabilities;
use super::targets::{below_dev, check_target, has_dots, nested_in_dev};
use super::{devices, invalid, seccomp};
use crate::cgroup::Layout;
use crate::limits;
use crate::protocol::Failure;

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
            MountSource::Layers { .. } if below_dev(&mount.target) => {
                return Err(invalid(format!(
                    "mount target {}: files of an image cannot be mounted below /dev; mount them elsewhere",
                    mount.target
                )));
            }
            MountSource::Bind { .. }
            | MountSource::Subpath { .. }
            | MountSource::Layers { .. }
            | MountSource::Tmpfs { .. } => {}
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
        if limit_number(&limit.name).is_none() {
            return Err(invalid(format!("unknown ulimit {:?}: use one of {}", limit.name, docker_limits().join(", "))));
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
