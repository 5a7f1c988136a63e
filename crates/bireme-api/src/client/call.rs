//! One request, put together and sent, and its answer in the form that is asked for.

use std::fmt::Display;

use bytes::Bytes;
use futures::stream::{BoxStream, Stream, StreamExt, TryStreamExt};
use http::{Method, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::error::{ClientError, message};
use super::hijack::Hijacked;
use super::host::Host;

/// The bytes of an answer as they arrive. Dropping it closes the connection.
pub type ByteStream = BoxStream<'static, Result<Bytes, ClientError>>;

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// One request being put together.
///
/// Nothing is sent before one of its last methods ([`Call::read`], [`Call::stream`] and the like) is awaited. Each opens a
/// connection of its own; dropping its future closes it, and what the engine had begun by then, it may finish.
///
/// # Errors
/// Each of the last methods answers [`ClientError::Connect`] when nothing listens, [`ClientError::Refused`] when the engine
/// answers with an error, and [`ClientError::Broken`] when the connection ends before the answer is whole.
pub struct Call {
    host: Host,
    method: Method,
    path: String,
    query: String,
    headers: Vec<(header::HeaderName, String)>,
    body: Option<Body>,
}

impl Call {
    /// A request without query, headers and body. `path` is encoded here.
    pub(super) fn new(host: Host, method: Method, path: &str) -> Self {
        Self { host, method, path: encode(path, b"/:@"), query: String::new(), headers: Vec::new(), body: None }
    }

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
    ///
    /// # Errors
    /// Also [`ClientError::Malformed`] when it is JSON of another form, or none.
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

    /// One header of the answer, when it is there and text, and the body as it arrives.
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
    ///
    /// # Errors
    /// In the stream, also [`ClientError::Malformed`] when a value has another form than `T`. A value that is not whole when the
    /// answer ends is left out.
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
    ///
    /// # Errors
    /// Also [`ClientError::Refused`] when the engine answers well and does not switch protocols.
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

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

fn chunks(call: String, body: Incoming) -> ByteStream {
    body.into_data_stream()
        .map_err(move |source| ClientError::Broken { call: call.clone(), source: Box::new(source) })
        .boxed()
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

    #[test]
    fn queries_and_paths_are_encoded() {
        let call = Call::new(Host::Tcp("x:1".into()), Method::GET, "/images/a b/c:1@sha256:2/json")
            .query("filters", r#"{"a":["b"]}"#)
            .query_some("t", None::<u8>);
        assert_eq!(call.path, "/images/a%20b/c:1@sha256:2/json");
        assert_eq!(call.query, "?filters=%7B%22a%22:%5B%22b%22%5D%7D");
    }
}
