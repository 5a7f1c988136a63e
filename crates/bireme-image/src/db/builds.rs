//! What builds made: images, and the cache of their steps.

use rusqlite::{OptionalExtension as _, params};

use super::{Db, now, parsed};
use crate::digest::{Digest, ImageId};
use crate::error::ImageError;
use crate::model::{CacheKind, CacheRecord};
use crate::record::Layer;

impl Db {
    pub(crate) fn built(&self, key: &Digest) -> Result<Option<ImageId>, ImageError> {
        self.read("look up a build", |db| {
            db.query_row("SELECT image FROM builds WHERE key = ?1", [key.as_str()], |row| parsed(row, 0)).optional()
        })
    }

    /// Of an image that was removed meanwhile nothing is recorded.
    pub(crate) fn set_built(&self, key: &Digest, id: &ImageId) -> Result<(), ImageError> {
        self.change("record a build", |change| {
            change.execute(
                "INSERT OR REPLACE INTO builds SELECT ?1, id FROM images WHERE id = ?2",
                [key.as_str(), id.as_str()],
            )
        })?;
        Ok(())
    }

    /// Whether that step of a build was carried out before, and the layer it made if it made one.
    pub(crate) fn step(&self, key: &Digest) -> Result<Option<Option<Layer>>, ImageError> {
        self.change("look up a step of a build", |change| {
            change.execute(
                "UPDATE steps SET last_used = ?2, uses = uses + 1 WHERE key = ?1",
                params![key.as_str(), now()],
            )?;
            change
                .query_row("SELECT diff_id, size FROM steps WHERE key = ?1", [key.as_str()], |row| {
                    let size: i64 = row.get(1)?;
                    let made = row.get::<_, Option<String>>(0)?.is_some().then(|| parsed(row, 0)).transpose()?;
                    Ok(made.map(|diff_id| Layer::plain(diff_id, size.unsigned_abs())))
                })
                .optional()
        })
    }

    /// `description` is what a list shows of it.
    pub(crate) fn set_step(&self, key: &Digest, layer: Option<&Layer>, description: &str) -> Result<(), ImageError> {
        self.change("record a step of a build", |change| {
            let size = layer.map_or(0, |layer| i64::try_from(layer.blob.size).unwrap_or(i64::MAX));
            change.execute(
                "INSERT OR REPLACE INTO steps (key, diff_id, size, last_used, created, uses, description)
                 VALUES (?1, ?2, ?3, ?4, ?4, 1, ?5)",
                params![key.as_str(), layer.map(|layer| layer.diff_id.as_str()), size, now(), description],
            )
        })?;
        Ok(())
    }

    /// The layers that the cache of builds keeps, the longest unused first.
    pub(crate) fn cached(&self) -> Result<Vec<CacheRecord>, ImageError> {
        self.read("list the cache of builds", |db| {
            let mut query = db.prepare_cached(
                "SELECT s.diff_id, coalesce(u.size, max(s.size)), max(s.last_used),
                     EXISTS (SELECT 1 FROM layers l WHERE l.diff_id = s.diff_id),
                     min(s.created), sum(s.uses), max(s.description)
                 FROM steps s LEFT JOIN unpacked u ON u.diff_id = s.diff_id
                 WHERE s.diff_id IS NOT NULL GROUP BY s.diff_id ORDER BY 3",
            )?;
            let rows = query.query_map([], |row| {
                let id: Digest = parsed(row, 0)?;
                Ok(CacheRecord {
                    id: id.hex().to_owned(),
                    kind: CacheKind::Layer,
                    size: row.get::<_, i64>(1)?.unsigned_abs(),
                    shared: row.get(3)?,
                    in_use: false,
                    created: row.get(4)?,
                    last_used: row.get(2)?,
                    uses: row.get::<_, i64>(5)?.unsigned_abs(),
                    description: row.get(6)?,
                })
            })?;
            rows.collect()
        })
    }

    /// Forgets steps last used before `until`, all without it.
    pub(crate) fn forget_steps(&self, until: Option<i64>) -> Result<(), ImageError> {
        self.forget("clear the cache of builds", |change| {
            change.execute("DELETE FROM steps WHERE ?1 IS NULL OR last_used < ?1", [until])
        })?;
        Ok(())
    }

    /// Forgets the steps without a layer that were last used before `until`, all without it.
    pub(crate) fn forget_empty_steps(&self, until: Option<i64>) -> Result<(), ImageError> {
        self.forget("clear the cache of builds", |change| {
            change.execute("DELETE FROM steps WHERE diff_id IS NULL AND (?1 IS NULL OR last_used < ?1)", [until])
        })?;
        Ok(())
    }

    /// Forgets the steps that made a layer.
    pub(crate) fn forget_steps_of(&self, diff_id: &Digest) -> Result<(), ImageError> {
        self.forget("clear the cache of builds", |change| {
            change.execute("DELETE FROM steps WHERE diff_id = ?1", [diff_id.as_str()])
        })?;
        Ok(())
    }
}
