//! What the store remembers, in SQLite: images, their names, their layers, what is unpacked.
//!
//! Manifests and configurations are small and stand in the database itself, so that an image is either there whole or
//! not at all; only layers are files. Statements are short and run under a mutex on whatever thread calls.

mod builds;
mod folders;
mod images;
mod layers;
mod names;
mod schema;

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, Row, Transaction, TransactionBehavior};

use crate::database::{self, Ballast, Found, Trouble};
use crate::digest::Digest;
use crate::error::ImageError;
use schema::{SCHEMA, readable};

pub(crate) use names::Naming;

/// What nothing refers to any more after a removal; its files are to be deleted.
#[derive(Debug, Default)]
pub(crate) struct Garbage {
    pub(crate) blobs: Vec<Digest>,
    pub(crate) diff_ids: Vec<Digest>,
    pub(crate) components: Vec<Digest>,
}

/// The open database of a store.
pub(crate) struct Db {
    connection: Mutex<Connection>,
    path: PathBuf,
    ballast: Ballast,
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
}

fn fault(attempt: &'static str) -> impl FnOnce(rusqlite::Error) -> ImageError {
    move |source| ImageError::Database { attempt, source }
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

fn now() -> i64 {
    Utc::now().timestamp_millis()
}

/// Milliseconds since the Unix epoch as a time.
pub(crate) fn time(millis: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(millis)
}
