//! Which hierarchies of cgroups this machine has.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

const ROOT: &str = "/sys/fs/cgroup";

/// How this machine's cgroups are laid out. Hybrid counts as v1: there the controllers are v1's.
#[derive(Clone, Debug)]
pub enum Layout {
    /// Each hierarchy: its controllers and where it is mounted.
    V1(Vec<(Vec<String>, PathBuf)>),
    /// One hierarchy with every controller, and where it is mounted.
    V2(PathBuf),
}

impl Layout {
    /// What is mounted here; looked up once per process.
    pub fn of_this_machine() -> &'static Self {
        static LAYOUT: OnceLock<Layout> = OnceLock::new();
        LAYOUT.get_or_init(|| {
            let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
            Self::parse(&mounts)
        })
    }

    fn parse(mounts: &str) -> Self {
        let mut hierarchies = Vec::new();
        for line in mounts.lines() {
            let mut fields = line.split(' ').skip(1);
            let (Some(at), Some(kind), Some(options)) = (fields.next(), fields.next(), fields.next()) else { continue };
            let at = PathBuf::from(at);
            match kind {
                "cgroup2" if at == Path::new(ROOT) => return Self::V2(at),
                "cgroup" if at.starts_with(ROOT) => {
                    let known = |option: &&str| {
                        let listed = ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"];
                        listed.contains(option)
                            || ["net_cls", "net_prio", "perf_event", "hugetlb", "rdma", "misc"].contains(option)
                    };
                    let controllers: Vec<String> = options.split(',').filter(known).map(str::to_owned).collect();
                    if !controllers.is_empty() && !hierarchies.iter().any(|(known, _)| *known == controllers) {
                        hierarchies.push((controllers, at));
                    }
                }
                _ => {}
            }
        }
        if hierarchies.is_empty() { Self::V2(PathBuf::from(ROOT)) } else { Self::V1(hierarchies) }
    }

    /// Where the hierarchies are mounted.
    pub fn roots(&self) -> Vec<&Path> {
        match self {
            Self::V1(hierarchies) => hierarchies.iter().map(|(_, at)| at.as_path()).collect(),
            Self::V2(at) => vec![at],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_layouts_apart() {
        let v2 = Layout::parse("cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n");
        assert!(matches!(v2, Layout::V2(_)));
        let hybrid = Layout::parse(
            "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n\
             cgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n",
        );
        let Layout::V1(hierarchies) = hybrid else { panic!("{hybrid:?}") };
        assert_eq!(hierarchies.len(), 1);
        assert_eq!(hierarchies[0].0, ["cpu", "cpuacct"]);
    }
}
