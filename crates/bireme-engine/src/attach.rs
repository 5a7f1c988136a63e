//! A client at the standard streams of a workload, from before its start if it likes.

use std::os::unix::net::UnixStream;

use bireme_core::BoxFuture;
use tokio::sync::oneshot;

use crate::{EngineError, LogStream};

/// The streams of one workload, as one client sees them.
pub struct AttachSession {
    /// The stream is raw bytes; otherwise Docker's frames.
    pub tty: bool,
    /// What was logged so far, where asked for.
    pub logged: Option<LogStream>,
    /// Answers when the workload starts, at once if it runs; `None` when it never will. Reading gives output, writing is
    /// standard input, shutting down the write half ends it.
    pub stream: BoxFuture<'static, Result<Option<UnixStream>, EngineError>>,
}

/// A client that waits for the next start.
pub(crate) struct Pending {
    pub(crate) stdin: bool,
    pub(crate) answer: oneshot::Sender<Result<UnixStream, EngineError>>,
}
