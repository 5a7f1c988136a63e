//! Names of images, and the digests by which registries know them.

use rusqlite::{OptionalExtension as _, Row, Transaction, params};

use super::{Db, now, parsed};
use crate::digest::{Digest, ImageId};
use crate::error::ImageError;
use crate::platform::Platform;
use crate::reference::Reference;

/// Giving a name to an image.
pub(crate) struct Naming<'a> {
    pub(crate) reference: &'a Reference,
    pub(crate) platform: &'a Platform,
    pub(crate) image: &'a ImageId,
    /// What the name stands for at its registry: the digest of the index or manifest.
    pub(crate) digest: Option<&'a Digest>,
    /// Leave other platforms of the name alone although they have no digest in common.
    pub(crate) keep_others: bool,
}

impl Naming<'_> {
    pub(super) fn apply(&self, change: &Transaction<'_>) -> rusqlite::Result<()> {
        if let Some(digest) = self.digest {
            insert_repo_digest(change, self.reference, self.image, digest)?;
        }
        // As in Docker, a tag beside a digest is not given: the digest says what is meant.
        if self.reference.digest().is_some() {
            return Ok(());
        }
        let key = self.reference.key();
        if !self.keep_others {
            change.execute(
                "DELETE FROM names WHERE name = ?1 AND (?2 IS NULL OR digest IS NULL OR digest <> ?2)",
                params![key, self.digest.map(Digest::as_str)],
            )?;
        }
        change.execute(
            "INSERT OR REPLACE INTO names VALUES (?1, ?2, ?3, ?4, ?5)",
            params![key, self.platform.to_string(), self.image.as_str(), self.digest.map(Digest::as_str), now()],
        )?;
        Ok(())
    }
}

impl Db {
    /// All images of a name, with their platforms.
    pub(crate) fn by_name(&self, reference: &Reference) -> Result<Vec<(Platform, ImageId)>, ImageError> {
        self.read("look up a name", |db| match (reference.digest(), reference.tag()) {
            (Some(digest), _) => {
                let repository = format!("{}/{}", reference.registry(), reference.repository());
                let mut query = db.prepare_cached(
                    "SELECT i.platform, i.id FROM repo_digests d JOIN images i ON i.id = d.image
                     WHERE d.repository = ?1 AND d.digest = ?2",
                )?;
                let rows = query.query_map([&repository, digest.as_str()], platform_and_id)?;
                rows.collect()
            }
            _ => {
                let mut query = db.prepare_cached("SELECT platform, image FROM names WHERE name = ?1")?;
                let rows = query.query_map([reference.key()], platform_and_id)?;
                rows.collect()
            }
        })
    }

    /// Every name of a reference's repository.
    pub(crate) fn tags_of(&self, reference: &Reference) -> Result<Vec<Reference>, ImageError> {
        let start = format!("{}/{}:", reference.registry(), reference.repository());
        let names: Vec<String> = self.read("list the tags of a repository", |db| {
            let mut query = db.prepare_cached(
                "SELECT DISTINCT name FROM names WHERE substr(name, 1, length(?1)) = ?1 ORDER BY name",
            )?;
            let rows = query.query_map([&start], |row| row.get(0))?;
            rows.collect()
        })?;
        names.iter().map(|name| Reference::parse(name).map_err(ImageError::from)).collect()
    }

    /// The digest recorded with a name and an image, if it came from a registry.
    pub(crate) fn name_digest(&self, reference: &Reference, id: &ImageId) -> Result<Option<String>, ImageError> {
        self.read("look up a name", |db| {
            let found: Option<Option<String>> = db
                .query_row(
                    "SELECT digest FROM names WHERE name = ?1 AND image = ?2",
                    [reference.key().as_str(), id.as_str()],
                    |row| row.get(0),
                )
                .optional()?;
            Ok(found.flatten())
        })
    }

    /// Complete names of an image, sorted, with the time each was given in milliseconds since the Unix epoch.
    pub(crate) fn names(&self, id: &ImageId) -> Result<Vec<(String, i64)>, ImageError> {
        self.read("list names", |db| {
            let mut query = db.prepare_cached("SELECT name, tagged FROM names WHERE image = ?1 ORDER BY name")?;
            let rows = query.query_map([id.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        })
    }

    /// Takes a name away from one image.
    pub(crate) fn untag(&self, reference: &Reference, id: &ImageId) -> Result<(), ImageError> {
        self.forget("remove a name", |change| {
            change.execute("DELETE FROM names WHERE name = ?1 AND image = ?2", [reference.key().as_str(), id.as_str()])
        })?;
        Ok(())
    }

    /// `repository@digest` of an image, complete, sorted.
    pub(crate) fn repo_digests(&self, id: &ImageId) -> Result<Vec<String>, ImageError> {
        self.read("list digests", |db| {
            let mut query =
                db.prepare_cached("SELECT repository || '@' || digest FROM repo_digests WHERE image = ?1 ORDER BY 1")?;
            let rows = query.query_map([id.as_str()], |row| row.get(0))?;
            rows.collect()
        })
    }

    /// Records that a registry knows an image by `digest` under the name's repository.
    pub(crate) fn add_repo_digest(
        &self,
        reference: &Reference,
        id: &ImageId,
        digest: &Digest,
    ) -> Result<(), ImageError> {
        self.change("record a digest", |change| insert_repo_digest(change, reference, id, digest))
    }

    /// Keeps the index that images were taken from, for as long as a registry's name for one of them is known.
    pub(crate) fn keep_index(&self, digest: &Digest, document: &[u8]) -> Result<(), ImageError> {
        self.change("record an index", |change| {
            change.execute("INSERT OR IGNORE INTO indexes VALUES (?1, ?2)", params![digest.as_str(), document])?;
            // Those whose images are gone go with the next one that comes.
            change.execute("DELETE FROM indexes WHERE digest NOT IN (SELECT digest FROM repo_digests)", [])
        })?;
        Ok(())
    }

    /// The indexes that an image was taken from, the last recorded first.
    pub(crate) fn indexes_of(&self, image: &ImageId) -> Result<Vec<Vec<u8>>, ImageError> {
        self.read("look up an index", |db| {
            let mut query = db.prepare_cached(
                "SELECT document FROM indexes WHERE digest IN (SELECT digest FROM repo_digests WHERE image = ?1)
                 ORDER BY rowid DESC LIMIT 4",
            )?;
            let rows = query.query_map([image.as_str()], |row| row.get(0))?;
            rows.collect()
        })
    }

    /// Other repositories of a name's registry in which an image with this layer is known, the last recorded first.
    pub(crate) fn repositories_with(&self, diff_id: &Digest, name: &Reference) -> Result<Vec<String>, ImageError> {
        let start = format!("{}/", name.registry());
        self.read("list repositories", |db| {
            let mut query = db.prepare_cached(
                "SELECT d.repository FROM repo_digests d JOIN layers l ON l.image = d.image
                 WHERE l.diff_id = ?1 AND substr(d.repository, 1, length(?2)) = ?2 AND d.repository <> ?3
                 GROUP BY d.repository ORDER BY max(d.rowid) DESC LIMIT 4",
            )?;
            let own = format!("{start}{}", name.repository());
            let rows = query.query_map([diff_id.as_str(), &start, &own], |row| row.get::<_, String>(0))?;
            rows.map(|row| row.map(|full| full[start.len()..].to_owned())).collect()
        })
    }

    /// Forgets the digest `reference` names, for one image.
    pub(crate) fn drop_repo_digest(&self, reference: &Reference, id: &ImageId) -> Result<(), ImageError> {
        let Some(digest) = reference.digest() else { return Ok(()) };
        let repository = format!("{}/{}", reference.registry(), reference.repository());
        self.forget("remove a digest", |change| {
            change.execute(
                "DELETE FROM repo_digests WHERE repository = ?1 AND digest = ?2 AND image = ?3",
                [&repository, digest.as_str(), id.as_str()],
            )
        })?;
        Ok(())
    }
}

fn insert_repo_digest(
    change: &Transaction<'_>,
    reference: &Reference,
    image: &ImageId,
    digest: &Digest,
) -> rusqlite::Result<()> {
    let repository = format!("{}/{}", reference.registry(), reference.repository());
    change.execute(
        "INSERT OR IGNORE INTO repo_digests SELECT id, ?2, ?3 FROM images WHERE id = ?1",
        [image.as_str(), &repository, digest.as_str()],
    )?;
    Ok(())
}

pub(super) fn platform_and_id(row: &Row<'_>) -> rusqlite::Result<(Platform, ImageId)> {
    Ok((Platform::recorded(&row.get::<_, String>(0)?), parsed(row, 1)?))
}
