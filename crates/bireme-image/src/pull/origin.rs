//! Where an image is taken from: registries, or a client's content store.

use std::sync::Arc;

use tokio::io::AsyncReadExt as _;

use crate::content_store::ContentStore;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::model::DOCUMENT_LIMIT;
use crate::registry::Sources;

/// Where manifests, configurations and layers of one image are.
pub(crate) enum Origin {
    /// Its registry, and mirrors of it.
    Registry(Sources),
    /// A folder of a client.
    Client(Arc<dyn ContentStore>),
}

impl Origin {
    /// Fetches a manifest or index by tag or digest; of a client by digest alone.
    ///
    /// # Errors
    /// Those of the last place that was asked; `DigestMismatch`, `TooLarge`.
    pub(super) async fn manifest(&self, version: &str) -> Result<(Vec<u8>, Digest), ImageError> {
        match self {
            Self::Registry(sources) => sources.manifest(version).await,
            Self::Client(store) => {
                let digest: Digest = version.parse()?;
                let bytes = document(&**store, &digest, DOCUMENT_LIMIT, &format!("manifest {digest}")).await?;
                Ok((bytes, digest))
            }
        }
    }

    /// Fetches a small blob into memory; its digest and size are checked.
    ///
    /// # Errors
    /// As [`Self::manifest`].
    pub(super) async fn document(&self, digest: &Digest, size: u64, what: &str) -> Result<Vec<u8>, ImageError> {
        match self {
            Self::Registry(sources) => sources.document(digest, size, what).await,
            Self::Client(store) => {
                let bytes = document(&**store, digest, size.min(DOCUMENT_LIMIT), what).await?;
                let actual = bytes.len() as u64;
                if actual != size {
                    return Err(ImageError::SizeMismatch { what: what.to_owned(), expected: size, actual });
                }
                Ok(bytes)
            }
        }
    }
}

/// Reads a blob of at most `limit` bytes and checks its digest.
async fn document(store: &dyn ContentStore, digest: &Digest, limit: u64, what: &str) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    let content = store.read(digest).await?;
    content.take(limit + 1).read_to_end(&mut bytes).await.map_err(|source| ImageError::Input { source })?;
    if bytes.len() as u64 > limit {
        return Err(ImageError::TooLarge { what: what.to_owned(), limit });
    }
    let actual = Digest::of(&bytes);
    if actual != *digest {
        return Err(ImageError::DigestMismatch { what: what.to_owned(), expected: digest.clone(), actual });
    }
    Ok(bytes)
}
