//! The client's content stores: where it keeps caches (`type=local`) and OCI layouts.
//!
//! Source: containerd, `api/services/content/v1/content.proto`; BuildKit, `session/content`.

use bytes::Bytes;
use futures::StreamExt as _;
use http::uri::PathAndQuery;
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::StreamReader;
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::handle::incoming;
use super::transport::Transport;
use super::{Session, SessionError};

/// The largest message taken: containerd's servers send 1 MiB of content and less.
const MAX_MESSAGE: usize = 4 << 20;
/// Bytes of content in one message that is sent.
const PIECE: usize = 512 << 10;

const INFO_METHOD: &str = "/containerd.services.content.v1.Content/Info";
const READ_METHOD: &str = "/containerd.services.content.v1.Content/Read";
const WRITE_METHOD: &str = "/containerd.services.content.v1.Content/Write";

/// Actions of a write.
const STAT: i32 = 0;
const WRITE: i32 = 1;
const COMMIT: i32 = 2;

#[derive(Clone, PartialEq, Message)]
struct InfoRequest {
    #[prost(string, tag = "1")]
    digest: String,
}

/// What it says is of no use here but that the blob is there.
#[derive(Clone, PartialEq, Message)]
struct InfoResponse {}

#[derive(Clone, PartialEq, Message)]
struct ReadRequest {
    #[prost(string, tag = "1")]
    digest: String,
}

#[derive(Clone, PartialEq, Message)]
struct ReadResponse {
    #[prost(bytes = "bytes", tag = "2")]
    data: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(int32, tag = "1")]
    action: i32,
    #[prost(string, tag = "2")]
    reference: String,
    #[prost(int64, tag = "3")]
    total: i64,
    #[prost(string, tag = "4")]
    expected: String,
    #[prost(int64, tag = "5")]
    offset: i64,
    #[prost(bytes = "bytes", tag = "6")]
    data: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct WriteResponse {
    #[prost(int64, tag = "4")]
    offset: i64,
}

impl Session {
    /// Opens a blob of the content store that the client knows by `store`.
    ///
    /// # Errors
    /// When the client offers no such store, or is gone. That there is no such blob is an error of the reader, as what goes
    /// wrong later.
    pub async fn read_content(
        &self,
        store: &str,
        digest: &str,
    ) -> Result<impl AsyncRead + Send + Unpin + use<>, SessionError> {
        let mut client = self.content(READ_METHOD).await?;
        let request = addressed(store, ReadRequest { digest: digest.to_owned() })?;
        let path = PathAndQuery::from_static(READ_METHOD);
        let codec = ProstCodec::<ReadRequest, ReadResponse>::default();
        let answer = incoming(async move { client.server_streaming(request, path, codec).await });
        Ok(StreamReader::new(answer.map(|message| message.map(|message| message.data).map_err(std::io::Error::other))))
    }

    /// Whether a content store of the client has a blob.
    ///
    /// # Errors
    /// When the client offers no such store, or is gone.
    pub async fn has_content(&self, store: &str, digest: &str) -> Result<bool, SessionError> {
        let mut client = self.content(INFO_METHOD).await?;
        let request = addressed(store, InfoRequest { digest: digest.to_owned() })?;
        let path = PathAndQuery::from_static(INFO_METHOD);
        let codec = ProstCodec::<InfoRequest, InfoResponse>::default();
        match self.until_closed(client.unary(request, path, codec)).await? {
            Ok(_) => Ok(true),
            Err(status) if status.code() == Code::NotFound => Ok(false),
            Err(status) => Err(self.failed(&format!("look for {digest} in the client's content store"), &status)),
        }
    }

    /// Writes a blob of `size` bytes to a content store of the client, unless it is there.
    ///
    /// # Errors
    /// When the client offers no such store, does not take it, or is gone; when `content` cannot be read, or is not what
    /// its digest says.
    /// # Cancel safety
    /// Dropping the future leaves no blob.
    pub async fn write_content(
        &self,
        store: &str,
        digest: &str,
        size: u64,
        mut content: impl AsyncRead + Send + Unpin,
    ) -> Result<(), SessionError> {
        let mut client = self.content(WRITE_METHOD).await?;
        let doing = format!("write {digest} to the client's content store");
        let (requests, outgoing) = mpsc::channel(1);
        let request = addressed(store, ReceiverStream::new(outgoing))?;
        let path = PathAndQuery::from_static(WRITE_METHOD);
        let codec = ProstCodec::<WriteRequest, WriteResponse>::default();
        let mut answers = incoming(async move { client.streaming(request, path, codec).await });
        let total = i64::try_from(size).unwrap_or(i64::MAX);
        let blank = WriteRequest {
            action: STAT,
            reference: format!("bireme-{digest}"),
            total,
            expected: digest.to_owned(),
            offset: 0,
            data: Bytes::new(),
        };
        let mut next = blank.clone();
        let mut offset = 0;
        loop {
            let (action, sent) = (next.action, next.data.len());
            // A call that has ended says why by its answer.
            let _ = requests.send(next).await;
            match self.until_closed(answers.next()).await? {
                Some(Ok(_)) if action == COMMIT => return Ok(()),
                Some(Ok(_)) => {}
                Some(Err(status)) if status.code() == Code::AlreadyExists => return Ok(()),
                Some(Err(status)) => return Err(self.failed(&doing, &status)),
                None => return Err(self.failed(&doing, &Status::internal("the client ended the call"))),
            }
            // The first piece stands at 0: what an earlier attempt left is written over.
            offset += i64::try_from(sent).unwrap_or(i64::MAX);
            let mut data = Vec::with_capacity(PIECE);
            let read = (&mut content).take(PIECE as u64).read_to_end(&mut data).await;
            let action = match read {
                Ok(0) => COMMIT,
                Ok(_) => WRITE,
                Err(error) => return Err(SessionError::Refused(format!("cannot {doing}: {error}"))),
            };
            next = WriteRequest { action, offset, data: data.into(), ..blank.clone() };
        }
    }

    /// What calls of a content store go through.
    async fn content(&self, method: &'static str) -> Result<Grpc<Transport>, SessionError> {
        let (transport, origin) = self.offered(method, "a content store")?;
        let mut client = Grpc::with_origin(transport, origin).max_decoding_message_size(MAX_MESSAGE);
        match self.until_closed(client.ready()).await? {
            Ok(()) => Ok(client),
            Err(_) => Err(SessionError::Closed),
        }
    }
}

/// A call of one of the client's stores.
fn addressed<T>(store: &str, message: T) -> Result<Request<T>, SessionError> {
    let store = MetadataValue::try_from(store)
        .map_err(|_| SessionError::Refused(format!("{store:?} is no name of a content store")))?;
    let mut request = Request::new(message);
    request.metadata_mut().insert("buildkit-attachable-store-id", store);
    Ok(request)
}
