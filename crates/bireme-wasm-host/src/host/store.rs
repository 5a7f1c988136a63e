//! Key-value stores: SQLite files in the engine's state folder, or a Redis server.

use std::sync::Arc;

use bireme_core::labels::StoreBackend;
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use rusqlite::{OptionalExtension as _, params};

use super::redis::dial::connection;
use crate::account::Payer;
use crate::component::{Component, Held};
use crate::embedded::{File, blocking, sql};

/// Why a store could not be opened.
#[derive(Debug)]
pub(crate) enum OpenError {
    AccessDenied,
    Other(String),
}

/// An open store. Cheap to clone.
#[derive(Clone)]
#[expect(unreachable_pub, reason = "generated code re-exports it")]
pub enum Store {
    Embedded(Arc<File>),
    Redis(MultiplexedConnection, #[expect(dead_code, reason = "held so that it counts as in use")] Held),
}

type Outcome<T> = Result<T, String>;

impl Store {
    /// Opens the store that `component` calls `name`.
    pub(crate) async fn open(component: &Arc<Component>, name: &str) -> Result<Self, OpenError> {
        match component.spec.bireme.stores.get(name) {
            None => {
                component.log.note(&format!("bireme: the store {name} is not permitted; add it to bireme.kv"));
                Err(OpenError::AccessDenied)
            }
            Some(StoreBackend::Embedded) => {
                if let Some(known) = component.embedded.known(name) {
                    return Ok(Self::Embedded(known));
                }
                let (embedded, name) = (Arc::clone(&component.embedded), name.to_owned());
                blocking(move || embedded.get(&name)).await.map(Self::Embedded).map_err(OpenError::Other)
            }
            // The label that names the server is the permission to reach it.
            Some(StoreBackend::Redis(url)) => connection(component, url, true)
                .await
                .map(|(open, held)| Self::Redis(open, held))
                .map_err(OpenError::Other),
        }
    }

    /// The value of `key`, for which `payer` pays while it is on its way to the guest.
    pub(crate) async fn get(&self, key: String, payer: Payer) -> Outcome<Option<Vec<u8>>> {
        if let Self::Redis(connection, _) = self {
            // Not by MGET, which takes a key of another type for none.
            let value: Option<Vec<u8>> = connection.clone().get(key).await.map_err(plain)?;
            let _charge = value.as_ref().map(|value| payer.pay(value.len())).transpose()?;
            return Ok(value);
        }
        Ok(self.get_many(vec![key], payer).await?.pop().and_then(|(_, value)| value))
    }

    pub(crate) async fn set(&self, key: String, value: Vec<u8>) -> Outcome<()> {
        self.set_many(vec![(key, value)]).await
    }

    pub(crate) async fn delete(&self, key: String) -> Outcome<()> {
        self.delete_many(vec![key]).await
    }

    pub(crate) async fn exists(&self, key: String) -> Outcome<bool> {
        match self {
            Self::Embedded(db) => {
                sql(db, move |db| db.prepare_cached("SELECT 1 FROM kv WHERE key = ?1")?.exists([key])).await
            }
            Self::Redis(connection, _) => connection.clone().exists(key).await.map_err(plain),
        }
    }

    pub(crate) async fn keys(&self, payer: Payer) -> Outcome<Vec<String>> {
        match self {
            Self::Embedded(db) => {
                let result = sql(db, move |db| {
                    let mut query = db.prepare_cached("SELECT key FROM kv ORDER BY key")?;
                    let (mut rows, mut keys, mut charges) = (query.query([])?, Vec::new(), Vec::new());
                    while let Some(row) = rows.next()? {
                        let key = row.get_ref(0)?.as_str()?;
                        match payer.pay(key.len() + size_of::<String>()) {
                            Ok(charge) => charges.push(charge),
                            Err(text) => return Ok(Err(text)),
                        }
                        keys.push(key.to_owned());
                    }
                    Ok(Ok((keys, charges)))
                })
                .await?;
                result.map(|(keys, _)| keys)
            }
            Self::Redis(connection, _) => {
                let mut connection = connection.clone();
                let (mut keys, mut charges) = (Vec::new(), Vec::new());
                let mut cursor = 0u64;
                loop {
                    let (next, found): (u64, Vec<String>) = redis::cmd("SCAN")
                        .arg(cursor)
                        .arg("COUNT")
                        .arg(1000)
                        .query_async(&mut connection)
                        .await
                        .map_err(plain)?;
                    charges.push(payer.pay(found.iter().map(|key| key.len() + size_of::<String>()).sum())?);
                    keys.extend(found);
                    cursor = next;
                    if cursor == 0 {
                        break;
                    }
                }
                keys.sort();
                keys.dedup();
                Ok(keys)
            }
        }
    }

    pub(crate) async fn get_many(&self, keys: Vec<String>, payer: Payer) -> Outcome<Vec<(String, Option<Vec<u8>>)>> {
        match self {
            Self::Embedded(db) => {
                let result = sql(db, move |db| {
                    let mut query = db.prepare_cached("SELECT value FROM kv WHERE key = ?1")?;
                    let (mut found, mut charges) = (Vec::with_capacity(keys.len()), Vec::new());
                    for key in keys {
                        let mut rows = query.query([&key])?;
                        let value = match rows.next()? {
                            None => None,
                            Some(row) => {
                                let value = row.get_ref(0)?.as_blob()?;
                                match payer.pay(value.len()) {
                                    Ok(charge) => charges.push(charge),
                                    Err(text) => return Ok(Err(text)),
                                }
                                Some(value.to_vec())
                            }
                        };
                        drop(rows);
                        found.push((key, value));
                    }
                    Ok(Ok((found, charges)))
                })
                .await?;
                result.map(|(found, _)| found)
            }
            Self::Redis(connection, _) => {
                if keys.is_empty() {
                    return Ok(Vec::new());
                }
                let values: Vec<Option<Vec<u8>>> =
                    redis::cmd("MGET").arg(&keys).query_async(&mut connection.clone()).await.map_err(plain)?;
                let _charge = payer.pay(values.iter().flatten().map(Vec::len).sum())?;
                Ok(keys.into_iter().zip(values).collect())
            }
        }
    }

    pub(crate) async fn set_many(&self, pairs: Vec<(String, Vec<u8>)>) -> Outcome<()> {
        match self {
            Self::Embedded(db) => {
                sql(db, move |db| {
                    let change = db.transaction()?;
                    {
                        let mut insert = change.prepare_cached(
                            "INSERT INTO kv VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                        )?;
                        for (key, value) in pairs {
                            insert.execute(params![key, value])?;
                        }
                    }
                    change.commit()
                })
                .await
            }
            Self::Redis(connection, _) => {
                if pairs.is_empty() {
                    return Ok(());
                }
                let mut command = redis::cmd("MSET");
                for (key, value) in &pairs {
                    command.arg(key).arg(value);
                }
                command.query_async(&mut connection.clone()).await.map_err(plain)
            }
        }
    }

    pub(crate) async fn delete_many(&self, keys: Vec<String>) -> Outcome<()> {
        match self {
            Self::Embedded(db) => {
                sql(db, move |db| {
                    let change = db.transaction()?;
                    for key in keys {
                        change.execute("DELETE FROM kv WHERE key = ?1", [key])?;
                    }
                    change.commit()
                })
                .await
            }
            Self::Redis(connection, _) => {
                if keys.is_empty() {
                    return Ok(());
                }
                let mut connection = connection.clone();
                let _: i64 = connection.del(keys).await.map_err(plain)?;
                Ok(())
            }
        }
    }

    /// Adds to the decimal number that is the value of `key`; an absent one counts as 0.
    pub(crate) async fn increment(&self, key: String, delta: i64) -> Outcome<i64> {
        match self {
            Self::Embedded(db) => {
                let result = sql(db, move |db| {
                    let change = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
                    let old: Option<Vec<u8>> =
                        change.query_row("SELECT value FROM kv WHERE key = ?1", [&key], |row| row.get(0)).optional()?;
                    let old = match old {
                        None => Some(0),
                        Some(bytes) => std::str::from_utf8(&bytes).ok().and_then(|text| text.parse::<i64>().ok()),
                    };
                    let Some(new) = old.and_then(|old| old.checked_add(delta)) else { return Ok(None) };
                    change.execute(
                        "INSERT INTO kv VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                        params![key, new.to_string().into_bytes()],
                    )?;
                    change.commit()?;
                    Ok(Some(new))
                })
                .await?;
                result.ok_or_else(|| "the value is not a whole number or would become too large".to_owned())
            }
            Self::Redis(connection, _) => connection.clone().incr(key, delta).await.map_err(plain),
        }
    }

    /// Replaces the value of `key` if it is still `seen`; answers whether it was.
    pub(crate) async fn compare_and_swap(&self, key: String, seen: Option<Vec<u8>>, new: Vec<u8>) -> Outcome<bool> {
        match self {
            Self::Embedded(db) => {
                sql(db, move |db| {
                    let changed = match seen {
                        Some(seen) => db.execute(
                            "UPDATE kv SET value = ?2 WHERE key = ?1 AND value = ?3",
                            params![key, new, seen],
                        )?,
                        None => {
                            db.execute("INSERT INTO kv VALUES (?1, ?2) ON CONFLICT DO NOTHING", params![key, new])?
                        }
                    };
                    Ok(changed == 1)
                })
                .await
            }
            Self::Redis(connection, _) => {
                let script = redis::Script::new(
                    "local now = redis.call('GET', KEYS[1]) \
                     if (ARGV[1] == '0' and now == false) or (ARGV[1] == '1' and now == ARGV[2]) then \
                     redis.call('SET', KEYS[1], ARGV[3]) return 1 end return 0",
                );
                let has = if seen.is_some() { "1" } else { "0" };
                let mut call = script.key(key);
                call.arg(has).arg(seen.unwrap_or_default()).arg(new);
                let swapped: i64 = call.invoke_async(&mut connection.clone()).await.map_err(plain)?;
                Ok(swapped == 1)
            }
        }
    }
}

fn plain(error: redis::RedisError) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::Embedded;
    use crate::stock::Stock;

    /// Waits for its turn without a thread: those are few, and files and lookups need them too.
    #[tokio::test(flavor = "multi_thread")]
    async fn calls_that_wait_for_a_store_hold_no_threads() {
        let folder = tempfile::tempdir().unwrap();
        let file = Embedded::new(folder.path().to_owned(), &Stock::new(64)).get("default").unwrap();
        let (taken, was_taken) = std::sync::mpsc::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let busy = Arc::clone(&file);
        let holder = std::thread::spawn(move || {
            let _connection = busy.connection.lock();
            taken.send(()).unwrap();
            let _ = released.recv();
        });
        was_taken.recv().unwrap();
        let calls: Vec<_> = (0..600)
            .map(|n| {
                let store = Store::Embedded(Arc::clone(&file));
                tokio::spawn(async move { store.set(n.to_string(), Vec::new()).await })
            })
            .collect();
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let other = tokio::time::timeout(std::time::Duration::from_secs(5), tokio::task::spawn_blocking(|| ())).await;
        drop(release);
        holder.join().unwrap();
        assert!(other.is_ok(), "other work finds a thread");
        for call in calls {
            call.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn an_embedded_store_keeps_counts_and_swaps() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::Embedded(Embedded::new(folder.path().to_owned(), &Stock::new(64)).get("default").unwrap());
        store.set("a".into(), b"1".to_vec()).await.unwrap();
        assert_eq!(store.increment("a".into(), 41).await.unwrap(), 42);
        assert_eq!(store.increment("n".into(), -1).await.unwrap(), -1);
        assert!(store.exists("a".into()).await.unwrap());
        assert_eq!(store.keys(Payer::nobody()).await.unwrap(), ["a", "n"]);
        assert!(!store.compare_and_swap("a".into(), Some(b"x".to_vec()), b"y".to_vec()).await.unwrap());
        assert!(store.compare_and_swap("a".into(), Some(b"42".to_vec()), b"y".to_vec()).await.unwrap());
        assert!(store.compare_and_swap("new".into(), None, b"z".to_vec()).await.unwrap());
        assert!(!store.compare_and_swap("new".into(), None, b"z".to_vec()).await.unwrap());
        assert!(store.increment("new".into(), 1).await.is_err());
        store.delete("a".into()).await.unwrap();
        assert_eq!(store.get("a".into(), Payer::nobody()).await.unwrap(), None);
        let many = store.get_many(vec!["new".into(), "a".into()], Payer::nobody()).await.unwrap();
        assert_eq!(many, [("new".to_owned(), Some(b"z".to_vec())), ("a".to_owned(), None)]);
    }
}
