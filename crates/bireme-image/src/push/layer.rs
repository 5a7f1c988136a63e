//! One layer on its way to a registry: packed as is wanted, mounted from a repository that has it, or sent.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use futures::TryStreamExt as _;
use tempfile::TempPath;
use tokio_util::io::ReaderStream;

use super::{Pushing, again};
use crate::digest::Digest;
use crate::error::{ImageError, StoreContext as _};
use crate::events::Progress;
use crate::made::{self, NewLayer};
use crate::model::{Descriptor, LayerForm};
use crate::record::Layer;
use crate::registry::{Failure, PIECE, Upload};
use crate::store::Inner;
use crate::unpack::open_form;
use crate::wanted::{Wanted, while_wanted};

/// Bytes between two progress lines of one layer.
const REPORT_EVERY: u64 = 512 << 10;

/// How layers are packed for others. Each packs the same layer to the same bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Packing {
    /// As they came; with gzip what was made here.
    #[default]
    Kept,
    /// As they are here: what was made here is not packed.
    Plain,
    /// All with gzip.
    Gzip,
    /// All with zstd at this level, from 1 to 19.
    Zstd(i32),
}

impl Packing {
    /// Reads `uncompressed`, `gzip` or `zstd`, and a level, which zstd alone has.
    ///
    /// # Errors
    /// A sentence.
    pub fn of(word: &str, level: Option<i32>) -> Result<Self, String> {
        match (word, level) {
            ("uncompressed", _) => Ok(Self::Plain),
            ("gzip", None) => Ok(Self::Gzip),
            ("gzip", Some(_)) => Err("gzip has no level here: leave it out, or choose zstd".to_owned()),
            ("zstd", level) => match level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL) {
                level @ 1..=19 => Ok(Self::Zstd(level)),
                level => Err(format!("{level} is no level of zstd: choose one from 1 to 19")),
            },
            _ => Err(format!("\"{word}\" is no compression of layers: choose gzip, zstd or uncompressed")),
        }
    }

    /// What a layer of that form becomes; `None` if it stays as it is.
    fn wanted(self, form: LayerForm) -> Option<LayerForm> {
        let form = match (self, form) {
            (Self::Plain, _)
            | (_, LayerForm::Wasm)
            | (Self::Gzip, LayerForm::Gzip)
            | (Self::Zstd(_), LayerForm::Zstd) => return None,
            (Self::Kept, LayerForm::Gzip | LayerForm::Zstd) => return None,
            (Self::Kept | Self::Gzip, _) => LayerForm::Gzip,
            (Self::Zstd(_), _) => LayerForm::Zstd,
        };
        Some(form)
    }
}

/// A layer as it is sent.
pub(crate) struct Ready {
    pub(crate) blob: Descriptor,
    pub(crate) path: PathBuf,
    /// Deletes what was packed for this alone.
    _made: Option<TempPath>,
}

impl Ready {
    /// Packs a layer, unless it stays as it is.
    pub(crate) async fn of(inner: &Arc<Inner>, layer: &Layer, packing: Packing) -> Result<Self, ImageError> {
        let Some(form) = packing.wanted(layer.blob.form()?) else {
            let path = inner.blob_path(&layer.blob.digest);
            return Ok(Self { blob: layer.blob.clone(), path, _made: None });
        };
        let (inner, layer) = (Arc::clone(inner), layer.clone());
        let made = while_wanted("pack a layer", move |wanted| pack(&inner, wanted, &layer, form, packing)).await?;
        let blob = Descriptor { media_type: form.media_type().to_owned(), digest: made.digest, size: made.size };
        Ok(Self { blob, path: made.path.to_path_buf(), _made: Some(made.path) })
    }
}

/// What a layer is known to become when it is packed; `None` if that is not remembered.
pub(super) fn packed(inner: &Inner, layer: &Layer, packing: Packing) -> Result<Option<Descriptor>, ImageError> {
    Ok(match packing.wanted(layer.blob.form()?) {
        None => Some(layer.blob.clone()),
        // The same at every push, and remembered.
        Some(form @ LayerForm::Gzip) => {
            let packed = inner.db.packed(&layer.diff_id)?;
            packed.map(|(digest, size)| Descriptor { media_type: form.media_type().to_owned(), digest, size })
        }
        Some(_) => None,
    })
}

impl Pushing<'_> {
    /// Sends a layer, unless the registry has it; answers how the registry knows it.
    pub(super) async fn layer(&self, layer: &Layer) -> Result<Descriptor, ImageError> {
        let id = layer.diff_id.short();
        let inner = &self.store.inner;
        let packing = self.request.packing;
        let known = packed(inner, layer, packing)?;
        let mut started = None;
        if let Some(known) = &known {
            match self.there(id, known).await? {
                There::Yes => return Ok(known.clone()),
                There::No(upload) => started = upload,
            }
        }
        if packing.wanted(layer.blob.form()?).is_some() {
            (self.progress)(Progress::of(id, "Packing"));
        }
        let ready = Ready::of(inner, layer, packing).await?;
        if known.as_ref() != Some(&ready.blob) {
            match self.there(id, &ready.blob).await? {
                There::Yes => return Ok(ready.blob),
                There::No(upload) => started = upload,
            }
        }
        self.send(id, &ready.blob, &ready.path, started).await?;
        (self.progress)(Progress::of(id, "Pushed"));
        Ok(ready.blob)
    }

    /// Whether the repository has a blob.
    pub(super) async fn has(&self, digest: &Digest) -> Result<bool, ImageError> {
        again(self.remote, async || self.remote.has_blob(digest).await).await
    }

    /// Whether the registry has a blob, in this repository or in another one that it can be mounted from.
    async fn there(&self, id: &str, blob: &Descriptor) -> Result<There, ImageError> {
        if self.has(&blob.digest).await? {
            (self.progress)(Progress::of(id, "Layer already exists"));
            return Ok(There::Yes);
        }
        let mut started = None;
        for source in &self.sources {
            // Whatever stands against it, the layer can be sent.
            match self.remote.mount(&blob.digest, source).await {
                Ok(None) => {
                    (self.progress)(Progress::of(id, &format!("Mounted from {source}")));
                    return Ok(There::Yes);
                }
                Ok(upload) => started = upload,
                Err(failure) => {
                    tracing::debug!(%source, layer = id, error = %failure.error, "a layer could not be mounted");
                }
            }
        }
        Ok(There::No(started))
    }

    /// Sends a blob from a file; whole, or in pieces where the registry takes only such.
    pub(super) async fn send(
        &self,
        id: &str,
        blob: &Descriptor,
        path: &Path,
        mut started: Option<Upload>,
    ) -> Result<(), ImageError> {
        let mut in_pieces = None;
        again(self.remote, async || {
            let upload = match started.take() {
                Some(upload) => upload,
                None => self.remote.start_upload().await?,
            };
            // As the bytes are taken, not as they arrive: the registry says nothing before the end.
            let file = tokio::fs::File::open(path).await;
            let file = file.map_err(|error| Failure::last(ImageError::store("open the layer", path, error)))?;
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
            let least = upload.least;
            let mut sending = std::pin::pin!(self.remote.send_blob(upload, &blob.digest, blob.size, pieces));
            let ended = loop {
                tokio::select! {
                    Some(done) = told.recv() => (self.progress)(Progress::counted(id, "Pushing", done, total)),
                    ended = &mut sending => break ended,
                }
            };
            match ended {
                Err(failure) if failure.too_large => {
                    in_pieces = Some(least);
                    Ok(())
                }
                ended => ended,
            }
        })
        .await?;
        let Some(least) = in_pieces else { return Ok(()) };
        self.send_in_pieces(id, blob, path, least).await
    }

    /// Sends a blob in pieces; one that breaks off is taken up where the registry says that it is.
    async fn send_in_pieces(&self, id: &str, blob: &Descriptor, path: &Path, least: u64) -> Result<(), ImageError> {
        let mut file = tokio::fs::File::open(path).await.during("open the layer", path)?;
        let mut upload: Option<Upload> = None;
        again(self.remote, async || {
            let (mut at, mut going) = match upload.take() {
                // What came of the piece that failed.
                Some(mut broken) => (self.remote.arrived(&mut broken).await?, broken),
                None => (0, self.remote.start_upload().await?),
            };
            while at < blob.size {
                let piece = PIECE.max(least).min(blob.size - at);
                let content = read_piece(&mut file, at, piece).await;
                let content =
                    content.map_err(|error| Failure::last(ImageError::store("read the layer", path, error)))?;
                match self.remote.send_piece(&mut going, at, content).await {
                    Ok(next) => at = next,
                    Err(failure) => {
                        // One that is refused for good is not asked for again.
                        upload = failure.retry.then_some(going);
                        return Err(failure);
                    }
                }
                (self.progress)(Progress::counted(id, "Pushing", at.min(blob.size), blob.size));
            }
            self.remote.finish_upload(&going, &blob.digest).await
        })
        .await
    }
}

enum There {
    Yes,
    /// With what the registry began when it could not mount it.
    No(Option<Upload>),
}

async fn read_piece(file: &mut tokio::fs::File, at: u64, length: u64) -> std::io::Result<Vec<u8>> {
    use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
    file.seek(std::io::SeekFrom::Start(at)).await?;
    let mut content = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    file.read_exact(&mut content).await?;
    Ok(content)
}

/// Packs a layer; the same layer gives the same bytes.
fn pack(
    inner: &Inner,
    wanted: &Wanted,
    layer: &Layer,
    form: LayerForm,
    packing: Packing,
) -> Result<NewLayer, ImageError> {
    let path = inner.blob_path(&layer.blob.digest);
    let name = || layer.blob.digest.to_string();
    let packed = made::layer(inner, wanted, |out| {
        let file = std::fs::File::open(&path).during("open the layer", &path)?;
        let bad = |error: std::io::Error| ImageError::BadLayer { layer: name(), reason: error.to_string() };
        let mut plain = open_form(layer.blob.form()?, file).map_err(bad)?;
        match (form, packing) {
            (LayerForm::Zstd, Packing::Zstd(level)) => {
                let mut packer = zstd::Encoder::new(out, level).during("pack", &path)?;
                std::io::copy(&mut plain, &mut packer).during("pack", &path)?;
                packer.finish().during("pack", &path)?.flush().during("pack", &path)
            }
            _ => {
                let mut packer = GzEncoder::new(out, Compression::default());
                std::io::copy(&mut plain, &mut packer).during("pack", &path)?;
                packer.finish().during("pack", &path)?.flush().during("pack", &path)
            }
        }
    })?;
    if form == LayerForm::Gzip {
        let (digest, diff_id): (&Digest, &Digest) = (&packed.digest, &layer.diff_id);
        inner.db.set_packed(diff_id, digest, packed.size)?;
    }
    Ok(packed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packings_are_read() {
        assert_eq!(Packing::of("zstd", None), Ok(Packing::Zstd(3)));
        assert_eq!(Packing::of("zstd", Some(19)), Ok(Packing::Zstd(19)));
        assert_eq!(Packing::of("gzip", None), Ok(Packing::Gzip));
        assert_eq!(Packing::of("uncompressed", None), Ok(Packing::Plain));
        for (word, level, words) in [
            ("zstd", Some(22), "from 1 to 19"),
            ("zstd", Some(0), "from 1 to 19"),
            ("gzip", Some(9), "no level here"),
            ("xz", None, "choose gzip, zstd or uncompressed"),
        ] {
            assert!(Packing::of(word, level).unwrap_err().contains(words), "{word}");
        }
    }

    #[test]
    fn what_is_packed_as_wanted_stays() {
        use LayerForm::{Gzip, Tar, Wasm, Zstd};
        for (packing, becomes) in [
            (Packing::Kept, [Some(Gzip), None, None, None]),
            (Packing::Plain, [None, None, None, None]),
            (Packing::Gzip, [Some(Gzip), None, Some(Gzip), None]),
            (Packing::Zstd(3), [Some(Zstd), Some(Zstd), None, None]),
        ] {
            assert_eq!([Tar, Gzip, Zstd, Wasm].map(|form| packing.wanted(form)), becomes, "{packing:?}");
        }
    }
}
