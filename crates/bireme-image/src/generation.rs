//! Whether the database is as new as it was.
//!
//! A database that lost its newest changes is as sound as any other. So the number of its changes is written beside it: where
//! that is ahead, files that the database does not know may be in use.

use std::io::Write as _;
use std::path::PathBuf;

use crate::error::ImageError;
use crate::store::Inner;

/// Whether the database is older than it was: changes that had been made are not in it. To be asked once, at open.
pub(crate) fn was_rolled_back(inner: &Inner) -> Result<bool, ImageError> {
    let written = std::fs::read_to_string(path(inner)).ok().and_then(|text| text.trim().parse::<i64>().ok());
    let known = inner.db.generation()?;
    if written != Some(known) {
        write(inner, known);
    }
    Ok(written.is_some_and(|written| written > known))
}

/// Notes how many changes the database has, after the last of them is on the disk.
pub(crate) fn note(inner: &Inner) {
    match inner.db.generation() {
        Ok(number) => write(inner, number),
        Err(error) => tracing::warn!(%error, "the number of changes of the image database is not known"),
    }
}

fn path(inner: &Inner) -> PathBuf {
    inner.root.join("generation")
}

fn write(inner: &Inner, number: i64) {
    let path = path(inner);
    let write = || {
        let mut file = tempfile::NamedTempFile::new_in(&inner.root)?;
        writeln!(file, "{number}")?;
        file.as_file().sync_all()?;
        file.persist(&path).map(drop).map_err(|error| error.error)
    };
    if let Err(error) = write() {
        // A smaller number than there is does no harm.
        tracing::warn!(path = %path.display(), %error, "the number of changes of the image database is not noted");
    }
}
