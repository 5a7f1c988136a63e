//! Bytes between a client whose connection was taken over and a workload.

use bireme_core::detach_keys::DetachKeys;
use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::{Client, Only};

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

#[derive(PartialEq, Eq)]
enum Leave {
    Now,
    Never,
}
