//! The container's life: its start, signals and pauses, the ends of its processes, and its own.

use std::time::{Duration, Instant};

use bireme_core::clock::now_nanos;
use bireme_core::{ErrorKind, Exit};
use bireme_linux::protocol::{self, Failure, Reply};

use super::client::Role;
use super::process::INIT;
use super::{Server, Start};
use crate::streams::Streams;
use crate::{container, journal, payload};

impl Server<'_> {
    /// Lets init execute the payload; the client is answered when it has.
    pub(super) fn start(&mut self, key: u64) {
        if !matches!(self.start, Start::Waiting) || self.ended.is_some() {
            return self
                .answer(key, &Reply::Failed(Failure::new(ErrorKind::Conflict, "the container was started before")));
        }
        match self.container.start() {
            Ok(()) => {
                self.start = Start::Underway(Vec::new());
                self.turn_into(key, Role::Starting);
            }
            Err(failure) => self.answer(key, &Reply::Failed(failure)),
        }
    }

    /// What the payload says of its execution.
    pub(super) fn on_status_readable(&mut self) {
        let Start::Underway(said) = &mut self.start else { return };
        let mut bytes = [0u8; 4096];
        match rustix::io::read(&self.container.status, &mut bytes) {
            Ok(0) => {}
            Ok(count) => return said.extend_from_slice(&bytes[..count]),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return,
            Err(_) => {}
        }
        let reply = match serde_json::from_slice::<Failure>(said) {
            Ok(failure) => {
                self.start = Start::Failed(failure.clone());
                Reply::Failed(failure)
            }
            Err(_) => {
                self.start = Start::Done;
                Reply::Done
            }
        };
        self.answer_all(|role| matches!(role, Role::Starting), &reply, true);
    }

    pub(super) fn alive(&self) -> Result<(), Failure> {
        if self.ended.is_some() {
            Err(Failure::new(ErrorKind::Conflict, "the container is not running"))
        } else {
            Ok(())
        }
    }

    pub(super) fn signal(&mut self, number: i32) -> Result<(), Failure> {
        self.alive()?;
        if !(1..=64).contains(&number) {
            return Err(Failure::new(ErrorKind::Invalid, format!("there is no signal {number}")));
        }
        bireme_sys::process::kill(self.container.pid.as_raw(), number)
            .map_err(|error| Failure::new(ErrorKind::Internal, format!("cannot send signal {number}: {error}")))?;
        if number == libc::SIGKILL {
            // cgroup v1 delivers it only once thawed, and init ends after all others, which may be frozen by themselves.
            if self.paused {
                self.pause(false)?;
            }
            self.cgroup.kill_once();
            self.killed = true;
        }
        Ok(())
    }

    pub(super) fn pause(&mut self, pause: bool) -> Result<(), Failure> {
        self.alive()?;
        if self.paused == pause {
            let message = if pause { "the container is already paused" } else { "the container is not paused" };
            return Err(Failure::new(ErrorKind::Conflict, message));
        }
        if let Err(error) = self.cgroup.freeze(pause) {
            if pause {
                let _ = self.cgroup.freeze(false);
            }
            let attempt = if pause { "pause" } else { "resume" };
            return Err(Failure::new(ErrorKind::Unavailable, format!("cannot {attempt} the container: {error}")));
        }
        self.paused = pause;
        Ok(())
    }

    /// Takes the ends of all children that have ended.
    pub(super) fn reap(&mut self) {
        loop {
            let (pid, code) = match payload::next_ended() {
                Ok(Some(ended)) => ended,
                Ok(None) => return,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return journal::note(format_args!("cannot wait for processes: {error}")),
            };
            let of = self
                .processes
                .iter()
                // A number may have been another's before.
                .find(|(key, process)| process.pid == pid && process.code.is_none() && !self.pending.contains_key(key))
                .map(|(key, _)| *key);
            match of {
                Some(INIT) => self.init_ended(code),
                Some(key) => {
                    if let Some(process) = self.processes.get_mut(&key) {
                        process.code = Some(code);
                        process.streams.stdin = None;
                    }
                    self.answer_all(
                        |role| matches!(role, Role::WaitingFor(process) if *process == key),
                        &Reply::ExecExit { code },
                        true,
                    );
                    self.close_if_done(key);
                }
                None if self.pending.is_empty() => {}
                None => drop(self.unclaimed.insert(pid, code)),
            }
        }
    }

    fn init_ended(&mut self, code: i32) {
        self.ended = Some(Instant::now());
        if let Some(init) = self.processes.get_mut(&INIT) {
            init.code = Some(code);
            init.streams.stdin = None;
        }
        // The payload's last word may not have been read yet.
        self.on_status_readable();
        if container::shares_processes(self.config) {
            self.cgroup.kill_once();
        }
    }

    /// Records the end, tells whoever waits, releases the cgroup.
    pub(super) fn finish(&mut self) {
        self.log.finish(now_nanos());
        let init = self.processes.get(&INIT).and_then(|init| init.code).unwrap_or(-1);
        // Of any of its processes, as Docker tells it.
        let oom_killed = self.cgroup.oom_kills() > 0;
        let (code, error) = match &self.start {
            Start::Failed(failure) => (failure.exit_code.unwrap_or(128), Some(failure.message.clone())),
            Start::Waiting if !self.killing => (init, Some("the container ended before it was started".to_owned())),
            _ => (init, None),
        };
        let exit = Exit { code, oom_killed, finished_at: now_nanos(), error };
        if let Err(error) = protocol::write_exit(&self.config.state_dir, &exit) {
            journal::note(format_args!("cannot record the end: {error}"));
        }
        self.exit = Some(exit.clone());
        self.answer_all(|role| matches!(role, Role::Waiting), &Reply::Exit(exit), false);
        let ended = Reply::Failed(Failure::new(ErrorKind::Conflict, "the container has ended"));
        self.answer_all(|role| matches!(role, Role::Starting | Role::Joining(_) | Role::Pausing(_)), &ended, true);
        // Processes beside init ended with it.
        self.answer_all(|role| matches!(role, Role::WaitingFor(_)), &Reply::ExecExit { code: 137 }, true);
        let keys: Vec<u64> = self.processes.keys().copied().collect();
        for key in keys {
            if let Some(process) = self.processes.get_mut(&key) {
                process.streams = Streams::default();
                process.code.get_or_insert(137);
            }
            self.close_if_done(key);
        }
        self.pending.clear();
        if let Err(error) = self.cgroup.kill(Duration::from_secs(10)).and_then(|()| self.cgroup.remove()) {
            journal::note(format_args!("cannot remove the cgroup: {error}"));
        }
    }
}
