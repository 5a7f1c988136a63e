//! Giving names to images.

use super::ImageStore;
use crate::db::Naming;
use crate::error::ImageError;
use crate::reference::Reference;

impl ImageStore {
    /// Gives `reference` to an image. A name with several platforms is given with all of them.
    ///
    /// # Errors
    /// As [`Self::resolve`]; `BuildRequest` if `reference` has a digest.
    pub async fn tag(&self, image: &str, reference: &Reference) -> Result<(), ImageError> {
        if reference.digest().is_some() {
            return Err(ImageError::BuildRequest {
                reason: "refusing to create a tag with a digest reference".to_owned(),
            });
        }
        reference.check_tag()?;
        let by_name = match Reference::parse(image) {
            Ok(source) => self.inner.db.by_name(&source)?,
            Err(_) => Vec::new(),
        };
        let images = if by_name.is_empty() {
            let id = self.inner.find(image, None)?;
            vec![(self.inner.record(&id)?.platform, id)]
        } else {
            by_name
        };
        let namings: Vec<_> = images
            .iter()
            .enumerate()
            .map(|(at, (platform, image))| Naming { reference, platform, image, digest: None, keep_others: at > 0 })
            .collect();
        self.inner.db.add(&[], &namings)
    }
}
