//! HTTP/2 towards a session's client, over the one connection which that client opened.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;

/// How often a quiet client is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(10);
/// How long its answer may take.
const PING_TIMEOUT: Duration = Duration::from_secs(30);
/// How much may be under way to us, per call and in all: clients send contexts of gigabytes through this.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// The most bytes of headers: a failed call carries its details, traces of stacks among them, in those at its end.
const MAX_HEADERS: u32 = 512 << 10;

/// Sends calls to a session's client.
#[derive(Clone, Debug)]
pub(crate) struct Transport {
    sender: http2::SendRequest<Body>,
}

impl Transport {
    /// Begins HTTP/2 on `io`. The second part drives the connection and ends with it.
    pub(crate) async fn begin<I>(io: I) -> Result<(Self, impl Future<Output = ()> + Send), hyper::Error>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEADERS)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(io))
            .await?;
        let drive = async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a session's connection ended");
            }
        };
        Ok((Self { sender }, drive))
    }
}

impl tower::Service<Request<Body>> for Transport {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.sender.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // HTTP/2 wants a whole URI; what the client's end takes from it is the path.
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(Authority::from_static("localhost"));
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        Box::pin(self.sender.send_request(request))
    }
}
