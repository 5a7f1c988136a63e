//! What earlier builds did and need not be done again.
//!
//! A step is known by what determines what it makes: a command by its words and arguments, and by the layers and the
//! settings that it finds, for what it makes cannot be foretold; files by their content, for their times do not matter.
//! Where it stands in a Dockerfile does not matter, nor what the image says of itself besides.

use super::request::BuildRequest;
use super::stage::Stage;
use super::style::BuildStyle;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::guard::GcGuard;
use crate::model::{CacheKind, CacheRecord, ConfigFile};
use crate::record::Layer;
use crate::store::{ImageStore, Inner};

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
        // Builds that are told by steps go by keys, which images carry.
        if request.cache_from.is_empty() || request.style == BuildStyle::Steps {
            return Ok(Self::Own);
        }
        let mut images = Vec::new();
        for name in &request.cache_from {
            // As in Docker, an image that is not here is no help and no error.
            let Ok(id) = store.inner.find(name, request.platforms.first()) else { continue };
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
            inner.db.set_step(&key, None, "")?;
        }
        Ok(known)
    }

    /// What a step made in an earlier build: `Some(None)` is nothing.
    pub(super) fn find(
        &self,
        inner: &Inner,
        stage: &Stage,
        key: &Digest,
        created_by: &str,
    ) -> Result<Option<Option<Layer>>, ImageError> {
        Ok(match self {
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
        })
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
    /// What the cache of builds holds: layers, the longest unused first, then folders.
    ///
    /// # Errors
    /// `Database`.
    pub async fn build_cache(&self) -> Result<Vec<CacheRecord>, ImageError> {
        let mut records = self.inner.db.cached()?;
        records.extend(self.measured(self.kept_folders()?).await?);
        Ok(records)
    }

    /// Forgets steps of builds last used before `until`, in milliseconds since the Unix epoch, and removes folders that
    /// nobody has; with `chosen`, those alone that it chooses, which is not told the sizes of folders. Answers what was
    /// cleared away; layers that images have stay, as theirs.
    ///
    /// # Errors
    /// `Database`; what was forgotten by then stays so.
    /// # Cancel safety
    /// Dropped, it leaves what it has not come to; files are deleted afterwards.
    pub async fn clear_build_cache(
        &self,
        until: Option<i64>,
        chosen: Option<&(dyn Fn(&CacheRecord) -> bool + Sync)>,
    ) -> Result<Vec<CacheRecord>, ImageError> {
        let mut claim = GcGuard::new(&self.inner);
        let mut records = self.inner.db.cached()?;
        records.extend(self.kept_folders()?);
        let old = |record: &CacheRecord| until.is_none_or(|until| record.last_used < until);
        records.retain(|record| old(record) && chosen.is_none_or(|chosen| chosen(record)));
        if chosen.is_none() {
            self.inner.db.forget_steps(until)?;
        }
        let mut cleared = Vec::new();
        for record in records {
            if record.kind != CacheKind::Layer {
                if let Some(size) = self.remove_folder(&record.id).await? {
                    cleared.push(CacheRecord { size, ..record });
                }
                continue;
            }
            let Ok(diff_id) = format!("sha256:{}", record.id).parse::<Digest>() else { continue };
            self.inner.db.forget_steps_of(&diff_id)?;
            // Dropping the claim deletes what nothing else needs.
            claim.blob(&diff_id);
            claim.layer(&diff_id);
            cleared.push(record);
        }
        Ok(cleared)
    }
}
