//! One build, as the builder sees it.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::progress::Progress;
use crate::session::{Session, SessionError, Sessions};

/// A build that a client has asked for, from its first call to its last.
#[derive(Debug)]
pub struct Build {
    id: String,
    session: String,
    sessions: Sessions,
    progress: Progress,
    cancelled: CancellationToken,
    entitlements: Vec<String>,
}

impl Build {
    pub(crate) fn new(id: String, session: String, sessions: Sessions, entitlements: Vec<String>) -> Self {
        let cancelled = CancellationToken::new();
        Self { id, session, sessions, progress: Progress::new(), cancelled, entitlements }
    }

    /// By which the client calls it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The ID of the session that came with it.
    pub fn session_id(&self) -> &str {
        &self.session
    }

    /// The session that came with it, for secrets, keys, credentials, results, and files unless
    /// [`Frontend::session_of`](crate::Frontend::session_of) names another. Waits some seconds for it.
    ///
    /// # Errors
    /// When it does not come, or has closed.
    pub async fn session(&self) -> Result<Arc<Session>, SessionError> {
        self.sessions.get(&self.session).await
    }

    /// Another session, by its ID.
    ///
    /// # Errors
    /// When it does not come, or has closed.
    pub async fn other_session(&self, id: &str) -> Result<Arc<Session>, SessionError> {
        self.sessions.get(id).await
    }

    /// Where to tell what is done.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Fires when the client has given the build up or is gone; also when the build has ended.
    pub fn cancelled(&self) -> &CancellationToken {
        &self.cancelled
    }

    /// What the user allows beyond the ordinary (`--allow`): `network.host`, `security.insecure`.
    pub fn entitlements(&self) -> &[String] {
        &self.entitlements
    }
}
