//! From packed layers to folders.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{OnceCell, OwnedSemaphorePermit};

use crate::blob::Ingest;
use crate::digest::{Digest, ImageId};
use crate::durable;
use crate::error::{ImageError, StoreContext as _};
use crate::guard::GcGuard;
use crate::model::LayerForm;
use crate::record::Layer;
use crate::store::{ImageStore, Inner};
use crate::unpack::{Options, digest_unpacked, open_form, unpack};
use crate::wanted::{Wanted, while_wanted};

impl ImageStore {
    /// The folders of an image's layers, lowest first, for overlayfs. Layers not yet unpacked are, in parallel.
    ///
    /// The folders are shared by all images and workloads and must never be written to. They stay as long as an image
    /// that has them does.
    ///
    /// # Errors
    /// `NotFound`; `NoComponent` for a Wasm artifact, which has no root filesystem; what unpacking refuses; `NoSpace`.
    /// # Cancel safety
    /// Dropping the future ends running unpackings and deletes what they unpacked, unless others wait for the same layer:
    /// one of them begins it anew.
    pub async fn layers(&self, image: &ImageId) -> Result<Vec<PathBuf>, ImageError> {
        let record = self.inner.record(image)?;
        if record.artifact_type.is_some() {
            return Err(ImageError::NoComponent {
                image: image.to_string(),
                reason: "it is a Wasm artifact, which has no root filesystem".to_owned(),
            });
        }
        self.inner.touch(image);
        let unpackings = record.layers.iter().map(|layer| unpacked(&self.inner, layer));
        futures::future::try_join_all(unpackings).await?;
        Ok(record.layers.iter().map(|layer| self.inner.layer_path(&layer.diff_id)).collect())
    }
}

/// Unpacks a layer if it is not unpacked; answers the bytes of its files. Many may ask at once, one does it.
pub(crate) async fn unpacked(inner: &Arc<Inner>, layer: &Layer) -> Result<u64, ImageError> {
    if let Some(size) = inner.db.unpacked(&layer.diff_id)?
        && inner.layer_path(&layer.diff_id).is_dir()
    {
        return Ok(size);
    }
    let turn = Turn::of(inner, &layer.diff_id);
    turn.cell.get_or_try_init(|| unpack_now(inner, layer)).await.copied()
}

/// One of those that wait for the same layer to be unpacked. When the last is gone, nothing is left of it.
struct Turn<'a> {
    inner: &'a Inner,
    diff_id: &'a Digest,
    cell: Arc<OnceCell<u64>>,
}

impl<'a> Turn<'a> {
    fn of(inner: &'a Inner, diff_id: &'a Digest) -> Self {
        let mut running = inner.unpacking.lock();
        Self { inner, diff_id, cell: running.entry(diff_id.clone()).or_default().clone() }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut running = self.inner.unpacking.lock();
        // What was unpacked may be removed, and is then asked for anew.
        let last = Arc::strong_count(&self.cell) <= 2;
        if last || self.cell.initialized() {
            running.remove(self.diff_id);
        }
    }
}

/// Unpacks a layer if it is not unpacked, and sees to it that its blob is what unpacks to it: another blob may have been
/// unpacked in its place. Each pair is looked at once.
///
/// # Errors
/// `DigestMismatch` for a blob that unpacks to something else; `SizeMismatch` for one that is not as long as is said.
pub(crate) async fn accept(inner: &Arc<Inner>, layer: &Layer) -> Result<(), ImageError> {
    check_size(inner, layer)?;
    unpacked(inner, layer).await?;
    if inner.db.proven(layer)? {
        return Ok(());
    }
    let slot = unpack_slot(inner).await;
    let (inner, layer) = (inner.clone(), layer.clone());
    while_wanted("look at a layer", move |wanted| {
        let _slot = slot;
        prove(&inner, &layer, wanted)
    })
    .await
}

/// Holds the size of a blob, where it is there, against what is said of it: archives are written by that.
pub(crate) fn check_size(inner: &Inner, layer: &Layer) -> Result<(), ImageError> {
    match std::fs::metadata(inner.blob_path(&layer.blob.digest)) {
        Ok(about) if about.len() != layer.blob.size => Err(ImageError::SizeMismatch {
            what: format!("layer {}", layer.blob.digest),
            expected: layer.blob.size,
            actual: about.len(),
        }),
        _ => Ok(()),
    }
}

/// Reads a blob to see what it unpacks to, and remembers it where that is what it stands for.
pub(crate) fn prove(inner: &Inner, layer: &Layer, wanted: &Wanted) -> Result<(), ImageError> {
    let actual = match layer.blob.form()? {
        // As it is.
        LayerForm::Tar => layer.blob.digest.clone(),
        _ => {
            let packed = wanted.lend(open_layer(inner, layer)?);
            digest_unpacked(packed, layer.blob.digest.as_str(), inner.settings.limits.unpacked(layer.blob.size))?
        }
    };
    same_layer(layer, actual)?;
    inner.db.set_proven(layer)
}

/// Writes what a layer's blob unpacks to as a blob of its own.
///
/// # Errors
/// `DigestMismatch` for a blob that unpacks to something else; `TooLarge` beyond what a layer may unpack to.
pub(crate) async fn write_unpacked(inner: &Arc<Inner>, layer: &Layer) -> Result<(), ImageError> {
    let (inner, layer) = (inner.clone(), layer.clone());
    while_wanted("unpack a layer", move |wanted| {
        let what = format!("layer {}", layer.diff_id);
        let mut blob = Ingest::new(&inner)?;
        let mut unpacked = wanted.lend(open_layer(&inner, &layer)?);
        blob.copy_from(&mut unpacked, inner.settings.limits.unpacked(layer.blob.size), &what)?;
        blob.finish(&inner, &layer.diff_id, &what)
    })
    .await
}

/// What a layer's blob unpacks to.
fn open_layer(inner: &Inner, layer: &Layer) -> Result<Box<dyn Read>, ImageError> {
    let name = layer.blob.digest.as_str();
    let form = layer.blob.form()?;
    if form == LayerForm::Wasm {
        return Err(ImageError::BadLayer { layer: name.to_owned(), reason: "it is a component, not files".to_owned() });
    }
    let path = inner.blob_path(&layer.blob.digest);
    let packed = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(ImageError::MissingBlob { what: "layer".to_owned(), digest: name.to_owned() });
        }
        Err(error) => return Err(ImageError::store("open the layer", &path, error)),
    };
    open_form(form, packed).map_err(|error| ImageError::BadLayer { layer: name.to_owned(), reason: error.to_string() })
}

async fn unpack_now(inner: &Arc<Inner>, layer: &Layer) -> Result<u64, ImageError> {
    let slot = unpack_slot(inner).await;
    let (inner, layer) = (inner.clone(), layer.clone());
    while_wanted("unpack a layer", move |wanted| {
        let _slot = slot;
        unpack_blocking(&inner, &layer, wanted)
    })
    .await
}

/// A turn at what is bound by processor and disk. To be held by the work itself, which may outlast whoever asked.
async fn unpack_slot(inner: &Inner) -> OwnedSemaphorePermit {
    let Ok(slot) = inner.unpack_slots.clone().acquire_owned().await else {
        unreachable!("the semaphore is never closed");
    };
    slot
}

pub(crate) fn unpack_blocking(inner: &Arc<Inner>, layer: &Layer, wanted: &Wanted) -> Result<u64, ImageError> {
    // Whoever asked may have given up by the end and found these pinned: then they are ours to delete.
    let mut claim = GcGuard::new(inner);
    claim.both(layer);
    let target = inner.layer_path(&layer.diff_id);
    // Another caller may have finished between the question and the turn.
    if let Some(size) = inner.db.unpacked(&layer.diff_id)?
        && target.is_dir()
    {
        return Ok(size);
    }
    let name = layer.blob.digest.as_str();
    let archive = open_layer(inner, layer)?;
    let folder = inner.aside("layer-")?;
    // The root of an image that says nothing of its root; the temporary folder is closed to others.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).during("set the mode of", folder.path())?;
    let limits = &inner.settings.limits;
    let options = Options {
        name,
        whiteouts: true,
        owners: true,
        max_bytes: limits.unpacked(layer.blob.size),
        max_entries: limits.entries,
    };
    let unpacked = unpack(archive, wanted, folder.path(), &options)?;
    same_layer(layer, unpacked.diff_id)?;
    settle(inner, folder, &layer.diff_id)?;
    inner.db.set_proven(layer)?;
    inner.db.set_unpacked(&layer.diff_id, unpacked.bytes)?;
    durable::sync_layers_later(inner);
    Ok(unpacked.bytes)
}

/// Renames an unpacked layer into its place.
fn settle(inner: &Inner, folder: tempfile::TempDir, diff_id: &Digest) -> Result<(), ImageError> {
    let target = inner.layer_path(diff_id);
    if inner.db.unpacked(diff_id)?.is_some() && target.is_dir() {
        // Somebody was faster, and it may be in use already.
        return Ok(());
    }
    if target.exists() {
        // Left by a removal or crash without its row in the database: not to be trusted.
        let old = folder.path().with_extension("old");
        std::fs::rename(&target, &old).during("move away", &target)?;
        std::fs::remove_dir_all(&old).during("delete", &old)?;
    }
    std::fs::rename(folder.path(), &target).during("put in its place", &target)?;
    // It is no longer there to be deleted.
    let _ = folder.keep();
    Ok(())
}

/// Holds what a layer's blob unpacks to against what it stands for.
fn same_layer(layer: &Layer, actual: Digest) -> Result<(), ImageError> {
    if actual == layer.diff_id {
        return Ok(());
    }
    let what = format!("layer {}, unpacked,", layer.blob.digest);
    Err(ImageError::DigestMismatch { what, expected: layer.diff_id.clone(), actual })
}
