//! A small client of the Engine API: one connection per call, so that streams and hijacked calls are ordinary.
//!
//! Answers are read as raw bytes first. `inspect` must print what the engine sent, fields that we do not know
//! included, and `/bireme/v1` is served beside Docker's paths; both are why this is not a generated client.

use std::fmt::Display;
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};

use bireme_core::ErrorKind;
use bytes::Bytes;
use futures::stream::{BoxStream, Stream, StreamExt, TryStreamExt};
use http::{Method, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// Where an engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// `unix:///path/to/socket`.
    Unix(PathBuf),
    /// `tcp://host:port`, without TLS.
    Tcp(String),
}

impl FromStr for Host {
    type Err = ClientError;

    fn from_str(text: &str) -> Result<Self, ClientError> {
        let refuse = |reason: &'static str| ClientError::Host { host: text.to_owned(), reason };
        match text.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(("unix", _)) => Err(refuse("the path of a unix socket must be absolute")),
            Some(("tcp" | "http", address)) => {
                let address = address.trim_end_matches('/');
                match address.rsplit_once(':') {
                    _ if address.is_empty() || address.contains('/') => Err(refuse("expected tcp://host:port")),
                    Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                        Ok(Self::Tcp(address.to_owned()))
                    }
                    Some(_) => Err(refuse("expected tcp://host:port")),
                    None => Ok(Self::Tcp(format!("{address}:2375"))),
                }
            }
            Some(_) => Err(refuse("only unix:// and tcp:// are understood")),
            None if text.starts_with('/') => Ok(Self::Unix(text.into())),
            None => Err(refuse("expected unix:///path or tcp://host:port")),
        }
    }
}

impl Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// Why a call did not bring an answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{host:?} is not an engine's address: {reason}")]
    Host { host: String, reason: &'static str },
    #[error("cannot connect to the engine at {host}")]
    Connect {
        host: Host,
        #[source]
        source: std::io::Error,
    },
    /// The engine answered with an error of its own.
    #[error("Error response from daemon: {message}")]
    Refused { status: StatusCode, message: String },
    #[error("the connection to the engine broke during {call}")]
    Broken {
        call: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the engine's answer to {call} is not what was expected")]
    Malformed {
        call: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("cannot send {call}")]
    Request {
        call: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl ClientError {
    /// The kind of failure, from the status when the engine answered.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Host { .. } | Self::Request { .. } => ErrorKind::Invalid,
            Self::Connect { .. } | Self::Broken { .. } => ErrorKind::Unavailable,
            Self::Malformed { .. } => ErrorKind::Internal,
            Self::Refused { status, .. } => match status.as_u16() {
                404 => ErrorKind::NotFound,
                409 => ErrorKind::Conflict,
                401 | 403 => ErrorKind::Denied,
                503 => ErrorKind::Unavailable,
                501 => ErrorKind::Unsupported,
                400..=499 => ErrorKind::Invalid,
                _ => ErrorKind::Internal,
            },
        }
    }

    /// Whether the engine said that what was named does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == StatusCode::NOT_FOUND)
    }
}

/// The bytes of an answer as they arrive. Dropping it closes the connection.
pub type ByteStream = BoxStream<'static, Result<Bytes, ClientError>>;

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Speaks to one engine. Cheap to clone; holds no connection.
#[derive(Clone, Debug)]
pub struct Client {
    host: Host,
}

impl Client {
    /// A client of the engine at `host`. Nothing is sent yet.
    pub fn new(host: Host) -> Self {
        Self { host }
    }

    /// Where this client connects to.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Begins a call. `path` is encoded here: pass names as they are.
    pub fn call(&self, method: Method, path: impl AsRef<str>) -> Call {
        Call {
            host: self.host.clone(),
            method,
            path: encode(path.as_ref(), b"/:@"),
            query: String::new(),
            headers: Vec::new(),
            body: None,
        }
    }

    /// `GET path`.
    pub fn get(&self, path: impl AsRef<str>) -> Call {
        self.call(Method::GET, path)
    }

    /// `POST path`.
    pub fn post(&self, path: impl AsRef<str>) -> Call {
        self.call(Method::POST, path)
    }

    /// `PUT path`.
    pub fn put(&self, path: impl AsRef<str>) -> Call {
        self.call(Method::PUT, path)
    }

    /// `DELETE path`.
    pub fn delete(&self, path: impl AsRef<str>) -> Call {
        self.call(Method::DELETE, path)
    }

    /// Whether something that speaks HTTP answers `/_ping`.
    pub async fn ping(&self) -> Result<(), ClientError> {
        self.get("/_ping").done().await
    }

    /// What the engine can run.
    ///
    /// # Errors
    /// `NotFound` when the engine is not Bireme.
    pub async fn capabilities(&self) -> Result<crate::v1::Capabilities, ClientError> {
        self.get("/bireme/v1/capabilities").read().await
    }

    /// Every workload with its counters. `filters` as in `GET /containers/json`.
    pub async fn workloads(
        &self,
        filters: Option<&serde_json::Value>,
    ) -> Result<Vec<crate::v1::Workload>, ClientError> {
        let mut call = self.get("/bireme/v1/workloads");
        if let Some(filters) = filters {
            call = call.query("filters", filters);
        }
        call.read().await
    }

    /// The same list again every `interval`, until the stream is dropped.
    pub async fn watch_workloads(
        &self,
        filters: Option<&serde_json::Value>,
        interval: std::time::Duration,
    ) -> Result<BoxStream<'static, Result<Vec<crate::v1::Workload>, ClientError>>, ClientError> {
        let mut call =
            self.get("/bireme/v1/workloads").query("stream", 1).query("interval", interval.as_millis().max(100));
        if let Some(filters) = filters {
            call = call.query("filters", filters);
        }
        call.objects().await
    }
}

/// One request being put together.
pub struct Call {
    host: Host,
    method: Method,
    path: String,
    query: String,
    headers: Vec<(header::HeaderName, String)>,
    body: Option<Body>,
}

impl Call {
    /// Adds `key=value` to the query.
    #[must_use]
    pub fn query(mut self, key: &str, value: impl Display) -> Self {
        self.query.push(if self.query.is_empty() { '?' } else { '&' });
        self.query.push_str(&encode(key, b""));
        self.query.push('=');
        self.query.push_str(&encode(&value.to_string(), b"/:"));
        self
    }

    /// Adds `key=value` when there is a value.
    #[must_use]
    pub fn query_some(self, key: &str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.query(key, value),
            None => self,
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((header::HeaderName::from_static(name), value.into()));
        self
    }

    /// Sends `value` as the JSON body.
    #[must_use]
    pub fn json<T: Serialize>(mut self, value: &T) -> Self {
        let bytes = serde_json::to_vec(value).expect("wire types have string keys and serialise");
        self.body = Some(Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed_unsync());
        self.header("content-type", "application/json")
    }

    /// Sends a tar archive as it is produced, never held whole in memory.
    #[must_use]
    pub fn archive<S>(mut self, stream: S) -> Self
    where
        S: Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    {
        self.body = Some(StreamBody::new(stream.map_ok(Frame::data)).boxed_unsync());
        self.header("content-type", "application/x-tar")
    }

    /// `METHOD /path`, for error messages.
    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// Sends the request and waits for the head of the answer.
    async fn send(self, upgrade: bool) -> Result<(String, http::Response<Incoming>), ClientError> {
        let name = self.name();
        let connect = |source| ClientError::Connect { host: self.host.clone(), source };
        let io: Box<dyn Duplex> = match &self.host {
            Host::Unix(path) => Box::new(UnixStream::connect(path).await.map_err(connect)?),
            Host::Tcp(address) => {
                let stream = TcpStream::connect(address).await.map_err(connect)?;
                stream.set_nodelay(true).map_err(connect)?;
                Box::new(stream)
            }
        };
        let mut request = http::Request::builder()
            .method(self.method)
            .uri(format!("{}{}", self.path, self.query))
            .header(
                header::HOST,
                match &self.host {
                    Host::Unix(_) => "bireme",
                    Host::Tcp(address) => address,
                },
            )
            .header(header::USER_AGENT, concat!("bireme/", env!("CARGO_PKG_VERSION")));
        if upgrade {
            request = request.header(header::CONNECTION, "Upgrade").header(header::UPGRADE, "tcp");
        }
        for (key, value) in &self.headers {
            request = request.header(key, value);
        }
        let body = self.body.unwrap_or_else(|| Full::default().map_err(|never| match never {}).boxed_unsync());
        let request = request
            .body(body)
            .map_err(|source| ClientError::Request { call: name.clone(), source: Box::new(source) })?;
        let broken = |source: hyper::Error| ClientError::Broken { call: name.clone(), source: Box::new(source) };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake::<_, Body>(TokioIo::new(io)).await.map_err(broken)?;
        // The task owns the connection and ends with it: when the answer is read or dropped.
        tokio::spawn(connection.with_upgrades());
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        if status.is_client_error() || status.is_server_error() {
            let body = response.into_body().collect().await.map_err(broken)?.to_bytes();
            return Err(ClientError::Refused { status, message: message(status, &body) });
        }
        Ok((name, response))
    }

    /// The whole answer.
    pub async fn bytes(self) -> Result<Bytes, ClientError> {
        let (call, response) = self.send(false).await?;
        match response.into_body().collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(source) => Err(ClientError::Broken { call, source: Box::new(source) }),
        }
    }

    /// The answer as JSON.
    pub async fn read<T: DeserializeOwned>(self) -> Result<T, ClientError> {
        let call = self.name();
        let bytes = self.bytes().await?;
        serde_json::from_slice(&bytes).map_err(|source| ClientError::Malformed { call, source })
    }

    /// Waits for success and throws the answer away.
    pub async fn done(self) -> Result<(), ClientError> {
        self.bytes().await.map(drop)
    }

    /// The status alone: `304 Not Modified` says that there was nothing to do.
    pub async fn status(self) -> Result<StatusCode, ClientError> {
        let (_, response) = self.send(false).await?;
        Ok(response.status())
    }

    /// One header of the answer, decoded as text.
    pub async fn with_header(self, name: &str) -> Result<(Option<String>, ByteStream), ClientError> {
        let (call, response) = self.send(false).await?;
        let value = response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok((value, chunks(call, response.into_body())))
    }

    /// The answer as it arrives; returns once its head is there.
    pub async fn stream(self) -> Result<ByteStream, ClientError> {
        let (call, response) = self.send(false).await?;
        Ok(chunks(call, response.into_body()))
    }

    /// The answer as a sequence of JSON values, one per line or simply one after the other.
    pub async fn objects<T: DeserializeOwned + Send + 'static>(
        self,
    ) -> Result<BoxStream<'static, Result<T, ClientError>>, ClientError> {
        let call = self.name();
        let chunks = self.stream().await?;
        let state = (chunks, Vec::<u8>::new(), call);
        Ok(futures::stream::try_unfold(state, |(mut chunks, mut buffer, call)| async move {
            loop {
                let mut values = serde_json::Deserializer::from_slice(&buffer).into_iter::<T>();
                match values.next() {
                    Some(Ok(value)) => {
                        let used = values.byte_offset();
                        buffer.drain(..used);
                        return Ok(Some((value, (chunks, buffer, call))));
                    }
                    Some(Err(error)) if !error.is_eof() => {
                        return Err(ClientError::Malformed { call, source: error });
                    }
                    _ => {}
                }
                match chunks.next().await {
                    Some(chunk) => buffer.extend_from_slice(&chunk?),
                    None => return Ok(None),
                }
            }
        })
        .boxed())
    }

    /// Takes the connection over, as attach and exec do.
    pub async fn upgrade(self) -> Result<Hijacked, ClientError> {
        let (call, response) = self.send(true).await?;
        let multiplexed = response
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes() == b"application/vnd.docker.multiplexed-stream");
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(ClientError::Refused {
                status: response.status(),
                message: format!("the engine did not switch protocols for {call}"),
            });
        }
        match hyper::upgrade::on(response).await {
            Ok(upgraded) => Ok(Hijacked { io: TokioIo::new(upgraded), multiplexed }),
            Err(source) => Err(ClientError::Broken { call, source: Box::new(source) }),
        }
    }
}

/// A connection taken over from HTTP: what is written is the workload's input, what is read its output.
pub struct Hijacked {
    io: TokioIo<hyper::upgrade::Upgraded>,
    /// Whether the engine said that output is framed. Engines before 1.42 do not say it: the caller knows whether
    /// there is a terminal.
    pub multiplexed: bool,
}

impl AsyncRead for Hijacked {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Hijacked {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

fn chunks(call: String, body: Incoming) -> ByteStream {
    body.into_data_stream()
        .map_err(move |source| ClientError::Broken { call: call.clone(), source: Box::new(source) })
        .boxed()
}

/// The sentence in an error answer: Docker's `{"message": …}`, else the body, else the status.
fn message(status: StatusCode, body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Message {
        message: String,
    }
    let text = match serde_json::from_slice::<Message>(body) {
        Ok(Message { message }) => message,
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    let text = text.trim();
    if text.is_empty() { status.to_string() } else { text.to_owned() }
}

/// Percent-encodes everything but unreserved characters and `keep`. Source: RFC 3986, section 2.3.
fn encode(text: &str, keep: &[u8]) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || keep.contains(&byte) {
            encoded.push(byte as char);
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_host(text: &str, expected: Result<Host, &str>) {
        let got = text.parse::<Host>().map_err(|error| error.to_string());
        assert_eq!(got.as_ref().map_err(String::as_str), expected.as_ref().map_err(|text| *text), "{text}");
    }

    #[test]
    fn hosts_are_read_as_docker_writes_them() {
        check_host("unix:///run/x.sock", Ok(Host::Unix("/run/x.sock".into())));
        check_host("tcp://10.0.0.1:2376", Ok(Host::Tcp("10.0.0.1:2376".into())));
        check_host("tcp://10.0.0.1", Ok(Host::Tcp("10.0.0.1:2375".into())));
        check_host(
            "unix://x.sock",
            Err("\"unix://x.sock\" is not an engine's address: the path of a unix socket must be absolute"),
        );
        check_host(
            "ssh://me@there",
            Err("\"ssh://me@there\" is not an engine's address: only unix:// and tcp:// are understood"),
        );
    }

    #[test]
    fn queries_and_paths_are_encoded() {
        let call = Client::new(Host::Tcp("x:1".into()))
            .get("/images/a b/c:1@sha256:2/json")
            .query("filters", r#"{"a":["b"]}"#)
            .query_some("t", None::<u8>);
        assert_eq!(call.path, "/images/a%20b/c:1@sha256:2/json");
        assert_eq!(call.query, "?filters=%7B%22a%22:%5B%22b%22%5D%7D");
    }

    #[test]
    fn an_error_answer_becomes_its_sentence() {
        assert_eq!(message(StatusCode::NOT_FOUND, b"{\"message\":\"no such container: x\"}"), "no such container: x");
        assert_eq!(message(StatusCode::BAD_GATEWAY, b""), "502 Bad Gateway");
        assert_eq!(message(StatusCode::BAD_GATEWAY, b"oops\n"), "oops");
    }
}
