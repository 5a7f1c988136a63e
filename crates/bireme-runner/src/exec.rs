//! One more process inside the container.
//!
//! ```text
//! runner ── fork ──> helper: cgroup, namespaces, folder, seccomp, user, capabilities ── fork ──> process: session, execve
//!    ^                  └─ tells its pid, ends                                           │
//!    └──────── one socket: pid, terminal, failure; its end is success ───────────────────┘
//! ```
//!
//! The helper is not in the container's PID namespace: nobody inside can name it. Only what is left when it has given up
//! everything is forked into that namespace, where root with `CAP_SYS_PTRACE` may take it over at once.
//!
//! libcontainer's own way of joining leaves the seccomp filter out, and would hold up the runner for as long as it takes.

use std::collections::HashMap;
use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::rc::Rc;

use bireme_core::executor::ExecSpec;
use bireme_core::{ErrorKind, WorkloadSpec};
use bireme_linux::cgroup::Cgroup;
use bireme_linux::protocol::{Failure, RunnerConfig};
use bireme_linux::{spec, users};
use bireme_sys::process::{self, Fork};
use libcontainer::syscall::syscall::create_syscall;
use nix::sched::CloneFlags;
use nix::unistd::Pid;
use oci_spec::runtime::LinuxCapabilities;
use rustix::fs::{Mode, OFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};
use rustix::process::PidfdFlags;
use rustix::pty::OpenptFlags;

use crate::container::{self, Container};
use crate::payload::Payload;
use crate::streams::{self, Ends, Streams};
use crate::{raw, stat};

/// A process that is on its way.
pub(crate) struct Pending {
    pub(crate) socket: OwnedFd,
    pub(crate) helper: Pid,
    pub(crate) pid: Option<Pid>,
    pub(crate) streams: Streams,
    pub(crate) failure: Option<Failure>,
    /// It was asked for a terminal.
    tty: bool,
}

/// What helper and process say, beside the descriptor of a terminal.
const PID: u8 = b'p';
const TERMINAL: u8 = b't';

fn unavailable(what: &str, error: impl std::fmt::Display) -> Failure {
    Failure::new(ErrorKind::Unavailable, format!("{what}: {error}"))
}

/// Begins. The answer comes through [`Pending::socket`].
pub(crate) fn begin(config: &RunnerConfig, container: &Container, exec: &ExecSpec) -> Result<Pending, Failure> {
    match exec.args.first() {
        None => return Err(Failure::new(ErrorKind::Invalid, "no exec command specified")),
        Some(program) if program.is_empty() => {
            return Err(Failure::new(ErrorKind::Invalid, "the exec command is empty"));
        }
        Some(_) => {}
    }
    if exec.cwd.as_deref().is_some_and(|cwd| !cwd.is_empty() && !cwd.starts_with('/')) {
        return Err(Failure::new(ErrorKind::Invalid, "the working directory of exec needs to be an absolute path"));
    }
    let flags = SocketFlags::CLOEXEC;
    let (socket, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .map_err(|error| unavailable("cannot make a socket", error))?;
    let init = rustix::process::Pid::from_raw(container.pid.as_raw())
        .ok_or_else(|| Failure::new(ErrorKind::Internal, "the container has no init"))?;
    let init = rustix::process::pidfd_open(init, PidfdFlags::empty())
        .map_err(|error| unavailable("cannot reach the container", error))?;
    let (streams, ends) = if exec.tty {
        (Streams::default(), None)
    } else {
        let (mut streams, ends) = streams::pipes(0, true).map_err(|error| unavailable("cannot make pipes", error))?;
        if !exec.stdin {
            // A pipe that has ended, unless the container has something better: nothing of the machine's own files.
            streams.stdin = None;
        }
        (streams, Some(ends))
    };
    let joining = Joining { config, container, exec, init, status: Rc::new(theirs), ends };
    match process::fork().map_err(|error| unavailable("cannot start a process", error))? {
        Fork::Child => joining.helper(),
        Fork::Parent(helper) => {
            rustix::io::ioctl_fionbio(&socket, true).map_err(|error| unavailable("cannot set up a socket", error))?;
            Ok(Pending { socket, helper: Pid::from_raw(helper), pid: None, streams, failure: None, tty: exec.tty })
        }
    }
}

impl Pending {
    /// Whether a process was made by the helper, or is ours because the helper has ended.
    fn is_of_helper(&self, pid: Pid) -> bool {
        stat::of(pid.as_raw()).is_some_and(|known| [self.helper, Pid::this()].contains(&Pid::from_raw(known.parent)))
    }

    /// Takes what was said; true when all was. `waited_for`: processes of ours that have ended.
    pub(crate) fn hear(&mut self, waited_for: &HashMap<Pid, i32>) -> bool {
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut buffer = vec![0u8; 16 << 10];
            let mut slices = [IoSliceMut::new(&mut buffer)];
            match rustix::net::recvmsg(&self.socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Ok(got) if got.bytes == 0 => return true,
                Ok(got) => {
                    let terminal = control.drain().find_map(|message| match message {
                        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
                        _ => None,
                    });
                    match (buffer[0], terminal) {
                        (TERMINAL, Some(terminal)) => {
                            // What comes from inside could keep this process waiting, or busy for ever.
                            let usable = self.tty
                                && is_terminal(&terminal)
                                && rustix::io::ioctl_fionbio(&terminal, true).is_ok();
                            self.streams.terminal = self.streams.terminal.take().or(usable.then_some(terminal));
                        }
                        (PID, _) => {
                            let text = String::from_utf8_lossy(&buffer[1..got.bytes]).into_owned();
                            let told = text.parse().ok().map(Pid::from_raw);
                            // The socket is open in the container as well, until the execution.
                            let ours = |pid: &Pid| waited_for.contains_key(pid) || self.is_of_helper(*pid);
                            self.pid = self.pid.or(told.filter(ours));
                        }
                        _ => self.failure = serde_json::from_slice(&buffer[..got.bytes]).ok().or(self.failure.take()),
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return false,
                Err(_) => return true,
            }
        }
    }
}

struct Joining<'a> {
    config: &'a RunnerConfig,
    container: &'a Container,
    exec: &'a ExecSpec,
    init: OwnedFd,
    status: Rc<OwnedFd>,
    ends: Option<Ends>,
}

impl Joining<'_> {
    fn spec(&self) -> &WorkloadSpec {
        &self.config.spec
    }

    fn send(&self, message: &[u8]) {
        let _ = rustix::io::write(&*self.status, message);
    }

    fn helper(self) -> ! {
        let code = match self.join() {
            Ok(()) => 0,
            Err(failure) => {
                crate::payload::report(&self.status, &failure);
                1
            }
        };
        std::process::exit(code)
    }

    fn join(&self) -> Result<(), Failure> {
        // Until its own program is executed, no process of the container may look into it or take it over: it may still
        // have capabilities that they have not. execve(2) takes this back. Source: CVE-2016-9962, prctl(2).
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
            .map_err(|error| unavailable("cannot close the process to others", error))?;
        self.close_others();
        // First of all, so that whatever follows is within the container's limits.
        Cgroup::new(&self.config.cgroup)
            .join(std::process::id())
            .map_err(|error| unavailable("cannot join the container's cgroup", error))?;
        for limit in &self.spec().resources.ulimits {
            if let Some(kind) = container::resource(&limit.name) {
                nix::sys::resource::setrlimit(kind, limit.soft, limit.hard)
                    .map_err(|error| unavailable("cannot set a limit", error))?;
            }
        }
        let score = self.spec().resources.oom_score_adj.unwrap_or(0);
        let _ = fs::write("/proc/self/oom_score_adj", score.to_string());
        let all = CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWCGROUP;
        nix::sched::setns(&self.init, all)
            .map_err(|error| unavailable("cannot join the container's namespaces", error))?;
        let payload = self.become_user()?;
        let refused = "cannot start a process in the container, which its seccomp profile or its limits may forbid";
        match raw::fork().map_err(|error| unavailable(refused, error))? {
            Fork::Child => {
                let failure = match self.begin_session() {
                    Err(error) => {
                        let failure = unavailable("cannot begin a session", error);
                        crate::payload::report(&self.status, &failure);
                        failure
                    }
                    Ok(()) => payload.run_or_report(),
                };
                std::process::exit(failure.exit_code.unwrap_or(126))
            }
            Fork::Parent(pid) => {
                self.send(format!("{}{pid}", PID as char).as_bytes());
                Ok(())
            }
        }
    }

    /// In the process itself, which has nothing but the container's rights.
    fn begin_session(&self) -> io::Result<()> {
        nix::unistd::setsid()?;
        if self.ends.is_none() {
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
        }
        Ok(())
    }

    /// What the runner has open is none of the container's business, not even for a moment.
    fn close_others(&self) {
        let mut keep: Vec<RawFd> = vec![0, 1, 2, self.init.as_raw_fd(), self.status.as_raw_fd()];
        if let Some(ends) = &self.ends {
            keep.extend([ends.stdin.as_raw_fd(), ends.stdout.as_raw_fd(), ends.stderr.as_raw_fd()]);
        }
        let open: Vec<RawFd> = fs::read_dir("/proc/self/fd")
            .map(|entries| entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
            .unwrap_or_default();
        for fd in open.into_iter().filter(|fd| !keep.contains(fd)) {
            let _ = nix::unistd::close(fd);
        }
    }

    /// Among the container's files, of which nothing is trusted: everything that takes rights, and then gives those up.
    fn become_user(&self) -> Result<Payload, Failure> {
        let internal = |what: &str, error: &dyn std::fmt::Display| unavailable(what, error);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open("/", flags, Mode::empty())
            .map_err(|error| internal("cannot open the container's root", &error))?;
        let name = self.exec.user.as_deref().filter(|user| !user.is_empty()).unwrap_or(&self.spec().user);
        let user = users::resolve(&root, name, &self.spec().security.group_add)
            .map_err(|failure| failure.with_exit_code(126))?;
        // Not to be reached as a working directory by its number.
        drop(root);
        self.streams(user.uid).map_err(|error| internal("cannot set up the streams", &error))?;

        let cwd = self.exec.cwd.as_deref().filter(|cwd| !cwd.is_empty()).unwrap_or(&self.spec().cwd);
        let cwd = if cwd.is_empty() { "/" } else { cwd };
        let enter = || rustix::process::chdir(cwd);
        // Some folders only the user may enter (a network file system), some only root.
        let later = match enter() {
            Ok(()) => false,
            Err(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) => true,
            Err(error) => return Err(chdir_failed(cwd, error)),
        };
        let syscall = create_syscall();
        syscall.close_range(0).map_err(|error| internal("cannot close descriptors", &error))?;

        let security = &self.spec().security;
        let filter = || match &self.container.filter {
            Some(filter) => filter.load().map_err(|error| internal("cannot set the seccomp profile", &error)),
            None => Ok(()),
        };
        if security.no_new_privileges {
            rustix::thread::set_no_new_privs(true)
                .map_err(|error| internal("cannot give up new privileges", &error))?;
        } else {
            // Without the bit this is privileged, so it comes before the privileges go.
            filter()?;
        }
        let groups: Vec<nix::unistd::Gid> = user.groups.iter().map(|gid| nix::unistd::Gid::from_raw(*gid)).collect();
        let (uid, gid) = (nix::unistd::Uid::from_raw(user.uid), nix::unistd::Gid::from_raw(user.gid));
        rustix::thread::set_keep_capabilities(true).map_err(|error| internal("cannot keep capabilities", &error))?;
        nix::unistd::setgroups(&groups)
            .and_then(|()| nix::unistd::setresgid(gid, gid, gid))
            .and_then(|()| nix::unistd::setresuid(uid, uid, uid))
            .map_err(|error| internal("cannot become the user", &error))?;
        rustix::thread::set_keep_capabilities(false).map_err(|error| internal("cannot drop capabilities", &error))?;
        libcontainer::capabilities::reset_effective(&*syscall)
            .map_err(|error| internal("cannot drop capabilities", &error))?;
        let capabilities = self.capabilities()?;
        libcontainer::capabilities::drop_privileges(&capabilities, &*syscall)
            .map_err(|error| internal("cannot drop capabilities", &error))?;
        if later {
            enter().map_err(|error| chdir_failed(cwd, error))?;
        }
        if !crate::payload::stands_inside() {
            return Err(chdir_failed(cwd, rustix::io::Errno::NOENT));
        }
        // Another user is another's process, and may be looked into again.
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
            .map_err(|error| internal("cannot close the process to others", &error))?;
        if security.no_new_privileges {
            filter()?;
        }
        Ok(Payload {
            args: self.exec.args.clone(),
            env: spec::environment(self.spec(), &user, self.exec.tty, &self.exec.env),
            status: Rc::clone(&self.status),
            runner: None,
            filter: None,
            init: false,
        })
    }

    fn capabilities(&self) -> Result<LinuxCapabilities, Failure> {
        let mut security = self.spec().security.clone();
        security.privileged |= self.exec.privileged;
        let names: Vec<String> = spec::capabilities(&security, self.container.capabilities)?
            .iter()
            .map(|name| format!("CAP_{name}"))
            .collect();
        let sets = serde_json::json!({ "bounding": names, "effective": names, "permitted": names, "inheritable": [], "ambient": [] });
        serde_json::from_value(sets).map_err(|error| unavailable("cannot name the capabilities", error))
    }

    fn streams(&self, uid: u32) -> io::Result<()> {
        let owner = Some(rustix::fs::Uid::from_raw(uid));
        if let Some(ends) = &self.ends {
            for (end, pipe) in [(&ends.stdin, self.exec.stdin), (&ends.stdout, true), (&ends.stderr, true)] {
                if uid != 0 && pipe {
                    rustix::fs::fchown(end, owner, None)?;
                }
            }
            match if self.exec.stdin { None } else { null_inside() } {
                Some(null) => rustix::stdio::dup2_stdin(&null)?,
                None => rustix::stdio::dup2_stdin(&ends.stdin)?,
            }
            rustix::stdio::dup2_stdout(&ends.stdout)?;
            rustix::stdio::dup2_stderr(&ends.stderr)?;
            return Ok(());
        }
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let master = rustix::fs::open("/dev/pts/ptmx", flags, Mode::empty())?;
        if !is_terminal(&master) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "/dev/pts/ptmx in the container is not a terminal device",
            ));
        }
        rustix::pty::unlockpt(&master)?;
        let slave =
            rustix::pty::ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        rustix::fs::fchown(&slave, owner, None)?;
        if let Some((columns, rows)) = self.exec.size {
            streams::resize(&master, columns, rows)?;
        }
        rustix::io::ioctl_fionbio(&master, true)?;
        rustix::stdio::dup2_stdin(&slave)?;
        rustix::stdio::dup2_stdout(&slave)?;
        rustix::stdio::dup2_stderr(&slave)?;
        let fds = [master.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&fds));
        rustix::net::sendmsg(&*self.status, &[IoSlice::new(&[TERMINAL])], &mut control, SendFlags::empty())?;
        Ok(())
    }
}

/// Whether it is a terminal of the kernel's, not a file that looks like one (CVE-2025-52565).
fn is_terminal(file: &OwnedFd) -> bool {
    const DEVPTS: u64 = 0x1cd1;
    rustix::fs::fstatfs(file).is_ok_and(|about| u64::try_from(about.f_type) == Ok(DEVPTS))
}

/// The container's `/dev/null`, where it has one. The machine's would be handed over with its inode: root inside owns that,
/// and could take the permission to use it from everybody on the machine.
///
/// Source: `reOpenDevNull` of runc.
fn null_inside() -> Option<OwnedFd> {
    // Whatever stands there: neither waited for, nor followed, nor taken for a terminal.
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::open("/dev/null", flags, Mode::empty()).ok()?;
    let stat = rustix::fs::fstat(&file).ok()?;
    let is_null = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::CharacterDevice
        && stat.st_rdev == rustix::fs::makedev(1, 3);
    (is_null && rustix::fs::fcntl_setfl(&file, OFlags::empty()).is_ok()).then_some(file)
}

fn chdir_failed(cwd: &str, error: rustix::io::Errno) -> Failure {
    let code = if error == rustix::io::Errno::ACCESS { 126 } else { 127 };
    let why = io::Error::from(error);
    Failure::new(ErrorKind::Invalid, format!("chdir to cwd ({cwd:?}) failed: {why}; choose a folder of the container"))
        .with_exit_code(code)
}
