//! Folders that builds keep beside layers.

use rusqlite::params;

use super::{Db, now};
use crate::error::ImageError;
use crate::model::{CacheKind, CacheRecord};

impl Db {
    /// Notes that a folder is used, and that it is there.
    pub(crate) fn use_folder(&self, name: &str, kind: CacheKind, description: &str) -> Result<(), ImageError> {
        self.change("record a folder of builds", |change| {
            change.execute(
                "INSERT INTO folders VALUES (?1, ?2, ?3, ?4, ?4, 1)
                 ON CONFLICT (name) DO UPDATE SET last_used = ?4, uses = uses + 1",
                params![name, kind.word(), description, now()],
            )
        })?;
        Ok(())
    }

    /// All of them, the longest unused first; how many bytes are in them is not remembered.
    pub(crate) fn folders(&self) -> Result<Vec<CacheRecord>, ImageError> {
        self.read("list the folders of builds", |db| {
            let mut query = db.prepare_cached(
                "SELECT name, kind, created, last_used, uses, description FROM folders ORDER BY last_used",
            )?;
            let rows = query.query_map([], |row| {
                let kind: String = row.get(1)?;
                let kind = if kind == CacheKind::Context.word() { CacheKind::Context } else { CacheKind::Mount };
                Ok(CacheRecord {
                    id: row.get(0)?,
                    kind,
                    size: 0,
                    shared: false,
                    in_use: false,
                    created: row.get(2)?,
                    last_used: row.get(3)?,
                    uses: row.get::<_, i64>(4)?.unsigned_abs(),
                    description: row.get(5)?,
                })
            })?;
            rows.collect()
        })
    }

    /// Forgets one.
    pub(crate) fn forget_folder(&self, name: &str) -> Result<(), ImageError> {
        self.forget("forget a folder of builds", |change| {
            change.execute("DELETE FROM folders WHERE name = ?1", [name])
        })?;
        Ok(())
    }
}
