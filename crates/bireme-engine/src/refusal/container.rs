//! Refusals about one workload: its name, its state, and what is being done with it.

use std::time::Duration;

use bireme_core::{ErrorKind, ExecError, WorkloadId};

use crate::EngineError;

/// Why something is not done with a workload. `id` is its whole ID, `name` what it is called.
#[derive(Debug, thiserror::Error)]
pub enum ContainerRefusal {
    /// Another workload, `by` its ID, has the name.
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{by}\". You have to remove (or rename) that container to be able to reuse that name."
    )]
    NameTaken { name: String, by: String },
    #[error("Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    NameInvalid { name: String },
    #[error("Renaming a container with the same name as its current name")]
    NameUnchanged,
    /// Its state does not allow it.
    #[error("{} {id} {because}", if because.shouts() { "Container" } else { "container" })]
    State { id: String, because: Because },
    #[error("cannot remove container \"/{name}\": container {because}")]
    Removal { name: String, because: Because },
    /// `asked` is what the client called it.
    #[error("cannot kill container: {asked}: container {id} is not running")]
    KillOfNone { asked: String, id: String },
    #[error("Container {asked} is paused, unpause the container before exec")]
    ExecWhilePaused { asked: String },
    #[error("container {id} is paused, unpause the container before attach")]
    AttachWhilePaused { id: String },
    #[error("container {id} is marked for removal and cannot be attached to")]
    AttachWhileRemoved { id: String },
    #[error("container {id} is marked for removal and cannot be copied from or to")]
    CopyWhileRemoved { id: String },
    #[error("You cannot commit container {id} which is being removed")]
    CommitWhileRemoved { id: String },
    #[error("Cannot update container {id}: {why}")]
    Update { id: String, why: UpdateConflict },
    /// Somebody else ends it by force.
    #[error("container {id} is being killed or removed, and what was begun with it meanwhile is given up")]
    Hurried { id: String },
    #[error("container {id} is being started, ended or removed: try again in a moment")]
    Changing { id: String },
    #[error("container {id} is being copied into, and has been for {} s: try again when that is done", after.as_secs())]
    CopiedInto { id: String, after: Duration },
    #[error(
        "{copies} copies from or to container {id} do not come to an end: see what holds its files up, and try again"
    )]
    CopiesHang { id: String, copies: usize },
    /// It was killed, and its end does not come.
    #[error(
        "container {id} was killed and has not ended within {} s: a process of it may hang in the kernel; {then}",
        after.as_secs()
    )]
    Hangs { id: String, after: Duration, then: Then },
    #[error("the client that asked for {name} left before it was made")]
    ClientLeft { name: String },
    #[error(
        "the record of container {name} cannot be read ({why}): what runs of it goes on, and its volumes are kept; start the engine that wrote the record, or remove the container by force (docker rm -f {name})"
    )]
    Unreadable { name: String, why: String },
    #[error("exec command {exec} has already run: create another one")]
    ExecHasRun { exec: String },
    #[error("configured logging driver does not support reading: {name} was created with the log driver none")]
    NoLog { name: String },
    /// Two components of one port answer the same requests.
    #[error(
        "route {route} on host port {port} clashes with {taken} of {name}: give one of them another bireme.http.route or another port"
    )]
    RouteTaken { route: String, port: u16, taken: String, name: String },
    #[error("the key-value stores {name} are those of a component that is there; remove it first")]
    StoresInUse { name: String },
    #[error("Conflict, cannot remove the default link name of the container")]
    NoLink,
    /// `name` is what the link leads to.
    #[error("could not get container for {name}: {source}")]
    LinkToNone { name: String, source: Box<EngineError> },
    #[error("Cannot link to a non running container: /{other} AS /{name}/{alias}: start it first")]
    LinkToStopped { other: String, name: String, alias: String },
    #[error("cannot join network of a non running container: {id}")]
    JoinOfStopped { id: String },
    #[error("cannot join network of container {id}: it has that of the host, use --network host")]
    JoinOfHost { id: String },
}

impl ContainerRefusal {
    /// What kind of failure this is for whoever asked.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NameInvalid { .. } | Self::NameUnchanged | Self::NoLink | Self::LinkToNone { .. } => {
                ErrorKind::Invalid
            }
            Self::NoLog { .. } => ErrorKind::Unsupported,
            Self::CopiesHang { .. } => ErrorKind::Unavailable,
            Self::NameTaken { .. }
            | Self::State { .. }
            | Self::Removal { .. }
            | Self::KillOfNone { .. }
            | Self::ExecWhilePaused { .. }
            | Self::AttachWhilePaused { .. }
            | Self::AttachWhileRemoved { .. }
            | Self::CopyWhileRemoved { .. }
            | Self::CommitWhileRemoved { .. }
            | Self::Update { .. }
            | Self::Hurried { .. }
            | Self::Changing { .. }
            | Self::CopiedInto { .. }
            | Self::Hangs { .. }
            | Self::ClientLeft { .. }
            | Self::Unreadable { .. }
            | Self::ExecHasRun { .. }
            | Self::RouteTaken { .. }
            | Self::StoresInUse { .. }
            | Self::LinkToStopped { .. }
            | Self::JoinOfStopped { .. }
            | Self::JoinOfHost { .. } => ErrorKind::Conflict,
        }
    }

    pub(crate) fn not_running(id: &WorkloadId) -> Self {
        Self::State { id: id.to_string(), because: Because::NotRunning }
    }
}

/// The state that does not allow what was asked, in Docker's words after "container ID".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Because {
    #[error("is already in progress of being removed")]
    RemovalBegan,
    #[error("is marked for removal and cannot be used")]
    BeingRemoved,
    #[error("is dead and can only be removed")]
    Dead,
    #[error("is not running")]
    NotRunning,
    #[error("is already paused")]
    AlreadyPaused,
    #[error("is not paused")]
    NotPaused,
    #[error("is paused: cannot start a paused container, try unpause instead")]
    StartWhilePaused,
    #[error("is paused, unpause the container before exec")]
    UseWhilePaused,
    #[error("is restarting, wait until the container is running")]
    UseWhileRestarting,
    #[error("is paused: unpause and stop it before removing, or force the removal")]
    RemovalWhilePaused,
    #[error("is restarting: stop the container before removing or force remove")]
    RemovalWhileRestarting,
    #[error("is running: stop the container before removing or force remove")]
    RemovalWhileRunning,
}

impl Because {
    /// Docker begins these sentences with a capital letter.
    fn shouts(self) -> bool {
        matches!(
            self,
            Self::AlreadyPaused
                | Self::NotPaused
                | Self::StartWhilePaused
                | Self::UseWhilePaused
                | Self::UseWhileRestarting
                | Self::RemovalWhilePaused
        )
    }
}

/// What to do again when what hangs has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Then {
    #[error("stop it again later")]
    Stop,
    #[error("remove it again later")]
    Remove,
}

/// Why limits or the restart policy stay as they are.
///
/// Source: `UpdateContainer` of moby for the rules and their words.
#[derive(Debug, thiserror::Error)]
pub enum UpdateConflict {
    #[error("container is marked for removal and cannot be \"update\"")]
    BeingRemoved,
    #[error("Restart policy cannot be updated because AutoRemove is enabled for the container")]
    RemovesItself,
    #[error("Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set")]
    PeriodIsSet,
    #[error("Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set")]
    QuotaIsSet,
    #[error("Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set")]
    PeriodAfterNanoCpus,
    #[error("Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set")]
    QuotaAfterNanoCpus,
    #[error("Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time")]
    AboveMemorySwap,
    /// What runs could not be given the limits.
    #[error("{0}")]
    Executor(#[source] ExecError),
}
