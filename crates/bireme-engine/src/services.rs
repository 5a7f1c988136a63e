//! What everything of the engine stands on: registry, state store, events, tasks, claims, and the options with the
//! executors, images and networks of the machine. Nothing in here calls up.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bireme_core::spec::WorkloadKind;
use bireme_core::{Executor, Resolver, SandboxId, WorkloadId};
use bireme_image::ImageStore;
use bireme_net::Net;

use crate::claims::Claims;
use crate::clearing::Clearing;
use crate::container::Handle;
use crate::dirs::Dirs;
use crate::event::Events;
use crate::preparing::Preparing;
use crate::registry::Registry;
use crate::request::LogRequest;
use crate::state_store::StateStore;
use crate::tasks::Tasks;

/// What an engine is made of.
pub struct EngineOptions {
    /// Absolute path of what outlives the machine's restart: the database, workloads' folders, volumes.
    pub data_root: PathBuf,
    /// Absolute path of what a restart of the machine may empty: sockets. Short, as their paths have at most 108 bytes.
    pub exec_root: PathBuf,
    /// Marks everything of this engine on the machine: eight hexadecimal digits.
    pub instance: String,
    /// Where images are, and come from.
    pub images: ImageStore,
    /// Makes networks, endpoints and forwards on the machine.
    pub net: Arc<dyn Net>,
    /// One per kind.
    pub executors: Vec<Arc<dyn Executor>>,
    /// The log driver and options of workloads that name none.
    pub log: LogRequest,
}

/// The services of one engine.
pub(crate) struct Services {
    pub(crate) options: EngineOptions,
    pub(crate) store: StateStore,
    pub(crate) events: Events,
    pub(crate) registry: Arc<Registry>,
    pub(crate) claims: Claims,
    pub(crate) tasks: Tasks,
    pub(crate) clearing: Clearing,
    pub(crate) preparing: Preparing,
}

impl Services {
    pub(crate) fn new(options: EngineOptions, store: StateStore) -> Self {
        Self {
            options,
            store,
            events: Events::new(),
            registry: Arc::default(),
            claims: Claims::default(),
            tasks: Tasks::default(),
            clearing: Clearing::default(),
            preparing: Preparing::default(),
        }
    }

    pub(crate) fn net(&self) -> &dyn Net {
        &*self.options.net
    }

    pub(crate) fn images(&self) -> &ImageStore {
        &self.options.images
    }

    pub(crate) fn data_root(&self) -> &Path {
        &self.options.data_root
    }

    /// Where folders of workloads wait until they are cleared away.
    pub(crate) fn set_aside_at(&self, id: &str) -> PathBuf {
        self.data_root().join("containers").join(crate::dirs::REMOVED).join(id)
    }

    pub(crate) fn dirs(&self, id: &WorkloadId) -> Dirs {
        Dirs {
            state: self.data_root().join("containers").join(id.as_str()),
            // Short: sockets live here, and their paths may have 108 bytes.
            run: self.options.exec_root.join("c").join(id.short()),
        }
    }

    /// Where those files lie. On the disk: in the exec root, which is memory, a container could fill the machine's.
    pub(crate) fn etc_folder(&self, id: &WorkloadId) -> PathBuf {
        self.dirs(id).state.join("etc")
    }

    /// Executors whose workloads resolve names themselves.
    pub(crate) fn resolvers(&self) -> impl Iterator<Item = &dyn Resolver> {
        self.options.executors.iter().filter_map(|executor| executor.as_resolver())
    }

    pub(crate) fn executor(&self, kind: WorkloadKind) -> Option<Arc<dyn Executor>> {
        self.options.executors.iter().find(|executor| executor.kind() == kind).cloned()
    }

    /// The sandboxes of all workloads of an executor's kind.
    pub(crate) fn sandboxes_of(&self, executor: &Arc<dyn Executor>) -> Vec<SandboxId> {
        let of_this = |handle: &Arc<Handle>| handle.executor.kind() == executor.kind();
        self.registry
            .handles()
            .iter()
            .filter(|handle| of_this(handle))
            .map(|h| h.executor.sandbox(&h.config.spec))
            .collect()
    }

    /// What was set aside at `mark` is forgotten: the mark of it goes, or in the background what is left of it.
    pub(crate) fn end_removal(&self, mark: PathBuf, emptied: bool) {
        if emptied {
            let _ = std::fs::remove_dir(mark);
        } else {
            tracing::warn!(path = %mark.display(), "what was removed takes long to clear away, which goes on");
            self.clear_later(mark);
        }
    }

    /// Clears a folder away that nothing uses, in the background: it may hold millions of names, and grow.
    pub(crate) fn clear_later(&self, path: PathBuf) {
        self.clearing.add(path);
    }
}
