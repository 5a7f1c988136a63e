//! From images to the components in them.

use std::collections::HashSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::blob::Ingest;
use crate::digest::ImageId;
use crate::error::{ImageError, StoreContext as _};
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

    /// The folders of an image's layers, lowest first, where they hold more than one file, which is the component; empty
    /// where they do not, and for artifacts.
    ///
    /// # Errors
    /// As [`Self::layers`]; `Store`.
    /// # Cancel safety
    /// As [`Self::layers`].
    pub async fn files_beside_component(&self, image: &ImageId) -> Result<Vec<PathBuf>, ImageError> {
        if self.inner.record(image)?.artifact_type.is_some() {
            return Ok(Vec::new());
        }
        let folders = self.layers(image).await?;
        while_wanted("look for files beside a component", move |_| {
            Ok(if holds_several(&folders)? { folders } else { Vec::new() })
        })
        .await
    }
}

/// Whether the folders hold files, or folders with nothing in them, of more than one path together. Looks no further than to
/// the second.
fn holds_several(folders: &[PathBuf]) -> Result<bool, ImageError> {
    let mut found: Option<PathBuf> = None;
    for root in folders {
        let mut open = vec![root.clone()];
        while let Some(folder) = open.pop() {
            let mut is_empty = true;
            for entry in std::fs::read_dir(&folder).during("look into the layer", &folder)? {
                let entry = entry.during("look into the layer", &folder)?;
                is_empty = false;
                let path = entry.path();
                if entry.file_type().during("look at", &path)?.is_dir() {
                    open.push(path);
                } else if is_second(&mut found, root, &path) {
                    return Ok(true);
                }
            }
            if is_empty && folder != *root && is_second(&mut found, root, &folder) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Whether another path than this one, seen from `root`, was found before.
fn is_second(found: &mut Option<PathBuf>, root: &Path, path: &Path) -> bool {
    let inside = path.strip_prefix(root).unwrap_or(path);
    found.get_or_insert_with(|| inside.to_owned()) != inside
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_alone_has_no_files_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let layers = |name: &str, layers: &[&[&str]]| -> Vec<PathBuf> {
            let folder = |(number, paths): (usize, &&[&str])| {
                let root = dir.path().join(format!("{name}-{number}"));
                std::fs::create_dir(&root).unwrap();
                for path in *paths {
                    let path = root.join(path);
                    if path.to_string_lossy().ends_with('/') {
                        std::fs::create_dir_all(path).unwrap();
                        continue;
                    }
                    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                    std::fs::write(path, "").unwrap();
                }
                root
            };
            layers.iter().enumerate().map(folder).collect()
        };
        for (name, paths, several) in [
            ("none", &[][..], false),
            ("empty", &[&[][..]][..], false),
            ("one", &[&["app.wasm"][..]][..], false),
            ("deep", &[&["a/b/c/app.wasm"][..]][..], false),
            ("twice", &[&["a/app.wasm"][..], &["a/app.wasm"][..]][..], false),
            ("two", &[&["app.wasm", "data"][..]][..], true),
            ("folder", &[&["app.wasm", "data/"][..]][..], true),
            ("layers", &[&["app.wasm"][..], &["data/x"][..]][..], true),
        ] {
            assert_eq!(holds_several(&layers(name, paths)).unwrap(), several, "{name}");
        }
    }
}
