//! The few calls for which no safe wrapper exists. This process has one thread, which is what makes them sound.
#![expect(
    unsafe_code,
    reason = "fork, inherited descriptors, kill and sigwait with real-time signals, signal dispositions, seccomp and what gives memory back have no safe wrapper"
)]

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

use nix::sys::signal::SigSet;
use nix::unistd::Pid;

/// Which side of [`fork`] this is.
pub(crate) enum Fork {
    Child,
    Parent(Pid),
}

/// Copies this process.
pub(crate) fn fork() -> io::Result<Fork> {
    // SAFETY: no other thread exists in a runner, so no lock can be held by one that the child lacks.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Child => Ok(Fork::Child),
        nix::unistd::ForkResult::Parent { child } => Ok(Fork::Parent(child)),
    }
}

/// The descriptor `number`, which whoever executed this program left open for it.
pub(crate) fn inherited(number: i32) -> OwnedFd {
    // SAFETY: nothing else in this program knows the number, which it is told as it begins.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Sends signal `number`, a real-time one too.
pub(crate) fn kill(pid: Pid, number: i32) -> io::Result<()> {
    // SAFETY: kill(2) takes two numbers and touches no memory of ours.
    let result = unsafe { libc::kill(pid.as_raw(), number) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Waits for a signal out of `set`, all of which are to be blocked; a real-time one too, for which nix has no name.
pub(crate) fn next_signal(set: &SigSet) -> io::Result<i32> {
    let mut number = 0;
    // SAFETY: sigwait(3) reads the set and writes one number, and both live until it returns.
    match unsafe { libc::sigwait(set.as_ref(), &raw mut number) } {
        0 => Ok(number),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Gives every signal back its default: Rust programs ignore SIGPIPE, a daemon that was started by `nohup` or in the
/// background of a script ignores others, and what is ignored stays so across execve(2).
pub(crate) fn default_signals() {
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

/// Loads a seccomp filter into this thread: `program` is a classic BPF program as the kernel has it in memory.
pub(crate) fn load_filter(program: &[u8], flags: u32) -> io::Result<()> {
    let instructions: Vec<libc::sock_filter> = program
        .as_chunks::<8>()
        .0
        .iter()
        .map(|&[a, b, jt, jf, k0, k1, k2, k3]| libc::sock_filter {
            code: u16::from_ne_bytes([a, b]),
            jt,
            jf,
            k: u32::from_ne_bytes([k0, k1, k2, k3]),
        })
        .collect();
    let len = u16::try_from(instructions.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len, filter: instructions.as_ptr().cast_mut() };
    // SAFETY: the kernel reads `len` instructions from `filter`, which lives until the call is over, and writes nothing.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives back to the kernel what the heap has free, wherever it lies.
pub(crate) fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) touches free memory alone, and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Lets go of the pages of a mapping; whatever is touched later is read from its file again.
///
/// `mapping` is one that `/proc/self/smaps` calls mapped from a file, not writable, and without anonymous pages.
pub(crate) fn discard_pages(mapping: std::ops::Range<usize>) {
    // SAFETY: the pages hold what the file holds, since the mapping was never written to, so reading them again gives the
    // same bytes.
    unsafe {
        libc::madvise(mapping.start as *mut libc::c_void, mapping.len(), libc::MADV_DONTNEED);
    }
}
