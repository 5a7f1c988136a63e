//! What is remembered: one SQLite database under the data root, and what it is made anew from where it is lost.
//!
//! ```text
//! <data_root>/engine.db
//!   workloads(id, name, fixed, moving)   fixed: view::Config; moving: container::MutableState, at each change
//!   networks(id, name, record)           view::Network
//!   volumes(name, record)                view::Volume
//!   generation(number)                   how many changes were synced
//!   pragma user_version                  the schema's version
//! <data_root>/generation                 how many changes it had, to know one that was put back
//! <data_root>/records/                   a copy of each record, see record.rs
//! <data_root>/backup/engine.db.1 … .3    the whole, the newest first
//! <data_root>/broken/engine.db.<time>    databases that could not be read
//! ```
//!
//! Written in WAL mode. What names data (volumes, networks, workloads that stay) is on the disk before it is answered;
//! other changes are not synced: a killed engine loses nothing, a machine that loses power may lose the last moments but
//! never opens a torn database. Decision 0004 argues the choice, decision 0012 what happens when the database is lost.
//!
//! ```text
//! schema       tables and their version; whether a database can be read at all
//! row          what stands in a row, sealed with a sum, and what is left of a damaged one
//! reconcile    at start: database and copies of records take from each other what they lack
//! generation   whether an older database was put back
//! moved        paths in records, where the data root was moved
//! ```

mod generation;
mod moved;
mod reconcile;
mod row;
mod schema;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bireme_image::database::{self, Ballast, Found};
use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::Serialize;

use self::generation::*;
use self::moved::at_home;
pub(crate) use self::row::{Record, Unread};
use self::row::{json, of_config, of_mutable, read, sealed, text};
use self::schema::*;
use crate::record::{Kind, Records};
use crate::seal::seal;
use crate::unreadable::Unreadable;
use crate::view::{Network, Volume};
use crate::{EngineError, unreadable};

/// A handle on the database; clones share one connection.
#[derive(Clone)]
pub(crate) struct StateStore {
    connection: Arc<Mutex<Connection>>,
    records: Records,
    data_root: PathBuf,
    ballast: Arc<Ballast>,
    /// What is gone and could not be forgotten yet: nothing answers it, and the next change forgets it too.
    owed: Arc<Mutex<HashSet<(Kind, String)>>>,
}

/// What room a change may take on a full disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    /// What there is: what is new is refused.
    Left,
    /// Also what is held back: ends and removals make room.
    HeldBack,
}

/// Where the copy of a record goes.
enum Copy {
    /// Kind, name, text. Written once the database has it.
    Put(Kind, String, String),
    /// Removed before the database forgets it.
    Forget(Kind, String),
}

/// How sure a change must be before it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    /// On the disk.
    Full,
    /// With the system, which a killed engine does not lose.
    Normal,
}

impl StateStore {
    /// Opens the database, or makes one anew from what there is: the newest copy of it that can be read, and the records.
    ///
    /// # Errors
    /// When there is nothing to be made of it: the folder cannot be used, or a newer engine wrote it.
    pub(crate) fn open(data_root: &Path) -> Result<Self, EngineError> {
        let path = data_root.join("engine.db");
        let file = |source| EngineError::File { path: path.clone(), source };
        let records = Records::open(data_root).map_err(file)?;
        let (connection, found) = database::open(&path, |connection| tables(connection, &path))?;
        let rolled_back = was_rolled_back(&connection, data_root);
        let found = match found {
            Found::Whole if rolled_back => {
                tracing::error!(path = %path.display(), "the database is older than it was: somebody has put an earlier one back");
                Found::Older
            }
            found => found,
        };
        let memory = Self {
            connection: Arc::new(Mutex::new(connection)),
            records,
            data_root: data_root.to_owned(),
            ballast: Arc::new(Ballast::beside(&path)),
            owed: Arc::default(),
        };
        memory.ballast.keep();
        memory.reconcile(found)?;
        note_generation(&memory.lock(), data_root);
        Ok(memory)
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock()
    }

    fn owed(&self) -> MutexGuard<'_, HashSet<(Kind, String)>> {
        self.owed.lock()
    }

    /// Whether a thing is gone and could not be forgotten yet.
    pub(crate) fn owes(&self, kind: Kind, name: &str) -> bool {
        self.owed().contains(&(kind, name.to_owned()))
    }

    fn owe(&self, kind: Kind, name: &str, error: &EngineError) {
        tracing::warn!(
            ?kind,
            name,
            error = error as &dyn std::error::Error,
            "a removal cannot be remembered; is the disk full? It is tried again with the next change"
        );
        self.owed().insert((kind, name.to_owned()));
    }

    fn forget_copies(&self, kind: Kind, id: &str) {
        for copy in [format!("{id}.fixed"), format!("{id}.moving")] {
            self.copy(Copy::Forget(kind, copy));
        }
    }

    /// A copy that cannot be written is told and no more: the database has what it is a copy of.
    fn copy(&self, copy: Copy) {
        let done = match &copy {
            Copy::Put(kind, name, text) => self.records.put(*kind, name, text),
            Copy::Forget(kind, name) => self.records.forget(*kind, name),
        };
        if let Err(error) = done {
            let (Copy::Put(kind, name, _) | Copy::Forget(kind, name)) = &copy;
            tracing::warn!(?kind, name, %error, "the copy of a record cannot be kept up; is the disk full?");
        }
    }

    /// Writes a whole copy of the database beside the earlier ones, unless it would be the same as the last.
    pub(crate) async fn back_up(&self) -> Result<(), EngineError> {
        let memory = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            Ok(database::back_up(&memory.lock(), &memory.data_root.join("engine.db"))?)
        });
        done.await.map_err(|_| EngineError::Stopping)?
    }

    /// Runs `work` in one transaction, off the async threads.
    async fn write(
        &self,
        what: String,
        sync: Sync,
        room: Room,
        copies: Vec<Copy>,
        work: impl Fn(&Connection) -> rusqlite::Result<()> + Send + 'static,
    ) -> Result<(), EngineError> {
        let memory = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            let mut connection = memory.lock();
            let (forgotten, put): (Vec<_>, Vec<_>) =
                copies.into_iter().partition(|copy| matches!(copy, Copy::Forget(..)));
            for copy in forgotten {
                memory.copy(copy);
            }
            if sync == Sync::Full {
                connection.pragma_update(None, "synchronous", "full")?;
            }
            let owed: Vec<_> = memory.owed().iter().cloned().collect();
            let mut change = || {
                let transaction = connection.transaction()?;
                for (kind, name) in &owed {
                    transaction.execute(forgetting(*kind), [name])?;
                }
                work(&transaction)?;
                if sync == Sync::Full {
                    transaction.execute("update generation set number = number + 1", [])?;
                }
                transaction.commit()
            };
            let changed = match room {
                Room::Left => change().inspect(|()| memory.ballast.keep()),
                Room::HeldBack => memory.ballast.with_room(change),
            };
            if sync == Sync::Full {
                connection.pragma_update(None, "synchronous", "normal")?;
            }
            changed?;
            if sync == Sync::Full {
                note_generation(&connection, &memory.data_root);
            }
            memory.owed().retain(|one| !owed.contains(one));
            for copy in put {
                memory.copy(copy);
            }
            Ok(())
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
        config: &impl Serialize,
        mutable: &impl Serialize,
        sync: Sync,
    ) -> Result<(), EngineError> {
        let (config, mutable) = (sealed(&of_config(id), config), sealed(&of_mutable(id), mutable));
        let row = (id.to_owned(), name.to_owned(), config, mutable);
        let copies = copies_of_workload(id, name, Some(&row.2), &row.3);
        self.write(format!("container {name}"), sync, Room::Left, copies, move |db| {
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
        mutable: &impl Serialize,
    ) -> Result<(), EngineError> {
        let row = (id.to_owned(), name.to_owned(), sealed(&of_mutable(id), mutable));
        let copies = copies_of_workload(id, name, None, &row.2);
        self.write(format!("the state of container {name}"), Sync::Normal, Room::HeldBack, copies, move |db| {
            db.prepare_cached("update workloads set name = ?2, moving = ?3 where id = ?1")?
                .execute(params![row.0, row.1, row.2])
                .map(drop)
        })
        .await
    }

    /// Forgets a workload whose files are gone; answers whether it is forgotten for good. Where it is not, the folder that
    /// was put aside has to stay as the mark of it.
    pub(crate) async fn delete_workload(&self, id: &str) -> bool {
        let copies = ["fixed", "moving"].map(|part| Copy::Forget(Kind::Workload, format!("{id}.{part}"))).into();
        self.forget(Kind::Workload, id, Sync::Normal, copies).await
    }

    async fn forget(&self, kind: Kind, name: &str, sync: Sync, copies: Vec<Copy>) -> bool {
        let gone = name.to_owned();
        let work = move |db: &Connection| db.prepare_cached(forgetting(kind))?.execute([&gone]).map(drop);
        let done = self.write("a removal".to_owned(), sync, Room::HeldBack, copies, work).await;
        done.inspect_err(|error| self.owe(kind, name, error)).is_ok()
    }

    /// Every workload, in no order, and those that cannot be read, which stay as they are.
    #[expect(clippy::type_complexity, reason = "a row as it is read, by one caller")]
    pub(crate) fn workloads<F: Record, M: Record>(
        &self,
    ) -> Result<(Vec<(String, F, M)>, Vec<Unreadable>), EngineError> {
        let (mut all, mut unreadable) = (Vec::new(), Vec::new());
        let rows = self.rows("select id, name, fixed, moving from workloads", |row| {
            Ok([text(row, 0)?, text(row, 1)?, text(row, 2)?, text(row, 3)?])
        })?;
        for [id, name, config, mutable] in rows {
            if self.owes(Kind::Workload, &id) {
                continue;
            }
            // Before it is moved to this data root: the sum is of what was written.
            let read_config = read::<F>(&of_config(&id), &id, &name, &config);
            let known = read_config.is_ok();
            let here = at_home(&id, config.clone(), &self.data_root);
            let both = read_config.and_then(|read_config| {
                let moved = || serde_json::from_str(&here).map_err(|error| error.to_string());
                let config = if here == config { read_config } else { moved()? };
                Ok((config, read(&of_mutable(&id), &id, &name, &mutable)?))
            });
            match both {
                Ok((config, mutable)) => all.push((name, config, mutable)),
                Err(error) => {
                    let mutable = self.best_state(&id, mutable);
                    tracing::error!(
                        workload.id = id,
                        name,
                        %error,
                        "the record of a container cannot be read: it is left as it is, what runs of it goes on, and what it uses is kept"
                    );
                    unreadable.push(Unreadable { id, name, config: here, mutable, why: error, known });
                }
            }
        }
        Ok((all, unreadable))
    }

    /// Of a state that is no JSON any more, the copy, whatever that is.
    fn best_state(&self, id: &str, mutable: String) -> String {
        if unreadable::parse(&mutable).is_object() {
            return mutable;
        }
        let copy = self.records.text(Kind::Workload, &format!("{id}.moving")).map(|text| unreadable::parse(&text));
        copy.map(|copy| copy["moving"].to_string()).unwrap_or(mutable)
    }

    /// IDs of all workloads, also of those that cannot be read.
    pub(crate) fn ids(&self) -> Result<HashSet<String>, EngineError> {
        let mut ids: HashSet<String> = self.rows("select id from workloads", |row| text(row, 0))?.into_iter().collect();
        ids.retain(|id| !self.owes(Kind::Workload, id));
        Ok(ids)
    }

    pub(crate) async fn put_network(&self, network: &crate::view::Network) -> Result<(), EngineError> {
        let row = (network.id.clone(), network.name.clone(), sealed(&network.id, network));
        let copies = vec![Copy::Put(Kind::Network, row.0.clone(), row.2.clone())];
        self.write(format!("network {}", network.name), Sync::Full, Room::Left, copies, move |db| {
            // One that cannot be read is known to nobody, and would keep its name for ever.
            let there = "select id, record from networks where name = ?1";
            let found = |found: &rusqlite::Row<'_>| Ok((found.get(0)?, found.get(1)?));
            let there: Option<(String, String)> = db.query_row(there, [&row.1], found).optional()?;
            if there.is_some_and(|(id, record)| read::<Network>(&id, &id, &row.1, &record).is_err()) {
                db.execute("delete from networks where name = ?1", [&row.1])?;
            }
            db.execute("insert into networks (id, name, record) values (?1, ?2, ?3)", params![row.0, row.1, row.2])
                .map(drop)
        })
        .await
    }

    pub(crate) async fn delete_network(&self, id: &str) -> Result<(), EngineError> {
        let id = id.to_owned();
        let copies = vec![Copy::Forget(Kind::Network, id.clone())];
        self.write("a removal".to_owned(), Sync::Full, Room::HeldBack, copies, move |db| {
            db.execute(forgetting(Kind::Network), [&id]).map(drop)
        })
        .await
    }

    pub(crate) fn networks(&self) -> Result<(Vec<crate::view::Network>, Vec<Unread>), EngineError> {
        self.records(Kind::Network, "select id, name, record from networks")
    }

    pub(crate) async fn put_volume(&self, volume: &crate::view::Volume) -> Result<(), EngineError> {
        let row = (volume.name.clone(), sealed(&volume.name, volume));
        let copies = vec![Copy::Put(Kind::Volume, row.0.clone(), row.1.clone())];
        self.write(format!("volume {}", volume.name), Sync::Full, Room::Left, copies, move |db| {
            db.execute("insert or replace into volumes (name, record) values (?1, ?2)", params![row.0, row.1]).map(drop)
        })
        .await
    }

    /// As [`StateStore::delete_workload`].
    pub(crate) async fn delete_volume(&self, name: &str) -> bool {
        self.forget(Kind::Volume, name, Sync::Full, vec![Copy::Forget(Kind::Volume, name.to_owned())]).await
    }

    /// With the folders that they have under this data root, wherever they were recorded.
    pub(crate) fn volumes(&self) -> Result<(Vec<crate::view::Volume>, Vec<Unread>), EngineError> {
        let (mut volumes, unread) = self.records::<Volume>(Kind::Volume, "select name, name, record from volumes")?;
        for volume in &mut volumes {
            volume.mountpoint = self.data_root.join("volumes").join(&volume.name).join("_data");
        }
        Ok((volumes, unread))
    }

    /// All records of a kind, and the keys and names of those that cannot be read.
    fn records<T: Record>(&self, kind: Kind, query: &str) -> Result<(Vec<T>, Vec<Unread>), EngineError> {
        let (mut all, mut unreadable) = (Vec::new(), Vec::new());
        for [key, name, record] in self.rows(query, |row| Ok([text(row, 0)?, text(row, 1)?, text(row, 2)?]))? {
            if self.owes(kind, &key) {
                continue;
            }
            match read(&key, &key, &name, &record) {
                Ok(record) => all.push(record),
                Err(error) => {
                    tracing::error!(?kind, name, %error, "a record cannot be read: it is left as it is, and what it is of stays");
                    unreadable.push(Unread { key, name, record });
                }
            }
        }
        Ok((all, unreadable))
    }

    fn rows<T>(
        &self,
        query: &str,
        read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, EngineError> {
        let connection = self.lock();
        let all = || connection.prepare(query)?.query_map([], read)?.collect::<rusqlite::Result<Vec<T>>>();
        all().map_err(|source| failed("what exists", source))
    }
}

/// The statement that forgets one of a kind, by what it is known by.
fn forgetting(kind: Kind) -> &'static str {
    match kind {
        Kind::Workload => "delete from workloads where id = ?1",
        Kind::Network => "delete from networks where id = ?1",
        Kind::Volume => "delete from volumes where name = ?1",
    }
}

fn copies_of_workload(id: &str, name: &str, config: Option<&str>, mutable: &str) -> Vec<Copy> {
    let mutable = seal(&of_mutable(id), format!("{{\"name\":{},\"moving\":{mutable}}}", json(&name)));
    let mut copies: Vec<_> =
        config.into_iter().map(|text| Copy::Put(Kind::Workload, format!("{id}.fixed"), text.to_owned())).collect();
    copies.push(Copy::Put(Kind::Workload, format!("{id}.moving"), mutable));
    copies
}

#[cfg(test)]
mod tests;
