//! Processes by their numbers: copied, signalled, ended.
#![expect(unsafe_code, reason = "fork, kill with real-time signals, and _exit have no safe wrapper")]

use std::io;

/// Which side of [`fork`] this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// The copy.
    Child,
    /// The process that was copied, with the process ID of the copy in the namespace of this one.
    Parent(i32),
}

/// Copies this process, which has to have one thread: of several only the caller would be copied, and the copy would wait for
/// locks that nobody in it holds, and use memory that is another thread's stack. The threads are counted in `/proc`, so there
/// has to be one that knows this process.
///
/// # Errors
/// [`io::ErrorKind::ResourceBusy`] when there are other threads; those of reading `/proc/self/task`; `EAGAIN` and `ENOMEM` of
/// the kernel.
///
/// Source: fork(2); signal-safety(7).
pub fn fork() -> io::Result<Fork> {
    only_thread()?;
    // SAFETY: the caller is the only thread. It was counted just now, and nobody but itself could have started another since.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        child => Ok(Fork::Parent(child)),
    }
}

/// That the calling thread is the only one of its process.
pub(crate) fn only_thread() -> io::Result<()> {
    match std::fs::read_dir("/proc/self/task")?.take(2).count() {
        1 => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::ResourceBusy, "this process has other threads")),
    }
}

/// Sends signal number `signal` to the process `pid`, a real-time signal too; 0 only asks whether it is there. Only for
/// processes whose number cannot have become another's: children that nobody has waited for. For others there is
/// [`crate::pidfd`].
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] for 0 and below, by which kill(2) means groups and everybody; `EINVAL` when there is no such
/// signal; `ESRCH` when there is no such process.
///
/// Source: kill(2).
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    if pid <= 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a process is signalled by a positive number"));
    }
    // SAFETY: kill(2) takes two numbers and touches no memory of ours.
    let result = unsafe { libc::kill(pid, signal) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Ends this process with exit code `code` and runs nothing that was kept for its end: what is buffered is not written. For one
/// whose copy goes on with all that.
///
/// Source: _exit(2).
pub fn exit_at_once(code: i32) -> ! {
    // SAFETY: ends the process; whatever it holds, the kernel takes back.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    use rustix::process::{Pid, WaitOptions, waitpid};

    use super::*;

    fn code_of(child: i32) -> Option<i32> {
        let (_, status) = waitpid(Pid::from_raw(child), WaitOptions::empty()).unwrap().unwrap();
        status.exit_status()
    }

    /// Whether `work` holds in a copy of this process, which has one thread where tests have several.
    pub(crate) fn holds_in_a_copy(work: impl FnOnce() -> bool) -> bool {
        // SAFETY: the copy runs `work` alone and ends. The C library gives it a heap that works, and `work` takes no lock that
        // another test may have held.
        match unsafe { libc::fork() } {
            0 => {
                let held = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
                exit_at_once(i32::from(!held.unwrap_or(false)))
            }
            child => code_of(child) == Some(0),
        }
    }

    #[test]
    fn only_a_process_of_one_thread_is_copied() {
        std::thread::scope(|scope| {
            let (until, wait) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || wait.recv());
            assert_eq!(fork().unwrap_err().kind(), io::ErrorKind::ResourceBusy);
            drop(until);
        });
        assert!(holds_in_a_copy(|| match fork().unwrap() {
            Fork::Child => exit_at_once(7),
            Fork::Parent(child) => code_of(child) == Some(7),
        }));
    }

    #[test]
    fn one_process_gets_the_signal_and_nobody_else() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        for several in [0, -1, -pid] {
            assert_eq!(kill(several, libc::SIGKILL).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
        assert_eq!(kill(pid, 65).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        kill(pid, 0).unwrap();
        kill(pid, libc::SIGRTMIN() + 3).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGRTMIN() + 3));
    }
}
