//! Answers that are sent piece by piece.

use axum::body::Body;
use axum::response::Response;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use http::{HeaderValue, StatusCode, header};
use serde_json::Value;
use std::convert::Infallible;
use tokio_util::sync::CancellationToken;

/// JSON values, one per line, each sent as soon as it is there. Ends early when `stop` is cancelled.
pub fn json_lines<S>(lines: S, stop: &CancellationToken) -> Response
where
    S: Stream<Item = Value> + Send + 'static,
{
    let lines = lines.map(|value| {
        let mut line = value.to_string();
        // As moby's streams, whose clients of long ago split them at CRLF.
        line.push_str("\r\n");
        Bytes::from(line)
    });
    bytes("application/json", lines, stop)
}

/// Pieces of an answer, each sent as soon as it is there. Ends early when `stop` is cancelled.
pub fn bytes<S>(kind: &'static str, pieces: S, stop: &CancellationToken) -> Response
where
    S: Stream<Item = Bytes> + Send + 'static,
{
    let pieces = pieces.take_until(stop.clone().cancelled_owned()).map(Ok::<_, Infallible>);
    let mut response = Response::new(Body::from_stream(pieces));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// One of Docker's frames: stream number, three zeros, length, payload.
pub fn frame(stream: u8, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(8 + payload.len());
    frame.put_slice(&[stream, 0, 0, 0]);
    frame.put_u32(u32::try_from(payload.len()).expect("records are far smaller than 4 GiB"));
    frame.put_slice(payload);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_dockers() {
        assert_eq!(&frame(2, b"hi\n")[..], b"\x02\0\0\0\0\0\0\x03hi\n");
    }
}
