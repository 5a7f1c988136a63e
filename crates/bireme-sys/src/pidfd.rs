//! Processes that are not our children, signalled and watched without races with the reuse of process IDs.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags};

/// Opens process `pid`. The descriptor becomes readable when the process ends: in tokio, watch it with `AsyncFd`.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] for 0; `ESRCH` when there is no such process.
///
/// Source: pidfd_open(2), Linux 5.3.
pub fn open(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// Sends signal number `signal`.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] when there is no such signal; `ESRCH` when the process has ended and was waited for.
pub fn signal(process: impl AsFd, signal: i32) -> io::Result<()> {
    let signal = rustix::process::Signal::from_named_raw(signal).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_send_signal(process, signal)?)
}

/// Blocks until the process ended, at most `limit` (`None` for ever); answers whether it did.
///
/// # Errors
/// As poll(2).
pub fn wait(process: impl AsFd, limit: Option<Duration>) -> io::Result<bool> {
    let deadline = limit.map(|limit| std::time::Instant::now() + limit);
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(std::time::Instant::now()));
        let timeout = left.map(Timespec::try_from).transpose().map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut watched = [PollFd::new(&process, PollFlags::IN)];
        match rustix::event::poll(&mut watched, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            answer => return Ok(answer? > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_seen() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = open(child.id()).unwrap();
        assert!(!wait(&process, Some(Duration::ZERO)).unwrap());
        signal(&process, 9).unwrap();
        assert!(wait(&process, Some(Duration::from_secs(10))).unwrap());
        child.wait().unwrap();
    }
}
