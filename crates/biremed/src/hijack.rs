//! Taking a connection over from HTTP, as attach and exec do.
//!
//! Docker takes a connection over whether or not the client asks to upgrade: with an `Upgrade` header it answers
//! `101 UPGRADED`, without one `200 OK`, and in both cases the rest of the connection is raw. The latter is no HTTP that
//! a server library would speak, so a handler answers a [`Hijack`]; the connection's task then leaves HTTP behind
//! altogether, takes the socket back and writes the head itself.

use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use bireme_core::BoxFuture;
use bireme_core::detach_keys::DetachKeys;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::version::ApiVersion;

type Run = Box<dyn FnOnce(Client) -> BoxFuture<'static, ()> + Send>;

/// What a handler answers to take its connection over.
#[derive(Clone)]
pub struct Hijack {
    head: String,
    run: Arc<Mutex<Option<Run>>>,
}

/// The client's side of a connection that was taken over.
pub struct Client {
    pub reader: OwnedReadHalf,
    pub writer: OwnedWriteHalf,
    /// What the client sent ahead.
    pub sent_ahead: Bytes,
}

/// How long a client may take to read the head. One that never does so gets its output all the same.
const HEAD_READ_WITHIN: Duration = Duration::from_millis(500);

impl Client {
    /// Waits until the client has read all that was written. Some libraries read the head through a buffer, and lose what
    /// lies in it behind the head: Docker's SDK for Python does.
    pub async fn has_read(&self) {
        let socket: &UnixStream = self.writer.as_ref();
        let read = async {
            // No event tells this one.
            while bireme_sys::fds::all_read(socket).is_ok_and(|all| !all) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let _ = tokio::time::timeout(HEAD_READ_WITHIN, read).await;
    }
}

impl Hijack {
    /// `headers` are the request's; `tty` tells whether the stream is raw or framed. `run` has the connection until it
    /// returns, and is dropped when the daemon stops.
    pub fn new<F, Fut>(headers: &HeaderMap, version: ApiVersion, tty: bool, run: F) -> Self
    where
        F: FnOnce(Client) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let kind = if !tty && version >= ApiVersion::MULTIPLEXED_TYPE {
            "application/vnd.docker.multiplexed-stream"
        } else {
            "application/vnd.docker.raw-stream"
        };
        let head = if headers.contains_key(header::UPGRADE) {
            format!("HTTP/1.1 101 UPGRADED\r\nContent-Type: {kind}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        } else {
            format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n")
        };
        Self::with_head(head, run)
    }

    /// As [`Self::new`], with an answer of its own.
    pub fn with_head<F, Fut>(head: String, run: F) -> Self
    where
        F: FnOnce(Client) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let run: Run = Box::new(|client| Box::pin(run(client)));
        Self { head, run: Arc::new(Mutex::new(Some(run))) }
    }

    /// Writes the head and lets the handler's part run. A client that is gone is no error.
    pub(crate) async fn take_over(self, mut stream: UnixStream, sent_ahead: Bytes) {
        let run = self.run.lock().take();
        if let Some(run) = run
            && stream.write_all(self.head.as_bytes()).await.is_ok()
        {
            let (reader, writer) = stream.into_split();
            run(Client { reader, writer, sent_ahead }).await;
        }
    }
}

impl IntoResponse for Hijack {
    fn into_response(self) -> Response {
        let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Says one sentence on the client's standard output and closes.
pub async fn say(client: Client, text: &str, tty: bool) {
    let Client { mut writer, .. } = client;
    let mut message = Vec::with_capacity(text.len() + 8);
    if !tty {
        message.extend_from_slice(&[1, 0, 0, 0]);
        message.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    }
    message.extend_from_slice(text.as_bytes());
    // A client that left is no error.
    let _ = writer.write_all(&message).await;
    let _ = writer.shutdown().await;
}

/// Carries bytes both ways between `client` and a workload until its output ends, the client is gone, or the client
/// types `detach`.
///
/// The end of the client's input shuts down the workload's write half and nothing else: output goes on.
///
/// Of the output, `only` what the client asked for is passed on. The client's stream is closed when `before_close` is done,
/// too.
pub async fn carry(
    client: Client,
    workload: std::os::unix::net::UnixStream,
    input: bool,
    mut detach: DetachKeys,
    mut only: Only,
    before_close: impl Future<Output = ()>,
) {
    let Client { mut reader, mut writer, sent_ahead } = client;
    let workload = match workload.set_nonblocking(true).and_then(|()| UnixStream::from_std(workload)) {
        Ok(workload) => workload,
        Err(error) => {
            tracing::warn!(%error, "cannot carry the streams of a workload");
            return;
        }
    };
    let (mut output, mut stdin) = workload.into_split();
    let upstream = async {
        let mut buffer = BytesMut::from(&sent_ahead[..]);
        loop {
            if buffer.is_empty() && matches!(reader.read_buf(&mut buffer).await, Ok(0) | Err(_)) {
                break;
            }
            let chunk = buffer.split();
            if !input {
                // Docker reads and drops what a client without stdin sends; reading on also notices its leaving.
                continue;
            }
            let (pass, leave) = detach.filter(&chunk);
            if stdin.write_all(&pass).await.is_err() {
                // The workload closed its input. Its output still matters.
                return Leave::Never;
            }
            if leave {
                return Leave::Now;
            }
        }
        let _ = stdin.shutdown().await;
        Leave::Never
    };
    let downstream = async {
        let mut buffer = BytesMut::with_capacity(32 * 1024);
        loop {
            buffer.clear();
            match output.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {
                    only.keep(&mut buffer);
                    if writer.write_all(&buffer).await.is_err() {
                        return;
                    }
                }
            }
        }
        before_close.await;
        let _ = writer.shutdown().await;
    };
    tokio::pin!(downstream);
    tokio::select! {
        () = &mut downstream => {}
        leave = upstream => {
            if leave == Leave::Never {
                downstream.await;
            }
        }
    }
}

/// What of a workload's output a client asked for, and in which form: one that did not ask for standard output has no use
/// for it, and Docker's own command line breaks off when it comes.
pub struct Only {
    /// `None`: everything, in whatever form.
    streams: Option<[bool; 2]>,
    /// Frames go without their heads.
    bare: bool,
    /// What is raw gets frames of standard output.
    wrap: bool,
    head: Vec<u8>,
    /// Bytes of the frame that are still to come.
    left: usize,
}

impl Only {
    pub fn of(stdout: bool, stderr: bool, tty: bool) -> Self {
        Self::formed(stdout, stderr, tty, tty)
    }

    /// For a workload whose output is raw because it has a terminal (`tty`), or not, and a client that wants it raw, or in
    /// frames.
    pub fn formed(stdout: bool, stderr: bool, tty: bool, raw: bool) -> Self {
        let bare = raw && !tty;
        let wrap = tty && !raw;
        let all = tty || (stdout && stderr && !bare);
        let streams = (!all).then_some([stdout, stderr]);
        Self { streams, bare, wrap, head: Vec::with_capacity(8), left: 0 }
    }

    /// Takes out of `bytes` what is not wanted; frames may begin in one call and end in another.
    fn keep(&mut self, bytes: &mut BytesMut) {
        if self.wrap && !bytes.is_empty() {
            *bytes = BytesMut::from(&crate::stream::frame(1, bytes)[..]);
        }
        let Some([stdout, stderr]) = self.streams else { return };
        let mut kept = BytesMut::new();
        let mut rest = bytes.split();
        while !rest.is_empty() {
            if self.left == 0 {
                let missing = 8 - self.head.len();
                self.head.extend_from_slice(&rest.split_to(missing.min(rest.len())));
                let [stream, _, _, _, a, b, c, d] = self.head[..] else { break };
                self.left = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
                let wanted = if stream == 2 { stderr } else { stdout };
                if wanted && !self.bare {
                    kept.extend_from_slice(&self.head);
                }
                if self.left == 0 {
                    self.head.clear();
                }
                continue;
            }
            let piece = rest.split_to(self.left.min(rest.len()));
            self.left -= piece.len();
            if if self.head[0] == 2 { stderr } else { stdout } {
                kept.extend_from_slice(&piece);
            }
            if self.left == 0 {
                self.head.clear();
            }
        }
        *bytes = kept;
    }
}

#[derive(PartialEq, Eq)]
enum Leave {
    Now,
    Never,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_asked_for_is_kept() {
        let frame = |stream: u8, text: &str| {
            let mut bytes = vec![stream, 0, 0, 0];
            bytes.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
            bytes
        };
        let all = [frame(1, "out"), frame(2, "err"), frame(2, ""), frame(1, "more")].concat();
        for size in [1, 3, 8, 100] {
            let mut only = Only::of(false, true, false);
            let mut kept = Vec::new();
            for piece in all.chunks(size) {
                let mut piece = BytesMut::from(piece);
                only.keep(&mut piece);
                kept.extend_from_slice(&piece);
            }
            assert_eq!(kept, [frame(2, "err"), frame(2, "")].concat(), "in pieces of {size}");
        }
    }

    #[test]
    fn a_client_has_the_form_it_asked_for() {
        let keep = |mut only: Only, pieces: &[&[u8]]| {
            let mut kept = Vec::new();
            for piece in pieces {
                let mut piece = BytesMut::from(*piece);
                only.keep(&mut piece);
                kept.extend_from_slice(&piece);
            }
            kept
        };
        let framed = keep(Only::formed(true, true, true, false), &[b"raw", b"more"]);
        assert_eq!(framed, b"\x01\0\0\0\0\0\0\x03raw\x01\0\0\0\0\0\0\x04more");
        let pieces: &[&[u8]] = &[b"\x01\0\0\0\0\0\0\x03o", b"ut\x02\0\0\0\0", b"\0\0\x03err"];
        assert_eq!(keep(Only::formed(true, true, false, true), pieces), b"outerr");
        assert_eq!(keep(Only::formed(true, false, false, true), pieces), b"out");
        assert_eq!(keep(Only::formed(true, true, true, true), &[b"raw"]), b"raw");
    }
}
