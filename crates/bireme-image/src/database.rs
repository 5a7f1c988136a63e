//! How a database that must not be lost is opened: checked, with copies beside it that stand in for one that is broken.
//!
//! ```text
//! FOLDER/NAME                    the database
//! FOLDER/backup/NAME.1 … NAME.3  whole copies, the newest first
//! FOLDER/broken/NAME.TIME        what could not be read, for whoever wants to look into it
//! FOLDER/ballast                 space that is given up when the disk is full, see [`Ballast`]
//! ```
//!
//! Used for `images.db` here and for `engine.db` by the engine. Everything in here blocks.

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

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
    /// A file of it, or of a copy, cannot be read, written or renamed.
    #[error("cannot use {}", path.display())]
    File {
        /// The file or folder in question.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// SQLite refuses it for another reason than damage.
    #[error("cannot use the database {}", path.display())]
    Sqlite {
        /// The database, or the copy that was to be written.
        path: PathBuf,
        /// SQLite's own account.
        #[source]
        source: rusqlite::Error,
    },
    /// Not even one that was made just now.
    #[error("the database {} cannot be used: {why}", path.display())]
    Broken {
        /// The database.
        path: PathBuf,
        /// What the check of its tables found.
        why: String,
    },
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
    let once = || {
        let mut connection = connect(path)?;
        tables(&mut connection)?;
        Ok(connection)
    };
    let attempt = || match once() {
        // Even to open one takes some room, for what SQLite lays beside it.
        Err(Trouble::Other(_)) if Ballast::beside(path).give_up_where_crowded() => once(),
        other => other,
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
    // Closed to others from its first moment: an empty file is taken.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(file)?;
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
        // With its indexes: by one that lacks a row, what is in use would be taken for what is not.
        let found = connection.query_row("pragma integrity_check(1)", [], |row| row.get::<_, String>(0))?;
        Ok((connection, found))
    };
    let (connection, found) = check().map_err(sqlite)?;
    if found != "ok" {
        return Err(DatabaseError::Broken { path: path.to_owned(), why: found });
    }
    Ok(connection)
}

/// Bytes that a ballast holds, on a disk that is not small.
const BALLAST: u64 = 4 << 20;
/// Of a smaller disk, it holds this part.
const PART: u64 = 32;
/// How many times its bytes must be free before it is made: what is held back is of no use to others.
const ROOM: u64 = 4;
/// With less than so many bytes free, a disk is full for a database.
const CROWDED: u64 = 1 << 20;

/// Space that is held back beside a database, so that ends and removals can be remembered when the disk is full: without
/// them, nothing could be removed to make room. What is new is never given of it.
///
/// Everything blocks for a moment.
#[derive(Debug)]
pub struct Ballast {
    path: PathBuf,
    held: AtomicBool,
}

impl Ballast {
    /// That of the database at `path`; whether it is there or not, nothing is changed.
    pub fn beside(path: &Path) -> Self {
        Self { path: path.with_file_name("ballast"), held: AtomicBool::new(false) }
    }

    /// Makes it where it is not there and the disk has room for it. Failing is no error: it is tried again with the next
    /// call.
    pub fn keep(&self) {
        if self.held.load(Ordering::Acquire) {
            return;
        }
        let Ok(disk) = statvfs(self.path.parent().unwrap_or(&self.path)) else { return };
        let bytes = BALLAST.min(disk.f_blocks.saturating_mul(disk.f_frsize) / PART);
        let there = std::fs::symlink_metadata(&self.path).is_ok_and(|about| about.len() >= bytes);
        if !there && disk.f_bavail.saturating_mul(disk.f_frsize) < bytes.saturating_mul(ROOM) {
            return;
        }
        match there || self.lay(bytes).is_ok() {
            true => self.held.store(true, Ordering::Release),
            false => drop(std::fs::remove_file(&self.path)),
        }
    }

    fn lay(&self, bytes: u64) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&self.path)?;
        match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            // A file system that cannot set space aside is given something to keep.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                io::copy(&mut io::Read::take(io::repeat(0x5a), bytes), &mut file).map(drop)
            }
            other => Ok(other?),
        }
    }

    /// Gives its space back to the disk; answers whether there was any.
    pub fn give_up(&self) -> bool {
        self.held.store(false, Ordering::Release);
        let given = std::fs::remove_file(&self.path).is_ok();
        if given {
            tracing::warn!(path = %self.path.display(), "the disk is full: space that was held back for ends and removals is given up");
        }
        given
    }

    fn give_up_where_crowded(&self) -> bool {
        let folder = self.path.parent().unwrap_or(&self.path);
        let crowded = statvfs(folder).is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < CROWDED);
        crowded && self.give_up()
    }

    /// Does `change`, once more after giving the space up where there is no room for it.
    ///
    /// # Errors
    /// Those of `change`.
    pub fn with_room<T>(&self, mut change: impl FnMut() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let changed = match change() {
            Err(error) if is_full(&error) && self.give_up() => change(),
            other => other,
        };
        if changed.is_ok() {
            self.keep();
        }
        changed
    }
}

/// Whether a change failed for want of room: what SQLite lays beside a database fails as any other file does.
fn is_full(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure))
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
    fn a_change_that_finds_no_room_gets_what_was_held_back() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("x.db");
        let full = || rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL), None);
        let ballast = Ballast::beside(&path);
        ballast.keep();
        let laid = temp.path().join("ballast");
        let about = std::fs::metadata(&laid).unwrap();
        assert_eq!((about.len(), about.permissions().mode() & 0o777), (BALLAST, 0o600));
        assert!(std::os::unix::fs::MetadataExt::blocks(&about) >= BALLAST / 512, "it takes the space it has");
        let mut tries = 0;
        let changed = ballast.with_room(|| {
            tries += 1;
            if laid.exists() { Err(full()) } else { Ok(tries) }
        });
        assert_eq!(changed.unwrap(), 2);
        assert!(laid.exists(), "there is room again");
        std::fs::remove_file(&laid).unwrap();
        assert!(ballast.with_room(|| Err::<(), _>(full())).is_err(), "without one the refusal stands");
        let other = || Err::<(), _>(rusqlite::Error::QueryReturnedNoRows);
        ballast.keep();
        assert!(ballast.with_room(other).is_err() && laid.exists(), "any other failure is none of its business");
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
