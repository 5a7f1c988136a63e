//! Folders for what is being made, and how much of a text is read.

use std::path::Path;

use tempfile::TempDir;

use crate::error::{ImageError, StoreContext as _};

/// Largest Dockerfile or `.dockerignore` that is read, in bytes.
pub const TEXT_LIMIT: u64 = 1 << 20;

/// A new folder for what is being made.
pub(super) fn aside(ingest: &Path, prefix: &str) -> Result<TempDir, ImageError> {
    tempfile::Builder::new().prefix(prefix).tempdir_in(ingest).during("create a folder in", ingest)
}
