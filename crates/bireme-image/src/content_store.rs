//! Blobs that are neither here nor in a registry: a client keeps them, in a folder that is an OCI layout.
//!
//! Source: containerd, `core/content`; OCI image specification, `image-layout.md`.

use bireme_core::BoxFuture;
use tokio::io::AsyncRead;

use crate::digest::Digest;
use crate::error::ImageError;

/// What a blob is read from.
pub type BlobReader = Box<dyn AsyncRead + Send + Unpin>;

/// A client's store of blobs.
pub trait ContentStore: Send + Sync {
    /// Opens a blob. Neither its size nor its digest is checked.
    ///
    /// # Errors
    /// `Content` when it is not there, or the client does not answer.
    fn read<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<BlobReader, ImageError>>;

    /// Whether it has a blob.
    ///
    /// # Errors
    /// `Content` when the client does not answer.
    fn has<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<bool, ImageError>>;

    /// Stores a blob of `size` bytes, unless it is there.
    ///
    /// # Errors
    /// `Content` when the client does not take it.
    /// # Cancel safety
    /// Dropping the future leaves no blob.
    fn write<'a>(&'a self, digest: &'a Digest, size: u64, content: BlobReader)
    -> BoxFuture<'a, Result<(), ImageError>>;
}
