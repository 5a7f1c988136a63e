//! Loading and saving of archives.

use tokio::io::{AsyncRead, AsyncWrite};

use crate::digest::ImageId;
use crate::error::ImageError;
use crate::events::OnProgress;
use crate::store::ImageStore;

/// One image that was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    pub id: ImageId,
    /// Familiar names it was given; empty if the archive names none.
    pub references: Vec<String>,
}

impl ImageStore {
    /// Loads an archive.
    pub async fn load(
        &self,
        archive: impl AsyncRead + Send + Unpin + 'static,
        progress: OnProgress<'_>,
    ) -> Result<Vec<Loaded>, ImageError> {
        let _ = (archive, progress);
        Err(ImageError::BadArchive { reason: "not yet".to_owned() })
    }

    /// Saves images.
    pub async fn save(
        &self,
        names: &[String],
        out: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Result<(), ImageError> {
        let _ = (names, out);
        Err(ImageError::BadArchive { reason: "not yet".to_owned() })
    }
}
