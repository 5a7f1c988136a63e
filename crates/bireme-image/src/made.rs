//! Layers that are made here rather than fetched: written aside, named by their content, unpacked like any other.

use std::io::{self, Write};

use tempfile::TempPath;

use crate::blob::Ingest;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::guard::GcGuard;
use crate::layers;
use crate::record::Layer;
use crate::store::{ImageStore, Inner};
use crate::wanted::{Wanted, while_wanted};

/// Writes what a command changed as the archive of a layer, whiteouts included. Blocking.
pub type Changes = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send>;

/// A layer that was written, aside.
pub(crate) struct NewLayer {
    pub(crate) path: TempPath,
    pub(crate) digest: Digest,
    /// Bytes.
    pub(crate) size: u64,
}

/// The end of an archive: what one without entries consists of.
const NOTHING: [u8; 1024] = [0; 1024];

impl NewLayer {
    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.size == NOTHING.len() as u64 && self.digest == Digest::of(&NOTHING)
    }
}

/// Writes a layer's archive, for as long as it is wanted.
pub(crate) fn layer(
    inner: &Inner,
    wanted: &Wanted,
    write: impl FnOnce(&mut dyn Write) -> Result<(), ImageError>,
) -> Result<NewLayer, ImageError> {
    let mut sink = Sink { file: Ingest::new(inner)?, most: inner.settings.limits.layer_bytes, error: None };
    let written = write(&mut wanted.lend(&mut sink));
    if let Some(error) = sink.error {
        return Err(error);
    }
    written?;
    let size = sink.file.written();
    let (path, digest) = sink.file.aside()?;
    Ok(NewLayer { path, digest, size })
}

impl ImageStore {
    /// Packs what was changed into a layer and takes it in; `None` when that is nothing, unless that is to be kept.
    pub(crate) async fn pack(
        &self,
        changes: Changes,
        keep_empty: bool,
        claim: &mut GcGuard,
    ) -> Result<Option<Layer>, ImageError> {
        let inner = self.inner.clone();
        let new = while_wanted("pack a layer", move |wanted| {
            layer(&inner, wanted, |out| {
                changes(out).map_err(|source| match source.kind() {
                    // What is wrong with it is told, not where it was found.
                    io::ErrorKind::InvalidData => ImageError::Sent { reason: bireme_core::error::chain(&source) },
                    _ => ImageError::Pack { source },
                })
            })
        })
        .await?;
        if new.is_empty() && !keep_empty {
            return Ok(None);
        }
        self.import(new, claim).await.map(Some)
    }

    /// Puts a new layer among the others and unpacks it.
    pub(crate) async fn import(&self, new: NewLayer, claim: &mut GcGuard) -> Result<Layer, ImageError> {
        let layer = Layer::plain(new.digest.clone(), new.size);
        claim.both(&layer);
        let path = self.inner.blob_path(&new.digest);
        if !path.exists() {
            new.path.persist(&path).map_err(|error| ImageError::store("put in its place", &path, error.error))?;
        }
        layers::unpacked(&self.inner, &layer).await?;
        Ok(layer)
    }
}

/// Lends an [`Ingest`] to the tar writer, and keeps its own error.
struct Sink {
    file: Ingest,
    /// Bytes. A file with holes is as long as it says, and a layer has no holes.
    most: u64,
    error: Option<ImageError>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.file.written() + bytes.len() as u64 > self.most {
            self.error = Some(ImageError::TooLarge { what: "the new layer".to_owned(), limit: self.most });
            return Err(io::Error::other("the layer is too large"));
        }
        match self.file.write(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                self.error = Some(error);
                Err(io::Error::other("the layer could not be written"))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
