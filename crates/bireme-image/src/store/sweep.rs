//! What an earlier run, an older version or a lost database left of the store, set right when it is opened.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use chrono::Utc;

use super::Inner;
use crate::digest::Digest;
use crate::error::{ImageError, StoreContext as _};

/// The file by which nothing is swept.
const KEPT: &str = "kept";

/// Clears away what an earlier run left half-made. A layer may be of millions of folders, which nobody waits for.
pub(crate) fn clear_leftovers(root: &Path, ingest: &Path) {
    const ASIDE: &str = "ingest-left-";
    let aside = root.join(format!("{ASIDE}{}", Utc::now().timestamp_micros()));
    if let Err(error) = std::fs::rename(ingest, &aside)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        // Names in there are never used twice; what cannot be deleted only takes space.
        tracing::warn!(path = %ingest.display(), %error, "cannot move away what an earlier run left half-made");
    }
    let left = std::fs::read_dir(root).into_iter().flatten().flatten();
    let left: Vec<PathBuf> = left
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.as_encoded_bytes();
            name.starts_with(ASIDE.as_bytes()) || name.starts_with(b".tmp")
        })
        .map(|entry| entry.path())
        .collect();
    let clear = move || {
        for path in left {
            let cleared = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            if let Err(error) = cleared {
                tracing::warn!(path = %path.display(), %error, "cannot delete what an earlier run left half-made");
            }
        }
    };
    // Not of the runtime, which waits for its own at its end.
    if let Err(error) = std::thread::Builder::new().name("clearing".to_owned()).spawn(clear) {
        tracing::warn!(%error, "what an earlier run left half-made is deleted at the next start");
    }
}

/// Closes files that an older version left open to all users of the machine.
pub(crate) fn close_to_others(inner: &Inner) {
    use std::os::unix::fs::PermissionsExt as _;
    let open = |path: &Path| std::fs::metadata(path).is_ok_and(|about| about.permissions().mode() & 0o077 != 0);
    for folder in ["blobs", "blobs/sha256", "components"] {
        let _ = std::fs::set_permissions(inner.root.join(folder), std::fs::Permissions::from_mode(0o700));
    }
    for folder in ["blobs/sha256", "components"] {
        let files = std::fs::read_dir(inner.root.join(folder)).into_iter().flatten().flatten();
        for path in files.map(|file| file.path()).filter(|path| open(path)) {
            if let Err(error) = std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)) {
                tracing::warn!(path = %path.display(), %error, "a file of the image store cannot be closed to others");
            }
        }
    }
}

/// Where the database was lost, layers that it knew nothing of may be in use by containers: they are kept, now and at
/// later starts, until somebody removes the mark.
pub(crate) fn keep_what_a_lost_database_knew(inner: &Inner, lost: bool) -> Result<(), ImageError> {
    let layers: Vec<_> = std::fs::read_dir(inner.root.join("layers/sha256")).into_iter().flatten().flatten().collect();
    let blobs = std::fs::read_dir(inner.root.join("blobs/sha256")).into_iter().flatten().next();
    if !lost || (layers.is_empty() && blobs.is_none()) {
        return Ok(());
    }
    let mark = inner.root.join(KEPT);
    let text = "The image database was lost, or is older than it was, and layers are kept that it may not know. Remove this file to have those \
                removed that no image has, when the engine starts next.\n";
    std::fs::write(&mark, text).during("write", &mark)?;
    tracing::warn!(mark = %mark.display(), "the image database was lost, or is older than it was: layers are kept that it may not know");
    for layer in layers {
        let digest = layer.file_name().to_str().and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok());
        if let Some(digest) = digest {
            inner.db.adopt_unpacked(&digest)?;
        }
    }
    Ok(())
}

/// Makes files and database agree after a crash: files without a row go, rows without a file go. Nothing does where
/// [`keep_what_a_lost_database_knew`] left its mark.
pub(crate) fn sweep(inner: &Inner) -> Result<(), ImageError> {
    if inner.root.join(KEPT).exists() {
        return Ok(());
    }
    let known = inner.db.referenced()?;
    let blobs: HashSet<&str> = known.blobs.iter().map(Digest::hex).collect();
    let layers: HashSet<&str> = known.diff_ids.iter().map(Digest::hex).collect();
    let components: HashSet<String> = known.components.iter().map(|digest| format!("{}.wasm", digest.hex())).collect();
    let clear = |folder: &str, keep: &dyn Fn(&str) -> bool| -> Result<(), ImageError> {
        let folder = inner.root.join(folder);
        for entry in std::fs::read_dir(&folder).during("list", &folder)? {
            let entry = entry.during("list", &folder)?;
            if entry.file_name().to_str().is_some_and(keep) {
                continue;
            }
            let path = entry.path();
            let gone = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            if let Err(error) = gone {
                tracing::warn!(path = %path.display(), %error, "what no image has any more cannot be deleted");
            }
        }
        Ok(())
    };
    clear("blobs/sha256", &|name| blobs.contains(name))?;
    clear("layers/sha256", &|name| layers.contains(name))?;
    clear("components", &|name| components.contains(name))?;
    // On a full disk the engine starts all the same: what is not forgotten now is at the next open.
    let lost = known.diff_ids.iter().filter(|diff_id| !inner.layer_path(diff_id).is_dir());
    let forgotten =
        inner.db.forget_unused().and_then(|()| lost.into_iter().try_for_each(|one| inner.db.forget_unpacked(one)));
    if let Err(error) = forgotten {
        tracing::warn!(error = &error as &dyn std::error::Error, "what is no longer unpacked cannot be forgotten");
    }
    Ok(())
}
