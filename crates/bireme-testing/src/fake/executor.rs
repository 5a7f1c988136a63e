//! An executor whose workloads are entries of a [`Machine`].

use std::collections::BTreeMap;

use bireme_core::executor::Known;
use bireme_core::spec::Signal;
use bireme_core::{
    BoxFuture, ErrorKind, ExecError, Executor, Exit, LabelError, Labels, Pause, Prepared, ProcessTable, Program, Renew,
    SandboxId, Stats, Workload, WorkloadId, WorkloadKind, WorkloadSpec,
};
use tokio::sync::watch;

use super::machine::{Machine, Process, Stage};

/// Runs workloads on a [`Machine`]; they end when the test says so, or by signals.
pub struct FakeExecutor {
    machine: Machine,
    listens: bool,
}

impl FakeExecutor {
    /// With `listens`, its workloads are handed listening sockets, and those of one app share a sandbox, as components do;
    /// otherwise ports are forwarded, as to containers.
    pub fn new(machine: &Machine, listens: bool) -> Self {
        Self { machine: machine.clone(), listens }
    }
}

fn failed(attempt: &str) -> ExecError {
    ExecError::new(ErrorKind::Internal, format!("{attempt} was made to fail"))
}

fn gone(id: &WorkloadId) -> ExecError {
    ExecError::new(ErrorKind::NotFound, format!("nothing is known of {}", id.short()))
}

impl Executor for FakeExecutor {
    fn kind(&self) -> WorkloadKind {
        WorkloadKind::Container
    }

    fn check<'a>(&'a self, _: &'a WorkloadSpec, _: &'a Program) -> BoxFuture<'a, Result<(), ExecError>> {
        Box::pin(self.machine.call("check", || failed("check"), |_| Ok(())))
    }

    fn sandbox(&self, spec: &WorkloadSpec) -> SandboxId {
        let of_app = spec.app.as_ref().filter(|_| self.listens).map(|app| format!("app-{app}"));
        of_app.and_then(|name| SandboxId::parse(&name).ok()).unwrap_or_else(|| SandboxId::from(&spec.id))
    }

    fn takes_listeners(&self) -> bool {
        self.listens
    }

    fn takes_over(&self, _: &WorkloadSpec, published: bool) -> bool {
        self.listens && published
    }

    fn offers_exec(&self) -> bool {
        false
    }

    fn needs_command(&self) -> bool {
        true
    }

    fn mounts_at_root(&self) -> bool {
        false
    }

    fn labels(
        &self,
        image: &BTreeMap<String, String>,
        request: &BTreeMap<String, String>,
    ) -> Result<Labels, LabelError> {
        Labels::of_component(image, request)
    }

    fn completes_create(&self) -> bool {
        self.listens
    }

    fn create(&self, work: Prepared) -> BoxFuture<'_, Result<Box<dyn Workload>, ExecError>> {
        Box::pin(async move {
            let id = work.spec.id.clone();
            let machine = self.machine.clone();
            let made = self.machine.call(
                "create",
                || failed("create"),
                |world| {
                    world.runs += 1;
                    let run = world.runs;
                    let process = Process { run, stage: Stage::Made, stopping: false, exit: watch::Sender::new(None) };
                    if let Some(other) = world.processes.insert(id.clone(), process)
                        && other.stage != Stage::Ended
                    {
                        world.breach(format!("{} was created while it was {:?}", id.short(), other.stage));
                    }
                    if let Some(place) = &work.network
                        && !world.sandboxes.contains(&place.sandbox)
                    {
                        world.breach(format!("{} was created without its sandbox", id.short()));
                    }
                    Ok(run)
                },
            );
            let run = made.await?;
            Ok(Box::new(FakeWorkload { machine, id: work.spec.id, run }) as Box<dyn Workload>)
        })
    }

    fn reattach<'a>(&'a self, known: Known<'a>) -> BoxFuture<'a, Result<Box<dyn Workload>, ExecError>> {
        let id = known.spec.id.clone();
        Box::pin(async move {
            let found = self.machine.call(
                "reattach",
                || failed("reattach"),
                |world| {
                    let process = world.processes.get(&id).filter(|process| process.stage != Stage::Made);
                    process.map(|process| process.run).ok_or_else(|| gone(&id))
                },
            );
            let run = found.await?;
            Ok(Box::new(FakeWorkload { machine: self.machine.clone(), id, run }) as Box<dyn Workload>)
        })
    }

    fn sweep<'a>(&'a self, known: &'a [WorkloadId], _: &'a [&'a WorkloadSpec]) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let swept = self.machine.call(
                "sweep_executor",
                || (),
                |world| {
                    for (id, process) in &mut world.processes {
                        if !known.contains(id) && process.stage != Stage::Ended {
                            process.end(137);
                        }
                    }
                    world.processes.retain(|id, _| known.contains(id));
                    Ok(())
                },
            );
            let _ = swept.await;
        })
    }

    fn as_renew(&self) -> Option<&dyn Renew> {
        self.listens.then_some(self)
    }

    fn end<'a>(&'a self, id: &'a WorkloadId) -> BoxFuture<'a, Result<(), ExecError>> {
        Box::pin(self.machine.call(
            "end",
            || failed("end"),
            |world| {
                if let Some(mut process) = world.processes.remove(id) {
                    process.end(137);
                }
                Ok(())
            },
        ))
    }
}

impl Renew for FakeExecutor {
    fn renew(&self, work: Prepared) -> BoxFuture<'_, Result<(), ExecError>> {
        Box::pin(async move {
            let id = &work.spec.id;
            let renewed = self.machine.call(
                "renew",
                || failed("renew"),
                |world| {
                    if work.listeners.iter().any(|listener| listener.socket.is_some()) {
                        world.breach(format!("{} was handed sockets that its run has", id.short()));
                    }
                    match world.processes.get(id) {
                        Some(process) if process.stage == Stage::Running => Ok(()),
                        _ => Err(not_running()),
                    }
                },
            );
            renewed.await
        })
    }
}

struct FakeWorkload {
    machine: Machine,
    id: WorkloadId,
    run: u32,
}

impl FakeWorkload {
    /// One call about this run.
    async fn about<T>(
        &self,
        name: &'static str,
        act: impl FnOnce(&mut Process) -> Result<T, ExecError>,
    ) -> Result<T, ExecError> {
        let found = self.machine.call(
            name,
            || failed(name),
            |world| {
                let process = world.processes.get_mut(&self.id).filter(|process| process.run == self.run);
                act(process.ok_or_else(|| gone(&self.id))?)
            },
        );
        found.await
    }
}

fn not_running() -> ExecError {
    ExecError::new(ErrorKind::Conflict, "it does not run")
}

impl Workload for FakeWorkload {
    fn start(&self) -> BoxFuture<'_, Result<(), ExecError>> {
        Box::pin(self.about("start", |process| match process.stage {
            Stage::Made => {
                process.stage = Stage::Running;
                Ok(())
            }
            _ => Err(not_running()),
        }))
    }

    fn pid(&self) -> Option<u32> {
        let world = self.machine.world();
        let process = world.processes.get(&self.id).filter(|process| process.run == self.run && process.is_alive())?;
        Some(100_000_000 + process.run)
    }

    fn signal(&self, signal: Signal) -> BoxFuture<'_, Result<(), ExecError>> {
        let stubborn = self.machine.world().stubborn.contains(&self.id);
        Box::pin(self.about("signal", move |process| match process.stage {
            Stage::Made | Stage::Ended => Err(not_running()),
            Stage::Running | Stage::Paused if signal == Signal::KILL => {
                process.end(137);
                Ok(())
            }
            Stage::Paused => {
                process.stopping |= !stubborn;
                Ok(())
            }
            Stage::Running => {
                if !stubborn {
                    process.end(128 + signal.0);
                }
                Ok(())
            }
        }))
    }

    fn wait(&self) -> BoxFuture<'_, Result<Exit, ExecError>> {
        Box::pin(async move {
            let mut exit = {
                let world = self.machine.world();
                let process = world.processes.get(&self.id).filter(|process| process.run == self.run);
                process.ok_or_else(|| gone(&self.id))?.exit.subscribe()
            };
            match exit.wait_for(Option::is_some).await {
                Ok(exit) => exit.clone().ok_or_else(|| gone(&self.id)),
                Err(_) => Err(gone(&self.id)),
            }
        })
    }

    fn stats(&self) -> BoxFuture<'_, Result<Stats, ExecError>> {
        Box::pin(async { Ok(Stats::default()) })
    }

    fn processes<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<ProcessTable, ExecError>> {
        Box::pin(async { Ok(ProcessTable::default()) })
    }

    fn delete(&self) -> BoxFuture<'_, Result<(), ExecError>> {
        Box::pin(self.machine.call(
            "delete",
            || failed("delete"),
            |world| {
                if world.processes.get(&self.id).is_some_and(|process| process.run == self.run)
                    && let Some(mut process) = world.processes.remove(&self.id)
                    && process.stage != Stage::Ended
                {
                    process.end(137);
                }
                Ok(())
            },
        ))
    }

    fn as_pause(&self) -> Option<&dyn Pause> {
        Some(self)
    }
}

impl Pause for FakeWorkload {
    fn is_paused(&self) -> BoxFuture<'_, Result<bool, ExecError>> {
        Box::pin(self.about("is_paused", |process| Ok(process.stage == Stage::Paused)))
    }

    fn pause(&self) -> BoxFuture<'_, Result<(), ExecError>> {
        Box::pin(self.about("pause", |process| match process.stage {
            Stage::Running => {
                process.stage = Stage::Paused;
                Ok(())
            }
            _ => Err(not_running()),
        }))
    }

    fn resume(&self) -> BoxFuture<'_, Result<(), ExecError>> {
        Box::pin(self.about("resume", |process| match process.stage {
            Stage::Paused => {
                process.stage = Stage::Running;
                if std::mem::take(&mut process.stopping) {
                    process.end(143);
                }
                Ok(())
            }
            _ => Err(not_running()),
        }))
    }
}
