//! What is done with workloads, and what goes wrong meanwhile.

use bireme_engine::request::RestartPolicy;
use bireme_testing::fake::Fault;
use proptest::prelude::*;

/// Workloads at once.
pub(crate) const SLOTS: usize = 3;
/// Networks beside the default one.
pub(crate) const NETWORKS: usize = 2;

/// What a workload is made as.
#[derive(Clone, Debug, Default)]
pub(crate) struct Form {
    pub(crate) restart: RestartPolicy,
    pub(crate) auto_remove: bool,
    pub(crate) network: Network,
    pub(crate) publish: bool,
    pub(crate) volume: bool,
    /// A stop signal does not end it.
    pub(crate) stubborn: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) enum Network {
    #[default]
    Bridge,
    None,
    /// On one of its own.
    One(usize),
    All,
    /// In the namespace of another slot.
    Of(usize),
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Create {
        slot: usize,
        form: Form,
    },
    Start {
        slot: usize,
    },
    Stop {
        slot: usize,
    },
    Kill {
        slot: usize,
    },
    Restart {
        slot: usize,
    },
    Pause {
        slot: usize,
    },
    Unpause {
        slot: usize,
    },
    Rename {
        slot: usize,
        to: usize,
    },
    Connect {
        slot: usize,
        network: usize,
    },
    Disconnect {
        slot: usize,
        network: usize,
    },
    Policy {
        slot: usize,
        restart: RestartPolicy,
    },
    Remove {
        slot: usize,
        force: bool,
    },
    /// It ends by itself.
    Exit {
        slot: usize,
        code: i32,
    },
    /// Time passes.
    Sleep {
        secs: u64,
    },
    /// The engine is closed as when its service is stopped.
    Close,
}

/// What goes wrong: with the call after so many others of the step.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    None,
    Fault(usize, Fault),
}

impl Fate {
    /// All that can go wrong with a call.
    pub(crate) const ALL: [fn(usize) -> Self; 4] = [
        |calls| Self::Fault(calls, Fault::Fail),
        |calls| Self::Fault(calls, Fault::DieBefore),
        |calls| Self::Fault(calls, Fault::DieAfter),
        |calls| Self::Fault(calls, Fault::Leave),
    ];
}

#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) op: Op,
    pub(crate) fate: Fate,
    /// It succeeds. Otherwise it may be refused, and what must hold, holds all the same.
    pub(crate) must: bool,
}

fn restart() -> impl Strategy<Value = RestartPolicy> {
    prop_oneof![
        4 => Just(RestartPolicy::No),
        1 => Just(RestartPolicy::Always),
        1 => Just(RestartPolicy::UnlessStopped),
        1 => Just(RestartPolicy::OnFailure(2)),
    ]
}

fn form() -> impl Strategy<Value = Form> {
    let network = prop_oneof![
        3 => Just(Network::Bridge),
        1 => Just(Network::None),
        2 => (0..NETWORKS).prop_map(Network::One),
        1 => Just(Network::All),
        1 => (0..SLOTS).prop_map(Network::Of),
    ];
    let flags = (prop::bool::weighted(0.2), any::<bool>(), any::<bool>(), prop::bool::weighted(0.2));
    (restart(), network, flags).prop_map(|(restart, network, (auto_remove, publish, volume, stubborn))| {
        let restart = if auto_remove { RestartPolicy::No } else { restart };
        Form { restart, auto_remove, network, publish, volume, stubborn }
    })
}

fn op() -> impl Strategy<Value = Op> {
    let slot = || 0..SLOTS;
    prop_oneof![
        4 => (slot(), form()).prop_map(|(slot, form)| Op::Create { slot, form }),
        5 => slot().prop_map(|slot| Op::Start { slot }),
        1 => slot().prop_map(|slot| Op::Stop { slot }),
        1 => slot().prop_map(|slot| Op::Kill { slot }),
        1 => slot().prop_map(|slot| Op::Restart { slot }),
        1 => slot().prop_map(|slot| Op::Pause { slot }),
        1 => slot().prop_map(|slot| Op::Unpause { slot }),
        1 => (slot(), slot()).prop_map(|(slot, to)| Op::Rename { slot, to }),
        1 => (slot(), 0..NETWORKS).prop_map(|(slot, network)| Op::Connect { slot, network }),
        1 => (slot(), 0..NETWORKS).prop_map(|(slot, network)| Op::Disconnect { slot, network }),
        1 => (slot(), restart()).prop_map(|(slot, restart)| Op::Policy { slot, restart }),
        2 => (slot(), any::<bool>()).prop_map(|(slot, force)| Op::Remove { slot, force }),
        2 => (slot(), 0..3).prop_map(|(slot, code)| Op::Exit { slot, code }),
        1 => (0..100u64).prop_map(|secs| Op::Sleep { secs }),
        1 => Just(Op::Close),
    ]
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let faults = vec![Fault::Fail, Fault::DieBefore, Fault::DieAfter, Fault::Leave];
    let fault = prop::sample::select(faults);
    let fate = prop_oneof![2 => Just(Fate::None), 1 => (0..10usize, fault).prop_map(|(calls, fault)| Fate::Fault(calls, fault))];
    (op(), fate).prop_map(|(op, fate)| Step { op, fate, must: false })
}
