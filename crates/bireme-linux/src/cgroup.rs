//! The few things we do with cgroups ourselves, on v1, hybrid and v2: read counters, freeze, end, remove.
//!
//! Limits are set by libcontainer when it makes the container, and changed by [`crate::limits`]. What is here works from plain files, so the daemon may
//! use it too, for example to end what a killed runner left.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bireme_core::Stats;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

const ROOT: &str = "/sys/fs/cgroup";

/// How this machine's cgroups are laid out. Hybrid counts as v1: there the controllers are v1's.
#[derive(Clone, Debug)]
pub enum Layout {
    /// Each hierarchy: its controllers and where it is mounted.
    V1(Vec<(Vec<String>, PathBuf)>),
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

/// Makes the moves of processes between cgroups quick that follow within the next 10 ms or so; changes nothing else.
///
/// The first move takes a lock that every fork on the machine shares, and waits until each processor has noticed: 10 to
/// 20 ms. Further ones do not, until the kernel has let go of it. So this process moves to where it is already, while
/// others set up what comes before the real move. Does nothing where that is not permitted.
///
/// Source: `cgroup_threadgroup_rwsem` and `rcu_sync` of the kernel.
pub fn warm() {
    let Ok(own) = fs::read_to_string("/proc/self/cgroup") else { return };
    let place = own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/'));
        let root = match Layout::of_this_machine() {
            Layout::V2(at) => controllers.is_empty().then_some(at)?,
            Layout::V1(all) => all
                .iter()
                .find(|(of, _)| of.iter().any(|of| controllers.split(',').any(|one| one == of)))
                .map(|(_, at)| at)?,
        };
        Some(root.join(path).join("cgroup.procs"))
    });
    if let Some(place) = place {
        let _ = fs::write(place, std::process::id().to_string());
    }
}

/// One cgroup, in every hierarchy.
#[derive(Clone, Debug)]
pub struct Cgroup {
    layout: &'static Layout,
    /// Below each hierarchy's root, without a leading slash.
    path: String,
}

/// All processes of the machine.
fn machine() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The cgroups of processes that are in one with a name that is `meant`, or below it. Blocking.
///
/// Source: cgroups(7), `/proc/PID/cgroup`.
pub(crate) fn called(meant: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for pid in machine() {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        for path in text.lines().filter_map(|line| line.splitn(3, ':').nth(2)) {
            let end = path.split('/').scan(0, |at, name| {
                *at += name.len() + 1;
                Some((*at - 1, name))
            });
            if let Some((end, _)) = end.into_iter().find(|(_, name)| meant(name)) {
                found.insert(path[..end].to_owned());
            }
        }
    }
    found
}

impl Cgroup {
    /// `path` as in [`crate::protocol::RunnerConfig::cgroup`].
    pub fn new(path: &str) -> Self {
        Self { layout: Layout::of_this_machine(), path: path.trim_matches('/').to_owned() }
    }

    /// The folder of one v1 controller, or v2's folder whatever the controller.
    pub(crate) fn dir(&self, controller: &str) -> Option<PathBuf> {
        match self.layout {
            Layout::V1(hierarchies) => hierarchies
                .iter()
                .find(|(controllers, _)| controllers.iter().any(|known| known == controller))
                .map(|(_, at)| at.join(&self.path)),
            Layout::V2(at) => Some(at.join(&self.path)),
        }
    }

    fn dirs(&self) -> impl Iterator<Item = PathBuf> {
        self.layout.roots().into_iter().map(|root| root.join(&self.path))
    }

    /// Its folder where there is no other hierarchy than that of version 2.
    pub fn unified(&self) -> Option<PathBuf> {
        match self.layout {
            Layout::V1(_) => None,
            Layout::V2(at) => Some(at.join(&self.path)),
        }
    }

    fn is_v2(&self) -> bool {
        matches!(self.layout, Layout::V2(_))
    }

    /// Whether any hierarchy has it.
    pub fn exists(&self) -> bool {
        self.dirs().any(|dir| dir.exists())
    }

    /// The names of the cgroups directly below, in any hierarchy.
    pub fn children(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .dirs()
            .flat_map(|dir| subfolders(&dir))
            .filter_map(|dir| dir.file_name().and_then(|name| name.to_str()).map(str::to_owned))
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Every process in it and below it, in any hierarchy, in ascending order.
    pub fn processes(&self) -> Vec<u32> {
        // Only root in a privileged container could have left one hierarchy, so most callers need a single one; but
        // what ends a container must see all.
        let (mut all, mut whole) = (Vec::new(), true);
        for dir in self.dirs() {
            whole &= collect(&dir, &mut all);
        }
        if !whole {
            all.extend(self.processes_by_table());
        }
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The same by the list of all processes of the machine, which is short however many cgroups somebody has made.
    fn processes_by_table(&self) -> Vec<u32> {
        machine().filter(|pid| self.places_of(*pid).next().is_some()).collect()
    }

    /// Where a process is, in it or below it: the controllers of a hierarchy, and the path below its root.
    ///
    /// Source: cgroups(7), `/proc/PID/cgroup`.
    fn places_of(&self, pid: u32) -> impl Iterator<Item = (String, String)> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let places: Vec<_> = text
            .lines()
            .filter_map(|line| {
                let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
                let path = path.trim_start_matches('/');
                let within = path.strip_prefix(&self.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
                within.then(|| (controllers.to_owned(), path.to_owned()))
            })
            .collect();
        places.into_iter()
    }

    /// Moves process `pid` into it, in every hierarchy where it exists.
    ///
    /// # Errors
    /// Those of writing `cgroup.procs`.
    pub fn join(&self, pid: u32) -> io::Result<()> {
        for dir in self.dirs() {
            match fs::write(dir.join("cgroup.procs"), pid.to_string()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && !self.is_v2() => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Stops or continues every process.
    ///
    /// # Errors
    /// Those of writing the freezer's file; `TimedOut` when some process did not stop within two seconds.
    pub fn freeze(&self, frozen: bool) -> io::Result<()> {
        let missing = || io::Error::new(io::ErrorKind::Unsupported, "this machine has no freezer cgroup");
        let dir = self.dir("freezer").ok_or_else(missing)?;
        let (file, text) = if self.is_v2() {
            ("cgroup.freeze", if frozen { "1" } else { "0" })
        } else {
            ("freezer.state", if frozen { "FROZEN" } else { "THAWED" })
        };
        let limit = Instant::now() + Duration::from_secs(2);
        loop {
            fs::write(dir.join(file), text)?;
            let done = if self.is_v2() {
                let events = fs::read_to_string(dir.join("cgroup.events"))?;
                value(&events, "frozen") == Some(u64::from(frozen))
            } else {
                // Of v1 it is documented that FREEZING may need the write to be repeated.
                fs::read_to_string(dir.join(file))?.trim() == text
            };
            if done {
                return Ok(());
            }
            if Instant::now() > limit {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "some process did not stop within two seconds"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends every process that is in it now, frozen or not, without waiting.
    pub fn kill_once(&self) {
        // cgroup.kill cannot be outrun by forks; signals can, so callers repeat this until none is left.
        let v2 = self.is_v2() && self.dirs().all(|dir| fs::write(dir.join("cgroup.kill"), "1").is_ok());
        if v2 {
            return;
        }
        let all = self.processes();
        for pid in &all {
            if let Some(pid) = i32::try_from(*pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        // v1 delivers the signal only once thawed.
        if let Some(dir) = self.dir("freezer") {
            let _ = fs::write(dir.join("freezer.state"), "THAWED");
            self.thaw(&dir, &all);
        }
    }

    /// Thaws the cgroups of `processes` and those above them up to `dir`, which is this one: whoever may make cgroups inside
    /// freezes each by itself. By the processes, as there may be any number of cgroups.
    fn thaw(&self, dir: &Path, processes: &[u32]) {
        let mut thawed = BTreeSet::new();
        for place in processes.iter().flat_map(|pid| self.places_of(*pid)) {
            let (controllers, path) = place;
            let Some(below) =
                path.strip_prefix(&self.path).filter(|_| controllers.split(',').any(|one| one == "freezer"))
            else {
                continue;
            };
            let mut at = dir.to_owned();
            for part in below.split('/').filter(|part| !part.is_empty()) {
                at.push(part);
                if thawed.insert(at.clone()) {
                    let _ = fs::write(at.join("freezer.state"), "THAWED");
                }
            }
        }
    }

    /// Ends every process in it, frozen or not, and waits until none is left.
    ///
    /// # Errors
    /// `TimedOut` when one is still there after `limit`.
    pub fn kill(&self, limit: Duration) -> io::Result<()> {
        let until = Instant::now() + limit;
        let mut pause = Duration::from_micros(200);
        loop {
            let all = self.processes();
            if all.is_empty() {
                return Ok(());
            }
            if Instant::now() > until {
                let message = format!("processes {all:?} did not end");
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
            self.kill_once();
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// Removes it and everything below it from every hierarchy. What is not there is no error.
    ///
    /// # Errors
    /// Those of rmdir(2), after trying for a second: a process that ended lingers there for a moment.
    pub fn remove(&self) -> io::Result<()> {
        let until = Instant::now() + Duration::from_secs(1);
        let mut pause = Duration::from_micros(100);
        loop {
            let mut failed = None;
            for dir in self.dirs() {
                if let Err(error) = remove_tree(&dir) {
                    failed = Some(error);
                }
            }
            match failed {
                None => return Ok(()),
                Some(error) if Instant::now() > until => return Err(error),
                Some(_) => std::thread::sleep(pause),
            }
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// Removes it where nothing is in it and nothing below it.
    pub fn remove_empty(&self) {
        for dir in self.dirs() {
            let _ = fs::remove_dir(dir);
        }
    }

    /// How often the kernel ended a process here because the memory limit was reached.
    pub fn oom_kills(&self) -> u64 {
        let file = if self.is_v2() { "memory.events" } else { "memory.oom_control" };
        self.dir("memory")
            .and_then(|dir| fs::read_to_string(dir.join(file)).ok())
            .and_then(|text| value(&text, "oom_kill"))
            .unwrap_or(0)
    }

    /// Processor, memory, processes and block device counters; the networks are left empty.
    pub fn stats(&self) -> Stats {
        let read = |controller: &str, file: &str| {
            self.dir(controller).and_then(|dir| fs::read_to_string(dir.join(file)).ok()).unwrap_or_default()
        };
        let number = |controller: &str, file: &str| read(controller, file).trim().parse::<u64>().ok();
        let mut stats = Stats {
            pids: number("pids", "pids.current").unwrap_or(0),
            pids_limit: number("pids", "pids.max"),
            ..Stats::default()
        };
        if self.is_v2() {
            let cpu = read("cpu", "cpu.stat");
            let micros = |name| value(&cpu, name).unwrap_or(0) * 1000;
            (stats.cpu_total, stats.cpu_user, stats.cpu_system) =
                (micros("usage_usec"), micros("user_usec"), micros("system_usec"));
            stats.throttled_periods = value(&cpu, "nr_throttled").unwrap_or(0);
            stats.throttled_time = micros("throttled_usec");
            stats.memory_usage = number("memory", "memory.current").unwrap_or(0);
            stats.memory_peak = number("memory", "memory.peak").unwrap_or(0);
            stats.memory_limit = number("memory", "memory.max");
            stats.memory_inactive_file = value(&read("memory", "memory.stat"), "inactive_file").unwrap_or(0);
            for field in read("blkio", "io.stat").split_whitespace() {
                match field.split_once('=') {
                    Some(("rbytes", bytes)) => stats.block_read += bytes.parse().unwrap_or(0),
                    Some(("wbytes", bytes)) => stats.block_write += bytes.parse().unwrap_or(0),
                    _ => {}
                }
            }
        } else {
            let times = read("cpuacct", "cpuacct.stat");
            // In ticks of USER_HZ, which is 100 on every architecture we run on.
            let ticks = |name| value(&times, name).unwrap_or(0) * 10_000_000;
            stats.cpu_total = number("cpuacct", "cpuacct.usage").unwrap_or(0);
            (stats.cpu_user, stats.cpu_system) = (ticks("user"), ticks("system"));
            let throttling = read("cpu", "cpu.stat");
            stats.throttled_periods = value(&throttling, "nr_throttled").unwrap_or(0);
            stats.throttled_time = value(&throttling, "throttled_time").unwrap_or(0);
            stats.memory_usage = number("memory", "memory.usage_in_bytes").unwrap_or(0);
            stats.memory_peak = number("memory", "memory.max_usage_in_bytes").unwrap_or(0);
            // "No limit" is the greatest multiple of the page size.
            stats.memory_limit = number("memory", "memory.limit_in_bytes").filter(|limit| *limit < 1 << 62);
            stats.memory_inactive_file = value(&read("memory", "memory.stat"), "total_inactive_file").unwrap_or(0);
            for line in read("blkio", "blkio.throttle.io_service_bytes").lines() {
                let mut fields = line.split_whitespace().skip(1);
                match (fields.next(), fields.next().and_then(|bytes| bytes.parse::<u64>().ok())) {
                    (Some("Read"), Some(bytes)) => stats.block_read += bytes,
                    (Some("Write"), Some(bytes)) => stats.block_write += bytes,
                    _ => {}
                }
            }
        }
        stats
    }
}

/// The number after `name` in lines of `name number`.
fn value(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

fn subfolders(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// A walk through a cgroup and those below it, however deep: a container that may make cgroups makes paths longer than
/// `PATH_MAX`, and more levels than a process may have open files. So one folder is open at a time, and the way back is `..`,
/// which a cgroup cannot be moved away from.
struct Walk {
    at: OwnedFd,
    /// The names below where it began, and what there is still to see beside the last one.
    way: Vec<(CString, Vec<CString>)>,
}

/// How long one walk takes at most to find processes, and to remove cgroups: there may be any number, and be made faster than
/// they are seen.
const FOUND_WITHIN: Duration = Duration::from_millis(100);
const REMOVED_WITHIN: Duration = Duration::from_secs(5);

impl Walk {
    const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

    /// Calls `arrive` in each cgroup, those above before those below, and `leave` with the name of one that it comes back
    /// from, in the folder above it.
    fn through(
        dir: &Path,
        until: Instant,
        mut arrive: impl FnMut(&OwnedFd),
        mut leave: impl FnMut(&OwnedFd, &CStr) -> io::Result<()>,
    ) -> io::Result<()> {
        let at = openat(CWD, dir, Self::FOLDER, Mode::empty())?;
        arrive(&at);
        let mut beside = Self::below(&at)?;
        let mut walk = Self { at, way: Vec::new() };
        loop {
            if Instant::now() > until {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "there are too many cgroups"));
            }
            if let Some(name) = beside.pop() {
                match openat(&walk.at, &name, Self::FOLDER, Mode::empty()) {
                    Ok(below) => walk.at = below,
                    Err(Errno::NOENT) => continue,
                    Err(error) => return Err(error.into()),
                }
                arrive(&walk.at);
                let next = Self::below(&walk.at)?;
                walk.way.push((name, std::mem::replace(&mut beside, next)));
            } else if let Some((name, others)) = walk.way.pop() {
                walk.at = openat(&walk.at, c"..", Self::FOLDER, Mode::empty())?;
                leave(&walk.at, &name)?;
                beside = others;
            } else {
                return Ok(());
            }
        }
    }

    fn below(folder: &OwnedFd) -> io::Result<Vec<CString>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            if entry.file_type() == FileType::Directory && !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
        }
        Ok(names)
    }
}

/// Answers whether it has seen all.
fn collect(dir: &Path, all: &mut Vec<u32>) -> bool {
    let mut arrive = |folder: &OwnedFd| {
        let Ok(file) = openat(folder, c"cgroup.procs", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else { return };
        let text = io::read_to_string(fs::File::from(file)).unwrap_or_default();
        all.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0));
    };
    let until = Instant::now() + FOUND_WITHIN;
    // Whoever removes one that the walk is in has it begin anew; the others are to be seen as well.
    while let Err(error) = Walk::through(dir, until, &mut arrive, |_, _| Ok(())) {
        if error.kind() != io::ErrorKind::NotFound || Instant::now() > until {
            return false;
        }
        if !dir.exists() {
            return true;
        }
    }
    true
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    let gone = |removed: io::Result<()>| match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    if gone(fs::remove_dir(dir)).is_ok() {
        return Ok(());
    }
    let until = Instant::now() + REMOVED_WITHIN;
    gone(Walk::through(dir, until, |_| {}, |folder, name| gone(Ok(unlinkat(folder, name, AtFlags::REMOVEDIR)?))))?;
    gone(fs::remove_dir(dir))
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

    /// Folders are as good as cgroups here, but that they hold no files when they are removed.
    #[test]
    fn walks_deeper_than_a_path_may_be_long() {
        let temp = tempfile::tempdir().unwrap();
        let top = temp.path().join("top");
        fs::create_dir_all(top.join("beside/below")).unwrap();
        let mut at = openat(CWD, &top, Walk::FOLDER, Mode::empty()).unwrap();
        let name = CString::new("d".repeat(200)).unwrap();
        for _ in 0..2000 {
            rustix::fs::mkdirat(&at, &name, Mode::RWXU).unwrap();
            at = openat(&at, &name, Walk::FOLDER, Mode::empty()).unwrap();
        }
        let procs = openat(&at, c"cgroup.procs", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
        rustix::io::write(&procs, b"17\n0\n").unwrap();
        let mut found = Vec::new();
        // It has its time, which a busy machine may take all of.
        let seen = (0..10).any(|_| {
            found.clear();
            collect(&top, &mut found)
        });
        assert!(seen);
        assert_eq!(found, [17]);
        unlinkat(&at, c"cgroup.procs", AtFlags::empty()).unwrap();
        remove_tree(&top).unwrap();
        assert!(!top.exists());
        remove_tree(&top).unwrap();
    }

    #[test]
    fn reads_flat_keyed_files() {
        assert_eq!(value("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "oom_kill"), Some(3));
        assert_eq!(value("", "oom_kill"), None);
    }
}
