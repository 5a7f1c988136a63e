//! Steps that need not be carried out: what an earlier build made of them, or another that is at the same step now.

use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;

use super::shared::Shared;
use super::stage::Stage;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::layers;
use crate::record::Layer;
use crate::store::Inner;

/// A step that is about to be carried out by this build alone.
pub(super) struct Turn<'a> {
    shared: &'a Shared<'a>,
    key: Digest,
    _alone: OwnedMutexGuard<()>,
}

/// What is to be done about a step.
pub(super) enum Known<'a> {
    /// Nothing: this is what it makes, `None` if that is nothing.
    Made(Option<Layer>),
    /// To carry it out.
    Unknown(Turn<'a>),
}

impl<'a> Shared<'a> {
    /// What a step makes that was carried out before. Another build that is at the same step is waited for.
    pub(super) async fn known(&'a self, stage: &Stage, key: Digest, created_by: &str) -> Result<Known<'a>, ImageError> {
        let inner = &self.store.inner;
        let alone = turn(inner, &key).await;
        // What this very build did is done, whatever else it takes from nowhere.
        let found = match self.done(&key) {
            Some(done) => Some(done),
            None if stage.no_cache => None,
            None => match self.cache.find(inner, stage, &key, created_by)? {
                Some(found) => Some(found),
                None => self.imported(&key).await,
            },
        };
        let Some(found) = found else { return Ok(Known::Unknown(Turn { shared: self, key, _alone: alone })) };
        if let Some(layer) = &found {
            self.claim(layer);
            // Pinned first, then looked for: it may have been cleared away meanwhile.
            if !inner.blob_path(&layer.blob.digest).is_file() {
                return Ok(Known::Unknown(Turn { shared: self, key, _alone: alone }));
            }
            layers::unpacked(inner, layer).await?;
        }
        Ok(Known::Made(found))
    }
}

impl Turn<'_> {
    /// Notes what it made.
    pub(super) fn done(self, layer: Option<&Layer>, description: &str) -> Result<(), ImageError> {
        let inner = &self.shared.store.inner;
        inner.db.set_step(&self.key, layer, description)?;
        self.shared.set_done(&self.key, layer);
        Ok(())
    }
}

async fn turn(inner: &Inner, key: &Digest) -> OwnedMutexGuard<()> {
    let lock = {
        let mut turns = inner.turns.lock();
        turns.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(turns.entry(key.clone()).or_default())
    };
    lock.lock_owned().await
}
