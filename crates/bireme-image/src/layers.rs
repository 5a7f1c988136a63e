//! From packed layers to folders, and from images to components.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{OnceCell, OwnedSemaphorePermit};

use crate::admit::GcGuard;
use crate::db::Layer;
use crate::digest::{Digest, ImageId};
use crate::error::{ImageError, StoreContext as _};
use crate::model::LayerForm;
use crate::store::{ImageStore, Inner};
use crate::unpack::{Options, digest_unpacked, open_form, unpack};
use crate::view::View;
use crate::wanted::{Wanted, while_wanted};

/// Largest component that is taken out of an image, in bytes.
const COMPONENT_LIMIT: u64 = 1 << 30;

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
        let unpackings = record.layers.iter().map(|layer| self.inner.unpacked(layer));
        futures::future::try_join_all(unpackings).await?;
        Ok(record.layers.iter().map(|layer| self.inner.layer_path(&layer.diff_id)).collect())
    }

    /// The component of a Wasm image, and the `sha256:…` of its content.
    ///
    /// For an artifact it is the one layer. For an image with a root filesystem it is the regular file that
    /// `entrypoint` names there, relative to the root or to the working directory; links are followed inside the image
    /// only.
    ///
    /// # Errors
    /// `NotFound`; `NoComponent` if it is not there or not a regular file; what unpacking refuses.
    pub async fn component(&self, image: &ImageId, entrypoint: &str) -> Result<(PathBuf, String), ImageError> {
        let record = self.inner.record(image)?;
        self.inner.touch(image);
        if record.artifact_type.is_some() {
            let digest = &record.layers[0].blob.digest;
            return Ok((self.inner.blob_path(digest), digest.to_string()));
        }
        if let Some(digest) = self.inner.db.component(image, entrypoint)? {
            let path = self.inner.component_path(&digest);
            if path.is_file() {
                return Ok((path, digest.to_string()));
            }
        }
        let folders = self.layers(image).await?;
        let working_dir = record.config_file()?.config.working_dir;
        let (inner, image, entrypoint) = (self.inner.clone(), image.clone(), entrypoint.to_owned());
        while_wanted("take a component out of an image", move |wanted| {
            let refuse = |reason: String| ImageError::NoComponent { image: image.to_string(), reason };
            if entrypoint.is_empty() {
                return Err(refuse("it has no entrypoint that names a .wasm file".to_owned()));
            }
            let view = View::new(folders)?;
            let path = Path::new("/").join(&working_dir).join(&entrypoint);
            let at_root = Path::new("/").join(&entrypoint);
            let file = match view.open_file(&path) {
                Err(_) if at_root != path => view.open_file(&at_root),
                other => other,
            }
            .map_err(|reason| refuse(format!("its entrypoint \"{entrypoint}\" {reason}")))?;
            let mut blob = crate::blob::Ingest::new(&inner)?;
            blob.copy_from(&mut wanted.lend(file), COMPONENT_LIMIT, &format!("the component \"{entrypoint}\""))?;
            let digest = blob.finish_as(|digest| inner.component_path(digest))?;
            inner.db.set_component(&image, &entrypoint, &digest)?;
            Ok((inner.component_path(&digest), digest.to_string()))
        })
        .await
    }
}

/// Whether what would be started in these layers, lowest first, is WebAssembly, a module or a component, by its first
/// bytes. `program` is relative to the root or to `working_dir`; one that is looked for in `PATH` is none.
pub fn is_wasm(layers: &[PathBuf], working_dir: &str, program: &str) -> bool {
    if program.is_empty() || !(program.contains('/') || program.ends_with(".wasm")) {
        return false;
    }
    let Ok(view) = View::new(layers.to_vec()) else { return false };
    let mut start = [0; 4];
    let places = [Path::new("/").join(working_dir).join(program), Path::new("/").join(program)];
    places
        .iter()
        .find_map(|place| view.open_file(place).ok())
        .is_some_and(|mut file| std::io::Read::read_exact(&mut file, &mut start).is_ok() && start == *b"\0asm")
}

/// Holds what a layer's blob unpacks to against what it stands for.
fn same_layer(layer: &Layer, actual: Digest) -> Result<(), ImageError> {
    if actual == layer.diff_id {
        return Ok(());
    }
    let what = format!("layer {}, unpacked,", layer.blob.digest);
    Err(ImageError::DigestMismatch { what, expected: layer.diff_id.clone(), actual })
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

impl Inner {
    /// Notes that an image was used, if that can be: it is no reason to refuse what it is used for.
    fn touch(&self, image: &ImageId) {
        if let Err(error) = self.db.touch(image) {
            tracing::debug!(%image, error = &error as &dyn std::error::Error, "the use of an image is not noted");
        }
    }

    /// Unpacks a layer if it is not unpacked; answers the bytes of its files. Many may ask at once, one does it.
    pub(crate) async fn unpacked(self: &Arc<Self>, layer: &Layer) -> Result<u64, ImageError> {
        if let Some(size) = self.db.unpacked(&layer.diff_id)?
            && self.layer_path(&layer.diff_id).is_dir()
        {
            return Ok(size);
        }
        let turn = Turn::of(self, &layer.diff_id);
        turn.cell.get_or_try_init(|| self.unpack_now(layer)).await.copied()
    }

    /// Unpacks a layer if it is not unpacked, and sees to it that its blob is what unpacks to it: another blob may have been
    /// unpacked in its place. Each pair is looked at once.
    ///
    /// # Errors
    /// `DigestMismatch` for a blob that unpacks to something else; `SizeMismatch` for one that is not as long as is said.
    pub(crate) async fn accepted(self: &Arc<Self>, layer: &Layer) -> Result<(), ImageError> {
        self.check_size(layer)?;
        self.unpacked(layer).await?;
        if self.db.proven(layer)? {
            return Ok(());
        }
        let slot = self.unpack_slot().await;
        let (inner, layer) = (self.clone(), layer.clone());
        while_wanted("look at a layer", move |wanted| {
            let _slot = slot;
            inner.prove(&layer, wanted)
        })
        .await
    }

    /// Holds the size of a blob, where it is there, against what is said of it: archives are written by that.
    pub(crate) fn check_size(&self, layer: &Layer) -> Result<(), ImageError> {
        match std::fs::metadata(self.blob_path(&layer.blob.digest)) {
            Ok(about) if about.len() != layer.blob.size => Err(ImageError::SizeMismatch {
                what: format!("layer {}", layer.blob.digest),
                expected: layer.blob.size,
                actual: about.len(),
            }),
            _ => Ok(()),
        }
    }

    /// Reads a blob to see what it unpacks to, and remembers it where that is what it stands for.
    pub(crate) fn prove(&self, layer: &Layer, wanted: &Wanted) -> Result<(), ImageError> {
        let actual = match layer.blob.form()? {
            // As it is.
            LayerForm::Tar => layer.blob.digest.clone(),
            _ => {
                let packed = wanted.lend(self.open_layer(layer)?);
                digest_unpacked(packed, layer.blob.digest.as_str(), self.settings.limits.unpacked(layer.blob.size))?
            }
        };
        same_layer(layer, actual)?;
        self.db.set_proven(layer)
    }

    /// What a layer's blob unpacks to.
    fn open_layer(&self, layer: &Layer) -> Result<Box<dyn Read>, ImageError> {
        let name = layer.blob.digest.as_str();
        let form = layer.blob.form()?;
        if form == LayerForm::Wasm {
            return Err(ImageError::BadLayer {
                layer: name.to_owned(),
                reason: "it is a component, not files".to_owned(),
            });
        }
        let path = self.blob_path(&layer.blob.digest);
        let packed = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(ImageError::MissingBlob { what: "layer".to_owned(), digest: name.to_owned() });
            }
            Err(error) => return Err(ImageError::store("open the layer", &path, error)),
        };
        open_form(form, packed)
            .map_err(|error| ImageError::BadLayer { layer: name.to_owned(), reason: error.to_string() })
    }

    async fn unpack_now(self: &Arc<Self>, layer: &Layer) -> Result<u64, ImageError> {
        let slot = self.unpack_slot().await;
        let (inner, layer) = (self.clone(), layer.clone());
        while_wanted("unpack a layer", move |wanted| {
            let _slot = slot;
            inner.unpack_blocking(&layer, wanted)
        })
        .await
    }

    /// A turn at what is bound by processor and disk. To be held by the work itself, which may outlast whoever asked.
    async fn unpack_slot(&self) -> OwnedSemaphorePermit {
        let Ok(slot) = self.unpack_slots.clone().acquire_owned().await else {
            unreachable!("the semaphore is never closed");
        };
        slot
    }

    pub(crate) fn unpack_blocking(self: &Arc<Self>, layer: &Layer, wanted: &Wanted) -> Result<u64, ImageError> {
        // Whoever asked may have given up by the end and found these pinned: then they are ours to delete.
        let mut claim = GcGuard::new(self);
        claim.both(layer);
        let target = self.layer_path(&layer.diff_id);
        // Another caller may have finished between the question and the turn.
        if let Some(size) = self.db.unpacked(&layer.diff_id)?
            && target.is_dir()
        {
            return Ok(size);
        }
        let name = layer.blob.digest.as_str();
        let archive = self.open_layer(layer)?;
        let folder = tempfile::Builder::new()
            .prefix("layer-")
            .tempdir_in(self.ingest())
            .during("create a folder in", &self.ingest())?;
        // The root of an image that says nothing of its root; the temporary folder is closed to others.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).during("set the mode of", folder.path())?;
        let limits = &self.settings.limits;
        let options = Options {
            name,
            whiteouts: true,
            owners: true,
            max_bytes: limits.unpacked(layer.blob.size),
            max_entries: limits.entries,
        };
        let unpacked = unpack(archive, wanted, folder.path(), &options)?;
        same_layer(layer, unpacked.diff_id)?;
        self.settle(folder, &layer.diff_id)?;
        self.db.set_proven(layer)?;
        self.db.set_unpacked(&layer.diff_id, unpacked.bytes)?;
        self.sync_layers_later();
        Ok(unpacked.bytes)
    }

    /// Renames an unpacked layer into its place.
    fn settle(&self, folder: tempfile::TempDir, diff_id: &Digest) -> Result<(), ImageError> {
        let target = self.layer_path(diff_id);
        if self.db.unpacked(diff_id)?.is_some() && target.is_dir() {
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
}
