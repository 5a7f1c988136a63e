//! Functions of guests by their names.

use std::fmt::Write as _;

use bireme_core::error::one_line;
use wasmtime::FrameInfo;

/// Bytes of each name.
const NAME: usize = 200;
/// Functions of a stack that are told, the innermost.
const DEEPEST: usize = 96;

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
pub(crate) fn function(frame: &FrameInfo) -> String {
    match frame.func_name() {
        Some(name) => one_line(&Beginning::of(&rustc_demangle::demangle(name)), NAME),
        None => format!("function {}", frame.func_index()),
    }
}

/// The functions of a stack, the outermost first.
pub(crate) fn stack(frames: &[FrameInfo]) -> String {
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
