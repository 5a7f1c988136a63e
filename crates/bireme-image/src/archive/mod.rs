//! Loading and saving of archives: what `docker save` writes, old and new, and OCI layouts in a tar.
//!
//! The archive is read once, in whatever order it comes, into files aside; then its tables of contents are read, and
//! only what they name becomes part of the store.

mod contents;
mod format;
mod staged;
mod write;

use std::collections::HashSet;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::SyncIoBridge;

use crate::blocking::blocking;
use crate::digest::{Digest, ImageId};
use crate::error::ImageError;
use crate::events::{OnProgress, Progress};
use crate::guard::GcGuard;
use crate::reference::Reference;
use crate::store::{ImageStore, Inner};
use crate::wanted::while_wanted;
pub(crate) use format::{SaveEntry, blob_name};
use staged::Staged;
pub(crate) use write::{ArchiveWriter, name_annotations};
use write::{Saved, write_archive};

/// One image that was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The image, of one platform.
    pub id: ImageId,
    /// Familiar names it was given; empty if the archive names none.
    pub references: Vec<String>,
}

impl ImageStore {
    /// Loads all images of an archive: `docker save` (old and new form) or an OCI layout, possibly compressed with gzip
    /// or zstd. An index is loaded with all its platforms that the archive holds whole.
    ///
    /// # Errors
    /// `BadArchive`, `MissingBlob`, `DigestMismatch`, what reading manifests and unpacking refuse; nothing is loaded
    /// then.
    /// # Cancel safety
    /// Dropping the future loads nothing and deletes what was read of it.
    pub async fn load(
        &self,
        archive: impl AsyncRead + Send + Unpin + 'static,
        progress: OnProgress<'_>,
    ) -> Result<Vec<Loaded>, ImageError> {
        let inner = self.inner.clone();
        let staged = while_wanted("read an archive", move |wanted| {
            Staged::read(&inner, wanted.lend(SyncIoBridge::new(archive)))
        })
        .await?;
        let (staged, plan) = blocking("read what an archive holds", move || {
            let plan = contents::plan(&staged)?;
            Ok((staged, plan))
        })
        .await?;
        let mut claim = GcGuard::new(&self.inner);
        for blob in plan.iter().flat_map(|candidate| &candidate.record.layers).map(|layer| &layer.blob) {
            claim.blob(&blob.digest);
            progress(Progress::counted(blob.digest.short(), "Loading layer", blob.size, blob.size));
        }
        let inner = self.inner.clone();
        let plan = while_wanted("store the layers of an archive", move |wanted| {
            let mut staged = staged;
            let layers = plan.iter().flat_map(|candidate| &candidate.record.layers);
            let digests: HashSet<&Digest> = layers.map(|layer| &layer.blob.digest).collect();
            for digest in digests {
                staged.settle(&inner, digest, wanted)?;
            }
            Ok(plan)
        })
        .await?;
        let mut loaded: Vec<Loaded> = Vec::new();
        for candidate in &plan {
            let references: Vec<String> = candidate.names.iter().map(|(name, _)| name.familiar()).collect();
            loaded.push(Loaded { id: candidate.record.id.clone(), references });
        }
        self.admit(plan, &mut claim).await?;
        for image in &loaded {
            for reference in &image.references {
                progress(Progress::whole(format!("Loaded image: {reference}")));
            }
            if image.references.is_empty() {
                progress(Progress::whole(format!("Loaded image ID: {}", image.id)));
            }
        }
        Ok(loaded)
    }

    /// What `name` asks to be saved: as in Docker, a repository's name alone stands for all its tags.
    ///
    /// # Errors
    /// `Database`.
    pub fn to_save(&self, name: &str) -> Result<Vec<String>, ImageError> {
        let repository = Reference::parse(name).ok().filter(|_| is_name_only(name));
        let tags = repository.map(|reference| self.inner.db.tags_of(&reference)).transpose()?.unwrap_or_default();
        match tags.is_empty() {
            true => Ok(vec![name.to_owned()]),
            false => Ok(tags.iter().map(Reference::familiar).collect()),
        }
    }

    /// Writes images as one archive that is both an OCI layout and what `docker load` reads.
    ///
    /// `names` are references, IDs or prefixes; a reference with several platforms is saved with all of them. Wasm
    /// artifacts stand only in the layout: Docker's form has no place for them.
    ///
    /// # Errors
    /// `NotFound`, `Ambiguous`; `Output` if `out` fails; `DigestMismatch` and `SizeMismatch` for a layer that is damaged.
    /// # Cancel safety
    /// Dropping the future does not end the writing: it ends with `out`, or when `out` fails.
    ///
    /// Source: Docker Engine API, `ImageGetAll`; OCI image specification, `image-layout.md`.
    pub async fn save(
        &self,
        names: &[String],
        out: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Result<(), ImageError> {
        let mut chosen: Vec<Saved> = Vec::new();
        let mut claim = GcGuard::new(&self.inner);
        for name in names {
            let reference = Reference::parse(name).ok();
            let by_name = match &reference {
                Some(reference) => self.inner.db.by_name(reference)?,
                None => Vec::new(),
            };
            let (ids, reference) = if by_name.is_empty() {
                (vec![self.inner.find(name, None)?], None)
            } else {
                let tagged = reference.filter(|reference| reference.tag().is_some() && reference.digest().is_none());
                (by_name.into_iter().map(|(_, id)| id).collect(), tagged)
            };
            for id in ids {
                let record = self.inner.record(&id)?;
                record.layers.iter().for_each(|layer| claim.blob(&layer.blob.digest));
                chosen.push(Saved { record, name: reference.clone() });
            }
        }
        let inner = self.inner.clone();
        blocking("save images", move || {
            let _claim = claim;
            write_archive(&inner, &chosen, SyncIoBridge::new(out))
        })
        .await
    }
}

/// Puts an archive aside and reads its tables of contents; answers how many images it holds.
pub(crate) fn look_through(inner: &Inner, archive: impl std::io::Read) -> Result<usize, ImageError> {
    let staged = Staged::read(inner, archive)?;
    Ok(contents::plan(&staged)?.len())
}

/// Whether `name` has neither tag nor digest.
fn is_name_only(name: &str) -> bool {
    !name.rsplit('/').next().unwrap_or_default().contains([':', '@'])
}
