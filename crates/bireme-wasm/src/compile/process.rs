//! Short processes of the host binary, which see the bytes of strangers: what they may print and how they are ended.

use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bireme_core::{ErrorKind, ExecError};
use tokio::process::Command;

use crate::protocol;

/// Bytes that a compiling process may print: its answer names imports and exports, which it bounds itself.
const MOST_SAID: u64 = 1 << 20;

/// What the process `pid` has used so far; nothing of one that is not there.
///
/// Source: proc_pid_stat(5), `utime` and `stime`.
pub(super) fn processor_time(pid: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name, which may hold anything.
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields).split_ascii_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second().max(1))
}

/// Runs a short process of the host binary to its end; `None` when that does not come within `limit`. The process is killed
/// then, as when nobody waits for this any more. Its ID is left in `pid`.
pub(super) async fn run(
    mut command: Command,
    attempt: &str,
    limit: Duration,
    pid: &AtomicU32,
) -> Result<Option<Output>, ExecError> {
    let host = command.as_std().get_program().to_string_lossy().into_owned();
    command.env_clear().stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let Ok(ended) = tokio::time::timeout(limit, output(&mut command, pid)).await else { return Ok(None) };
    ended.map(Some).map_err(|error| {
        let text = format!("cannot {attempt}: {host} does not run; is Bireme installed completely?");
        ExecError::new(ErrorKind::Internal, text).caused_by(error)
    })
}

/// As [`Command::output`], with a bound on what the process prints: it has the bytes of strangers before it.
async fn output(command: &mut Command, pid: &AtomicU32) -> std::io::Result<Output> {
    let mut child = command.spawn()?;
    pid.store(child.id().unwrap_or(0), Ordering::Relaxed);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (stdout, stderr) = tokio::try_join!(read(stdout), read(stderr))?;
    Ok(Output { status: child.wait().await?, stdout, stderr })
}

/// # Errors
/// `InvalidData` for more than [`MOST_SAID`] bytes.
async fn read(pipe: Option<impl tokio::io::AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    use tokio::io::AsyncReadExt as _;
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(MOST_SAID + 1).read_to_end(&mut bytes).await?;
    }
    if bytes.len() as u64 > MOST_SAID {
        let text = format!("it prints more than {MOST_SAID} bytes");
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, text));
    }
    Ok(bytes)
}

pub(super) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

/// What the process printed, if it ended well.
pub(super) fn succeeded(output: Output, attempt: &str) -> Result<Vec<u8>, ExecError> {
    if !output.status.success() {
        let said = protocol::sentence(&said(&output));
        let text = format!("cannot {attempt}: its process ended with {}: {said}", output.status);
        return Err(ExecError::new(ErrorKind::Internal, text));
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Instant;

    use super::*;

    #[test]
    fn processor_time_is_counted() {
        let before = processor_time(std::process::id());
        let until = Instant::now() + Duration::from_secs(30);
        while processor_time(std::process::id()) < before + Duration::from_millis(50) {
            assert!(Instant::now() < until, "it stands still");
        }
        assert_eq!(processor_time(0), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_process_that_nobody_waits_for_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let said = dir.path().join("pid");
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(format!("echo $$ > {}; exec sleep 600", said.display())).stdin(Stdio::null());
        let process = || std::fs::read_to_string(&said).ok().filter(|text| text.ends_with('\n'));
        let ended = run(command, "sleep", Duration::from_secs(1), &AtomicU32::new(0)).await.unwrap();
        assert!(ended.is_none());
        let status = PathBuf::from(format!("/proc/{}/status", process().unwrap().trim()));
        for _ in 0..400 {
            // Gone, or dead and not yet waited for.
            if std::fs::read_to_string(&status).map_or(true, |text| text.contains("State:\tZ")) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("it runs on");
    }
}
