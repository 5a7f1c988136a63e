//! What an engine costs the machine at one moment, in memory, descriptors and things that carry its name.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bireme_testing::Engine;

/// Memory, descriptors and threads of one process, or of several together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    pub(crate) resident_kib: u64,
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
}

impl Cost {
    /// Of a process that runs; nothing of one that is gone.
    pub(crate) fn of(pid: u32) -> Self {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let status = std::fs::read_to_string(process.join("status")).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
        let count = |folder: &str| std::fs::read_dir(process.join(folder)).map_or(0, Iterator::count);
        Self {
            resident_kib: resident.trim().trim_end_matches(" kB").parse().unwrap_or(0),
            descriptors: count("fd"),
            threads: count("task"),
        }
    }
}

/// What is there of an engine at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) seconds: u64,
    pub(crate) rounds: usize,
    pub(crate) daemon: Cost,
    /// The process in which the components of the app that stays up are run.
    pub(crate) host: Cost,
    pub(crate) processes: usize,
    pub(crate) mounts: usize,
    /// Files and folders below the exec root: sockets, locks, records of what runs.
    pub(crate) exec_files: usize,
    pub(crate) state_kib: u64,
    pub(crate) rules: usize,
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seconds, rounds, daemon, host, processes, mounts, exec_files, state_kib, rules } = self;
        let (memory, descriptors, threads) = (daemon.resident_kib >> 10, daemon.descriptors, daemon.threads);
        let (host_memory, host_descriptors) = (host.resident_kib >> 10, host.descriptors);
        write!(
            f,
            "| {seconds} | {rounds} | {memory} | {descriptors} | {threads} | {host_memory} | {host_descriptors} | \
             {processes} | {mounts} | {exec_files} | {state_kib} | {rules} |"
        )
    }
}

/// The columns of [`Reading`].
pub(crate) const COLUMNS: &str = "| s | rounds | biremed MiB | descriptors | threads | host MiB | descriptors | processes | mounts | \
                                  exec files | databases KiB | nft lines |\n\
                                  |---|---|---|---|---|---|---|---|---|---|---|---|";

pub(crate) struct Meter {
    began: Instant,
    folder: PathBuf,
    exec_root: PathBuf,
    data_root: PathBuf,
    instance: String,
    daemon: u32,
    host: Option<u32>,
}

impl Meter {
    pub(crate) fn of(engine: &Engine, host: Option<u32>) -> Self {
        Self {
            began: Instant::now(),
            folder: engine.folder().to_owned(),
            exec_root: engine.exec_root(),
            data_root: engine.data_root(),
            instance: engine.instance(),
            daemon: engine.pid(),
            host,
        }
    }

    pub(crate) fn read(&self, rounds: usize) -> Reading {
        let folder = self.folder.to_string_lossy().into_owned();
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        Reading {
            seconds: self.began.elapsed().as_secs(),
            rounds,
            daemon: Cost::of(self.daemon),
            host: self.host.map(Cost::of).unwrap_or_default(),
            processes: processes_of(&folder).len(),
            mounts: mounts.lines().filter(|line| line.contains(&folder)).count(),
            exec_files: files_below(&self.exec_root),
            state_kib: databases(&self.data_root) >> 10,
            rules: self.rules(),
        }
    }

    fn rules(&self) -> usize {
        let tables = std::process::Command::new("nft").args(["list", "ruleset"]).output();
        let text = tables.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        // Tables begin at the line's start and end with a brace there.
        let mut own = false;
        text.lines()
            .filter(|line| {
                if line.starts_with("table ") {
                    own = line.contains(&self.instance);
                }
                own
            })
            .count()
    }
}

/// Processes whose command line names `folder`, with that line.
pub(crate) fn processes_of(folder: &str) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(folder) {
            found.push((pid, line));
        }
    }
    found
}

/// Folders that go while they are read count as empty.
fn files_below(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            // Layers and roots of containers are mounts: what is in them is not the engine's.
            Ok(kind) if kind.is_dir() && entry.file_name() != "rootfs" => 1 + files_below(&entry.path()),
            _ => 1,
        })
        .sum()
}

/// Bytes of the databases of the data root, of its images, and of their logs.
fn databases(root: &Path) -> u64 {
    let folders = [root.to_owned(), root.join("images")];
    let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten());
    let named = entries.filter(|entry| entry.file_name().to_string_lossy().contains(".db"));
    named.filter_map(|entry| entry.metadata().ok()).filter(std::fs::Metadata::is_file).map(|data| data.len()).sum()
}
