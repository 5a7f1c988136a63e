//! A connection, what it waits for, and how it is answered.

use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bireme_linux::protocol::Reply;

use super::Server;
use super::process::INIT;
use crate::journal;

/// One connection.
pub(super) struct Client {
    pub(super) socket: UnixStream,
    pub(super) role: Role,
    pub(super) buffer: Vec<u8>,
    /// When it was last seen to take something, while something waits for it.
    pub(super) moved: Instant,
}

/// What a client is here for, which decides when it is answered.
pub(super) enum Role {
    /// Still writing its request.
    Asking(Vec<u8>),
    /// Answered when init was executed.
    Starting,
    /// Answered at the end of the container, then left open.
    Waiting,
    /// Answered when that exec stands.
    Joining(u64),
    /// Since then; answered when no process is being started any more, and all that run are paused.
    Pausing(Instant),
    /// Answered at the end of that process.
    WaitingFor(u64),
    /// The streams of that process.
    Attached { process: u64, stdin: bool },
    /// To be closed when all is written.
    Leaving,
}

impl Server<'_> {
    /// Takes every client that waits at the socket.
    pub(super) fn accept(&mut self) {
        loop {
            let socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    // Out of descriptors: whoever waits is taken when there are some again, and not asked for at once.
                    journal::note(format!("no client can be accepted: {error}"));
                    std::thread::sleep(Duration::from_millis(20));
                    return;
                }
            };
            self.awake = Some(Instant::now());
            // Only who could do all of this anyway.
            let ours =
                rustix::net::sockopt::socket_peercred(&socket).is_ok_and(|peer| peer.uid == rustix::process::geteuid());
            if ours && socket.set_nonblocking(true).is_ok() {
                let client =
                    Client { socket, role: Role::Asking(Vec::new()), buffer: Vec::new(), moved: Instant::now() };
                self.clients.insert(self.next, client);
                self.next += 1;
            }
        }
    }

    /// A client left. With the one that wrote it, the input of a process ends; init's only where that was asked for.
    pub(super) fn forget(&mut self, key: u64) {
        let Some(client) = self.clients.remove(&key) else { return };
        if let Role::Attached { process, stdin: true } = client.role
            && (process != INIT || self.config.spec.stdin_once)
            && let Some(process) = self.processes.get_mut(&process)
        {
            process.end_input();
        }
    }

    pub(super) fn turn_into(&mut self, key: u64, role: Role) {
        if let Some(client) = self.clients.get_mut(&key) {
            client.role = role;
        }
    }

    pub(super) fn answer(&mut self, key: u64, reply: &Reply) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        match serde_json::to_vec(reply) {
            Ok(mut line) => {
                line.push(b'\n');
                client.queue(&[&line]);
                self.flush(key);
            }
            Err(error) => {
                journal::note(error);
                self.clients.remove(&key);
            }
        }
    }

    /// Answers every client in such a role; where `leave`, that is the last it hears.
    pub(super) fn answer_all(&mut self, who: impl Fn(&Role) -> bool, reply: &Reply, leave: bool) {
        let keys: Vec<u64> = self.clients.iter().filter(|(_, client)| who(&client.role)).map(|(key, _)| *key).collect();
        for key in keys {
            if leave {
                self.turn_into(key, Role::Leaving);
            }
            self.answer(key, reply);
        }
    }

    /// Writes what waits for a client, as far as it takes it.
    pub(super) fn flush(&mut self, key: u64) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        match client.flush() {
            Ok(()) => {
                if client.buffer.is_empty() && matches!(client.role, Role::Leaving) {
                    self.clients.remove(&key);
                }
            }
            Err(_) => self.forget(key),
        }
    }
}

impl Client {
    /// Whether it is attached to that process.
    pub(super) fn listens_to(&self, key: u64) -> bool {
        matches!(self.role, Role::Attached { process, .. } if process == key)
    }

    /// Has bytes wait for the client.
    pub(super) fn queue(&mut self, parts: &[&[u8]]) {
        if self.buffer.is_empty() {
            self.moved = Instant::now();
        }
        for part in parts {
            self.buffer.extend_from_slice(part);
        }
    }

    /// Writes what waits, as far as the client takes it.
    ///
    /// # Errors
    /// Those of write(2), but for a client that cannot take more now.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let mut done = 0;
        let result = loop {
            if done == self.buffer.len() {
                break Ok(());
            }
            match self.socket.write(&self.buffer[done..]) {
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_not_ready(&error) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if done > 0 {
            self.moved = Instant::now();
            self.buffer.drain(..done);
            if self.buffer.is_empty() {
                self.buffer = Vec::new();
            }
        }
        result
    }
}

/// Whether to try again when poll(2) says so.
pub(super) fn is_not_ready(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
