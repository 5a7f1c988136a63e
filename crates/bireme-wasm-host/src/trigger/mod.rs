//! What starts instances. One module per kind.

pub(crate) mod command;
pub(crate) mod http;
pub(crate) mod messages;
pub(crate) mod schedule;

use std::fmt::Write as _;

use bireme_core::error::one_line;

use crate::account::Account;

/// What the workload's log says of an instance that was ended because of [`Cut::Memory`](crate::guarded::Cut::Memory).
pub(crate) const ENDED_FOR_MEMORY: &str =
    "it had more memory than any other when the host process had as much as it may, and was ended";

/// Functions of a trap that are told, from the innermost on, and bytes of each name.
const FRAMES: usize = 20;
const NAME: usize = 200;

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

/// The first [`NAME`] bytes of what would be written: names are a stranger's, and may unfold to a megabyte.
struct Beginning(String);

impl Beginning {
    fn of(name: &rustc_demangle::Demangle<'_>) -> String {
        let mut beginning = Self(String::new());
        // Fails where it is full, and that is all there is to it.
        let _ = write!(beginning, "{name:#}");
        beginning.0
    }
}

impl std::fmt::Write for Beginning {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = NAME.saturating_sub(self.0.len());
        self.0.push_str(&text[..text.floor_char_boundary(room)]);
        if text.len() > room { Err(std::fmt::Error) } else { Ok(()) }
    }
}

/// The function of a frame, by the name that its module gives it.
pub(crate) fn function(frame: &wasmtime::FrameInfo) -> String {
    match frame.func_name() {
        Some(name) => one_line(&Beginning::of(&rustc_demangle::demangle(name)), NAME),
        None => format!("function {}", frame.func_index()),
    }
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
