//! The mounts every container has, and those of the user's that libcontainer makes: the ones below `/dev`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bireme_core::spec::{MountSource, NamespaceMode};
use serde_json::{Value, json};

use super::targets::{below_dev, brings_devices};
use crate::cgroup::Layout;
use crate::protocol::RunnerConfig;

/// What every container has; what is missing here the runner mounts (see the head of [`crate::spec`]).
pub(super) fn of(config: &RunnerConfig) -> Value {
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
            MountSource::Subpath { .. } | MountSource::Layers { .. } => continue,
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
