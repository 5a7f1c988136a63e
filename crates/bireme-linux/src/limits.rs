//! Limits as files of a cgroup: what each has to hold, on v1 and v2, and how to change them while processes run.
//!
//! At create it is libcontainer that sets them; here is what `update` needs.

use std::io;
use std::path::Path;

use bireme_core::spec::Resources;
use rustix::fs::{major, minor, stat};

use crate::cgroup::{Cgroup, Layout};

/// One file of a cgroup and what it shall hold.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    controller: &'static str,
    file: &'static str,
    text: String,
}

/// Bytes of memory and swap together; -1 without limit. Docker's default is as much swap again as there is memory.
pub fn memory_and_swap(limits: &Resources) -> i64 {
    match (limits.memory.filter(|limit| *limit > 0), limits.memory_swap) {
        (None, _) => -1,
        (Some(limit), None | Some(0)) => i64::try_from(limit.saturating_mul(2)).unwrap_or(i64::MAX),
        (Some(_), Some(swap)) => swap,
    }
}

/// Period and quota of processor time in microseconds; a quota of -1 is without limit.
pub fn processor_time(limits: &Resources) -> (u64, i64) {
    const PERIOD: u64 = 100_000;
    match limits.nano_cpus.filter(|cpus| *cpus > 0) {
        Some(nanos) => (PERIOD, i64::try_from((nanos / 10_000).max(1000)).unwrap_or(i64::MAX)),
        None => (
            limits.cpu_period.filter(|period| *period != 0).unwrap_or(PERIOD),
            limits.cpu_quota.filter(|quota| *quota != 0).unwrap_or(-1),
        ),
    }
}

/// Whether this machine counts swap: without, a limit of memory and swap together has no effect.
pub fn counts_swap() -> bool {
    match Layout::of_this_machine() {
        Layout::V1(hierarchies) => hierarchies
            .iter()
            .filter(|(controllers, _)| controllers.iter().any(|name| name == "memory"))
            .any(|(_, at)| at.join("memory.memsw.limit_in_bytes").exists()),
        Layout::V2(_) => true,
    }
}

/// Every file that limits say something about, in the order in which v1 takes them when a limit is raised. Pure.
fn settings(limits: &Resources, v2: bool, swap: bool) -> Vec<Setting> {
    let mut all = Vec::new();
    let mut set = |controller, file, text: String| all.push(Setting { controller, file, text });
    let (period, quota) = processor_time(limits);
    let memory = limits.memory.filter(|limit| *limit > 0);
    let both = memory_and_swap(limits);
    let shares = limits.cpu_shares.filter(|shares| *shares > 0).unwrap_or(1024);
    let most = |limit: Option<u64>| limit.map_or_else(|| "max".to_owned(), |limit| limit.to_string());
    let least = |limit: Option<u64>| limit.map_or_else(|| "-1".to_owned(), |limit| limit.to_string());
    if v2 {
        let swap = memory.and_then(|memory| u64::try_from(both).ok().map(|both| both.saturating_sub(memory)));
        set("memory", "memory.swap.max", most(swap));
        set("memory", "memory.max", most(memory));
        set("memory", "memory.low", limits.memory_reservation.unwrap_or(0).to_string());
        let quota = if quota > 0 { quota.to_string() } else { "max".to_owned() };
        set("cpu", "cpu.max", format!("{quota} {period}"));
        // Of 2 to 262144 shares to a weight of 1 to 10000. Source: runc's ConvertCPUSharesToCgroupV2Value.
        let weight =
            if shares == 1024 { 100 } else { 1 + (shares.clamp(2, 262_144) - 2).saturating_mul(9999) / 262_142 };
        set("cpu", "cpu.weight", weight.to_string());
        if let Some(weight) = limits.blkio.weight {
            set("blkio", "io.weight", format!("default {weight}"));
        }
    } else {
        if swap {
            set("memory", "memory.memsw.limit_in_bytes", both.to_string());
        }
        set("memory", "memory.limit_in_bytes", least(memory));
        set("memory", "memory.soft_limit_in_bytes", least(limits.memory_reservation));
        set("cpu", "cpu.cfs_period_us", period.to_string());
        set("cpu", "cpu.cfs_quota_us", quota.max(-1).to_string());
        set("cpu", "cpu.shares", shares.to_string());
        if let Some(weight) = limits.blkio.weight {
            set("blkio", "blkio.weight", weight.to_string());
        }
    }
    if let Some(cpus) = limits.cpuset.clone() {
        set("cpuset", "cpuset.cpus", cpus);
    }
    if let Some(mems) = limits.cpuset_mems.clone() {
        set("cpuset", "cpuset.mems", mems);
    }
    set("pids", "pids.max", limits.pids.filter(|pids| *pids > 0).map_or_else(|| "max".to_owned(), |n| n.to_string()));
    all
}

/// What to write, in order, to come from `from` to `to`. Pure.
fn changes(from: &Resources, to: &Resources, v2: bool, swap: bool) -> Vec<Setting> {
    let before = settings(from, v2, swap);
    let mut all: Vec<Setting> =
        settings(to, v2, swap).into_iter().filter(|setting| !before.contains(setting)).collect();
    // v1 holds memory at or below memory and swap together at every moment: what grows is set from the outer to the
    // inner limit, what shrinks from the inner to the outer.
    let room = |limits: &Resources| u64::try_from(memory_and_swap(limits)).unwrap_or(u64::MAX);
    if room(to) < room(from) {
        all.sort_by_key(|setting| setting.file == "memory.memsw.limit_in_bytes");
    }
    all
}

impl Cgroup {
    /// Brings the limits from `from` to `to`; what is the same in both is not touched. On error everything is put back.
    ///
    /// # Errors
    /// Those of the kernel, with the file and the value it refused.
    pub fn limit(&self, from: &Resources, to: &Resources) -> io::Result<()> {
        let v2 = matches!(Layout::of_this_machine(), Layout::V2(_));
        let write = |setting: &Setting| {
            let dir = self.dir(setting.controller).ok_or_else(|| {
                io::Error::new(io::ErrorKind::Unsupported, format!("this machine has no {} cgroup", setting.controller))
            })?;
            let file = dir.join(setting.file);
            // Some kernels have no weights of block devices: what cannot be counted cannot be limited (a warning told).
            if setting.controller == "blkio" && !file.exists() {
                return Ok(());
            }
            std::fs::write(&file, &setting.text).map_err(|error| {
                io::Error::new(error.kind(), format!("failed to write {:?} to {}: {error}", setting.text, setting.file))
            })
        };
        let wanted = changes(from, to, v2, counts_swap());
        for (at, setting) in wanted.iter().enumerate() {
            if let Err(error) = write(setting) {
                let done: Vec<&str> = wanted[..at].iter().map(|setting| setting.file).collect();
                for setting in changes(to, from, v2, counts_swap()).iter().filter(|back| done.contains(&back.file)) {
                    let _ = write(setting);
                }
                return Err(error);
            }
        }
        Ok(())
    }
}

impl Cgroup {
    /// Has processes that reach the memory limit wait rather than end; v2 knows no such thing.
    ///
    /// # Errors
    /// Those of writing the file.
    pub fn disable_oom_killer(&self) -> io::Result<()> {
        match (Layout::of_this_machine(), self.dir("memory")) {
            (Layout::V1(_), Some(dir)) => std::fs::write(dir.join("memory.oom_control"), "1"),
            _ => Ok(()),
        }
    }
}

/// A list of processors or memory nodes such as `0-2,4`; `None` when it is none.
pub fn parse_list(text: &str) -> Option<Vec<u32>> {
    let mut all = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        // No machine has more; a list is not to fill the memory.
        if first > last || last > 1 << 16 {
            return None;
        }
        all.extend(first..=last);
    }
    Some(all)
}

/// The processors (`cpus`) or memory nodes (`mems`) that cgroups may use here, as the kernel lists them.
pub fn available(what: &str) -> Option<String> {
    let (controller, file) = match Layout::of_this_machine() {
        Layout::V1(_) => ("cpuset", format!("cpuset.{what}")),
        Layout::V2(_) => ("cpuset", format!("cpuset.{what}.effective")),
    };
    let text = std::fs::read_to_string(Cgroup::new("").dir(controller)?.join(file)).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// How many processors this process may run on.
pub fn processors() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    Some(parse_list(line)?.len() as u64)
}

/// Whether block devices can be shared out by weight here.
pub fn has_weights() -> bool {
    match Layout::of_this_machine() {
        Layout::V1(_) => Cgroup::new("").dir("blkio").is_some_and(|dir| dir.join("blkio.weight").exists()),
        Layout::V2(at) => first_below(at).is_some_and(|dir| dir.join("io.weight").exists()),
    }
}

/// The root of v2 has no limits of its own; any cgroup below it shows which files there are.
fn first_below(root: &Path) -> Option<std::path::PathBuf> {
    std::fs::read_dir(root).ok()?.flatten().map(|entry| entry.path()).find(|path| path.is_dir())
}

/// `major:minor` of the device at `path`; `None` when it is none.
pub fn device_number(path: &str) -> Option<(u32, u32)> {
    let number = stat(path).ok()?.st_rdev;
    (number != 0).then(|| (major(number), minor(number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(from: &Resources, to: &Resources, v2: bool, expected: &[(&str, &str)]) {
        let got = changes(from, to, v2, true);
        let got: Vec<(&str, &str)> = got.iter().map(|setting| (setting.file, setting.text.as_str())).collect();
        assert_eq!(got, expected, "{from:?} {to:?}");
    }

    #[test]
    fn only_what_differs_is_written_and_in_an_order_that_the_kernel_takes() {
        let none = Resources::default();
        let memory = |memory, swap| Resources { memory: Some(memory), memory_swap: Some(swap), ..Resources::default() };
        check(&none, &none, false, &[]);
        check(
            &none,
            &memory(64, 128),
            false,
            &[("memory.limit_in_bytes", "64"), ("memory.memsw.limit_in_bytes", "128")],
        );
        check(
            &memory(64, 128),
            &memory(256, 512),
            false,
            &[("memory.memsw.limit_in_bytes", "512"), ("memory.limit_in_bytes", "256")],
        );
        check(&memory(64, 128), &memory(64, -1), false, &[("memory.memsw.limit_in_bytes", "-1")]);
        check(&none, &memory(64, 128), true, &[("memory.swap.max", "64"), ("memory.max", "64")]);
        check(&memory(64, 128), &memory(64, -1), true, &[("memory.swap.max", "max")]);
        let cpus = Resources { nano_cpus: Some(1_500_000_000), pids: Some(20), ..Resources::default() };
        check(&none, &cpus, false, &[("cpu.cfs_quota_us", "150000"), ("pids.max", "20")]);
        check(&cpus, &none, true, &[("cpu.max", "max 100000"), ("pids.max", "max")]);
        let shares = Resources { cpu_shares: Some(2), cpuset: Some("0".to_owned()), ..Resources::default() };
        check(&none, &shares, true, &[("cpu.weight", "1"), ("cpuset.cpus", "0")]);
    }

    #[test]
    fn lists_of_processors_are_read() {
        assert_eq!(parse_list("0-2,4\n"), Some(vec![0, 1, 2, 4]));
        for bad in ["", "x", "2-1", "0-99999999", "1,,2"] {
            assert_eq!(parse_list(bad), None, "{bad}");
        }
    }
}
