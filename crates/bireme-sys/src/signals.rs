//! Signals of this process: waited for, and as a program finds them that was just started.
#![expect(
    unsafe_code,
    reason = "neither sigwait with real-time signals nor the dispositions of all signals have a safe wrapper"
)]

use std::io;
use std::mem::MaybeUninit;

/// Waits for a signal of the calling thread or its process, a real-time one too, and answers its number. For a process that
/// blocks all of them: what is not blocked may be delivered instead.
///
/// # Errors
/// As sigwait(3), which knows none for a set that holds every signal.
pub fn wait_for_any() -> io::Result<i32> {
    let mut all = MaybeUninit::uninit();
    // SAFETY: writes the set, which is ours and large enough by its type.
    let all = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        all.assume_init()
    };
    let mut number = 0;
    // SAFETY: sigwait(3) reads the set and writes one number, and both live until it returns.
    match unsafe { libc::sigwait(&raw const all, &raw mut number) } {
        0 => Ok(number),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Gives every signal back its default, for a process that is to execute another program: Rust programs ignore SIGPIPE, a
/// daemon that was started by `nohup` or in the background of a script ignores others, and what is ignored stays so across
/// execve(2). A process that goes on without executing anything loses what the C library and Rust handle signals for.
///
/// Source: sigaction(2), signal(7).
pub fn reset_all() {
    /// Signals are numbered from 1.
    const LAST: libc::c_int = 64;
    /// The kernel's `struct sigaction`, or more: all zeros is `SIG_DFL` without flags.
    const DEFAULT: [u64; 4] = [0; 4];
    for number in 1..=LAST {
        // By the call itself: the C library keeps two of them to itself.
        // SAFETY: the kernel reads no more than the structure. No handler is installed, so none can run at a bad moment. What
        // cannot be set is refused.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, number, DEFAULT.as_ptr(), std::ptr::null::<u64>(), size_of::<u64>())
        };
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_real_time_signal_is_waited_for() {
        let got = std::thread::spawn(|| {
            let number = libc::SIGRTMIN() + 2;
            let mut all = MaybeUninit::uninit();
            // SAFETY: the set is written before it is read; the signal is this thread's own, and blocked.
            unsafe {
                libc::sigfillset(all.as_mut_ptr());
                libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), std::ptr::null_mut());
                libc::pthread_kill(libc::pthread_self(), number);
            }
            (number, wait_for_any().unwrap())
        });
        let (sent, received) = got.join().unwrap();
        assert_eq!(sent, received);
    }

    #[test]
    fn a_program_finds_no_signal_ignored() {
        let ignored = |reset: bool| {
            let mut program = Command::new("cat");
            program.arg("/proc/self/status");
            let before = move || {
                for number in [libc::SIGHUP, libc::SIGUSR1, libc::SIGRTMIN() + 1] {
                    // SAFETY: ignoring a signal runs no code of ours.
                    unsafe { libc::signal(number, libc::SIG_IGN) };
                }
                if reset {
                    reset_all();
                }
                Ok(())
            };
            // SAFETY: between fork and execution there are system calls alone.
            let output = unsafe { program.pre_exec(before) }.output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
            u64::from_str_radix(line.trim(), 16).unwrap()
        };
        assert_ne!(ignored(false), 0);
        assert_eq!(ignored(true), 0);
    }
}
