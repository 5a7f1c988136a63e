//! How many changes a database had, in it and in a file beside it: a database that counts fewer was put back.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

pub(super) fn generation_file(data_root: &Path) -> PathBuf {
    data_root.join("generation")
}

pub(super) fn generation(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("select number from generation", [], |row| row.get(0))
}

/// Whether changes that were answered are not in the database. To be asked at open, and noted once all is mended.
pub(super) fn was_rolled_back(connection: &Connection, data_root: &Path) -> bool {
    let written = std::fs::read_to_string(generation_file(data_root)).ok();
    let written = written.and_then(|text| text.trim().parse::<i64>().ok());
    written.is_some_and(|written| generation(connection).is_ok_and(|known| known < written))
}

/// Notes beside the database how many changes it has, after the last of them is on the disk. A smaller number than there is
/// does no harm, so this need not be.
pub(super) fn note_generation(connection: &Connection, data_root: &Path) {
    let path = generation_file(data_root);
    let new = path.with_extension("new");
    let noted = generation(connection).map_err(std::io::Error::other).and_then(|number| {
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(format!("{number}\n").as_bytes())?;
        std::fs::rename(&new, &path)
    });
    if let Err(error) = noted {
        tracing::warn!(path = %path.display(), %error, "the number of changes of the database is not noted");
    }
}
