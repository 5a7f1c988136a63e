//! What all parts of one build share: its request, what it is made from, what it tells, and what it holds on to.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bireme_core::ignore::Ignore;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::cache::{Cache, USING};
use super::cached::Imported;
use super::request::BuildRequest;
use super::source::{BuildSources, Files};
use super::stage::Stage;
use super::style::BuildStyle;
use crate::auth::RegistryAuth;
use crate::digest::{Digest, ImageId};
use crate::error::ImageError;
use crate::events::{BuildEvent, OnBuildEvent, StepId};
use crate::guard::GcGuard;
use crate::made::NewLayer;
use crate::model::CacheKind;
use crate::record::{Layer, Record};
use crate::store::ImageStore;

/// One build under way, whatever it is built for.
pub(super) struct Shared<'a> {
    pub(super) store: &'a ImageStore,
    pub(super) request: &'a BuildRequest,
    pub(super) sources: &'a dyn BuildSources,
    /// What COPY and ADD do not see of the main context, and what of it is enough; set before the first asks for it.
    pub(super) hidden: OnceLock<(Arc<Ignore>, Option<Vec<String>>)>,
    pub(super) cache: Cache,
    /// Keeps layers until the build is recorded.
    pub(super) claims: Mutex<Vec<GcGuard>>,
    pub(super) log: OnBuildEvent<'a>,
    /// Steps begun, for their names.
    number: AtomicUsize,
    /// Steps told to clients of the classic builder, and how many there will be.
    told: AtomicUsize,
    steps: AtomicUsize,
    pub(super) contexts: Mutex<HashMap<String, Arc<OnceCell<Context>>>>,
    /// The steps of base images: stages on the same one share it.
    pub(super) bases: Mutex<HashMap<String, StepId>>,
    /// What steps made in builds elsewhere, by their keys.
    pub(super) imported: Mutex<HashMap<Digest, Imported>>,
    /// Caches of commands that this build has begun anew.
    renewed: Mutex<HashMap<String, Arc<OnceCell<()>>>>,
    /// Layers that were made in this very build, by the key of their step: whoever asks for no cache has each step done once.
    done: Mutex<HashMap<Digest, Option<Layer>>>,
}

/// A context that has arrived.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) files: Files,
    pub(super) step: StepId,
}

impl<'a> Shared<'a> {
    pub(super) fn new(
        store: &'a ImageStore,
        request: &'a BuildRequest,
        sources: &'a dyn BuildSources,
        log: OnBuildEvent<'a>,
    ) -> Result<Self, ImageError> {
        Ok(Self {
            store,
            request,
            sources,
            hidden: OnceLock::new(),
            cache: Cache::open(store, request)?,
            claims: Mutex::default(),
            log,
            number: AtomicUsize::new(0),
            told: AtomicUsize::new(0),
            steps: AtomicUsize::new(0),
            contexts: Mutex::default(),
            bases: Mutex::default(),
            imported: Mutex::default(),
            renewed: Mutex::default(),
            done: Mutex::default(),
        })
    }

    /// Says what of the main context is hidden, and which paths of it are enough; `None` is all of it.
    pub(super) fn hide(&self, ignore: Ignore, enough: Option<Vec<String>>) {
        let _ = self.hidden.set((Arc::new(ignore), enough));
    }

    /// What COPY and ADD do not see of the main context.
    pub(super) fn ignore(&self) -> Arc<Ignore> {
        self.hidden.get().map(|(ignore, _)| Arc::clone(ignore)).unwrap_or_default()
    }

    /// Has a cache of commands begin anew, once in this build, unless another build has it in its hands.
    pub(super) async fn renew_cache(&self, key: &str) -> Result<(), ImageError> {
        let cell = Arc::clone(self.renewed.lock().entry(key.to_owned()).or_default());
        cell.get_or_try_init(|| self.store.renew_folder(CacheKind::Mount, key)).await.copied()
    }

    /// What keeps the layers of all stages there.
    pub(super) fn into_claims(self) -> Vec<GcGuard> {
        self.claims.into_inner()
    }

    pub(super) fn tells_steps(&self) -> bool {
        self.request.style == BuildStyle::Steps
    }

    pub(super) fn next_number(&self) -> usize {
        self.number.fetch_add(1, Ordering::Relaxed)
    }

    /// Says something to a client that has no steps to look at.
    pub(super) fn say(&self, text: impl Into<String>) {
        if !self.tells_steps() {
            (self.log)(BuildEvent::Stream(text.into()));
        }
    }

    /// How many instructions there will be.
    pub(super) fn expect(&self, steps: usize) {
        self.steps.store(steps, Ordering::Relaxed);
    }

    /// Says which instruction is next.
    pub(super) fn announce(&self, text: &str) {
        let step = self.told.fetch_add(1, Ordering::Relaxed) + 1;
        self.say(format!("Step {step}/{} : {text}\n", self.steps.load(Ordering::Relaxed)));
    }

    /// Prints what stands for the state of a stage, as Docker does after each step.
    pub(super) fn show(&self, stage: &Stage) -> Result<(), ImageError> {
        if !self.tells_steps() {
            self.say(format!(" ---> {}\n", stage.digest()?.short()));
        }
        Ok(())
    }

    /// Says whether an earlier build came to the state of a stage, where steps have no keys; it is known from now on.
    pub(super) fn note_known(&self, stage: &Stage) -> Result<(), ImageError> {
        if !self.tells_steps() && self.cache.knows(&self.store.inner, stage)? {
            self.say(USING);
        }
        Ok(())
    }

    /// Keeps a layer until the build is recorded. To be called before looking whether its files are there.
    pub(super) fn claim(&self, layer: &Layer) {
        let mut claim = GcGuard::new(&self.store.inner);
        claim.both(layer);
        self.claims.lock().push(claim);
    }

    /// Puts a new layer into the store, and keeps it until the build is recorded.
    pub(super) async fn import(&self, new: NewLayer) -> Result<Layer, ImageError> {
        let mut claim = GcGuard::new(&self.store.inner);
        let layer = self.store.import(new, &mut claim).await?;
        self.claims.lock().push(claim);
        Ok(layer)
    }

    /// What a registry is shown: what the request has for it, else what the client has.
    pub(super) async fn auth(&self, registry: &str) -> Result<Option<RegistryAuth>, ImageError> {
        match self.request.auth.get(registry) {
            Some(auth) => Ok(Some(auth.clone())),
            None => self.sources.credentials(registry).await,
        }
    }

    /// An image whose layers stay until the build is over, whoever removes it meanwhile.
    pub(super) fn hold(&self, id: &ImageId) -> Result<Record, ImageError> {
        let record = self.store.inner.record(id)?;
        record.layers.iter().for_each(|layer| self.claim(layer));
        // It may have gone before they were claimed.
        self.store.inner.record(id)
    }

    pub(super) fn folders(&self, layers: &[Layer]) -> Vec<PathBuf> {
        layers.iter().map(|layer| self.store.inner.layer_path(&layer.diff_id)).collect()
    }

    /// What a step of this very build made.
    pub(super) fn done(&self, key: &Digest) -> Option<Option<Layer>> {
        self.done.lock().get(key).cloned()
    }

    pub(super) fn set_done(&self, key: &Digest, layer: Option<&Layer>) {
        self.done.lock().insert(key.clone(), layer.cloned());
    }
}
