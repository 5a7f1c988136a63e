//! Connections of clients.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Request;
use http::header::{CONNECTION, HeaderValue};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use super::answer::answer;
use super::plain_request::{HEAD_SIZE, plain_request};
use super::route::{Client, route};
use super::site::Site;
use crate::clients;
use crate::clients::socket::ClientSocket;

/// Longest time a client may take to send the head of a request.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// Most fields of a request.
const MAX_HEADERS: usize = 128;

/// Accepts connections until the site is closed.
pub(crate) async fn listen(listener: TcpListener, site: Arc<Site>) {
    loop {
        let accept = async {
            let place = clients::place().await;
            listener.accept().await.map(|accepted| (accepted, place))
        };
        let accepted = tokio::select! {
            accepted = accept => accepted,
            () = site.closed.cancelled() => return,
        };
        match accepted {
            Ok(((stream, peer), place)) => {
                let Some(share) = clients::share(peer.ip()) else { continue };
                let site = Arc::clone(&site);
                clients::spawn(async move {
                    connection(stream, peer, site).await;
                    drop((place, share));
                });
            }
            // The connection was given up, or descriptors ran out: go on, but not in a tight loop.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, site: Arc<Site>) {
    let client = Client { address: HeaderValue::from_str(&peer.to_string()).ok() };
    let known = parking_lot::Mutex::new(site.table());
    let service = service_fn(|request: Request<Incoming>| {
        let table = {
            let mut known = known.lock();
            if known.0 != site.generation.load(Ordering::Acquire) {
                *known = site.table();
            }
            Arc::clone(&known.1)
        };
        let client = &client;
        async move {
            Ok::<_, std::convert::Infallible>(match plain_request(request) {
                Ok(request) => {
                    let request = request.map(|body| body.map_err(wasmtime_wasi_http::Error::from).boxed_unsync());
                    route(&table, client, request, 0).await
                }
                Err((status, why)) => {
                    let mut response = answer(status, why.to_owned());
                    // Where its head is not understood, nobody knows where the next begins.
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                    response
                }
            })
        }
    });
    let mut serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_SIZE)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(ClientSocket::new(stream)), service);
    // Errors here are the client's: it went away or sent what is not HTTP, which hyper has answered.
    tokio::select! {
        _ = &mut serving => {}
        () = site.closed.cancelled() => {
            std::pin::Pin::new(&mut serving).graceful_shutdown();
            let _ = (&mut serving).await;
        }
    }
    // Its place is nobody else's while the kernel holds something of it.
    serving.into_parts().io.into_inner().sent().await;
}
