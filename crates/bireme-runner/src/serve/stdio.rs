//! Bytes between the processes and their clients, and the log.

use std::io::Read as _;

use bireme_core::ErrorKind;
use bireme_core::clock::now_nanos;
use bireme_core::log_line::Stream;
use bireme_linux::protocol::Failure;

use super::Server;
use super::client::{Role, is_not_ready};
use super::process::{INIT, Which};
use crate::streams;

/// Ends of execs that are remembered.
const PAST: usize = 256;

impl Server<'_> {
    /// Takes what a client wrote for a process.
    pub(super) fn read_input(&mut self, key: u64, process: u64, gone: bool) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        match client.socket.read(&mut self.scratch) {
            Ok(0) if gone => self.forget(key),
            Ok(0) => {
                // It said all it had to say, and goes on listening.
                client.role = Role::Attached { process, stdin: false };
                if let Some(process) = self.processes.get_mut(&process) {
                    process.end_input();
                }
            }
            Ok(count) => {
                let bytes = self.scratch[..count].to_vec();
                if let Some(process) = self.processes.get_mut(&process) {
                    process.take_input(&bytes);
                }
            }
            Err(error) if is_not_ready(&error) => {}
            Err(_) => self.forget(key),
        }
    }

    /// Takes what a process wrote, for the log where it is init, and for every client that listens.
    pub(super) fn pump(&mut self, key: u64, which: Which) {
        let Some(process) = self.processes.get_mut(&key) else { return };
        let Some(fd) = process.output(which) else { return };
        let count = match rustix::io::read(fd, self.scratch.as_mut_slice()) {
            Ok(count) => count,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return,
            // A terminal whose last user is gone answers EIO.
            Err(_) => 0,
        };
        if count == 0 {
            match which {
                Which::Out => process.streams.stdout = None,
                Which::Err => process.streams.stderr = None,
                Which::Terminal => process.streams.terminal = None,
            }
            self.close_if_done(key);
            return;
        }
        let bytes = &self.scratch[..count];
        let stream = if which == Which::Err { Stream::Stderr } else { Stream::Stdout };
        if key == INIT {
            self.log.push(stream, bytes, now_nanos());
        }
        let length = u32::try_from(count).unwrap_or(0).to_be_bytes();
        let header = [stream.number(), 0, 0, 0, length[0], length[1], length[2], length[3]];
        let mut lost = Vec::new();
        for (id, client) in self.clients.iter_mut().filter(|(_, client)| client.listens_to(key)) {
            if which == Which::Terminal {
                client.queue(&[bytes]);
            } else {
                client.queue(&[&header, bytes]);
            }
            if client.flush().is_err() {
                lost.push(*id);
            }
        }
        for id in lost {
            self.forget(id);
        }
    }

    /// Whoever listens to a process that has nothing more to say is let go.
    pub(super) fn close_if_done(&mut self, key: u64) {
        let done = self.processes.get(&key).is_none_or(|process| process.code.is_some() && !process.has_output());
        if !done {
            return;
        }
        let listening: Vec<u64> =
            self.clients.iter().filter(|(_, client)| client.listens_to(key)).map(|(id, _)| *id).collect();
        for id in listening {
            self.turn_into(id, Role::Leaving);
            self.flush(id);
        }
        // Of an exec that has ended and said all, only its end is kept.
        if key != INIT
            && !self.pending.contains_key(&key)
            && let Some(process) = self.processes.remove(&key)
            && let Some(id) = self.execs.iter().find(|(_, process)| **process == key).map(|(id, _)| id.clone())
        {
            self.execs.remove(&id);
            self.past.push_back((id, process.code.unwrap_or(137)));
            if self.past.len() > PAST {
                self.past.pop_front();
            }
        }
    }

    /// Sets the size of a process's terminal.
    ///
    /// # Errors
    /// `Conflict` where it has none, or no more.
    pub(super) fn resize(&mut self, key: u64, columns: u16, rows: u16) -> Result<(), Failure> {
        let terminal = self.processes.get(&key).and_then(|process| process.streams.terminal.as_ref());
        let terminal = terminal
            .ok_or_else(|| Failure::new(ErrorKind::Conflict, "it has no terminal, or has ended: nothing to resize"))?;
        streams::resize(terminal, columns, rows)
            .map_err(|error| Failure::new(ErrorKind::Internal, format!("cannot resize the terminal: {error}")))
    }
}
