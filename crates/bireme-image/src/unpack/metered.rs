//! The digest of what a layer unpacks to, and the bound on its length.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

use bireme_core::error::chain;
use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::error::ImageError;

/// Counts and hashes a stream, and breaks it off beyond a limit.
pub(super) struct Metered<R> {
    pub(super) inner: R,
    pub(super) hash: Sha256,
    /// Bytes so far.
    pub(super) count: Rc<Cell<u64>>,
    /// Bytes.
    pub(super) limit: u64,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.hash.update(&buffer[..got]);
        self.count.set(self.count.get() + got as u64);
        if self.count.get() > self.limit {
            return Err(io::Error::other("larger than allowed"));
        }
        Ok(got)
    }
}

/// The digest of all that `unpacked` gives, which is `most` bytes at most. `layer` names it in errors.
///
/// # Errors
/// `Bomb`; `BadLayer` where it cannot be read.
pub(crate) fn digest_unpacked(unpacked: impl Read, layer: &str, most: u64) -> Result<Digest, ImageError> {
    let count = Rc::new(Cell::new(0));
    let mut metered = Metered { inner: unpacked, hash: Sha256::new(), count: count.clone(), limit: most };
    match io::copy(&mut metered, &mut io::sink()) {
        Ok(_) => Ok(Digest::from_hash(metered.hash)),
        Err(_) if count.get() > most => Err(ImageError::Bomb { layer: layer.to_owned(), limit: most }),
        Err(error) => Err(ImageError::BadLayer { layer: layer.to_owned(), reason: chain(&error) }),
    }
}
