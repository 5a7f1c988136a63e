//! The main loop: one poll(2) over the container's streams, the socket, its clients and the end of children.
//!
//! ```text
//!   container ──pipe/pty──> Process ──┬──> Log
//!       ^                     │       └──> every attached Client (a buffer each)
//!       └── stdin buffer <────┴─────────── the clients' input
//! ```
//!
//! Nothing here waits. A client whose buffer is full holds up the process it listens to, as with Docker, so that no
//! output is lost to a slow pipe; one that takes nothing for [`RunnerConfig::stall_ms`] is cut off.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use bireme_core::clock::now_nanos;
use bireme_core::executor::ExecSpec;
use bireme_core::log_line::Stream;
use bireme_core::{ErrorKind, Exit};
use bireme_linux::cgroup::Cgroup;
use bireme_linux::protocol::{self, Failure, MAX_LINE, Reply, Request, RunnerConfig, State};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::container::{self, Container, Streams};
use crate::exec::{self, Pending};
use crate::stat::{self, Stat};
use crate::{journal, output, payload, raw, trim_memory};

/// Bytes a client may lag behind before the process has to wait for it.
const CLIENT_BUFFER: usize = 256 << 10;
/// Bytes of input that wait for the process before the client has to wait.
const INPUT_BUFFER: usize = 64 << 10;
/// How long output is awaited after the end of init: something outside may hold the pipe.
const DRAIN: Duration = Duration::from_secs(2);
/// How long an exec may take until its program is executed. It may have been stopped by another process of its user.
const JOINING: Duration = Duration::from_secs(45);
/// How long a pause waits for one: what is frozen on its way would leave its client without an answer.
const PAUSING: Duration = Duration::from_secs(5);
/// Ends of execs that are remembered.
const PAST: usize = 256;
/// The key of init among the processes.
const INIT: u64 = 0;

/// The container's init, or a process started beside it.
struct Process {
    pid: Pid,
    streams: Streams,
    input: Vec<u8>,
    /// Close standard input when what waits is written.
    input_ends: bool,
    code: Option<i32>,
}

impl Process {
    fn output(&self, which: Which) -> Option<&OwnedFd> {
        match which {
            Which::Out => self.streams.stdout.as_ref(),
            Which::Err => self.streams.stderr.as_ref(),
            Which::Terminal => self.streams.terminal.as_ref(),
        }
    }

    fn has_output(&self) -> bool {
        self.streams.stdout.is_some() || self.streams.stderr.is_some() || self.streams.terminal.is_some()
    }

    fn has_input(&self) -> bool {
        self.streams.stdin.is_some() || self.streams.terminal.is_some()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Out,
    Err,
    Terminal,
}

/// One connection.
struct Client {
    socket: UnixStream,
    role: Role,
    buffer: Vec<u8>,
    /// When it was last seen to take something, while something waits for it.
    moved: Instant,
}

enum Role {
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
    /// And since when.
    pending: BTreeMap<u64, (Instant, Pending)>,
    execs: HashMap<String, u64>,
    /// How the execs ended that have nothing more to say, the oldest first.
    past: VecDeque<(String, i32)>,
    /// Children that ended before their helper said whose they are.
    unclaimed: HashMap<Pid, i32>,
    next: u64,
    start: Start,
    paused: bool,
    killing: bool,
    /// Init was sent SIGKILL.
    killed: bool,
    ended: Option<Instant>,
    exit: Option<Exit>,
    /// About to leave: wait for nothing.
    hurry: bool,
    /// When a client was last heard, until it is time to rest.
    awake: Option<Instant>,
    scratch: Vec<u8>,
}

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
        let streams = std::mem::replace(
            &mut container.streams,
            Streams { stdin: None, stdout: None, stderr: None, terminal: None },
        );
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
                Token::Input(key) => self.feed(key),
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

    /// Until when an exec that began then has to stand.
    fn joined_by(&self, since: Instant) -> Instant {
        let pausing = self.clients.values().filter_map(|client| match client.role {
            Role::Pausing(since) => Some(since + PAUSING),
            _ => None,
        });
        pausing.chain([since + JOINING]).min().unwrap_or(since + JOINING)
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

    // Clients

    fn accept(&mut self) {
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

    fn on_client_readable(&mut self, key: u64, event: PollFlags) {
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

    /// A client left.
    fn forget(&mut self, key: u64) {
        let Some(client) = self.clients.remove(&key) else { return };
        if let Role::Attached { process, stdin: true } = client.role
            && (process != INIT || self.config.spec.stdin_once)
        {
            self.end_input(process);
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
                return self.take_input(INIT, &rest);
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

    fn turn_into(&mut self, key: u64, role: Role) {
        if let Some(client) = self.clients.get_mut(&key) {
            client.role = role;
        }
    }

    fn answer(&mut self, key: u64, reply: &Reply) {
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

    /// Writes what waits for a client, as far as it takes it.
    fn flush(&mut self, key: u64) {
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

    // Input

    fn read_input(&mut self, key: u64, process: u64, gone: bool) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        match client.socket.read(&mut self.scratch) {
            Ok(0) if gone => self.forget(key),
            Ok(0) => {
                // It said all it had to say, and goes on listening.
                client.role = Role::Attached { process, stdin: false };
                self.end_input(process);
            }
            Ok(count) => {
                let bytes = self.scratch[..count].to_vec();
                self.take_input(process, &bytes);
            }
            Err(error) if is_not_ready(&error) => {}
            Err(_) => self.forget(key),
        }
    }

    fn take_input(&mut self, key: u64, bytes: &[u8]) {
        if let Some(process) = self.processes.get_mut(&key)
            && process.has_input()
            && !process.input_ends
        {
            process.input.extend_from_slice(bytes);
            self.feed(key);
        }
    }

    /// A terminal has no end of input.
    fn end_input(&mut self, key: u64) {
        if let Some(process) = self.processes.get_mut(&key) {
            process.input_ends = process.streams.terminal.is_none();
            self.feed(key);
        }
    }

    /// Writes what waits to a process, as far as it takes it.
    fn feed(&mut self, key: u64) {
        let Some(process) = self.processes.get_mut(&key) else { return };
        let Some(fd) = process.streams.stdin.as_ref().or(process.streams.terminal.as_ref()) else {
            process.input.clear();
            return;
        };
        while !process.input.is_empty() {
            match rustix::io::write(fd, &process.input) {
                Ok(count) => drop(process.input.drain(..count)),
                Err(rustix::io::Errno::AGAIN) => return,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => {
                    // It reads no more.
                    process.input.clear();
                    process.streams.stdin = None;
                    return;
                }
            }
        }
        if process.input_ends {
            process.streams.stdin = None;
        }
    }

    // Output

    fn pump(&mut self, key: u64, which: Which) {
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
    fn close_if_done(&mut self, key: u64) {
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

    /// Kills an exec's process and what is in the session that it began. What it started may start more meanwhile, so it is
    /// looked at again until nothing is found.
    fn kill_session(&mut self, key: u64) {
        // Before its program is executed it has no session of which anybody knows.
        self.give_up(key, "the process was ended before it was executed");
        let Some(process) = self.processes.get(&key) else { return };
        let leader = process.pid;
        if process.code.is_none() {
            let _ = raw::kill(leader, libc::SIGKILL);
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
                let _ = raw::kill(Pid::from_raw(pid), libc::SIGKILL);
            }
        }
    }

    fn resize(&mut self, key: u64, columns: u16, rows: u16) -> Result<(), Failure> {
        let terminal = self.processes.get(&key).and_then(|process| process.streams.terminal.as_ref());
        let terminal = terminal
            .ok_or_else(|| Failure::new(ErrorKind::Conflict, "it has no terminal, or has ended: nothing to resize"))?;
        container::resize(terminal, columns, rows)
            .map_err(|error| Failure::new(ErrorKind::Internal, format!("cannot resize the terminal: {error}")))
    }

    // Life

    fn start(&mut self, key: u64) {
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
    fn on_status_readable(&mut self) {
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

    fn answer_all(&mut self, who: impl Fn(&Role) -> bool, reply: &Reply, leave: bool) {
        let keys: Vec<u64> = self.clients.iter().filter(|(_, client)| who(&client.role)).map(|(key, _)| *key).collect();
        for key in keys {
            if leave {
                self.turn_into(key, Role::Leaving);
            }
            self.answer(key, reply);
        }
    }

    fn alive(&self) -> Result<(), Failure> {
        if self.ended.is_some() {
            Err(Failure::new(ErrorKind::Conflict, "the container is not running"))
        } else {
            Ok(())
        }
    }

    fn signal(&mut self, number: i32) -> Result<(), Failure> {
        self.alive()?;
        if !(1..=64).contains(&number) {
            return Err(Failure::new(ErrorKind::Invalid, format!("there is no signal {number}")));
        }
        raw::kill(self.container.pid, number)
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

    fn pause(&mut self, pause: bool) -> Result<(), Failure> {
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

    fn exec(&mut self, key: u64, id: String, spec: &ExecSpec, rest: Vec<u8>) -> Result<(), Failure> {
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
        let nowhere = Streams { stdin: None, stdout: None, stderr: None, terminal: None };
        let waiting = Process { pid: pending.1.helper, streams: nowhere, input: rest, input_ends: false, code: None };
        self.processes.insert(process, waiting);
        self.pending.insert(process, pending);
        self.execs.insert(id, process);
        self.turn_into(key, Role::Joining(process));
        Ok(())
    }

    fn on_pending_readable(&mut self, key: u64) {
        if self.pending.get_mut(&key).is_some_and(|(_, pending)| pending.hear(&self.unclaimed)) {
            self.conclude(key);
        }
    }

    /// Ends an exec whose program is not executed yet, and tells its client `why`.
    fn give_up(&mut self, key: u64, why: &str) {
        let Some((_, pending)) = self.pending.get_mut(&key) else { return };
        // What it said in this very moment counts: it may stand.
        if !pending.hear(&self.unclaimed) {
            pending.failure = Some(Failure::new(ErrorKind::Unavailable, why));
            // All of these are children of this process or of the helper: as long as nobody has waited for them, their
            // numbers are theirs.
            let (helper, known) = (pending.helper, pending.pid);
            let end = |pid: Pid, number| {
                if !self.unclaimed.contains_key(&pid) {
                    let _ = raw::kill(pid, number);
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
        } else {
            self.end_input(key);
        }
        self.feed(key);
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

    fn reap(&mut self) {
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
    fn finish(&mut self) {
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
                process.streams = Streams { stdin: None, stdout: None, stderr: None, terminal: None };
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

impl Client {
    fn listens_to(&self, key: u64) -> bool {
        matches!(self.role, Role::Attached { process, .. } if process == key)
    }

    fn queue(&mut self, parts: &[&[u8]]) {
        if self.buffer.is_empty() {
            self.moved = Instant::now();
        }
        for part in parts {
            self.buffer.extend_from_slice(part);
        }
    }

    fn flush(&mut self) -> io::Result<()> {
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

/// What is known of a process that has not ended: a zombie has nothing to kill.
fn alive(pid: i32) -> Option<Stat> {
    stat::of(pid).filter(|known| !known.zombie)
}

fn is_not_ready(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn unknown_exec(id: &str) -> Failure {
    Failure::new(ErrorKind::NotFound, format!("no exec {id} was started in this container"))
}
