//! Images whole: manifests, configurations, which layers they have, and what goes with them.

use rusqlite::{OptionalExtension as _, Transaction, params};

use super::names::{Naming, platform_and_id};
use super::{Db, Garbage, now, parsed};
use crate::digest::{Digest, ImageId};
use crate::error::ImageError;
use crate::model::Descriptor;
use crate::platform::Platform;
use crate::record::{Layer, Record};

impl Db {
    /// Records images and gives them `names`, in one transaction. A name is taken from whatever had it, on all
    /// platforms, except from images with the same `digest` (further platforms of one index).
    pub(crate) fn add(&self, images: &[&Record], names: &[Naming<'_>]) -> Result<(), ImageError> {
        self.change_on_disk("record an image", |change| {
            for image in images {
                insert_image(change, image)?;
            }
            for naming in names {
                naming.apply(change)?;
            }
            change.execute("UPDATE generation SET number = number + 1", [])?;
            Ok(())
        })?;
        // Into the file itself: of what is written ahead, all behind one damaged page is lost.
        let moved = self.read("bring the log of the database home", |db| {
            db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        });
        if let Err(error) = moved {
            tracing::debug!(%error, "the database's log was not brought home");
        }
        Ok(())
    }

    /// How often images were recorded.
    pub(crate) fn generation(&self) -> Result<i64, ImageError> {
        self.read("look up the number of changes", |db| {
            db.query_row("SELECT number FROM generation", [], |row| row.get(0))
        })
    }

    pub(crate) fn record(&self, id: &ImageId) -> Result<Option<Record>, ImageError> {
        self.read("look up an image", |db| {
            let found = db
                .query_row(
                    "SELECT manifest, config, config_media_type, artifact_type, platform FROM images WHERE id = ?1",
                    [id.as_str()],
                    |row| {
                        Ok(Record {
                            id: id.clone(),
                            manifest: row.get(0)?,
                            config: row.get(1)?,
                            config_media_type: row.get(2)?,
                            artifact_type: row.get(3)?,
                            platform: Platform::recorded(&row.get::<_, String>(4)?),
                            layers: Vec::new(),
                        })
                    },
                )
                .optional()?;
            let Some(mut record) = found else { return Ok(None) };
            let mut query = db.prepare_cached(
                "SELECT diff_id, blob, media_type, size FROM layers WHERE image = ?1 ORDER BY position",
            )?;
            record.layers = query
                .query_map([id.as_str()], |row| {
                    let size: i64 = row.get(3)?;
                    let blob =
                        Descriptor { digest: parsed(row, 1)?, media_type: row.get(2)?, size: size.unsigned_abs() };
                    Ok(Layer { diff_id: parsed(row, 0)?, blob })
                })?
                .collect::<Result<_, _>>()?;
            Ok(Some(record))
        })
    }

    pub(crate) fn ids(&self) -> Result<Vec<ImageId>, ImageError> {
        self.read("list images", |db| {
            let mut query = db.prepare_cached("SELECT id FROM images")?;
            let rows = query.query_map([], |row| parsed(row, 0))?;
            rows.collect()
        })
    }

    /// Images whose ID begins with `digits`, two at most.
    pub(crate) fn by_prefix(&self, digits: &str) -> Result<Vec<(Platform, ImageId)>, ImageError> {
        self.read("look up an ID", |db| {
            let mut query = db.prepare_cached("SELECT platform, id FROM images WHERE id LIKE ?1 || '%' LIMIT 2")?;
            let rows = query.query_map([format!("sha256:{digits}")], platform_and_id)?;
            rows.collect()
        })
    }

    /// Notes that an image was used just now.
    pub(crate) fn touch(&self, id: &ImageId) -> Result<(), ImageError> {
        self.change("note the use of an image", |change| {
            change.execute("UPDATE images SET last_used = ?2 WHERE id = ?1", params![id.as_str(), now()])
        })?;
        Ok(())
    }

    /// Forgets an image; answers what only it used.
    pub(crate) fn delete(&self, id: &ImageId) -> Result<Garbage, ImageError> {
        self.forget("delete an image", |change| {
            let garbage = Garbage {
                blobs: digests(
                    change,
                    "SELECT DISTINCT blob FROM layers WHERE image = ?1
                     AND blob NOT IN (SELECT blob FROM layers WHERE image <> ?1)
                     AND NOT EXISTS (SELECT 1 FROM steps WHERE steps.diff_id = blob)",
                    id,
                )?,
                diff_ids: digests(
                    change,
                    "SELECT DISTINCT diff_id FROM layers WHERE image = ?1
                     AND diff_id NOT IN (SELECT diff_id FROM layers WHERE image <> ?1)
                     AND NOT EXISTS (SELECT 1 FROM steps WHERE steps.diff_id = layers.diff_id)",
                    id,
                )?,
                components: digests(
                    change,
                    "SELECT DISTINCT digest FROM components WHERE image = ?1
                     AND digest NOT IN (SELECT digest FROM components WHERE image <> ?1)",
                    id,
                )?,
            };
            change.execute("DELETE FROM images WHERE id = ?1", [id.as_str()])?;
            Ok(garbage)
        })
    }

    /// Every blob, unpacked layer and component that may stay.
    pub(crate) fn referenced(&self) -> Result<Garbage, ImageError> {
        self.read("list what is in use", |db| {
            let all = |sql: &str| -> rusqlite::Result<Vec<Digest>> {
                db.prepare(sql)?.query_map([], |row| parsed(row, 0))?.collect()
            };
            Ok(Garbage {
                // A layer that a build made is stored as it is: its blob has its name.
                blobs: all("SELECT blob FROM layers UNION SELECT diff_id FROM steps WHERE diff_id IS NOT NULL")?,
                diff_ids: all("SELECT diff_id FROM unpacked WHERE diff_id IN
                     (SELECT diff_id FROM layers UNION SELECT diff_id FROM steps WHERE diff_id IS NOT NULL)")?,
                components: all("SELECT DISTINCT digest FROM components")?,
            })
        })
    }

    pub(crate) fn component(&self, id: &ImageId, entrypoint: &str) -> Result<Option<Digest>, ImageError> {
        self.read("look up a component", |db| {
            db.query_row(
                "SELECT digest FROM components WHERE image = ?1 AND entrypoint = ?2",
                [id.as_str(), entrypoint],
                |row| parsed(row, 0),
            )
            .optional()
        })
    }

    /// Of an image that was removed meanwhile nothing is recorded.
    pub(crate) fn set_component(&self, id: &ImageId, entrypoint: &str, digest: &Digest) -> Result<(), ImageError> {
        self.change("record a component", |change| {
            change.execute(
                "INSERT OR REPLACE INTO components SELECT id, ?2, ?3 FROM images WHERE id = ?1",
                [id.as_str(), entrypoint, digest.as_str()],
            )
        })?;
        Ok(())
    }

    /// Gives a stored image the manifest of this one, which is the same but for what its manifest says of itself.
    pub(crate) fn set_manifest(&self, image: &Record) -> Result<(), ImageError> {
        self.change("record a manifest", |change| {
            change.execute(
                "UPDATE images SET manifest = ?2, manifest_digest = ?3 WHERE id = ?1",
                params![image.id.as_str(), image.manifest, Digest::of(&image.manifest).as_str()],
            )
        })?;
        Ok(())
    }
}

fn insert_image(change: &Transaction<'_>, image: &Record) -> rusqlite::Result<()> {
    let inserted = change.execute(
        "INSERT OR IGNORE INTO images VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            image.id.as_str(),
            image.manifest,
            Digest::of(&image.manifest).as_str(),
            image.config,
            image.config_media_type,
            image.artifact_type,
            image.platform.to_string(),
            now()
        ],
    )?;
    if inserted == 0 {
        // What an older version recorded may have layers in the name of others; those here are proven.
        let doubtful = change
            .prepare_cached(
                "SELECT 1 FROM layers l WHERE image = ?1 AND blob <> diff_id
             AND NOT EXISTS (SELECT 1 FROM proven p WHERE p.blob = l.blob AND p.diff_id = l.diff_id)",
            )?
            .exists([image.id.as_str()])?;
        // Of a document that an older version took for both kinds: the one that is taken now is right.
        let other_kind = change
            .prepare_cached("SELECT 1 FROM images WHERE id = ?1 AND (artifact_type IS NULL) <> (?2 IS NULL)")?
            .exists(params![image.id.as_str(), image.artifact_type])?;
        if !doubtful && !other_kind {
            return Ok(());
        }
        change.execute(
            "UPDATE images SET manifest = ?2, manifest_digest = ?3, config = ?4, config_media_type = ?5,
             artifact_type = ?6, platform = ?7 WHERE id = ?1",
            params![
                image.id.as_str(),
                image.manifest,
                Digest::of(&image.manifest).as_str(),
                image.config,
                image.config_media_type,
                image.artifact_type,
                image.platform.to_string()
            ],
        )?;
        change.execute("DELETE FROM layers WHERE image = ?1", [image.id.as_str()])?;
    }
    for (position, layer) in image.layers.iter().enumerate() {
        change.execute(
            "INSERT INTO layers VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                image.id.as_str(),
                i64::try_from(position).unwrap_or(i64::MAX),
                layer.diff_id.as_str(),
                layer.blob.digest.as_str(),
                layer.blob.media_type,
                i64::try_from(layer.blob.size).unwrap_or(i64::MAX)
            ],
        )?;
    }
    Ok(())
}

fn digests(change: &Transaction<'_>, sql: &str, id: &ImageId) -> rusqlite::Result<Vec<Digest>> {
    let mut query = change.prepare(sql)?;
    let rows = query.query_map([id.as_str()], |row| parsed(row, 0))?;
    rows.collect()
}
