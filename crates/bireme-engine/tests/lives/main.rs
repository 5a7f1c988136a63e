//! Lives of workloads on a machine in memory: whatever is asked, whatever fails and whenever the engine dies, nothing is
//! leaked, every end is told once, and events come in order.
//!
//! Needs no root: executor and networks are the fakes of `bireme-testing`; the engine, its actors, its database and its
//! folders are the real ones. Time is virtual, so that back-offs and patience cost nothing.
//!
//! ```text
//! rig      a machine, the folders of an engine, and one engine after the other on them
//! script   what is done: operations, each with a fault or none
//! check    what must hold once nothing is under way any more
//! ```

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod check;
mod rig;
mod script;

use bireme_engine::request::RestartPolicy;
use proptest::prelude::*;

use rig::Rig;
use script::{Fate, Op, Step, step};

/// Answers whether every fault came to pass.
fn run(listens: bool, steps: &[Step]) -> bool {
    let mut rig = Rig::new(listens);
    let mut rest = steps;
    loop {
        let done = rig.live(rest);
        match rest.get(done..) {
            Some([]) | None => break,
            // The engine died in the step before.
            Some(more) => rest = more,
        }
    }
    rig.end();
    !rig.unreached
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..12)
}

/// `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    let default = ProptestConfig::default();
    ProptestConfig { cases: if asked { default.cases } else { 500 }, max_shrink_iters: 2000, ..default }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn of_workloads_whose_ports_are_forwarded(steps in steps()) {
        let _ = run(false, &steps);
    }

    #[test]
    fn of_workloads_that_are_handed_sockets(steps in steps()) {
        let _ = run(true, &steps);
    }
}

/// Every step of a whole life, made to fail and to be the engine's last: none is left out by chance.
fn at_every_call(listens: bool) {
    let ops = [
        Op::Create { slot: 0, form: script::Form { publish: true, volume: true, ..script::Form::default() } },
        Op::Start { slot: 0 },
        Op::Connect { slot: 0, network: 1 },
        Op::Pause { slot: 0 },
        Op::Unpause { slot: 0 },
        Op::Disconnect { slot: 0, network: 1 },
        Op::Restart { slot: 0 },
        Op::Exit { slot: 0, code: 3 },
        Op::Start { slot: 0 },
        Op::Stop { slot: 0 },
        Op::Start { slot: 0 },
        Op::Kill { slot: 0 },
        Op::Start { slot: 0 },
        Op::Remove { slot: 0, force: true },
    ];
    for (at, _) in ops.iter().enumerate() {
        for calls in 0.. {
            let mut reached = false;
            for fault in Fate::ALL {
                let steps = ops.iter().enumerate().map(|(number, op)| {
                    let fate = if number == at { fault(calls) } else { Fate::None };
                    Step { op: op.clone(), fate, must: number < at }
                });
                let steps: Vec<_> = steps.collect();
                reached |= run(listens, &steps);
                // A later operation may put right what this one left.
                run(listens, &steps[..=at]);
            }
            if !reached {
                // The operation has no further call.
                break;
            }
        }
    }
}

/// Its policy starts it again, and again, on networks that lead nowhere.
#[test]
fn that_go_on_without_a_network() {
    for listens in [false, true] {
        let (restart, network) = (RestartPolicy::Always, script::Network::One(0));
        let form = script::Form { publish: true, restart, network, ..script::Form::default() };
        let steps = [
            Op::Create { slot: 0, form },
            Op::Start { slot: 0 },
            Op::Exit { slot: 0, code: 0 },
            Op::Disconnect { slot: 0, network: 0 },
        ];
        run(listens, &steps.map(|op| Step { op, fate: Fate::None, must: true }));
    }
}

/// Of the engine's start and somebody's, one is first, and there is no other.
#[test]
fn that_are_started_by_two_at_once() {
    let form = script::Form { restart: RestartPolicy::Always, ..script::Form::default() };
    for listens in [false, true] {
        let steps = [
            Op::Create { slot: 0, form: form.clone() },
            Op::Start { slot: 0 },
            Op::Kill { slot: 0 },
            Op::Close,
            Op::Start { slot: 0 },
        ];
        run(listens, &steps.map(|op| Step { op, fate: Fate::None, must: true }));
    }
}

#[test]
fn at_every_call_of_a_life_with_forwards() {
    at_every_call(false);
}

#[test]
fn at_every_call_of_a_life_with_sockets() {
    at_every_call(true);
}
