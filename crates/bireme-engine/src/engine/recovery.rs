//! The engine finds again what an earlier one left: what is remembered, what runs, what was cut short.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bireme_core::executor::Known;
use bireme_core::spec::{NetworkMode, WorkloadKind};
use bireme_core::{SandboxId, Workload, WorkloadId, WorkloadSpec};
use bireme_net::Keep;
use bireme_sys::removal;
use futures::StreamExt as _;
use futures::stream;
use tokio::sync::mpsc;

use super::Engine;
use crate::EngineError;
use crate::actor::WorkloadActor;
use crate::command::Command;
use crate::container::{Handle, MutableState};
use crate::dirs::{REMOVED, entries};
use crate::network::{self, finds_names, named_networks};
use crate::record::Kind;
use crate::restart;
use crate::unreadable::Unreadable;
use crate::view::{Config, Status};

/// How often a published port is tried to be taken that another program had when the engine started.
const RETAKEN_EACH: Duration = Duration::from_secs(2);

impl Engine {
    pub(super) async fn recover(&self) -> Result<(), EngineError> {
        let mut keep = Keep::default();
        let (networks, unread) = self.services().store.networks()?;
        for network in networks {
            let (id, name) = (network.id.clone(), network.name.clone());
            match self.parts.networks.adopt(network) {
                Ok(spec) => keep.networks.extend(spec),
                Err(error) => {
                    tracing::error!(id, name, error = &error as &dyn std::error::Error, "a network cannot be taken up");
                }
            }
        }
        let mut found = Vec::new();
        let (workloads, unreadable) = self.services().store.workloads::<Config, MutableState>()?;
        let mut workloads: Vec<_> =
            workloads.into_iter().map(|(name, config, mutable)| (name, config, mutable, None)).collect();
        let (mut unknown, mut held) = (Vec::new(), Vec::new());
        for one in unreadable {
            let mutable = MutableState::as_far_as_it_goes(&one.mutable);
            if one.known
                && let Ok(config) = serde_json::from_str::<Config>(&one.config)
            {
                // Some of its places may be of a form that is not known here.
                keep.untouched
                    .extend(self.services().executor(config.spec.kind).map(|executor| executor.sandbox(&config.spec)));
                held.extend(one.addresses());
                workloads.push((one.name.clone(), config, mutable, Some(one.why.clone())));
                self.registry().unreadable().add(one);
            } else {
                unknown.push((Unreadable { known: false, ..one }, mutable));
            }
        }
        let states = workloads.iter().map(|(_, _, mutable, _)| mutable).chain(unknown.iter().map(|(_, state)| state));
        let endpoints: Vec<_> = states.flat_map(|state| state.endpoints.clone()).collect();
        // Workloads are on them: they are as they were as far as can be known, and what is recorded of them stays.
        let mut anew = BTreeMap::new();
        for one in unread {
            let taken_up = self.parts.networks.adopt_damaged(&one, &endpoints);
            let predefined = network::is_predefined(&one.name);
            if !predefined {
                self.parts.networks.note_unreadable(&one);
            }
            match taken_up {
                Some(spec) => keep.networks.extend(spec),
                None if predefined => drop(anew.insert(one.name, one.key)),
                None => keep.untouched_networks.push(one.key),
            }
        }
        for (one, state) in unknown {
            self.registry().adopt_name(&one.name, &one.id);
            // Where its processes live, and what they have there.
            let own = WorkloadId::parse(&one.id).ok().map(|id| SandboxId::from(&id));
            let of_app = one.app().and_then(|app| SandboxId::parse(&format!("app-{app}")).ok());
            keep.untouched.extend(own.iter().chain(&of_app).cloned());
            held.extend(one.addresses());
            let executor = one.kind().and_then(|kind| self.services().executor(kind));
            let listens = executor.is_some_and(|executor| executor.takes_listeners());
            if let Some(sandbox) = if listens { of_app.or(own) } else { own } {
                let kept = self.parts.networks.adopt_unreadable(&one, &sandbox, &state, listens).await;
                keep.endpoints.extend(kept.0);
                keep.forwards.extend(kept.1);
            }
            self.registry().unreadable().add(one);
        }
        for (name, config, mut mutable, why) in workloads {
            let Some(executor) = self.services().executor(config.spec.kind) else { continue };
            if !mutable.state.status.is_alive() {
                for endpoint in &mut mutable.endpoints {
                    endpoint.ipv4 = None;
                    endpoint.ipv6 = None;
                }
                mutable.ports.clear();
            }
            let (handle, commands) = Handle::new(Arc::new(config), &name, &mutable, executor, why);
            self.registry().adopt_name(&name, handle.id());
            self.registry().add(handle.clone());
            if mutable.state.status.is_alive() {
                let endpoints = self.parts.networks.adopt_place(&handle, &mutable).await;
                self.services()
                    .net()
                    .set_upstream(&handle.executor.sandbox(&handle.config.spec), &handle.config.spec.dns.servers);
                keep.endpoints.extend(endpoints);
                // Also of one that was taken off its last network: it may be put on another, and others may join it.
                if matches!(handle.config.spec.namespaces.network, NetworkMode::None | NetworkMode::Attached) {
                    keep.sandboxes.push(handle.executor.sandbox(&handle.config.spec));
                }
                keep.forwards.extend(self.parts.networks.forwards_of(&handle, &mutable));
            }
            found.push((handle, commands, name, mutable));
        }
        self.parts.networks.take_addresses(&held);
        keep.handed = self.parts.networks.handed();
        let swept = self.services().net().sweep(keep).await?;
        for (id, why) in swept.left_out {
            tracing::error!(
                id = id.as_str(),
                why,
                "a network cannot be made and is left out: mend that and start what is on it again, or remove the network"
            );
            self.parts.networks.leave_out(id.as_str(), why);
        }
        for (forward, reason) in &swept.refused {
            tracing::warn!(?forward, reason, "a published port could not be taken up again");
        }
        for (forward, reason) in &swept.taken {
            tracing::warn!(?forward, reason, "a published port is another program's, and is taken up once it is free");
        }
        if !swept.taken.is_empty() {
            let services = Arc::clone(self.services());
            self.services().tasks.spawn(async move {
                while !matches!(services.net().retake_ports().await, Ok(0)) {
                    tokio::time::sleep(RETAKEN_EACH).await;
                }
            });
        }
        for endpoint in &swept.detached {
            // As a disconnect leaves it that an earlier engine was killed over.
            match self.services().net().attach(endpoint).await {
                Ok(_) => {
                    tracing::info!(workload.id = endpoint.owner, "a workload that had lost an interface has it again")
                }
                Err(error) => tracing::warn!(
                    workload.id = endpoint.owner,
                    error = &error as &dyn std::error::Error,
                    "a workload has lost an interface: disconnect it from its networks and connect it again"
                ),
            }
        }
        self.services().net().warn_of_firewalls().await;
        self.parts.networks.make_default(&anew).await?;
        for (handle, _, _, mutable) in &found {
            if !mutable.state.status.is_alive() || !finds_names(&mutable.endpoints) {
                continue;
            }
            if let Err(error) = self.services().net().serve_inside(&handle.executor.sandbox(&handle.config.spec)).await
            {
                tracing::warn!(workload.id = handle.id(), %error, "names are not served inside a workload");
            }
        }
        for (handle, _, _, mutable) in &found {
            self.parts.networks.adopt_names(handle.id(), &mutable.endpoints);
        }
        // Before anything is found again: a process that runs on is told what changed while no daemon was there.
        self.parts.networks.tell_all_names().await;
        self.reattach(found).await;
        self.remove_orphans()?;
        self.end_creates().await;
        Ok(())
    }

    async fn reattach(&self, found: Vec<(Arc<Handle>, mpsc::Receiver<Command>, String, MutableState)>) {
        let attempts = found.into_iter().map(|(handle, commands, name, mutable)| async move {
            let alive = mutable.state.status.is_alive();
            let workload = if alive {
                let dirs = self.services().dirs(&handle.config.spec.id);
                let networks = named_networks(&mutable.endpoints);
                let known = Known { spec: &handle.config.spec, state_dir: dirs.state, run_dir: dirs.run, networks };
                Some(handle.executor.reattach(known).await.map(Arc::<dyn Workload>::from))
            } else {
                None
            };
            (handle, commands, name, mutable, workload)
        });
        let attempts: Vec<_> = stream::iter(attempts).buffer_unordered(128).collect().await;
        let mut known: HashMap<WorkloadKind, Vec<WorkloadId>> = HashMap::new();
        let mut resting: HashMap<WorkloadKind, Vec<&WorkloadSpec>> = HashMap::new();
        let mut owners = Vec::new();
        for (handle, _, _, _, workload) in &attempts {
            let spec = &handle.config.spec;
            match workload {
                Some(Ok(_)) => known.entry(spec.kind).or_default().push(spec.id.clone()),
                _ => resting.entry(spec.kind).or_default().push(spec),
            }
        }
        // Before any owner starts what its policy says: what runs of it unknown to us must not run twice.
        let unreadable: Vec<_> =
            self.registry().unreadable().ids().iter().filter_map(|id| WorkloadId::parse(id).ok()).collect();
        for executor in &self.services().options.executors {
            let known =
                known.get(&executor.kind()).into_iter().flatten().chain(&unreadable).cloned().collect::<Vec<_>>();
            executor.sweep(&known, resting.get(&executor.kind()).map_or(&[][..], Vec::as_slice)).await;
        }
        drop(resting);
        for (handle, commands, name, mutable, workload) in attempts {
            let mut owner = WorkloadActor::new(Arc::clone(&self.parts), handle.clone(), name, mutable.clone());
            if handle.config.of_build && handle.unreadable.is_none() {
                // Its build ended with the engine that ran it.
                let (engine, id) = (self.clone(), handle.id().to_owned());
                self.services().tasks.spawn(async move { engine.remove_of_build(&id).await });
            }
            match workload {
                Some(Ok(workload)) => owner.adopt(workload),
                Some(Err(error)) => {
                    tracing::warn!(workload.id = handle.id(), %error, "a running workload was not found again");
                    owner.lost();
                }
                None => {
                    let was_running = mutable.state.status == Status::Restarting;
                    if was_running {
                        owner.settle();
                    }
                    let created = mutable.state.status == Status::Created;
                    if !created
                        && restart::at_engine_start(
                            mutable.restart,
                            was_running,
                            mutable.stopped,
                            mutable.state.exit_code,
                        )
                    {
                        owner.start_soon();
                    }
                }
            }
            owners.push((owner, commands));
        }
        for (owner, commands) in owners {
            self.spawn_actor(owner, commands);
        }
    }

    /// Goes on with removals that were cut short, and removes folders of no workload in which nothing is: of a create
    /// that was cut short. What holds files is kept and told of; volumes are none of its business at all.
    fn remove_orphans(&self) -> Result<(), EngineError> {
        let known = self.services().store.ids()?;
        let mut short: HashSet<String> = known.iter().filter_map(|id| id.get(..12).map(str::to_owned)).collect();
        let containers = self.data_root().join("containers");
        for (kind, folder) in [(Kind::Workload, &containers), (Kind::Volume, &self.data_root().join("volumes"))] {
            for path in entries(&folder.join(REMOVED)) {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                if !self.services().store.owes(kind, name) {
                    self.services().clear_later(path);
                }
            }
        }
        for path in entries(&containers) {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name == REMOVED || known.contains(name) {
                continue;
            }
            if removal::holds_files(&path) {
                short.extend(name.get(..12).map(str::to_owned));
                tracing::warn!(
                    path = %path.display(),
                    "the folder of a container that nothing is known of is kept: what it wrote is in it; remove it by hand"
                );
            } else {
                self.services().clear_later(path);
            }
        }
        for path in entries(&self.services().options.exec_root.join("c")) {
            if !path.file_name().and_then(|name| name.to_str()).is_some_and(|name| short.contains(name)) {
                self.services().clear_later(path);
            }
        }
        Ok(())
    }

    /// Removes what creates that were cut short had made for themselves: no other volume, and none that somebody has.
    async fn end_creates(&self) {
        let Ok(known) = self.services().store.ids() else { return };
        for path in entries(&self.data_root().join(super::CREATING)) {
            let Some(id) = path.file_name().and_then(|name| name.to_str()) else { continue };
            // Also one that cannot be read.
            let created = known.contains(id);
            let text = if created { String::new() } else { std::fs::read_to_string(&path).unwrap_or_default() };
            for name in text.lines() {
                if !self.parts.volumes.get(name).is_ok_and(|volume| volume.anonymous) {
                    continue;
                }
                match self.parts.volumes.remove(name, true).await {
                    Ok(()) => tracing::info!(volume = name, "a volume of a create that was cut short is removed"),
                    Err(error) => {
                        tracing::warn!(volume = name, %error, "a volume of a create that was cut short stays")
                    }
                }
            }
            self.end_note(id);
        }
    }
}
