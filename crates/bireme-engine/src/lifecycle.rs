//! What may follow what in the life of one workload. Plain and synchronous; the owner task does the I/O around it.
//!
//! ```text
//!              start                    end, no restart
//!  created ───────────────> running ───────────────────────> exited ──┐
//!     │                     │  ^  │                            │  ^    │ start
//!     │                pause│  │un-│ end, restart by policy    │  │    └──────> running
//!     │                     v  │pause                          │  │ gives up, or stopped
//!     │                   paused  └────────> restarting ───────┼──┘
//!     │                                       │ back-off over  │
//!     │ remove                                └──> running     │ remove
//!     └───────────────────────> removing <─────────────────────┘     (remove by force ends it first)
//!                                  │
//!                                  └──> gone, or dead when something could not be cleared away
//! ```

use crate::view::Status;

/// What somebody wants to do with a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    Start,
    Stop,
    Kill,
    Pause,
    Unpause,
    Remove {
        force: bool,
    },
    /// A further process inside, its statistics, its terminal: whatever needs it to run.
    Use,
}

/// Whether it may be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Go,
    /// It is in the wanted state already.
    Already,
    /// Docker's words, after "container NAME ".
    Refused(&'static str),
}

/// What was seen to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    Started,
    /// The start failed; nothing runs.
    StartFailed,
    /// It ended and will be started again when the back-off is over.
    EndedToRestart,
    Ended,
    Paused,
    Unpaused,
    RemovalBegan,
    RemovalFailed,
}

/// A refusal of workload `id` in Docker's words, which begin in capitals here and there.
pub(crate) fn refusal(id: &str, why: &str) -> String {
    let docker_shouts = ["is already paused", "is not paused"].contains(&why) || why.contains(", ");
    format!("{} {id} {why}", if docker_shouts { "Container" } else { "container" })
}

/// Whether `ask` may be done to a workload in `status`.
pub fn may(status: Status, ask: Ask) -> Answer {
    use Answer::{Already, Go, Refused};
    use Status::{Created, Dead, Exited, Paused, Removing, Restarting, Running};
    match (ask, status) {
        (Ask::Remove { .. }, Removing) => Refused("is already in progress of being removed"),
        (_, Removing) => Refused("is marked for removal and cannot be used"),
        (Ask::Remove { .. }, Created | Exited | Dead) => Go,
        (Ask::Remove { force: true }, _) => Go,
        (Ask::Remove { force: false }, Paused) => {
            Refused("is paused: unpause and stop it before removing, or force the removal")
        }
        (Ask::Remove { force: false }, Restarting) => {
            Refused("is restarting: stop the container before removing or force remove")
        }
        (Ask::Remove { force: false }, Running) => {
            Refused("is running: stop the container before removing or force remove")
        }
        (_, Dead) => Refused("is dead and can only be removed"),
        (Ask::Start, Created | Exited) => Go,
        (Ask::Start, Running | Restarting) => Already,
        (Ask::Start, Paused) => Refused("is paused: cannot start a paused container, try unpause instead"),
        (Ask::Stop, Running | Paused | Restarting) => Go,
        (Ask::Stop, Created | Exited) => Already,
        (Ask::Kill, Running | Paused | Restarting) => Go,
        (Ask::Kill | Ask::Use | Ask::Pause, Created | Exited) => Refused("is not running"),
        (Ask::Pause, Running) | (Ask::Unpause, Paused) | (Ask::Use, Running) => Go,
        (Ask::Pause, Paused) => Refused("is already paused"),
        (Ask::Pause | Ask::Use, Restarting) => Refused("is restarting, wait until the container is running"),
        (Ask::Use, Paused) => Refused("is paused, unpause the container before exec"),
        (Ask::Unpause, _) => Refused("is not paused"),
    }
}

/// The status after `happened`.
///
/// # Errors
/// The pair, when it cannot have happened in `status`: a defect of ours.
pub fn after(status: Status, happened: Happened) -> Result<Status, (Status, Happened)> {
    use Status::{Created, Dead, Exited, Paused, Removing, Restarting, Running};
    Ok(match (happened, status) {
        (Happened::Started, Created | Exited | Restarting) => Running,
        (Happened::StartFailed, Created) => Created,
        (Happened::StartFailed, Exited | Restarting) => Exited,
        // From exited and restarting: a start by policy failed, and waits for its next turn.
        (Happened::EndedToRestart, Running | Paused | Restarting | Exited) => Restarting,
        (Happened::Ended, Running | Paused | Restarting) => Exited,
        (Happened::Paused, Running) => Paused,
        (Happened::Unpaused, Paused) => Running,
        (Happened::RemovalBegan, Created | Exited | Dead) => Removing,
        (Happened::RemovalFailed, Removing) => Dead,
        (happened, status) => return Err((status, happened)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [Status; 7] = [
        Status::Created,
        Status::Running,
        Status::Paused,
        Status::Restarting,
        Status::Removing,
        Status::Exited,
        Status::Dead,
    ];

    /// What the owner does when it may: the pairs of ask and first occurrence.
    fn effect(ask: Ask, outcome: bool) -> Option<Happened> {
        Some(match (ask, outcome) {
            (Ask::Start, true) => Happened::Started,
            (Ask::Start, false) => Happened::StartFailed,
            (Ask::Stop | Ask::Kill, _) => Happened::Ended,
            (Ask::Pause, _) => Happened::Paused,
            (Ask::Unpause, _) => Happened::Unpaused,
            (Ask::Remove { .. }, _) => Happened::RemovalBegan,
            (Ask::Use, _) => return None,
        })
    }

    fn ask() -> impl Strategy<Value = Ask> {
        prop_oneof![
            Just(Ask::Start),
            Just(Ask::Stop),
            Just(Ask::Kill),
            Just(Ask::Pause),
            Just(Ask::Unpause),
            Just(Ask::Use),
            any::<bool>().prop_map(|force| Ask::Remove { force }),
        ]
    }

    proptest! {
        #[test]
        fn whatever_may_be_done_leads_somewhere(asks in proptest::collection::vec((ask(), any::<bool>()), 0..40)) {
            let mut status = Status::Created;
            for (ask, outcome) in asks {
                if may(status, ask) != Answer::Go {
                    continue;
                }
                // Removal by force ends it first.
                if matches!(ask, Ask::Remove { force: true }) && !matches!(status, Status::Created | Status::Exited | Status::Dead) {
                    status = after(status, Happened::Ended).unwrap();
                }
                if let Some(happened) = effect(ask, outcome) {
                    status = after(status, happened).map_err(|pair| TestCaseError::fail(format!("{pair:?}")))?;
                }
                prop_assert!(ask != Ask::Start || !outcome || status == Status::Running);
                prop_assert!(!matches!(ask, Ask::Stop) || status == Status::Exited);
                prop_assert!(!matches!(ask, Ask::Use) || status == Status::Running);
            }
        }
    }

    #[test]
    fn every_pair_has_an_answer_and_removal_always_ends() {
        for status in ALL {
            for ask in [Ask::Start, Ask::Stop, Ask::Kill, Ask::Pause, Ask::Unpause, Ask::Use] {
                let _ = may(status, ask);
            }
            let removal = may(status, Ask::Remove { force: true });
            assert_eq!(removal == Answer::Go, status != Status::Removing, "{status:?}");
        }
        assert!(after(Status::Removing, Happened::Started).is_err());
        assert!(after(Status::Running, Happened::Started).is_err());
        assert!(after(Status::Exited, Happened::Ended).is_err());
    }
}
