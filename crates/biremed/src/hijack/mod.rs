//! Taking a connection over from HTTP, as attach and exec do.
//!
//! Docker takes a connection over whether or not the client asks to upgrade: with an `Upgrade` header it answers
//! `101 UPGRADED`, without one `200 OK`, and in both cases the rest of the connection is raw. The latter is no HTTP that
//! a server library would speak, so a handler answers a [`Hijack`]; the connection's task then leaves HTTP behind
//! altogether, takes the socket back and writes the head itself.

mod carry;
mod only;

use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use bireme_core::BoxFuture;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

pub use self::carry::carry;
pub use self::only::Only;
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
