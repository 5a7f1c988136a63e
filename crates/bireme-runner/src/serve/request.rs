//! Requests of clients: read, understood, and each handed to what answers it.

use std::io::Read as _;
use std::time::Instant;

use bireme_core::ErrorKind;
use bireme_linux::protocol::{Failure, MAX_LINE, Reply, Request};
use rustix::event::PollFlags;

use super::Server;
use super::client::{Role, is_not_ready};
use super::process::INIT;

impl Server<'_> {
    pub(super) fn on_client_readable(&mut self, key: u64, event: PollFlags) {
        if event.contains(PollFlags::OUT) {
            self.flush(key);
        }
        let Some(client) = self.clients.get(&key) else { return };
        let gone = event.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL);
        match client.role {
            Role::Asking(_) if event.contains(PollFlags::IN) => self.read_request(key),
            Role::Attached { process, stdin: true } if event.contains(PollFlags::IN) => {
                self.read_input(key, process, gone)
            }
            _ if gone => self.forget(key),
            _ => {}
        }
    }

    fn read_request(&mut self, key: u64) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        let got = client.socket.read(&mut self.scratch);
        let Role::Asking(text) = &mut client.role else { return };
        match got {
            Ok(0) => {
                self.clients.remove(&key);
                return;
            }
            Ok(count) => text.extend_from_slice(&self.scratch[..count]),
            Err(error) if is_not_ready(&error) => return,
            Err(_) => {
                self.clients.remove(&key);
                return;
            }
        }
        let Some(end) = text.iter().position(|byte| *byte == b'\n') else {
            if text.len() > MAX_LINE {
                self.clients.remove(&key);
            }
            return;
        };
        let rest = text.split_off(end + 1);
        let text = std::mem::take(text);
        client.role = Role::Leaving;
        match serde_json::from_slice(&text) {
            Ok(request) => self.handle(key, request, rest),
            Err(error) => self.answer(
                key,
                &Reply::Failed(Failure::new(ErrorKind::Invalid, format!("cannot understand the request: {error}"))),
            ),
        }
    }

    /// Answers at once, or gives the client a role in which it is answered later.
    fn handle(&mut self, key: u64, request: Request, rest: Vec<u8>) {
        let answer = match request {
            Request::State => Ok(Reply::State(self.state())),
            Request::Start => return self.start(key),
            Request::Signal { number } => self.signal(number).map(|()| Reply::Done),
            Request::Wait => match &self.exit {
                Some(exit) => Ok(Reply::Exit(exit.clone())),
                None => return self.turn_into(key, Role::Waiting),
            },
            Request::Attach { stdin } => {
                let stdin = stdin && self.config.spec.open_stdin;
                self.turn_into(key, Role::Attached { process: INIT, stdin });
                self.answer(key, &Reply::Done);
                if let Some(init) = self.processes.get_mut(&INIT) {
                    init.take_input(&rest);
                }
                return;
            }
            Request::Resize { columns, rows } => self.resize(INIT, columns, rows).map(|()| Reply::Done),
            Request::Exec { id, spec } => match self.exec(key, id, &spec, rest) {
                Ok(()) => return,
                Err(failure) => Err(failure),
            },
            Request::ExecWait { id } => match self.execs.get(&id).copied() {
                None => match self.past.iter().find(|(past, _)| *past == id) {
                    Some((_, code)) => Ok(Reply::ExecExit { code: *code }),
                    None => Err(unknown_exec(&id)),
                },
                Some(process) => match self.processes.get(&process).and_then(|process| process.code) {
                    Some(code) => Ok(Reply::ExecExit { code }),
                    None => return self.turn_into(key, Role::WaitingFor(process)),
                },
            },
            Request::ExecKill { id } => {
                if let Some(process) = self.execs.get(&id).copied() {
                    self.kill_session(process);
                }
                Ok(Reply::Done)
            }
            Request::ExecResize { id, columns, rows } => match self.execs.get(&id).copied() {
                None => Err(unknown_exec(&id)),
                Some(process) => self.resize(process, columns, rows).map(|()| Reply::Done),
            },
            Request::Pause if !self.pending.is_empty() => {
                return self.turn_into(key, Role::Pausing(Instant::now()));
            }
            Request::Pause => self.pause(true).map(|()| Reply::Done),
            Request::Resume => self.pause(false).map(|()| Reply::Done),
            Request::Delete => {
                self.killing = true;
                Ok(Reply::Done)
            }
        };
        self.answer(key, &answer.unwrap_or_else(Reply::Failed));
    }
}

fn unknown_exec(id: &str) -> Failure {
    Failure::new(ErrorKind::NotFound, format!("no exec {id} was started in this container"))
}
