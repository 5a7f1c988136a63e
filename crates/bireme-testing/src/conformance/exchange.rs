//! One HTTP exchange at a time: asked, its head awaited, its body read as it comes.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long one exchange may be silent.
const SILENCE: Duration = Duration::from_secs(60);

/// An answer whose head is there.
pub(crate) struct Exchange {
    stream: UnixStream,
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    head_only: bool,
    /// What came after the head and was not looked at yet.
    read: Vec<u8>,
}

impl Exchange {
    /// Asks, and waits for the head of the answer.
    pub(crate) fn begin(
        socket: &Path,
        method: &str,
        path: &str,
        headers: &[String],
        body: &[u8],
        input: Option<&[u8]>,
    ) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(SILENCE))?;
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
        let given = |name: &str| headers.iter().any(|header| header.to_ascii_lowercase().starts_with(name));
        if !given("connection:") {
            head.push_str("Connection: close\r\n");
        }
        if !given("content-length:") && (!body.is_empty() || matches!(method, "POST" | "PUT")) {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        if !body.is_empty() && !given("content-type:") {
            let kind = if matches!(body[0], b'{' | b'[') { "application/json" } else { "application/x-tar" };
            head.push_str(&format!("Content-Type: {kind}\r\n"));
        }
        for header in headers {
            head.push_str(header);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut exchange =
            Self { stream, status: 0, headers: Vec::new(), head_only: method == "HEAD", read: Vec::new() };
        exchange.head()?;
        if let Some(input) = input {
            exchange.stream.write_all(input)?;
            exchange.stream.shutdown(Shutdown::Write)?;
        }
        Ok(exchange)
    }

    fn head(&mut self) -> io::Result<()> {
        let end = loop {
            if let Some(end) = find(&self.read, b"\r\n\r\n") {
                break end;
            }
            if !self.more()? {
                return Err(bad("the connection closed before the head of an answer"));
            }
        };
        let rest = self.read.split_off(end + 4);
        let head = String::from_utf8_lossy(&std::mem::replace(&mut self.read, rest)).into_owned();
        let mut lines = head.split("\r\n");
        self.status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1)?.parse().ok())
            .ok_or_else(|| bad("the answer is no HTTP"))?;
        self.headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Ok(())
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let name = name.to_ascii_lowercase();
        self.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    fn more(&mut self) -> io::Result<bool> {
        let mut piece = [0; 16 * 1024];
        let count = match self.stream.read(&mut piece) {
            // Closed hard by an engine that had no more to say.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            other => other?,
        };
        self.read.extend_from_slice(&piece[..count]);
        Ok(count > 0)
    }

    /// The whole body, or its first `lines`.
    pub(crate) fn body(&mut self, lines: Option<usize>) -> io::Result<Vec<u8>> {
        if self.head_only || matches!(self.status, 204 | 304) {
            return Ok(Vec::new());
        }
        let chunked = self.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        let length: Option<usize> = self.header("content-length").and_then(|value| value.parse().ok());
        loop {
            let (body, whole) = if chunked {
                unchunk(&self.read)
            } else {
                (self.read.clone(), length.is_some_and(|length| self.read.len() >= length))
            };
            let enough = lines.is_some_and(|lines| body.iter().filter(|byte| **byte == b'\n').count() >= lines);
            if whole || enough || !self.more()? {
                return Ok(body);
            }
        }
    }
}

fn bad(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn find(all: &[u8], part: &[u8]) -> Option<usize> {
    all.windows(part.len()).position(|window| window == part)
}

/// What the chunks so far hold, and whether the last one is among them.
fn unchunk(mut raw: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(end) = find(raw, b"\r\n") {
        let size = std::str::from_utf8(&raw[..end]).ok();
        let Some(size) = size.and_then(|text| usize::from_str_radix(text.trim(), 16).ok()) else { break };
        if size == 0 {
            return (body, true);
        }
        let Some(chunk) = raw.get(end + 2..end + 2 + size) else { break };
        body.extend_from_slice(chunk);
        raw = raw.get(end + 4 + size..).unwrap_or(&[]);
    }
    (body, false)
}

/// Splits a multiplexed stream into standard output and standard error.
pub(crate) fn demultiplex(mut frames: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some((head, rest)) = frames.split_at_checked(8) {
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let Some((frame, rest)) = rest.split_at_checked(length) else { break };
        if head[0] == 2 { &mut err } else { &mut out }.extend_from_slice(frame);
        frames = rest;
    }
    (out, err)
}
