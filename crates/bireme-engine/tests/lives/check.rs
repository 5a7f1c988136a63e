//! What must hold once nothing is under way any more.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bireme_core::spec::NetworkMode;
use bireme_engine::view::{Status, WorkloadView};
use bireme_engine::{Engine, Event, EventQuery};
use futures::StreamExt as _;

use crate::rig::{Rig, views};

/// What is on the machine is what the engine says.
pub(crate) fn machine(rig: &Rig, engine: &Engine) {
    let views = views(engine);
    let world = rig.machine.world();
    let running: BTreeMap<_, _> = views
        .iter()
        .filter(|view| view.state.status.is_alive())
        .map(|view| (view.config.spec.id.clone(), view.state.status == Status::Paused))
        .collect();
    assert_eq!(world.alive(), running, "what runs, and what stands still");
    assert_eq!(world.remains(), [], "what does not run is cleared away");
    for view in &views {
        let status = view.state.status;
        assert!(!matches!(status, Status::Restarting | Status::Removing | Status::Dead), "{} is {status:?}", view.name);
        assert_eq!(view.state.pid.is_some(), status.is_alive(), "{}: a process is shown where one is", view.name);
        if !status.is_alive() {
            assert!(view.endpoints.iter().all(|endpoint| endpoint.ipv4.is_none()), "{} keeps an address", view.name);
            assert_eq!(view.ports, [], "{} keeps its ports", view.name);
        }
    }
    let mut addresses: Vec<(String, String, IpAddr)> = Vec::new();
    for view in &views {
        let on = view.endpoints.iter().filter_map(|endpoint| Some((endpoint.network.clone(), endpoint.ipv4?.0)));
        addresses.extend(on.map(|(network, address)| (view.id().to_owned(), network, address)));
    }
    addresses.sort();
    let mut held: Vec<(String, String, IpAddr)> = Vec::new();
    for endpoint in &world.endpoints {
        let all = endpoint.addresses.iter().map(|net| net.addr());
        held.extend(all.map(|address| (endpoint.owner.clone(), endpoint.network.to_string(), address)));
    }
    held.sort();
    assert_eq!(held, addresses, "addresses on the machine, and in the engine");
    let given: BTreeSet<_> = addresses.iter().map(|(_, network, address)| (network, address)).collect();
    assert_eq!(given.len(), addresses.len(), "an address was given twice");
    let own = |view: &&WorkloadView| {
        matches!(view.config.spec.namespaces.network, NetworkMode::Attached | NetworkMode::None)
            && view.state.status.is_alive()
    };
    let sandbox = |view: &WorkloadView| match rig.listens {
        true => "app-app".to_owned(),
        false => view.id().to_owned(),
    };
    let wanted: BTreeSet<String> = views.iter().filter(own).map(sandbox).collect();
    let sandboxes: BTreeSet<String> = world.sandboxes.iter().map(|id| id.as_str().to_owned()).collect();
    assert_eq!(sandboxes, wanted, "network namespaces");
    let mut forwards: Vec<_> = world.forwards.iter().map(|forward| (forward.owner.clone(), forward.host)).collect();
    let ports = views.iter().flat_map(|view| view.ports.iter().map(|port| (view.id().to_owned(), port.host)));
    let mut ports: Vec<_> = ports.collect();
    forwards.sort();
    ports.sort();
    if rig.listens {
        let sockets: BTreeSet<u16> = ports.iter().map(|(_, host)| host.port()).collect();
        assert_eq!(world.handed.keys().copied().collect::<BTreeSet<_>>(), sockets, "sockets that are handed over");
        assert_eq!(forwards, []);
    } else {
        assert_eq!(forwards, ports, "ports that are forwarded");
    }
}

/// How far a workload is, as its events tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// It was there before, in whatever state.
    Unknown,
    Resting,
    Alive,
    Paused,
    Gone,
}

/// What an engine told of each workload makes one life: it is created once, ends once for each start, and is destroyed
/// last. `known` are those that were there when the engine came.
pub(crate) fn events(engine: &Engine, known: &[String]) {
    let query = EventQuery { since: Some(0), until: Some(i64::MAX - 1) };
    let mut listened = engine.events(query);
    let mut all: Vec<Event> = Vec::new();
    while let Some(Some(event)) = futures::FutureExt::now_or_never(listened.next()) {
        all.push(event);
    }
    let mut told: BTreeMap<&str, Told> = known.iter().map(|id| (id.as_str(), Told::Unknown)).collect();
    let mut mounts: BTreeMap<&str, i32> = BTreeMap::new();
    for event in &all {
        match (event.kind, event.action.as_str()) {
            ("volume", "mount") => *mounts.entry(&event.attributes["container"]).or_default() += 1,
            ("volume", "unmount") => *mounts.entry(&event.attributes["container"]).or_default() -= 1,
            _ => {}
        }
        if event.kind != "container" {
            continue;
        }
        let before = told.get(event.id.as_str()).copied();
        let after = match (event.action.as_str(), before) {
            ("create", None) => Told::Resting,
            ("start", Some(Told::Resting | Told::Unknown)) => Told::Alive,
            ("die", Some(Told::Alive | Told::Paused | Told::Unknown)) => Told::Resting,
            ("pause", Some(Told::Alive | Told::Unknown)) => Told::Paused,
            ("unpause", Some(Told::Paused | Told::Unknown)) => Told::Alive,
            ("destroy", Some(Told::Resting | Told::Unknown)) => Told::Gone,
            ("create" | "start" | "die" | "pause" | "unpause" | "destroy", _) => {
                panic!("{} came to {} that was {before:?}; all: {:?}", event.action, event.id, actions(&all, &event.id))
            }
            (_, Some(before)) => before,
            (action, None) => panic!("{action} came to {}, of which nothing was told", event.id),
        };
        told.insert(&event.id, after);
    }
    let views: BTreeMap<String, WorkloadView> =
        views(engine).into_iter().map(|view| (view.id().to_owned(), view)).collect();
    for (id, told) in &told {
        let status = views.get(*id).map(|view| view.state.status);
        let fits = matches!(
            (told, status),
            (Told::Unknown, _)
                | (Told::Gone, None)
                | (Told::Alive, Some(Status::Running))
                | (Told::Paused, Some(Status::Paused))
                | (Told::Resting, Some(Status::Created | Status::Exited))
        );
        assert!(fits, "{id} is {status:?}, and was told to be {told:?}: {:?}", actions(&all, id));
        if known.iter().any(|known| known == id) {
            continue;
        }
        let mounted = status.is_some_and(Status::is_alive)
            && views.get(*id).is_some_and(|view| view.config.mounts.iter().any(|mount| !mount.name.is_empty()));
        assert_eq!(mounts.get(id).copied().unwrap_or_default(), i32::from(mounted), "mounts of {id} in use");
    }
}

fn actions<'a>(all: &'a [Event], id: &str) -> Vec<&'a str> {
    all.iter().filter(|event| event.id == id).map(|event| event.action.as_str()).collect()
}

/// All was removed: nothing of it is on the machine, in folders, or taken.
pub(crate) async fn nothing_left(rig: &Rig, engine: &Engine) {
    assert!(views(engine).is_empty());
    machine(rig, engine);
    assert_eq!(engine.volumes().iter().map(|volume| &volume.name).collect::<Vec<_>>(), Vec::<&String>::new());
    for number in 0..crate::script::NETWORKS {
        engine.remove_network(&crate::rig::network(number)).await.unwrap();
    }
    // A thread of its own clears away, in real time.
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let left = left_over(rig);
        if left.is_empty() {
            break;
        }
        assert!(Instant::now() < until, "folders stay: {left:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn left_over(rig: &Rig) -> Vec<std::path::PathBuf> {
    let folders = [
        rig.data_root().join("containers"),
        rig.data_root().join("containers/.removed"),
        rig.data_root().join("volumes"),
        rig.data_root().join("volumes/.removed"),
        rig.data_root().join("creating"),
        rig.exec_root().join("c"),
    ];
    let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten());
    entries.map(|entry| entry.path()).filter(|path| !path.ends_with(".removed")).collect()
}
