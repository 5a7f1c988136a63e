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
//! Written in WAL mode without a sync per transaction: a killed engine loses nothing, a machine that loses power may lose
//! the last moments but never opens a torn database. Decision 0004 argues the choice.

use std::path::Path;
use std::sync::{Arc, Mutex};

use rusqlite::{Connection, OptionalExtension as _, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::EngineError;

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
}

impl Memory {
    pub(crate) fn open(data_root: &Path) -> Result<Self, EngineError> {
        let path = data_root.join("engine.db");
        let open = || {
            let connection = Connection::open(&path)?;
            connection.pragma_update(None, "journal_mode", "wal")?;
            connection.pragma_update(None, "synchronous", "normal")?;
            connection.busy_timeout(std::time::Duration::from_secs(5))?;
            Ok(connection)
        };
        let mut connection = open().map_err(|source| failed(&format!("anything in {}", path.display()), source))?;
        migrate(&mut connection, &path)?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)) })
    }

    /// Runs `work` in one transaction, off the async threads.
    async fn write(
        &self,
        what: String,
        work: impl FnOnce(&Connection) -> rusqlite::Result<()> + Send + 'static,
    ) -> Result<(), EngineError> {
        let connection = self.connection.clone();
        let done = tokio::task::spawn_blocking(move || {
            let mut connection = connection.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let transaction = connection.transaction()?;
            work(&transaction)?;
            transaction.commit()
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
        self.write(format!("container {name}"), move |db| {
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
        self.write(format!("the state of container {name}"), move |db| {
            db.prepare_cached("update workloads set name = ?2, moving = ?3 where id = ?1")?
                .execute(params![row.0, row.1, row.2])
                .map(drop)
        })
        .await
    }

    pub(crate) async fn delete_workload(&self, id: &str) -> Result<(), EngineError> {
        let id = id.to_owned();
        self.write("a removal".to_owned(), move |db| {
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
        .map(|(name, fixed, moving)| Ok((name.clone(), parse(&name, &fixed)?, parse(&name, &moving)?)))
        .collect()
    }

    pub(crate) async fn put_network(&self, network: &crate::view::Network) -> Result<(), EngineError> {
        let row = (network.id.clone(), network.name.clone(), json(network));
        self.write(format!("network {}", network.name), move |db| {
            db.execute(
                "insert or replace into networks (id, name, record) values (?1, ?2, ?3)",
                params![row.0, row.1, row.2],
            )
            .map(drop)
        })
        .await
    }

    pub(crate) async fn delete_network(&self, id: &str) -> Result<(), EngineError> {
        let id = id.to_owned();
        self.write("a removal".to_owned(), move |db| db.execute("delete from networks where id = ?1", [id]).map(drop))
            .await
    }

    pub(crate) fn networks(&self) -> Result<Vec<crate::view::Network>, EngineError> {
        self.records("select name, record from networks")
    }

    pub(crate) async fn put_volume(&self, volume: &crate::view::Volume) -> Result<(), EngineError> {
        let row = (volume.name.clone(), json(volume));
        self.write(format!("volume {}", volume.name), move |db| {
            db.execute("insert or replace into volumes (name, record) values (?1, ?2)", params![row.0, row.1]).map(drop)
        })
        .await
    }

    pub(crate) async fn delete_volume(&self, name: &str) -> Result<(), EngineError> {
        let name = name.to_owned();
        self.write("a removal".to_owned(), move |db| {
            db.execute("delete from volumes where name = ?1", [name]).map(drop)
        })
        .await
    }

    pub(crate) fn volumes(&self) -> Result<Vec<crate::view::Volume>, EngineError> {
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

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), EngineError> {
    let version: Option<i64> = connection
        .query_row("pragma user_version", [], |row| row.get(0))
        .optional()
        .map_err(|source| failed("its schema", source))?;
    match version.unwrap_or(0) {
        SCHEMA_VERSION => Ok(()),
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
        let memory = Memory::open(folder.path()).unwrap();
        memory.insert_workload("1", "web", &"fixed", &1).await.unwrap();
        assert!(memory.insert_workload("2", "web", &"fixed", &1).await.is_err(), "names are unique");
        memory.update_workload("1", "www", &2).await.unwrap();
        drop(memory);
        let memory = Memory::open(folder.path()).unwrap();
        assert_eq!(memory.workloads::<String, i32>().unwrap(), [("www".to_owned(), "fixed".to_owned(), 2)]);
        memory.delete_workload("1").await.unwrap();
        assert!(memory.workloads::<String, i32>().unwrap().is_empty());
        memory.connection.lock().unwrap().pragma_update(None, "user_version", 99).unwrap();
        drop(memory);
        let refusal = Memory::open(folder.path()).err().unwrap().to_string();
        assert!(refusal.contains("schema version 99"), "{refusal}");
    }
}
