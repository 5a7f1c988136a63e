//! Attaching over a web socket: the opening handshake, and messages round the bytes of a connection that was taken over.
//!
//! The output goes out in binary messages; what the client sends in text or binary messages is input: a browser's terminal
//! needs no more. There are no extensions and no compression.
//!
//! Source: RFC 6455; `wsContainersAttach` of moby.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use bytes::BytesMut;
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, Method, header};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::error::ApiError;
use crate::hijack::{Client, Hijack};

/// Bytes of one message of a client: what a person types or pastes.
const LONGEST: usize = 1 << 20;
/// How long a client may take to read what closes the connection.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// The answer to a client's opening handshake, by the value of its key.
///
/// # Errors
/// `Invalid` for a request that opens no web socket.
pub(crate) fn accept(method: &Method, headers: &HeaderMap) -> Result<String, ApiError> {
    let value = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let lists = |name, wanted: &str| value(name).split(',').any(|part| part.trim().eq_ignore_ascii_case(wanted));
    let refuse = |what: &str| Err(ApiError::invalid(format!("not a web socket's opening handshake: {what}")));
    if method != Method::GET {
        return refuse("the method must be GET");
    }
    if !lists(header::CONNECTION, "upgrade") || !lists(header::UPGRADE, "websocket") {
        return refuse("the headers Connection: Upgrade and Upgrade: websocket are missing");
    }
    if value(header::SEC_WEBSOCKET_VERSION) != "13" {
        return refuse("the header Sec-WebSocket-Version must be 13");
    }
    let key = value(header::SEC_WEBSOCKET_KEY);
    match base64::engine::general_purpose::STANDARD.decode(key) {
        Ok(bytes) if bytes.len() == 16 => {}
        _ => return refuse("the header Sec-WebSocket-Key must be 16 bytes in base64"),
    }
    // A page of the web may open a socket anywhere, and its browser says whose page it is. No browser speaks to a socket
    // of the file system: whoever forwards one to the web must tell pages apart.
    Ok(derive_accept_key(key.as_bytes()))
}

/// Takes the connection over as a web socket; `run` has it as if it were a raw one.
pub(crate) fn hijack<F, Fut>(accept: &str, run: F) -> Response
where
    F: FnOnce(Client) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    Hijack::with_head(head, async move |client| carry(client, run).await).into_response()
}

/// Puts messages between the client and what `run` reads and writes.
async fn carry<F, Fut>(client: Client, run: F)
where
    F: FnOnce(Client) -> Fut,
    Fut: Future<Output = ()>,
{
    let Client { reader, writer, sent_ahead } = client;
    let (ours, theirs) = match UnixStream::pair() {
        Ok(pair) => pair,
        Err(error) => {
            tracing::warn!(%error, "cannot serve a web socket");
            return;
        }
    };
    let config = WebSocketConfig::default()
        .max_message_size(Some(LONGEST))
        .max_frame_size(Some(LONGEST))
        .write_buffer_size(0)
        .max_write_buffer_size(2 * LONGEST);
    let stream = tokio::io::join(reader, writer);
    let socket = WebSocketStream::from_partially_read(stream, sent_ahead.to_vec(), Role::Server, Some(config)).await;
    let (mut to_client, mut from_client) = socket.split();
    let (mut output, mut input) = ours.into_split();
    let (raw_reader, raw_writer) = theirs.into_split();
    let running = run(Client { reader: raw_reader, writer: raw_writer, sent_ahead: bytes::Bytes::new() });
    // Answers to pings are written by the library with the next message, or while it reads.
    let upstream = async {
        loop {
            match from_client.next().await {
                Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                    if input.write_all(&message.into_data()).await.is_err() {
                        return CloseCode::Normal;
                    }
                }
                Some(Ok(Message::Close(_))) | None => return CloseCode::Normal,
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    tracing::debug!(%error, "a web socket's client sent what cannot be read");
                    return CloseCode::Protocol;
                }
            }
        }
    };
    let downstream = async {
        let mut buffer = BytesMut::with_capacity(32 * 1024);
        while let Ok(1..) = output.read_buf(&mut buffer).await {
            if to_client.send(Message::Binary(buffer.split().freeze())).await.is_err() {
                break;
            }
        }
        CloseCode::Normal
    };
    let running = async {
        running.await;
        // Its side is closed by now: what it wrote is still to be read.
        std::future::pending::<CloseCode>().await
    };
    let code = tokio::select! {
        code = downstream => code,
        code = upstream => code,
        code = running => code,
    };
    let close = async {
        let frame = CloseFrame { code, reason: Utf8Bytes::default() };
        let _ = to_client.send(Message::Close(Some(frame))).await;
        let _ = to_client.close().await;
    };
    let _ = tokio::time::timeout(CLOSE_WITHIN, close).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(key: &str, version: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", version),
            ("sec-websocket-key", key),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn the_handshake_is_that_of_the_standard() {
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        assert_eq!(accept(&Method::GET, &headers(key, "13")).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(accept(&Method::POST, &headers(key, "13")).is_err());
        assert!(accept(&Method::GET, &headers(key, "8")).is_err());
        assert!(accept(&Method::GET, &headers("short", "13")).is_err());
        assert!(accept(&Method::GET, &HeaderMap::new()).is_err());
    }
}
