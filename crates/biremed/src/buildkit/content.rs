//! A content store of a build's client, as the image store takes it.

use std::sync::Arc;

use bireme_buildkit::{Session, SessionError};
use bireme_core::BoxFuture;
use bireme_image::{BlobReader, ContentStore, Digest, ImageError};

/// One of the stores that a client offers over its session.
pub(super) struct ClientContent {
    session: Arc<Session>,
    /// By which the client knows it: `local:FOLDER` of a cache, `oci:ID` of an OCI layout.
    id: String,
}

impl ClientContent {
    pub(super) fn new(session: Arc<Session>, id: String) -> Self {
        Self { session, id }
    }
}

impl ContentStore for ClientContent {
    fn read<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<BlobReader, ImageError>> {
        Box::pin(async move {
            let content = self.session.read_content(&self.id, digest.as_str()).await.map_err(refused)?;
            Ok(Box::new(content) as BlobReader)
        })
    }

    fn has<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<bool, ImageError>> {
        Box::pin(async move { self.session.has_content(&self.id, digest.as_str()).await.map_err(refused) })
    }

    fn write<'a>(
        &'a self,
        digest: &'a Digest,
        size: u64,
        content: BlobReader,
    ) -> BoxFuture<'a, Result<(), ImageError>> {
        Box::pin(
            async move { self.session.write_content(&self.id, digest.as_str(), size, content).await.map_err(refused) },
        )
    }
}

fn refused(error: SessionError) -> ImageError {
    ImageError::Content { reason: error.to_string() }
}
