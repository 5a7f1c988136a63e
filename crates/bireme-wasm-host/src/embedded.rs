//! The embedded stores of this process: SQLite files in the engine's state folder.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::Semaphore;

use crate::stock::{Own, Stock};

/// An embedded store.
#[expect(unreachable_pub, reason = "as Store")]
pub struct File {
    pub(crate) connection: Mutex<Connection>,
    /// One at a time: calls wait for it here, and not each in a thread of those that files and lookups need too.
    turn: Arc<Semaphore>,
}

/// The embedded stores of this sandbox, each opened once.
pub(crate) struct Embedded {
    folder: PathBuf,
    open: Mutex<HashMap<String, (Arc<File>, Own)>>,
    descriptors: Arc<Stock>,
}

/// Descriptors of an embedded store: the file, its log, and the index of that.
pub(crate) const OF_STORE: usize = 3;

impl Embedded {
    pub(crate) fn new(folder: PathBuf, descriptors: &Arc<Stock>) -> Self {
        Self { folder, open: Mutex::default(), descriptors: Arc::clone(descriptors) }
    }

    /// The store called `name`, if it is open: without waiting for the disk.
    pub(crate) fn known(&self, name: &str) -> Option<Arc<File>> {
        let open = self.open.try_lock()?;
        open.get(name).map(|(store, _)| Arc::clone(store))
    }

    /// Where the database called `name` is.
    pub(crate) fn database(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{}.db", file_name(name)))
    }

    pub(crate) fn get(&self, name: &str) -> Result<Arc<File>, String> {
        let mut open = self.open.lock();
        if let Some((store, _)) = open.get(name) {
            return Ok(Arc::clone(store));
        }
        let file = self.folder.join(format!("{}.sqlite", file_name(name)));
        let connection = open_file(&file).map_err(|error| format!("cannot open store {name}: {error}"))?;
        let store = Arc::new(File { connection: Mutex::new(connection), turn: Arc::new(Semaphore::new(1)) });
        open.insert(name.to_owned(), (Arc::clone(&store), self.descriptors.own(OF_STORE)));
        Ok(store)
    }
}

/// A name as part of a file name: letters, digits, `-` and `_` stay, every other byte becomes `%XX`.
fn file_name(name: &str) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            text.push(byte as char);
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

/// Bytes of one embedded store; what would make it larger is refused with "database or disk is full".
pub(crate) const LARGEST: i64 = 1 << 30;

fn open_file(file: &Path) -> rusqlite::Result<Connection> {
    let db = open_bounded(file)?;
    db.execute("CREATE TABLE IF NOT EXISTS kv (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID", [])?;
    Ok(db)
}

/// Opens a file that may become [`LARGEST`].
pub(crate) fn open_bounded(file: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open(file)?;
    db.busy_timeout(std::time::Duration::from_secs(5))?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    // With a write-ahead log this loses nothing when the process dies, and the last moments when the machine does.
    db.pragma_update(None, "synchronous", "NORMAL")?;
    // Every component may have one, unasked.
    let page: i64 = db.pragma_query_value(None, "page_size", |row| row.get(0))?;
    db.pragma_update(None, "max_page_count", LARGEST / page.max(1))?;
    Ok(db)
}

/// Runs `work` on a thread where it may wait.
///
/// # Errors
/// Those of `work`, and that it panicked.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err("the store's worker failed".to_owned()))
}

/// Runs `work` on a thread where it may wait for the disk.
pub(crate) async fn sql<T: Send + 'static>(
    db: &Arc<File>,
    work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
) -> Result<T, String> {
    let db = Arc::clone(db);
    let turn = Arc::clone(&db.turn).acquire_owned().await.map_err(|error| error.to_string())?;
    blocking(move || {
        // Given back by the thread: whoever asked may have gone.
        let _turn = turn;
        work(&mut db.connection.lock()).map_err(|error| error.to_string())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_names_are_safe_file_names() {
        for (name, expected) in [("default", "default"), ("../x", "%2E%2E%2Fx"), ("a b", "a%20b"), ("", "")] {
            assert_eq!(file_name(name), expected);
        }
    }
}
