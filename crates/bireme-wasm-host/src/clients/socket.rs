//! The socket of a client. What the kernel still holds for one that is closed is nobody's any more, so nothing may be left there.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// How long a client may leave an answer unread, in milliseconds. The kernel ends the connection then.
const UNREAD: u32 = 60_000;
/// How long it may take all of it at most, however little it takes at a time: it has a place that others wait for.
const SENT_WITHIN: Duration = Duration::from_secs(600);
/// Pauses between two looks at what is unsent, which become longer.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(250));

/// Whether the process ends: what is written then is the kernel's to send.
static ENDING: AtomicBool = AtomicBool::new(false);

/// From now on sockets are closed and not reset: whoever was answered just before the end has the answer.
pub(crate) fn leave_to_kernel() {
    ENDING.store(true, Ordering::Relaxed);
}

/// A socket that is reset when it is dropped over what the client has not read: the kernel would keep that for a minute,
/// beside all connections that may be.
pub(crate) struct ClientSocket(TcpStream);

impl ClientSocket {
    pub(crate) fn new(stream: TcpStream) -> Self {
        let _ = stream.set_nodelay(true);
        let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, UNREAD);
        Self(stream)
    }

    fn unsent(&self) -> u32 {
        bireme_sys::socket::unsent(&self.0).unwrap_or(0)
    }

    /// Waits until the client has all that was written, or has taken nothing of it for as long as it may.
    pub(crate) async fn sent(&self) {
        let begun = Instant::now();
        let (mut left, mut since, mut pause) = (u32::MAX, begun, PAUSES.0);
        loop {
            let unsent = self.unsent();
            if unsent == 0 {
                return;
            }
            if unsent < left && begun.elapsed() < SENT_WITHIN {
                (left, since) = (unsent, Instant::now());
            } else if since.elapsed() > Duration::from_millis(UNREAD.into()) || begun.elapsed() >= SENT_WITHIN {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }
}

impl Drop for ClientSocket {
    fn drop(&mut self) {
        if !ENDING.load(Ordering::Relaxed) && self.unsent() > 0 {
            let _ = rustix::net::sockopt::set_socket_linger(&self.0, Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for ClientSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ClientSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (ClientSocket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (ClientSocket::new(listener.accept().await.unwrap().0), client)
    }

    #[tokio::test]
    async fn what_a_client_reads_late_comes_whole_and_what_it_never_reads_is_dropped() {
        let (mut server, mut client) = pair().await;
        let written = tokio::spawn(async move {
            server.write_all(&[7; 300_000]).await.unwrap();
            server.shutdown().await.unwrap();
            server.sent().await;
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got.len(), 300_000);
        drop(client);
        written.await.unwrap();
        let (mut server, mut client) = pair().await;
        while tokio::time::timeout(Duration::from_millis(100), server.write_all(&[7; 65536])).await.is_ok() {}
        assert!(server.unsent() > 0);
        drop(server);
        let error = client.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
