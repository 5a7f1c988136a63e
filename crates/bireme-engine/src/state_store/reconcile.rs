//! A database and the copies of its records are brought together when the engine starts: each takes from the other what it
//! lacks.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use bireme_core::WorkloadId;
use bireme_core::clock::now_nanos;
use bireme_image::database::Found;
use rusqlite::{Connection, params};

use crate::container::MutableState;
use crate::record::Kind;
use crate::seal::{Seal, check, seal};
use crate::view::{Config, Network, Volume};
use crate::{EngineError, unreadable};

use super::row::{MutableRecord, Record as _, of_config, of_mutable, read, sealed, text, whole_parts};
use super::schema::{failed, is_listed};
use super::{Copy, StateStore, copies_of_workload, forgetting};

impl StateStore {
    /// Forgets what is gone. Where that fails the engine starts all the same.
    pub(super) fn forget_found(&self, connection: &Connection, kind: Kind, name: &str) {
        let forgotten = self.ballast.with_room(|| connection.execute(forgetting(kind), [name]));
        if let Err(source) = forgotten {
            self.owe(kind, name, &failed("what was found", source));
        }
    }

    /// Adds what was found. Where that fails the engine starts all the same: it is found again at the next start.
    pub(super) fn add_found(&self, name: &str, add: impl Fn() -> rusqlite::Result<usize>) {
        if let Err(error) = self.ballast.with_room(add) {
            tracing::warn!(name, %error, "what was found cannot be remembered; is the disk full? It is left out until the next start");
        }
    }

    /// Makes database, records and folders say the same. The newer of two records of a thing holds.
    pub(super) fn reconcile(&self, found: Found) -> Result<(), EngineError> {
        self.reconcile_workloads(found)?;
        self.reconcile_networks(found)?;
        self.reconcile_volumes(found)?;
        self.seal_earlier()
    }

    /// Gives records of an earlier engine the sums that they have not.
    pub(super) fn seal_earlier(&self) -> Result<(), EngineError> {
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

    pub(super) fn reconcile_workloads(&self, found: Found) -> Result<(), EngineError> {
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
    pub(super) fn copies_of(&self, id: &str) -> (Option<Config>, Option<MutableRecord<MutableState>>) {
        let config = self.records.get::<Config>(Kind::Workload, &format!("{id}.fixed"), &of_config(id));
        let mutable = self.records.get(Kind::Workload, &format!("{id}.moving"), &of_mutable(id));
        (config.filter(|config| config.is_of(id, "")), mutable)
    }

    /// Adds what the database does not know and no copy of can be read, so that it is not taken for a stranger's.
    pub(super) fn add_unreadable(&self, connection: &Connection, id: &str, names: &mut HashSet<String>) {
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

    pub(super) fn reconcile_networks(&self, found: Found) -> Result<(), EngineError> {
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
    pub(super) fn reconcile_volumes(&self, found: Found) -> Result<(), EngineError> {
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
}
