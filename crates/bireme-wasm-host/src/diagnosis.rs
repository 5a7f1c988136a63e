//! Looks into instances while they run, for whoever asks: what they compute, and the state in which one trapped.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bireme_core::ErrorKind;
use bireme_core::executor::{CoreDump, Profile};
use bireme_wasm::protocol::Refusal;
use parking_lot::Mutex;
use wasmtime::{FrameInfo, Store, StoreContextMut, UpdateDeadline, WasmBacktrace, WasmCoreDump};

use crate::account::Account;
use crate::engine::TICK;
use crate::guest::Guest;
use crate::trigger::{function, reason};

/// How often instances are looked at while one of the process is profiled.
pub(crate) const FAST_TICK: Duration = Duration::from_millis(1);
/// A profile or a wait for a trap that nobody came back for ends after this.
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// Functions of a stack that are told, the innermost.
const DEEPEST: usize = 96;
/// Different stacks of a profile, and bytes of their text. More are counted only.
const MOST_STACKS: usize = 10_000;
const MOST_TEXT: usize = 2 << 20;

/// Profiles under way in this process.
static PROFILES: AtomicUsize = AtomicUsize::new(0);

/// Until the engines' clocks go on.
pub(crate) fn tick() -> Duration {
    if PROFILES.load(Relaxed) > 0 { FAST_TICK } else { TICK }
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

    /// Notes where the instance of `store` is.
    fn sample(&self, trace: &WasmBacktrace) {
        let text = stack(trace.frames());
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
}

/// What is done where the clock interrupts an instance: others have their turn.
pub(crate) fn interrupted(store: StoreContextMut<'_, Guest>) -> wasmtime::Result<UpdateDeadline> {
    let diagnosis = &store.data().component.diagnosis;
    if diagnosis.is_profiled.load(Relaxed) {
        diagnosis.sample(&WasmBacktrace::force_capture(&store));
    }
    Ok(UpdateDeadline::Yield(1))
}

/// The functions of a stack, the outermost first.
fn stack(frames: &[FrameInfo]) -> String {
    // The clock went on while the host worked for the instance, which is seen when the guest is entered again.
    if frames.is_empty() {
        return "(host)".to_owned();
    }
    let mut text = String::new();
    if frames.len() > DEEPEST {
        text.push_str("(more)");
    }
    for frame in frames.iter().take(DEEPEST).rev() {
        if !text.is_empty() {
            text.push(';');
        }
        text.push_str(&function(frame).replace(';', ","));
    }
    text
}

/// Writes the state of an instance that failed with `error`, where it trapped and somebody waits for that.
pub(crate) fn note_trap(store: &mut Store<Guest>, error: &wasmtime::Error) {
    let (component, account) = (Arc::clone(&store.data().component), Arc::clone(&store.data().account));
    if !component.diagnosis.awaits_trap.load(Relaxed) {
        return;
    }
    let Some(core) = error.downcast_ref::<WasmCoreDump>() else { return };
    let file = component.diagnosis.trap.lock().as_mut().and_then(|trap| trap.file.take());
    let Some(mut file) = file else { return };
    let dump = write(store, core, &account, &mut file, &reason(&account, error));
    if let Some(trap) = &mut *component.diagnosis.trap.lock() {
        trap.dump = Some(dump);
    }
}

/// The dump is as large as the memories of the instance, and counts like them for as long as it is made.
fn write(
    store: &mut Store<Guest>,
    core: &WasmCoreDump,
    account: &Arc<Account>,
    file: &mut File,
    why: &str,
) -> CoreDump {
    let size: usize = core.memories().iter().map(|memory| memory.data_size(&*store)).sum();
    let refused = |text: String| CoreDump { reason: format!("{why}\n{text}"), size: 0 };
    // Asked first: whoever is refused memory counts as one that reached its limit.
    if account.used().saturating_add(size as u64) > account.component.memory_limit {
        let text = format!("it has {} KiB, for which there is no room beside it", size >> 10);
        return refused(format!("its state was not written: {text}; {}", account.limit_text()));
    }
    let _held = match account.charge(size) {
        Ok(held) => held,
        Err(text) => return refused(format!("its state was not written: {text}")),
    };
    let bytes = core.serialize(&mut *store, &account.component.name());
    match file.write_all(&bytes) {
        Ok(()) => CoreDump { reason: why.to_owned(), size: bytes.len() as u64 },
        Err(error) => refused(format!("its state was not written: {error}")),
    }
}
