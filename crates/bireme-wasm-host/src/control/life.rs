//! Start, signals, the end and the deletion of a workload.

use std::io::Write as _;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bireme_core::clock::now_nanos;
use bireme_core::{ErrorKind, Exit, WorkloadId};
use bireme_wasm::protocol::{self, Refusal};

use super::{Host, Loaded, find_in, refuse};
use crate::component::Component;
use crate::trigger::http::share_a_place;
use crate::trigger::messages::Subscription;
use crate::trigger::{command, schedule};
use crate::workload::{Phase, Workload};

/// How long instances may take to be gone once they were cut.
const INSIST: Duration = Duration::from_secs(2);
/// How long requests that have found a run may take to be let in once another has taken over from it.
const LAST_ENTRIES: Duration = Duration::from_millis(50);
/// How long the end of a workload waits for its log to be written.
const WRITTEN: Duration = Duration::from_secs(60);

impl Host {
    pub(super) fn start(self: &Arc<Self>, id: &WorkloadId) -> Result<(), Refusal> {
        let loaded = self.find(id)?;
        let workload = &loaded.workload;
        if !workload.run() {
            let text = format!("component {} was started before", workload.component.name());
            return Err(refuse(ErrorKind::Conflict, text));
        }
        match workload.component.trigger.name() {
            "http" => self.set_active(&loaded, true),
            "command" => {
                let host = Arc::clone(self);
                let running = tokio::spawn(command::run(Arc::clone(workload)));
                tokio::spawn(async move {
                    let exit = running.await.unwrap_or_else(|error| command_broke(&loaded.workload.component, &error));
                    host.end(&loaded, exit).await;
                });
            }
            "schedule" => {
                if let Some(schedule) = workload.component.spec.bireme.schedule.clone() {
                    tokio::spawn(schedule::keep(Arc::clone(workload), schedule));
                }
            }
            _ => self.subscribe(&loaded),
        }
        Ok(())
    }

    /// Has messages come to a workload that runs: to the one whose place it takes they come no more.
    fn subscribe(&self, loaded: &Arc<Loaded>) {
        let workload = &loaded.workload;
        let label = |workload: &Workload| workload.component.spec.bireme.subscribe.clone();
        let precedes = |other: &&Arc<Loaded>| {
            !Arc::ptr_eq(other, loaded)
                && share_a_place(&other.workload, workload)
                && label(&other.workload) == label(workload)
                // With an address go the connections from it.
                && other.workload.component.addresses == workload.component.addresses
        };
        let components = self.components.lock();
        subscribe_after(components.values().filter(precedes), loaded);
    }

    /// SIGKILL cuts; the stop signals let an HTTP or message component finish what it is at.
    pub(super) fn signal(self: &Arc<Self>, id: &WorkloadId, signal: i32) -> Result<(), Refusal> {
        const HUP: i32 = 1;
        const INT: i32 = 2;
        const QUIT: i32 = 3;
        const KILL: i32 = 9;
        const TERM: i32 = 15;
        // Not while another run takes over.
        let components = self.components.lock();
        let loaded = find_in(&components, id)?;
        let workload = &loaded.workload;
        let phase = workload.phase().borrow().clone();
        match phase {
            Phase::Loaded => return Err(refuse(ErrorKind::Conflict, "the component was not started yet")),
            Phase::Ended(_) => return Err(not_running()),
            Phase::Running | Phase::Stopping => {}
        }
        let stops = [HUP, INT, QUIT, TERM].contains(&signal) || signal == workload.component.spec.stop_signal.0;
        if signal != KILL && !stops {
            let text = format!(
                "a component has no handler for signal {signal}; it can be stopped (SIGTERM, SIGINT) and killed (SIGKILL)"
            );
            return Err(refuse(ErrorKind::Unsupported, text));
        }
        let is_command = workload.component.trigger.name() == "command";
        if !is_command {
            workload.begin_stop();
        }
        drop(components);
        let host = Arc::clone(self);
        tokio::spawn(async move {
            let workload = &loaded.workload;
            host.set_active(&loaded, false);
            if is_command {
                // Ends by itself, with this code.
                workload.cut(128 + signal);
                if signal == KILL {
                    host.insist(&loaded).await;
                }
                return;
            }
            let retiring = host.retiring(&workload.component.spec.id);
            if signal == KILL {
                retiring.iter().for_each(|earlier| earlier.workload.cut(137));
                workload.cut(137);
                host.insist(&loaded).await;
                return;
            }
            // A kill may overtake a stop that still waits; the end is recorded once.
            let overtaken = workload.cancelled();
            tokio::select! {
                () = async {
                    workload.drain().await;
                    // The process may end with this one.
                    for earlier in &retiring {
                        ended(&earlier.workload).await;
                    }
                } => {}
                () = overtaken.cancelled() => return,
            }
            host.end(&loaded, Exit { code: 0, oom_killed: false, finished_at: now_nanos(), error: None }).await;
        });
        Ok(())
    }

    /// Records the end of a workload that was cut: as soon as its instances are gone, and soon in any case. One that holds
    /// its thread, in a call of the host that does not return, must not keep the workload from ending.
    pub(super) async fn insist(&self, loaded: &Loaded) {
        emptied(&loaded.workload).await;
        self.end(loaded, Exit { code: 137, oom_killed: false, finished_at: now_nanos(), error: None }).await;
    }

    /// Records how a workload ended: in its log, its exit file, and to everyone who waits.
    pub(super) async fn end(&self, loaded: &Loaded, exit: Exit) {
        let exit = Exit { error: exit.error.as_deref().map(protocol::sentence), ..exit };
        self.set_active(loaded, false);
        // Whoever is attached and reads nothing keeps the writer for a while; the end does not wait longer than that.
        let killed = loaded.workload.cancelled().is_cancelled();
        let _ =
            tokio::time::timeout(if killed { INSIST } else { WRITTEN }, loaded.workload.component.log.finish()).await;
        if let Some(mut file) = loaded.exit.lock().take() {
            // One write of a small record: readers see nothing or all of it.
            if let Ok(text) = serde_json::to_vec(&exit)
                && let Err(error) = file.write_all(&text).and_then(|()| file.sync_data())
            {
                crate::complain(&format!("cannot record the end of {}: {error}", loaded.workload.component.name()));
            }
        }
        loaded.workload.end(exit);
    }

    /// Has `next` take over from `before`: requests and messages go to it from now on, and `before` ends by itself. False where
    /// `before` is being stopped; nothing has changed then.
    pub(super) fn take_over(self: &Arc<Self>, before: &Arc<Loaded>, next: &Arc<Loaded>) -> bool {
        let mut components = self.components.lock();
        if !before.workload.begin_stop() {
            return false;
        }
        let _ = before.follower.set(Arc::clone(next));
        *next.exit.lock() = before.exit.lock().take();
        components.insert(next.workload.component.spec.id.clone(), Arc::clone(next));
        next.workload.run();
        self.set_active(next, true);
        if next.workload.component.trigger.name() == "redis" {
            subscribe_after(std::iter::once(before), next);
        }
        drop(components);
        {
            let mut retiring = self.retiring.lock();
            retiring.retain(|one| one.strong_count() > 0);
            retiring.push(Arc::downgrade(before));
        }
        let (host, before, within) = (Arc::clone(self), Arc::clone(before), next.workload.component.spec.stop_timeout);
        tokio::spawn(async move { host.retire(&before, within).await });
        true
    }

    /// Ends a run from which another has taken over: once it is done with what it has begun, or its time is over. Its log is
    /// the other's now.
    async fn retire(&self, loaded: &Loaded, within: Duration) {
        let workload = &loaded.workload;
        // Requests that found it before the other took over, or wait for a free instance, are let in yet.
        let done = async {
            tokio::time::sleep(LAST_ENTRIES).await;
            while workload.component.metrics.queued.load(Relaxed) > 0 {
                tokio::time::sleep(LAST_ENTRIES).await;
            }
            workload.drain().await;
        };
        let cut = workload.cancelled();
        let done = async {
            tokio::select! {
                () = done => true,
                () = cut.cancelled() => false,
            }
        };
        let code = match tokio::time::timeout(within, done).await.ok().filter(|done| *done) {
            Some(_) => 0,
            None => {
                workload.cut(137);
                emptied(workload).await;
                137
            }
        };
        self.set_active(loaded, false);
        self.close_sites(loaded);
        workload.end(Exit { code, oom_killed: false, finished_at: now_nanos(), error: None });
    }

    /// The runs of `id` from which another has taken over, and that have not ended yet.
    fn retiring(&self, id: &WorkloadId) -> Vec<Arc<Loaded>> {
        let retiring = self.retiring.lock();
        retiring.iter().filter_map(Weak::upgrade).filter(|one| one.workload.component.spec.id == *id).collect()
    }

    pub(super) async fn delete(&self, id: &WorkloadId) -> Result<(), Refusal> {
        let loaded = {
            // No other run takes over any more.
            let components = self.components.lock();
            let loaded = find_in(&components, id)?;
            loaded.workload.begin_stop();
            loaded
        };
        for earlier in self.retiring(id) {
            earlier.workload.cut(137);
            ended(&earlier.workload).await;
        }
        self.set_active(&loaded, false);
        loaded.workload.cut(137);
        self.insist(&loaded).await;
        self.close_sites(&loaded);
        self.components.lock().remove(id);
        Ok(())
    }
}

/// Waits until the instances of a workload that was cut are gone, for as long as that may take.
async fn emptied(workload: &Workload) {
    if tokio::time::timeout(INSIST, workload.drain()).await.is_err() {
        crate::complain(&format!("instances of {} did not end in time", workload.component.spec.name));
    }
}

/// Has messages come to `next`: those of the first of `before` that has any, or by a subscription of its own.
fn subscribe_after<'a>(mut before: impl Iterator<Item = &'a Arc<Loaded>>, next: &Loaded) {
    if !before.any(|one| hand_over(one, next)) {
        *next.subscription.lock() = Subscription::begin(&next.workload);
    }
}

/// Has the messages of one come to another, where it has any.
fn hand_over(from: &Loaded, to: &Loaded) -> bool {
    let weak = from.subscription.lock().clone();
    let handed = weak.upgrade().is_some_and(|subscription| subscription.hand_over(&to.workload));
    if handed {
        *to.subscription.lock() = weak;
    }
    handed
}

pub(super) fn not_running() -> Refusal {
    refuse(ErrorKind::Conflict, "the component is not running")
}

/// Waits until the workload has ended, however often another run takes over.
///
/// # Cancel safety
/// Dropping the future changes nothing.
pub(super) async fn wait(mut loaded: Arc<Loaded>) -> Exit {
    loop {
        let exit = ended(&loaded.workload).await;
        match loaded.follower.get().cloned() {
            Some(follower) => loaded = follower,
            None => return exit,
        }
    }
}

async fn ended(workload: &Workload) -> Exit {
    let mut phase = workload.phase();
    loop {
        if let Phase::Ended(exit) = &*phase.borrow_and_update() {
            return exit.clone();
        }
        if phase.changed().await.is_err() {
            return Exit { code: 137, oom_killed: false, finished_at: now_nanos(), error: None };
        }
    }
}

/// The end of a command whose task broke: a fault of this process, which must not leave the command running for ever.
fn command_broke(component: &Component, error: &tokio::task::JoinError) -> Exit {
    let text = format!("the host process failed while it ran {}: {error}", component.spec.name);
    crate::complain(&text);
    component.log.note(&format!("bireme: {text}"));
    Exit { code: 134, oom_killed: false, finished_at: now_nanos(), error: Some(text) }
}
