//! The last steps inside the container: find the program, put the process in order, execute.
//!
//! How that went is told through a socket that the execution closes: nothing means it worked, one [`Failure`] as JSON
//! that it did not.

use std::ffi::{CStr, CString};
use std::os::fd::{OwnedFd, RawFd};
use std::path::Path;
use std::rc::Rc;

use bireme_core::ErrorKind;
use bireme_linux::protocol::Failure;
use bireme_sys::process::{self, Fork};
use bireme_sys::signals;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::unistd::{Pid, execve};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::WaitOptions;

use crate::filter::{Filter, TemporaryCaps};
use crate::raw;

/// A program to be executed.
#[derive(Clone)]
pub(crate) struct Payload {
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
    /// Where a failure is written; closed by execution.
    pub(crate) status: Rc<OwnedFd>,
    /// A pidfd of the runner, to see whether it is still there.
    pub(crate) runner: Option<Rc<OwnedFd>>,
    /// Loaded when all but the program is there, and what was lent for that.
    pub(crate) filter: Option<(Rc<Filter>, Option<TemporaryCaps>)>,
    /// Stay as process 1, forward signals and reap orphans, and run the program as a child.
    pub(crate) init: bool,
}

impl Payload {
    /// Never returns when it works.
    fn run(&self) -> Failure {
        let (args, env) = match (strings(&self.args), strings(&self.env)) {
            (Ok(args), Ok(env)) => (args, env),
            _ => return Failure::new(ErrorKind::Invalid, "an argument or environment variable holds a zero byte"),
        };
        if self.init {
            // Before there is a program that anyone could mean: a signal that process 1 neither blocks nor handles is lost.
            let _ = nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None);
            match raw::fork() {
                Ok(Fork::Child) => {}
                Ok(Fork::Parent(child)) => be_init(Pid::from_raw(child)),
                Err(error) => {
                    return Failure::new(ErrorKind::Unavailable, format!("cannot start the program: {error}"));
                }
            }
            let _ = rustix::process::setpgid(None, None);
            // Still blocked: SIGTTOU, which this would earn otherwise.
            let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), rustix::process::getpid());
        }
        signals::reset_all();
        let _ = nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
        execute(&args, &env)
    }
}

/// Finds and executes the first of `args`; gives back why it could not.
fn execute(args: &[CString], env: &[CString]) -> Failure {
    let name = args[0].to_string_lossy().into_owned();
    let fail = |code: i32, why: &str| {
        let kind = if code == 127 { ErrorKind::NotFound } else { ErrorKind::Invalid };
        Failure::new(kind, format!("exec: {name:?}: {why}")).with_exit_code(code)
    };
    let attempt = |path: &CStr| match execve(path, args, env) {
        Err(errno) => errno,
        Ok(never) => match never {},
    };
    let path_of = |errno: Errno| match errno {
        Errno::ENOENT | Errno::ENOTDIR => {
            // The file itself may be there: then it is what its first line names, or its loader.
            let why = if Path::new(&name).exists() {
                "no such file or directory (its interpreter or loader)"
            } else {
                "no such file or directory"
            };
            fail(127, why)
        }
        Errno::EACCES | Errno::EPERM => fail(126, "permission denied"),
        other => fail(126, &other.desc().to_lowercase()),
    };
    if name.contains('/') {
        return path_of(attempt(&args[0]));
    }
    let path = env.iter().find_map(|entry| entry.to_str().ok()?.strip_prefix("PATH=")).unwrap_or("");
    let mut denied = false;
    for folder in path.split(':') {
        let folder = if folder.is_empty() { "." } else { folder };
        let candidate = format!("{folder}/{name}");
        // A folder of that name is no program.
        if Path::new(&candidate).is_dir() {
            continue;
        }
        let Ok(candidate) = CString::new(candidate) else { continue };
        match attempt(&candidate) {
            Errno::ENOENT | Errno::ENOTDIR => {}
            Errno::EACCES => denied = true,
            other => return path_of(other),
        }
    }
    if denied { fail(126, "permission denied") } else { fail(127, "executable file not found in $PATH") }
}

fn strings(list: &[String]) -> Result<Vec<CString>, std::ffi::NulError> {
    list.iter().map(|text| CString::new(text.as_str())).collect()
}

/// Process 1 of a container with `--init`: forwards what it gets, reaps what is left to it, ends as `child` ends.
///
/// No other program is executed for it, so none has to be put into the container. What it holds open is closed here,
/// since nothing else will. Every signal is blocked.
fn be_init(child: Pid) -> ! {
    let open: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")
        .map(|entries| entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
        .unwrap_or_default();
    for fd in open.into_iter().filter(|fd| *fd > 2) {
        let _ = nix::unistd::close(fd);
    }
    let _ = rustix::thread::set_name(c"docker-init");
    loop {
        while let Ok(Some((pid, code))) = next_ended() {
            if pid == child {
                std::process::exit(code);
            }
        }
        match signals::wait_for_any() {
            Ok(libc::SIGCHLD) | Err(_) => {}
            Ok(number) => drop(process::kill(child.as_raw(), number)),
        }
    }
}

/// A child that has ended, and the exit code that Docker would give it; nothing when none has.
///
/// Not nix's waitpid(2), which cannot tell of a child that a real-time signal ended, and has waited for it all the same.
pub(crate) fn next_ended() -> rustix::io::Result<Option<(Pid, i32)>> {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                let signal = || status.terminating_signal().map(|signal| 128 + signal);
                if let Some(code) = status.exit_status().or_else(signal) {
                    return Ok(Some((Pid::from_raw(pid.as_raw_pid()), code)));
                }
            }
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

impl Payload {
    /// Executes, or writes why not.
    pub(crate) fn run_or_report(&self) -> Failure {
        let failure = self.run();
        report(&self.status, &failure);
        if self.init {
            // A child of process 1, which ends as this one does.
            std::process::exit(failure.exit_code.unwrap_or(1));
        }
        failure
    }
}

/// Whether the working directory lies below the root of this process (CVE-2024-21626).
///
/// The kernel names a folder that does not `(unreachable)`, and no link or number in `/proc` changes that. The C library
/// must not be asked: it takes such an answer for a failure, looks for the name itself, and may find `/`.
///
/// Source: getcwd(2), "C library/kernel differences".
pub(crate) fn stands_inside() -> bool {
    rustix::process::getcwd(Vec::new()).is_ok_and(|path| path.to_bytes().starts_with(b"/"))
}

/// Writes `failure` to where the runner reads it.
pub(crate) fn report(status: &OwnedFd, failure: &Failure) {
    if let Ok(text) = serde_json::to_vec(failure) {
        let _ = rustix::io::write(status, &text);
    }
}

impl Executor for Payload {
    /// Runs in init, when it is all but the program already.
    fn validate(&self, _spec: &oci_spec::runtime::Spec) -> Result<(), ExecutorValidationError> {
        let fail = |why: &str| Err(ExecutorValidationError::ArgValidationError(why.to_owned()));
        // As in `exec.rs`: processes of a container whose PID namespace is shared see this one.
        if rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).is_err() {
            return fail("cannot close the process to others");
        }
        if !stands_inside() {
            return fail("the working directory (cwd) leads out of the container; choose another one");
        }
        // A container must not outlive its runner. Whoever became another user lost this, hence not earlier.
        if rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).is_err() {
            return fail("cannot bind the container's life to its runner's");
        }
        // It may have died just before.
        if let Some(runner) = &self.runner {
            let mut ended = [PollFd::new(runner, PollFlags::IN)];
            if !matches!(rustix::event::poll(&mut ended, Some(&Timespec::default())), Ok(0)) {
                return fail("the runner is gone");
            }
        }
        if let Some((filter, lent)) = &self.filter {
            if let Err(error) = filter.load() {
                return fail(&format!("cannot load the seccomp profile: {error}"));
            }
            if let Some(Err(error)) = lent.map(TemporaryCaps::release) {
                return fail(&format!("cannot drop capabilities, which the seccomp profile may forbid: {error}"));
            }
        }
        Ok(())
    }

    /// The environment is given to execve(2) itself, in its order.
    fn setup_envs(&self, _envs: std::collections::HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }

    fn exec(&self, _spec: &oci_spec::runtime::Spec) -> Result<(), ExecutorError> {
        Err(ExecutorError::Other(self.run_or_report().message))
    }
}
