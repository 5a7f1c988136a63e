//! Execs on their way into the container, and what they leave. A pause waits for those that are not executed yet.

use std::time::{Duration, Instant};

use bireme_core::ErrorKind;
use bireme_core::executor::ExecSpec;
use bireme_linux::protocol::{Failure, Reply};
use bireme_sys::process;
use nix::unistd::Pid;

use super::client::Role;
use super::process::Process;
use super::{Server, Start};
use crate::exec;
use crate::stat::{self, Stat};
use crate::streams::Streams;

/// How long an exec may take until its program is executed. It may have been stopped by another process of its user.
const JOINING: Duration = Duration::from_secs(45);
/// How long a pause waits for one: what is frozen on its way would leave its client without an answer.
const PAUSING: Duration = Duration::from_secs(5);

impl Server<'_> {
    /// Begins an exec; its client is answered when it stands. `rest`: input that came with the request.
    ///
    /// # Errors
    /// `Conflict` unless the container runs, or where there was an exec of that ID; those of [`exec::begin`].
    pub(super) fn exec(&mut self, key: u64, id: String, spec: &ExecSpec, rest: Vec<u8>) -> Result<(), Failure> {
        self.alive()?;
        if !matches!(self.start, Start::Done) {
            return Err(Failure::new(ErrorKind::Conflict, "the container is not running"));
        }
        if self.paused {
            return Err(Failure::new(ErrorKind::Conflict, "the container is paused: resume it before exec"));
        }
        if self.execs.contains_key(&id) || self.past.iter().any(|(past, _)| *past == id) {
            return Err(Failure::new(ErrorKind::Conflict, format!("exec {id} was started before")));
        }
        let pending = (Instant::now(), exec::begin(self.config, &self.container, spec)?);
        let process = self.next;
        self.next += 1;
        let waiting =
            Process { pid: pending.1.helper, streams: Streams::default(), input: rest, input_ends: false, code: None };
        self.processes.insert(process, waiting);
        self.pending.insert(process, pending);
        self.execs.insert(id, process);
        self.turn_into(key, Role::Joining(process));
        Ok(())
    }

    /// What the helper of an exec says.
    pub(super) fn on_pending_readable(&mut self, key: u64) {
        if self.pending.get_mut(&key).is_some_and(|(_, pending)| pending.hear(&self.unclaimed)) {
            self.conclude(key);
        }
    }

    /// Until when an exec that began then has to stand.
    pub(super) fn joined_by(&self, since: Instant) -> Instant {
        let pausing = self.clients.values().filter_map(|client| match client.role {
            Role::Pausing(since) => Some(since + PAUSING),
            _ => None,
        });
        pausing.chain([since + JOINING]).min().unwrap_or(since + JOINING)
    }

    /// Ends an exec whose program is not executed yet, and tells its client `why`.
    pub(super) fn give_up(&mut self, key: u64, why: &str) {
        let Some((_, pending)) = self.pending.get_mut(&key) else { return };
        // What it said in this very moment counts: it may stand.
        if !pending.hear(&self.unclaimed) {
            pending.failure = Some(Failure::new(ErrorKind::Unavailable, why));
            // All of these are children of this process or of the helper: as long as nobody has waited for them, their
            // numbers are theirs.
            let (helper, known) = (pending.helper, pending.pid);
            let end = |pid: Pid, number| {
                if !self.unclaimed.contains_key(&pid) {
                    let _ = process::kill(pid.as_raw(), number);
                }
            };
            // It may have had no time to say whom it made, and makes nobody any more.
            end(helper, libc::SIGSTOP);
            let inside = self.cgroup.processes().into_iter().filter_map(|pid| i32::try_from(pid).ok());
            let made = inside
                .filter(|pid| alive(*pid).is_some_and(|known| known.parent == helper.as_raw()))
                .map(Pid::from_raw);
            made.chain(known).chain([helper]).for_each(|pid| end(pid, libc::SIGKILL));
        }
        self.conclude(key);
    }

    /// Answers the client of an exec of which all was heard.
    fn conclude(&mut self, key: u64) {
        let Some((_, pending)) = self.pending.remove(&key) else { return };
        let client = self
            .clients
            .iter()
            .find(|(_, client)| matches!(client.role, Role::Joining(process) if process == key))
            .map(|(id, _)| *id);
        let started = match (pending.failure, pending.pid) {
            (None, Some(pid)) => Ok(pid),
            (Some(failure), _) => Err(failure),
            (None, None) => Err(Failure::new(
                ErrorKind::Unavailable,
                "the process ended before it could be executed; is the container out of memory or processes?",
            )),
        };
        let pid = match started {
            Ok(pid) => pid,
            Err(failure) => {
                self.processes.remove(&key);
                self.execs.retain(|_, process| *process != key);
                if let Some(client) = client {
                    self.turn_into(client, Role::Leaving);
                    self.answer(client, &Reply::Failed(failure));
                }
                return self.settle(pending.pid);
            }
        };
        if let Some(process) = self.processes.get_mut(&key) {
            process.pid = pid;
            process.streams = pending.streams;
            process.code = self.unclaimed.remove(&pid);
        }
        if let Some(client) = client {
            self.answer(client, &Reply::Exec { pid: pid.as_raw().unsigned_abs() });
            self.turn_into(client, Role::Attached { process: key, stdin: true });
        } else if let Some(process) = self.processes.get_mut(&key) {
            process.end_input();
        }
        if let Some(process) = self.processes.get_mut(&key) {
            process.feed();
        }
        self.settle(None);
        self.close_if_done(key);
    }

    /// When no helper is at work, nobody will claim what is left.
    fn settle(&mut self, ended: Option<Pid>) {
        if let Some(pid) = ended {
            self.unclaimed.remove(&pid);
        }
        if self.pending.is_empty() {
            self.unclaimed.clear();
            self.pause_for_who_waits();
        }
    }

    fn pause_for_who_waits(&mut self) {
        let waiting = self.clients.iter().filter(|(_, client)| matches!(client.role, Role::Pausing(_)));
        let keys: Vec<u64> = waiting.map(|(key, _)| *key).collect();
        for key in keys {
            let answer = self.pause(true).map(|()| Reply::Done);
            self.turn_into(key, Role::Leaving);
            self.answer(key, &answer.unwrap_or_else(Reply::Failed));
        }
    }

    /// Kills an exec's process and what is in the session that it began. What it started may start more meanwhile, so it is
    /// looked at again until nothing is found.
    pub(super) fn kill_session(&mut self, key: u64) {
        // Before its program is executed it has no session of which anybody knows.
        self.give_up(key, "the process was ended before it was executed");
        let Some(process) = self.processes.get(&key) else { return };
        let leader = process.pid;
        if process.code.is_none() {
            let _ = process::kill(leader.as_raw(), libc::SIGKILL);
        }
        for _ in 0..8 {
            let members: Vec<i32> = self
                .cgroup
                .processes()
                .into_iter()
                .filter_map(|pid| i32::try_from(pid).ok())
                .filter(|pid| {
                    *pid != leader.as_raw() && alive(*pid).is_some_and(|known| known.session == leader.as_raw())
                })
                .collect();
            if members.is_empty() {
                return;
            }
            for pid in members {
                let _ = process::kill(pid, libc::SIGKILL);
            }
        }
    }
}

/// What is known of a process that has not ended: a zombie has nothing to kill.
fn alive(pid: i32) -> Option<Stat> {
    stat::of(pid).filter(|known| !known.zombie)
}
