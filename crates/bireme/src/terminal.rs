//! The terminal we run in: raw mode and its size.

use std::io::{self, IsTerminal};

/// Puts the terminal into raw mode and takes it out again when dropped.
pub struct RawMode(bool);

impl RawMode {
    /// Raw mode if standard input is a terminal; nothing otherwise.
    pub fn enter() -> io::Result<Self> {
        let terminal = io::stdin().is_terminal();
        if terminal {
            crossterm::terminal::enable_raw_mode()?;
        }
        Ok(Self(terminal))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if self.0 {
            // The terminal may be gone, and then there is nothing to set right.
            let _ = crossterm::terminal::disable_raw_mode();
        }
    }
}

/// What is typed is not shown until this is dropped.
pub struct HiddenInput(rustix::termios::Termios);

impl HiddenInput {
    /// Hides what is typed at standard input.
    ///
    /// # Errors
    /// Standard input is no terminal.
    pub fn enter() -> io::Result<Self> {
        let stdin = io::stdin();
        let before = rustix::termios::tcgetattr(&stdin)?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(rustix::termios::LocalModes::ECHO);
        rustix::termios::tcsetattr(&stdin, rustix::termios::OptionalActions::Flush, &hidden)?;
        Ok(Self(before))
    }
}

impl Drop for HiddenInput {
    fn drop(&mut self) {
        // The terminal may be gone, and then there is nothing to set right.
        let _ = rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Now, &self.0);
    }
}

/// Columns and rows, when there is a terminal.
pub fn size() -> Option<(u16, u16)> {
    if io::stdout().is_terminal() || io::stdin().is_terminal() { crossterm::terminal::size().ok() } else { None }
}

/// Rows and columns as the API has them, so that a workload has our terminal's size from its first instruction.
pub fn console_size() -> Option<Vec<usize>> {
    size().map(|(width, height)| vec![height.into(), width.into()])
}
