//! From a local account, and from a lost or broken database: what is stored is closed to others and kept.

mod cut_short;
mod database;
mod folders;
mod full_disk;
mod records;

use std::path::Path;

/// What may happen to files of a database while no engine runs.
fn lose(data_root: &Path) {
    for name in ["engine.db", "engine.db-wal", "engine.db-shm"] {
        let _ = std::fs::remove_file(data_root.join(name));
    }
}

/// Brings what was written ahead into the database itself.
fn checkpoint(path: &Path) {
    let database = rusqlite::Connection::open(path).unwrap();
    database.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(())).unwrap();
}
