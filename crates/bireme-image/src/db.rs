//! What the store remembers, in SQLite: images, their names, their layers, what is unpacked.
//!
//! Manifests and configurations are small and stand in the database itself, so that an image is either there whole or
//! not at all; only layers are files. Statements are short and run under a mutex on whatever thread calls.

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, TransactionBehavior, params};

use crate::boot::boot;
use crate::database::{self, Ballast, Found, Trouble};
use crate::digest::{Digest, ImageId};
use crate::error::ImageError;
use crate::model::{CachedLayer, Descriptor, LayerForm, OCI_LAYER};
use crate::platform::Platform;
use crate::record::{Layer, Record};
use crate::reference::Reference;

/// What each version of the tables adds to the one before; the number of the last is that of the whole.
const SCHEMA: [&str; 4] = [
    "
CREATE TABLE images (
    id TEXT PRIMARY KEY, manifest BLOB NOT NULL, manifest_digest TEXT NOT NULL, config BLOB NOT NULL,
    config_media_type TEXT NOT NULL, artifact_type TEXT, platform TEXT NOT NULL, last_used INTEGER NOT NULL
) STRICT;
CREATE TABLE layers (
    image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE, position INTEGER NOT NULL,
    diff_id TEXT NOT NULL, blob TEXT NOT NULL, media_type TEXT NOT NULL, size INTEGER NOT NULL,
    PRIMARY KEY (image, position)
) STRICT;
CREATE INDEX layers_by_blob ON layers(blob);
CREATE INDEX layers_by_diff_id ON layers(diff_id);
-- One name stands for one thing, which may have several platforms.
CREATE TABLE names (
    name TEXT NOT NULL, platform TEXT NOT NULL, image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE,
    digest TEXT, tagged INTEGER NOT NULL, PRIMARY KEY (name, platform)
) STRICT;
CREATE INDEX names_by_image ON names(image);
-- The digests under which registries know an image: of its manifest or of the index it was taken from.
CREATE TABLE repo_digests (
    image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE, repository TEXT NOT NULL, digest TEXT NOT NULL,
    PRIMARY KEY (repository, digest, image)
) STRICT;
CREATE TABLE unpacked (diff_id TEXT PRIMARY KEY, size INTEGER NOT NULL, last_used INTEGER NOT NULL) STRICT;
CREATE TABLE components (
    image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE, entrypoint TEXT NOT NULL, digest TEXT NOT NULL,
    PRIMARY KEY (image, entrypoint)
) STRICT;
-- The same build gives the same image: key is a digest of all that determines it.
CREATE TABLE builds (
    key TEXT PRIMARY KEY, image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE
) STRICT;
",
    "
-- Steps of builds that were carried out: key is a digest of all that determines one. Those that made a layer have it;
-- it stays until the cache is cleared.
CREATE TABLE steps (key TEXT PRIMARY KEY, diff_id TEXT, size INTEGER NOT NULL, last_used INTEGER NOT NULL) STRICT;
CREATE INDEX steps_by_diff_id ON steps(diff_id);
-- What layers that are stored as they are become when they are packed for a registry.
CREATE TABLE packed (diff_id TEXT PRIMARY KEY, digest TEXT NOT NULL, size INTEGER NOT NULL) STRICT;
",
    "
-- Which blobs were seen to unpack to which layers, read in which form. Layers that came before this are not in it.
CREATE TABLE proven (blob TEXT NOT NULL, diff_id TEXT NOT NULL, form TEXT NOT NULL, PRIMARY KEY (blob, diff_id, form))
STRICT;
",
    "
CREATE TABLE unsynced (diff_id TEXT PRIMARY KEY, boot TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE generation (number INTEGER NOT NULL) STRICT;
INSERT INTO generation VALUES (0);
",
];

/// What nothing refers to any more after a removal; its files are to be deleted.
#[derive(Debug, Default)]
pub(crate) struct Garbage {
    pub(crate) blobs: Vec<Digest>,
    pub(crate) diff_ids: Vec<Digest>,
    pub(crate) components: Vec<Digest>,
}

pub(crate) struct Db {
    connection: Mutex<Connection>,
    path: PathBuf,
    ballast: Ballast,
}

fn fault(attempt: &'static str) -> impl FnOnce(rusqlite::Error) -> ImageError {
    move |source| ImageError::Database { attempt, source }
}

/// Reads the digests of images and their layers: one that is none would keep the store from opening, or all images from being
/// listed. What is made again when it is missed goes where it cannot be read.
fn readable(connection: &Connection) -> rusqlite::Result<()> {
    let read = |query: &str| -> rusqlite::Result<()> {
        let mut statement = connection.prepare(query)?;
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            (0..columns).try_for_each(|column| parsed::<Digest>(row, column).map(drop))?;
        }
        Ok(())
    };
    for query in [
        "SELECT id, manifest_digest FROM images",
        "SELECT diff_id, blob FROM layers",
        "SELECT image FROM names",
        "SELECT image, digest FROM repo_digests",
        "SELECT diff_id FROM unpacked",
    ] {
        read(query)?;
    }
    for (table, query) in [
        ("components", "SELECT image, digest FROM components"),
        ("builds", "SELECT image FROM builds"),
        ("steps", "SELECT diff_id FROM steps WHERE diff_id IS NOT NULL"),
        ("packed", "SELECT diff_id, digest FROM packed"),
        ("proven", "SELECT blob, diff_id FROM proven"),
        ("unsynced", "SELECT diff_id FROM unsynced"),
    ] {
        if let Err(error) = read(query) {
            tracing::warn!(table, %error, "a damaged part of the image database is forgotten: it is made again as it is missed");
            connection.execute(&format!("DELETE FROM {table}"), [])?;
        }
    }
    Ok(())
}

fn now() -> i64 {
    Utc::now().timestamp_millis()
}

impl Db {
    /// Opens it, or a copy where it is lost; also answers which.
    pub(crate) fn open(path: &Path) -> Result<(Self, Found), ImageError> {
        let tables = |connection: &mut Connection| {
            let look = || {
                connection.pragma_update(None, "foreign_keys", true)?;
                connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))
            };
            let version = look().map_err(fault("open the tables")).map_err(Trouble::Other)?;
            let known = i64::try_from(SCHEMA.len()).unwrap_or(i64::MAX);
            let missing = match usize::try_from(version) {
                Ok(have) if have <= SCHEMA.len() => &SCHEMA[have..],
                _ => return Err(Trouble::Other(ImageError::Schema { found: version, known })),
            };
            let add = |connection: &mut Connection| {
                let change = connection.transaction()?;
                missing.iter().try_for_each(|part| change.execute_batch(part))?;
                change.pragma_update(None, "user_version", known)?;
                change.commit()
            };
            if missing.is_empty() {
                return readable(connection).map_err(|error| Trouble::Broken(error.to_string()));
            }
            add(connection).map_err(fault("create the tables")).map_err(Trouble::Other)
        };
        let (connection, found) = database::open(path, tables)?;
        let ballast = Ballast::beside(path);
        ballast.keep();
        Ok((Self { connection: Mutex::new(connection), path: path.to_owned(), ballast }, found))
    }

    /// Writes a whole copy beside the earlier ones.
    pub(crate) fn back_up(&self) -> Result<(), ImageError> {
        Ok(database::back_up(&self.lock(), &self.path)?)
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

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic in a statement leaves no half-made change: its transaction rolled back.
        self.connection.lock()
    }

    fn change<T>(
        &self,
        attempt: &'static str,
        act: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, ImageError> {
        carry_out(&mut self.lock(), act).map_err(fault(attempt))
    }

    /// As [`Self::change`], of what makes room: with the space that is held back for it where the disk is full.
    fn forget<T>(
        &self,
        attempt: &'static str,
        act: impl Fn(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, ImageError> {
        let mut connection = self.lock();
        self.ballast.with_room(|| carry_out(&mut connection, &act)).map_err(fault(attempt))
    }

    /// As [`Self::change`], and on the disk before it answers: what is not in the database is swept at the next open.
    fn change_on_disk<T>(
        &self,
        attempt: &'static str,
        act: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, ImageError> {
        // Held throughout: another change would put the setting back before this one is made.
        let mut connection = self.lock();
        connection.pragma_update(None, "synchronous", "full").map_err(fault(attempt))?;
        let answer = carry_out(&mut connection, act).map_err(fault(attempt));
        connection.pragma_update(None, "synchronous", "normal").map_err(fault(attempt))?;
        answer
    }

    fn read<T>(
        &self,
        attempt: &'static str,
        act: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, ImageError> {
        act(&self.lock()).map_err(fault(attempt))
    }

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

    /// Images whose ID begins with `digits`, two at most.
    pub(crate) fn by_prefix(&self, digits: &str) -> Result<Vec<(Platform, ImageId)>, ImageError> {
        self.read("look up an ID", |db| {
            let mut query = db.prepare_cached("SELECT platform, id FROM images WHERE id LIKE ?1 || '%' LIMIT 2")?;
            let rows = query.query_map([format!("sha256:{digits}")], platform_and_id)?;
            rows.collect()
        })
    }

    pub(crate) fn ids(&self) -> Result<Vec<ImageId>, ImageError> {
        self.read("list images", |db| {
            let mut query = db.prepare_cached("SELECT id FROM images")?;
            let rows = query.query_map([], |row| parsed(row, 0))?;
            rows.collect()
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

    /// `repository@digest` of an image, complete, sorted.
    pub(crate) fn repo_digests(&self, id: &ImageId) -> Result<Vec<String>, ImageError> {
        self.read("list digests", |db| {
            let mut query =
                db.prepare_cached("SELECT repository || '@' || digest FROM repo_digests WHERE image = ?1 ORDER BY 1")?;
            let rows = query.query_map([id.as_str()], |row| row.get(0))?;
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

    pub(crate) fn forget_unpacked(&self, diff_id: &Digest) -> Result<(), ImageError> {
        self.forget("forget an unpacked layer", |change| {
            change.execute("DELETE FROM unpacked WHERE diff_id = ?1", [diff_id.as_str()])
        })?;
        Ok(())
    }

    /// Notes that an image was used just now.
    pub(crate) fn touch(&self, id: &ImageId) -> Result<(), ImageError> {
        self.change("note the use of an image", |change| {
            change.execute("UPDATE images SET last_used = ?2 WHERE id = ?1", params![id.as_str(), now()])
        })?;
        Ok(())
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

    pub(crate) fn set_component(&self, id: &ImageId, entrypoint: &str, digest: &Digest) -> Result<(), ImageError> {
        self.change("record a component", |change| {
            change.execute(
                "INSERT OR REPLACE INTO components VALUES (?1, ?2, ?3)",
                [id.as_str(), entrypoint, digest.as_str()],
            )
        })?;
        Ok(())
    }

    pub(crate) fn built(&self, key: &Digest) -> Result<Option<ImageId>, ImageError> {
        self.read("look up a build", |db| {
            db.query_row("SELECT image FROM builds WHERE key = ?1", [key.as_str()], |row| parsed(row, 0)).optional()
        })
    }

    /// Whether that step of a build was carried out before, and the layer it made if it made one.
    pub(crate) fn step(&self, key: &Digest) -> Result<Option<Option<Layer>>, ImageError> {
        self.change("look up a step of a build", |change| {
            change.execute("UPDATE steps SET last_used = ?2 WHERE key = ?1", params![key.as_str(), now()])?;
            change
                .query_row("SELECT diff_id, size FROM steps WHERE key = ?1", [key.as_str()], |row| {
                    let size: i64 = row.get(1)?;
                    let made = row.get::<_, Option<String>>(0)?.is_some().then(|| parsed(row, 0)).transpose()?;
                    Ok(made.map(|diff_id| Layer::plain(diff_id, size.unsigned_abs())))
                })
                .optional()
        })
    }

    pub(crate) fn set_step(&self, key: &Digest, layer: Option<&Layer>) -> Result<(), ImageError> {
        self.change("record a step of a build", |change| {
            let size = layer.map_or(0, |layer| i64::try_from(layer.blob.size).unwrap_or(i64::MAX));
            change.execute(
                "INSERT OR REPLACE INTO steps VALUES (?1, ?2, ?3, ?4)",
                params![key.as_str(), layer.map(|layer| layer.diff_id.as_str()), size, now()],
            )
        })?;
        Ok(())
    }

    /// The layers that the cache of builds keeps, the longest unused first.
    pub(crate) fn cached(&self) -> Result<Vec<CachedLayer>, ImageError> {
        self.read("list the cache of builds", |db| {
            let mut query = db.prepare_cached(
                "SELECT s.diff_id, coalesce(u.size, max(s.size)), max(s.last_used),
                     EXISTS (SELECT 1 FROM layers l WHERE l.diff_id = s.diff_id)
                 FROM steps s LEFT JOIN unpacked u ON u.diff_id = s.diff_id
                 WHERE s.diff_id IS NOT NULL GROUP BY s.diff_id ORDER BY 3",
            )?;
            let rows = query.query_map([], |row| {
                let size: i64 = row.get(1)?;
                let (id, size) = (parsed(row, 0)?, size.unsigned_abs());
                Ok(CachedLayer { id, size, last_used: row.get(2)?, shared: row.get(3)? })
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

    /// Forgets the steps that made a layer.
    pub(crate) fn forget_steps_of(&self, diff_id: &Digest) -> Result<(), ImageError> {
        self.forget("clear the cache of builds", |change| {
            change.execute("DELETE FROM steps WHERE diff_id = ?1", [diff_id.as_str()])
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

    /// Records that a registry knows an image by `digest` under the name's repository.
    pub(crate) fn add_repo_digest(
        &self,
        reference: &Reference,
        id: &ImageId,
        digest: &Digest,
    ) -> Result<(), ImageError> {
        self.change("record a digest", |change| insert_repo_digest(change, reference, id, digest))
    }

    pub(crate) fn set_built(&self, key: &Digest, id: &ImageId) -> Result<(), ImageError> {
        self.change("record a build", |change| {
            change.execute("INSERT OR REPLACE INTO builds VALUES (?1, ?2)", [key.as_str(), id.as_str()])
        })?;
        Ok(())
    }
}

fn carry_out<T>(
    connection: &mut Connection,
    act: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let answer = act(&change)?;
    change.commit()?;
    Ok(answer)
}

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
    fn apply(&self, change: &Transaction<'_>) -> rusqlite::Result<()> {
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

fn insert_repo_digest(
    change: &Transaction<'_>,
    reference: &Reference,
    image: &ImageId,
    digest: &Digest,
) -> rusqlite::Result<()> {
    let repository = format!("{}/{}", reference.registry(), reference.repository());
    change.execute(
        "INSERT OR IGNORE INTO repo_digests VALUES (?1, ?2, ?3)",
        [image.as_str(), &repository, digest.as_str()],
    )?;
    Ok(())
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

fn platform_and_id(row: &Row<'_>) -> rusqlite::Result<(Platform, ImageId)> {
    Ok((Platform::recorded(&row.get::<_, String>(0)?), parsed(row, 1)?))
}

fn parsed<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: String = row.get(column)?;
    text.parse().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
    })
}

/// Milliseconds since the Unix epoch as a time.
pub(crate) fn time(millis: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(millis)
}
