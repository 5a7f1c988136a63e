//! What one command costs: time, processor time and memory, of itself or of the daemons that work for it.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::sample::{Samples, figure};

/// What something took once.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cost {
    /// Seconds.
    pub(crate) wall: f64,
    /// Seconds, of the command with its children and of the daemons with theirs.
    pub(crate) processor: f64,
    /// Mebibytes that were resident at most: of the daemons together, or of the command where there are none.
    pub(crate) peak: f64,
}

impl Cost {
    /// Of this and then the other.
    pub(crate) fn then(self, other: Self) -> Self {
        Self {
            wall: self.wall + other.wall,
            processor: self.processor + other.processor,
            peak: self.peak.max(other.peak),
        }
    }
}

/// The costs of all rounds.
#[derive(Default)]
pub(crate) struct Costs {
    wall: Samples,
    processor: Samples,
    peak: Samples,
}

impl Costs {
    pub(crate) fn add(&mut self, cost: Cost) {
        self.wall.add(cost.wall);
        self.processor.add(cost.processor);
        self.peak.add(cost.peak);
    }

    /// Wall time, processor time and memory for a table.
    pub(crate) fn told(&self) -> [String; 3] {
        [self.wall.told(), figure(self.processor.median()), figure(self.peak.median())]
    }

    /// Seconds.
    pub(crate) fn wall(&self) -> f64 {
        self.wall.median()
    }
}

/// Runs a command to its end; `daemons` are the processes that work for it.
///
/// # Panics
/// When it fails.
pub(crate) fn cost(command: &mut Command, daemons: &[u32]) -> Cost {
    for daemon in daemons {
        // From here on the most that is resident counts anew. Source: proc_pid_clear_refs(5).
        std::fs::write(format!("/proc/{daemon}/clear_refs"), "5").expect("root may have peaks of memory counted anew");
    }
    let spent = || daemons.iter().map(|pid| ticks(*pid, 11..15)).sum::<f64>() + ticks(std::process::id(), 13..15);
    let (before, began) = (spent(), Instant::now());
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (pid, ended) = (child.id(), AtomicBool::new(false));
    let (status, wall, own) = std::thread::scope(|scope| {
        let own = scope.spawn(|| {
            let mut most: f64 = 0.0;
            while !ended.load(Ordering::Relaxed) {
                most = most.max(peak(pid));
                std::thread::sleep(Duration::from_millis(20));
            }
            most
        });
        let status = child.wait().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let wall = began.elapsed().as_secs_f64();
        ended.store(true, Ordering::Relaxed);
        (status, wall, own.join().unwrap_or(f64::NAN))
    });
    assert!(status.success(), "{command:?} ended with {status}");
    let theirs: f64 = daemons.iter().map(|daemon| peak(*daemon)).sum();
    Cost { wall, processor: spent() - before, peak: if daemons.is_empty() { own } else { theirs } }
}

/// Mebibytes of a process that were resident at most; 0 where it has ended.
fn peak(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|word| word.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

/// Seconds in some of the fields of proc_pid_stat(5), counted from the state: 11 and 12 are the process's own processor
/// time, 13 and 14 that of its children that have ended.
fn ticks(pid: u32, fields: std::ops::Range<usize>) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let all: Vec<u64> = rest.split_whitespace().map(|word| word.parse().unwrap_or(0)).collect();
    all.get(fields).unwrap_or_default().iter().sum::<u64>() as f64 / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_costs_what_it_uses() {
        let busy = cost(Command::new("sh").args(["-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"]), &[]);
        assert!(busy.processor > 0.02 && busy.wall >= busy.processor / 2.0, "{} {}", busy.processor, busy.wall);
        let idle = cost(Command::new("sleep").arg("0.2"), &[]);
        assert!(idle.wall >= 0.2 && idle.processor < 0.1 && idle.peak > 0.1, "{} {}", idle.processor, idle.peak);
        let both = busy.then(idle);
        assert!(both.wall >= busy.wall + 0.2 && both.peak >= idle.peak);
    }
}
