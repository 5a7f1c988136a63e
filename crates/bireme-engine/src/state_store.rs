//! What is remembered: one SQLite database under the data root, and what it is made anew from where it is lost.
//!
//! ```text
//! <data_root>/engine.db
//!   workloads(id, name, fixed, moving)   fixed: view::Fixed, written once; moving: Moving, written at each change
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

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bireme_core::WorkloadId;
use bireme_core::clock::now_nanos;
use bireme_image::database::{self, Ballast, Found, Trouble};
use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::container::MutableState;
use crate::record::{Kind, Records};
use crate::seal::{Seal, check, seal};
use crate::unreadable::Unreadable;
use crate::view::{Config, Network, Volume};
use crate::{EngineError, unreadable};

const SCHEMA_VERSION: i64 = 1;

const SCHEMA: &str = "
    create table if not exists workloads (id text primary key, name text not null unique, fixed text not null, moving text not null) strict, without rowid;
    create table if not exists networks (id text primary key, name text not null unique, record text not null) strict, without rowid;
    create table if not exists volumes (name text primary key, record text not null) strict, without rowid;
";

/// How many changes were on the disk before they were answered.
const GENERATION: &str = "
    create table if not exists generation (number integer not null) strict;
    insert into generation select 0 where not exists (select 1 from generation);
    update generation set number = 0 where number not between 0 and 4611686018427387904;
";

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

/// The copy of what moves of a workload.
#[derive(Deserialize)]
struct MutableRecord<M> {
    name: String,
    #[serde(rename = "moving")]
    mutable: M,
}

/// A network or volume whose record cannot be read: it stays as it is.
#[derive(Clone, Debug)]
pub(crate) struct Unread {
    pub(crate) key: String,
    pub(crate) name: String,
    /// Whatever that is.
    pub(crate) record: String,
}

/// What a record is read as.
pub(crate) trait Record: DeserializeOwned {
    /// Whether it is the record of the thing with this key and name: a record that was damaged, or whose row was, may be
    /// another's.
    fn is_of(&self, key: &str, name: &str) -> bool;
}

impl Record for Config {
    fn is_of(&self, key: &str, _name: &str) -> bool {
        self.spec.id.as_str() == key
    }
}

impl Record for MutableState {
    fn is_of(&self, _key: &str, _name: &str) -> bool {
        true
    }
}

impl Record for Network {
    fn is_of(&self, key: &str, name: &str) -> bool {
        self.id == key && self.name == name
    }
}

impl Record for Volume {
    fn is_of(&self, key: &str, name: &str) -> bool {
        self.name == key && self.name == name
    }
}

/// Reads the record of the thing `key` that is called `name`, whose sum is of `of`.
///
/// # Errors
/// In words: why it cannot be relied on.
fn read<T: Record>(of: &str, key: &str, name: &str, text: &str) -> Result<T, String> {
    if check(of, text) == Seal::Broken {
        return Err("its sum is that of another text: it was damaged on the disk".to_owned());
    }
    let record: T = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if record.is_of(key, name) { Ok(record) } else { Err("it is that of something else".to_owned()) }
}

/// A column of text. A byte that is none costs the row at most, as its sum is that of another text then.
fn text(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<String> {
    Ok(String::from_utf8_lossy(row.get_ref(column)?.as_bytes()?).into_owned())
}

/// Of a workload, each part that is whole in its row (name, config, state) or in the copies: the config, and the name with the
/// newest state.
fn whole_parts(
    id: &str,
    row: Option<&[String; 3]>,
    copies: &(Option<Config>, Option<MutableRecord<MutableState>>),
) -> (Option<String>, Option<(String, String)>) {
    let config = row.map(|[_, config, _]| config).filter(|text| read::<Config>(&of_config(id), id, "", text).is_ok());
    let config = config.cloned().or_else(|| copies.0.as_ref().map(|config| sealed(&of_config(id), config)));
    let state = row.filter(|[.., state]| read::<MutableState>(&of_mutable(id), id, "", state).is_ok());
    let state = state.map(|[name, _, state]| (name.clone(), state.clone()));
    let copied = || copies.1.as_ref().map(|copy| (copy.name.clone(), sealed(&of_mutable(id), &copy.mutable)));
    let older =
        |state: &(String, String)| copies.1.as_ref().is_some_and(|copy| written(&state.1) < copy.mutable.written);
    let state = match state {
        Some(state) if !older(&state) => Some(state),
        state => copied().or(state),
    };
    (config, state)
}

/// What the sum is of, of the part of a workload that was fixed at create.
fn of_config(id: &str) -> String {
    format!("config {id}")
}

/// The same of the part that changes.
fn of_mutable(id: &str) -> String {
    format!("state {id}")
}

/// When a record was written; of anything that has no such time, none.
#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    written: i64,
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

    /// Forgets what is gone. Where that fails the engine starts all the same.
    fn forget_found(&self, connection: &Connection, kind: Kind, name: &str) {
        let forgotten = self.ballast.with_room(|| connection.execute(forgetting(kind), [name]));
        if let Err(source) = forgotten {
            self.owe(kind, name, &failed("what was found", source));
        }
    }

    /// Adds what was found. Where that fails the engine starts all the same: it is found again at the next start.
    fn add_found(&self, name: &str, add: impl Fn() -> rusqlite::Result<usize>) {
        if let Err(error) = self.ballast.with_room(add) {
            tracing::warn!(name, %error, "what was found cannot be remembered; is the disk full? It is left out until the next start");
        }
    }

    /// Makes database, records and folders say the same. The newer of two records of a thing holds.
    fn reconcile(&self, found: Found) -> Result<(), EngineError> {
        self.reconcile_workloads(found)?;
        self.reconcile_networks(found)?;
        self.reconcile_volumes(found)?;
        self.seal_earlier()
    }

    /// Gives records of an earlier engine the sums that they have not.
    fn seal_earlier(&self) -> Result<(), EngineError> {
        let workloads = self.rows("select id, name, fixed, moving from workloads", |row| {
            Ok([text(row, 0)?, text(row, 1)?, text(row, 2)?, text(row, 3)?])
        })?;
        for [id, name, config, mutable] in workloads {
            let (of, of_state) = (of_config(&id), of_mutable(&id));
            let missing = [check(&of, &config), check(&of_state, &mutable)].contains(&Seal::Missing);
            let whole = read::<Config>(&of, &id, &name, &config).is_ok()
                && read::<MutableState>(&of_state, &id, &name, &mutable).is_ok();
            if missing && whole {
                let again =
                    |of: &str, text: String| if check(of, &text) == Seal::Missing { seal(of, text) } else { text };
                let (config, mutable) = (again(&of, config), again(&of_state, mutable));
                self.add_found(&name, || {
                    let update = "update workloads set fixed = ?2, moving = ?3 where id = ?1";
                    self.lock().execute(update, params![id, config, mutable])
                });
                copies_of_workload(&id, &name, Some(&config), &mutable).into_iter().for_each(|copy| self.copy(copy));
            }
        }
        let networks = self
            .rows("select id, name, record from networks", |row| Ok([text(row, 0)?, text(row, 1)?, text(row, 2)?]))?;
        for [id, name, record] in networks {
            if check(&id, &record) == Seal::Missing && read::<Network>(&id, &id, &name, &record).is_ok() {
                let record = seal(&id, record);
                self.add_found(&name, || {
                    self.lock().execute("update networks set record = ?2 where id = ?1", params![id, record])
                });
                self.copy(Copy::Put(Kind::Network, id, record));
            }
        }
        let volumes = self.rows("select name, record from volumes", |row| Ok([text(row, 0)?, text(row, 1)?]))?;
        for [name, record] in volumes {
            if check(&name, &record) == Seal::Missing && read::<Volume>(&name, &name, &name, &record).is_ok() {
                let record = seal(&name, record);
                self.add_found(&name, || {
                    self.lock().execute("update volumes set record = ?2 where name = ?1", params![name, record])
                });
                self.copy(Copy::Put(Kind::Volume, name, record));
            }
        }
        Ok(())
    }

    fn reconcile_workloads(&self, found: Found) -> Result<(), EngineError> {
        let rows = self.rows("select id, name, fixed, moving from workloads", |row| {
            Ok((text(row, 0)?, [text(row, 1)?, text(row, 2)?, text(row, 3)?]))
        })?;
        let mut rows: BTreeMap<String, [String; 3]> = rows.into_iter().collect();
        let containers = self.data_root.join("containers");
        let connection = self.lock();
        let failed = |source| failed("what was found", source);
        for id in rows.keys().cloned().collect::<Vec<_>>() {
            let there = containers.join(&id).exists();
            let removed = !there && containers.join(crate::dirs::REMOVED).join(&id).exists();
            if removed || (found == Found::Older && !there) {
                tracing::info!(workload.id = id, "a removal that was cut short is carried out");
                self.forget_copies(Kind::Workload, &id);
                self.forget_found(&connection, Kind::Workload, &id);
                rows.remove(&id);
            }
        }
        let mut names: HashSet<String> = rows.values().map(|[name, ..]| name.clone()).collect();
        let mut ids: BTreeSet<String> = rows.keys().cloned().collect();
        for record in self.records.names(Kind::Workload) {
            let id = record.strip_suffix(".fixed").or_else(|| record.strip_suffix(".moving"));
            ids.extend(id.filter(|id| WorkloadId::parse(id).is_ok()).map(str::to_owned));
        }
        for id in ids {
            let row = rows.get(&id);
            if row.is_none() && !containers.join(&id).exists() {
                self.forget_copies(Kind::Workload, &id);
                continue;
            }
            let copies = self.copies_of(&id);
            let (Some(config), Some((name, mutable))) = whole_parts(&id, row, &copies) else {
                if row.is_none() {
                    self.add_unreadable(&connection, &id, &mut names);
                }
                continue;
            };
            if row.is_some_and(|[known, old, state]| *known == name && *old == config && *state == mutable) {
                // Also those of an engine that kept no records yet.
                if copies.0.is_none() || copies.1.is_none() {
                    for copy in copies_of_workload(&id, &name, Some(&config), &mutable) {
                        self.copy(copy);
                    }
                }
                continue;
            }
            let name = if row.is_none_or(|[known, ..]| *known != name) && !names.insert(name.clone()) {
                format!("{name}-{}", &id[..12])
            } else {
                name
            };
            tracing::warn!(
                workload.id = id,
                name,
                "a container that the database did not know, or knew an older state of, is taken up from its record"
            );
            // This alone keeps the engine from starting: what it did not know it would end as a stranger's.
            let add = || {
                connection.execute(
                    "insert or replace into workloads (id, name, fixed, moving) values (?1, ?2, ?3, ?4)",
                    params![id, name, config, mutable],
                )
            };
            self.ballast.with_room(add).map_err(failed)?;
            for copy in copies_of_workload(&id, &name, Some(&config), &mutable) {
                self.copy(copy);
            }
        }
        Ok(())
    }

    /// The copies of a workload's parts that are whole.
    fn copies_of(&self, id: &str) -> (Option<Config>, Option<MutableRecord<MutableState>>) {
        let config = self.records.get::<Config>(Kind::Workload, &format!("{id}.fixed"), &of_config(id));
        let mutable = self.records.get(Kind::Workload, &format!("{id}.moving"), &of_mutable(id));
        (config.filter(|config| config.is_of(id, "")), mutable)
    }

    /// Adds what the database does not know and no copy of can be read, so that it is not taken for a stranger's.
    fn add_unreadable(&self, connection: &Connection, id: &str, names: &mut HashSet<String>) {
        let [config, mutable] = ["fixed", "moving"]
            .map(|part| self.records.text(Kind::Workload, &format!("{id}.{part}")).unwrap_or_default());
        let value = unreadable::parse(&mutable);
        let name = value["name"].as_str().map_or_else(|| format!("unreadable-{}", &id[..12]), str::to_owned);
        let name = if names.insert(name.clone()) { name } else { format!("{name}-{}", &id[..12]) };
        // What is not as it was written does not get the sum of what was.
        let mutable = if value["moving"].is_object() { value["moving"].to_string() } else { mutable };
        self.add_found(&name, || {
            connection.execute(
                "insert into workloads (id, name, fixed, moving) values (?1, ?2, ?3, ?4)",
                params![id, name, config, mutable],
            )
        });
    }

    fn reconcile_networks(&self, found: Found) -> Result<(), EngineError> {
        let rows = self
            .rows("select id, name, record from networks", |row| Ok((text(row, 0)?, (text(row, 1)?, text(row, 2)?))))?;
        let rows: BTreeMap<String, (String, String)> = rows.into_iter().collect();
        let recorded = self.records.names(Kind::Network);
        let connection = self.lock();
        let mut names = HashSet::new();
        for (id, (name, record)) in &rows {
            if found == Found::Older && !recorded.is_empty() && !recorded.contains(id) {
                self.forget_found(&connection, Kind::Network, id);
                continue;
            }
            names.insert(name.clone());
            if !recorded.contains(id) {
                self.copy(Copy::Put(Kind::Network, id.clone(), record.clone()));
                continue;
            }
            if read::<Network>(id, id, name, record).is_ok() {
                continue;
            }
            let whole = self.records.get::<Network>(Kind::Network, id, id).filter(|network| network.id == *id);
            if let Some(network) = whole.filter(|network| network.name == *name) {
                tracing::warn!(%id, name, "a network that cannot be read in the database is taken up from its record");
                self.add_found(name, || {
                    connection
                        .execute("update networks set record = ?2 where id = ?1", params![id, sealed(id, &network)])
                });
            }
        }
        for id in recorded.into_iter().filter(|id| !rows.contains_key(id)) {
            let network = self.records.get::<Network>(Kind::Network, &id, &id).filter(|network| network.id == id);
            let Some(network) = network else { continue };
            if !names.insert(network.name.clone()) {
                // Of a network that another one took the name of. It has no data, and nobody could remove it by its name.
                tracing::warn!(%id, name = network.name, "a network of that name is known: the record of another is removed");
                self.copy(Copy::Forget(Kind::Network, id));
                continue;
            }
            tracing::warn!(%id, name = network.name, "a network that the database did not know is taken up from its record");
            self.add_found(&network.name, || {
                connection.execute(
                    "insert into networks (id, name, record) values (?1, ?2, ?3)",
                    params![network.id, network.name, sealed(&network.id, &network)],
                )
            });
        }
        Ok(())
    }

    /// Volumes are never removed but on request: a folder that is there is a volume.
    fn reconcile_volumes(&self, found: Found) -> Result<(), EngineError> {
        let rows = self.rows("select name, record from volumes", |row| Ok((text(row, 0)?, text(row, 1)?)))?;
        let known: HashSet<String> = rows.iter().map(|(name, _)| name.clone()).collect();
        let folder = self.data_root.join("volumes");
        let connection = self.lock();
        let path_of = |name: &str| folder.join(name).join("_data");
        for name in &known {
            let there = folder.join(name).exists();
            let removed = !there && folder.join(crate::dirs::REMOVED).join(name).exists();
            if removed || (found == Found::Older && !there) {
                tracing::info!(volume = name, "a removal that was cut short is carried out");
                self.copy(Copy::Forget(Kind::Volume, name.clone()));
                self.forget_found(&connection, Kind::Volume, name);
            }
        }
        for (name, _) in rows.iter().filter(|(name, record)| read::<Volume>(name, name, name, record).is_err()) {
            let whole = self.records.get::<Volume>(Kind::Volume, name, name).filter(|volume| volume.name == *name);
            if let Some(volume) = whole {
                tracing::warn!(
                    volume = name,
                    "a volume that cannot be read in the database is taken up from its record"
                );
                self.add_found(name, || {
                    connection
                        .execute("update volumes set record = ?2 where name = ?1", params![name, sealed(name, &volume)])
                });
            }
        }
        for name in self.records.names(Kind::Volume) {
            if !folder.join(&name).exists() && !known.contains(&name) {
                self.copy(Copy::Forget(Kind::Volume, name));
            }
        }
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            if known.contains(&name) || name == crate::dirs::REMOVED {
                continue;
            }
            let is_folder = |path: &Path| path.symlink_metadata().is_ok_and(|about| about.is_dir());
            if !crate::dirs::is_volume_name(&name) || !is_folder(&entry.path()) || !is_folder(&path_of(&name)) {
                tracing::warn!(path = %entry.path().display(), "what lies among the volumes is none, and is left");
                continue;
            }
            let recorded = self.records.get::<Volume>(Kind::Volume, &name, &name).filter(|volume| volume.name == name);
            let recorded_whole = recorded.is_some();
            let mut volume = recorded.unwrap_or_else(|| Volume {
                name: name.clone(),
                driver: "local".to_owned(),
                mountpoint: path_of(&name),
                created: entry.metadata().and_then(|about| about.modified()).map_or_else(
                    |_| now_nanos(),
                    |time| {
                        let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
                    },
                ),
                options: BTreeMap::new(),
                labels: BTreeMap::new(),
                // Not one that a prune takes unasked, even if it was.
                anonymous: false,
            });
            volume.mountpoint = path_of(&name);
            tracing::warn!(
                volume = name,
                with_labels_and_options = recorded_whole,
                "a volume that the database did not know is taken up from its folder"
            );
            self.add_found(&name, || {
                connection.execute(
                    "insert into volumes (name, record) values (?1, ?2)",
                    params![name, sealed(&name, &volume)],
                )
            });
        }
        drop(connection);
        for volume in self.volumes()?.0 {
            if !self.records.has(Kind::Volume, &volume.name) {
                self.copy(Copy::Put(Kind::Volume, volume.name.clone(), sealed(&volume.name, &volume)));
            }
            if volume.mountpoint.starts_with(&folder) && !is_listed(&volume.mountpoint) {
                tracing::warn!(
                    volume = volume.name,
                    "the folder of a volume is gone: an empty one is made in its place"
                );
                let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&volume.mountpoint);
                if let Err(error) = made {
                    tracing::warn!(volume = volume.name, %error, "the folder of a volume cannot be made");
                }
            }
        }
        Ok(())
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

/// The record of a workload with its paths below this data root. It may have been moved since, or copied: what is written then
/// would be written into the files of the other.
fn at_home(id: &str, config: String, data_root: &Path) -> String {
    /// Nothing but what is the engine's own: a container may have the same path among its words.
    fn replace(value: &mut Value, old: &str, new: &str) {
        const OURS: [&str; 3] = ["/containers/", "/images/", "/volumes/"];
        match value {
            Value::String(text) => {
                let rest = text.strip_prefix(old).filter(|rest| OURS.iter().any(|folder| rest.starts_with(folder)));
                if let Some(rest) = rest {
                    *text = format!("{new}{rest}");
                }
            }
            Value::Array(all) => all.iter_mut().for_each(|one| replace(one, old, new)),
            Value::Object(all) => all.values_mut().for_each(|one| replace(one, old, new)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    /// The root of the first path that is one of its own folder.
    fn root_of<'v>(value: &'v Value, own: &str) -> Option<&'v str> {
        match value {
            Value::String(text) => text.rsplit_once(own).map(|(root, _)| root).filter(|root| root.starts_with('/')),
            Value::Array(all) => all.iter().find_map(|one| root_of(one, own)),
            Value::Object(all) => all.values().find_map(|one| root_of(one, own)),
            Value::Null | Value::Bool(_) | Value::Number(_) => None,
        }
    }
    let (Some(new), Ok(mut value)) = (data_root.to_str(), serde_json::from_str::<Value>(&config)) else {
        return config;
    };
    let own = format!("/containers/{id}/");
    let places = [("/log_path", own.as_str()), ("/program", &own), ("/program", "/images/")];
    let old = places.into_iter().find_map(|(place, own)| root_of(value.pointer(place)?, own)).map(str::to_owned);
    match old {
        Some(old) if old != new => {
            for place in ["/log_path", "/program"] {
                value.pointer_mut(place).into_iter().for_each(|place| replace(place, &old, new));
            }
            for list in ["/mounts", "/spec/mounts"] {
                let mounts = value.pointer_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
                mounts.filter_map(|mount| mount.get_mut("source")).for_each(|source| replace(source, &old, new));
            }
            value.to_string()
        }
        _ => config,
    }
}

fn generation_file(data_root: &Path) -> PathBuf {
    data_root.join("generation")
}

fn generation(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("select number from generation", [], |row| row.get(0))
}

/// Whether changes that were answered are not in the database. To be asked at open, and noted once all is mended.
fn was_rolled_back(connection: &Connection, data_root: &Path) -> bool {
    let written = std::fs::read_to_string(generation_file(data_root)).ok();
    let written = written.and_then(|text| text.trim().parse::<i64>().ok());
    written.is_some_and(|written| generation(connection).is_ok_and(|known| known < written))
}

/// Notes beside the database how many changes it has, after the last of them is on the disk. A smaller number than there is
/// does no harm, so this need not be.
fn note_generation(connection: &Connection, data_root: &Path) {
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

/// Reads all there is: what is damaged where no check of the database looks would keep the engine from starting.
fn read_all(connection: &Connection) -> rusqlite::Result<()> {
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
fn is_broken(error: &rusqlite::Error) -> bool {
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
fn is_listed(path: &Path) -> bool {
    let Some(above) = path.parent() else { return true };
    let entries = std::fs::read_dir(above).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| Some(entry.file_name().as_os_str()) == path.file_name())
}

/// Brings the tables up to date.
fn tables(connection: &mut Connection, path: &Path) -> Result<(), Trouble<EngineError>> {
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

/// The statement that forgets one of a kind, by what it is known by.
fn forgetting(kind: Kind) -> &'static str {
    match kind {
        Kind::Workload => "delete from workloads where id = ?1",
        Kind::Network => "delete from networks where id = ?1",
        Kind::Volume => "delete from volumes where name = ?1",
    }
}

fn written(mutable: &str) -> i64 {
    serde_json::from_str::<Written>(mutable).map_or(i64::MIN, |record| record.written)
}

fn copies_of_workload(id: &str, name: &str, config: Option<&str>, mutable: &str) -> Vec<Copy> {
    let mutable = seal(&of_mutable(id), format!("{{\"name\":{},\"moving\":{mutable}}}", json(&name)));
    let mut copies: Vec<_> =
        config.into_iter().map(|text| Copy::Put(Kind::Workload, format!("{id}.fixed"), text.to_owned())).collect();
    copies.push(Copy::Put(Kind::Workload, format!("{id}.moving"), mutable));
    copies
}

fn failed(what: &str, source: rusqlite::Error) -> EngineError {
    EngineError::Memory { what: what.to_owned(), source }
}

/// The text of a record, with the sum of it.
fn sealed(of: &str, value: &impl Serialize) -> String {
    seal(of, json(value))
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("records hold only maps with text keys")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn remembers_across_openings_and_refuses_a_newer_schema() {
        let folder = tempfile::tempdir().unwrap();
        let memory = StateStore::open(folder.path()).unwrap();
        memory.insert_workload("1", "web", &"fixed", &1, Sync::Normal).await.unwrap();
        assert!(memory.insert_workload("2", "web", &"fixed", &1, Sync::Normal).await.is_err(), "names are unique");
        memory.update_workload("1", "www", &2).await.unwrap();
        drop(memory);
        let memory = StateStore::open(folder.path()).unwrap();
        assert_eq!(memory.workloads::<String, i32>().unwrap().0, [("www".to_owned(), "fixed".to_owned(), 2)]);
        assert!(memory.delete_workload("1").await);
        assert!(memory.workloads::<String, i32>().unwrap().0.is_empty());
        memory.connection.lock().pragma_update(None, "user_version", 99).unwrap();
        drop(memory);
        let refusal = StateStore::open(folder.path()).err().unwrap().to_string();
        assert!(refusal.contains("schema version 99"), "{refusal}");
    }

    #[tokio::test]
    async fn a_network_never_takes_the_place_of_another_in_the_database() {
        let folder = tempfile::tempdir().unwrap();
        let network = |digit: &str| Network {
            id: digit.repeat(64),
            name: "front".to_owned(),
            driver: "bridge".to_owned(),
            created: 7,
            internal: false,
            attachable: false,
            ipv6: false,
            pools: Vec::new(),
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
        };
        let memory = StateStore::open(folder.path()).unwrap();
        memory.put_network(&network("1")).await.unwrap();
        assert!(memory.put_network(&network("2")).await.is_err(), "names are unique");
        let unread = "insert into networks (id, name, record) values ('3', 'back', 'nonsense')";
        memory.connection.lock().execute(unread, []).unwrap();
        let back = Network { name: "back".to_owned(), ..network("4") };
        memory.put_network(&back).await.unwrap();
        memory.delete_network(&back.id).await.unwrap();
        // What an older version left of one that another took the name of goes.
        memory.copy(Copy::Put(Kind::Network, "2".repeat(64), json(&network("2"))));
        drop(memory);
        let memory = StateStore::open(folder.path()).unwrap();
        assert_eq!(memory.networks().unwrap().0, [network("1")]);
        assert_eq!(memory.records.names(Kind::Network).into_iter().collect::<Vec<_>>(), ["1".repeat(64)]);
    }

    impl Record for String {
        fn is_of(&self, _key: &str, _name: &str) -> bool {
            true
        }
    }

    impl Record for i32 {
        fn is_of(&self, _key: &str, _name: &str) -> bool {
            true
        }
    }

    fn volume(root: &Path, name: &str) -> Volume {
        Volume {
            name: name.to_owned(),
            driver: "local".to_owned(),
            mountpoint: root.join("volumes").join(name).join("_data"),
            created: 7,
            options: BTreeMap::new(),
            labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            anonymous: true,
        }
    }

    fn names(memory: &StateStore) -> Vec<String> {
        memory.volumes().unwrap().0.into_iter().map(|volume| volume.name).collect()
    }

    #[tokio::test]
    async fn volumes_come_from_their_records_and_folders_when_the_database_is_lost() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        let memory = StateStore::open(root).unwrap();
        let recorded = volume(root, "recorded");
        std::fs::create_dir_all(&recorded.mountpoint).unwrap();
        memory.put_volume(&recorded).await.unwrap();
        memory.put_volume(&volume(root, "gone")).await.unwrap();
        assert!(memory.delete_volume("gone").await);
        drop(memory);
        std::fs::write(root.join("engine.db"), "nonsense").unwrap();
        for folder in ["adopted/_data", "no-data", ".removed/x/_data", "lost+found/_data"] {
            std::fs::create_dir_all(root.join("volumes").join(folder)).unwrap();
        }
        std::fs::write(root.join("volumes/file"), "x").unwrap();
        std::os::unix::fs::symlink("/etc", root.join("volumes/link")).unwrap();
        let memory = StateStore::open(root).unwrap();
        assert_eq!(names(&memory), ["adopted", "recorded"]);
        let [adopted, again] = &memory.volumes().unwrap().0[..] else { panic!("two") };
        assert_eq!(*again, recorded);
        assert!(!adopted.anonymous && adopted.labels.is_empty());
        // Adopted once, it has a record like any other.
        drop(memory);
        std::fs::remove_file(root.join("engine.db")).unwrap();
        assert_eq!(names(&StateStore::open(root).unwrap()), ["adopted", "recorded"]);
    }

    #[tokio::test]
    async fn a_copy_of_the_database_brings_back_no_volume_that_was_removed() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        let memory = StateStore::open(root).unwrap();
        for name in ["removed", "stays"] {
            let volume = volume(root, name);
            std::fs::create_dir_all(&volume.mountpoint).unwrap();
            memory.put_volume(&volume).await.unwrap();
        }
        memory.back_up().await.unwrap();
        assert!(memory.delete_volume("removed").await);
        std::fs::remove_dir_all(root.join("volumes/removed")).unwrap();
        drop(memory);
        for name in ["engine.db", "engine.db-wal", "engine.db-shm"] {
            let _ = std::fs::remove_file(root.join(name));
        }
        let memory = StateStore::open(root).unwrap();
        assert_eq!(names(&memory), ["stays"]);
        // A folder that is gone from a database that is whole is made again, so that what mounts it starts.
        std::fs::remove_dir_all(root.join("volumes/stays")).unwrap();
        drop(memory);
        assert_eq!(names(&StateStore::open(root).unwrap()), ["stays"]);
        assert!(root.join("volumes/stays/_data").is_dir());
    }

    #[tokio::test]
    async fn a_removal_that_cannot_be_remembered_is_carried_out_all_the_same() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        let memory = StateStore::open(root).unwrap();
        for name in ["gone", "stays"] {
            let volume = volume(root, name);
            std::fs::create_dir_all(&volume.mountpoint).unwrap();
            memory.put_volume(&volume).await.unwrap();
        }
        // As on a disk that has no room at all.
        let full = |memory: &StateStore, full: bool| {
            memory.lock().pragma_update(None, "query_only", full).unwrap();
        };
        std::fs::create_dir_all(root.join("volumes/.removed")).unwrap();
        std::fs::rename(root.join("volumes/gone"), root.join("volumes/.removed/gone")).unwrap();
        full(&memory, true);
        assert!(!memory.delete_volume("gone").await);
        assert_eq!(names(&memory), ["stays"], "nothing answers it");
        assert!(memory.owes(Kind::Volume, "gone"));
        full(&memory, false);
        memory.put_volume(&volume(root, "new")).await.unwrap();
        assert!(!memory.owes(Kind::Volume, "gone"));
        drop(memory);
        assert_eq!(names(&StateStore::open(root).unwrap()), ["new", "stays"]);
    }

    #[tokio::test]
    async fn one_record_that_cannot_be_read_costs_no_other() {
        let temp = tempfile::tempdir().unwrap();
        let memory = StateStore::open(temp.path()).unwrap();
        memory.insert_workload("1", "good", &"fixed", &1, Sync::Full).await.unwrap();
        memory.insert_workload("2", "bad", &7, &1, Sync::Normal).await.unwrap();
        assert_eq!(memory.workloads::<String, i32>().unwrap().0.len(), 1);
        assert_eq!(memory.ids().unwrap().len(), 2);
    }
}
