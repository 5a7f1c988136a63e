//! What the actor of a workload is asked for.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::EngineError;
use crate::request::{EndpointRequest, RemoveRequest, Update};
use crate::view::{Health, Network};

type Reply<T> = oneshot::Sender<Result<T, EngineError>>;

pub(crate) enum Command {
    Start(Reply<()>),
    /// Replaces the run that there is by a new one, without a gap. Answers whether that can be done.
    Renew {
        /// How long the old run may take to end what it has begun; `None` is its stop timeout.
        within: Option<Duration>,
        reply: Reply<bool>,
    },
    /// Somebody wants it to end: no restart follows, a back-off is cut short. Answers whether it runs.
    Ending(Reply<bool>),
    Pause(Reply<()>),
    /// Pauses it for the engine's own sake: the next engine lets it go on.
    Hold(Reply<()>),
    Unpause(Reply<()>),
    /// Answers what it was called before.
    Rename {
        to: String,
        reply: Reply<String>,
    },
    /// It is no longer linked to what it knows by `alias`.
    Unlink {
        alias: String,
        reply: Reply<()>,
    },
    Update {
        change: Box<Update>,
        reply: Reply<Vec<String>>,
    },
    /// A probe of the run with this number came to a conclusion.
    Probed {
        run: u64,
        health: Health,
    },
    Connect {
        network: Box<Network>,
        request: EndpointRequest,
        reply: Reply<()>,
    },
    Disconnect {
        network: String,
        reply: Reply<()>,
    },
    Remove {
        how: RemoveRequest,
        reply: Reply<()>,
    },
}

impl Command {
    /// Answers that it is not done.
    pub(crate) fn refuse(self, error: EngineError) {
        match self {
            Self::Start(reply)
            | Self::Pause(reply)
            | Self::Hold(reply)
            | Self::Unpause(reply)
            | Self::Unlink { reply, .. }
            | Self::Connect { reply, .. }
            | Self::Disconnect { reply, .. }
            | Self::Remove { reply, .. } => drop(reply.send(Err(error))),
            Self::Renew { reply, .. } | Self::Ending(reply) => drop(reply.send(Err(error))),
            Self::Rename { reply, .. } => drop(reply.send(Err(error))),
            Self::Update { reply, .. } => drop(reply.send(Err(error))),
            Self::Probed { .. } => {}
        }
    }
}
