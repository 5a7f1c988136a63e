//! Proxies in front of a registry, which misbehave.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::registry::Registry;

/// What a proxy does to what passes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mischief {
    /// Cuts the first answers to blob requests off after so many bytes, so many times.
    Cut { after: usize, times: usize },
    /// As `Cut` once, and does not understand Range.
    CutWithoutRange { after: usize },
    /// Changes the last byte of blobs larger than 1000 bytes.
    Lie,
    /// Adds a byte to blobs larger than 1000 bytes.
    Longer,
    /// Answers so many requests with 503.
    Busy { times: usize },
    /// Answers so many requests with 429, and wants to be left alone for a second.
    TooMany { times: usize },
    /// Waits half a second before each layer.
    Slow,
    /// Takes no request with more bytes than that.
    Narrow { most: usize },
    /// Breaks off so many requests that send a layer, in its midst; it is taken in pieces only.
    BreakPushes { times: usize },
    /// Asks for a bearer token, and says a byte of it now and then.
    DrippingToken,
    /// Asks for a bearer token, and takes only one that an identity token was given for.
    Identity,
    /// Asks for a bearer token, which it hands out to the user `USER` itself.
    Bearer,
    /// Answers any manifest with an endless one.
    Endless,
    /// Asks for a bearer token, and answers endlessly where it is asked for.
    EndlessToken,
    /// Answers any manifest with an endless failure.
    EndlessError,
}

/// An HTTP proxy in front of a registry.
pub(crate) struct Proxy {
    pub(crate) host: String,
    /// Requests with a Range that does not begin at 0.
    pub(crate) resumed: Arc<AtomicUsize>,
    /// Answers with a layer.
    pub(crate) layers: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    pub(crate) async fn start(registry: &Registry, mischief: Mischief) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let upstream: SocketAddr = registry.host.parse().unwrap();
        let (resumed, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let layers = Arc::new(AtomicUsize::new(0));
        let (counter, layer_counter) = (resumed.clone(), layers.clone());
        let task = tokio::spawn(async move {
            let mut serving = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (counter, layers, done) = (counter.clone(), layer_counter.clone(), done.clone());
                serving.spawn(async move {
                    let _ = serve(client, upstream, address, mischief, (&counter, &layers), &done).await;
                });
            }
        });
        Self { host: address.to_string(), resumed, layers, task }
    }
}

async fn serve(
    mut client: tokio::net::TcpStream,
    upstream: SocketAddr,
    own: SocketAddr,
    mischief: Mischief,
    (resumed, layers): (&AtomicUsize, &AtomicUsize),
    done: &AtomicUsize,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let range = head.lines().find(|line| line.to_ascii_lowercase().starts_with("range:")).map(str::to_owned);
    if range.as_ref().is_some_and(|range| !range.contains("bytes=0-")) {
        resumed.fetch_add(1, Ordering::SeqCst);
    }
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let is_blob = path.contains("/blobs/");
    let lower = head.to_ascii_lowercase();
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok()).unwrap_or(0);
    match mischief {
        Mischief::Busy { times } if done.fetch_add(1, Ordering::SeqCst) < times => {
            return client.write_all(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
        }
        Mischief::TooMany { times } if done.fetch_add(1, Ordering::SeqCst) < times => {
            let answer = b"HTTP/1.1 429 Slow Down\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            return client.write_all(answer).await;
        }
        Mischief::Narrow { most } if length > most => {
            let answer = b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            client.write_all(answer).await?;
            return drain(&mut client).await;
        }
        // Of a layer at once it takes nothing; of a piece, half.
        Mischief::BreakPushes { .. } if head.starts_with("PUT") && length > 1 << 20 => {
            let answer = b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            client.write_all(answer).await?;
            return drain(&mut client).await;
        }
        Mischief::BreakPushes { times }
            if head.starts_with("PATCH") && length > 1 << 20 && done.fetch_add(1, Ordering::SeqCst) < times =>
        {
            let mut half = vec![0; length / 2];
            client.read_exact(&mut half).await?;
            return client.shutdown().await;
        }
        Mischief::DrippingToken if path.starts_with("/token") => {
            client.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await?;
            loop {
                client.write_all(b" ").await?;
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
        }
        Mischief::Identity if path.starts_with("/token") => {
            let mut form = vec![0; length];
            client.read_exact(&mut form).await?;
            let form = String::from_utf8_lossy(&form).into_owned();
            // A password is exchanged; an identity is asked for by POST alone.
            let body = if head.starts_with("POST") && form.contains("refresh_token=kept%26secret") {
                r#"{"access_token":"good"}"#
            } else if path.contains("offline_token=true") && lower.contains("authorization: basic bwu6vspv") {
                r#"{"token":"good","refresh_token":"kept&secret"}"#
            } else {
                r#"{"token":"bad"}"#
            };
            let answer =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
            return client.write_all(answer.as_bytes()).await;
        }
        Mischief::Bearer if path.starts_with("/token") => {
            let known = lower.contains("authorization: basic bwu6vspv");
            let answer = if known { "HTTP/1.1 200 OK" } else { "HTTP/1.1 401 Unauthorized" };
            let body = if known { r#"{"token":"good"}"# } else { "{}" };
            let answer = format!("{answer}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
            return client.write_all(answer.as_bytes()).await;
        }
        Mischief::EndlessToken if path.starts_with("/token") => {
            client.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"token\":\"").await?;
            loop {
                client.write_all(&[b'a'; 1 << 16]).await?;
            }
        }
        Mischief::EndlessError if path.contains("/manifests/") => {
            client.write_all(b"HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n").await?;
            loop {
                client.write_all(&[b'a'; 1 << 16]).await?;
            }
        }
        Mischief::Bearer | Mischief::EndlessToken | Mischief::DrippingToken | Mischief::Identity
            if !lower.contains("authorization: bearer good") =>
        {
            let answer = format!(
                "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer realm=\"http://{own}/token\",service=\"test\"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            return client.write_all(answer.as_bytes()).await;
        }
        Mischief::Endless if path.contains("/manifests/") => {
            client.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await?;
            loop {
                client.write_all(&[b' '; 1 << 16]).await?;
            }
        }
        _ => {}
    }
    let mut server = tokio::net::TcpStream::connect(upstream).await?;
    let mut forwarded = String::new();
    for line in head.trim_end().lines() {
        let name = line.to_ascii_lowercase();
        let drop_range = name.starts_with("range:") && matches!(mischief, Mischief::CutWithoutRange { .. });
        let drop_auth = name.starts_with("authorization:") && matches!(mischief, Mischief::Bearer | Mischief::Identity);
        if !(name.starts_with("connection:") || drop_range || drop_auth) {
            forwarded.push_str(line);
            forwarded.push_str("\r\n");
        }
    }
    forwarded.push_str("connection: close\r\n\r\n");
    server.write_all(forwarded.as_bytes()).await?;
    let mut body = (&mut client).take(length as u64);
    tokio::io::copy(&mut body, &mut server).await?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await?;
    let body = answer.windows(4).position(|window| window == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    let large = is_blob && answer.len() - body > 1000;
    if large {
        layers.fetch_add(1, Ordering::SeqCst);
        if mischief == Mischief::Slow {
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
    }
    match mischief {
        Mischief::Cut { after, times } if large && done.fetch_add(1, Ordering::SeqCst) < times => {
            answer.truncate(body + after);
        }
        Mischief::CutWithoutRange { after } if large && done.fetch_add(1, Ordering::SeqCst) < 1 => {
            answer.truncate(body + after);
        }
        Mischief::Lie if large => *answer.last_mut().unwrap() ^= 1,
        Mischief::Longer if large => {
            let head = String::from_utf8_lossy(&answer[..body]).into_owned();
            let length = answer.len() - body;
            let head = head.replace(&format!("Content-Length: {length}"), &format!("Content-Length: {}", length + 1));
            let content = answer.split_off(body);
            answer = head.into_bytes();
            answer.extend(content);
            answer.push(0);
        }
        _ => {}
    }
    client.write_all(&answer).await?;
    client.shutdown().await
}

/// Reads what a client has under way before the connection ends: one that is reset loses its answer.
async fn drain(client: &mut tokio::net::TcpStream) -> std::io::Result<()> {
    client.shutdown().await?;
    tokio::io::copy(client, &mut tokio::io::sink()).await.map(|_| ())
}
