//! Sessions: connections over which the engine calls the client for its files, secrets and keys (`session/` of BuildKit).
//!
//! A client opens one with `POST /session`, or inside the stream of `Control/Session`; either way the engine is the HTTP/2
//! client on it. Builds name sessions by their ID, before or after they are there.

mod calls;
mod content;
mod files;
mod handle;
mod ssh;
mod transport;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bireme_core::ErrorKind;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use calls::{Credentials, Token, TokenRequest};
pub use files::FilesRequest;
pub use handle::Session;
pub use ssh::SshStream;

use crate::error::BuildError;
use transport::Transport;

/// How long a look-up waits for a session that is not there yet.
const WAIT: Duration = Duration::from_secs(10);
/// How many sessions there may be at the same time.
const MAX_SESSIONS: usize = 1024;
/// How many methods one may expose, and how long its words may be.
const MAX_METHODS: usize = 256;
const MAX_WORD: usize = 1024;

/// The headers in which a client says what its session is, lower case.
pub mod header {
    /// Its ID.
    pub const UUID: &str = "x-docker-expose-session-uuid";
    /// What it is called; older clients send it.
    pub const NAME: &str = "x-docker-expose-session-name";
    /// A hint by which contexts of successive builds are known to be the same.
    pub const SHARED_KEY: &str = "x-docker-expose-session-sharedkey";
    /// A method that it offers; comes once for each.
    pub const METHOD: &str = "x-docker-expose-session-grpc-method";
}

/// What a client says of its session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionHeaders {
    /// Its ID.
    pub uuid: String,
    /// What it is called, or empty.
    pub name: String,
    /// The hint by which contexts are known to be the same, or empty.
    pub shared_key: String,
    /// The methods it offers: `/moby.filesync.v1.FileSync/DiffCopy`.
    pub methods: Vec<String>,
}

impl SessionHeaders {
    /// Reads them from a request's headers.
    ///
    /// # Errors
    /// When there is no ID, or more than a client may say.
    pub fn from_http(headers: &http::HeaderMap) -> Result<Self, SessionError> {
        let text = |value: &http::HeaderValue| value.to_str().map(str::to_owned).unwrap_or_default();
        let one = |name: &str| headers.get(name).map(text).unwrap_or_default();
        let said = Self {
            uuid: one(header::UUID),
            name: one(header::NAME),
            shared_key: one(header::SHARED_KEY),
            methods: headers.get_all(header::METHOD).iter().map(text).collect(),
        };
        said.check()?;
        Ok(said)
    }

    fn check(&self) -> Result<(), SessionError> {
        let refused = |why: &str| Err(SessionError::Refused(format!("the session was refused: {why}")));
        if self.uuid.is_empty() {
            return refused("it has no ID (header X-Docker-Expose-Session-Uuid)");
        }
        let words = [&self.uuid, &self.name, &self.shared_key];
        if self.methods.len() > MAX_METHODS || words.into_iter().chain(&self.methods).any(|word| word.len() > MAX_WORD)
        {
            return refused("its headers are longer than a client's are");
        }
        Ok(())
    }
}

/// Why a call over a session failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// No such session came in time.
    #[error("the client's session {0} is not there; it ended, or its client opened none")]
    Missing(String),
    /// The client closed it, or went away.
    #[error("the client's session has closed")]
    Closed,
    /// The client does not offer the method.
    #[error("the client does not offer {what} ({method})")]
    NotOffered {
        /// What was needed, in a few words.
        what: &'static str,
        /// The method's name.
        method: &'static str,
    },
    /// It was not let in.
    #[error("{0}")]
    Refused(String),
    /// The client answered with a failure.
    #[error("{message}")]
    Failed {
        /// What kind of failure.
        kind: ErrorKind,
        /// What it said, and what was asked for.
        message: String,
    },
}

impl SessionError {
    /// What went wrong, from the point of view of whoever asked.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing(_) => ErrorKind::NotFound,
            Self::Closed => ErrorKind::Unavailable,
            Self::NotOffered { .. } => ErrorKind::Unsupported,
            Self::Refused(_) => ErrorKind::Invalid,
            Self::Failed { kind, .. } => *kind,
        }
    }
}

impl From<SessionError> for BuildError {
    fn from(error: SessionError) -> Self {
        // Clients print the message of this one as it stands.
        Self::failed(error.to_string())
    }
}

/// All sessions that are open.
#[derive(Clone, Debug, Default)]
pub struct Sessions {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    open: Mutex<HashMap<String, Weak<Session>>>,
    changed: watch::Sender<()>,
}

impl Sessions {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves a session on `io` until it closes; the daemon calls it with what `POST /session` left after its `101`.
    ///
    /// Dropping the future closes the session.
    ///
    /// # Errors
    /// When the session is refused (its ID is taken, there are too many), or no HTTP/2 comes about on `io`.
    pub async fn attach<I>(&self, headers: SessionHeaders, io: I) -> Result<(), SessionError>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        headers.check()?;
        let (transport, drive) = Transport::begin(io)
            .await
            .map_err(|error| SessionError::Refused(format!("the session could not be opened: {error}")))?;
        let session = Arc::new(Session::new(headers, transport));
        let _entered = self.enter(&session)?;
        tracing::debug!(session = session.id(), "a session opened");
        drive.await;
        tracing::debug!(session = session.id(), "a session closed");
        Ok(())
    }

    fn enter(&self, session: &Arc<Session>) -> Result<Entered, SessionError> {
        let mut open = self.shared.open.lock();
        if open.len() >= MAX_SESSIONS {
            return Err(SessionError::Refused(format!(
                "the session was refused: {MAX_SESSIONS} are open already; wait for builds to end"
            )));
        }
        if open.contains_key(session.id()) {
            return Err(SessionError::Refused(format!("the session was refused: {} is open already", session.id())));
        }
        open.insert(session.id().to_owned(), Arc::downgrade(session));
        drop(open);
        self.shared.changed.send_replace(());
        Ok(Entered { sessions: self.shared.clone(), id: session.id().to_owned(), closed: session.closed().clone() })
    }

    /// The session with this ID. Waits some seconds for one that is not there yet.
    ///
    /// # Errors
    /// When it does not come.
    pub async fn get(&self, id: &str) -> Result<Arc<Session>, SessionError> {
        let missing = || SessionError::Missing(id.chars().take(64).collect());
        if id.is_empty() {
            return Err(missing());
        }
        let mut changed = self.shared.changed.subscribe();
        let found = async {
            loop {
                changed.mark_unchanged();
                if let Some(session) = self.shared.open.lock().get(id).and_then(Weak::upgrade) {
                    return Some(session);
                }
                changed.changed().await.ok()?;
            }
        };
        tokio::time::timeout(WAIT, found).await.ok().flatten().ok_or_else(missing)
    }
}

/// Takes a session out again, in whatever way its connection ends.
struct Entered {
    sessions: Arc<Shared>,
    id: String,
    closed: CancellationToken,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.sessions.open.lock().remove(&self.id);
        self.closed.cancel();
    }
}
