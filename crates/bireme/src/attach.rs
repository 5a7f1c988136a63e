//! Being a workload's terminal: copying the streams, passing signals and sizes on.

use std::collections::VecDeque;
use std::io;
use std::task::Poll;
use std::time::Duration;

use anyhow::Context as _;
use bireme_api::{Client, ClientError, Hijacked};
use bireme_core::detach_keys::DetachKeys;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::context::Context;
use crate::error::Failure;
use crate::printer::Printer;
use crate::terminal::{RawMode, size};

/// How a session came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The workload's output ended.
    Output,
    /// The user struck the detach keys.
    Detached,
}

/// Which streams of a container a client asks for.
#[derive(Clone, Copy, Debug)]
pub struct Streams {
    /// What is written goes to standard input.
    pub stdin: bool,
    /// Standard output is read.
    pub stdout: bool,
    /// Standard error is read.
    pub stderr: bool,
}

impl Streams {
    /// All that is written, and standard input where it is wanted.
    pub fn with_input(stdin: bool) -> Self {
        Self { stdin, stdout: true, stderr: true }
    }
}

/// Attaches to the container `id`, from now on. `keys` are those that detach, as the user wrote them.
///
/// # Errors
/// What the engine refuses, and a connection that it does not hand over.
pub async fn connect(client: &Client, id: &str, streams: Streams, keys: Option<&str>) -> Result<Hijacked, ClientError> {
    let call = client.post(format!("/containers/{id}/attach")).query("stream", 1);
    let call = call.query("stdin", u8::from(streams.stdin)).query("stdout", u8::from(streams.stdout));
    call.query("stderr", u8::from(streams.stderr)).query_some("detachKeys", keys).upgrade().await
}

/// What a session connects.
#[derive(Clone, Debug)]
pub struct Session {
    /// Our standard input is the workload's.
    pub stdin: bool,
    /// The workload has a terminal: one stream, not framed.
    pub tty: bool,
    /// What the user strikes to leave the workload alone; looked for only where there is a terminal.
    pub keys: DetachKeys,
}

impl Session {
    /// Reads `--detach-keys`; without it, or where it is empty, they are Docker's.
    pub fn new(stdin: bool, tty: bool, keys: Option<&str>) -> anyhow::Result<Self> {
        let keys = DetachKeys::parse(keys.unwrap_or_default()).context("--detach-keys")?;
        Ok(Self { stdin, tty, keys })
    }

    /// Raw mode, when the workload has a terminal and our input is one.
    pub fn raw_mode(&self) -> anyhow::Result<Option<RawMode>> {
        if self.stdin && self.tty { Ok(Some(RawMode::enter()?)) } else { Ok(None) }
    }

    /// Copies until the output ends or the user detaches. At the end of our input, the workload's is closed.
    pub async fn run(self, connection: Hijacked, printer: &Printer) -> anyhow::Result<Ended> {
        let framed = !self.tty;
        let (output, mut input) = tokio::io::split(connection);
        let (detach, detached) = tokio::sync::oneshot::channel::<()>();
        let feeder = self.stdin.then(|| {
            let mut keys = self.keys.clone();
            let watch_keys = self.tty;
            tokio::spawn(async move {
                let mut stdin = tokio::io::stdin();
                let mut buffer = vec![0; 16 * 1024];
                loop {
                    // The workload may be gone, and an input that nobody reads is no failure.
                    match stdin.read(&mut buffer).await {
                        Ok(0) | Err(_) => {
                            let _ = input.shutdown().await;
                            // Kept until the output ends: dropping the sender would say that the user detached.
                            std::future::pending::<()>().await;
                        }
                        Ok(read) if watch_keys => {
                            let (passed, struck) = keys.filter(&buffer[..read]);
                            let sent = input.write_all(&passed).await;
                            if struck {
                                let _ = detach.send(());
                                return;
                            }
                            if sent.is_err() {
                                std::future::pending::<()>().await;
                            }
                        }
                        Ok(read) => {
                            if input.write_all(&buffer[..read]).await.is_err() || input.flush().await.is_err() {
                                std::future::pending::<()>().await;
                            }
                        }
                    }
                }
            })
        });
        let ended = if feeder.is_some() {
            tokio::select! {
                copied = copy(output, framed, printer) => copied.map(|()| Ended::Output),
                _ = detached => Ok(Ended::Detached),
            }
        } else {
            copy(output, framed, printer).await.map(|()| Ended::Output)
        };
        if let Some(feeder) = feeder {
            feeder.abort();
        }
        Ok(ended?)
    }
}

async fn copy(mut output: ReadHalf<Hijacked>, framed: bool, printer: &Printer) -> io::Result<()> {
    let mut demux = Demux::default();
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let read = match output.read(&mut buffer).await {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            // An engine that ends a hijacked connection by reset has still said everything.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error),
        };
        if framed {
            demux.feed(&buffer[..read], |stream, bytes| match stream {
                2 => printer.raw_error(bytes),
                _ => printer.raw(bytes),
            })?;
        } else {
            printer.raw(&buffer[..read])?;
        }
    }
}

/// Takes Docker's framed streams apart: one byte of stream, three of nothing, four of length, then the bytes.
/// Source: Docker Engine API, `ContainerAttach`, "Stream format".
#[derive(Debug, Default)]
pub struct Demux {
    header: Vec<u8>,
    stream: u8,
    left: usize,
}

impl Demux {
    /// Hands each piece of payload on with the number of its stream, as soon as it is there.
    pub fn feed<E>(&mut self, mut bytes: &[u8], mut to: impl FnMut(u8, &[u8]) -> Result<(), E>) -> Result<(), E> {
        while !bytes.is_empty() {
            if self.left == 0 {
                let take = (8 - self.header.len()).min(bytes.len());
                self.header.extend_from_slice(&bytes[..take]);
                bytes = &bytes[take..];
                if let [stream, _, _, _, a, b, c, d] = self.header[..] {
                    self.stream = stream;
                    self.left = u32::from_be_bytes([a, b, c, d]) as usize;
                    self.header.clear();
                }
            } else {
                let take = self.left.min(bytes.len());
                to(self.stream, &bytes[..take])?;
                self.left -= take;
                bytes = &bytes[take..];
            }
        }
        Ok(())
    }
}

/// What is resized when our terminal is.
#[derive(Clone, Debug)]
pub enum Target {
    /// A container, by its id.
    Container(String),
    /// A session of `exec`, by its id.
    Exec(String),
}

/// Tells the engine our terminal's size now, and again whenever it changes, until dropped by the caller's `select`.
pub async fn follow_size(client: &Client, target: Target) -> io::Result<()> {
    let mut changes = signal(SignalKind::window_change())?;
    let path = match &target {
        Target::Container(id) => format!("/containers/{id}/resize"),
        Target::Exec(id) => format!("/exec/{id}/resize"),
    };
    // The process may not have its terminal yet; a moment later it has.
    for attempt in 0..10 {
        let Some((width, height)) = size() else { break };
        if client.post(&path).query("h", height).query("w", width).done().await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10 * (attempt + 1))).await;
    }
    while changes.recv().await.is_some() {
        if let Some((width, height)) = size() {
            // It may have ended meanwhile.
            let _ = client.post(&path).query("h", height).query("w", width).done().await;
        }
    }
    Ok(())
}

/// Interrupts after which the user means this program.
const INSISTS: usize = 3;

/// The signals that are for the workload. From when this is made they are kept for it, and do not end this program.
pub struct Signals {
    all: Vec<(&'static str, Signal)>,
    /// What came before the workload could be told.
    kept: VecDeque<&'static str>,
    interrupts: usize,
}

impl Signals {
    /// # Errors
    /// Where the kernel or the runtime refuses a handler.
    pub fn new() -> io::Result<Self> {
        let all = [
            ("SIGINT", SignalKind::interrupt()),
            ("SIGTERM", SignalKind::terminate()),
            ("SIGHUP", SignalKind::hangup()),
            ("SIGQUIT", SignalKind::quit()),
            ("SIGUSR1", SignalKind::user_defined1()),
            ("SIGUSR2", SignalKind::user_defined2()),
        ];
        let all = all.into_iter().map(|(name, kind)| Ok((name, signal(kind)?))).collect::<io::Result<_>>()?;
        Ok(Self { all, kept: VecDeque::new(), interrupts: 0 })
    }

    /// The next signal that comes; `None` where the user insists, with the third interrupt.
    ///
    /// # Cancel safety
    /// No signal is lost.
    async fn next(&mut self) -> Option<&'static str> {
        let came = std::future::poll_fn(|context| {
            let came =
                self.all.iter_mut().find_map(|(name, signal)| signal.poll_recv(context).is_ready().then_some(*name));
            came.map_or(Poll::Pending, Poll::Ready)
        });
        let name = came.await;
        self.interrupts += usize::from(matches!(name, "SIGINT" | "SIGTERM"));
        (self.interrupts < INSISTS).then_some(name)
    }
}

/// Carries `start` out, and keeps the signals that come meanwhile: the workload could not be told of them yet.
///
/// # Errors
/// Those of `start`, and where the user insists.
pub async fn kept_during<T>(
    signals: Option<&mut Signals>,
    start: impl Future<Output = Result<T, ClientError>>,
) -> anyhow::Result<T> {
    let Some(signals) = signals else { return Ok(start.await?) };
    let mut start = std::pin::pin!(start);
    loop {
        tokio::select! {
            started = &mut start => return Ok(started?),
            came = signals.next() => signals.kept.push_back(came.ok_or_else(insisted)?),
        }
    }
}

fn insisted() -> Failure {
    Failure::new("got 3 SIGTERM/SIGINTs, forcefully exiting")
}

/// Hands the signals we are sent on to the workload, until dropped. Ends by itself when the user insists: the third
/// interrupt is for us.
async fn forward_signals(client: &Client, id: &str, signals: &mut Signals) {
    loop {
        let kept = signals.kept.pop_front();
        let name = match kept {
            Some(name) => name,
            None => match signals.next().await {
                Some(name) => name,
                None => return,
            },
        };
        // It may have ended already, which is what the signal was for.
        let _ = client.post(format!("/containers/{id}/kill")).query("signal", name).done().await;
    }
}

/// Starts to wait for a workload; the engine has registered the wait when this returns.
pub async fn begin_wait(
    client: &Client,
    id: &str,
    condition: &str,
) -> Result<impl Future<Output = anyhow::Result<u8>> + use<>, ClientError> {
    let mut answers = client
        .post(format!("/containers/{id}/wait"))
        .query("condition", condition)
        .objects::<bireme_api::models::ContainerWaitResponse>()
        .await?;
    Ok(async move {
        use futures::StreamExt;
        let answer = answers.next().await.context("the engine went away before the workload ended")??;
        match answer.error.and_then(|error| error.message).filter(|message| !message.is_empty()) {
            Some(message) => Err(anyhow::anyhow!("{message}")),
            None => Ok(exit_code(answer.status_code)),
        }
    })
}

/// A workload's exit code as ours.
pub fn exit_code(code: i64) -> u8 {
    (code & 0xff) as u8
}

/// Runs a session with everything round it: raw mode, sizes, signals; then answers how it ended.
pub async fn converse(
    context: &Context,
    session: Session,
    connection: Hijacked,
    target: Target,
    signals: Option<Signals>,
) -> anyhow::Result<Ended> {
    let _raw = session.raw_mode()?;
    let tty = session.tty;
    let id = match &target {
        Target::Container(id) => id.clone(),
        Target::Exec(_) => String::new(),
    };
    let sizes = async {
        if tty {
            follow_size(&context.client, target).await?;
        }
        std::future::pending::<io::Result<()>>().await
    };
    let forwarded = async {
        match signals {
            Some(mut signals) => forward_signals(&context.client, &id, &mut signals).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = session.run(connection, &context.printer) => ended,
        failed = sizes => Err(failed.err().unwrap_or_else(|| io::Error::other("lost the terminal")).into()),
        () = forwarded => Err(insisted().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_apart_however_they_are_cut() {
        let mut wire = Vec::new();
        for (stream, text) in [(1u8, "out"), (2, "err"), (1, ""), (1, "more")] {
            wire.extend([stream, 0, 0, 0]);
            wire.extend((text.len() as u32).to_be_bytes());
            wire.extend(text.as_bytes());
        }
        for cut in 1..wire.len() {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let mut demux = Demux::default();
            for piece in wire.chunks(cut) {
                demux
                    .feed::<()>(piece, |stream, bytes| {
                        if stream == 2 {
                            err.extend_from_slice(bytes)
                        } else {
                            out.extend_from_slice(bytes)
                        }
                        Ok(())
                    })
                    .unwrap();
            }
            assert_eq!((out.as_slice(), err.as_slice()), (&b"outmore"[..], &b"err"[..]), "cut at {cut}");
        }
    }
}
