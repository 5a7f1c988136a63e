//! How a database that must not be lost is opened: checked, with copies beside it that stand in for one that is broken.
//!
//! ```text
//! FOLDER/NAME                    the database
//! FOLDER/backup/NAME.1 … NAME.3  whole copies, the newest first
//! FOLDER/broken/NAME.TIME        what could not be read, for whoever wants to look into it
//! ```
//!
//! Used for `images.db` here and for `engine.db` by the engine. Everything in here blocks.

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode};

/// How many whole copies are kept.
const COPIES: u32 = 3;

/// What was found in a database's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The database, sound.
    Whole,
    /// None, and no copy of one.
    Nothing,
    /// None that can be read: an earlier copy stands in for it.
    Older,
}

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error("cannot use {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot use the database {}", path.display())]
    Sqlite {
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    /// Not even one that was made just now.
    #[error("the database {} cannot be used: {why}", path.display())]
    Broken { path: PathBuf, why: String },
}

/// What a check of the tables finds.
#[derive(Debug)]
pub enum Trouble<E> {
    /// It is no database of ours, or not whole: a copy may do better.
    Broken(String),
    /// No copy would help.
    Other(E),
}

impl<E> From<DatabaseError> for Trouble<E>
where
    E: From<DatabaseError>,
{
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::Broken { why, .. } => Self::Broken(why),
            other => Self::Other(other.into()),
        }
    }
}

/// Opens the database at `path`, which `tables` checks and brings up to date; or the newest copy of it for which that
/// succeeds, or an empty one. One that is broken is put aside, never removed.
///
/// # Errors
/// When the folder cannot be used, or `tables` says that no copy would help.
pub fn open<E: From<DatabaseError>>(
    path: &Path,
    tables: impl Fn(&mut Connection) -> Result<(), Trouble<E>>,
) -> Result<(Connection, Found), E> {
    let file = |source| DatabaseError::File { path: path.to_owned(), source };
    let attempt = || {
        let mut connection = connect(path)?;
        tables(&mut connection)?;
        Ok(connection)
    };
    if std::fs::metadata(path).map_or(0, |about| about.len()) > 0 {
        match attempt() {
            Ok(connection) => return Ok((connection, Found::Whole)),
            Err(Trouble::Other(error)) => return Err(error),
            Err(Trouble::Broken(why)) => {
                tracing::error!(path = %path.display(), why, "a database cannot be read: it is put into the folder broken");
            }
        }
    }
    // Also of one that is lost: a log of changes without its database is of no use, and must not be taken for another's.
    set_aside(path).map_err(file)?;
    for number in 1..=COPIES {
        let copy = copy_of(path, number);
        if !copy.exists() {
            continue;
        }
        std::fs::copy(&copy, path).map_err(file)?;
        match attempt() {
            Ok(connection) => {
                tracing::warn!(path = %path.display(), copy = %copy.display(), "a database was lost: an earlier copy stands in for it");
                return Ok((connection, Found::Older));
            }
            Err(Trouble::Other(error)) => return Err(error),
            Err(Trouble::Broken(why)) => {
                tracing::warn!(copy = %copy.display(), why, "a copy of a database cannot be read either");
            }
        }
        for suffix in SUFFIXES {
            let _ = std::fs::remove_file(with_suffix(path, suffix));
        }
    }
    match attempt() {
        Ok(connection) => Ok((connection, Found::Nothing)),
        Err(Trouble::Other(error)) => Err(error),
        Err(Trouble::Broken(why)) => Err(DatabaseError::Broken { path: path.to_owned(), why }.into()),
    }
}

/// Writes a whole copy of the database beside the earlier ones, unless it would be the same as the last.
///
/// # Errors
/// Those of writing it; the earlier copies stay.
pub fn back_up(connection: &Connection, path: &Path) -> Result<(), DatabaseError> {
    let file = |source| DatabaseError::File { path: path.to_owned(), source };
    let first = copy_of(path, 1);
    make_closed(first.parent().unwrap_or(path)).map_err(file)?;
    let new = copy_of(path, 0);
    let _ = std::fs::remove_file(&new);
    connection
        .execute("vacuum into ?1", [new.to_string_lossy()])
        .map_err(|source| DatabaseError::Sqlite { path: new.clone(), source })?;
    rotate(path, &new).map_err(file)
}

fn rotate(path: &Path, new: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(new)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    let whole = std::fs::read(new)?;
    if std::fs::read(copy_of(path, 1)).is_ok_and(|last| last == whole) {
        return std::fs::remove_file(new);
    }
    file.sync_all()?;
    for number in (0..COPIES).rev() {
        match std::fs::rename(copy_of(path, number), copy_of(path, number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn copy_of(path: &Path, number: u32) -> PathBuf {
    let name = path.file_name().unwrap_or_default();
    with_suffix(&path.with_file_name("backup").join(name), &format!(".{number}"))
}

fn connect(path: &Path) -> Result<Connection, DatabaseError> {
    let sqlite = |source: rusqlite::Error| match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            DatabaseError::Broken { path: path.to_owned(), why: source.to_string() }
        }
        _ => DatabaseError::Sqlite { path: path.to_owned(), source },
    };
    // What SQLite lays beside it takes its mode.
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .and_then(|file| file.set_permissions(Permissions::from_mode(0o600)))
        .map_err(|source| DatabaseError::File { path: path.to_owned(), source })?;
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::set_permissions(with_suffix(path, suffix), Permissions::from_mode(0o600));
    }
    let check = || {
        let connection = Connection::open(path)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "normal")?;
        let found = connection.query_row("pragma quick_check(1)", [], |row| row.get::<_, String>(0))?;
        Ok((connection, found))
    };
    let (connection, found) = check().map_err(sqlite)?;
    if found != "ok" {
        return Err(DatabaseError::Broken { path: path.to_owned(), why: found });
    }
    Ok(connection)
}

const SUFFIXES: [&str; 3] = ["", "-wal", "-shm"];

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Moves the database with what lies beside it into the folder of broken ones; empty files go.
fn set_aside(path: &Path) -> io::Result<()> {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    for suffix in SUFFIXES {
        let from = with_suffix(path, suffix);
        match std::fs::symlink_metadata(&from) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(about) if about.is_file() && about.len() == 0 => std::fs::remove_file(&from)?,
            Ok(_) => {
                let folder = path.with_file_name("broken");
                make_closed(&folder)?;
                let name = from.file_name().unwrap_or_default();
                std::fs::rename(&from, with_suffix(&folder.join(name), &format!(".{time}")))?;
            }
        }
    }
    Ok(())
}

fn make_closed(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_at(path: &Path) -> (Connection, Found) {
        open::<DatabaseError>(path, |connection| {
            connection
                .execute_batch("create table if not exists things (name text)")
                .map_err(|source| Trouble::Other(DatabaseError::Sqlite { path: PathBuf::new(), source }))
        })
        .unwrap()
    }

    fn things(connection: &Connection) -> i64 {
        connection.query_row("select count(*) from things", [], |row| row.get(0)).unwrap()
    }

    fn filled(path: &Path) {
        let (connection, found) = open_at(path);
        assert_eq!(found, Found::Nothing);
        for _ in 0..500 {
            connection.execute("insert into things values (hex(randomblob(100)))", []).unwrap();
        }
        back_up(&connection, path).unwrap();
        back_up(&connection, path).unwrap();
        connection.execute("insert into things values ('later')", []).unwrap();
    }

    #[test]
    fn whatever_becomes_of_a_database_its_copy_stands_in() {
        type Harm = fn(&Path);
        let harms: [(&str, Harm); 5] = [
            ("removed", |path| std::fs::remove_file(path).unwrap()),
            ("emptied", |path| std::fs::write(path, "").unwrap()),
            ("garbage", |path| std::fs::write(path, [0x5a; 9000]).unwrap()),
            ("truncated", |path| {
                let file = OpenOptions::new().write(true).open(path).unwrap();
                file.set_len(file.metadata().unwrap().len() / 2).unwrap();
            }),
            ("overwritten", |path| {
                use std::os::unix::fs::FileExt as _;
                let file = OpenOptions::new().write(true).open(path).unwrap();
                file.write_all_at(&[0xff; 3000], 4096).unwrap();
            }),
        ];
        for (what, harm) in harms {
            let temp = tempfile::tempdir().unwrap();
            let path = temp.path().join("x.db");
            filled(&path);
            assert_eq!(open_at(&path).1, Found::Whole);
            harm(&path);
            let (connection, found) = open_at(&path);
            assert_eq!((found, things(&connection)), (Found::Older, 500), "{what}");
            drop(connection);
            assert_eq!(open_at(&path).1, Found::Whole, "{what}: it is the database now");
        }
    }

    #[test]
    fn without_a_copy_an_empty_one_is_made_and_the_broken_one_kept() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("x.db");
        std::fs::write(&path, "no database").unwrap();
        let (connection, found) = open_at(&path);
        assert_eq!((found, things(&connection)), (Found::Nothing, 0));
        let kept: Vec<_> = std::fs::read_dir(temp.path().join("broken")).unwrap().flatten().collect();
        assert_eq!(kept.len(), 1);
        assert_eq!(std::fs::read_to_string(kept[0].path()).unwrap(), "no database");
    }

    #[test]
    fn copies_are_kept_in_turn_and_closed_to_others() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("x.db");
        let (connection, _) = open_at(&path);
        for round in 0..5 {
            connection.execute("insert into things values (?1)", [round]).unwrap();
            back_up(&connection, &path).unwrap();
            back_up(&connection, &path).unwrap();
        }
        let mut names: Vec<_> =
            std::fs::read_dir(temp.path().join("backup")).unwrap().flatten().map(|e| e.file_name()).collect();
        names.sort();
        assert_eq!(names, ["x.db.1", "x.db.2", "x.db.3"]);
        for path in [path.clone(), with_suffix(&path, "-wal"), with_suffix(&path, "-shm"), copy_of(&path, 1)] {
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", path.display());
        }
    }
}
