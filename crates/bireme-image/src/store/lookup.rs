//! Finding stored images, and what is told of them.

use std::collections::BTreeMap;

use super::{ImageStore, Inner};
use crate::blocking::blocking;
use crate::db::time;
use crate::digest::ImageId;
use crate::error::ImageError;
use crate::model::{Image, ImageSummary};
use crate::platform::Platform;
use crate::record::Record;
use crate::reference::{Reference, ReferenceError};

impl ImageStore {
    /// Finds one image by reference, ID, prefix of an ID, or digest.
    ///
    /// With `platform` `None`, a name that has several platforms means Linux on this machine, else `wasi/wasm`, else
    /// whatever it has.
    ///
    /// # Errors
    /// `NotFound`, `NoPlatform`, `Ambiguous`, `Reference`.
    pub async fn resolve(&self, name: &str, platform: Option<&Platform>) -> Result<Image, ImageError> {
        let id = self.inner.find(name, platform)?;
        self.image(&id)
    }

    /// The image of that ID.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn image(&self, id: &ImageId) -> Result<Image, ImageError> {
        let record = self.inner.record(id)?;
        self.inner.image(record)
    }

    /// How many images there are.
    ///
    /// # Errors
    /// `Database`.
    pub fn count(&self) -> Result<usize, ImageError> {
        Ok(self.inner.db.ids()?.len())
    }

    /// All images, the newest first. One that cannot be read costs no other its place.
    ///
    /// # Errors
    /// `Database`.
    pub async fn list(&self) -> Result<Vec<ImageSummary>, ImageError> {
        let inner = self.inner.clone();
        // Each is read whole, and there may be many.
        blocking("list images", move || {
            let mut images = Vec::new();
            for id in inner.db.ids()? {
                let read = inner.db.record(&id).and_then(|found| found.map(|record| inner.image(record)).transpose());
                let image = match read {
                    Ok(Some(image)) => image,
                    Ok(None) => continue,
                    Err(error) => {
                        tracing::warn!(image = %id, error = &error as &dyn std::error::Error, "an image cannot be read");
                        continue;
                    }
                };
                images.push(ImageSummary {
                    kind: image.kind(),
                    id: image.id,
                    references: image.references,
                    repo_digests: image.repo_digests,
                    created: image.created,
                    size: image.size,
                    platform: image.platform,
                    labels: image.config.labels,
                });
            }
            images.sort_by(|one, other| other.created.cmp(&one.created).then_with(|| one.id.cmp(&other.id)));
            Ok(images)
        })
        .await
    }
}

impl Inner {
    /// Notes that an image was used, if that can be: it is no reason to refuse what it is used for.
    pub(crate) fn touch(&self, image: &ImageId) {
        if let Err(error) = self.db.touch(image) {
            tracing::debug!(%image, error = &error as &dyn std::error::Error, "the use of an image is not noted");
        }
    }

    pub(crate) fn record(&self, id: &ImageId) -> Result<Record, ImageError> {
        self.db.record(id)?.ok_or_else(|| ImageError::NotFound { name: id.to_string() })
    }

    pub(crate) fn find(&self, name: &str, platform: Option<&Platform>) -> Result<ImageId, ImageError> {
        // Docker names what it looked for in full: `busybox` is `busybox:latest`.
        let absent = || ImageError::NotFound {
            name: Reference::parse(name).map_or_else(|_| name.to_owned(), |reference| reference.familiar()),
        };
        let candidates = self.candidates(name)?;
        if let Some(wanted) = platform {
            let found = candidates.iter().find(|(own, _)| own.serves(wanted));
            return match found {
                Some((_, id)) => Ok(id.clone()),
                None if candidates.is_empty() => Err(absent()),
                None => Err(ImageError::NoPlatform {
                    name: name.to_owned(),
                    wanted: wanted.clone(),
                    offered: offered(candidates.iter().map(|(own, _)| own)),
                }),
            };
        }
        [Platform::host(), Platform::wasm()]
            .iter()
            .find_map(|wanted| candidates.iter().find(|(own, _)| own.serves(wanted)))
            .or(candidates.first())
            .map(|(_, id)| id.clone())
            .ok_or_else(absent)
    }

    fn candidates(&self, name: &str) -> Result<Vec<(Platform, ImageId)>, ImageError> {
        let digits = name.strip_prefix("sha256:").unwrap_or(name);
        let is_hex =
            (1..=64).contains(&digits.len()) && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !(name.starts_with("sha256:") || is_hex && digits.len() == 64) {
            let reference = match Reference::parse(name) {
                Ok(reference) => reference,
                Err(_) if name.is_empty() => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            };
            let found = self.db.by_name(&reference)?;
            if !found.is_empty() || !is_hex {
                return Ok(found);
            }
        }
        if !is_hex {
            return Err(ReferenceError::Format.into());
        }
        let found = self.db.by_prefix(digits)?;
        if found.len() > 1 {
            return Err(ImageError::Ambiguous { prefix: name.to_owned() });
        }
        Ok(found)
    }

    pub(crate) fn image(&self, record: Record) -> Result<Image, ImageError> {
        let config = record.config_file()?;
        let names = self.db.names(&record.id)?;
        let mut layer_sizes = Vec::with_capacity(record.layers.len());
        for layer in &record.layers {
            layer_sizes.push(self.db.unpacked(&layer.diff_id)?.unwrap_or(layer.blob.size));
        }
        Ok(Image {
            last_tagged: names.iter().map(|(_, tagged)| *tagged).max().and_then(time),
            references: names.iter().map(|(name, _)| familiar(name)).collect(),
            repo_digests: self.db.repo_digests(&record.id)?.iter().map(|name| familiar(name)).collect(),
            created: config.created,
            size: layer_sizes.iter().sum(),
            platform: record.platform,
            config: config.config,
            author: config.author,
            comment: config.comment,
            history: config.history,
            layer_sizes,
            diff_ids: record.layers.into_iter().map(|layer| layer.diff_id).collect(),
            artifact_type: record.artifact_type,
            id: record.id,
        })
    }
}

/// A complete name in the form Docker shows.
pub(crate) fn familiar(name: &str) -> String {
    Reference::parse(name).map_or_else(|_| name.to_owned(), |reference| reference.familiar())
}

/// Platforms as a list for a sentence.
pub(crate) fn offered<'a>(platforms: impl Iterator<Item = &'a Platform>) -> String {
    let mut seen = BTreeMap::new();
    for platform in platforms {
        seen.insert(platform.to_string(), ());
    }
    let more = seen.len().saturating_sub(OFFERED);
    let names: Vec<String> = seen.into_keys().take(OFFERED).collect();
    match (names.is_empty(), more) {
        (true, _) => "none".to_owned(),
        (false, 0) => names.join(", "),
        (false, more) => format!("{} and {more} more", names.join(", ")),
    }
}

/// Platforms that are named in an error. An index of some megabytes has tens of thousands.
const OFFERED: usize = 30;
