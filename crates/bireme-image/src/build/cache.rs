//! What earlier builds did and need not be done again.
//!
//! A step is known by a digest of the whole state it leads to, so that the same state is found however it was reached.
//! One that makes a layer is known by the state before it and what it is made of: a command by its words and arguments,
//! for what it makes cannot be foretold; files by their content, for their times do not matter.

use crate::digest::Digest;
use crate::error::ImageError;
use crate::guard::GcGuard;
use crate::model::{CachedLayer, ConfigFile};
use crate::record::Layer;
use crate::store::{ImageStore, Inner};

use super::request::BuildRequest;
use super::stage::Stage;

/// What Docker says of a step that was not carried out again.
pub(super) const USING: &str = " ---> Using cache\n";

/// Where steps may be taken from.
pub(super) enum Cache {
    Nowhere,
    /// Earlier builds of this store.
    Own,
    /// These images alone.
    Images(Vec<(ConfigFile, Vec<Layer>)>),
}

impl Cache {
    pub(super) fn open(store: &ImageStore, request: &BuildRequest) -> Result<Self, ImageError> {
        if request.no_cache {
            return Ok(Self::Nowhere);
        }
        if request.cache_from.is_empty() {
            return Ok(Self::Own);
        }
        let mut images = Vec::new();
        for name in &request.cache_from {
            // As in Docker, an image that is not here is no help and no error.
            let Ok(id) = store.inner.find(name, request.platform.as_ref()) else { continue };
            let record = store.inner.record(&id)?;
            if record.artifact_type.is_none() {
                images.push((record.config_file()?, record.layers));
            }
        }
        Ok(Self::Images(images))
    }

    /// Whether the state was reached before; it is from now on.
    pub(super) fn knows(&self, inner: &Inner, stage: &Stage) -> Result<bool, ImageError> {
        let key = stage.digest()?;
        let known = match self {
            Self::Nowhere => false,
            Self::Own => inner.db.step(&key)?.is_some(),
            Self::Images(images) => images.iter().any(|(image, _)| begins_with(image, stage)),
        };
        if !known {
            inner.db.set_step(&key, None)?;
        }
        Ok(known)
    }

    /// What a step made when it was carried out on this state before: `Some(None)` when it changed nothing.
    pub(super) fn made(
        &self,
        inner: &Inner,
        stage: &Stage,
        key: &Digest,
        created_by: &str,
        claim: &mut GcGuard,
    ) -> Result<Option<Option<Layer>>, ImageError> {
        let found = match self {
            Self::Nowhere => None,
            Self::Own => inner.db.step(key)?,
            Self::Images(images) => {
                images.iter().filter(|(image, _)| begins_with(image, stage)).find_map(|(image, layers)| {
                    let next = image.history.get(stage.config.history.len())?;
                    let same = next.created_by.as_deref() == Some(created_by);
                    let layer = if next.empty_layer { None } else { Some(layers.get(stage.layers.len())?.clone()) };
                    same.then_some(layer)
                })
            }
        };
        if let Some(Some(layer)) = &found {
            claim.both(layer);
            // Pinned first, then looked for: it may have been cleared away meanwhile.
            if !inner.blob_path(&layer.blob.digest).is_file() {
                return Ok(None);
            }
        }
        Ok(found)
    }
}

/// Whether an image was built over this state.
fn begins_with(image: &ConfigFile, stage: &Stage) -> bool {
    let so_far = &stage.config;
    let same_steps = image.history.len() >= so_far.history.len()
        && image
            .history
            .iter()
            .zip(&so_far.history)
            .all(|(one, other)| (&one.created_by, one.empty_layer) == (&other.created_by, other.empty_layer));
    same_steps && image.rootfs.diff_ids.starts_with(&so_far.rootfs.diff_ids)
}

impl ImageStore {
    /// The layers that the cache of builds keeps, the longest unused first.
    ///
    /// # Errors
    /// `Database`.
    pub async fn build_cache(&self) -> Result<Vec<CachedLayer>, ImageError> {
        self.inner.db.cached()
    }

    /// Forgets steps of builds last used before `until`, in milliseconds since the Unix epoch; with `chosen`, those alone
    /// whose layer it chooses. Answers what was cleared away; layers that images have stay, as theirs.
    ///
    /// # Errors
    /// `Database`; what was forgotten by then stays so.
    /// # Cancel safety
    /// It waits for nothing, and is done with the first poll; files are deleted afterwards.
    pub async fn clear_build_cache(
        &self,
        until: Option<i64>,
        chosen: Option<&(dyn Fn(&CachedLayer) -> bool + Sync)>,
    ) -> Result<Vec<CachedLayer>, ImageError> {
        let mut claim = GcGuard::new(&self.inner);
        let old = |layer: &CachedLayer| until.is_none_or(|until| layer.last_used < until);
        let mut cleared = self.inner.db.cached()?;
        cleared.retain(|layer| old(layer) && chosen.is_none_or(|chosen| chosen(layer)));
        if chosen.is_none() {
            self.inner.db.forget_steps(until)?;
        }
        for layer in &cleared {
            self.inner.db.forget_steps_of(&layer.id)?;
            // Dropping the claim deletes what nothing else needs.
            claim.blob(&layer.id);
            claim.layer(&layer.id);
        }
        Ok(cleared)
    }
}
