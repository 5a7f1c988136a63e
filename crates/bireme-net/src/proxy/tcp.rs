//! Connections that are passed on.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::pool::{Activity, Pool};
use super::{Bounds, Guest, Passing, TCP, room};
use crate::places::Source;

/// Passes on what connects to `listener`.
pub(crate) fn tcp(
    pool: &Arc<Pool>,
    runtime: &Handle,
    listener: std::net::TcpListener,
    target: SocketAddr,
) -> io::Result<Passing> {
    tcp_within(TCP, pool, runtime, listener, target)
}

pub(super) fn tcp_within(
    bounds: Bounds,
    pool: &Arc<Pool>,
    runtime: &Handle,
    listener: std::net::TcpListener,
    target: SocketAddr,
) -> io::Result<Passing> {
    let _inside = runtime.enter();
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let pool = Arc::clone(pool);
    let serve = async move {
        let mut guests = HashMap::new();
        let mut connections = JoinSet::new();
        loop {
            // Taken whether or not there is a place: somebody else may be waiting behind who gets one.
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(ended) = connections.join_next_with_id() => {
                    guests.remove(&ended.map_or_else(|error| error.id(), |(id, ())| id));
                    continue;
                }
            };
            let Ok((client, from)) = accepted else {
                // Out of descriptors: wait for some connection to end rather than spin.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let source = Source::of(from.ip());
            if !room(&mut guests, source, bounds) {
                continue;
            }
            let activity = Activity::begin();
            let Some(ticket) = pool.place(source, &activity) else { continue };
            let mut client = Watched { stream: client, activity: activity.clone() };
            let serving = connections.spawn(async move {
                if let Ok(mut workload) = TcpStream::connect(target).await {
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut workload).await;
                }
            });
            ticket.serves(&serving);
            guests.insert(serving.id(), Guest { source, activity, serving, what: (), _ticket: ticket });
        }
    };
    let mut tasks = JoinSet::new();
    tasks.spawn_on(serve, runtime);
    Ok(Passing(tasks))
}

/// A stream of a client, and when something last passed through it.
struct Watched {
    stream: TcpStream,
    activity: Activity,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_ready() {
            self.activity.note();
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if written.is_ready() {
            self.activity.note();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
