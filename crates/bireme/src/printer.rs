//! The only way a command prints.

use std::io::{self, IsTerminal, Write};

/// Writes to the two streams of the process and knows whether they are terminals.
///
/// Every method fails with the stream's error, so that a broken pipe ends the command at once.
#[derive(Clone, Copy, Debug)]
pub struct Printer {
    /// Standard output is a terminal.
    pub out_is_terminal: bool,
    /// Standard error is a terminal.
    pub err_is_terminal: bool,
    /// Colours are wanted on standard output.
    pub color: bool,
}

impl Printer {
    /// A printer for the streams as they are. `color` `false` forbids colours even on a terminal.
    pub fn new(color: bool) -> Self {
        let out_is_terminal = io::stdout().is_terminal();
        Self { out_is_terminal, err_is_terminal: io::stderr().is_terminal(), color: color && out_is_terminal }
    }

    /// One line on standard output.
    pub fn line(&self, text: impl AsRef<str>) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_ref().as_bytes())?;
        out.write_all(b"\n")
    }

    /// Bytes on standard output, as they are, at once.
    pub fn raw(&self, bytes: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)?;
        out.flush()
    }

    /// Bytes on standard error, as they are.
    pub fn raw_error(&self, bytes: &[u8]) -> io::Result<()> {
        io::stderr().lock().write_all(bytes)
    }

    /// One line on standard error: progress, warnings, errors of one of several things.
    pub fn note(&self, text: impl AsRef<str>) -> io::Result<()> {
        let mut err = io::stderr().lock();
        err.write_all(text.as_ref().as_bytes())?;
        err.write_all(b"\n")
    }

    /// `text` in the colour of `style`, an SGR code such as `32`, where colours are wanted.
    pub fn paint(&self, style: &str, text: &str) -> String {
        if self.color && !style.is_empty() { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
