//! Outgoing HTTP: only to where `bireme.allow` permits; to components of this very process without a socket.

use std::sync::Arc;
use std::time::Duration;

use http::uri::Scheme;
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::{TlsConnector, rustls};
use tokio_util::task::AbortOnDropHandle;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::net::{ConnectError, Target};
use crate::account::{Account, Charge};
use crate::component::Component;
use crate::neighbours::Neighbour;

/// Longest time to connect where the guest sets none.
const CONNECT: Duration = Duration::from_secs(30);
/// Longest time to wait for the head of a response, and between parts of it, where the guest sets none.
const ANSWER: Duration = Duration::from_secs(600);
/// Bytes that one connection may buffer, the head of the response among them; charged to the instance.
const CONNECTION: usize = 64 << 10;
/// Through how many components of one host a request may go.
const MAX_DEPTH: u32 = 16;

/// What one instance may send out.
pub(crate) struct Outgoing {
    account: Arc<Account>,
    depth: u32,
}

impl Outgoing {
    pub(crate) fn new(account: &Arc<Account>, depth: u32) -> Self {
        Self { account: Arc::clone(account), depth }
    }

    /// How many components of this host the request of the instance has been in before.
    pub(crate) fn depth(&self) -> u32 {
        self.depth
    }
}

/// Bytes of a body that wait for whoever reads it: enough for whole parts, and little for each of many handles.
const BODY: usize = 64 << 10;

pub(super) type Io = Box<dyn Future<Output = Result<(), Error>> + Send>;
pub(super) type Sent = Result<(http::Response<WasiBody>, Io), Error>;

impl WasiHttpHooks for Outgoing {
    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        BODY
    }

    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Io,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        Box::new(send(Arc::clone(&self.account), self.depth, request, options))
    }
}

/// Sends a request, if it is permitted, and answers with the head of the answer.
///
/// # Errors
/// Those that guests are told of; the log knows more.
pub(super) async fn send(
    account: Arc<Account>,
    depth: u32,
    request: http::Request<WasiBody>,
    options: Option<RequestOptions>,
) -> Sent {
    let component = Arc::clone(&account.component);
    let tls = request.uri().scheme() == Some(&Scheme::HTTPS);
    let authority = request.uri().authority().cloned().ok_or(Error::HttpRequestUriInvalid)?;
    // SDKs that ask for a path alone give it a port, and no host.
    let host = Some(authority.host().trim_matches(['[', ']'])).filter(|host| !host.is_empty()).unwrap_or(ITSELF);
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let target = Target { scheme: if tls { "https" } else { "http" }, host, port };
    if let Some(neighbour) = within_app(&component, host) {
        // Whatever the scheme says, the request does not leave this process.
        let named = authority.port_u16().filter(|_| !authority.host().is_empty());
        let plain = Target { scheme: "http", host, port: named.unwrap_or(80) };
        plain.permit(&component).or_else(|error| target.permit(&component).map_err(|_| error)).map_err(|error| {
            component.log.note(&format!("bireme: outgoing request refused: {error}"));
            Error::HttpRequestDenied
        })?;
        let Some(neighbour) = neighbour else {
            component
                .log
                .note(&format!("bireme: outgoing request refused: no component of this app answers at {host}"));
            return Err(Error::DnsError { rcode: Some("NXDOMAIN".to_owned()), info_code: None });
        };
        return ask(&component, neighbour, request, depth).await;
    }
    let addresses = target.resolve(&component).await.map_err(|error| {
        component.log.note(&format!("bireme: outgoing request refused: {error}"));
        match error {
            ConnectError::Denied(_) => Error::HttpRequestDenied,
            ConnectError::Unknown(_) => Error::DnsError { rcode: Some("NXDOMAIN".to_owned()), info_code: None },
        }
    })?;
    if !tls && let Some(neighbour) = addresses.iter().find_map(|address| component.neighbours.inside(*address)) {
        return ask(&component, neighbour, request, depth).await;
    }
    let time =
        |chosen: fn(&RequestOptions) -> Option<Duration>, default| options.as_ref().and_then(chosen).unwrap_or(default);
    let connect_time = time(|options| options.connect_timeout, CONNECT);
    let first_time = time(|options| options.first_byte_timeout, ANSWER);
    let between_time = time(|options| options.between_bytes_timeout, ANSWER);
    let charge = account.charge(CONNECTION).map_err(|text| {
        component.log.note(&format!("bireme: outgoing request refused: {text}"));
        Error::ConnectionLimitReached
    })?;
    let place = account.descriptor().ok_or(Error::ConnectionLimitReached)?;
    let stream = tokio::time::timeout(connect_time, connect(&component, &addresses, host, tls))
        .await
        .map_err(|_| Error::ConnectionTimeout)??;
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(CONNECTION)
        .handshake::<_, WasiBody>(TokioIo::new(stream))
        .await?;
    let driver = tokio::spawn(async move {
        let driven = connection.await.map_err(Error::from);
        // Given back when the connection is closed, also where the task is aborted.
        drop(place);
        driven
    });
    let driver = Driver { task: driver, _charge: charge };
    let (mut parts, body) = request.into_parts();
    // Only requests to a proxy name the server in their first line.
    let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    parts.uri = http::Uri::try_from(path).map_err(|_| Error::HttpRequestUriInvalid)?;
    let answer = sender.send_request(http::Request::from_parts(parts, body));
    let response = tokio::time::timeout(first_time, answer).await.map_err(|_| Error::ConnectionReadTimeout)??;
    let response =
        response.map(|body| Paced { body, driver: Some(driver), limit: between_time, timer: None }.boxed_unsync());
    Ok((response, Box::new(std::future::ready(Ok(())))))
}

/// The host by which a component of an app of Spin asks the app itself.
pub(super) const ITSELF: &str = "self.alt";

/// What `host` stands for in an app of Spin: one of its components by name, or the app itself. `None` for other hosts,
/// `Some(None)` where nobody is there.
///
/// Source: Spin's documentation, "Local Service Chaining", "Intra-Application HTTP Requests by Route".
fn within_app(component: &Component, host: &str) -> Option<Option<Arc<dyn Neighbour>>> {
    match host.strip_suffix(".spin.internal") {
        Some(name) => Some(component.neighbours.named(name)),
        None if host == ITSELF => Some(component.neighbours.beside(&component.spec.id)),
        None => None,
    }
}

/// Asks another component of this process.
async fn ask(
    component: &Component,
    neighbour: Arc<dyn Neighbour>,
    request: http::Request<WasiBody>,
    depth: u32,
) -> Sent {
    if depth >= MAX_DEPTH {
        component.log.note("bireme: outgoing request refused: it has been through too many components, in a loop?");
        return Err(Error::LoopDetected);
    }
    // In a task of its own: a component of WASI 0.3 waits for this within its store's event loop, and another store's would
    // not run there.
    let answer = AbortOnDropHandle::new(tokio::spawn(neighbour.answer(request, depth + 1)));
    let response = answer.await.map_err(|error| {
        // Of the host's own: nothing for a guest to read.
        crate::complain(&format!("a component could not be asked: {error}"));
        Error::InternalError(None)
    })?;
    Ok((response, Box::new(std::future::ready(Ok(())))))
}

/// Drives the connection; ends it when the response is dropped.
struct Driver {
    task: tokio::task::JoinHandle<Result<(), Error>>,
    /// What the connection costs the instance.
    _charge: Charge,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A response body whose parts must come within a limit of each other.
struct Paced {
    body: hyper::body::Incoming,
    driver: Option<Driver>,
    limit: Duration,
    timer: Option<std::pin::Pin<Box<tokio::time::Sleep>>>,
}

impl http_body::Body for Paced {
    type Data = bytes::Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Error>>> {
        use std::task::Poll;
        match std::pin::Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                self.timer = None;
                if frame.is_none() {
                    self.driver = None;
                }
                Poll::Ready(frame.map(|frame| frame.map_err(Error::from)))
            }
            Poll::Pending => {
                let limit = self.limit;
                let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
                timer.as_mut().poll(cx).map(|()| Some(Err(Error::ConnectionReadTimeout)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn connect(
    component: &Component,
    addresses: &[std::net::SocketAddr],
    host: &str,
    tls: bool,
) -> Result<Box<dyn Stream>, Error> {
    let stream = super::net::dial(component, addresses).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
        _ => Error::Connect(error),
    })?;
    if !tls {
        return Ok(Box::new(stream));
    }
    let name = ServerName::try_from(host.to_owned()).map_err(Error::InvalidDnsNameError)?;
    let connecting = TlsConnector::from(Arc::clone(&component.tls)).connect(name, stream);
    let stream = connecting.await.map_err(|error| {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        if matches!(cause, Some(rustls::Error::InvalidCertificate(_))) {
            component.log.note(&format!(
                "bireme: outgoing request refused: the certificate of {host} is not accepted ({error}); to trust a private \
                 authority, mount its certificate and name the file in SSL_CERT_FILE"
            ));
            return Error::TlsCertificateError;
        }
        Error::Tls(error)
    })?;
    Ok(Box::new(stream))
}
