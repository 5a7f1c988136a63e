//! What is known of layers: which are unpacked, on the disk, proven, and packed for a registry.

use std::collections::HashMap;

use rusqlite::{OptionalExtension as _, Row, params};

use super::{Db, now, parsed};
use crate::boot::boot;
use crate::digest::{Digest, ImageId};
use crate::error::ImageError;
use crate::model::{Descriptor, LayerForm, OCI_LAYER};
use crate::record::Layer;

impl Db {
    /// Bytes of all layers together, each counted once; and of each image those that others have too.
    pub(crate) fn shared_sizes(&self) -> Result<(u64, HashMap<ImageId, u64>), ImageError> {
        self.read("add up the sizes of layers", |db| {
            let all: i64 = db.query_row(
                "SELECT coalesce(sum(size), 0) FROM (
                     SELECT l.diff_id, max(coalesce(u.size, l.size)) AS size
                     FROM layers l LEFT JOIN unpacked u ON u.diff_id = l.diff_id GROUP BY l.diff_id)",
                [],
                |row| row.get(0),
            )?;
            let mut query = db.prepare_cached(
                "SELECT l.image, sum(coalesce(u.size, l.size)) FROM layers l LEFT JOIN unpacked u ON u.diff_id = l.diff_id
                 WHERE EXISTS (SELECT 1 FROM layers o WHERE o.diff_id = l.diff_id AND o.image <> l.image)
                 GROUP BY l.image",
            )?;
            let rows = query.query_map([], |row| {
                let size: i64 = row.get(1)?;
                Ok((parsed(row, 0)?, size.unsigned_abs()))
            })?;
            Ok((all.unsigned_abs(), rows.collect::<rusqlite::Result<_>>()?))
        })
    }

    /// A layer of any image, or of the build cache, that unpacks to this.
    pub(crate) fn layer_of(&self, diff_id: &Digest) -> Result<Option<Layer>, ImageError> {
        self.read("look up a layer", |db| {
            let sql = "SELECT blob, media_type, size FROM layers WHERE diff_id = ?1 UNION ALL
                       SELECT diff_id, ?2, size FROM steps WHERE diff_id = ?1 LIMIT 1";
            let layer = |row: &Row<'_>| {
                let size: i64 = row.get(2)?;
                let blob = Descriptor { digest: parsed(row, 0)?, media_type: row.get(1)?, size: size.unsigned_abs() };
                Ok(Layer { diff_id: diff_id.clone(), blob })
            };
            db.query_row(sql, [diff_id.as_str(), OCI_LAYER], layer).optional()
        })
    }

    /// Whether any image or kept step of a build has this blob as a layer.
    pub(crate) fn uses_blob(&self, digest: &Digest) -> Result<bool, ImageError> {
        self.exists("SELECT 1 FROM layers WHERE blob = ?1 UNION ALL SELECT 1 FROM steps WHERE diff_id = ?1", digest)
    }

    /// Bytes of a blob, as images that have it as a layer record them.
    pub(crate) fn size_of_blob(&self, digest: &Digest) -> Result<Option<u64>, ImageError> {
        self.read("look up a layer", |db| {
            let found = "SELECT size FROM layers WHERE blob = ?1 LIMIT 1";
            let size = |row: &Row<'_>| Ok(row.get::<_, i64>(0)?.unsigned_abs());
            db.prepare_cached(found)?.query_row([digest.as_str()], size).optional()
        })
    }

    /// Whether any image or kept step of a build has this unpacked layer.
    pub(crate) fn uses_diff_id(&self, digest: &Digest) -> Result<bool, ImageError> {
        self.exists("SELECT 1 FROM layers WHERE diff_id = ?1 UNION ALL SELECT 1 FROM steps WHERE diff_id = ?1", digest)
    }

    fn exists(&self, sql: &str, digest: &Digest) -> Result<bool, ImageError> {
        self.read("look up a layer", |db| db.prepare_cached(sql)?.exists([digest.as_str()]))
    }

    /// Bytes of an unpacked layer; `None` if it is not unpacked, or may lack its content since an earlier boot of the machine.
    pub(crate) fn unpacked(&self, diff_id: &Digest) -> Result<Option<u64>, ImageError> {
        self.read("look up a layer", |db| {
            let size: Option<i64> = db
                .prepare_cached(
                    "SELECT size FROM unpacked WHERE diff_id = ?1
                     AND NOT EXISTS (SELECT 1 FROM unsynced WHERE diff_id = ?1 AND boot != ?2)",
                )?
                .query_row([diff_id.as_str(), boot()], |row| row.get(0))
                .optional()?;
            Ok(size.map(i64::unsigned_abs))
        })
    }

    pub(crate) fn set_unpacked(&self, diff_id: &Digest, size: u64) -> Result<(), ImageError> {
        self.change("record an unpacked layer", |change| {
            change.execute(
                "INSERT INTO unpacked VALUES (?1, ?2, ?3) ON CONFLICT (diff_id) DO UPDATE SET size = ?2, last_used = ?3",
                params![diff_id.as_str(), i64::try_from(size).unwrap_or(i64::MAX), now()],
            )?;
            change.execute("INSERT OR REPLACE INTO unsynced VALUES (?1, ?2)", [diff_id.as_str(), boot()])
        })?;
        Ok(())
    }

    /// Records that a layer lies unpacked, as one that the database did not know.
    pub(crate) fn adopt_unpacked(&self, diff_id: &Digest) -> Result<(), ImageError> {
        self.change("record an unpacked layer", |change| {
            change.execute(
                "INSERT OR IGNORE INTO unpacked (diff_id, size, last_used) VALUES (?1, 0, ?2)",
                params![diff_id.as_str(), now()],
            )
        })?;
        Ok(())
    }

    pub(crate) fn forget_unpacked(&self, diff_id: &Digest) -> Result<(), ImageError> {
        self.forget("forget an unpacked layer", |change| {
            change.execute("DELETE FROM unpacked WHERE diff_id = ?1", [diff_id.as_str()])
        })?;
        Ok(())
    }

    /// Forgets unpacked layers that no image has.
    pub(crate) fn forget_unused(&self) -> Result<(), ImageError> {
        self.forget("forget unused layers", |change| {
            change.execute(
                "DELETE FROM unpacked WHERE diff_id NOT IN
                 (SELECT diff_id FROM layers UNION SELECT diff_id FROM steps WHERE diff_id IS NOT NULL)",
                [],
            )?;
            change.execute("DELETE FROM packed WHERE diff_id NOT IN (SELECT diff_id FROM layers)", [])?;
            change.execute("DELETE FROM proven WHERE blob NOT IN (SELECT blob FROM layers)", [])
        })?;
        Ok(())
    }

    /// Unpacked layers that may not be on the disk yet, each with the boot in which they were unpacked.
    pub(crate) fn unsynced(&self) -> Result<Vec<(Digest, String)>, ImageError> {
        self.read("look up unpacked layers", |db| {
            let mut query = db.prepare("SELECT diff_id, boot FROM unsynced")?;
            let rows = query.query_map([], |row| Ok((parsed(row, 0)?, row.get(1)?)))?;
            rows.collect()
        })
    }

    /// Notes that unpacked layers are on the disk.
    pub(crate) fn synced(&self, layers: &[(Digest, String)]) -> Result<(), ImageError> {
        self.change("note that layers are on the disk", |change| {
            let mut forget = change.prepare("DELETE FROM unsynced WHERE diff_id = ?1 AND boot = ?2")?;
            layers.iter().try_for_each(|(layer, boot)| forget.execute([layer.as_str(), boot]).map(drop))
        })
    }

    /// Whether a layer's blob was seen to unpack to what it stands for. One that is stored as it is needs not be seen.
    pub(crate) fn proven(&self, layer: &Layer) -> Result<bool, ImageError> {
        let form = layer.blob.form()?;
        if form == LayerForm::Tar && layer.blob.digest == layer.diff_id {
            return Ok(true);
        }
        self.read("look up a layer", |db| {
            db.prepare_cached("SELECT 1 FROM proven WHERE blob = ?1 AND diff_id = ?2 AND form = ?3")?.exists([
                layer.blob.digest.as_str(),
                layer.diff_id.as_str(),
                form.name(),
            ])
        })
    }

    /// Records that a layer's blob was seen to unpack to what it stands for.
    pub(crate) fn set_proven(&self, layer: &Layer) -> Result<(), ImageError> {
        let form = layer.blob.form()?.name();
        self.change("record a layer", |change| {
            change.execute(
                "INSERT OR IGNORE INTO proven VALUES (?1, ?2, ?3)",
                [layer.blob.digest.as_str(), layer.diff_id.as_str(), form],
            )
        })?;
        Ok(())
    }

    /// What a plain layer became when it was packed.
    pub(crate) fn packed(&self, diff_id: &Digest) -> Result<Option<(Digest, u64)>, ImageError> {
        self.read("look up a packed layer", |db| {
            db.query_row("SELECT digest, size FROM packed WHERE diff_id = ?1", [diff_id.as_str()], |row| {
                let size: i64 = row.get(1)?;
                Ok((parsed(row, 0)?, size.unsigned_abs()))
            })
            .optional()
        })
    }

    pub(crate) fn set_packed(&self, diff_id: &Digest, digest: &Digest, size: u64) -> Result<(), ImageError> {
        self.change("record a packed layer", |change| {
            change.execute(
                "INSERT OR REPLACE INTO packed VALUES (?1, ?2, ?3)",
                params![diff_id.as_str(), digest.as_str(), i64::try_from(size).unwrap_or(i64::MAX)],
            )
        })?;
        Ok(())
    }
}
