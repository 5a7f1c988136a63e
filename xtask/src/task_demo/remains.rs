//! What an engine could leave on a machine, listed before and after.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::house;

/// The kernel clears a network namespace away a little after its last process.
const PATIENCE: Duration = Duration::from_secs(10);

/// Programs of ours; whatever else runs on the machine comes and goes as it likes.
const OURS: [&str; 4] = ["biremed", "bireme", "bireme-runner", "bireme-wasm-host"];

#[derive(PartialEq, Eq)]
pub(super) struct Remains(BTreeSet<String>);

impl Remains {
    /// Lists processes of ours, bridges and veths, mounts, control groups and firewall tables.
    ///
    /// # Errors
    /// When the firewall's tables cannot be listed although the program for it is there.
    pub(super) fn look() -> Result<Self> {
        let mut all = BTreeSet::new();
        for process in names("/proc").filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) {
            let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
            // The kernel cuts names at 15 bytes.
            if OURS.iter().any(|ours| name.trim() == &ours[..ours.len().min(15)]) {
                all.insert(format!("process {process}: {}", name.trim()));
            }
        }
        all.extend(names("/sys/class/net").map(|link| format!("network link {link}")));
        all.extend(names("/run/netns").map(|namespace| format!("network namespace {namespace}")));
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        all.extend(mounts.lines().filter_map(|line| Some(format!("mount {}", line.split(' ').nth(4)?))));
        groups(Path::new("/sys/fs/cgroup"), 4, &mut all);
        if house::has("nft") {
            let tables = house::output(house::program("nft").args(["list", "tables"]).stderr(Stdio::null()))?;
            all.extend(tables.lines().map(|table| format!("nft {table}")));
        }
        Ok(Self(all))
    }

    /// Waits until nothing is there that was not there at this look.
    ///
    /// # Errors
    /// Names all that remains.
    pub(super) fn must_be_all(&self) -> Result<()> {
        let patience = Instant::now() + PATIENCE;
        loop {
            let new: Vec<String> = Self::look()?.0.difference(&self.0).cloned().collect();
            if new.is_empty() {
                return Ok(());
            }
            if Instant::now() > patience {
                bail!("this remains after everything was taken down:\n  {}", new.join("\n  "));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn names(folder: &str) -> impl Iterator<Item = String> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
}

/// Control groups, down to `depth` folders.
fn groups(folder: &Path, depth: u8, all: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            all.insert(format!("control group {}", entry.path().display()));
            if depth > 1 {
                groups(&entry.path(), depth - 1, all);
            }
        }
    }
}
