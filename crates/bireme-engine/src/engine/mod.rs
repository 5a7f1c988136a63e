//! The facade: what clients of the engine ask for.
//!
//! ```text
//! create     a workload is made                      recovery   what an earlier engine left is found again
//! control    commands to actors                      query      what there is, and how it is
//! resources  networks, volumes, exec sessions, files, images: passed on to their types
//! ```

mod control;
mod create;
mod query;
mod recovery;
mod resources;
mod successor;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bireme_image::ImageStore;
use bireme_sys::removal;

pub use self::create::Created;
use crate::EngineError;
use crate::actor::WorkloadActor;
use crate::command::Command;
use crate::dirs::{REMOVED, close_dir, entries};
use crate::exec::Execs;
use crate::network::Networks;
use crate::parts::Parts;
use crate::registry::Registry;
use crate::services::{EngineOptions, Services};
use crate::state_store::StateStore;
use crate::volume::Volumes;

/// A handle on the engine; clones are the same engine.
#[derive(Clone)]
pub struct Engine {
    pub(crate) parts: Arc<Parts>,
}

/// How long what was set aside before is cleared away until the engine starts. What is left of it then goes in the
/// background.
const CLEARED_AT_START: Duration = Duration::from_secs(5);

/// Notes on creates that are under way: the volumes of each that are its own.
const CREATING: &str = "creating";

/// Below the exec root: what the commands of builds are lent, and nobody else may read.
pub(crate) const SECRETS: &str = "secrets";

/// How often a whole copy of the database is written.
const BACKUP_EVERY: Duration = Duration::from_secs(3600);

impl Engine {
    /// Opens the engine: remembers, finds again what runs, clears away what nobody knows, restarts what its policy says.
    ///
    /// # Errors
    /// When the database, the folders or the networks cannot be used. A single workload that cannot be found again is
    /// recorded as ended, never an error.
    ///
    /// # Cancel safety
    /// None: actors that were started already keep the database. Await it to its end.
    pub async fn open(options: EngineOptions) -> Result<Self, EngineError> {
        let cleared_by = Instant::now() + CLEARED_AT_START;
        for folder in ["containers", "volumes"] {
            close_dir(&options.data_root.join(folder))?;
            let removed = options.data_root.join(folder).join(REMOVED);
            close_dir(&removed)?;
            // Before anything is to be remembered: a disk may be full of it. The folders themselves stay as marks until
            // it is forgotten what they were.
            for path in entries(&removed) {
                match removal::empty_tree_until(&path, cleared_by) {
                    Ok(true) => {}
                    // Whatever was running has its say first; `remove_orphans` goes on.
                    Ok(false) => tracing::warn!(path = %path.display(), "a removal that was cut short takes long"),
                    Err(error) => {
                        tracing::warn!(path = %path.display(), %error, "a removal that was cut short could not be completed");
                    }
                }
            }
        }
        close_dir(&options.data_root.join(CREATING))?;
        close_dir(&options.exec_root.join("c"))?;
        // What an earlier engine lent to the commands of its builds: they have ended with it.
        let secrets = options.exec_root.join(SECRETS);
        close_dir(&secrets)?;
        for left in entries(&secrets) {
            let gone = if left.is_dir() { std::fs::remove_dir_all(&left) } else { std::fs::remove_file(&left) };
            gone.map_err(|source| EngineError::File { path: left, source })?;
        }
        let store = StateStore::open(&options.data_root)?;
        let known = store.volumes()?;
        let services = Arc::new(Services::new(options, store));
        let parts = Parts {
            networks: Arc::new(Networks::new(Arc::clone(&services))),
            volumes: Arc::new(Volumes::new(Arc::clone(&services), known)),
            execs: Arc::new(Execs::new(Arc::clone(&services))),
            services,
        };
        let engine = Self { parts: Arc::new(parts) };
        engine.recover().await?;
        let kept = Arc::clone(engine.services());
        engine.services().tasks.spawn(async move {
            let mut interval = tokio::time::interval(BACKUP_EVERY);
            loop {
                interval.tick().await;
                let images = kept.images().clone();
                if let Ok(Err(error)) = tokio::task::spawn_blocking(move || images.back_up()).await {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "no copy of the image database could be made"
                    );
                }
                if let Err(error) = kept.store.back_up().await {
                    tracing::warn!(error = &error as &dyn std::error::Error, "no copy of the database could be made");
                }
            }
        });
        Ok(engine)
    }

    /// Ends the engine's own tasks. Workloads go on running and are found again by the next engine.
    ///
    /// # Cancel safety
    /// Tasks are told to end at the first poll; a dropped future does not wait for them, and leaves the networks as they are.
    pub async fn close(&self) {
        let services = self.services();
        // Watchers of workloads wait for ends that may never come: they are dropped with the runtime.
        services.tasks.close(Duration::from_secs(2)).await;
        // With nothing running, nothing of ours need stay on the machine; the next engine makes it again.
        let idle = services.registry.handles().iter().all(|handle| handle.workload().is_none());
        if !idle {
            return;
        }
        if let Err(error) = services.net().clear().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the networks could not be cleared away");
        }
        for executor in &services.options.executors {
            executor.close();
        }
    }

    fn spawn_actor(&self, owner: WorkloadActor, commands: tokio::sync::mpsc::Receiver<Command>) {
        let tasks = &self.services().tasks;
        tasks.spawn_own(owner.run(commands, tasks.cancel()));
    }

    /// The images that workloads are made from.
    pub fn images(&self) -> &ImageStore {
        self.services().images()
    }

    /// What marks everything of this engine on the machine: eight hexadecimal digits.
    pub fn instance(&self) -> &str {
        &self.services().options.instance
    }

    /// Absolute path of the folder that everything remembered is in.
    pub fn data_root(&self) -> &Path {
        self.services().data_root()
    }

    fn services(&self) -> &Arc<Services> {
        &self.parts.services
    }

    fn registry(&self) -> &Arc<Registry> {
        &self.parts.services.registry
    }
}
