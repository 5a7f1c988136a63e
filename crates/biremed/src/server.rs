//! Serving HTTP: connections, the headers every answer has, versions in paths, a span per request, and the drain.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderName, HeaderValue, Request, Uri};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use tracing::Instrument as _;

use crate::drain_body;
use crate::error::ApiError;
use crate::hijack::Hijack;
use crate::version::ApiVersion;

/// How long requests that are being answered may take once the daemon is to stop.
const DRAIN: Duration = Duration::from_secs(5);
/// Bytes of a request's head, and how many headers it may have.
const HEAD_LIMIT: usize = 64 * 1024;
const HEADER_LIMIT: usize = 100;
/// How long a client may take over a request's head, and a connection may lie idle between two. As Docker's engine.
const HEAD_WITHIN: Duration = Duration::from_secs(300);
/// Connections at once. Further ones wait to be accepted.
const MOST_CONNECTIONS: usize = 8192;

/// Serves `router` on every listener until `stop`; then takes no more connections and gives those there are
/// five seconds to finish. Answers how many were cut off.
pub async fn serve(listeners: Vec<UnixListener>, router: Router, stop: CancellationToken) -> usize {
    let connections = TaskTracker::new();
    let cut = CancellationToken::new();
    let accepting = TaskTracker::new();
    for listener in listeners {
        let (router, stop, cut, connections) = (router.clone(), stop.clone(), cut.clone(), connections.clone());
        let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        accepting.spawn(async move {
            loop {
                let place = tokio::select! {
                    place = places.clone().acquire_owned() => place,
                    () = stop.cancelled() => return,
                };
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = stop.cancelled() => return,
                };
                match accepted {
                    Ok((stream, _)) => {
                        let serving = connection(stream, router.clone(), stop.clone());
                        let cut = cut.clone();
                        connections.spawn(async move {
                            let _place = place;
                            tokio::select! {
                                () = serving => {}
                                () = cut.cancelled() => {}
                            }
                        });
                    }
                    Err(error) => {
                        // Out of descriptors, mostly: serving goes on when some are free again.
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        });
    }
    accepting.close();
    accepting.wait().await;
    connections.close();
    if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
        let left = connections.len();
        cut.cancel();
        connections.wait().await;
        return left;
    }
    0
}

/// One connection, from its first request to its end or to being taken over.
async fn connection(stream: UnixStream, router: Router, stop: CancellationToken) {
    let (take_over, mut taken_over) = mpsc::channel::<Hijack>(1);
    let service = service_fn(move |request: Request<Incoming>| {
        let (router, take_over) = (router.clone(), take_over.clone());
        async move {
            let mut response = answer(router, request.map(|body| drain_body::to_the_end(Body::new(body)))).await;
            if let Some(hijack) = response.extensions_mut().remove::<Hijack>() {
                let _ = take_over.send(hijack).await;
                // The connection's task drops this future together with all of HTTP.
                std::future::pending::<()>().await;
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut serving = hyper::server::conn::http1::Builder::new()
        .title_case_headers(true)
        .max_headers(HEADER_LIMIT)
        .max_buf_size(HEAD_LIMIT)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .serve_connection(TokioIo::new(stream), service);
    let mut stopping = false;
    loop {
        tokio::select! {
            biased;
            Some(hijack) = taken_over.recv() => {
                let parts = serving.into_parts();
                tokio::select! {
                    () = hijack.take_over(parts.io.into_inner(), parts.read_buf) => {}
                    () = stop.cancelled() => {}
                }
                return;
            }
            ended = &mut serving => {
                if let Err(error) = ended {
                    // Clients that leave in the middle are everyday.
                    tracing::debug!(%error, "connection ended early");
                }
                return;
            }
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                std::pin::Pin::new(&mut serving).graceful_shutdown();
            }
        }
    }
}

/// Answers one request: finds the version in its path, lets the router answer, adds the headers Docker always sends.
async fn answer(router: Router, mut request: Request<Body>) -> Response {
    let span = tracing::debug_span!("request", method = %request.method(), path = request.uri().path());
    let response = async {
        if let Err(refusal) = check_host(&request) {
            return refusal.into_response();
        }
        let (version, path) = match ApiVersion::split(request.uri().path()) {
            Ok(None) => (ApiVersion::MAX, request.uri().path()),
            Ok(Some(found)) => found,
            Err(refusal) => return refusal.into_response(),
        };
        let path = link_in_one(path);
        if path != request.uri().path() {
            match with_path(request.uri(), &path) {
                Some(uri) => *request.uri_mut() = uri,
                None => return ApiError::no_such_page().into_response(),
            }
        }
        request.extensions_mut().insert(version);
        let response = match router.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        tracing::debug!(status = response.status().as_u16(), "answered");
        response
    };
    let mut response = response.instrument(span).await;
    let headers = response.headers_mut();
    for (name, value) in [
        ("api-version", ApiVersion::MAX.to_string()),
        ("docker-experimental", "false".to_owned()),
        ("ostype", "linux".to_owned()),
        ("server", format!("Bireme/{} (linux)", env!("CARGO_PKG_VERSION"))),
    ] {
        let value = HeaderValue::try_from(value).expect("versions are plain text");
        headers.insert(HeaderName::from_static(name), value);
    }
    response
}

/// One `Host` header in HTTP/1.1, as RFC 9112 section 3.2 has it.
fn check_host(request: &Request<Body>) -> Result<(), ApiError> {
    match request.headers().get_all(http::header::HOST).iter().count() {
        0 if request.version() >= http::Version::HTTP_11 => Err(ApiError::invalid("missing required Host header")),
        0 | 1 => Ok(()),
        _ => Err(ApiError::invalid("too many Host headers")),
    }
}

/// `path` with the name of a link (`PARENT/ALIAS`, of two parts) as one part, as the routes want it.
fn link_in_one(path: &str) -> Cow<'_, str> {
    let Some(rest) = path.strip_prefix("/containers/") else { return path.into() };
    let parts: Vec<&str> = rest.split('/').collect();
    match parts[..] {
        [_, "attach", "ws"] | [_, "checkpoints", _] => path.into(),
        [parent, alias, verb] => format!("/containers/{parent}%2F{alias}/{verb}").into(),
        _ => path.into(),
    }
}

fn with_path(uri: &Uri, path: &str) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    parts.path_and_query = Some(target.parse().ok()?);
    Uri::from_parts(parts).ok()
}
