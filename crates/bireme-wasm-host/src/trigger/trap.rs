//! The state of an instance that trapped, for whoever waits for one.

use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;

use bireme_core::CoreDump;
use wasmtime::{Store, WasmCoreDump};

use super::reason;
use crate::account::Account;
use crate::guest::Guest;

/// Writes the state of an instance that failed with `error`, where it trapped and somebody waits for that.
pub(crate) fn note_trap(store: &mut Store<Guest>, error: &wasmtime::Error) {
    let (component, account) = (Arc::clone(&store.data().component), Arc::clone(&store.data().account));
    let Some(core) = error.downcast_ref::<WasmCoreDump>() else { return };
    let Some(mut file) = component.diagnosis.take_file() else { return };
    let dump = write(store, core, &account, &mut file, &reason(&account, error));
    component.diagnosis.set_dump(dump);
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
