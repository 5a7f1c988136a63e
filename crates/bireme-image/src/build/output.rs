//! What a build came to, before anything is made of it: images that are not recorded yet.

use std::fmt;
use std::path::PathBuf;

use chrono::{DateTime, Utc};

use super::annotations::{Annotations, annotated};
use super::cached::Made;
use super::rewrite;
use super::stage::Stage;
use crate::admit::Candidate;
use crate::blocking::blocking;
use crate::component::is_wasm;
use crate::digest::{Digest, ImageId};
use crate::error::ImageError;
use crate::guard::GcGuard;
use crate::model::ImageConfig;
use crate::platform::Platform;
use crate::record::{Layer, Record};
use crate::reference::Reference;
use crate::store::ImageStore;

/// What a build came to: an image for each platform that it was built for. Its layers stay as long as this does.
pub struct BuildOutput {
    pub(super) store: ImageStore,
    pub(super) stages: Vec<Stage>,
    /// The steps of all stages, those that these are made from among them.
    pub(super) steps: Vec<Made>,
    /// Keeps the layers there.
    pub(super) _claims: Vec<GcGuard>,
    /// What each was asked for, if anything was.
    pub(super) asked: Vec<Option<Platform>>,
    /// The time of the images.
    pub(super) made: DateTime<Utc>,
    /// By which steps they were made is written into the images.
    pub(super) inline_cache: bool,
    pub(super) annotations: Annotations,
    /// Nothing that is stored takes the place of an image with other times.
    pub(super) no_cache: bool,
    pub(super) epoch: Option<DateTime<Utc>>,
}

impl fmt::Debug for BuildOutput {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "BuildOutput for {} platforms", self.stages.len())
    }
}

/// One image of a build as it was recorded.
#[derive(Clone, Debug)]
pub struct BuiltImage {
    /// Of its configuration.
    pub id: ImageId,
    /// What it was built for.
    pub platform: Platform,
    /// Of its manifest.
    pub manifest: Digest,
}

impl BuildOutput {
    /// What it was built for, in order.
    pub fn platforms(&self) -> Vec<Platform> {
        let own = self.stages.iter().map(|stage| stage.config.platform());
        own.zip(&self.asked).map(|(own, asked)| asked.clone().unwrap_or(own)).collect()
    }

    /// The configuration of the image for that platform, or of the first.
    pub fn config(&self, platform: Option<&Platform>) -> Option<&ImageConfig> {
        self.stage(platform).map(|stage| &stage.config.config)
    }

    /// The configuration of the image for that platform as it will be recorded, its times apart.
    ///
    /// # Errors
    /// When it has grown too large; when there is none for it.
    pub fn config_json(&self, platform: &Platform) -> Result<Vec<u8>, ImageError> {
        match self.stage(Some(platform)) {
            Some(stage) => Ok(self.finished(stage)?.config),
            None => Err(ImageError::NothingBuilt),
        }
    }

    /// The same, its files given no later time than the build's own; as it is where the build has none.
    ///
    /// # Errors
    /// What reading and writing layers gives.
    /// # Cancel safety
    /// Dropping the future deletes what was made.
    pub async fn with_clamped_times(&self) -> Result<Self, ImageError> {
        let mut clamped = self.again();
        if let Some(epoch) = self.epoch.and_then(|epoch| u64::try_from(epoch.timestamp()).ok()) {
            for stage in &mut clamped.stages {
                clamped._claims.push(rewrite::clamp(&self.store, stage, epoch).await?);
            }
        }
        Ok(clamped)
    }

    /// The same, with what it was made by written into its images.
    #[must_use]
    pub fn with_inline_cache(&self) -> Self {
        Self { inline_cache: true, ..self.again() }
    }

    /// The same, with claims of its own.
    pub(super) fn again(&self) -> Self {
        Self {
            store: self.store.clone(),
            stages: self.stages.clone(),
            steps: self.steps.clone(),
            _claims: self.claims(),
            asked: self.asked.clone(),
            made: self.made,
            inline_cache: self.inline_cache,
            no_cache: self.no_cache,
            annotations: self.annotations.clone(),
            epoch: self.epoch,
        }
    }

    pub(super) fn stage(&self, platform: Option<&Platform>) -> Option<&Stage> {
        let Some(platform) = platform else { return self.stages.first() };
        let asked = self.asked.iter().position(|asked| asked.as_ref() == Some(platform));
        let serves = || self.stages.iter().position(|stage| stage.config.platform().serves(platform));
        self.stages.get(asked.or_else(serves)?)
    }

    pub(super) fn folders(&self, stage: &Stage) -> Vec<PathBuf> {
        stage.layers.iter().map(|layer| self.store.inner.layer_path(&layer.diff_id)).collect()
    }

    /// Keeps its layers for another build.
    pub(super) fn claims(&self) -> Vec<GcGuard> {
        let mut claim = GcGuard::new(&self.store.inner);
        let of_steps = self.steps.iter().filter_map(|(_, layer)| layer.as_ref());
        let layers = self.stages.iter().flat_map(|stage| &stage.layers).chain(of_steps);
        layers.for_each(|layer: &Layer| claim.both(layer));
        vec![claim]
    }

    /// Records its images and gives them names: each name stands for all of them. Answers them in the order of platforms.
    ///
    /// # Errors
    /// What recording refuses; nothing is recorded then.
    /// # Cancel safety
    /// Once begun it is completed.
    pub async fn record(&self, names: &[Reference]) -> Result<Vec<BuiltImage>, ImageError> {
        let inner = &self.store.inner;
        let mut candidates = Vec::new();
        let mut built = Vec::new();
        for stage in &self.stages {
            let key = stage.digest()?;
            let stored = if self.no_cache || self.is_own() { None } else { inner.db.built(&key)? };
            let record = match stored.and_then(|id| inner.record(&id).ok()) {
                Some(record) => record,
                None => self.finished(stage)?,
            };
            built.push((
                key,
                BuiltImage {
                    id: record.id.clone(),
                    platform: record.platform.clone(),
                    manifest: Digest::of(&record.manifest),
                },
            ));
            candidates.push(Candidate { record, names: names.iter().map(|name| (name.clone(), None)).collect() });
        }
        let mut claim = GcGuard::new(inner);
        let annotated: Vec<Record> = match self.annotations.is_empty() {
            true => Vec::new(),
            false => candidates.iter().map(|candidate| candidate.record.clone()).collect(),
        };
        self.store.admit(candidates, &mut claim).await?;
        // The same image may have been here before, and have said less.
        for record in annotated {
            inner.db.set_manifest(&record)?;
        }
        for (key, image) in built.iter().filter(|_| !self.is_own()) {
            inner.db.set_built(key, &image.id)?;
        }
        Ok(built.into_iter().map(|(_, image)| image).collect())
    }

    /// Whether its images are those of no other build: they have times of their own, or say what others do not.
    fn is_own(&self) -> bool {
        self.inline_cache || self.epoch.is_some() || !self.annotations.is_empty()
    }

    /// The image with its times.
    pub(super) fn finished(&self, stage: &Stage) -> Result<Record, ImageError> {
        let mut stage = stage.clone();
        if self.inline_cache {
            stage.config.steps.clone_from(&stage.keys);
        }
        stage.config.created = Some(self.made);
        for step in &mut stage.config.history {
            step.created.get_or_insert(self.made);
        }
        let mut record = stage.record()?;
        record.manifest = annotated(record.manifest, &self.annotations.of_manifest(&record.platform))?;
        Ok(record)
    }
}

/// An image that nobody gave a platform is known by what it starts: a component makes it one of components. Answers its
/// program then.
pub(super) async fn recognise(store: &ImageStore, stage: &mut Stage) -> Result<Option<String>, ImageError> {
    let config = &stage.config.config;
    let program = [&config.entrypoint, &config.cmd].into_iter().flatten().flatten().next().cloned();
    let (true, Some(program)) = (stage.assumed, program) else { return Ok(None) };
    let folders: Vec<PathBuf> = stage.layers.iter().map(|layer| store.inner.layer_path(&layer.diff_id)).collect();
    let (working_dir, name) = (config.working_dir.clone(), program.clone());
    let found = blocking("look at the program of an image", move || Ok(is_wasm(&folders, &working_dir, &name))).await?;
    if found {
        stage.make_component();
    }
    Ok(found.then_some(program))
}
