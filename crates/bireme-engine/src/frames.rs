//! Docker's frames, in which the output of what has no terminal comes: which stream, three zeros, length, payload.

use std::io;

use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;

/// Standard error among the streams of frames.
pub(crate) const STDERR: u8 = 2;

/// Bytes of one frame, many times what is ever written at once.
const LONGEST: u32 = 16 << 20;

/// The next frame; `None` at the end. Of one that breaks off, what came of it.
pub(crate) async fn next(stream: &mut UnixStream) -> io::Result<Option<(u8, Vec<u8>)>> {
    let mut head = [0_u8; 8];
    match stream.read_exact(&mut head).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
    if length > LONGEST {
        let what = format!("a frame of {length} bytes: at most {LONGEST} are read");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    let mut payload = Vec::new();
    stream.take(u64::from(length)).read_to_end(&mut payload).await?;
    Ok(Some((head[0], payload)))
}
