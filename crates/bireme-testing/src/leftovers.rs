//! What an engine may leave on a machine, counted.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// Everything on the machine that carries an engine's instance name, or lies in its folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leftovers {
    things: BTreeSet<String>,
}

impl Leftovers {
    /// Links, nft tables and cgroups that carry `instance`.
    pub(crate) fn of(instance: &str) -> Self {
        let mut things = BTreeSet::new();
        for entry in std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.contains(instance) {
                things.insert(format!("link {name}"));
            }
        }
        if let Ok(output) = Command::new("nft").args(["list", "tables"]).output() {
            for line in String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.contains(instance)) {
                things.insert(format!("nft {line}"));
            }
        }
        for root in [
            "/sys/fs/cgroup",
            "/sys/fs/cgroup/memory",
            "/sys/fs/cgroup/pids",
            "/sys/fs/cgroup/cpu",
            "/sys/fs/cgroup/freezer",
            "/sys/fs/cgroup/unified",
        ] {
            for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.contains(instance) {
                    things.insert(format!("cgroup {}", entry.path().display()));
                }
            }
        }
        Self { things }
    }

    /// Also mounts below `folder`, and processes started from it.
    pub(crate) fn in_folder(mut self, folder: &Path) -> Self {
        let folder = folder.to_string_lossy();
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for line in mounts.lines().filter(|line| line.contains(&*folder)) {
            self.things.insert(format!("mount {line}"));
        }
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Ok(command) = std::fs::read(entry.path().join("cmdline")) else { continue };
            let text = String::from_utf8_lossy(&command).replace('\0', " ");
            if text.contains(&*folder) && entry.file_name() != std::process::id().to_string().as_str() {
                self.things.insert(format!("process {} {text}", entry.file_name().to_string_lossy()));
            }
        }
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.things.is_empty()
    }
}
