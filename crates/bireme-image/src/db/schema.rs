//! The tables, and which of them have to be readable.

use rusqlite::Connection;

use super::parsed;
use crate::digest::Digest;

/// What each version of the tables adds to the one before; the number of the last is that of the whole.
pub(super) const SCHEMA: [&str; 6] = [
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
    "
-- Folders that builds keep beside layers: mounts of type cache, and contexts as they were sent last.
CREATE TABLE folders (
    name TEXT PRIMARY KEY, kind TEXT NOT NULL, description TEXT NOT NULL, created INTEGER NOT NULL,
    last_used INTEGER NOT NULL, uses INTEGER NOT NULL
) STRICT;
ALTER TABLE steps ADD COLUMN created INTEGER NOT NULL DEFAULT 0;
ALTER TABLE steps ADD COLUMN uses INTEGER NOT NULL DEFAULT 0;
ALTER TABLE steps ADD COLUMN description TEXT NOT NULL DEFAULT '';
",
    "
-- Indexes as registries sent them, of which names were taken: what they say beside platforms goes back with a push.
CREATE TABLE indexes (digest TEXT PRIMARY KEY, document BLOB NOT NULL) STRICT;
",
];

/// Reads the digests of images and their layers: one that is none would keep the store from opening, or all images from being
/// listed. What is made again when it is missed goes where it cannot be read.
pub(super) fn readable(connection: &Connection) -> rusqlite::Result<()> {
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
