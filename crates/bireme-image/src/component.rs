//! From images to the components in them.

use std::collections::HashSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::blob::Ingest;
use crate::digest::ImageId;
use crate::error::ImageError;
use crate::store::ImageStore;
use crate::view::View;
use crate::wanted::while_wanted;

/// Largest component that is taken out of an image, in bytes.
const COMPONENT_LIMIT: u64 = 1 << 30;

impl ImageStore {
    /// The digests of all that may be a component of an image: layers as they came, and files that were taken out of images.
    ///
    /// # Errors
    /// `Database`.
    pub fn program_digests(&self) -> Result<HashSet<String>, ImageError> {
        let known = self.inner.db.referenced()?;
        Ok(known.blobs.iter().chain(&known.components).map(ToString::to_string).collect())
    }

    /// The component of a Wasm image, and the `sha256:…` of its content.
    ///
    /// For an artifact it is the one layer. For an image with a root filesystem it is the regular file that
    /// `entrypoint` names there, relative to the root or to the working directory; links are followed inside the image
    /// only.
    ///
    /// # Errors
    /// `NotFound`; `NoComponent` if it is not there or not a regular file; what unpacking refuses.
    /// # Cancel safety
    /// Dropping the future ends the copying and deletes what was copied; of unpackings as in [`Self::layers`].
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
            let mut blob = Ingest::new(&inner)?;
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
        .is_some_and(|mut file| file.read_exact(&mut start).is_ok() && start == *b"\0asm")
}
