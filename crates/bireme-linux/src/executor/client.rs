//! One request to a runner.

use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use bireme_core::{ErrorKind, ExecError};
use rustix::net::RecvFlags;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;

use crate::protocol::{self, MAX_LINE, Reply, Request};

/// Asks the runner in `run_dir` and gives its answer; a refusal is an error.
pub(super) async fn ask(run_dir: &Path, request: &Request) -> Result<Reply, ExecError> {
    Ok(converse(run_dir, request).await?.0)
}

/// The same, and the connection for what follows the answer.
pub(super) async fn converse(run_dir: &Path, request: &Request) -> Result<(Reply, UnixStream), ExecError> {
    let mut stream = open(run_dir, request).await?;
    let reply = answer(&mut stream).await?;
    Ok((reply, stream))
}

/// Sends a request without waiting for its answer.
pub(super) async fn open(run_dir: &Path, request: &Request) -> Result<UnixStream, ExecError> {
    let attempt = async {
        let mut stream = connect(run_dir).await?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        Ok(stream)
    };
    attempt.await.map_err(unreachable_runner)
}

/// Reads one answer and nothing beyond it.
pub(super) async fn answer(stream: &mut UnixStream) -> Result<Reply, ExecError> {
    let line = read_line(stream).await.map_err(unreachable_runner)?;
    match serde_json::from_slice(&line).map_err(|error| unreachable_runner(error.into()))? {
        Reply::Failed(failure) => Err(failure.into()),
        reply => Ok(reply),
    }
}

fn unreachable_runner(error: io::Error) -> ExecError {
    ExecError::new(ErrorKind::Unavailable, "the container's runner cannot be reached").caused_by(error)
}

async fn connect(run_dir: &Path) -> io::Result<UnixStream> {
    let path = protocol::socket_file(run_dir);
    if path.as_os_str().len() < 108 {
        return UnixStream::connect(path).await;
    }
    // A socket's address holds 107 bytes; the folder's descriptor makes a short name of any.
    let dir = std::fs::File::open(run_dir)?;
    UnixStream::connect(format!("/proc/self/fd/{}/runner.sock", dir.as_raw_fd())).await
}

/// Looks first, so that no byte behind the line is taken: it belongs to the stream.
async fn read_line(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut buffer = [0u8; 4096];
    loop {
        stream.readable().await?;
        let peeked = stream
            .try_io(Interest::READABLE, || Ok(rustix::net::recv(&*stream, buffer.as_mut_slice(), RecvFlags::PEEK)?.0));
        let seen = match peeked {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(seen) => seen,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        let end = buffer[..seen].iter().position(|byte| *byte == b'\n');
        let take = end.map_or(seen, |at| at + 1);
        stream.read_exact(&mut buffer[..take]).await?;
        line.extend_from_slice(&buffer[..take]);
        if end.is_some() {
            return Ok(line);
        }
        if line.len() > MAX_LINE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the runner's answer is too long"));
        }
    }
}
