//! Entries of a Redis stream, of which each is handled by one consumer of a group, at least once: it is acknowledged when an
//! instance has handled it, tried again when one has failed, and put aside when too many have.
//!
//! The consumer is called as the workload is: what one left that ended, its successor of the same name finds again at once,
//! and the other consumers of the group after a while.
//!
//! Source: <https://redis.io/docs/latest/develop/data-types/streams/>, "Consumer groups".

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bireme_core::labels::{Group, Subscription as Label};
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::streams::{StreamClaimReply, StreamId, StreamPendingCountReply, StreamReadReply};
use redis::{AsyncConnectionConfig, RedisError, Value, cmd};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::pending::{Fate, Pending, fate, given_up};
use super::{BEGIN, Connection, SILENT, Subscription, call};
use crate::component::Component;
use crate::host::redis::dial::{For, dial};
use crate::workload::{Invocation, Workload};

/// How long the server keeps a read waiting for entries, and how long it may take to answer beside that.
const WAIT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(10);
/// Most entries of one read, and of one look at what is not acknowledged.
const READ: usize = 64;
const LOOK: usize = 100;
/// How often is looked for entries that have failed here, and for those of other consumers.
const OWN: Duration = Duration::from_secs(1);
const OTHERS: Duration = Duration::from_secs(10);

/// The entries that this process has of a stream: longer than any connection lasts.
#[derive(Default)]
pub(super) struct Entries {
    /// Those that an instance has, or will have.
    under_way: Mutex<HashSet<String>>,
    /// Those that were handled, and of which the server could not be told.
    handled: Mutex<Vec<String>>,
    /// Whether one has failed, or may be left of an earlier run.
    failed: AtomicBool,
}

/// One connection to a stream, for as long as it lasts.
struct Stream<'a> {
    subscription: &'a Subscription,
    label: &'a Label,
    group: &'a Group,
    consumer: String,
    timeout: Duration,
    /// Waits for new entries.
    reading: MultiplexedConnection,
    /// Everything else.
    telling: MultiplexedConnection,
}

/// Serves one connection to its end and answers why it ended.
pub(super) async fn serve(
    subscription: &Subscription,
    workload: Arc<Workload>,
    label: &Label,
    group: &Group,
    connection: &mut Connection,
) -> String {
    let mut drivers = JoinSet::new();
    let component = &workload.component;
    let connected = async {
        let reading = open(component, &label.server, &mut drivers).await?;
        let telling = open(component, &label.server, &mut drivers).await?;
        let (consumer, timeout) = (component.name().to_string(), component.spec.bireme.timeout);
        let stream = Stream { subscription, label, group, consumer, timeout, reading, telling };
        stream.make_group().await.map_err(|error| error.to_string())?;
        Ok::<_, String>(stream)
    };
    let stream = match tokio::time::timeout(BEGIN, connected).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return error,
        Err(_) => return SILENT.to_owned(),
    };
    connection.begin(&workload, &label.channel);
    // Another may take over from it while this connection lasts.
    drop(workload);
    let ended = tokio::select! {
        ended = stream.read() => ended,
        ended = stream.look_after() => ended,
    };
    match ended {
        Ok(never) => match never {},
        Err(error) => error.to_string(),
    }
}

async fn open(component: &Component, server: &str, drivers: &mut JoinSet<()>) -> Result<MultiplexedConnection, String> {
    let (info, stream) = dial(component, server, true, For::Subscription(None)).await?;
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(WAIT + ANSWER));
    let made = MultiplexedConnection::new_with_config(info.redis_settings(), stream, config).await;
    let (connection, driver) = made.map_err(|error| error.to_string())?;
    drivers.spawn(driver);
    Ok(connection)
}

enum Never {}

impl Stream<'_> {
    /// Makes the group and the stream where they are not there. A new group has all entries before it, as none of them was
    /// handled by it.
    async fn make_group(&self) -> Result<(), RedisError> {
        let mut command = cmd("XGROUP");
        command.arg("CREATE").arg(&self.label.channel).arg(&self.group.name).arg("0").arg("MKSTREAM");
        match command.query_async::<Value>(&mut self.telling.clone()).await {
            Err(error) if error.code() != Some("BUSYGROUP") => Err(error),
            _ => {
                self.subscription.entries.failed.store(true, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    /// Has new entries handled, as many at a time as there are free instances.
    async fn read(&self) -> Result<Never, RedisError> {
        let mut most = READ;
        loop {
            let room = self.subscription.current().free_slots().clamp(1, most);
            let mut command = cmd("XREADGROUP");
            command.arg("GROUP").arg(&self.group.name).arg(&self.consumer).arg("COUNT").arg(room);
            command.arg("BLOCK").arg(WAIT.as_millis() as u64).arg("STREAMS").arg(&self.label.channel).arg(">");
            let reply: Option<StreamReadReply> = match command.query_async(&mut self.reading.clone()).await {
                Ok(reply) => reply,
                Err(error) => {
                    // What was delivered and did not come whole is looked for as what failed.
                    self.subscription.entries.failed.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            };
            let ids: Vec<StreamId> = reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids).collect();
            // Large entries come one by one: together they may be more than an answer may have.
            let longest = ids.iter().map(size).max().unwrap_or(0);
            most = (LARGE / longest.max(1)).clamp(1, READ);
            self.handle_all(ids).await;
        }
    }

    async fn handle_all(&self, entries: Vec<StreamId>) {
        for entry in &entries {
            self.subscription.entries.under_way.lock().insert(entry.id.clone());
        }
        let mut left =
            Left { entries: &self.subscription.entries, ids: entries.iter().map(|e| e.id.clone()).collect() };
        for entry in entries {
            let work = format!("entry {} of {}", entry.id, self.label.channel);
            let invocation = self.subscription.admit(&work).await;
            left.ids.remove(&entry.id);
            let handling = Handling {
                entries: Arc::clone(&self.subscription.entries),
                telling: self.telling.clone(),
                stream: self.label.channel.clone(),
                group: self.group.name.clone(),
            };
            tokio::spawn(handling.handle(invocation, entry));
        }
    }

    /// Has entries handled again that have failed, or whose consumer is gone, and puts those aside that failed too often.
    async fn look_after(&self) -> Result<Never, RedisError> {
        let mut ticks = tokio::time::interval(OWN);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rounds = 0u64;
        loop {
            ticks.tick().await;
            let handled = std::mem::take(&mut *self.subscription.entries.handled.lock());
            for id in handled {
                if let Err(error) = acknowledge(&self.telling, &self.label.channel, &self.group.name, &id).await {
                    self.subscription.entries.handled.lock().push(id);
                    return Err(error);
                }
            }
            if self.subscription.entries.failed.swap(false, Ordering::Relaxed) {
                let left = self.look(true).await.inspect_err(|_| {
                    self.subscription.entries.failed.store(true, Ordering::Relaxed);
                })?;
                if left {
                    self.subscription.entries.failed.store(true, Ordering::Relaxed);
                }
            }
            if rounds.is_multiple_of(OTHERS.as_secs() / OWN.as_secs()) {
                self.look(false).await?;
            }
            rounds += 1;
        }
    }

    /// Looks through entries of this consumer, or of the others. Answers whether one is left that nobody has.
    async fn look(&self, own: bool) -> Result<bool, RedisError> {
        let mut command = cmd("XPENDING");
        command.arg(&self.label.channel).arg(&self.group.name);
        if !own {
            command.arg("IDLE").arg(given_up(self.timeout).as_millis() as u64);
        }
        let mut left = false;
        let mut from = "-".to_owned();
        loop {
            let mut page = command.clone();
            page.arg(&from).arg("+").arg(LOOK);
            if own {
                page.arg(&self.consumer);
            }
            let reply: StreamPendingCountReply = page.query_async(&mut self.telling.clone()).await?;
            let whole = reply.ids.len() == LOOK;
            from = reply.ids.last().map(|last| format!("({}", last.id)).unwrap_or_default();
            for found in reply.ids {
                let under_way = self.subscription.entries.under_way.lock().contains(&found.id);
                let entry = Pending {
                    own: found.consumer == self.consumer,
                    under_way,
                    idle: Duration::from_millis(found.last_delivered_ms as u64),
                    deliveries: found.times_delivered as u64,
                };
                let fate = fate(entry, self.group, self.timeout);
                left |= entry.own && !under_way;
                if fate == Fate::Leave {
                    continue;
                }
                let idle = if entry.own { Duration::ZERO } else { given_up(self.timeout) };
                let Some(claimed) = self.claim(&found.id, idle, entry.own).await? else { continue };
                match fate {
                    Fate::Bury => self.bury(&claimed, entry.deliveries).await?,
                    _ => self.handle_all(vec![claimed]).await,
                }
            }
            if !whole {
                return Ok(left);
            }
        }
    }

    /// Has an entry delivered to this consumer again. `None` where another was faster, or the entry was removed from the stream.
    async fn claim(&self, id: &str, idle: Duration, own: bool) -> Result<Option<StreamId>, RedisError> {
        let mut command = cmd("XCLAIM");
        command.arg(&self.label.channel).arg(&self.group.name).arg(&self.consumer).arg(idle.as_millis() as u64).arg(id);
        let reply: StreamClaimReply = command.query_async(&mut self.telling.clone()).await?;
        let claimed = reply.ids.into_iter().next();
        if claimed.is_none() && own {
            acknowledge(&self.telling, &self.label.channel, &self.group.name, id).await?;
        }
        Ok(claimed)
    }

    /// Puts an entry aside, with where it comes from, and acknowledges it, both or neither.
    async fn bury(&self, entry: &StreamId, attempts: u64) -> Result<(), RedisError> {
        let mut both = redis::pipe();
        both.atomic().cmd("XADD").arg(&self.group.dead).arg("*");
        for (field, value) in &entry.map {
            if let Value::BulkString(value) = value {
                both.arg(field).arg(value);
            }
        }
        both.arg("bireme.stream").arg(&self.label.channel).arg("bireme.id").arg(&entry.id);
        both.cmd("XACK").arg(&self.label.channel).arg(&self.group.name).arg(&entry.id);
        both.query_async::<Value>(&mut self.telling.clone()).await?;
        let (id, stream, dead) = (&entry.id, &self.label.channel, &self.group.dead);
        let text = format!("bireme: entry {id} of {stream} was put aside in {dead} after {attempts} attempts");
        self.subscription.current().component.log.note(&text);
        Ok(())
    }
}

/// Entries of which the longest is larger come one at a time, in bytes.
const LARGE: usize = 1 << 20;

fn size(entry: &StreamId) -> usize {
    let length = |value: &Value| if let Value::BulkString(bytes) = value { bytes.len() } else { 0 };
    entry.map.iter().map(|(field, value)| field.len() + length(value)).sum()
}

/// Entries that wait for an instance: where nobody waits with them any more, they are none's.
struct Left<'a> {
    entries: &'a Entries,
    ids: HashSet<String>,
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        if !self.ids.is_empty() {
            self.entries.failed.store(true, Ordering::Relaxed);
        }
        let mut under_way = self.entries.under_way.lock();
        under_way.retain(|id| !self.ids.contains(id));
    }
}

/// One entry, and whom to tell of it.
struct Handling {
    entries: Arc<Entries>,
    telling: MultiplexedConnection,
    stream: String,
    group: String,
}

impl Handling {
    /// The invocation counts as alive until the entry is acknowledged: whoever stops the workload waits for that.
    async fn handle(self, mut invocation: Invocation, entry: StreamId) {
        let Self { entries, telling, stream, group } = self;
        let id = entry.id.clone();
        match call::handle(&mut invocation, payload(entry)).await {
            Ok(()) => {
                if acknowledge(&telling, &stream, &group, &id).await.is_err() {
                    entries.handled.lock().push(id.clone());
                }
            }
            Err(text) => {
                let text = format!("bireme: entry {id} of {stream} failed: {text}");
                invocation.workload.component.log.note(&text);
                entries.failed.store(true, Ordering::Relaxed);
            }
        }
        entries.under_way.lock().remove(&id);
    }
}

async fn acknowledge(telling: &MultiplexedConnection, stream: &str, group: &str, id: &str) -> Result<(), RedisError> {
    cmd("XACK").arg(stream).arg(group).arg(id).query_async::<Value>(&mut telling.clone()).await.map(drop)
}

/// What the handler is given of an entry: the value of its field `payload`, or of its only field; otherwise all fields as a
/// JSON object, in which what is not UTF-8 has the replacement character.
fn payload(entry: StreamId) -> Vec<u8> {
    let mut fields: BTreeMap<String, Vec<u8>> = entry
        .map
        .into_iter()
        .filter_map(|(field, value)| match value {
            Value::BulkString(bytes) => Some((field, bytes)),
            _ => None,
        })
        .collect();
    if let Some(payload) = fields.remove("payload") {
        return payload;
    }
    if fields.len() == 1 {
        return fields.into_values().next().unwrap_or_default();
    }
    let text = |bytes: Vec<u8>| serde_json::Value::from(String::from_utf8_lossy(&bytes).into_owned());
    let fields: serde_json::Map<_, _> = fields.into_iter().map(|(field, bytes)| (field, text(bytes))).collect();
    serde_json::Value::from(fields).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_its_payload_its_only_field_or_all_of_them() {
        let entry = |fields: &[(&str, &[u8])]| {
            let value = |bytes: &[u8]| Value::BulkString(bytes.to_vec());
            let map = fields.iter().map(|(field, bytes)| ((*field).to_owned(), value(bytes))).collect();
            String::from_utf8_lossy(&payload(StreamId { map, ..StreamId::default() })).into_owned()
        };
        assert_eq!(entry(&[("id", b"1"), ("payload", b"p")]), "p");
        assert_eq!(entry(&[("anything", b"a")]), "a");
        assert_eq!(entry(&[("b", b"\"2\""), ("a", b"1")]), r#"{"a":"1","b":"\"2\""}"#);
        assert_eq!(entry(&[]), "{}");
    }
}
