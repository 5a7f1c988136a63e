//! The machine that the fakes work on, and the faults that its calls can have.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::Arc;

use bireme_core::clock::now_nanos;
use bireme_core::{Exit, SandboxId, WorkloadId};
use bireme_net::{Endpoint, Forward, NetworkId, NetworkSpec};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};

/// What becomes of one call of a fake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails and has done nothing.
    Fail,
    /// The engine dies before the call has done anything: nothing of it is answered any more.
    DieBefore,
    /// The call is done, and the engine dies before it is told.
    DieAfter,
    /// Nothing happens to the call, but whoever asked the engine leaves meanwhile: see [`Machine::departure`].
    Leave,
}

/// A machine in memory; clones are the same machine.
#[derive(Clone, Default)]
pub struct Machine {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    world: Mutex<World>,
    death: Notify,
    departure: Notify,
}

/// What there is on a machine.
#[derive(Default)]
pub struct World {
    /// Processes of workloads that were created and not deleted, those that ended among them.
    pub(super) processes: BTreeMap<WorkloadId, Process>,
    /// The networks that are made.
    pub networks: BTreeMap<NetworkId, NetworkSpec>,
    /// The network namespaces that are made.
    pub sandboxes: BTreeSet<SandboxId>,
    /// The endpoints that are attached, each with its addresses.
    pub endpoints: Vec<Endpoint>,
    /// The forwards that are in force, with the ports that were chosen.
    pub forwards: Vec<Forward>,
    /// How many sockets of each port are told of as handed over.
    pub handed: BTreeMap<u16, usize>,
    /// What the engine did that it must never do.
    pub breaches: Vec<String>,
    /// Workloads that a stop signal does not end.
    pub stubborn: BTreeSet<WorkloadId>,
    /// Which calls of release failed since [`Machine::forgive`]: what they should have given back may still be there.
    pub unreleased: Vec<&'static str>,
    /// The names of all calls, in their order.
    pub calls: Vec<&'static str>,
    /// After how many further calls something goes wrong.
    planned: Option<(usize, Fault)>,
    dead: bool,
    left: bool,
    pub(super) runs: u32,
    pub(super) next_port: u16,
}

/// What a created workload is.
pub(super) struct Process {
    /// Tells this run from earlier ones; also its number.
    pub(super) run: u32,
    pub(super) stage: Stage,
    /// A stop signal came while it stood still.
    pub(super) stopping: bool,
    /// How it ended, for those who wait.
    pub(super) exit: watch::Sender<Option<Exit>>,
}

/// How far a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Made,
    Running,
    Paused,
    Ended,
}

/// What a call does on the machine that releases something, and must not be lost when it fails.
const RELEASES: [&str; 7] =
    ["delete", "detach", "remove_sandbox", "unpublish", "unpublish_one", "take_back", "lead_out"];

impl Machine {
    /// Looks at the machine, or changes it from outside.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.shared.world.lock()
    }

    /// Has the call after `calls` further ones have a fault.
    pub fn plan(&self, calls: usize, fault: Fault) {
        self.world().planned = Some((calls, fault));
    }

    /// Takes back what was planned. True where it has not come to pass.
    pub fn unplan(&self) -> bool {
        self.world().planned.take().is_some()
    }

    /// Waits until the engine dies of a planned fault.
    pub async fn death(&self) {
        loop {
            let notified = self.shared.death.notified();
            if self.world().dead {
                return;
            }
            notified.await;
        }
    }

    /// Waits until a call is made that whoever asked does not wait for.
    pub async fn departure(&self) {
        loop {
            let notified = self.shared.departure.notified();
            if std::mem::take(&mut self.world().left) {
                return;
            }
            notified.await;
        }
    }

    /// A new engine may call from now on.
    pub fn revive(&self) {
        let mut world = self.world();
        world.dead = false;
        world.planned = None;
        world.left = false;
    }

    /// Forgets which releases failed: a new engine has cleared up.
    pub fn forgive(&self) {
        self.world().unreleased.clear();
    }

    /// Ends what runs of a workload by itself. False where nothing does.
    pub fn exit(&self, id: &WorkloadId, code: i32) -> bool {
        let mut world = self.world();
        let running = world.processes.get_mut(id).filter(|process| process.is_alive());
        running.map(|process| process.end(code)).is_some()
    }

    /// One call of a fake: does `act`, unless a fault is planned for it, which is then made by `failed`.
    pub(super) async fn call<T, E>(
        &self,
        name: &'static str,
        failed: impl FnOnce() -> E,
        act: impl FnOnce(&mut World) -> Result<T, E>,
    ) -> Result<T, E> {
        let (answer, died) = {
            let mut world = self.world();
            if world.dead {
                (None, false)
            } else {
                world.calls.push(name);
                match world.due() {
                    Some(Fault::Fail) => {
                        if RELEASES.contains(&name) {
                            world.unreleased.push(name);
                        }
                        (Some(Err(failed())), false)
                    }
                    Some(Fault::DieBefore) => (None, true),
                    Some(Fault::DieAfter) => {
                        let _ = act(&mut world);
                        (None, true)
                    }
                    Some(Fault::Leave) => {
                        world.left = true;
                        self.shared.departure.notify_waiters();
                        (Some(act(&mut world)), false)
                    }
                    None => (Some(act(&mut world)), false),
                }
            }
        };
        if died {
            self.world().dead = true;
            self.shared.death.notify_waiters();
        }
        match answer {
            Some(answer) => answer,
            None => pending().await,
        }
    }
}

impl World {
    /// What is planned for this very call.
    fn due(&mut self) -> Option<Fault> {
        let (calls, fault) = self.planned?;
        self.planned = calls.checked_sub(1).map(|calls| (calls, fault));
        (calls == 0).then_some(fault)
    }

    /// The workloads that run, and whether they stand still.
    pub fn alive(&self) -> BTreeMap<WorkloadId, bool> {
        let alive = self.processes.iter().filter(|(_, process)| process.is_alive());
        alive.map(|(id, process)| (id.clone(), process.stage == Stage::Paused)).collect()
    }

    /// The workloads of which something is there that does not run: created and not started, or ended and not deleted.
    pub fn remains(&self) -> Vec<WorkloadId> {
        let remains = self.processes.iter().filter(|(_, process)| !process.is_alive());
        remains.map(|(id, _)| id.clone()).collect()
    }

    pub(super) fn breach(&mut self, what: String) {
        self.breaches.push(what);
    }
}

impl Process {
    pub(super) fn is_alive(&self) -> bool {
        matches!(self.stage, Stage::Running | Stage::Paused)
    }

    pub(super) fn end(&mut self, code: i32) {
        self.stage = Stage::Ended;
        self.exit.send_replace(Some(Exit { code, oom_killed: false, finished_at: now_nanos(), error: None }));
    }
}
