//! The few things we do with cgroups ourselves, on v1, hybrid and v2: read counters, freeze, end, remove.
//!
//! Limits are set by libcontainer when it makes the container, and changed by [`crate::limits`]. What is here works from
//! plain files, so the daemon may use it too, for example to end what a killed runner left.

mod layout;
mod stats;
mod walk;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

pub use self::layout::Layout;

use self::walk::{collect, remove_tree};

/// How long one walk takes at most to find processes, and to remove cgroups: there may be any number, and be made faster than
/// they are seen.
const FOUND_WITHIN: Duration = Duration::from_millis(100);
const REMOVED_WITHIN: Duration = Duration::from_secs(5);

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
#[cfg(feature = "executor")]
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
            whole &= collect(&dir, Instant::now() + FOUND_WITHIN, &mut all);
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
                if let Err(error) = remove_tree(&dir, Instant::now() + REMOVED_WITHIN) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_flat_keyed_files() {
        assert_eq!(value("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "oom_kill"), Some(3));
        assert_eq!(value("", "oom_kill"), None);
    }
}
