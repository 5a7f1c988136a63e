//! From a [`WorkloadSpec`](bireme_core::WorkloadSpec) to an OCI runtime specification, Docker's defaults included.
//!
//! The user's own mounts are not in it: the runner puts them into the root filesystem before libcontainer mounts `/proc`
//! and its kin over them, so that none of them can ever lie over `/proc` (CVE-2025-52881).

mod capabilities;
mod check;
mod devices;
mod environment;
mod mounts;
mod resources;
mod seccomp;
mod targets;

use std::path::Path;

use bireme_core::ErrorKind;
use bireme_core::spec::{MountSource, NamespaceMode, Propagation, Seccomp};
use serde_json::{Value, json};

pub use self::capabilities::capabilities;
pub use self::check::{check, warnings};
pub use self::environment::environment;
pub use self::mounts::shared_memory;
pub use self::targets::{below_dev, brings_devices, check_target, is_kernels, plain};

use crate::cgroup::Layout;
use crate::protocol::{Failure, RunnerConfig};
use crate::users::User;

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

/// What the runner found out before the specification is written.
pub struct Found<'a> {
    /// Who init runs as, as found in the container's own files.
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
        "resources": resources::of(spec, devices.rules),
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
        "mounts": mounts::of(config),
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

fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(ErrorKind::Invalid, message)
}
