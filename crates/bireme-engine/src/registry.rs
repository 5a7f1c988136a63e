//! Which workloads there are, and what each is called.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bireme_core::WorkloadId;
use parking_lot::RwLock;

use crate::EngineError;
use crate::container::Handle;
use crate::refusal::ContainerRefusal;
use crate::unreadable::{AllUnreadable, Unreadable};

/// What is called by a name.
pub(crate) enum Found {
    Known(Arc<Handle>),
    Unreadable(Unreadable),
}

#[derive(Default)]
struct Index {
    by_id: BTreeMap<String, Arc<Handle>>,
    /// Also names of workloads that are being created, which have no handle yet.
    names: HashMap<String, String>,
}

impl Index {
    /// What the workload before the `/` of `name` knows by the link behind it.
    fn linked_as(&self, name: &str) -> Option<&Arc<Handle>> {
        let (parent, alias) = name.split_once('/')?;
        let parent = self.names.get(parent).and_then(|id| self.by_id.get(id))?.view();
        let link = parent.links.iter().find(|link| link.alias == alias)?;
        self.by_id.get(link.to.as_str())
    }
}

/// The workloads that exist, by ID and name.
#[derive(Default)]
pub(crate) struct Registry {
    index: RwLock<Index>,
    unreadable: AllUnreadable,
}

/// A name that is kept for a workload until this is dropped, or given to it for good.
pub(crate) struct NameReservation {
    registry: Arc<Registry>,
    name: String,
    id: String,
    kept: bool,
}

impl NameReservation {
    /// The workload has the name from now on.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for NameReservation {
    fn drop(&mut self) {
        if !self.kept {
            self.registry.release_name(&self.name, &self.id);
        }
    }
}

impl Registry {
    /// Keeps `name` for the workload `id`.
    ///
    /// # Errors
    /// `Conflict` in Docker's words for a name in use.
    pub(crate) fn reserve(self: &Arc<Self>, name: &str, id: &str) -> Result<NameReservation, EngineError> {
        let mut index = self.index.write();
        if let Some(other) = index.names.get(name) {
            return Err(ContainerRefusal::NameTaken { name: name.to_owned(), by: other.clone() }.into());
        }
        index.names.insert(name.to_owned(), id.to_owned());
        Ok(NameReservation { registry: Arc::clone(self), name: name.to_owned(), id: id.to_owned(), kept: false })
    }

    /// Has a name be that of a workload which was remembered by it.
    pub(crate) fn adopt_name(&self, name: &str, id: &str) {
        self.index.write().names.insert(name.to_owned(), id.to_owned());
    }

    /// Adds a workload whose name is kept for it.
    pub(crate) fn add(&self, handle: Arc<Handle>) {
        self.index.write().by_id.insert(handle.id().to_owned(), handle);
    }

    /// Removes a workload and its names.
    pub(crate) fn remove(&self, id: &str) {
        {
            let mut index = self.index.write();
            index.by_id.remove(id);
            index.names.retain(|_, of| of != id);
        }
        self.unreadable.remove(id);
    }

    /// Workloads whose records cannot be read.
    pub(crate) fn unreadable(&self) -> &AllUnreadable {
        &self.unreadable
    }

    /// Gives a name back that `id` no longer has. Since it had the name, it may have become another's, which keeps it.
    pub(crate) fn release_name(&self, name: &str, id: &str) {
        let mut index = self.index.write();
        if index.names.get(name).is_some_and(|of| of == id) {
            index.names.remove(name);
        }
    }

    /// A name that nobody has.
    pub(crate) fn free_name(&self) -> String {
        loop {
            let name = crate::names::random();
            if !self.index.read().names.contains_key(&name) {
                return name;
            }
        }
    }

    pub(crate) fn handles(&self) -> Vec<Arc<Handle>> {
        self.index.read().by_id.values().cloned().collect()
    }

    /// By ID, name, or the beginning of an ID.
    pub(crate) fn find(&self, name: &str) -> Result<Arc<Handle>, EngineError> {
        match self.look_up(name)? {
            Found::Known(handle) => Ok(handle),
            Found::Unreadable(one) => Err(one.refusal()),
        }
    }

    /// As [`Self::find`], also of what nothing is known of but ID and name.
    pub(crate) fn look_up(&self, name: &str) -> Result<Found, EngineError> {
        let plain = name.strip_prefix('/').unwrap_or(name);
        let index = self.index.read();
        if let Some(handle) = index.by_id.get(plain) {
            return Ok(Found::Known(handle.clone()));
        }
        if let Some(handle) = index.names.get(plain).and_then(|id| index.by_id.get(id)) {
            return Ok(Found::Known(handle.clone()));
        }
        if let Some(one) = self.unreadable.exactly(plain) {
            return Ok(Found::Unreadable(one));
        }
        if let Some(handle) = index.linked_as(plain) {
            return Ok(Found::Known(handle.clone()));
        }
        let known = index.by_id.range(plain.to_owned()..);
        let known = known.take_while(|(id, _)| !plain.is_empty() && id.starts_with(plain)).take(2);
        let mut matching: Vec<Found> = known.map(|(_, handle)| Found::Known(handle.clone())).collect();
        matching.extend(self.unreadable.beginning(plain).into_iter().map(Found::Unreadable));
        match matching.len() {
            0 => Err(EngineError::no_container(name)),
            1 => Ok(matching.remove(0)),
            _ => Err(EngineError::Ambiguous { what: "container", name: plain.to_owned() }),
        }
    }

    /// The workload of a remembered ID. Another may be called by it when this one is gone.
    ///
    /// # Errors
    /// `NotFound`.
    pub(crate) fn with_id(&self, id: &WorkloadId) -> Result<Arc<Handle>, EngineError> {
        let found = self.index.read().by_id.get(id.as_str()).cloned();
        found.ok_or_else(|| EngineError::no_container(id.as_str()))
    }
}
