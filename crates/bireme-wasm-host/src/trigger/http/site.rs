//! Where requests come in, and which components answer there.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bireme_core::replaced::replaces;
use bireme_core::{Route, RouteTable, WorkloadId};
use http::header::HeaderValue;
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;

use crate::workload::Workload;

/// One route of one component, with the headers that are the same for each of its requests.
pub(super) struct ServedRoute {
    pub(super) workload: Arc<Workload>,
    pub(super) matched: HeaderValue,
    pub(super) plain: HeaderValue,
}

impl ServedRoute {
    pub(super) fn new(workload: &Arc<Workload>, route: &Route) -> Self {
        let text = route.to_string();
        let plain = text.strip_suffix("/...").unwrap_or(&text);
        let value = |text: &str| HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""));
        Self { workload: Arc::clone(workload), plain: value(plain), matched: value(&text) }
    }
}

/// A listening address and the components that answer on it.
pub(crate) struct Site {
    /// Grows with each change of the table, so that connections look at the lock only then.
    pub(super) generation: AtomicU64,
    table: RwLock<Arc<RouteTable<ServedRoute>>>,
    /// The table is made anew by the first request after a change: a thousand components that start one after the other
    /// would otherwise each make it for all.
    stale: AtomicBool,
    members: RwLock<Members>,
    pub(super) closed: CancellationToken,
}

/// Whether one of both replaces the other, as their labels say, or as a later run of the same.
pub(crate) fn share_a_place(one: &Workload, other: &Workload) -> bool {
    let (one, other) = (&one.component.spec, &other.component.spec);
    one.id == other.id || replaces(&one.labels, &other.labels) || replaces(&other.labels, &one.labels)
}

#[derive(Default)]
struct Members {
    all: Vec<Member>,
    /// Who has routes of these shapes: one, and those that share its place. Whoever joins is not compared with all.
    by_shape: HashMap<String, Vec<Arc<Workload>>>,
}

struct Member {
    workload: Arc<Workload>,
    /// Since which change of the site it answers, where it does.
    active: Option<u64>,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self {
            generation: AtomicU64::new(1),
            table: RwLock::default(),
            stale: AtomicBool::new(false),
            members: RwLock::default(),
            closed: CancellationToken::new(),
        }
    }

    /// Adds a component that answers nothing yet. The one whose place it takes may have the same routes.
    ///
    /// # Errors
    /// The two routes that clash, with the name of the workload that has the first.
    pub(crate) fn join(&self, workload: &Arc<Workload>) -> Result<(), (String, Route)> {
        let mut members = self.members.write();
        let routes = &workload.component.spec.bireme.routes;
        for route in routes {
            let others = members.by_shape.get(&route.shape()).into_iter().flatten();
            if let Some(other) = others.into_iter().find(|other| !share_a_place(workload, other)) {
                return Err((other.component.name().to_string(), route.clone()));
            }
        }
        for route in routes {
            members.by_shape.entry(route.shape()).or_default().push(Arc::clone(workload));
        }
        members.all.push(Member { workload: Arc::clone(workload), active: None });
        Ok(())
    }

    /// Whether the requests that match the routes of `workload` reach it from now on, and not the one whose place it takes.
    pub(crate) fn set_active(&self, workload: &Arc<Workload>, active: bool) {
        let mut members = self.members.write();
        let now = self.generation.load(Ordering::Acquire);
        for member in members.all.iter_mut().filter(|member| Arc::ptr_eq(&member.workload, workload)) {
            member.active = active.then(|| member.active.unwrap_or(now));
        }
        self.changed();
    }

    fn has(&self, id: &WorkloadId) -> bool {
        self.members.read().all.iter().any(|member| member.workload.component.spec.id == *id)
    }

    /// Removes a component; true when it was the last.
    pub(crate) fn leave(&self, workload: &Arc<Workload>) -> bool {
        let mut members = self.members.write();
        members.all.retain(|member| !Arc::ptr_eq(&member.workload, workload));
        for route in &workload.component.spec.bireme.routes {
            let shape = route.shape();
            if let Some(others) = members.by_shape.get_mut(&shape) {
                others.retain(|other| !Arc::ptr_eq(other, workload));
                if others.is_empty() {
                    members.by_shape.remove(&shape);
                }
            }
        }
        self.changed();
        members.all.is_empty()
    }

    /// Stops listening; connections end after the request they are at.
    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    /// Called with the members locked: whoever sees the new generation sees the new members.
    fn changed(&self) {
        self.stale.store(true, Ordering::Release);
        self.generation.fetch_add(1, Ordering::Release);
    }

    fn rebuild(&self) {
        let members = self.members.read();
        let mut table = self.table.write();
        if !self.stale.load(Ordering::Acquire) {
            // Another request did so while this one waited.
            return;
        }
        // Of two of which one takes the other's place, the later answers. Where it ends, the earlier does, if it is still there.
        let mut of_service: HashMap<_, Vec<&Member>> = HashMap::new();
        for member in members.all.iter().filter(|member| member.active.is_some()) {
            of_service.entry(&member.workload.component.spec.service).or_default().push(member);
        }
        let is_followed = |member: &Member| {
            let others = of_service.get(&member.workload.component.spec.service).into_iter().flatten();
            let mut later = others.filter(|other| other.active > member.active);
            later.any(|other| share_a_place(&other.workload, &member.workload))
        };
        let answering = members.all.iter().filter(|member| member.active.is_some() && !is_followed(member));
        let routes = answering.flat_map(|member| {
            let workload = &member.workload;
            workload.component.spec.bireme.routes.iter().map(|route| (route.clone(), ServedRoute::new(workload, route)))
        });
        // Clashes were refused by `join`.
        if let Ok(new) = RouteTable::new(routes) {
            *table = Arc::new(new);
        }
        self.stale.store(false, Ordering::Release);
    }

    pub(super) fn table(&self) -> (u64, Arc<RouteTable<ServedRoute>>) {
        let generation = self.generation.load(Ordering::Acquire);
        if self.stale.load(Ordering::Acquire) {
            self.rebuild();
        }
        (generation, Arc::clone(&self.table.read()))
    }
}

/// Where requests come in. The same address may be listened on by the engine outside and by us inside a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum SiteAddress {
    /// A published port, handed over as a socket.
    Published(SocketAddr),
    /// An address of the component's own.
    Inside(SocketAddr),
}

/// Every site of this process, and every component that answers.
#[derive(Default)]
pub(crate) struct Sites {
    pub(crate) all: RwLock<HashMap<SiteAddress, Arc<Site>>>,
    /// By their names in the app.
    named: RwLock<HashMap<String, Vec<Arc<Workload>>>>,
}

impl Sites {
    /// Whether `workload` is found by its name from now on.
    pub(crate) fn set_named(&self, workload: &Arc<Workload>, active: bool) {
        let spec = &workload.component.spec;
        let name = spec.service.as_ref().unwrap_or(&spec.name);
        let mut named = self.named.write();
        let members = named.entry(name.clone()).or_default();
        // An earlier run of the same goes with it.
        members.retain(|other| {
            let earlier = active && other.component.spec.id == spec.id;
            !earlier && !Arc::ptr_eq(other, workload)
        });
        if active {
            members.push(Arc::clone(workload));
        } else if members.is_empty() {
            named.remove(name);
        }
    }

    pub(super) fn find_named(&self, name: &str) -> Option<Arc<Workload>> {
        self.named.read().get(name)?.first().cloned()
    }

    pub(super) fn find_beside(&self, id: &WorkloadId) -> Option<Arc<Site>> {
        let all = self.all.read();
        // What is published has the routes of all: the process is the app's alone.
        let published = all.iter().filter(|(at, _)| matches!(at, SiteAddress::Published(_))).min_by_key(|(at, _)| **at);
        published.map(|(_, site)| site).or_else(|| all.values().find(|site| site.has(id))).cloned()
    }
}
