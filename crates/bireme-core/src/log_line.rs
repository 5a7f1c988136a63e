//! One line of a log file: Docker's `json-file` form.
//!
//! ```text
//! {"log":"hello\n","stream":"stdout","time":"2026-11-21T08:30:00.123456789Z"}
//! ```
//!
//! Each line of output is one record, ended by `\n` inside `log`; output longer than [`MAX_TEXT`] without a line end is
//! cut into several records, of which only the last ends in `\n`. Records are appended with one write each, so a reader
//! sees whole records or the beginning of the last one.

use std::fmt::Write as _;

/// The most output bytes in one record, as Docker cuts it.
pub const MAX_TEXT: usize = 16 * 1024;

/// Which of the two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output, and all that a terminal shows.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// The stream's number in Docker's multiplexed frames.
    pub fn number(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }

    /// `stdout` or `stderr`, as records have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// One record, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The output, with its line end where it had one.
    pub text: String,
    /// Where it was written.
    pub stream: Stream,
    /// Nanoseconds since the Unix epoch.
    pub time: i64,
}

/// Appends one record to `out`. `text` may hold any bytes; what is not UTF-8 becomes U+FFFD, as in Docker's files.
pub fn encode(out: &mut Vec<u8>, stream: Stream, text: &[u8], time: i64) {
    let text = String::from_utf8_lossy(text);
    let mut line = String::with_capacity(text.len() + 80);
    line.push_str("{\"log\":\"");
    for c in text.chars() {
        match c {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            c if (c as u32) < 0x20 || c == '\u{7f}' || c == '\u{2028}' || c == '\u{2029}' => {
                let _ = write!(line, "\\u{:04x}", c as u32);
            }
            c => line.push(c),
        }
    }
    let _ = writeln!(line, "\",\"stream\":\"{}\",\"time\":\"{}\"}}", stream.as_str(), format_time(time));
    out.extend_from_slice(line.as_bytes());
}

/// Reads one record; `None` for anything else, such as a record cut short by a crash of the machine.
pub fn decode(line: &[u8]) -> Option<Record> {
    #[derive(serde::Deserialize)]
    struct Wire {
        log: String,
        stream: Stream,
        time: String,
    }
    let wire: Wire = serde_json::from_slice(line).ok()?;
    Some(Record { text: wire.log, stream: wire.stream, time: parse_time(&wire.time)? })
}

/// RFC 3339 in UTC with nine digits of fraction, as Docker writes times. `time` is nanoseconds since the Unix epoch.
pub fn format_time(time: i64) -> String {
    chrono::DateTime::from_timestamp_nanos(time).format("%Y-%m-%dT%H:%M:%S%.9fZ").to_string()
}

/// Nanoseconds since the Unix epoch of an RFC 3339 time.
pub fn parse_time(text: &str) -> Option<i64> {
    chrono::DateTime::parse_from_rfc3339(text).ok()?.timestamp_nanos_opt()
}

/// Cuts a stream of output into records: at line ends, and at [`MAX_TEXT`].
#[derive(Debug)]
pub struct Splitter {
    stream: Stream,
    pending: Vec<u8>,
}

impl Splitter {
    /// For a stream of which nothing has come yet.
    pub fn new(stream: Stream) -> Self {
        Self { stream, pending: Vec::new() }
    }

    /// Takes `bytes` and appends every record that is complete now to `out`.
    pub fn push(&mut self, mut bytes: &[u8], time: i64, out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let room = MAX_TEXT - self.pending.len();
            let line_end = bytes.iter().take(room).position(|b| *b == b'\n').map(|at| at + 1);
            let take = line_end.unwrap_or(bytes.len().min(room));
            self.pending.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            if line_end.is_some() || self.pending.len() == MAX_TEXT {
                encode(out, self.stream, &self.pending, time);
                self.pending.clear();
            }
        }
    }

    /// Appends what is left without a line end. To be called when the stream ends.
    pub fn finish(&mut self, time: i64, out: &mut Vec<u8>) {
        if !self.pending.is_empty() {
            encode(out, self.stream, &self.pending, time);
            self.pending.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn writes_what_docker_writes() {
        let mut out = Vec::new();
        encode(&mut out, Stream::Stdout, b"a\"b\\\x01\n", 1_700_000_000_000_000_001);
        let expected =
            "{\"log\":\"a\\\"b\\\\\\u0001\\n\",\"stream\":\"stdout\",\"time\":\"2023-11-14T22:13:20.000000001Z\"}\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    proptest! {
        #[test]
        fn reads_what_it_wrote(chunks in proptest::collection::vec("\\PC{0,40}\n?", 0..10), long in 0usize..40_000) {
            let mut splitter = Splitter::new(Stream::Stderr);
            let mut out = Vec::new();
            let mut whole = String::new();
            for chunk in chunks.iter().cloned().chain([ "x".repeat(long) ]) {
                splitter.push(chunk.as_bytes(), 5, &mut out);
                whole.push_str(&chunk);
            }
            splitter.finish(5, &mut out);
            let records: Vec<Record> = out.split_inclusive(|b| *b == b'\n').map(|line| decode(line).unwrap()).collect();
            prop_assert!(records.iter().all(|r| r.text.len() <= MAX_TEXT && r.time == 5 && r.stream == Stream::Stderr));
            prop_assert_eq!(records.into_iter().map(|r| r.text).collect::<String>(), whole);
        }
    }
}
