//! Files from the client (`FileSync`) and to it (`FileSend`).

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bireme_core::ErrorKind;
use bollard_buildkit_proto::fsutil::types::Packet;
use bollard_buildkit_proto::moby::filesync::packet::file_send_client::FileSendClient as FolderClient;
use bollard_buildkit_proto::moby::filesync::packet::file_sync_client::FileSyncClient;
use bollard_buildkit_proto::moby::filesync::v1::BytesMessage;
use bollard_buildkit_proto::moby::filesync::v1::file_send_client::FileSendClient;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _};
use tokio::io::AsyncWrite;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tokio_util::sync::{CancellationToken, DropGuard, PollSender};
use tonic::metadata::{AsciiMetadataKey, MetadataMap, MetadataValue};
use tonic::{Request, Status};

use super::handle::{add_words, incoming, is_transport};
use super::{Session, SessionError};
use crate::files::{self, Failure, Limits, Receive, Source};

/// The largest packet: clients send 32 KiB of content; a `STAT` may carry attributes.
const MAX_PACKET: usize = 4 << 20;
/// How many packets or chunks wait for the connection.
const AHEAD: usize = 8;
/// Bytes of an archive per message.
const CHUNK: usize = 32 << 10;
/// The most bytes of patterns per request; they travel in headers.
const MAX_PATTERNS: usize = 512 << 10;

/// Which files of the client.
#[derive(Clone, Debug, Default)]
pub struct FilesRequest {
    /// Which of its folders: `context`, `dockerfile`, or the name of a context of its own (`--build-context`).
    pub name: String,
    /// Only what these patterns cover, in the form of `.dockerignore`; empty for all.
    pub include: Vec<String>,
    /// Not what these cover.
    pub exclude: Vec<String>,
    /// Only these paths, and what links at them lead to; empty for all. Patterns too.
    pub follow: Vec<String>,
    /// How much may come.
    pub limits: Limits,
    /// Counts bytes of content as they come, for progress.
    pub transferred: Option<Arc<AtomicU64>>,
}

impl Session {
    /// Receives a tree of files from the client. Reading one file (a `Dockerfile`) is this with `follow`.
    ///
    /// Dropping the future ends the transfer; the receiver is dropped then at once or, if it is at work, after that.
    ///
    /// # Errors
    /// When the client offers no files or none by this name, sends what is no tree or too much, or is gone; when the receiver
    /// fails.
    pub async fn files<R: Receive>(&self, wanted: FilesRequest, receiver: R) -> Result<R::Done, SessionError> {
        let (transport, origin) = self.offered("/moby.filesync.v1.FileSync/DiffCopy", "its files")?;
        let patterns = [
            ("include-patterns", &wanted.include),
            ("exclude-patterns", &wanted.exclude),
            ("followpaths", &wanted.follow),
        ];
        if patterns.iter().flat_map(|(_, words)| words.iter()).map(String::len).sum::<usize>() > MAX_PATTERNS {
            return Err(SessionError::Refused(format!(
                "the patterns that choose files of {:?} are longer than {MAX_PATTERNS} bytes; a .dockerignore has to be shorter",
                wanted.name
            )));
        }
        let (outgoing, ours) = mpsc::unbounded_channel();
        let mut request = Request::new(UnboundedReceiverStream::new(ours));
        for (key, words) in patterns {
            add_words(request.metadata_mut(), key, words);
        }
        add_words(request.metadata_mut(), "dir-name", std::slice::from_ref(&wanted.name));
        let mut client = FileSyncClient::with_origin(transport, origin).max_decoding_message_size(MAX_PACKET);
        let (incoming, broken) = packets(incoming(async move { client.diff_copy(request).await }));
        let received = files::receive(receiver, wanted.limits, wanted.transferred, incoming, outgoing);
        self.until_closed(received).await?.map_err(|failure| failed(failure, &broken))
    }

    /// Begins to send an archive, or any other single file, to the client (`-o type=tar,dest=`, `oci`, `docker`).
    ///
    /// `exporter` is the [`Exporter::id`](crate::Exporter::id); `metadata` goes with it, as BuildKit sends
    /// `containerimage.digest` and the like. What is written goes to the client; [`shutdown`](tokio::io::AsyncWriteExt)
    /// ends the file and waits until the client has taken all of it. Dropped before that, the client is told that the file is
    /// not whole.
    ///
    /// # Errors
    /// When the client offers to take no file, or is gone.
    pub async fn send_tar(
        &self,
        exporter: &str,
        metadata: &BTreeMap<String, String>,
    ) -> Result<impl AsyncWrite + Send + Unpin + use<>, SessionError> {
        let (transport, origin) = self.offered("/moby.filesync.v1.FileSend/DiffCopy", "to take results")?;
        let mut client = FileSendClient::with_origin(transport, origin);
        let (outgoing, ours) = mpsc::channel(AHEAD);
        // The client takes the end of our half for the end of the file, so that it must come when all is written and at no
        // other time.
        let (complete, completed) = oneshot::channel::<()>();
        let end = stream::once(async move {
            if completed.await.is_err() {
                std::future::pending::<()>().await;
            }
        });
        let ours = ReceiverStream::new(ours).chain(end.filter_map(|()| std::future::ready(None)));
        let mut request = Request::new(ours);
        describe(request.metadata_mut(), exporter, metadata)?;
        // The call is answered when the client has all, so that it goes on beside what is written.
        let (done, outcome) = oneshot::channel();
        let closed = self.closed().clone();
        let given_up = CancellationToken::new();
        let guard = given_up.clone().drop_guard();
        tokio::spawn(async move {
            let call = async {
                let mut incoming = client.diff_copy(request).await?.into_inner();
                while incoming.message().await?.is_some() {}
                Ok(())
            };
            let result = tokio::select! {
                result = call => result.map_err(|status: Status| status.message().to_owned()),
                () = closed.cancelled() => Err(SessionError::Closed.to_string()),
                () = given_up.cancelled() => return,
            };
            let _ = done.send(result);
        });
        let outgoing = PollSender::new(outgoing);
        Ok(TarWriter { outgoing, complete: Some(complete), outcome: Some(outcome), failure: None, _guard: guard })
    }

    /// Sends a tree of files to the client (`-o type=local,dest=`), which writes them over what it has there.
    ///
    /// # Errors
    /// When the client offers to take no files, fails to write them, or is gone; when the source fails.
    pub async fn send_folder(&self, exporter: &str, source: Arc<dyn Source>) -> Result<(), SessionError> {
        let (transport, origin) = self.offered("/moby.filesync.v1.FileSend/DiffCopy", "to take results")?;
        let mut client = FolderClient::with_origin(transport, origin).max_decoding_message_size(MAX_PACKET);
        let (outgoing, ours) = mpsc::channel(AHEAD);
        let mut request = Request::new(ReceiverStream::new(ours));
        describe(request.metadata_mut(), exporter, &BTreeMap::new())?;
        let (incoming, broken) = packets(incoming(async move { client.diff_copy(request).await }));
        let sent = files::send(source, incoming, outgoing);
        self.until_closed(sent).await?.map_err(|failure| failed(failure, &broken))
    }
}

/// A status, told by its message alone.
struct Said(Status);

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.message())
    }
}

/// Tells statuses by their messages, and sets a mark if the connection broke.
fn packets(
    incoming: BoxStream<'static, Result<Packet, Status>>,
) -> (impl Stream<Item = Result<Packet, Said>> + Unpin, Arc<AtomicBool>) {
    let broken = Arc::new(AtomicBool::new(false));
    let mark = broken.clone();
    let packets = incoming.map(move |packet| {
        packet.map_err(|status| {
            mark.fetch_or(is_transport(&status), Ordering::Relaxed);
            Said(status)
        })
    });
    (packets, broken)
}

fn failed(failure: Failure, broken: &AtomicBool) -> SessionError {
    if broken.load(Ordering::Relaxed) {
        return SessionError::Closed;
    }
    SessionError::Failed { kind: ErrorKind::Invalid, message: failure.0 }
}

fn describe(to: &mut MetadataMap, exporter: &str, metadata: &BTreeMap<String, String>) -> Result<(), SessionError> {
    let refused =
        |what: &str| SessionError::Refused(format!("cannot send the result to the client: {what:?} fits no header"));
    let id = MetadataValue::try_from(exporter).map_err(|_| refused(exporter))?;
    to.insert("buildkit-attachable-exporter-id", id);
    for (key, value) in metadata {
        let name: AsciiMetadataKey = format!("exporter-md-{key}").parse().map_err(|_| refused(key))?;
        to.insert(name, MetadataValue::try_from(value).map_err(|_| refused(key))?);
    }
    Ok(())
}

/// Writes to the client, message by message.
struct TarWriter {
    outgoing: PollSender<BytesMessage>,
    /// Tells that what was written is all.
    complete: Option<oneshot::Sender<()>>,
    outcome: Option<oneshot::Receiver<Result<(), String>>>,
    failure: Option<String>,
    /// Breaks the call off.
    _guard: DropGuard,
}

impl TarWriter {
    /// Why the client took no more.
    fn poll_outcome(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(outcome) = &mut self.outcome {
            let result = std::task::ready!(Pin::new(outcome).poll(context));
            self.outcome = None;
            self.failure = result.unwrap_or_else(|_| Err(SessionError::Closed.to_string())).err();
        }
        Poll::Ready(match &self.failure {
            Some(failure) => Err(io::Error::other(format!("the client did not take the result: {failure}"))),
            None => Ok(()),
        })
    }
}

impl AsyncWrite for TarWriter {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = bytes.len().min(CHUNK);
        let ready = std::task::ready!(self.outgoing.poll_reserve(context));
        if ready.is_ok() && self.outgoing.send_item(BytesMessage { data: bytes[..count].to_vec() }).is_ok() {
            return Poll::Ready(Ok(count));
        }
        std::task::ready!(self.poll_outcome(context))?;
        Poll::Ready(Err(io::Error::new(io::ErrorKind::BrokenPipe, "the client took no more of the result")))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(complete) = self.complete.take() {
            let _ = complete.send(());
        }
        self.outgoing.close();
        self.poll_outcome(context)
    }
}
