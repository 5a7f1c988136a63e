//! Which files may not be deleted now, and the deletion of the others.

use std::sync::Arc;

use super::Inner;
use crate::db::Garbage;
use crate::digest::Digest;

/// What is pinned of a digest: a layer that is stored as it is has one digest as a blob and as a folder, and whoever needs the
/// folder need not need the blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    Blob,
    /// A layer as it is unpacked.
    Folder,
}

/// Keeps a blob or layer from being deleted while it lives.
pub(crate) struct Pin {
    inner: Arc<Inner>,
    pinned: (Part, Digest),
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.inner.pins.lock();
        if let Some(count) = pins.get_mut(&self.pinned) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.pinned);
            }
        }
    }
}

impl Inner {
    /// Keeps a part of `digest` from being deleted until the answer is dropped. Pin first, then look whether the file is there.
    pub(crate) fn pin(self: &Arc<Self>, part: Part, digest: &Digest) -> Pin {
        let pinned = (part, digest.clone());
        *self.pins.lock().entry(pinned.clone()).or_default() += 1;
        Pin { inner: self.clone(), pinned }
    }

    /// Deletes files that nothing refers to. What another task has pinned or recorded meanwhile stays; what cannot be
    /// deleted is swept at the next open.
    pub(crate) fn discard(&self, garbage: &Garbage) {
        // Held throughout, so that nobody finds a file and then loses it.
        let pins = self.pins.lock();
        let mut doomed = Vec::new();
        for digest in &garbage.blobs {
            let pinned = pins.contains_key(&(Part::Blob, digest.clone()));
            if !pinned && matches!(self.db.uses_blob(digest), Ok(false)) {
                let path = self.blob_path(digest);
                if let Err(error) = std::fs::remove_file(&path)
                    && error.kind() != std::io::ErrorKind::NotFound
                {
                    tracing::warn!(path = %path.display(), %error, "cannot delete a layer that is no longer used");
                }
            }
        }
        for digest in &garbage.diff_ids {
            let pinned = pins.contains_key(&(Part::Folder, digest.clone()));
            if !pinned && matches!(self.db.uses_diff_id(digest), Ok(false)) {
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
