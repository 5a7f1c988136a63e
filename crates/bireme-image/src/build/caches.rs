//! Steps that builds elsewhere carried out: read from registries and clients, and given away to them.
//!
//! A cache is an image of no use but this: its configuration says by which steps its layers were made, which
//! `bireme.build.cache.v0` is for. An image that was built with an inline cache says the same of its own layers.

use std::collections::HashSet;
use std::sync::Arc;

use super::cached::{CacheImport, Imported, Made};
use super::output::BuildOutput;
use super::shared::Shared;
use super::stage::Stage;
use super::step::Step;
use crate::auth::RegistryAuth;
use crate::content_store::ContentStore;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::events::OnProgress;
use crate::model::{ConfigFile, Descriptor};
use crate::platform::Platform;
use crate::pull::{Origin, described};
use crate::push::{Packing, PushRequest};
use crate::record::{Layer, MAX_LAYERS, Record};
use crate::reference::Reference;
use crate::registry::Sources;

/// Which steps a cache has that is given away: `mode=` of `--cache-to`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheMode {
    /// Those of the images that were built.
    #[default]
    Min,
    /// Those of all stages.
    Max,
}

/// A cache as it was given away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportedCache {
    /// Of its manifest.
    pub media_type: String,
    /// Of its manifest.
    pub digest: Digest,
    /// Bytes of its manifest.
    pub size: u64,
}

impl From<Descriptor> for ExportedCache {
    fn from(Descriptor { media_type, digest, size }: Descriptor) -> Self {
        Self { media_type, digest, size }
    }
}

impl<'a> Shared<'a> {
    /// Reads by which steps the caches that are named were made. One that cannot be had is no help, and no failure.
    pub(super) async fn import_caches(&'a self) {
        for import in &self.request.cache_imports {
            let name = match import {
                CacheImport::Registry(name) | CacheImport::Client { name, .. } => name,
            };
            let step = Step::begin(self, format!("importing cache manifest from {name}"), Vec::new(), None);
            let imported = self.import_cache(import).await;
            let _ = step.ended_by(imported);
        }
    }

    async fn import_cache(&self, import: &CacheImport) -> Result<(), ImageError> {
        let (origin, name, version) = match import {
            CacheImport::Registry(name) => {
                let reference = Reference::parse(name)?;
                let auth = self.auth(reference.registry()).await?;
                let sources = Sources::of(&self.store.inner.settings, &reference, auth.as_ref())?;
                (Origin::Registry(sources), reference.familiar(), reference.version().to_owned())
            }
            CacheImport::Client { name, store, digest } => {
                (Origin::Client(Arc::clone(store)), name.clone(), digest.clone())
            }
        };
        let origin = Arc::new(origin);
        // An image has its own steps on each platform.
        let platforms: Vec<Option<&Platform>> = match &self.request.platforms[..] {
            [] => vec![None],
            platforms => platforms.iter().map(Some).collect(),
        };
        let (mut found, mut failed) = (false, None);
        for platform in platforms {
            match described(&origin, &name, &version, platform).await {
                Ok((record, _, index)) => {
                    self.take_steps(&record, Some(&origin))?;
                    found = true;
                    // What is no index is the same for every platform.
                    if index.is_none() {
                        break;
                    }
                }
                // What is stored here of that name has to do then; the names of a client's folders are of no images.
                Err(error) => match (import, self.store.inner.find(&name, platform)) {
                    (CacheImport::Registry(_), Ok(id)) => {
                        self.take_steps(&self.hold(&id)?, None)?;
                        found = true;
                    }
                    _ => failed = Some(error),
                },
            }
        }
        match failed {
            Some(error) if !found => Err(error),
            _ => Ok(()),
        }
    }

    fn take_steps(&self, record: &Record, origin: Option<&Arc<Origin>>) -> Result<(), ImageError> {
        let mut imported = self.imported.lock();
        for (key, layer) in record.config_file()?.steps {
            let layer = match layer {
                None => None,
                Some(at) => match record.layers.get(at) {
                    Some(layer) => Some(layer.clone()),
                    // A layer that it does not have says nothing.
                    None => continue,
                },
            };
            imported.insert(key, Imported { layer, origin: origin.cloned() });
        }
        Ok(())
    }

    /// What a step made elsewhere, its layer fetched; `None` if that is not known, or cannot be had.
    pub(super) async fn imported(&self, key: &Digest) -> Option<Option<Layer>> {
        let Imported { layer, origin } = self.imported.lock().get(key).cloned()?;
        let (Some(layer), Some(origin)) = (&layer, &origin) else { return Some(layer) };
        self.claim(layer);
        match self.store.fetch_layer(origin, layer, false, true, &|_| {}).await {
            Ok(()) => Some(Some(layer.clone())),
            Err(error) => {
                tracing::warn!(layer = layer.diff_id.short(), %error, "a layer of an imported cache could not be fetched");
                None
            }
        }
    }
}

impl BuildOutput {
    /// Sends its steps to a registry, as a cache of that name.
    ///
    /// # Errors
    /// What pushing an image gives.
    /// # Cancel safety
    /// Dropping the future leaves the tag at the registry as it was.
    pub async fn push_cache(
        &self,
        name: Reference,
        mode: CacheMode,
        packing: Packing,
        auth: Option<RegistryAuth>,
        progress: OnProgress<'_>,
    ) -> Result<ExportedCache, ImageError> {
        let record = self.cache(mode)?;
        let request = PushRequest { packing, auth, ..PushRequest::new(name) };
        self.store.push_record(&request, &record, progress).await.map(ExportedCache::from)
    }

    /// Writes its steps to a client's content store, as a cache.
    ///
    /// # Errors
    /// What reading layers gives, and what the client answers.
    /// # Cancel safety
    /// Dropping the future leaves no manifest, and maybe layers.
    pub async fn write_cache(
        &self,
        to: &dyn ContentStore,
        mode: CacheMode,
        packing: Packing,
    ) -> Result<ExportedCache, ImageError> {
        let record = self.cache(mode)?;
        self.store.write_record(to, &record, packing).await.map(ExportedCache::from)
    }

    /// The image that a cache is.
    fn cache(&self, mode: CacheMode) -> Result<Record, ImageError> {
        let own = self.stages.iter().flat_map(Stage::made);
        let others = self.steps.iter().filter(|_| mode == CacheMode::Max).cloned();
        cache_image(own.chain(others))
    }
}

/// An image with the layers of these steps, as far as one image can have them.
fn cache_image(steps: impl Iterator<Item = Made>) -> Result<Record, ImageError> {
    let mut image = Stage::new(ConfigFile::empty(Platform::host()), Vec::new());
    let mut seen = HashSet::new();
    for (key, layer) in steps {
        if !seen.insert(key.clone()) {
            continue;
        }
        let place = match layer {
            None => None,
            Some(layer) => match image.layers.iter().position(|other| other.diff_id == layer.diff_id) {
                Some(at) => Some(at),
                None if image.layers.len() == MAX_LAYERS => continue,
                None => {
                    image.push(layer);
                    Some(image.layers.len() - 1)
                }
            },
        };
        image.config.steps.push((key, place));
    }
    image.record()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_has_each_step_and_each_layer_once_and_no_more_than_an_image_may() {
        let digest = |text: &str| Digest::of(text.as_bytes());
        let layer = |text: &str| Some(Layer::plain(digest(text), 1));
        let steps = [("a", layer("x")), ("b", None), ("a", layer("y")), ("c", layer("x")), ("d", layer("z"))];
        let steps = steps.map(|(key, layer)| (digest(key), layer));
        let image = cache_image(steps.into_iter()).unwrap();
        let config = image.config_file().unwrap();
        assert_eq!(config.rootfs.diff_ids, [digest("x"), digest("z")]);
        let places = [("a", Some(0)), ("b", None), ("c", Some(0)), ("d", Some(1))];
        assert_eq!(config.steps, places.map(|(key, place)| (digest(key), place)));

        let many = (0..2 * MAX_LAYERS).map(|at| (digest(&format!("key {at}")), layer(&at.to_string())));
        let image = cache_image(many).unwrap();
        assert_eq!((image.layers.len(), image.config_file().unwrap().steps.len()), (MAX_LAYERS, MAX_LAYERS));
    }
}
