//! The main loop: one poll(2) over the container's streams, the socket, its clients and the end of children.
//!
//! ```text
//!   container ──pipe/pty──> Process ──┬──> Log
//!       ^                     │       └──> every attached Client (a buffer each)
//!       └── stdin buffer <────┴─────────── the clients' input
//! ```
//!
//! One [`Server`], whose methods stand by what they are about; each file calls those after it in this list, never before:
//!
//! - here: the loop, what it waits for and until when;
//! - `request`: what clients ask for, and which of the following answers it;
//! - `exec`: processes started beside init;
//! - `lifecycle`: start, signals, pause, the ends of processes and of the container;
//! - `stdio`: bytes between processes, clients and the log;
//! - `client`: one connection, and its answers;
//! - `process`: one process, and its input.
//!
//! Nothing here waits. A client whose buffer is full holds up the process it listens to, as with Docker, so that no
//! output is lost to a slow pipe; one that takes nothing for [`RunnerConfig::stall_ms`] is cut off.

mod client;
mod exec;
mod lifecycle;
mod process;
mod request;
mod stdio;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use bireme_core::{ErrorKind, Exit};
use bireme_linux::cgroup::Cgroup;
use bireme_linux::protocol::{Failure, RunnerConfig, State};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec};

use self::client::{Client, Role};
use self::process::{INIT, Process, Which};
use crate::container::{self, Container};
use crate::exec::Pending;
use crate::{journal, output, trim_memory};

/// Bytes a client may lag behind before the process has to wait for it.
const CLIENT_BUFFER: usize = 256 << 10;
/// Bytes of input that wait for the process before the client has to wait.
const INPUT_BUFFER: usize = 64 << 10;
/// How long output is awaited after the end of init: something outside may hold the pipe.
const DRAIN: Duration = Duration::from_secs(2);

/// What one descriptor of the poll stands for, with the key of its process or client.
enum Token {
    Listener,
    Signals,
    Status,
    Pending(u64),
    Output(u64, Which),
    Input(u64),
    Client(u64),
}

/// See the module's head.
pub(crate) struct Server<'a> {
    config: &'a RunnerConfig,
    container: Container,
    cgroup: Cgroup,
    listener: UnixListener,
    signals: SignalFd,
    log: output::Log,
    clients: BTreeMap<u64, Client>,
    processes: BTreeMap<u64, Process>,
    /// Execs whose program is not executed yet, by the keys of their processes, and since when.
    pending: BTreeMap<u64, (Instant, Pending)>,
    /// The keys of the execs' processes, by the IDs that clients gave them.
    execs: HashMap<String, u64>,
    /// How the execs ended that have nothing more to say, the oldest first.
    past: VecDeque<(String, i32)>,
    /// Children that ended before their helper said whose they are.
    unclaimed: HashMap<Pid, i32>,
    /// The next key, of a client or a process.
    next: u64,
    start: Start,
    paused: bool,
    /// The container is to be deleted.
    killing: bool,
    /// Init was sent SIGKILL.
    killed: bool,
    /// When init ended; its output may not have.
    ended: Option<Instant>,
    /// The end as recorded, when all output was taken.
    exit: Option<Exit>,
    /// About to leave: wait for nothing.
    hurry: bool,
    /// When a client was last heard, until it is time to rest.
    awake: Option<Instant>,
    /// What is read goes through here.
    scratch: Vec<u8>,
}

/// How far the start of the container has come.
enum Start {
    Waiting,
    /// Let go; what the payload says so far.
    Underway(Vec<u8>),
    Done,
    Failed(Failure),
}

impl<'a> Server<'a> {
    /// Listens. From here on nothing may be left behind: [`Server::run`] clears up.
    pub(crate) fn new(config: &'a RunnerConfig, mut container: Container) -> Result<Self, Failure> {
        let failed =
            |what: &str, error: &dyn std::fmt::Display| Failure::new(ErrorKind::Internal, format!("{what}: {error}"));
        let mut set = SigSet::empty();
        set.add(Signal::SIGCHLD);
        nix::sys::signal::sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None)
            .map_err(|error| failed("cannot block SIGCHLD", &error))?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            .map_err(|error| failed("cannot make a signalfd", &error))?;
        let _ = std::fs::remove_file("runner.sock");
        // By its short name: the full one may be too long for a socket's address.
        let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
        let listener =
            UnixListener::bind("runner.sock").and_then(|socket| socket.set_nonblocking(true).map(|()| socket));
        rustix::process::umask(mask);
        let listener = listener.map_err(|error| failed("cannot listen on runner.sock", &error))?;
        let streams = std::mem::take(&mut container.streams);
        let init = Process { pid: container.pid, streams, input: Vec::new(), input_ends: false, code: None };
        Ok(Self {
            cgroup: Cgroup::new(&config.cgroup),
            log: output::Log::open(&config.log),
            config,
            container,
            listener,
            signals,
            clients: BTreeMap::new(),
            processes: BTreeMap::from([(INIT, init)]),
            pending: BTreeMap::new(),
            execs: HashMap::new(),
            past: VecDeque::new(),
            unclaimed: HashMap::new(),
            next: INIT + 1,
            start: Start::Waiting,
            paused: false,
            killing: false,
            killed: false,
            ended: None,
            exit: None,
            hurry: false,
            awake: Some(Instant::now()),
            scratch: vec![0; 32 << 10],
        })
    }

    pub(crate) fn state(&self) -> State {
        State {
            pid: self.container.pid.as_raw().unsigned_abs(),
            started: matches!(self.start, Start::Done),
            paused: self.paused,
            exit: self.exit.clone(),
        }
    }

    /// Serves until the container has ended and everything is handed out and released.
    pub(crate) fn run(&mut self) -> anyhow::Result<()> {
        // A child may have ended before SIGCHLD was blocked.
        self.reap();
        while !self.is_over() {
            self.turn()?;
        }
        container::remove_files(&self.config.run_dir);
        // No new clients; those who came in time get an answer.
        let _ = std::fs::remove_file("runner.sock");
        self.accept();
        let limit = Instant::now() + Duration::from_millis(200);
        while Instant::now() < limit && self.clients.values().any(|client| matches!(client.role, Role::Asking(_))) {
            self.hurry = true;
            self.turn()?;
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.exit.is_some() && self.clients.values().all(|client| client.buffer.is_empty())
    }

    fn turn(&mut self) -> anyhow::Result<()> {
        let (tokens, events) = {
            let interests = self.interests();
            let mut fds: Vec<PollFd<'_>> =
                interests.iter().map(|(_, fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
            let timeout = self.timeout().map(|limit| Timespec {
                tv_sec: limit.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: limit.subsec_nanos().into(),
            });
            match rustix::event::poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let events: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
            (interests.into_iter().map(|(token, ..)| token).collect::<Vec<_>>(), events)
        };
        for (token, event) in tokens.into_iter().zip(events) {
            if event.is_empty() {
                continue;
            }
            match token {
                Token::Listener => self.accept(),
                Token::Signals => {
                    while let Ok(Some(_)) = self.signals.read_signal() {}
                    self.reap();
                }
                Token::Status => self.on_status_readable(),
                Token::Pending(key) => self.on_pending_readable(key),
                Token::Output(key, which) => self.pump(key, which),
                Token::Input(key) => {
                    if let Some(process) = self.processes.get_mut(&key) {
                        process.feed();
                    }
                }
                Token::Client(key) => self.on_client_readable(key, event),
            }
        }
        self.check_deadlines();
        Ok(())
    }

    fn interests(&self) -> Vec<(Token, BorrowedFd<'_>, PollFlags)> {
        let mut list = vec![
            (Token::Listener, self.listener.as_fd(), PollFlags::IN),
            (Token::Signals, self.signals.as_fd(), PollFlags::IN),
        ];
        if matches!(self.start, Start::Underway(_)) {
            list.push((Token::Status, self.container.status.as_fd(), PollFlags::IN));
        }
        for (key, (_, pending)) in &self.pending {
            list.push((Token::Pending(*key), pending.socket.as_fd(), PollFlags::IN));
        }
        for (key, process) in &self.processes {
            let held_up =
                self.clients.values().any(|client| client.listens_to(*key) && client.buffer.len() >= CLIENT_BUFFER);
            // What an exec says before its client knows that it stands is kept in the pipe.
            if !held_up && !self.pending.contains_key(key) {
                for which in [Which::Out, Which::Err, Which::Terminal] {
                    if let Some(fd) = process.output(which) {
                        list.push((Token::Output(*key, which), fd.as_fd(), PollFlags::IN));
                    }
                }
            }
            if !process.input.is_empty()
                && let Some(fd) = process.streams.stdin.as_ref().or(process.streams.terminal.as_ref())
            {
                list.push((Token::Input(*key), fd.as_fd(), PollFlags::OUT));
            }
        }
        for (key, client) in &self.clients {
            let mut flags = PollFlags::empty();
            let reads = match &client.role {
                Role::Asking(_) => true,
                Role::Attached { process, stdin: true } => {
                    self.processes.get(process).is_some_and(|process| process.input.len() < INPUT_BUFFER)
                }
                // Whoever waits says nothing more; that it left is told by HUP.
                _ => false,
            };
            if reads {
                flags |= PollFlags::IN;
            }
            if !client.buffer.is_empty() {
                flags |= PollFlags::OUT;
            }
            list.push((Token::Client(*key), client.socket.as_fd(), flags));
        }
        list
    }

    /// Until something has to be looked at though nothing happened.
    fn timeout(&self) -> Option<Duration> {
        let stall = Duration::from_millis(self.config.stall_ms);
        let stalled =
            self.clients.values().filter(|client| !client.buffer.is_empty()).map(|client| client.moved + stall);
        let drained = self.ended.filter(|_| self.exit.is_none()).map(|ended| ended + DRAIN);
        let again = Duration::from_millis(if self.killing { 10 } else { 200 });
        let killing = self.kills().then(|| Instant::now() + again);
        let hurry = self.hurry.then(|| Instant::now() + Duration::from_millis(20));
        let rest = self.awake.map(|since| since + trim_memory::AFTER);
        let joined = self.pending.values().map(|(since, _)| self.joined_by(*since));
        let next = stalled.chain(drained).chain(killing).chain(hurry).chain(rest).chain(joined).min()?;
        Some(next.saturating_duration_since(Instant::now()) + Duration::from_millis(1))
    }

    /// Whether everything in the container is to end and its init has not.
    fn kills(&self) -> bool {
        (self.killing || self.killed) && self.ended.is_none()
    }

    fn check_deadlines(&mut self) {
        let now = Instant::now();
        let late: Vec<u64> =
            self.pending.iter().filter(|(_, (since, _))| self.joined_by(*since) <= now).map(|(key, _)| *key).collect();
        for key in late {
            self.give_up(
                key,
                "the process was not executed in time and is ended: another process may have stopped it; try again",
            );
        }
        if self.awake.is_some_and(|since| since.elapsed() >= trim_memory::AFTER) {
            self.awake = None;
            trim_memory::trim();
        }
        if self.kills() {
            self.cgroup.kill_once();
        }
        let stall = Duration::from_millis(self.config.stall_ms);
        let stalled: Vec<u64> = self
            .clients
            .iter()
            .filter(|(_, client)| !client.buffer.is_empty() && client.moved.elapsed() > stall)
            .map(|(key, _)| *key)
            .collect();
        for key in stalled {
            journal::note("a client took nothing for too long and was cut off");
            self.clients.remove(&key);
        }
        if let (Some(ended), None) = (self.ended, &self.exit) {
            let drained = self.processes.get(&INIT).is_none_or(|init| !init.has_output());
            if drained || ended.elapsed() > DRAIN {
                self.finish();
            }
        }
    }
}
