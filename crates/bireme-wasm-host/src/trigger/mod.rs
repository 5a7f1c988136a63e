//! What starts instances. One module per kind.

pub(crate) mod command;
pub(crate) mod http;
pub(crate) mod messages;
pub(crate) mod schedule;
pub(crate) mod trap;

use std::fmt::Write as _;

use crate::account::Account;
use crate::frames::function;

/// What the workload's log says of an instance that was ended because of [`Cut::Memory`](crate::guarded::Cut::Memory).
pub(crate) const ENDED_FOR_MEMORY: &str =
    "it had more memory than any other when the host process had as much as it may, and was ended";

/// Functions of a trap that are told, from the innermost on.
const FRAMES: usize = 20;

/// Why an invocation failed, for the workload's log: one line, and below it where a trap was, a line for each function.
pub(crate) fn reason(account: &Account, error: &wasmtime::Error) -> String {
    if account.was_refused() {
        // Guests abort when they are refused memory, which traps like any other fault.
        return format!("it reached its memory limit: {}", account.limit_text());
    }
    if let Some(trap) = error.downcast_ref::<wasmtime::Trap>() {
        return format!("it trapped: {trap}{}", place(error));
    }
    crate::compile::root(error)
}

/// The functions in which the guest was, by the names that its module gives them.
///
/// Source: WebAssembly specification, "Name Section".
fn place(error: &wasmtime::Error) -> String {
    let Some(trace) = error.downcast_ref::<wasmtime::WasmBacktrace>() else { return String::new() };
    let frames = trace.frames();
    let mut text = String::new();
    for frame in frames.iter().take(FRAMES) {
        text.push_str("\n    at ");
        text.push_str(&function(frame));
        if let Some(offset) = frame.module_offset() {
            let _ = write!(text, " ({offset:#x})");
        }
    }
    if frames.len() > FRAMES {
        let _ = write!(text, "\n    and {} more", frames.len() - FRAMES);
    }
    text
}
