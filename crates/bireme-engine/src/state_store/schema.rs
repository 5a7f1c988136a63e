//! Tables, their version, and whether a database can be read at all.

use std::path::Path;

use bireme_image::database::Trouble;
use rusqlite::{Connection, OptionalExtension as _};

use crate::EngineError;

pub(super) const SCHEMA_VERSION: i64 = 1;

pub(super) const SCHEMA: &str = "
    create table if not exists workloads (id text primary key, name text not null unique, fixed text not null, moving text not null) strict, without rowid;
    create table if not exists networks (id text primary key, name text not null unique, record text not null) strict, without rowid;
    create table if not exists volumes (name text primary key, record text not null) strict, without rowid;
";

/// How many changes were on the disk before they were answered.
pub(super) const GENERATION: &str = "
    create table if not exists generation (number integer not null) strict;
    insert into generation select 0 where not exists (select 1 from generation);
    update generation set number = 0 where number not between 0 and 4611686018427387904;
";

/// Reads all there is: what is damaged where no check of the database looks would keep the engine from starting.
pub(super) fn read_all(connection: &Connection) -> rusqlite::Result<()> {
    for query in [
        "select id, name, fixed, moving from workloads",
        "select id, name, record from networks",
        "select name, record from volumes",
        "select number from generation",
    ] {
        let mut statement = connection.prepare(query)?;
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            for column in 0..columns {
                let value = row.get_ref(column)?;
                if value.data_type() != rusqlite::types::Type::Integer {
                    value.as_bytes()?;
                }
            }
        }
    }
    Ok(())
}

/// Whether an error is the database's, so that a copy does better, and not the disk's or the memory's.
pub(super) fn is_broken(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    // SQLITE_IOERR_SHORT_READ: it ends before its end.
    const SHORT_READ: i32 = 522;
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => {
            matches!(failure.code, DatabaseCorrupt | NotADatabase) || failure.extended_code == SHORT_READ
        }
        _ => true,
    }
}

/// Whether the folder above `path` lists it. What is mounted at `path` is not asked: its server may be silent.
pub(super) fn is_listed(path: &Path) -> bool {
    let Some(above) = path.parent() else { return true };
    let entries = std::fs::read_dir(above).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| Some(entry.file_name().as_os_str()) == path.file_name())
}

/// Brings the tables up to date.
pub(super) fn tables(connection: &mut Connection, path: &Path) -> Result<(), Trouble<EngineError>> {
    let schema = |source| Trouble::Other(failed("its schema", source));
    let version: Option<i64> =
        connection.query_row("pragma user_version", [], |row| row.get(0)).optional().map_err(schema)?;
    match version.unwrap_or(0) {
        0 => {
            let create = |connection: &mut Connection| {
                let transaction = connection.transaction()?;
                transaction.execute_batch(SCHEMA)?;
                transaction.execute_batch(GENERATION)?;
                transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
                transaction.commit()
            };
            create(connection).map_err(schema)
        }
        SCHEMA_VERSION => {
            let ours = "select count(*) from sqlite_schema where type = 'table' and name in ('workloads', 'networks', 'volumes')";
            let count: i64 = connection.query_row(ours, [], |row| row.get(0)).map_err(schema)?;
            if count != 3 {
                return Err(Trouble::Broken("it lacks tables".to_owned()));
            }
            // Older engines do not know it, and do without.
            connection.execute_batch(GENERATION).and_then(|()| read_all(connection)).map_err(|error| {
                match is_broken(&error) {
                    true => Trouble::Broken(error.to_string()),
                    false => schema(error),
                }
            })
        }
        newer => Err(Trouble::Other(EngineError::NewerSchema {
            path: path.to_owned(),
            version: newer,
            known: SCHEMA_VERSION,
        })),
    }
}

pub(super) fn failed(what: &str, source: rusqlite::Error) -> EngineError {
    EngineError::Memory { what: what.to_owned(), source }
}
