//! What may follow what in the life of one workload. Plain and synchronous; its actor does the I/O around it.
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

use crate::refusal::Because;
use crate::view::Status;

/// What somebody wants to do with a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Have it run.
    Start,
    /// End it with its stop signal, and with SIGKILL when that does not do.
    Stop,
    /// Send it a signal.
    Kill,
    /// Freeze its processes.
    Pause,
    /// Let them go on.
    Unpause,
    /// Forget it, with its record, folders and name.
    Remove {
        /// End it first if it runs.
        force: bool,
    },
    /// A further process inside, its statistics, its terminal: whatever needs it to run.
    Use,
}

/// Whether it may be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may be done.
    Go,
    /// There is nothing to do: it is in the wanted state.
    Already,
    /// It may not be done, and why.
    Refused(Because),
}

/// What was seen to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// It runs.
    Started,
    /// The start failed; nothing runs.
    StartFailed,
    /// It ended and will be started again when the back-off is over.
    EndedToRestart,
    /// It ended, or gave its back-off up, and is not started again.
    Ended,
    /// Its processes are frozen.
    Paused,
    /// Its processes go on.
    Unpaused,
    /// From here on it can only be removed.
    RemovalBegan,
    /// Something of it could not be cleared away.
    RemovalFailed,
}

/// Whether `ask` may be done to a workload in `status`.
pub fn may(status: Status, ask: Operation) -> Verdict {
    use Status::{Created, Dead, Exited, Paused, Removing, Restarting, Running};
    use Verdict::{Already, Go, Refused};
    match (ask, status) {
        (Operation::Remove { .. }, Removing) => Refused(Because::RemovalBegan),
        (_, Removing) => Refused(Because::BeingRemoved),
        (Operation::Remove { .. }, Created | Exited | Dead) => Go,
        (Operation::Remove { force: true }, _) => Go,
        (Operation::Remove { force: false }, Paused) => Refused(Because::RemovalWhilePaused),
        (Operation::Remove { force: false }, Restarting) => Refused(Because::RemovalWhileRestarting),
        (Operation::Remove { force: false }, Running) => Refused(Because::RemovalWhileRunning),
        (_, Dead) => Refused(Because::Dead),
        (Operation::Start, Created | Exited) => Go,
        (Operation::Start, Running | Restarting) => Already,
        (Operation::Start, Paused) => Refused(Because::StartWhilePaused),
        (Operation::Stop, Running | Paused | Restarting) => Go,
        (Operation::Stop, Created | Exited) => Already,
        (Operation::Kill, Running | Paused | Restarting) => Go,
        (Operation::Kill | Operation::Use | Operation::Pause, Created | Exited) => Refused(Because::NotRunning),
        (Operation::Pause, Running) | (Operation::Unpause, Paused) | (Operation::Use, Running) => Go,
        (Operation::Pause, Paused) => Refused(Because::AlreadyPaused),
        (Operation::Pause | Operation::Use, Restarting) => Refused(Because::UseWhileRestarting),
        (Operation::Use, Paused) => Refused(Because::UseWhilePaused),
        (Operation::Unpause, _) => Refused(Because::NotPaused),
    }
}

/// The status after `happened`.
///
/// # Errors
/// The pair, when it cannot have happened in `status`: a defect of ours.
pub fn after(status: Status, happened: Transition) -> Result<Status, (Status, Transition)> {
    use Status::{Created, Dead, Exited, Paused, Removing, Restarting, Running};
    Ok(match (happened, status) {
        (Transition::Started, Created | Exited | Restarting) => Running,
        (Transition::StartFailed, Created) => Created,
        (Transition::StartFailed, Exited | Restarting) => Exited,
        // From exited and restarting: a start by policy failed, and waits for its next turn.
        (Transition::EndedToRestart, Running | Paused | Restarting | Exited) => Restarting,
        (Transition::Ended, Running | Paused | Restarting) => Exited,
        (Transition::Paused, Running) => Paused,
        (Transition::Unpaused, Paused) => Running,
        (Transition::RemovalBegan, Created | Exited | Dead) => Removing,
        (Transition::RemovalFailed, Removing) => Dead,
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
    fn effect(ask: Operation, outcome: bool) -> Option<Transition> {
        Some(match (ask, outcome) {
            (Operation::Start, true) => Transition::Started,
            (Operation::Start, false) => Transition::StartFailed,
            (Operation::Stop | Operation::Kill, _) => Transition::Ended,
            (Operation::Pause, _) => Transition::Paused,
            (Operation::Unpause, _) => Transition::Unpaused,
            (Operation::Remove { .. }, _) => Transition::RemovalBegan,
            (Operation::Use, _) => return None,
        })
    }

    fn ask() -> impl Strategy<Value = Operation> {
        prop_oneof![
            Just(Operation::Start),
            Just(Operation::Stop),
            Just(Operation::Kill),
            Just(Operation::Pause),
            Just(Operation::Unpause),
            Just(Operation::Use),
            any::<bool>().prop_map(|force| Operation::Remove { force }),
        ]
    }

    proptest! {
        #[test]
        fn whatever_may_be_done_leads_somewhere(asks in proptest::collection::vec((ask(), any::<bool>()), 0..40)) {
            let mut status = Status::Created;
            for (ask, outcome) in asks {
                if may(status, ask) != Verdict::Go {
                    continue;
                }
                // Removal by force ends it first.
                if matches!(ask, Operation::Remove { force: true }) && !matches!(status, Status::Created | Status::Exited | Status::Dead) {
                    status = after(status, Transition::Ended).unwrap();
                }
                if let Some(happened) = effect(ask, outcome) {
                    status = after(status, happened).map_err(|pair| TestCaseError::fail(format!("{pair:?}")))?;
                }
                prop_assert!(ask != Operation::Start || !outcome || status == Status::Running);
                prop_assert!(!matches!(ask, Operation::Stop) || status == Status::Exited);
                prop_assert!(!matches!(ask, Operation::Use) || status == Status::Running);
            }
        }
    }

    #[test]
    fn what_may_be_done_in_each_state() {
        let operations = [
            Operation::Start,
            Operation::Stop,
            Operation::Kill,
            Operation::Pause,
            Operation::Unpause,
            Operation::Use,
            Operation::Remove { force: false },
            Operation::Remove { force: true },
        ];
        let mut table = String::new();
        for ask in operations {
            table.push_str(&format!("{ask:?}\n"));
            for status in ALL {
                table.push_str(&format!("  {:<11}{:?}\n", status.as_str(), may(status, ask)));
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn what_cannot_happen_is_refused() {
        assert!(after(Status::Removing, Transition::Started).is_err());
        assert!(after(Status::Running, Transition::Started).is_err());
        assert!(after(Status::Exited, Transition::Ended).is_err());
    }
}
