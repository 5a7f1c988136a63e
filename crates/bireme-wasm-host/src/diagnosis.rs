//! Looks into instances while they run, for whoever asks: what they compute, and the state in which one trapped.

use std::collections::HashMap;
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bireme_core::ErrorKind;
use bireme_core::executor::{CoreDump, Profile};
use bireme_wasm::protocol::Refusal;
use parking_lot::Mutex;

/// How often instances are looked at while one of the process is profiled.
pub(crate) const FAST_TICK: Duration = Duration::from_millis(1);
/// A profile or a wait for a trap that nobody came back for ends after this.
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// Different stacks of a profile, and bytes of their text. More are counted only.
const MOST_STACKS: usize = 10_000;
const MOST_TEXT: usize = 2 << 20;

/// Profiles under way in this process.
static PROFILES: AtomicUsize = AtomicUsize::new(0);

/// Until the engines' clocks go on, which is `usual` where nothing is profiled.
pub(crate) fn tick(usual: Duration) -> Duration {
    if PROFILES.load(Relaxed) > 0 { FAST_TICK } else { usual }
}

/// Of one component.
#[derive(Default)]
pub(crate) struct Diagnosis {
    is_profiled: AtomicBool,
    samples: Mutex<Option<Samples>>,
    awaits_trap: AtomicBool,
    trap: Mutex<Option<Trap>>,
}

struct Samples {
    since: Instant,
    count: u64,
    text: usize,
    stacks: HashMap<String, u64>,
}

impl Drop for Samples {
    fn drop(&mut self) {
        PROFILES.fetch_sub(1, Relaxed);
    }
}

/// Somebody waits for an instance that traps.
struct Trap {
    since: Instant,
    file: Option<File>,
    dump: Option<CoreDump>,
}

fn taken(what: &str) -> Refusal {
    Refusal::new(ErrorKind::Conflict, format!("somebody else {what} of this component: try again later"))
}

impl Diagnosis {
    /// # Errors
    /// `Conflict` while a profile is made.
    pub(crate) fn begin_profile(&self) -> Result<(), Refusal> {
        let mut samples = self.samples.lock();
        if samples.as_ref().is_some_and(|samples| samples.since.elapsed() < LONGEST) {
            return Err(taken("makes a profile"));
        }
        PROFILES.fetch_add(1, Relaxed);
        *samples = Some(Samples { since: Instant::now(), count: 0, text: 0, stacks: HashMap::new() });
        self.is_profiled.store(true, Relaxed);
        Ok(())
    }

    /// What was seen since [`Self::begin_profile`].
    pub(crate) fn end_profile(&self) -> Profile {
        self.is_profiled.store(false, Relaxed);
        let Some(mut samples) = self.samples.lock().take() else { return Profile::default() };
        let mut stacks: Vec<_> = std::mem::take(&mut samples.stacks).into_iter().collect();
        stacks.sort_unstable_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
        Profile { interval: FAST_TICK.as_micros() as u64, samples: samples.count, stacks }
    }

    pub(crate) fn is_profiled(&self) -> bool {
        self.is_profiled.load(Relaxed)
    }

    /// Notes that an instance was seen in the functions of `text`.
    pub(crate) fn sample(&self, text: String) {
        let mut held = self.samples.lock();
        let Some(samples) = &mut *held else { return };
        if samples.since.elapsed() > LONGEST {
            self.is_profiled.store(false, Relaxed);
            *held = None;
            return;
        }
        samples.count += 1;
        if let Some(count) = samples.stacks.get_mut(&text) {
            *count += 1;
        } else if samples.stacks.len() < MOST_STACKS && samples.text + text.len() <= MOST_TEXT {
            samples.text += text.len();
            samples.stacks.insert(text, 1);
        }
    }

    /// Has the state of the next instance that traps written to `file`.
    ///
    /// # Errors
    /// `Conflict` while somebody waits for one.
    pub(crate) fn await_trap(&self, file: File) -> Result<(), Refusal> {
        let mut trap = self.trap.lock();
        if trap.as_ref().is_some_and(|trap| trap.since.elapsed() < LONGEST) {
            return Err(taken("waits for the core dump"));
        }
        *trap = Some(Trap { since: Instant::now(), file: Some(file), dump: None });
        self.awaits_trap.store(true, Relaxed);
        Ok(())
    }

    /// Whether one trapped since; `is_last` says that nobody waits any longer.
    pub(crate) fn trapped(&self, is_last: bool) -> Option<CoreDump> {
        let mut trap = self.trap.lock();
        let dump = trap.as_ref().and_then(|trap| trap.dump.clone());
        if dump.is_some() || is_last {
            self.awaits_trap.store(false, Relaxed);
            *trap = None;
        }
        dump
    }

    /// Where the state of an instance that trapped is to be written; `None` where nobody waits for one.
    pub(crate) fn take_file(&self) -> Option<File> {
        if !self.awaits_trap.load(Relaxed) {
            return None;
        }
        self.trap.lock().as_mut().and_then(|trap| trap.file.take())
    }

    /// What became of the file that was taken.
    pub(crate) fn set_dump(&self, dump: CoreDump) {
        if let Some(trap) = &mut *self.trap.lock() {
            trap.dump = Some(dump);
        }
    }
}
