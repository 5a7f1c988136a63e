//! Bodies of requests, heard to their end.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, HttpBody as _};
use bytes::Bytes;
use futures::StreamExt as _;

/// `body` as it is, but that the rest is taken in when whoever reads it has had enough.
pub fn to_the_end(body: Body) -> Body {
    match body.is_end_stream() {
        true => body,
        false => Body::from_stream(DrainOnDrop(Some(body.into_data_stream()))),
    }
}

/// A body that is heard to its end even when whoever read it has had enough: a client that is still sending when the
/// connection closes loses the answer that says why.
struct DrainOnDrop(Option<BodyDataStream>);

/// How long, and for how many bytes, a client that was refused is listened to.
const PATIENCE: Duration = Duration::from_secs(30);
const UNHEARD: usize = 4 << 30;

impl futures::Stream for DrainOnDrop {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(body) = &mut self.0 else { return Poll::Ready(None) };
        let next = body.poll_next_unpin(cx);
        if matches!(next, Poll::Ready(None | Some(Err(_)))) {
            self.0 = None;
        }
        next
    }
}

impl Drop for DrainOnDrop {
    fn drop(&mut self) {
        let Some(mut rest) = self.0.take() else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let drain = async move {
                let mut left = UNHEARD;
                while let Some(Ok(piece)) = rest.next().await {
                    let Some(still) = left.checked_sub(piece.len()) else { return };
                    left = still;
                }
            };
            // Bounded in time and bytes, and ends with the connection.
            drop(runtime.spawn(tokio::time::timeout(PATIENCE, drain)));
        }
    }
}
