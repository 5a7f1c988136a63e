//! Bringing again what [`ImageStore::verify`] tells as damaged, from the registries that its images came from.
//!
//! What is damaged stays until the whole is there: it may be all that is left of an image.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::digest::{Digest, ImageId};
use crate::error::{ImageError, StoreContext as _};
use crate::guard::GcGuard;
use crate::layers;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::ImageStore;
use crate::verify::Damaged;

impl ImageStore {
    /// Fetches a damaged layer anew, by the digest of an image that needs it and without credentials; has a damaged component
    /// taken out of its layer again when it is needed next.
    ///
    /// # Errors
    /// `Conflict` where no image that needs it came from a registry, or what is damaged is in the database; what pulling refuses.
    /// The damaged file is as it was then.
    /// # Cancel safety
    /// Dropping the future leaves the damaged file as it was, unless the whole one is there.
    pub async fn refetch(&self, damaged: &Damaged) -> Result<(), ImageError> {
        let digest = &damaged.digest;
        let elsewhere = |reason: &str| ImageError::Conflict {
            reason: format!("{} {digest} cannot be fetched again: {reason}", damaged.kind),
        };
        match damaged.kind {
            "component" => {
                let path = self.inner.component_path(digest);
                return std::fs::remove_file(&path).during("delete", &path);
            }
            "layer" => {}
            _ => return Err(elsewhere("it is in the database: remove the image and pull, load or build it again")),
        }
        let mut claim = GcGuard::new(&self.inner);
        claim.blob(digest);
        let mut failure = elsewhere("no image that needs it came from a registry: load or build it again");
        for (name, platform) in self.sources(digest)? {
            let aside =
                Aside::of(self.inner.blob_path(digest), self.inner.ingest().join(format!("damaged-{}", digest.hex())))?;
            match self.pull_held(&name, Some(&platform), None, &mut claim, &|_| {}).await {
                Ok(_) if aside.is_replaced() => return Ok(()),
                // The registry has it packed, and here it is as it was loaded or built.
                Ok((_, offered)) => {
                    if let Some(packed) = offered.iter().find(|layer| layer.diff_id == *digest) {
                        match layers::write_unpacked(&self.inner, packed).await {
                            Ok(()) => return Ok(()),
                            Err(error) => failure = error,
                        }
                    }
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// What the images that need a layer are called at their registries.
    fn sources(&self, digest: &Digest) -> Result<Vec<(Reference, Platform)>, ImageError> {
        let mut sources = Vec::new();
        for id in self.inner.db.ids()? {
            let Some(record) = self.inner.db.record(&id)? else { continue };
            if record.layers.iter().any(|layer| layer.blob.digest == *digest) {
                let names = self.names_at_registries(&id)?;
                sources.extend(names.into_iter().map(|name| (name, record.platform.clone())));
            }
        }
        Ok(sources)
    }

    fn names_at_registries(&self, id: &ImageId) -> Result<Vec<Reference>, ImageError> {
        let names: BTreeSet<String> = self.inner.db.repo_digests(id)?.into_iter().collect();
        Ok(names.iter().filter_map(|name| Reference::parse(name).ok()).collect())
    }
}

/// A file that is out of its place for a while, and comes back unless another is there by then.
struct Aside {
    place: PathBuf,
    /// `None` where nothing was there.
    aside: Option<PathBuf>,
}

impl Aside {
    fn of(place: PathBuf, aside: PathBuf) -> Result<Self, ImageError> {
        match std::fs::rename(&place, &aside) {
            Ok(()) => Ok(Self { place, aside: Some(aside) }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self { place, aside: None }),
            Err(error) => Err(ImageError::store("move aside", &place, error)),
        }
    }

    fn is_replaced(&self) -> bool {
        self.place.is_file()
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        let Some(aside) = &self.aside else { return };
        let done = if self.is_replaced() { std::fs::remove_file(aside) } else { std::fs::rename(aside, &self.place) };
        if let Err(error) = done {
            tracing::warn!(path = %aside.display(), %error, "a damaged file could not be moved back or deleted");
        }
    }
}
