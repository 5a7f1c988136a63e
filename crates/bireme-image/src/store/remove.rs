//! Taking names from images, and deleting those that nothing refers to any more.

use super::{ImageStore, familiar};
use crate::blocking::blocking;
use crate::db::Garbage;
use crate::digest::ImageId;
use crate::error::ImageError;
use crate::reference::Reference;

/// What became of one image when names were removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A familiar name.
    Untagged(String),
    /// The ID of an image that is gone.
    Deleted(String),
}

impl ImageStore {
    /// Does `claim`, by which the `in_use` of [`Self::remove`] comes to know of a user, while no image can go.
    ///
    /// # Errors
    /// `NotFound` where the image has gone already; nothing was done then.
    pub fn claim(&self, id: &ImageId, claim: impl FnOnce()) -> Result<(), ImageError> {
        let _removing = self.inner.removing.lock();
        self.inner.record(id)?;
        claim();
        Ok(())
    }

    /// Removes a name, or by ID an image with all its names; deletes what nothing refers to any more.
    ///
    /// `in_use` answers which workload needs an image, in words such as `running container 1234567890ab`.
    /// An image in use keeps its files: with `force` it loses its name only.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` if it is in use, or has several names and was given by ID, without `force`.
    /// # Cancel safety
    /// Names and records go with the first poll; dropping the future afterwards leaves the deletion of files to go on.
    ///
    /// Source: Docker Engine API, `ImageDelete`; moby, `daemon/images/image_delete.go`.
    pub async fn remove(
        &self,
        name: &str,
        force: bool,
        in_use: &(dyn Fn(&ImageId) -> Option<String> + Send + Sync),
    ) -> Result<Vec<Removed>, ImageError> {
        let (removed, garbage) = self.forget(name, force, in_use)?;
        let inner = self.inner.clone();
        blocking("delete the files of an image", move || {
            for rubbish in garbage {
                inner.discard(&rubbish);
            }
            Ok(())
        })
        .await?;
        Ok(removed)
    }

    /// What [`Self::remove`] does of the database alone.
    fn forget(
        &self,
        name: &str,
        force: bool,
        in_use: &(dyn Fn(&ImageId) -> Option<String> + Send + Sync),
    ) -> Result<(Vec<Removed>, Vec<Garbage>), ImageError> {
        let _removing = self.inner.removing.lock();
        let db = &self.inner.db;
        let reference = Reference::parse(name).ok();
        let named = match &reference {
            Some(reference) => db.by_name(reference)?,
            None => Vec::new(),
        };
        let mut removed = Vec::new();
        let mut garbage = Vec::new();
        if let (Some(reference), false) = (&reference, named.is_empty()) {
            for (_, id) in &named {
                let last = self.references_to(id)? <= 1;
                if let (true, false, Some(user)) = (last, force, in_use(id)) {
                    return Err(ImageError::Conflict {
                        reason: format!(
                            "unable to remove repository reference \"{name}\" (must force) - {user} is using its referenced image {}",
                            id.short()
                        ),
                    });
                }
            }
            for (_, id) in &named {
                if reference.digest().is_some() {
                    db.drop_repo_digest(reference, id)?;
                } else {
                    db.untag(reference, id)?;
                }
                let line = Removed::Untagged(reference.familiar());
                if !removed.contains(&line) {
                    removed.push(line);
                }
                // With the last tag of a repository goes what the image is called there by digest.
                let repository = format!("{}/{}", reference.registry(), reference.repository());
                let tagged = |name: &String| name.strip_prefix(&*repository).is_some_and(|rest| rest.starts_with(':'));
                if reference.digest().is_none() && !db.names(id)?.iter().any(|(name, _)| tagged(name)) {
                    for digest in db.repo_digests(id)? {
                        let named = digest.strip_prefix(&*repository).is_some_and(|rest| rest.starts_with('@'));
                        if let (true, Ok(by_digest)) = (named, Reference::parse(&digest)) {
                            db.drop_repo_digest(&by_digest, id)?;
                            removed.push(Removed::Untagged(by_digest.familiar()));
                        }
                    }
                }
                if db.names(id)?.is_empty() && in_use(id).is_none() {
                    self.delete(id, &mut removed, &mut garbage)?;
                }
            }
        } else {
            let id = self.inner.find(name, None)?;
            if let Some(user) = in_use(&id) {
                let how = if force { "cannot be forced" } else { "must be forced" };
                return Err(ImageError::Conflict {
                    reason: format!("unable to delete {} ({how}) - image is being used by {user}", id.short()),
                });
            }
            let names = db.names(&id)?;
            if names.len() > 1 && !force {
                return Err(ImageError::Conflict {
                    reason: format!(
                        "unable to delete {} (must be forced) - image is referenced in multiple repositories",
                        id.short()
                    ),
                });
            }
            for (name, _) in names {
                removed.push(Removed::Untagged(familiar(&name)));
            }
            self.delete(&id, &mut removed, &mut garbage)?;
        }
        Ok((removed, garbage))
    }

    fn references_to(&self, id: &ImageId) -> Result<usize, ImageError> {
        Ok(self.inner.db.names(id)?.len())
    }

    fn delete(&self, id: &ImageId, removed: &mut Vec<Removed>, garbage: &mut Vec<Garbage>) -> Result<(), ImageError> {
        for digest in self.inner.db.repo_digests(id)? {
            removed.push(Removed::Untagged(familiar(&digest)));
        }
        garbage.push(self.inner.db.delete(id)?);
        removed.push(Removed::Deleted(id.to_string()));
        Ok(())
    }
}
