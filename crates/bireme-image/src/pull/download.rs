//! One blob, from a registry or a client into the store: written aside, hashed as it comes, and renamed into place.
//!
//! A connection that breaks is taken up where it broke. Several pulls that want the same blob at once fetch it once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio_util::io::SyncIoBridge;

use crate::blob::Ingest;
use crate::blocking::blocking;
use crate::content_store::ContentStore;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::events::{OnProgress, Progress};
use crate::guard::GcGuard;
use crate::model::Descriptor;
use crate::registry::{Remote, Sources, Tries};
use crate::store::{Fetching, Inner};
use crate::wanted::while_wanted;

/// Bytes between two progress lines of one layer.
const REPORT_EVERY: u64 = 512 << 10;

/// Time between two lines about a layer that another pull fetches.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// One of those that want the same blob. When the last is gone, nothing is left of it.
struct Turn<'a> {
    inner: &'a Inner,
    digest: &'a Digest,
    fetching: Arc<Fetching>,
}

impl<'a> Turn<'a> {
    fn of(inner: &'a Inner, digest: &'a Digest) -> Self {
        let mut running = inner.fetching.lock();
        Self { inner, digest, fetching: running.entry(digest.clone()).or_default().clone() }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut running = self.inner.fetching.lock();
        if Arc::strong_count(&self.fetching) <= 2 {
            running.remove(self.digest);
        }
    }
}

/// Fetches a blob, unless `here` says that it is there by now: another pull may have fetched it meanwhile.
///
/// # Errors
/// Those of the last place that was asked; `NoSpace`.
/// # Cancel safety
/// Dropping the future ends the fetching; another pull that waits for it begins anew.
pub(super) async fn fetched(
    inner: &Arc<Inner>,
    sources: &Sources,
    blob: &Descriptor,
    here: impl Fn() -> Result<bool, ImageError>,
    progress: OnProgress<'_>,
) -> Result<(), ImageError> {
    // Before the disk is full of it.
    let limit = inner.settings.limits.layer_bytes;
    if blob.size > limit {
        return Err(ImageError::TooLarge { what: format!("layer {}", blob.digest), limit });
    }
    let turn = Turn::of(inner, &blob.digest);
    let done = &turn.fetching.done;
    let mut turns = std::pin::pin!(turn.fetching.turn.lock());
    let _mine = loop {
        tokio::select! {
            biased;
            mine = &mut turns => break mine,
            () = tokio::time::sleep(LOOK_EVERY) => {
                let done = done.load(Ordering::Relaxed).min(blob.size);
                progress(Progress::counted(blob.digest.short(), "Downloading", done, blob.size));
            }
        }
    };
    if here()? {
        return Ok(());
    }
    let Ok(_slot) = sources.slots.acquire().await else {
        unreachable!("the semaphore is never closed");
    };
    let mut ended = None;
    for (at, remote) in sources.left().filter(|(_, remote)| remote.can.pull) {
        done.store(0, Ordering::Relaxed);
        match fetch_from(inner, remote, blob, done, progress).await {
            Ok(()) => return Ok(()),
            // It is not the registry's fault.
            Err(error) if is_ours(&error) => return Err(error),
            Err(error) => {
                sources.told(at, remote, &error);
                ended = Some(error);
            }
        }
    }
    Err(ended.unwrap_or_else(|| sources.nobody("pull")))
}

/// Fetches a blob from a client's content store.
///
/// # Errors
/// `Content`, `DigestMismatch`, `SizeMismatch`, `TooLarge`; `NoSpace`.
/// # Cancel safety
/// Dropping the future deletes what was fetched.
pub(super) async fn copied(inner: &Arc<Inner>, store: &dyn ContentStore, blob: &Descriptor) -> Result<(), ImageError> {
    let limit = inner.settings.limits.layer_bytes;
    if blob.size > limit {
        return Err(ImageError::TooLarge { what: format!("layer {}", blob.digest), limit });
    }
    let content = store.read(&blob.digest).await?;
    let (inner, blob) = (Arc::clone(inner), blob.clone());
    while_wanted("write a layer", move |wanted| {
        let what = format!("layer {}", blob.digest);
        let mut file = Ingest::new(&inner)?;
        let mut content = wanted.lend(SyncIoBridge::new(content));
        file.copy_from(&mut content, blob.size, &what)?;
        let actual = file.written();
        if actual != blob.size {
            return Err(ImageError::SizeMismatch { what, expected: blob.size, actual });
        }
        file.finish(&inner, &blob.digest, &what)
    })
    .await
}

/// Whether no other registry would help.
fn is_ours(error: &ImageError) -> bool {
    matches!(error, ImageError::NoSpace { .. } | ImageError::Store { .. } | ImageError::Task { .. })
}

async fn fetch_from(
    inner: &Arc<Inner>,
    remote: &Remote,
    blob: &Descriptor,
    done: &AtomicU64,
    progress: OnProgress<'_>,
) -> Result<(), ImageError> {
    let slots = inner.download_slots(remote.host());
    let Ok(_slot) = slots.acquire().await else {
        unreachable!("the semaphore is never closed");
    };
    let what = format!("layer {}", blob.digest);
    let (chunks, mut incoming) = mpsc::channel::<bytes::Bytes>(16);
    let writing = inner.clone();
    // Writes and hashes while the next bytes are on their way; ends when the channel closes.
    let writer = tokio::spawn(blocking("write a layer", move || {
        let mut file = Ingest::new(&writing)?;
        while let Some(chunk) = incoming.blocking_recv() {
            file.write(&chunk)?;
        }
        Ok(file)
    }));
    let mut incoming = Incoming { remote, blob, what: &what, chunks: &chunks, done, progress, pace: Pace::default() };
    let received = incoming.receive().await;
    drop(chunks);
    let written = writer.await.map_err(|source| ImageError::Task { attempt: "write a layer", source })?;
    // A writer that failed is why nothing more could be received.
    let file = written?;
    received?;
    progress(Progress::of(blob.digest.short(), "Verifying Checksum"));
    let (inner, digest) = (inner.clone(), blob.digest.clone());
    blocking("store a layer", move || {
        // A pull that is given up meanwhile finds the blob in use, and leaves it to us.
        let mut claim = GcGuard::new(&inner);
        claim.blob(&digest);
        file.finish(&inner, &digest, &what)
    })
    .await
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

/// A blob on its way from one place.
struct Incoming<'a> {
    remote: &'a Remote,
    blob: &'a Descriptor,
    what: &'a str,
    chunks: &'a mpsc::Sender<bytes::Bytes>,
    /// Bytes so far.
    done: &'a AtomicU64,
    progress: OnProgress<'a>,
    pace: Pace,
}

impl Incoming<'_> {
    /// Receives a blob, taking it up again where a connection broke. Attempts count from the last 64 KiB that arrived.
    async fn receive(&mut self) -> Result<(), ImageError> {
        let mut tries = Tries::default();
        // What was there when attempts were last counted anew.
        let mut before = 0;
        while self.done() < self.blob.size {
            let failure = match self.remote.blob(&self.blob.digest, self.done()).await {
                Ok((resumed, stream)) => {
                    // A server that cannot resume sends all of it again.
                    let skip = if resumed { 0 } else { self.done() };
                    match self.take(stream, skip).await? {
                        None => return Ok(()),
                        Some(error) => self.remote.broken("fetch a layer", &error),
                    }
                }
                Err(failure) => failure,
            };
            // A byte for each request would go on for ever.
            if self.done() - before >= Pace::LEAST as u64 {
                tries.anew();
                before = self.done();
            }
            tries.again(self.remote, failure).await?;
        }
        Ok(())
    }

    fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Takes what comes, but for its first `skip` bytes, until all is there; answers what broke it off.
    async fn take(
        &mut self,
        mut stream: futures::stream::BoxStream<'static, std::io::Result<bytes::Bytes>>,
        mut skip: u64,
    ) -> Result<Option<std::io::Error>, ImageError> {
        let (id, size) = (self.blob.digest.short(), self.blob.size);
        let mut reported = self.done();
        loop {
            let asked = Instant::now();
            let mut chunk = match stream.next().await {
                Some(Ok(chunk)) => chunk,
                Some(Err(error)) => return Ok(Some(error)),
                None => return Ok(Some(std::io::ErrorKind::UnexpectedEof.into())),
            };
            if !self.pace.keeps_up(asked.elapsed(), chunk.len()) {
                let slow = "less than 64 KiB came within a minute: try again later, or elsewhere";
                let slow = std::io::Error::new(std::io::ErrorKind::TimedOut, slow);
                return Err(self.remote.broken("fetch a layer", &slow).error);
            }
            let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
            skip -= skipped as u64;
            bytes::Buf::advance(&mut chunk, skipped);
            let done = self.done() + chunk.len() as u64;
            if done > size {
                return Err(ImageError::SizeMismatch { what: self.what.to_owned(), expected: size, actual: done });
            }
            if self.chunks.send(chunk).await.is_err() {
                // The writer has the error.
                return Ok(None);
            }
            self.done.store(done, Ordering::Relaxed);
            if done - reported >= REPORT_EVERY || done == size {
                reported = done;
                (self.progress)(Progress::counted(id, "Downloading", done, size));
            }
            if done == size {
                return Ok(None);
            }
        }
    }
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
