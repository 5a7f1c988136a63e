//! Pulling: from a reference to a recorded image whose layers are unpacked.
//!
//! Each layer goes its own way, several at once: fetched to a file aside (a broken connection is taken up where it
//! broke), verified, renamed into place, unpacked. Only when all are there is the image recorded.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _};
use tokio::sync::mpsc;

use crate::admit::Candidate;
use crate::blob::Ingest;
use crate::blocking::blocking;
use crate::digest::{Digest, ImageId};
use crate::error::ImageError;
use crate::events::{OnProgress, Progress};
use crate::guard::GcGuard;
use crate::layers;
use crate::model::{Descriptor, Document, Manifest};
use crate::platform::Platform;
use crate::record::{Layer, make_record};
use crate::reference::Reference;
use crate::registry::{ATTEMPTS, Remote, back_off};
use crate::store::{ImageStore, offered};

pub use crate::auth::RegistryAuth;

/// Bytes between two progress lines of one layer.
const REPORT_EVERY: u64 = 512 << 10;

/// What a pull brought.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The image of the platform that was asked for.
    pub id: ImageId,
    /// What the name stands for at the registry: the digest of the index or manifest.
    pub digest: Digest,
    /// Everything was here already.
    pub up_to_date: bool,
}

/// A manifest as a registry has it.
struct Offer {
    /// Of what the name stands for.
    digest: Digest,
    manifest_bytes: Vec<u8>,
    manifest: Manifest,
    /// The platform an index gives it.
    listed: Option<Platform>,
    config: Vec<u8>,
}

impl ImageStore {
    /// Fetches an image from its registry, or from a mirror of `docker.io`, and gives it its name.
    ///
    /// With `platform` `None`, an index gives Linux on this machine, else `wasi/wasm`. Other platforms of the same index
    /// that were pulled before keep the name.
    ///
    /// # Errors
    /// `ManifestUnknown`, `PullDenied`, `Unauthorized`, `NoPlatform`; `Registry` after all retries; what checking and
    /// unpacking refuse; `NoSpace`. Nothing is recorded then.
    /// # Cancel safety
    /// Dropping the future records nothing and deletes what was fetched.
    pub async fn pull(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        auth: Option<RegistryAuth>,
        progress: OnProgress<'_>,
    ) -> Result<Pulled, ImageError> {
        let remotes = Remote::all(&self.inner.settings, reference, auth.as_ref())?;
        let mut first = Progress::whole(format!("Pulling from {}", reference.repository()));
        first.id = Some(reference.tag().unwrap_or(reference.version()).to_owned());
        progress(first);
        let last = remotes.len() - 1;
        for (at, remote) in remotes.iter().enumerate() {
            match self.pull_from(remote, reference, platform, progress).await {
                Err(error) if at < last => {
                    tracing::warn!(mirror = remote.host(), %error, "the mirror could not serve, asking the next");
                }
                answer => return answer,
            }
        }
        // `all` answers at least the registry itself.
        Err(ImageError::NotFound { name: reference.familiar() })
    }

    async fn pull_from(
        &self,
        remote: &Remote,
        reference: &Reference,
        platform: Option<&Platform>,
        progress: OnProgress<'_>,
    ) -> Result<Pulled, ImageError> {
        let offer = offer(remote, reference, platform).await?;
        let digest = offer.digest.clone();
        let record = make_record(offer.manifest_bytes, &offer.manifest, offer.config, offer.listed.as_ref())?;
        if let Some(wanted) = platform
            && !record.platform.serves(wanted)
        {
            return Err(ImageError::NoPlatform {
                name: reference.familiar(),
                wanted: wanted.clone(),
                offered: record.platform.to_string(),
            });
        }
        let id = record.id.clone();
        let up_to_date = self.inner.db.record(&id)?.is_some()
            && match reference.digest() {
                None => self.inner.db.name_digest(reference, &id)?.as_deref() == Some(digest.as_str()),
                Some(_) => self.inner.db.by_name(reference)?.iter().any(|(_, known)| *known == id),
            };

        let mut claim = GcGuard::new(&self.inner);
        let artifact = record.artifact_type.is_some();
        let mut seen = HashSet::new();
        let mut layers: Vec<&Layer> = Vec::new();
        for layer in &record.layers {
            claim.both(layer);
            if seen.insert(&layer.blob.digest) {
                layers.push(layer);
            }
        }
        if !up_to_date {
            layers.iter().for_each(|layer| progress(Progress::of(layer.blob.digest.short(), "Pulling fs layer")));
        }
        futures::stream::iter(
            layers.into_iter().map(|layer| self.fetch(remote, layer, artifact, up_to_date, progress)),
        )
        .buffer_unordered(16)
        .try_collect::<Vec<()>>()
        .await?;
        let candidate = Candidate { record, names: vec![(reference.clone(), Some(digest.clone()))] };
        self.admit(vec![candidate], &mut claim).await?;

        progress(Progress::whole(format!("Digest: {digest}")));
        let what = if up_to_date { "Image is up to date" } else { "Downloaded newer image" };
        progress(Progress::whole(format!("Status: {what} for {}", reference.familiar())));
        Ok(Pulled { id, digest, up_to_date })
    }

    /// Brings one layer: fetched, verified, and unpacked unless it is a component.
    async fn fetch(
        &self,
        remote: &Remote,
        layer: &Layer,
        artifact: bool,
        quiet: bool,
        progress: OnProgress<'_>,
    ) -> Result<(), ImageError> {
        let id = layer.blob.digest.short();
        // One that is not as long as it was, as after a power cut, is fetched anew. What this manifest says is seen later.
        let whole = self.inner.db.size_of_blob(&layer.blob.digest)?.unwrap_or(layer.blob.size);
        let there = std::fs::symlink_metadata(self.inner.blob_path(&layer.blob.digest));
        let here = there.is_ok_and(|about| about.is_file() && about.len() == whole);
        if here && (artifact || self.inner.db.unpacked(&layer.diff_id)?.is_some()) {
            if !quiet {
                progress(Progress::of(id, "Already exists"));
            }
            return Ok(());
        }
        if !here {
            let slots = self.inner.download_slots(remote.host());
            let Ok(_slot) = slots.acquire().await else {
                unreachable!("the semaphore is never closed");
            };
            self.download(remote, &layer.blob, progress).await?;
            progress(Progress::of(id, "Download complete"));
        }
        if !artifact {
            progress(Progress::counted(id, "Extracting", layer.blob.size, layer.blob.size));
            layers::unpacked(&self.inner, layer).await?;
        }
        progress(Progress::of(id, "Pull complete"));
        Ok(())
    }

    async fn download(&self, remote: &Remote, blob: &Descriptor, progress: OnProgress<'_>) -> Result<(), ImageError> {
        let what = format!("layer {}", blob.digest);
        // Before the disk is full of it.
        let limit = self.inner.settings.limits.layer_bytes;
        if blob.size > limit {
            return Err(ImageError::TooLarge { what, limit });
        }
        let (chunks, mut incoming) = mpsc::channel::<bytes::Bytes>(16);
        let inner = self.inner.clone();
        // Writes and hashes while the next bytes are on their way; ends when the channel closes.
        let writer = tokio::spawn(blocking("write a layer", move || {
            let mut file = Ingest::new(&inner)?;
            while let Some(chunk) = incoming.blocking_recv() {
                file.write(&chunk)?;
            }
            Ok(file)
        }));
        let received = receive(remote, blob, &what, &chunks, progress).await;
        drop(chunks);
        let written = writer.await.map_err(|source| ImageError::Task { attempt: "write a layer", source })?;
        // A writer that failed is why nothing more could be received.
        let file = written?;
        received?;
        progress(Progress::of(blob.digest.short(), "Verifying Checksum"));
        let (inner, digest) = (self.inner.clone(), blob.digest.clone());
        blocking("store a layer", move || {
            // A pull that is given up meanwhile finds the blob in use, and leaves it to us.
            let mut claim = GcGuard::new(&inner);
            claim.blob(&digest);
            file.finish(&inner, &digest, &what)
        })
        .await
    }
}

/// How fast a server sends. One that lets a byte drip now and then is never silent, and never done. Counted is the time in
/// which something came: who says nothing at first, as a cache that fetches a layer itself, is given up for that and asked
/// again.
#[derive(Default)]
struct Pace {
    waited: Duration,
    bytes: usize,
}

impl Pace {
    const LEAST: usize = 64 << 10;
    const WITHIN: Duration = Duration::from_mins(1);

    /// Whether enough came, with these `bytes`, which were `waited` for.
    fn keeps_up(&mut self, waited: Duration, bytes: usize) -> bool {
        self.waited += waited;
        self.bytes += bytes;
        if self.waited < Self::WITHIN {
            return true;
        }
        let enough = self.bytes >= Self::LEAST;
        *self = Self::default();
        enough
    }
}

/// Receives a blob, taking it up again where a connection broke. Attempts count from the last 64 KiB that arrived.
async fn receive(
    remote: &Remote,
    blob: &Descriptor,
    what: &str,
    chunks: &mpsc::Sender<bytes::Bytes>,
    progress: OnProgress<'_>,
) -> Result<(), ImageError> {
    let id = blob.digest.short();
    let (mut done, mut reported, mut attempt) = (0_u64, 0_u64, 0_u32);
    // What was there when attempts were last counted anew.
    let mut before = 0;
    let mut pace = Pace::default();
    while done < blob.size {
        let failure = match remote.blob(&blob.digest, done).await {
            Ok((resumed, mut stream)) => {
                // A server that cannot resume sends all of it again.
                let mut skip = if resumed { 0 } else { done };
                loop {
                    let asked = Instant::now();
                    let mut chunk = match stream.next().await {
                        Some(Ok(chunk)) => chunk,
                        Some(Err(error)) => break remote.broken("fetch a layer", &error),
                        None => {
                            let early = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                            break remote.broken("fetch a layer", &early);
                        }
                    };
                    if !pace.keeps_up(asked.elapsed(), chunk.len()) {
                        let slow = "less than 64 KiB came within a minute: try again later, or elsewhere";
                        let slow = std::io::Error::new(std::io::ErrorKind::TimedOut, slow);
                        return Err(remote.broken("fetch a layer", &slow).error);
                    }
                    let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
                    skip -= skipped as u64;
                    bytes::Buf::advance(&mut chunk, skipped);
                    done += chunk.len() as u64;
                    if done > blob.size {
                        let (what, expected) = (what.to_owned(), blob.size);
                        return Err(ImageError::SizeMismatch { what, expected, actual: done });
                    }
                    if chunks.send(chunk).await.is_err() {
                        // The writer has the error.
                        return Ok(());
                    }
                    if done - reported >= REPORT_EVERY || done == blob.size {
                        reported = done;
                        progress(Progress::counted(id, "Downloading", done, blob.size));
                    }
                    if done == blob.size {
                        return Ok(());
                    }
                }
            }
            Err(failure) => failure,
        };
        // A byte for each request would go on for ever.
        if done - before >= Pace::LEAST as u64 {
            (attempt, before) = (0, done);
        } else {
            attempt += 1;
        }
        if failure.unauthorized && attempt <= 1 {
            // The token ran out on the way.
            remote.log_in().await.map_err(|failure| failure.error)?;
            continue;
        }
        if !failure.retry || attempt >= ATTEMPTS {
            return Err(failure.error);
        }
        tracing::debug!(layer = id, at = done, error = %failure.error, "fetching the rest of a layer again");
        back_off(attempt).await;
    }
    Ok(())
}

/// Finds the manifest and configuration for the platform.
async fn offer(remote: &Remote, reference: &Reference, platform: Option<&Platform>) -> Result<Offer, ImageError> {
    let (mut bytes, digest) = remote.manifest(reference.version()).await?;
    let mut listed = None;
    let what = format!("manifest of {}", reference.familiar());
    let manifest = match Document::parse(&bytes, &what)? {
        Document::Manifest(manifest) => manifest,
        Document::Index(entries) => {
            let (entry, entry_platform) = choose(&entries, platform, reference)?;
            let what = format!("manifest {}", entry.digest);
            let (entry_bytes, _) = remote.manifest(entry.digest.as_str()).await?;
            if entry_bytes.len() as u64 != entry.size {
                let (expected, actual) = (entry.size, entry_bytes.len() as u64);
                return Err(ImageError::SizeMismatch { what, expected, actual });
            }
            let Document::Manifest(manifest) = Document::parse(&entry_bytes, &what)? else {
                return Err(ImageError::malformed(what, "an index within an index cannot be pulled"));
            };
            bytes = entry_bytes;
            listed = entry_platform;
            manifest
        }
    };
    let config = &manifest.config;
    let what = format!("configuration {}", config.digest);
    let config = remote.document(&config.digest, config.size, &what).await?;
    Ok(Offer { digest, manifest_bytes: bytes, manifest, listed, config })
}

fn choose(
    entries: &[(Descriptor, Option<Platform>)],
    platform: Option<&Platform>,
    reference: &Reference,
) -> Result<(Descriptor, Option<Platform>), ImageError> {
    let wanted: Vec<Platform> = match platform {
        Some(platform) => vec![platform.clone()],
        None => vec![Platform::host(), Platform::wasm()],
    };
    let serves = |wanted: &Platform| entries.iter().find(|(_, own)| own.as_ref().is_some_and(|own| own.serves(wanted)));
    if let Some((entry, own)) = wanted.iter().find_map(serves) {
        return Ok((entry.clone(), own.clone()));
    }
    // An index that does not say what its only entry runs on: its configuration will.
    if let [(entry, None)] = entries {
        return Ok((entry.clone(), None));
    }
    let platforms = entries.iter().filter_map(|(_, own)| own.as_ref()).filter(|own| own.os != "unknown");
    Err(ImageError::NoPlatform {
        name: reference.familiar(),
        wanted: platform.cloned().unwrap_or_else(Platform::host),
        offered: offered(platforms),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_drips_does_not_keep_up_and_who_is_slow_does() {
        let seconds = Duration::from_secs;
        let mut dripping = Pace::default();
        assert!((0..5).all(|_| dripping.keeps_up(seconds(10), 1)));
        assert!(!dripping.keeps_up(seconds(10), 1));
        let mut slow = Pace::default();
        assert!((0..60).all(|_| slow.keeps_up(seconds(20), 30 << 10)));
    }
}
