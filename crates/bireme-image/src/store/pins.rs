//! Which files may not be deleted now, and the deletion of the others.

use std::sync::Arc;

use super::Inner;
use crate::db::Garbage;
use crate::digest::Digest;

/// Keeps a blob or layer from being deleted while it lives.
pub(crate) struct Pin {
    inner: Arc<Inner>,
    digest: Digest,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.inner.pins.lock();
        if let Some(count) = pins.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.digest);
            }
        }
    }
}

impl Inner {
    /// Keeps `digest` from being deleted until the answer is dropped. Pin first, then look whether the file is there.
    pub(crate) fn pin(self: &Arc<Self>, digest: &Digest) -> Pin {
        let mut pins = self.pins.lock();
        *pins.entry(digest.clone()).or_default() += 1;
        Pin { inner: self.clone(), digest: digest.clone() }
    }

    /// Deletes files that nothing refers to. What another task has pinned or recorded meanwhile stays; what cannot be
    /// deleted is swept at the next open.
    pub(crate) fn discard(&self, garbage: &Garbage) {
        // Held throughout, so that nobody finds a file and then loses it.
        let pins = self.pins.lock();
        let mut doomed = Vec::new();
        for digest in &garbage.blobs {
            if !pins.contains_key(digest) && matches!(self.db.uses_blob(digest), Ok(false)) {
                let path = self.blob_path(digest);
                if let Err(error) = std::fs::remove_file(&path)
                    && error.kind() != std::io::ErrorKind::NotFound
                {
                    tracing::warn!(path = %path.display(), %error, "cannot delete a layer that is no longer used");
                }
            }
        }
        for digest in &garbage.diff_ids {
            if !pins.contains_key(digest) && matches!(self.db.uses_diff_id(digest), Ok(false)) {
                // Renamed first: a folder half deleted must never be found under its name. A row without its folder is
                // no unpacked layer, and the next open removes it.
                let doom = self.ingest().join(format!("gone-{}", digest.hex()));
                if std::fs::rename(self.layer_path(digest), &doom).is_ok() {
                    doomed.push(doom);
                }
                if let Err(error) = self.db.forget_unpacked(digest) {
                    tracing::warn!(%digest, %error, "cannot forget an unpacked layer that is no longer used");
                }
            }
        }
        for digest in &garbage.components {
            let _ = std::fs::remove_file(self.component_path(digest));
        }
        drop(pins);
        for path in doomed {
            if let Err(error) = std::fs::remove_dir_all(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot delete an unpacked layer that is no longer used");
            }
        }
    }
}
