//! Files named by their content: written aside, verified, renamed into place.

use std::io::{Read, Write as _};
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};
use tempfile::{NamedTempFile, TempPath};

use crate::digest::Digest;
use crate::error::{ImageError, StoreContext as _};
use crate::store::Inner;

/// A file being written; deleted unless it is finished.
pub(crate) struct Ingest {
    file: NamedTempFile,
    hash: Sha256,
    written: u64,
}

impl Ingest {
    pub(crate) fn new(inner: &Inner) -> Result<Self, ImageError> {
        let folder = inner.ingest();
        let file = tempfile::Builder::new().prefix("blob-").tempfile_in(&folder).during("create a file in", &folder)?;
        Ok(Self { file, hash: Sha256::new(), written: 0 })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        self.file.as_file_mut().write_all(bytes).during("write", self.file.path())?;
        self.hash.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Bytes so far.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Takes everything `from` has, if that is not more than `limit` bytes. `what` names it in errors.
    pub(crate) fn copy_from(&mut self, from: &mut impl Read, limit: u64, what: &str) -> Result<(), ImageError> {
        let mut buffer = vec![0; 1 << 17];
        loop {
            let got = from.read(&mut buffer).map_err(|source| ImageError::Input { source })?;
            if got == 0 {
                return Ok(());
            }
            if self.written + got as u64 > limit {
                return Err(ImageError::TooLarge { what: what.to_owned(), limit });
            }
            self.write(&buffer[..got])?;
        }
    }

    /// Closes it and leaves it aside, to be moved or dropped later.
    pub(crate) fn aside(self) -> Result<(TempPath, Digest), ImageError> {
        self.closed()?;
        self.file.as_file().sync_data().during("write", self.file.path())?;
        Ok((self.file.into_temp_path(), Digest::from_hash(self.hash)))
    }

    /// Closed to others, as temporary files are: a component's host is handed what it reads.
    fn closed(&self) -> Result<(), ImageError> {
        let closed = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        self.file.as_file().set_permissions(closed).during("set the mode of", self.file.path())
    }

    /// Puts it into the place that `path` gives for its digest.
    pub(crate) fn finish_as(self, path: impl FnOnce(&Digest) -> PathBuf) -> Result<Digest, ImageError> {
        // Before the rename: after a power failure the name must not stand for an empty file.
        self.file.as_file().sync_data().during("write", self.file.path())?;
        self.closed()?;
        let digest = Digest::from_hash(self.hash);
        let path = path(&digest);
        self.file.persist(&path).map_err(|error| ImageError::store("put in its place", &path, error.error))?;
        Ok(digest)
    }

    /// Puts it among the blobs if it is what it should be.
    pub(crate) fn finish(self, inner: &Inner, expected: &Digest, what: &str) -> Result<(), ImageError> {
        let actual = Digest::from_hash(self.hash.clone());
        if actual != *expected {
            return Err(ImageError::DigestMismatch { what: what.to_owned(), expected: expected.clone(), actual });
        }
        self.finish_as(|digest| inner.blob_path(digest)).map(|_| ())
    }
}
