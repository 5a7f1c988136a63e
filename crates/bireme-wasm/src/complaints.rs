//! What a host process says on its standard error, kept in `host.log`.
//!
//! It comes through a named pipe, of which the daemon takes [`MOST`] bytes in the life of a host and no more: a file that a
//! host could write to would grow as long as whoever has taken it over likes, and it lies in memory. Nobody reads after
//! that, as while no daemon runs, and what is said is lost; the next daemon opens the pipe again. Writing never waits.

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;

/// Most bytes of `host.log`.
pub(crate) const MOST: u64 = 1 << 20;

/// Makes the pipe of a host that is about to be started in `dir`; answers the host's end, and a task that ends with the
/// host.
///
/// # Errors
/// Those of the file system.
pub(crate) fn begin(dir: &Path) -> io::Result<(OwnedFd, JoinHandle<()>)> {
    let path = dir.join("host.err");
    for old in [&path, &dir.join("host.log")] {
        if let Err(error) = std::fs::remove_file(old)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
    }
    rustix::fs::mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR)?;
    // First the end that reads: the other cannot be opened alone without waiting.
    let reading = listen(dir)?;
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok((rustix::fs::open(&path, flags, Mode::empty())?, reading))
}

/// Takes what the host in `dir` says from now on.
///
/// # Errors
/// Those of the file system; `NotFound` where there is no pipe.
pub(crate) fn listen(dir: &Path) -> io::Result<JoinHandle<()>> {
    let mut pipe = pipe::OpenOptions::new().open_receiver(dir.join("host.err"))?;
    let mut log = std::fs::File::options().create(true).append(true).open(dir.join("host.log"))?;
    let mut left = MOST.saturating_sub(log.metadata()?.len());
    Ok(tokio::spawn(async move {
        let mut bytes = vec![0; 4096];
        while left > 0 {
            let most = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match pipe.read(&mut bytes[..most]).await {
                Ok(n) if n > 0 && log.write_all(&bytes[..n]).is_ok() => left -= n as u64,
                _ => break,
            }
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn what_a_host_says_is_kept_to_a_bound_and_over_daemons() {
        let dir = tempfile::tempdir().unwrap();
        let size = || std::fs::metadata(dir.path().join("host.log")).unwrap().len();
        let until = async |bytes| {
            for _ in 0..1000 {
                if size() >= bytes {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            panic!("{} bytes came", size());
        };
        let (end, reading) = begin(dir.path()).unwrap();
        let mut host = std::fs::File::from(end);
        host.write_all(b"first\n").unwrap();
        until(6).await;
        // The daemon dies: nothing waits, nothing ends. The next one hears the host again.
        reading.abort();
        let _ = reading.await;
        assert_eq!(host.write(b"lost\n").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let reading = listen(dir.path()).unwrap();
        host.write_all(b"second\n").unwrap();
        until(13).await;
        // One that never stops.
        for _ in 0..100_000 {
            match host.write(&[b'x'; 4096]) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                other => drop(other.unwrap()),
            }
        }
        reading.await.unwrap();
        assert_eq!(size(), MOST);
        listen(dir.path()).unwrap().await.unwrap();
        assert_eq!(size(), MOST, "and the next daemon takes nothing more");
    }
}
