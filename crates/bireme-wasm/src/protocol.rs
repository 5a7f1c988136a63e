//! What the daemon and a host process say to each other.
//!
//! One connection carries one request: four bytes of length (big endian), then JSON, with file descriptors attached to
//! the first bytes; the answer has the same form. The connection of [`Request::Wait`] stays open until the workload
//! ends; the one of [`Request::Attach`] goes on as a stream of frames after its answer.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use bireme_core::clock::now_nanos;
use bireme_core::{
    ErrorKind, ExecError, Exit, NamedNetwork, NamesChange, NetworkPlace, SandboxId, WorkloadId, WorkloadSpec,
};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// The most bytes of one message to a host.
const MAX_MESSAGE: usize = 16 << 20;
/// The most bytes of an answer, and of one that is a list.
const MAX_ANSWER: usize = 64 << 10;
const MAX_LIST: usize = 4 << 20;
/// How long the rest of a message may take once its length is there: it is in memory for so long.
const BODY: Duration = Duration::from_secs(20);
/// The most instances that a host lists, and bytes of what each works on.
pub const MAX_INSTANCES: usize = 4096;
pub const MAX_WORK: usize = 256;
/// The most bytes of a sentence of a host: why it refuses, or what a workload died of.
const MAX_SENTENCE: usize = 8 << 10;
/// The most descriptors of one message: the kernel's `SCM_MAX_FD`.
pub const MAX_FDS: usize = 253;
/// In a host's refusal of compiled code that it cannot map.
pub const DAMAGED: &str = "the compiled code is damaged";

/// How a host process is started: its one argument after `serve`, as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HostConfig {
    pub sandbox: SandboxId,
    /// Its own folder, where `host.sock` is made.
    pub dir: PathBuf,
    /// Folder of this sandbox's embedded key-value stores.
    pub kv_dir: PathBuf,
    /// The user and group it becomes, if it starts as root.
    pub uid: u32,
    /// Network namespace to join; `None` stays in the daemon's.
    pub netns: Option<PathBuf>,
    /// DNS servers inside it.
    pub dns: Vec<IpAddr>,
    /// The cgroup to enter, relative to each hierarchy's root.
    pub cgroup: PathBuf,
    /// Whose connections are served, besides root's.
    pub owner_uid: u32,
}

/// One request to a host process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "op")]
pub enum Request {
    /// Answered with [`HostState`].
    Ping,
    /// Answered with [`Brief`]: whether it answers at all.
    Brief,
    /// Answered with whether the workload was started; `None` when the host does not have it.
    Known {
        id: WorkloadId,
    },
    /// Makes a workload ready to start. Answered with [`Brief`].
    Load(Box<Load>),
    Start {
        id: WorkloadId,
    },
    Signal {
        id: WorkloadId,
        signal: i32,
    },
    /// Answered with [`bireme_core::Exit`] once the workload has ended.
    Wait {
        id: WorkloadId,
    },
    /// Answered with [`Usage`].
    Usage {
        id: WorkloadId,
    },
    /// Answered with a list of [`Instance`].
    Instances {
        id: WorkloadId,
    },
    /// Answered with [`bireme_core::InvocationStats`].
    Invocations {
        id: WorkloadId,
    },
    /// The names on networks changed, each by the ID of its network.
    Names {
        changes: BTreeMap<String, NamesChange>,
    },
    /// A workload finds names on these networks from now on.
    Networks {
        id: WorkloadId,
        networks: Vec<NamedNetwork>,
    },
    Delete {
        id: WorkloadId,
    },
    /// What the workload is called from now on.
    Renamed {
        id: WorkloadId,
        name: String,
    },
    /// After an empty answer the host writes attach frames until the workload ends. With `stdin` it takes what comes for
    /// standard input, if the workload has one.
    Attach {
        id: WorkloadId,
        #[serde(default)]
        stdin: bool,
    },
}

impl Request {
    /// The most bytes that its answer may have. Whoever has taken a host over answers what he likes.
    fn most(&self) -> usize {
        match self {
            Self::Ping | Self::Instances { .. } => MAX_LIST,
            _ => MAX_ANSWER,
        }
    }

    /// Whether the answer is a list, which may take memory that is worth counting.
    pub(crate) fn is_for_list(&self) -> bool {
        self.most() > MAX_ANSWER
    }
}

/// Everything a host needs to run one workload. The descriptors that come with it are listed in `fds`, in order.
#[derive(Debug, Serialize, Deserialize)]
pub struct Load {
    pub spec: WorkloadSpec,
    pub facts: Facts,
    pub network: Option<NetworkPlace>,
    /// Host addresses this workload answers on; the socket is among the descriptors or held already.
    pub listeners: Vec<SocketAddr>,
    /// Where it finds names; the host was told those networks' names before.
    pub networks: Vec<NamedNetwork>,
    pub log: Log,
    pub fds: Vec<FdUse>,
}

/// Where the log goes: a file in the folder that comes as [`FdUse::LogFolder`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Log {
    /// `None` writes no file.
    pub file: Option<String>,
    pub max_size: Option<u64>,
    pub max_files: u32,
}

/// What a descriptor of [`Load`] is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FdUse {
    /// The file of compiled code.
    Code,
    /// The empty file to which the end is written.
    Exit,
    LogFolder,
    /// A listening TCP socket bound to this address.
    Listener(SocketAddr),
    /// A folder, preopened at this path.
    Folder {
        target: String,
        read_only: bool,
    },
}

/// What starts instances of a component; follows from its exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// `wasi:http/incoming-handler@0.2`.
    HttpP2,
    /// `wasi:http/handler@0.3`.
    HttpP3,
    /// `fermyon:spin/inbound-redis`.
    RedisP2,
    /// `spin:redis/inbound-redis@3`.
    RedisP3,
    /// `wasi:cli/run@0.2`.
    CommandP2,
    /// `wasi:cli/run@0.3`.
    CommandP3,
    /// A core module with `_start` and WASI preview 1.
    CommandP1,
}

impl Trigger {
    /// `http`, `redis` or `command`.
    pub fn name(self) -> &'static str {
        match self {
            Self::HttpP2 | Self::HttpP3 => "http",
            Self::RedisP2 | Self::RedisP3 => "redis",
            Self::CommandP1 | Self::CommandP2 | Self::CommandP3 => "command",
        }
    }

    /// Of two triggers of one name the greater is the newer.
    pub fn generation(self) -> u8 {
        match self {
            Self::CommandP1 => 1,
            Self::HttpP2 | Self::RedisP2 | Self::CommandP2 => 2,
            Self::HttpP3 | Self::RedisP3 | Self::CommandP3 => 3,
        }
    }
}

/// What `bireme-wasm-host compile` found out about a component. Also stored beside the compiled code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    pub trigger: Trigger,
    pub imports: Vec<String>,
    pub exports: Vec<String>,
}

/// What `bireme-wasm-host compile` prints.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompileAnswer {
    Ready(Facts),
    Refused(Refusal),
}

/// A host as it describes itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HostState {
    pub workloads: Vec<WorkloadState>,
    /// Addresses whose listening sockets it holds.
    pub listeners: Vec<SocketAddr>,
}

/// The same in numbers. The daemon keeps its own and believes neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brief {
    pub workloads: usize,
    /// Bytes that its workloads may have together, see [`crate::memory`].
    pub memory: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkloadState {
    pub id: WorkloadId,
    pub started: bool,
}

/// What a workload used so far.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time in nanoseconds: the time its instances were being run.
    pub cpu: u64,
    /// Bytes that its live instances have, and its share of what the host process takes beside instances.
    pub memory: u64,
    /// The most that one instance had.
    pub memory_peak: u64,
    /// Most bytes that all its instances may have, and the host process with them.
    pub memory_limit: u64,
    /// Live instances.
    pub instances: u64,
}

/// One live instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Instance {
    pub number: u64,
    pub trigger: String,
    /// Milliseconds since it started.
    pub age: u64,
    /// What it works on: method and path, channel, or arguments.
    pub work: String,
}

/// An error as it crosses the socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub kind: ErrorKind,
    pub message: String,
    pub exit_code: Option<i32>,
}

impl Refusal {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), exit_code: None }
    }
}

impl From<Refusal> for ExecError {
    fn from(refusal: Refusal) -> Self {
        let error = ExecError::new(refusal.kind, sentence(&refusal.message));
        match refusal.exit_code {
            Some(code) => error.with_exit_code(code),
            None => error,
        }
    }
}

/// What a host says, as one line of bounded length that can be logged and shown.
pub fn sentence(text: &str) -> String {
    line(text, MAX_SENTENCE)
}

/// The first `most` bytes of `text` as one line.
pub fn line(text: &str, most: usize) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text[..text.floor_char_boundary(most)].chars().map(plain).collect()
}

/// How a workload ended, as far as its host is believed: not before it was there (`since`) nor in the future, in nanoseconds
/// since 1970, and for a reason of bounded length.
pub(crate) fn credible(exit: Exit, since: i64) -> Exit {
    let now = now_nanos();
    Exit {
        finished_at: exit.finished_at.clamp(since.min(now), now),
        error: exit.error.as_deref().map(sentence),
        ..exit
    }
}

/// What every answer is, as a host makes it. The daemon never builds the value: it takes many times the bytes it came in.
pub type Answer = Result<serde_json::Value, Refusal>;

/// Writes one message with `fds` attached.
///
/// # Errors
/// Those of the socket; `InvalidInput` for a message or a list of descriptors that is too long.
/// # Cancel safety
/// Not cancel safe: a dropped future may leave half a message behind. Close the connection then.
pub async fn send<T: Serialize>(stream: &UnixStream, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let body = serde_json::to_vec(message).map_err(io::Error::other)?;
    if body.len() > MAX_MESSAGE || fds.len() > MAX_FDS {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the message is too long"));
    }
    let mut bytes = u32::try_from(body.len()).map_err(io::Error::other)?.to_be_bytes().to_vec();
    bytes.extend_from_slice(&body);
    let mut sent = 0;
    while sent < bytes.len() {
        sent += stream
            .async_io(Interest::WRITABLE, || {
                let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                if sent == 0 && !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
                }
                let flags = SendFlags::NOSIGNAL;
                Ok(rustix::net::sendmsg(stream.as_fd(), &[IoSlice::new(&bytes[sent..])], &mut control, flags)?)
            })
            .await?;
    }
    Ok(())
}

/// Reads one message with the descriptors that came with it; `None` when the peer closed instead.
///
/// # Errors
/// Those of the socket; `InvalidData` for anything that is not a message, and for more than [`MAX_FDS`] descriptors.
/// # Cancel safety
/// Not cancel safe: close the connection if the future is dropped.
pub async fn receive<T: for<'de> Deserialize<'de>>(stream: &UnixStream) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut fds = Vec::new();
    let mut take = |bytes: &mut [u8]| -> io::Result<usize> {
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut rest = [IoSliceMut::new(bytes)];
        let got = rustix::net::recvmsg(stream.as_fd(), &mut rest, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        // Each byte may bring as many as the kernel takes at once.
        if fds.len() > MAX_FDS {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "too many descriptors came with a message"));
        }
        Ok(got.bytes)
    };
    let Some(body) = message(stream, MAX_MESSAGE, &mut take).await? else { return Ok(None) };
    Ok(Some((parse(&body)?, fds)))
}

/// Reads the answer to `request`; `None` when the host closed instead. Descriptors that come with it are the kernel's to
/// close: they are not asked for, so they never become the daemon's.
///
/// # Errors
/// As [`receive`]; also for more bytes than the answer to such a request may have.
/// # Cancel safety
/// Not cancel safe: close the connection if the future is dropped.
pub(crate) async fn receive_answer<T: for<'de> Deserialize<'de>>(
    stream: &UnixStream,
    request: &Request,
) -> io::Result<Option<Result<T, Refusal>>> {
    let mut take = |bytes: &mut [u8]| -> io::Result<usize> { Ok(rustix::io::read(stream.as_fd(), bytes)?) };
    let Some(body) = message(stream, request.most(), &mut take).await? else { return Ok(None) };
    parse(&body).map(Some)
}

fn parse<T: for<'de> Deserialize<'de>>(body: &[u8]) -> io::Result<T> {
    serde_json::from_slice(body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Reads the body of one message of at most `most` bytes by `take`, which reads what is there; `None` at end of file.
async fn message(
    stream: &UnixStream,
    most: usize,
    take: &mut impl FnMut(&mut [u8]) -> io::Result<usize>,
) -> io::Result<Option<Vec<u8>>> {
    let mut header = [0u8; 4];
    if !fill(stream, &mut header, take).await? {
        return Ok(None);
    }
    let length = u32::from_be_bytes(header) as usize;
    if length > most {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
    }
    let mut body = vec![0u8; length];
    let filled = tokio::time::timeout(BODY, fill(stream, &mut body, take)).await;
    match filled.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "a message was begun and not ended"))?? {
        true => Ok(Some(body)),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Reads exactly `bytes`, never more, so that what follows stays in the socket. False at end of file before the first.
async fn fill(
    stream: &UnixStream,
    bytes: &mut [u8],
    take: &mut impl FnMut(&mut [u8]) -> io::Result<usize>,
) -> io::Result<bool> {
    let mut filled = 0;
    while filled < bytes.len() {
        let n = stream.async_io(Interest::READABLE, || take(&mut bytes[filled..])).await?;
        if n == 0 {
            return if filled == 0 { Ok(false) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        filled += n;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[tokio::test]
    async fn messages_and_descriptors_cross_and_the_rest_stays() {
        let (a, b) = UnixStream::pair().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let long = "x".repeat(1 << 20);
        let sender = tokio::spawn(async move {
            send(&a, &long, &[writer.as_fd()]).await.unwrap();
            drop(writer);
            send(&a, &"second", &[]).await.unwrap();
        });
        let (text, fds) = receive::<String>(&b).await.unwrap().unwrap();
        assert_eq!((text.len(), fds.len()), (1 << 20, 1));
        std::io::Write::write_all(&mut std::fs::File::from(fds.into_iter().next().unwrap()), b"hello").unwrap();
        let (text, fds) = receive::<String>(&b).await.unwrap().unwrap();
        assert_eq!((text.as_str(), fds.len()), ("second", 0));
        sender.await.unwrap();
        let mut got = String::new();
        { reader }.read_to_string(&mut got).unwrap();
        assert_eq!(got, "hello");
        assert!(receive::<String>(&b).await.unwrap().is_none());
    }

    fn open_files() -> usize {
        std::fs::read_dir("/proc/self/fd").unwrap().count()
    }

    /// As [`send`] does it, a byte at a time, and with each as many descriptors as the kernel takes.
    async fn send_with_descriptors_everywhere(stream: &UnixStream, body: &[u8]) -> io::Result<()> {
        let (reader, _writer) = std::io::pipe().unwrap();
        let fds = vec![reader.as_fd(); MAX_FDS];
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        for byte in length.iter().chain(body) {
            let attached = || {
                let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
                let bytes = [IoSlice::new(std::slice::from_ref(byte))];
                Ok(rustix::net::sendmsg(stream.as_fd(), &bytes, &mut control, SendFlags::NOSIGNAL)?)
            };
            stream.async_io(Interest::WRITABLE, attached).await?;
        }
        Ok(())
    }

    #[tokio::test]
    async fn descriptors_of_an_answer_never_become_the_daemons() {
        let (a, b) = UnixStream::pair().unwrap();
        let before = open_files();
        let sent = async { send_with_descriptors_everywhere(&a, br#"{"Ok":[]}"#).await.unwrap() };
        let received = async {
            let answer = receive_answer::<Vec<u8>>(&b, &Request::Ping).await.unwrap().unwrap();
            (answer.unwrap(), open_files())
        };
        let ((), (answer, during)) = tokio::join!(sent, received);
        assert!(answer.is_empty());
        // The other side's pipe, and nothing of what it sent.
        assert!(during <= before + 2, "{before} were open and {during} are");
    }

    #[tokio::test]
    async fn a_host_takes_no_more_descriptors_than_one_message_has() {
        let (a, b) = UnixStream::pair().unwrap();
        let sent = send_with_descriptors_everywhere(&a, br#"{"op":"ping"}"#);
        let received = async {
            let error = receive::<Request>(&b).await.err().unwrap();
            drop(b);
            error
        };
        let (_, error) = tokio::join!(sent, received);
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn answers_are_bounded_by_what_was_asked() {
        let id = WorkloadId::from_bytes([7; 32]);
        let long = format!("{{\"Ok\":{{\"x\":\"{}\"}}}}", "x".repeat(MAX_ANSWER));
        for (request, fits) in
            [(Request::Brief, false), (Request::Wait { id: id.clone() }, false), (Request::Instances { id }, true)]
        {
            let (a, b) = UnixStream::pair().unwrap();
            let text = long.clone();
            let sender = tokio::spawn(async move {
                let raw = serde_json::value::RawValue::from_string(text).unwrap();
                let _ = send(&a, &raw, &[]).await;
            });
            let answer = receive_answer::<serde::de::IgnoredAny>(&b, &request).await;
            drop(b);
            assert_eq!(answer.is_ok(), fits, "{request:?}");
            sender.await.unwrap();
        }
    }

    #[test]
    fn what_a_host_says_is_one_line_and_its_times_are_possible() {
        let refusal = Refusal::new(ErrorKind::Internal, format!("no\n2026 ERROR all is lost\r{}", "ä".repeat(1 << 20)));
        let error = ExecError::from(refusal);
        assert!(error.message().len() <= MAX_SENTENCE && !error.message().contains(['\n', '\r']), "{error}");
        let ended = |finished_at| Exit { code: 0, oom_killed: false, finished_at, error: Some("e\n".repeat(1 << 20)) };
        let now = now_nanos();
        for (told, since) in [(i64::MAX, 5), (i64::MIN, 5), (now - 1000, 0)] {
            let exit = credible(ended(told), since);
            assert!((since..=now + 60_000_000_000).contains(&exit.finished_at), "{}", exit.finished_at);
            assert!(exit.error.unwrap().len() <= MAX_SENTENCE);
        }
        assert_eq!(credible(ended(now - 1000), 0).finished_at, now - 1000);
    }
}
