//! The machine: what `info` tells and what `stats` compares with. Read from /proc.

use rustix::system::uname;

/// What does not change while the daemon runs.
#[derive(Clone, Debug)]
pub struct Host {
    pub name: String,
    pub kernel: String,
    /// As uname(2) has it: `x86_64`.
    pub machine: String,
    /// `Debian GNU/Linux 12 (bookworm)`
    pub system: String,
    pub system_version: String,
    pub processors: u32,
    /// Bytes.
    pub memory: u64,
    pub cgroup_version: &'static str,
}

impl Host {
    /// Reads it all; what cannot be read stays empty.
    pub fn read() -> Self {
        let names = uname();
        let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        let field = |name: &str| {
            let line = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.unwrap_or_default().trim_matches('"').to_owned()
        };
        Self {
            name: names.nodename().to_string_lossy().into_owned(),
            kernel: names.release().to_string_lossy().into_owned(),
            machine: names.machine().to_string_lossy().into_owned(),
            system: field("PRETTY_NAME"),
            system_version: field("VERSION_ID"),
            processors: std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1)),
            memory: memory_total(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default()),
            cgroup_version: if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { "2" } else { "1" },
        }
    }

    /// Processor time of the whole machine since its start, in nanoseconds; 0 when it cannot be read.
    pub fn system_cpu(&self) -> u64 {
        system_cpu(&std::fs::read_to_string("/proc/stat").unwrap_or_default())
    }
}

fn memory_total(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default() * 1024
}

/// The first seven numbers of the `cpu` line, in ticks of a hundredth of a second. Source: proc_stat(5), and moby's
/// `getSystemCPUUsage`, whose number the CLI divides by.
fn system_cpu(stat: &str) -> u64 {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "));
    let ticks: u64 =
        line.into_iter().flat_map(str::split_whitespace).take(7).filter_map(|number| number.parse::<u64>().ok()).sum();
    ticks * 10_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_understood() {
        assert_eq!(memory_total("MemTotal:       24683848 kB\nMemFree: 1 kB\n"), 24_683_848 * 1024);
        assert_eq!(system_cpu("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 1\n"), 28 * 10_000_000);
        assert!(Host::read().processors >= 1);
    }
}
