//! The terminal we run in: raw mode, its size, the keys that detach.

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

/// A sequence of keys that detaches, found in a stream of input however it is cut.
#[derive(Clone, Debug)]
pub struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    /// Reads `ctrl-p,ctrl-q` or `ctrl-a,d`; an empty text switches detaching off.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut keys = Vec::new();
        for key in text.split(',').filter(|key| !key.is_empty()) {
            keys.push(match key.strip_prefix("ctrl-").map(str::as_bytes) {
                Some([letter @ b'a'..=b'z']) => letter - b'a' + 1,
                Some(b"@") => 0,
                Some(b"[") => 27,
                Some(b"\\") => 28,
                Some(b"]") => 29,
                Some(b"^") => 30,
                Some(b"_") => 31,
                None if key.len() == 1 => key.as_bytes()[0],
                _ => return Err(format!("unknown key {key:?}: write a letter or ctrl-LETTER, such as ctrl-p,ctrl-q")),
            });
        }
        Ok(Self { keys, matched: 0 })
    }

    /// Docker's default.
    pub fn standard() -> Self {
        Self { keys: vec![16, 17], matched: 0 }
    }

    /// Hands on what of `input` is input, and says whether the keys were struck. What may be their beginning is kept
    /// back until it is known.
    pub fn filter(&mut self, input: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(input.len());
        for byte in input {
            if self.keys.is_empty() {
                passed.push(*byte);
                continue;
            }
            if *byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    self.matched = 0;
                    return (passed, true);
                }
                continue;
            }
            passed.extend_from_slice(&self.keys[..self.matched]);
            self.matched = usize::from(*byte == self.keys[0]);
            if self.matched == 0 {
                passed.push(*byte);
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(keys: &str, inputs: &[&[u8]], expected: &[u8], detached: bool) {
        let mut keys = DetachKeys::parse(keys).unwrap();
        let mut passed = Vec::new();
        let mut struck = false;
        for input in inputs {
            let (more, now) = keys.filter(input);
            passed.extend(more);
            struck |= now;
        }
        assert_eq!((passed.as_slice(), struck), (expected, detached));
    }

    #[test]
    fn detach_keys_are_found_across_reads() {
        check("ctrl-p,ctrl-q", &[b"a\x10", b"\x11b"], b"a", true);
        check("ctrl-p,ctrl-q", &[b"a\x10b"], b"a\x10b", false);
        check("ctrl-p,ctrl-q", &[b"\x10\x10\x11"], b"\x10", true);
        check("ctrl-a,d", &[b"\x01", b"d"], b"", true);
        check("", &[b"\x10\x11"], b"\x10\x11", false);
        assert!(DetachKeys::parse("shift-x").is_err());
    }
}
