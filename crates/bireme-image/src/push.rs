//! Pushing: layers that the registry lacks, then the configuration, then the manifest.
//!
//! A name with several platforms goes up as one index, so that one tag serves containers and components. Layers that
//! are stored as they are, because they were made here, are packed on the way; what they are packed to is remembered.

use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::json;
use tokio_util::io::ReaderStream;

use crate::auth::RegistryAuth;
use crate::digest::Digest;
use crate::error::{ImageError, StoreContext as _};
use crate::events::{OnProgress, Progress};
use crate::guard::GcGuard;
use crate::made::{self, NewLayer};
use crate::model::{Descriptor, Document, LayerForm, Manifest, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST};
use crate::record::{Layer, Record};
use crate::reference::Reference;
use crate::registry::{ATTEMPTS, Failure, Remote, back_off};
use crate::store::{ImageStore, Inner};
use crate::wanted::{Wanted, while_wanted};

/// Bytes between two progress lines of one layer.
const REPORT_EVERY: u64 = 512 << 10;
/// Layers on their way at once. Source: moby, `max-concurrent-uploads`.
const AT_ONCE: usize = 5;

/// A tag as its registry has it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Without the repository: `latest`.
    pub tag: String,
    /// Of the manifest or index.
    pub digest: Digest,
    /// Bytes of the manifest or index.
    pub size: u64,
}

/// A manifest as it was sent.
struct Sent {
    digest: Digest,
    size: u64,
    media_type: String,
}

impl ImageStore {
    /// Brings a name to its registry; with `all_tags`, every tag of its repository that is stored here. Each is told to
    /// `done` when the registry has it.
    ///
    /// # Errors
    /// `NotFound` when nothing of that name is stored; `Unauthorized`, `PullDenied`; `Registry` after all retries. Layers
    /// that arrived stay with the registry.
    /// # Cancel safety
    /// Dropping the future leaves the tag at the registry as it was.
    ///
    /// Source: Docker Engine API, `ImagePush`; OCI distribution specification, "Push".
    pub async fn push(
        &self,
        name: &Reference,
        all_tags: bool,
        auth: Option<RegistryAuth>,
        progress: OnProgress<'_>,
        done: &(dyn Fn(&Pushed) + Send + Sync),
    ) -> Result<(), ImageError> {
        if name.digest().is_some() {
            return Err(ImageError::NothingToPush { reason: "cannot push a digest reference".to_owned() });
        }
        let stored = self.inner.db.tags_of(name)?;
        let full = format!("{}/{}", name.registry(), name.repository());
        progress(Progress::whole(format!("The push refers to repository [{full}]")));
        if stored.is_empty() {
            let reason = format!("An image does not exist locally with the tag: {}", name.familiar_name());
            return Err(ImageError::NothingToPush { reason });
        }
        let remote = Remote::to_push(&self.inner.settings, name, auth)?;
        for name in if all_tags { stored } else { vec![name.clone()] } {
            let pushed = self.push_one(&remote, &name, progress).await?;
            done(&pushed);
        }
        Ok(())
    }

    async fn push_one(
        &self,
        remote: &Remote,
        name: &Reference,
        progress: OnProgress<'_>,
    ) -> Result<Pushed, ImageError> {
        let images = self.inner.db.by_name(name)?;
        if images.is_empty() {
            return Err(ImageError::NothingToPush { reason: format!("tag does not exist: {}", name.familiar()) });
        }
        again(async || remote.log_in().await).await?;
        let mut claim = GcGuard::new(&self.inner);
        let tag = name.tag().unwrap_or(name.version()).to_owned();
        let mut sent = Vec::new();
        for (platform, id) in &images {
            let record = self.inner.record(id)?;
            // Of several, each is known by its digest, and the tag by what lists them.
            let version = if images.len() == 1 { Some(tag.as_str()) } else { None };
            sent.push((platform.clone(), self.push_image(remote, &record, version, &mut claim, progress).await?));
        }
        let (digest, size) = match &sent[..] {
            [(_, only)] => (only.digest.clone(), only.size),
            several => {
                let entries: Vec<_> = several
                    .iter()
                    .map(|(platform, one)| {
                        json!({
                            "mediaType": one.media_type, "digest": one.digest, "size": one.size,
                            "platform": platform.to_oci(),
                        })
                    })
                    .collect();
                let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries });
                let bytes = index.to_string().into_bytes();
                again(async || remote.send_manifest(&tag, OCI_INDEX, bytes.clone()).await).await?;
                (Digest::of(&bytes), bytes.len() as u64)
            }
        };
        for (_, id) in &images {
            self.inner.db.add_repo_digest(name, id, &digest)?;
        }
        Ok(Pushed { tag, digest, size })
    }

    /// Sends what one platform is made of.
    async fn push_image(
        &self,
        remote: &Remote,
        record: &Record,
        version: Option<&str>,
        claim: &mut GcGuard,
        progress: OnProgress<'_>,
    ) -> Result<Sent, ImageError> {
        for layer in &record.layers {
            claim.blob(&layer.blob.digest);
            progress(Progress::of(layer.diff_id.short(), "Preparing"));
        }
        let sending = record.layers.iter().map(|layer| self.push_layer(remote, layer, progress));
        let layers: Vec<Descriptor> = futures::stream::iter(sending).buffered(AT_ONCE).try_collect().await?;
        let Document::Manifest(own) = Document::parse(&record.manifest, record.id.as_str())? else {
            return Err(ImageError::malformed(record.id.as_str(), "an index stands where the manifest should"));
        };
        again(async || {
            if remote.has_blob(&own.config.digest).await? {
                return Ok(());
            }
            let config = bytes::Bytes::from(record.config.clone());
            let size = config.len() as u64;
            remote.send_blob(&own.config.digest, size, futures::stream::iter([Ok(config)])).await
        })
        .await?;
        // Unchanged, it has the digest that it came with.
        let bytes = if layers == own.layers {
            record.manifest.clone()
        } else {
            Manifest { config: own.config, layers, artifact_type: None }.to_json()
        };
        let media_type = serde_json::from_slice::<serde_json::Value>(&bytes)
            .ok()
            .and_then(|manifest| manifest["mediaType"].as_str().map(str::to_owned))
            .unwrap_or_else(|| OCI_MANIFEST.to_owned());
        let digest = Digest::of(&bytes);
        let version = version.unwrap_or(digest.as_str());
        again(async || remote.send_manifest(version, &media_type, bytes.clone()).await).await?;
        Ok(Sent { size: bytes.len() as u64, digest, media_type })
    }

    /// Sends a layer, unless the registry has it; answers how the registry knows it.
    async fn push_layer(
        &self,
        remote: &Remote,
        layer: &Layer,
        progress: OnProgress<'_>,
    ) -> Result<Descriptor, ImageError> {
        let id = layer.diff_id.short();
        let plain = layer.blob.form()? == LayerForm::Tar;
        let known = if plain {
            let packed = self.inner.db.packed(&layer.diff_id)?;
            packed.map(|(digest, size)| Descriptor { media_type: OCI_LAYER_GZIP.to_owned(), digest, size })
        } else {
            Some(layer.blob.clone())
        };
        if let Some(known) = &known {
            let mut there = false;
            again(async || {
                there = remote.has_blob(&known.digest).await?;
                Ok(())
            })
            .await?;
            if there {
                progress(Progress::of(id, "Layer already exists"));
                return Ok(known.clone());
            }
        }
        let path = self.inner.blob_path(&layer.blob.digest);
        // Deleted when it is sent.
        let (_packed, path, blob) = match known {
            Some(known) if !plain => (None, path, known),
            _ => {
                progress(Progress::of(id, "Packing"));
                let (inner, diff_id) = (self.inner.clone(), layer.diff_id.clone());
                let made = while_wanted("pack a layer", move |wanted| gzip(&inner, wanted, &path, &diff_id)).await?;
                let media_type = OCI_LAYER_GZIP.to_owned();
                let blob = Descriptor { media_type, digest: made.digest, size: made.size };
                let path = made.path.to_path_buf();
                (Some(made.path), path, blob)
            }
        };
        again(async || {
            // As the bytes are taken, not as they arrive: the registry says nothing before the end.
            let file = tokio::fs::File::open(&path).await;
            let file = file.map_err(|error| Failure::last(ImageError::store("open the layer", &path, error)))?;
            let (sender, mut told) = tokio::sync::mpsc::unbounded_channel();
            let (mut done, mut reported, total) = (0_u64, 0_u64, blob.size);
            let pieces = ReaderStream::with_capacity(file, 128 << 10).inspect_ok(move |piece| {
                done += piece.len() as u64;
                if done - reported >= REPORT_EVERY || done == total {
                    reported = done;
                    // Nobody listens once the sending has ended.
                    let _ = sender.send(done);
                }
            });
            let mut sending = std::pin::pin!(remote.send_blob(&blob.digest, blob.size, pieces));
            loop {
                tokio::select! {
                    Some(done) = told.recv() => progress(Progress::counted(id, "Pushing", done, total)),
                    ended = &mut sending => return ended,
                }
            }
        })
        .await?;
        progress(Progress::of(id, "Pushed"));
        Ok(blob)
    }
}

/// Packs a plain layer; the same layer gives the same bytes.
fn gzip(inner: &Inner, wanted: &Wanted, path: &Path, diff_id: &Digest) -> Result<NewLayer, ImageError> {
    let packed = made::layer(inner, wanted, |out| {
        let mut layer = std::fs::File::open(path).during("open the layer", path)?;
        let mut packer = GzEncoder::new(out, Compression::default());
        std::io::copy(&mut layer, &mut packer).during("pack", path)?;
        packer.finish().during("pack", path)?;
        Ok(())
    })?;
    inner.db.set_packed(diff_id, &packed.digest, packed.size)?;
    Ok(packed)
}

/// Tries until it succeeds, another attempt makes no sense, or there were enough.
async fn again(mut act: impl AsyncFnMut() -> Result<(), Failure>) -> Result<(), ImageError> {
    let mut attempt = 0;
    loop {
        match act().await {
            Ok(()) => return Ok(()),
            Err(failure) if failure.retry && attempt + 1 < ATTEMPTS => {
                tracing::debug!(error = %failure.error, "trying once more to push");
                back_off(attempt).await;
                attempt += 1;
            }
            Err(failure) => return Err(failure.error),
        }
    }
}
