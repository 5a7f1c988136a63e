//! One process of the container as the runner sees it: its number, our ends of its streams, what it has yet to read.

use std::os::fd::OwnedFd;

use nix::unistd::Pid;

use crate::streams::Streams;

/// The key of init among the processes.
pub(super) const INIT: u64 = 0;

/// The container's init, or a process started beside it.
pub(super) struct Process {
    pub(super) pid: Pid,
    pub(super) streams: Streams,
    /// What clients wrote and it has not taken yet.
    pub(super) input: Vec<u8>,
    /// Close standard input when what waits is written.
    pub(super) input_ends: bool,
    /// How it ended, once it has.
    pub(super) code: Option<i32>,
}

impl Process {
    pub(super) fn output(&self, which: Which) -> Option<&OwnedFd> {
        match which {
            Which::Out => self.streams.stdout.as_ref(),
            Which::Err => self.streams.stderr.as_ref(),
            Which::Terminal => self.streams.terminal.as_ref(),
        }
    }

    pub(super) fn has_output(&self) -> bool {
        self.streams.stdout.is_some() || self.streams.stderr.is_some() || self.streams.terminal.is_some()
    }

    fn has_input(&self) -> bool {
        self.streams.stdin.is_some() || self.streams.terminal.is_some()
    }

    /// Passes on what a client wrote; once the input has ended, nothing more is taken.
    pub(super) fn take_input(&mut self, bytes: &[u8]) {
        if self.has_input() && !self.input_ends {
            self.input.extend_from_slice(bytes);
            self.feed();
        }
    }

    /// Closes standard input once what waits is written. A terminal has no end of input.
    pub(super) fn end_input(&mut self) {
        self.input_ends = self.streams.terminal.is_none();
        self.feed();
    }

    /// Writes what waits, as far as the process takes it.
    pub(super) fn feed(&mut self) {
        let Some(fd) = self.streams.stdin.as_ref().or(self.streams.terminal.as_ref()) else {
            self.input.clear();
            return;
        };
        while !self.input.is_empty() {
            match rustix::io::write(fd, &self.input) {
                Ok(count) => drop(self.input.drain(..count)),
                Err(rustix::io::Errno::AGAIN) => return,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => {
                    // It reads no more.
                    self.input.clear();
                    self.streams.stdin = None;
                    return;
                }
            }
        }
        if self.input_ends {
            self.streams.stdin = None;
        }
    }
}

/// One of a process's outputs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Out,
    Err,
    Terminal,
}
