//! The cgroup of a sandbox: `<hierarchy>/bireme-<instance>-w/<sandbox>` in every hierarchy that is there.

use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";
/// cgroup v1 controllers worth accounting. `cpuset` is left out: it refuses members until it is filled in.
const CONTROLLERS: [&str; 5] = ["memory", "cpu,cpuacct", "pids", "blkio", "freezer"];

/// Folders of the cgroup `name`, one per hierarchy of this machine (v1, hybrid or v2).
pub fn folders(name: &Path) -> Vec<PathBuf> {
    let root = Path::new(ROOT);
    if root.join("cgroup.controllers").exists() {
        return vec![root.join(name)];
    }
    let mut found: Vec<PathBuf> = CONTROLLERS.iter().map(|c| root.join(c)).filter(|p| p.is_dir()).collect();
    if !root.join("cpu,cpuacct").is_dir() {
        found.extend(["cpu", "cpuacct"].iter().map(|c| root.join(c)).filter(|p| p.is_dir()));
    }
    found.extend([root.join("unified")].into_iter().filter(|p| p.join("cgroup.controllers").exists()));
    found.into_iter().map(|p| p.join(name)).collect()
}

/// Removes the cgroup `name` from every hierarchy. Its parent stays, as another sandbox may be about to make its own there.
pub fn remove(name: &Path) {
    for folder in folders(name) {
        if let Err(error) = fs::remove_dir(&folder)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::debug!(folder = %folder.display(), %error, "cgroup not removed");
        }
    }
}

/// The processes in the cgroup `name`.
pub fn members(name: &Path) -> Vec<u32> {
    folders(name)
        .first()
        .and_then(|folder| fs::read_to_string(folder.join("cgroup.procs")).ok())
        .map(|text| text.lines().filter_map(|line| line.parse().ok()).collect())
        .unwrap_or_default()
}

/// Lets the processes in the cgroup `name` have at most `bytes` of memory together, swap included where the kernel counts
/// it. Does what can be done: a controller that is not there limits nothing.
pub fn limit_memory(name: &Path, bytes: u64) {
    for folder in folders(name) {
        if folder.join("cgroup.controllers").exists() && !folder.join("memory.max").exists() {
            // cgroup v2: a controller is there where every cgroup above passes it on.
            for above in
                folder.ancestors().skip(1).take(name.components().count()).collect::<Vec<_>>().into_iter().rev()
            {
                let _ = fs::write(above.join("cgroup.subtree_control"), "+memory");
            }
        }
        for file in ["memory.max", "memory.limit_in_bytes"] {
            let file = folder.join(file);
            if !file.exists() {
                continue;
            }
            // Fails while more than that is in use, which is less than was allowed before.
            if let Err(error) = fs::write(&file, bytes.to_string()) {
                tracing::debug!(file = %file.display(), bytes, %error, "the memory of a host is not limited anew");
            }
        }
    }
}
