//! Following what the containers of an app say, each line with its name before it.

use std::time::Duration;

use bireme_api::answers::container::{Container, State};
use bireme_api::{Client, Hijacked};
use futures::StreamExt;
use tokio::io::AsyncReadExt as _;

use crate::attach::Demux;
use crate::context::Context;
use crate::printer::Printer;

/// Colours of the names, in turn. Source: Compose's `nextColor`, without those that are hard to read.
const COLORS: [&str; 10] = ["36", "33", "32", "35", "34", "96", "93", "92", "95", "94"];

/// What stands before a line.
#[derive(Clone, Debug, Default)]
pub struct Prefix(String);

impl Prefix {
    /// No prefix.
    pub fn none() -> Self {
        Self::default()
    }

    /// `name  | `, the `at`th of several that are at most `width` wide.
    pub fn new(printer: &Printer, at: usize, name: &str, width: usize) -> Self {
        Self(format!("{} | ", printer.paint(COLORS[at % COLORS.len()], &format!("{name:<0$}", width + 1))))
    }
}

/// Puts a log stream together again as whole lines.
pub struct Lines {
    printer: Printer,
    prefix: Prefix,
    demux: Option<Demux>,
    out: Vec<u8>,
    err: Vec<u8>,
}

impl Lines {
    /// `tty`: the stream is not framed.
    pub fn new(printer: Printer, prefix: Prefix, tty: bool) -> Self {
        Self { printer, prefix, demux: (!tty).then(Demux::default), out: Vec::new(), err: Vec::new() }
    }

    /// Prints every line that is now whole.
    pub fn feed(&mut self, chunk: &[u8]) -> std::io::Result<()> {
        let Self { demux, out, err, .. } = self;
        match demux {
            None => out.extend_from_slice(chunk),
            Some(demux) => {
                let sorted = demux.feed::<std::convert::Infallible>(chunk, |stream, bytes| {
                    if stream == 2 { &mut *err } else { &mut *out }.extend_from_slice(bytes);
                    Ok(())
                });
                match sorted {
                    Ok(()) => {}
                    Err(never) => match never {},
                }
            }
        }
        self.flush(false)
    }

    /// Prints what is left without its newline.
    pub fn finish(&mut self) -> std::io::Result<()> {
        self.flush(true)
    }

    fn flush(&mut self, all: bool) -> std::io::Result<()> {
        let (printer, prefix) = (self.printer, &self.prefix.0);
        whole(&mut self.out, prefix, all, |text| printer.raw(text))?;
        whole(&mut self.err, prefix, all, |text| printer.raw_error(text))
    }
}

/// Bytes of a line that has no end, after which it is shown all the same.
const LONGEST: usize = 64 * 1024;

fn whole(
    buffer: &mut Vec<u8>,
    prefix: &str,
    all: bool,
    print: impl FnOnce(&[u8]) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let end = match buffer.iter().rposition(|byte| *byte == b'\n') {
        _ if all => buffer.len(),
        Some(last) => last + 1,
        // Whoever never ends a line is not kept in memory for it.
        None if buffer.len() >= LONGEST => buffer.len(),
        None => return Ok(()),
    };
    if end == 0 {
        return Ok(());
    }
    let mut text = Vec::with_capacity(end + prefix.len() * 4);
    for line in buffer[..end].split_inclusive(|byte| *byte == b'\n') {
        text.extend_from_slice(prefix.as_bytes());
        text.extend_from_slice(line);
    }
    if !text.ends_with(b"\n") && (all || !prefix.is_empty()) {
        text.push(b'\n');
    }
    buffer.drain(..end);
    print(&text)
}

/// From when on a container's output is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Since {
    /// What is written from now on.
    Now,
    /// Everything after the end of an earlier run; everything when there was none. The start of a run will not do: its
    /// first lines may be older than the moment the engine noted.
    After(Option<String>),
}

/// Follows one container through its restarts until it stays ended, and answers its exit code; `None` when that is not
/// known, as of one that is removed meanwhile. `output` is what it writes in the run it is in; without it, and for what
/// follows, its log is read.
pub async fn follow(
    context: &Context,
    id: &str,
    prefix: Prefix,
    mut since: Since,
    timestamps: bool,
    output: Option<Hijacked>,
) -> anyhow::Result<Option<i64>> {
    let mut output = output.filter(|_| !timestamps);
    loop {
        let container: Container = match context.client.get(format!("/containers/{id}/json")).read().await {
            Ok(container) => container,
            // Removed while we followed: it has nothing more to say.
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let started = container.state.started_at;
        let mut lines = Lines::new(context.printer, prefix.clone(), container.config.tty);
        if let Some(mut output) = output.take() {
            let mut buffer = vec![0; 32 * 1024];
            loop {
                match output.read(&mut buffer).await {
                    Ok(0) => break,
                    Ok(read) => lines.feed(&buffer[..read])?,
                    // An engine that ends a hijacked connection by reset has still said everything.
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
                    Err(error) => return Err(error.into()),
                }
            }
            lines.finish()?;
            match settle(&context.client, id, &started).await? {
                Settled::Ended(code) => return Ok(code),
                Settled::Again(ended) => since = Since::After(Some(ended)),
            }
            continue;
        }
        let call = context
            .client
            .get(format!("/containers/{id}/logs"))
            .query("stdout", 1)
            .query("stderr", 1)
            .query("follow", 1)
            .query("timestamps", u8::from(timestamps));
        let call = match &since {
            Since::Now => call.query("tail", 0),
            Since::After(ended) => {
                call.query_some("since", ended.as_deref().and_then(|ended| crate::units::parse_moment(ended).ok()))
            }
        };
        let mut stream = match call.stream().await {
            Ok(stream) => stream,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        while let Some(chunk) = stream.next().await {
            lines.feed(&chunk?)?;
        }
        lines.finish()?;
        match settle(&context.client, id, &started).await? {
            Settled::Ended(code) => return Ok(code),
            Settled::Again(ended) => since = Since::After(Some(ended)),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Settled {
    /// It stays ended, with this exit code; `None` where the engine has none, or the container no more.
    Ended(Option<i64>),
    /// It was started again; the run that was followed ended then.
    Again(String),
}

/// Waits until a container whose output ended has either ended too or been started again.
async fn settle(client: &Client, id: &str, started: &str) -> anyhow::Result<Settled> {
    let mut ended = None;
    loop {
        let found = match client.get(format!("/containers/{id}/json")).read::<Container>().await {
            Ok(container) => Some(container.state),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error.into()),
        };
        match settled(found, started, &mut ended) {
            Some(settled) => return Ok(settled),
            None => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// What has become of a container by its state, which is `None` when it is removed; `None` while that is open. `ended` is
/// when the run ended that was followed, once that is seen.
fn settled(state: Option<State>, started: &str, ended: &mut Option<String>) -> Option<Settled> {
    let Some(state) = state else { return Some(Settled::Ended(None)) };
    let again = !state.started_at.is_empty() && state.started_at != started;
    let status = state.status.as_str();
    // The first end that is seen is that of the run that was followed.
    if again || status == "restarting" {
        ended.get_or_insert(state.finished_at);
    }
    match status {
        "exited" | "dead" | "created" => Some(Settled::Ended(state.exit_code)),
        _ if again && state.running => Some(Settled::Again(ended.take().unwrap_or_default())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_is_known_or_not_and_never_made_up() {
        let state = |status: &str, started: &str, exit_code| State {
            status: status.to_owned(),
            running: status == "running",
            started_at: started.to_owned(),
            finished_at: "end".to_owned(),
            exit_code,
            ..State::default()
        };
        for (found, expected) in [
            (None, Some(Settled::Ended(None))),
            (Some(state("exited", "first", Some(3))), Some(Settled::Ended(Some(3)))),
            (Some(state("exited", "first", Some(0))), Some(Settled::Ended(Some(0)))),
            (Some(state("exited", "first", None)), Some(Settled::Ended(None))),
            (Some(state("dead", "first", None)), Some(Settled::Ended(None))),
            (Some(state("running", "first", Some(0))), None),
            (Some(state("restarting", "first", Some(1))), None),
            (Some(state("removing", "first", Some(1))), None),
            (Some(state("running", "second", Some(1))), Some(Settled::Again("end".to_owned()))),
        ] {
            assert_eq!(settled(found.clone(), "first", &mut None), expected, "{found:?}");
        }
        let mut ended = Some("before".to_owned());
        let again = settled(Some(state("running", "second", Some(1))), "first", &mut ended);
        assert_eq!(again, Some(Settled::Again("before".to_owned())));
    }

    #[test]
    fn lines_are_whole_and_prefixed() {
        let mut said = Vec::new();
        let mut buffer = b"one\ntwo\nthr".to_vec();
        whole(&mut buffer, "web-1  | ", false, |text| {
            said.extend_from_slice(text);
            Ok(())
        })
        .unwrap();
        assert_eq!((said.as_slice(), buffer.as_slice()), (&b"web-1  | one\nweb-1  | two\n"[..], &b"thr"[..]));
        whole(&mut buffer, "x | ", true, |text| {
            said = text.to_vec();
            Ok(())
        })
        .unwrap();
        assert_eq!(said, b"x | thr\n");
    }
}
