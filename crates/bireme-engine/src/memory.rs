//! What is remembered: one SQLite database under the data root.
//!
//! ```text
//! <data_root>/engine.db
//!   workloads(id, name, fixed, moving)   fixed: view::Fixed, written once; moving: Moving, written at each change
//!   networks(id, name, record)           view::Network
//!   volumes(name, record)                view::Volume
//!   pragma user_version                  the schema's version
//! ```
//!
//! Written in WAL mode. What names stored data (containers, volumes, networks that come and go) is on the disk before
//! anyone is told; a change of state is not synced: a killed engine loses nothing, a machine that loses power may lose the
//! last moments. Decision 0004 argues the choice.
//!
//! The database is checked when it is opened. One that cannot be read is put aside, never removed, and made anew from what
//! [`crate::records`] keeps beside each thing; `engine.db.backup` is a copy of how it was at an earlier start.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rusqlite::{Connection, OptionalExtension as _, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::EngineError;
use crate::records::Records;
use crate::view::{Network, Volume};

const SCHEMA_VERSION: i64 = 1;

const SCHEMA: &str = "
    create table workloads (id text primary key, name text not null unique, fixed text not null, moving text not null) strict, without rowid;
    create table networks (id text primary key, name text not null unique, record text not null) strict, without rowid;
    create table volumes (name text primary key, record text not null) strict, without rowid;
";

/// A handle on the database; clones share one connection.
#[derive(Clone)]
pub(crate) struct Memory {
    connection: Arc<Mutex<Connection>>,
    records: Records,
}

/// How long a transaction takes to be safe.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Safe {
    /// From a killed engine.
    Soon,
    /// From a loss of power too.
    Now,
}

impl Memory {
    /// Opens the database, or makes it anew from the records beside what is stored.
    ///
    /// # Errors
    /// `Memory` when neither can be done; `Unsupported` for the database of a newer engine, which is left alone.
    pub(crate) fn open(data_root: &Path) -> Result<Self, EngineError> {
        let path = data_root.join("engine.db");
        let records = Records::new(data_root);
        let connection = match open_sound(&path) {
            Ok(connection) => connection,
            Err(error @ EngineError::Unsupported { .. }) => return Err(error),
            Err(EngineError::Memory { source, .. }) if is_damaged(&source) => {
                let aside = put_aside(&path).map_err(|source| EngineError::File { path: path.clone(), source })?;
                tracing::error!(
                    error = &source as &dyn std::error::Error,
                    kept = %aside.display(),
                    "the database is damaged: it is kept aside, and made anew from what lies beside the stored data"
                );
                open_sound(&path)?
            }
            Err(error) => return Err(error),
        };
        let memory = Self { connection: Arc::new(Mutex::new(connection)), records };
        memory.adopt()?;
        memory.write_missing_records()?;
        memory.back_up(&path);
        Ok(memory)
    }

    /// Takes up what lies below the data root and the database does not know.
    fn adopt(&self) -> Result<(), EngineError> {
        let known = |query: &str| -> Result<HashSet<String>, EngineError> {
            Ok(self.rows(query, |row| row.get::<_, String>(0))?.into_iter().collect())
        };
        let (workloads, names) = (known("select id from workloads")?, known("select name from workloads")?);
        let connection = self.connection.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let add = |what: &str, done: rusqlite::Result<usize>| match done {
            Ok(_) => tracing::warn!("{what} was not in the database, and is taken up again"),
            Err(error) => tracing::warn!(%error, "{what} is not in the database, and cannot be taken up again"),
        };
        for found in self.records.workloads() {
            if workloads.contains(&found.id) {
                continue;
            }
            // Another may have its name by now.
            let short = found.id.get(..12).unwrap_or(&found.id);
            let name = if names.contains(&found.name) { format!("{}_{short}", found.name) } else { found.name };
            let done = connection.execute(
                "insert or ignore into workloads (id, name, fixed, moving) values (?1, ?2, ?3, ?4)",
                params![found.id, name, found.fixed, found.moving],
            );
            add(&format!("container {name}"), done);
        }
        drop(connection);
        let networks = known("select id from networks")?;
        let network_names = known("select name from networks")?;
        let volumes = known("select name from volumes")?;
        let connection = self.connection.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for network in self.records.networks::<Network>() {
            if networks.contains(&network.id) || network_names.contains(&network.name) {
                continue;
            }
            let done = connection.execute(
                "insert or ignore into networks (id, name, record) values (?1, ?2, ?3)",
                params![network.id, network.name, json(&network)],
            );
            add(&format!("network {}", network.name), done);
        }
        for (name, mountpoint, record) in self.records.volumes::<Volume>() {
            if volumes.contains(&name) {
                continue;
            }
            // Whatever its record says, a folder is a volume of that name at that place.
            let volume = match record {
                Some(volume) => Volume { name: name.clone(), mountpoint, ..volume },
                None => Volume {
                    name: name.clone(),
                    driver: "local".to_owned(),
                    mountpoint,
                    created: crate::engine::now(),
                    options: Default::default(),
                    labels: Default::default(),
                    anonymous: false,
                },
            };
            let done = connection.execute(
                "insert or ignore into volumes (name, record) values (?1, ?2)",
                params![name, json(&volume)],
            );
            add(&format!("volume {name}"), done);
        }
        Ok(())
    }

    /// Of what an older engine stored, without a record beside it.
    fn write_missing_records(&self) -> Result<(), EngineError> {
        let told = |what: &str, done: std::io::Result<()>| {
            if let Err(error) = done {
                tracing::warn!(%error, "the record of {what} cannot be written");
            }
        };
        let workloads = self.rows("select id, name, fixed, moving from workloads", |row| {
            Ok([row.get::<_, String>(0)?, row.get(1)?, row.get(2)?, row.get(3)?])
        })?;
        for [id, name, fixed, moving] in workloads {
            if !self.records.has_workload(&id) {
                told(&name, self.records.put_fixed(&id, &name, &fixed));
                told(&name, self.records.put_moving(&id, &name, &moving));
            }
        }
        for [id, record] in self.rows("select id, record from networks", |row| Ok([row.get::<_, String>(0)?, row.get(1)?]))? {
            told(&id, self.records.put_network(&id, &record));
        }
        for [name, record] in self.rows("select name, record from volumes", |row| Ok([row.get::<_, String>(0)?, row.get(1)?]))? {
            told(&name, self.records.put_volume(&name, &record));
        }
        Ok(())
    }

    /// Keeps a copy of the database as it is now; the copy before becomes `engine.db.backup.1`.
    fn back_up(&self, path: &Path) {
        let backup = path.with_extension("db.backup");
        let unfinished = path.with_extension("db.backup.new");
        let copy = || -> Result<(), Box<dyn std::error::Error>> {
            let _ = std::fs::remove_file(&unfinished);
            let connection = self.connection.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            connection.execute("vacuum into ?1", [unfinished.to_string_lossy()])?;
            let _ = std::fs::rename(&backup, path.with_extension("db.backup.1"));
            std::fs::rename(&unfinished, &backup)?;
            Ok(())
        };
        if let Err(error) = copy() {
            tracing::warn!(%error, path = %backup.display(), "the database cannot be backed up; is the disk full?");
        }
    }

    /// Runs `work` in one transaction, off the async threads.
    async fn write(
        &self,
        safe: Safe,
        what: String,
        work: impl FnOnce(&Connection) -> rusqlite::Result<()> + Send + 'static,
    ) -> Result<(), EngineError> {
        let connection = self.connection.clone();
        let done = tokio::task::spawn_blocking(move || {
            let mut connection = connection.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            if safe == Safe::Now {
                connection.pragma_update(None, "synchronous", "full")?;
            }
            let transaction = connection.transaction()?;
            let done = work(&transaction).and_then(|()| transaction.commit());
            if safe == Safe::Now {
                connection.pragma_update(None, "synchronous", "normal")?;
            }
            done
        });
        match done.await {
            Ok(result) => result.map_err(|source| failed(&what, source)),
            Err(_) => Err(EngineError::Stopping),
        }
    }

    pub(crate) async fn insert_workload(
        &self,
        id: &str,
        name: &str,
        fixed: &impl Serialize,
        moving: &impl Serialize,
    ) -> Result<(), EngineError> {
        let row = (id.to_owned(), name.to_owned(), json(fixed), json(moving));
        self.records
            .put_fixed(id, name, &row.2)
            .and_then(|()| self.records.put_moving(id, name, &row.3))
            .map_err(|source| EngineError::File { path: self.records.path_of(id), source })?;
        self.write(Safe::Now, format!("container {name}"), move |db| {
            db.prepare_cached("insert into workloads (id, name, fixed, moving) values (?1, ?2, ?3, ?4)")?
                .execute(params![row.0, row.1, row.2, row.3])
                .map(drop)
        })
        .await
    }

    pub(crate) async fn update_workload(
        &self,
        id: &str,
        name: &str,
        moving: &impl Serialize,
    ) -> Result<(), EngineError> {
        let row = (id.to_owned(), name.to_owned(), json(moving));
        if let Err(error) = self.records.put_moving(id, name, &row.2) {
            tracing::warn!(workload.id = id, %error, "the record beside a container cannot be written; is the disk full?");
        }
        self.write(Safe::Soon, format!("the state of container {name}"), move |db| {
            db.prepare_cached("update workloads set name = ?2, moving = ?3 where id = ?1")?
                .execute(params![row.0, row.1, row.2])
                .map(drop)
        })
        .await
    }

    pub(crate) async fn delete_workload(&self, id: &str) -> Result<(), EngineError> {
        let id = id.to_owned();
        self.write(Safe::Soon, "a removal".to_owned(), move |db| {
            db.prepare_cached("delete from workloads where id = ?1")?.execute([id]).map(drop)
        })
        .await
    }

    /// Every workload, oldest record first is not promised.
    pub(crate) fn workloads<F: DeserializeOwned, M: DeserializeOwned>(
        &self,
    ) -> Result<Vec<(String, F, M)>, EngineError> {
        self.rows("select name, fixed, moving from workloads", |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
        })?
        .into_iter()
        .filter_map(|(name, fixed, moving)| {
            let parsed = parse(&name, &fixed).and_then(|fixed| Ok((fixed, parse(&name, &moving)?)));
            match parsed {
                Ok((fixed, moving)) => Some(Ok((name, fixed, moving))),
                // One that cannot be read costs nobody the others.
                Err(error) => {
                    tracing::error!(name, error = &error as &dyn std::error::Error, "a container is left alone: its record is not understood");
                    None
                }
            }
        })
        .collect()
    }

    pub(crate) async fn put_network(&self, network: &Network) -> Result<(), EngineError> {
        let row = (network.id.clone(), network.name.clone(), json(network));
        self.records
            .put_network(&network.id, &row.2)
            .map_err(|source| EngineError::File { path: self.records.path_of(&network.id), source })?;
        self.write(Safe::Now, format!("network {}", network.name), move |db| {
            db.execute(
                "insert or replace into networks (id, name, record) values (?1, ?2, ?3)",
                params![row.0, row.1, row.2],
            )
            .map(drop)
        })
        .await
    }

    pub(crate) async fn delete_network(&self, id: &str) -> Result<(), EngineError> {
        self.records.delete_network(id);
        let id = id.to_owned();
        self.write(Safe::Soon, "a removal".to_owned(), move |db| db.execute("delete from networks where id = ?1", [id]).map(drop))
            .await
    }

    pub(crate) fn networks(&self) -> Result<Vec<Network>, EngineError> {
        self.records("select name, record from networks")
    }

    pub(crate) async fn put_volume(&self, volume: &Volume) -> Result<(), EngineError> {
        let row = (volume.name.clone(), json(volume));
        self.records
            .put_volume(&volume.name, &row.1)
            .map_err(|source| EngineError::File { path: volume.mountpoint.clone(), source })?;
        self.write(Safe::Now, format!("volume {}", volume.name), move |db| {
            db.execute("insert or replace into volumes (name, record) values (?1, ?2)", params![row.0, row.1]).map(drop)
        })
        .await
    }

    pub(crate) async fn delete_volume(&self, name: &str) -> Result<(), EngineError> {
        let name = name.to_owned();
        self.write(Safe::Soon, "a removal".to_owned(), move |db| {
            db.execute("delete from volumes where name = ?1", [name]).map(drop)
        })
        .await
    }

    pub(crate) fn volumes(&self) -> Result<Vec<Volume>, EngineError> {
        self.records("select name, record from volumes")
    }

    fn records<T: DeserializeOwned>(&self, query: &str) -> Result<Vec<T>, EngineError> {
        self.rows(query, |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?
            .into_iter()
            .map(|(name, record)| parse(&name, &record))
            .collect()
    }

    fn rows<T>(
        &self,
        query: &str,
        read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, EngineError> {
        let connection = self.connection.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let all = || connection.prepare(query)?.query_map([], read)?.collect::<rusqlite::Result<Vec<T>>>();
        all().map_err(|source| failed("what exists", source))
    }
}

/// Opens the database and looks at every page of it.
fn open_sound(path: &Path) -> Result<Connection, EngineError> {
    let open = || {
        close_to_others(path);
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "normal")?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        let sound: String = connection.query_row("pragma quick_check(1)", [], |row| row.get(0))?;
        if sound != "ok" {
            return Err(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
                Some(sound),
            ));
        }
        Ok(connection)
    };
    let mut connection = open().map_err(|source| failed(&format!("anything in {}", path.display()), source))?;
    migrate(&mut connection, path)?;
    Ok(connection)
}

/// Creates the file closed to other users, and closes one that is open; SQLite gives what it adds the same mode.
fn close_to_others(path: &Path) {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let closed = |path: &Path, create: bool| {
        let file = std::fs::OpenOptions::new().write(true).create(create).truncate(false).mode(0o600).open(path)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))
    };
    let (wal, shm) = (path.with_extension("db-wal"), path.with_extension("db-shm"));
    for (path, create) in [(path, true), (&wal, false), (&shm, false)] {
        match closed(path, create) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "the database cannot be closed to other users");
            }
            _ => {}
        }
    }
}

/// Whether a database can never be read again, rather than now.
fn is_damaged(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match error {
        rusqlite::Error::SqliteFailure(failure, text) => {
            matches!(failure.code, DatabaseCorrupt | NotADatabase)
                // A table of ours is missing, though the version says that it is there.
                || text.as_ref().is_some_and(|text| text.starts_with("no such table") || text.starts_with("no such column"))
        }
        rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::InvalidColumnType(..) => true,
        _ => false,
    }
}

/// Renames a database and what belongs to it; answers its new name.
fn put_aside(path: &Path) -> std::io::Result<std::path::PathBuf> {
    let now = crate::engine::now() / 1_000_000_000;
    let aside = path.with_extension(format!("db.damaged-{now}"));
    std::fs::rename(path, &aside)?;
    for ending in ["-wal", "-shm"] {
        let (mut from, mut to) = (path.as_os_str().to_owned(), aside.as_os_str().to_owned());
        from.push(ending);
        to.push(ending);
        match std::fs::rename(&from, &to) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), EngineError> {
    let version: Option<i64> = connection
        .query_row("pragma user_version", [], |row| row.get(0))
        .optional()
        .map_err(|source| failed("its schema", source))?;
    match version.unwrap_or(0) {
        SCHEMA_VERSION => {
            let tables = "select count(*) from workloads, networks, volumes where false";
            connection.query_row(tables, [], |_| Ok(())).map_err(|source| failed("its tables", source))
        }
        0 => {
            let create = |connection: &mut Connection| {
                let transaction = connection.transaction()?;
                transaction.execute_batch(SCHEMA)?;
                transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
                transaction.commit()
            };
            create(connection).map_err(|source| failed("its schema", source))
        }
        newer => Err(EngineError::unsupported(format!(
            "{} has schema version {newer}, this biremed knows {SCHEMA_VERSION}: start the newer biremed, or use another --data-root",
            path.display()
        ))),
    }
}

fn failed(what: &str, source: rusqlite::Error) -> EngineError {
    EngineError::Memory { what: what.to_owned(), source }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("records hold only maps with text keys")
}

fn parse<T: DeserializeOwned>(name: &str, text: &str) -> Result<T, EngineError> {
    serde_json::from_str(text).map_err(|error| {
        failed(
            &format!("the record of {name}"),
            rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error)),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn remembers_across_openings_and_refuses_a_newer_schema() {
        let folder = tempfile::tempdir().unwrap();
        for id in ["1", "2"] {
            std::fs::create_dir_all(folder.path().join("containers").join(id)).unwrap();
        }
        let memory = Memory::open(folder.path()).unwrap();
        memory.insert_workload("1", "web", &"fixed", &1).await.unwrap();
        assert!(memory.insert_workload("2", "web", &"fixed", &1).await.is_err(), "names are unique");
        std::fs::remove_dir_all(folder.path().join("containers/2")).unwrap();
        memory.update_workload("1", "www", &2).await.unwrap();
        drop(memory);
        let memory = Memory::open(folder.path()).unwrap();
        assert_eq!(memory.workloads::<String, i32>().unwrap(), [("www".to_owned(), "fixed".to_owned(), 2)]);
        memory.delete_workload("1").await.unwrap();
        std::fs::remove_dir_all(folder.path().join("containers/1")).unwrap();
        assert!(memory.workloads::<String, i32>().unwrap().is_empty());
        memory.connection.lock().unwrap().pragma_update(None, "user_version", 99).unwrap();
        drop(memory);
        let refusal = Memory::open(folder.path()).err().unwrap().to_string();
        assert!(refusal.contains("schema version 99"), "{refusal}");
    }

    /// Every way in which a database gets lost; what lies beside the stored data brings it back.
    #[tokio::test]
    async fn a_lost_or_broken_database_is_made_anew_from_what_lies_beside() {
        let damages: [(&str, fn(&Path)); 5] = [
            ("gone", |path| std::fs::remove_file(path).unwrap()),
            ("empty", |path| std::fs::write(path, b"").unwrap()),
            ("garbage", |path| std::fs::write(path, vec![0x5a; 20_000]).unwrap()),
            ("cut short", |path| {
                let length = std::fs::metadata(path).unwrap().len();
                std::fs::File::options().write(true).open(path).unwrap().set_len(length / 2).unwrap();
            }),
            ("without its tables", |path| {
                let connection = Connection::open(path).unwrap();
                connection.execute_batch("drop table workloads; drop table volumes").unwrap();
            }),
        ];
        for (what, damage) in damages {
            let folder = tempfile::tempdir().unwrap();
            for path in ["containers/1", "volumes/data/_data"] {
                std::fs::create_dir_all(folder.path().join(path)).unwrap();
            }
            let path = folder.path().join("engine.db");
            let memory = Memory::open(folder.path()).unwrap();
            let volume = Volume {
                name: "data".to_owned(),
                driver: "local".to_owned(),
                mountpoint: folder.path().join("volumes/data/_data"),
                created: 7,
                options: Default::default(),
                labels: [("kept".to_owned(), "yes".to_owned())].into(),
                anonymous: true,
            };
            memory.put_volume(&volume).await.unwrap();
            memory.insert_workload("1", "web", &"fixed", &1).await.unwrap();
            memory.update_workload("1", "www", &2).await.unwrap();
            drop(memory);
            for ending in ["-wal", "-shm"] {
                let _ = std::fs::remove_file(folder.path().join(format!("engine.db{ending}")));
            }
            damage(&path);
            let memory = Memory::open(folder.path()).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(memory.workloads::<String, i32>().unwrap(), [("www".to_owned(), "fixed".to_owned(), 2)], "{what}");
            let volumes = memory.volumes().unwrap();
            assert_eq!((volumes.len(), volumes[0].created, volumes[0].anonymous), (1, 7, true), "{what}");
            assert_eq!(volumes[0].labels, volume.labels, "{what}");
            assert!(folder.path().join("engine.db.backup").is_file(), "{what}");
        }
    }
}
