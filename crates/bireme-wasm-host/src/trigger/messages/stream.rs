//! Entries of a Redis stream, of which each is handled by one consumer of a group, at least once: it is acknowledged when an
//! instance has handled it, tried again when one has failed, and put aside when too many have.
//!
//! The consumer is called as the workload is: what one left that ended, its successor of the same name finds again at once,
//! and the other consumers of the group after a while.
//!
//! Source: <https://redis.io/docs/latest/develop/data-types/streams/>, "Consumer groups".

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bireme_core::labels::{Group, Subscription as Label};
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::streams::StreamPendingCountReply;
use redis::{AsyncConnectionConfig, ErrorKind, RedisError, Script, Value, cmd};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::entry::{Entry, entries_of, read_reply};
use super::pending::{Fate, Pending, fate, given_up, pause};
use super::{Connection, Subscription, begun, call};
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
    /// Whether the last read broke the connection: entries may be too large to come together.
    careful: AtomicBool,
}

impl Entries {
    fn look_soon(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }
}

/// One connection to a stream, for as long as it lasts.
struct Stream<'a> {
    subscription: &'a Subscription,
    label: &'a Label,
    group: &'a Group,
    consumer: String,
    /// What drives both connections, for as long as an entry is to be acknowledged.
    drivers: Arc<JoinSet<()>>,
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
        let consumer = format!("{}@{}", component.name(), machine());
        let drivers = Arc::new(std::mem::take(&mut drivers));
        let stream = Stream { subscription, label, group, consumer, drivers, reading, telling };
        stream.make_group().await.map_err(|error| error.to_string())?;
        Ok::<_, String>(stream)
    };
    let stream = match begun(connected).await {
        Ok(stream) => stream,
        Err(error) => return error,
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
                self.subscription.entries.look_soon();
                Ok(())
            }
        }
    }

    /// Has new entries handled, as many at a time as there are free instances.
    async fn read(&self) -> Result<Never, RedisError> {
        let entries = &self.subscription.entries;
        let mut most = if entries.careful.swap(false, Ordering::Relaxed) { 1 } else { READ };
        loop {
            let room = self.subscription.current().free_slots().clamp(1, most);
            let mut command = cmd("XREADGROUP");
            command.arg("GROUP").arg(&self.group.name).arg(&self.consumer).arg("COUNT").arg(room);
            command.arg("BLOCK").arg(WAIT.as_millis() as u64).arg("STREAMS").arg(&self.label.channel).arg(">");
            let began = Instant::now();
            let reply: Value = command.query_async(&mut self.reading.clone()).await.inspect_err(|_| {
                // What was delivered and did not come whole is looked for as what failed.
                entries.careful.store(true, Ordering::Relaxed);
                entries.look_soon();
            })?;
            let found = read_reply(reply).ok_or_else(nonsense)?;
            if found.is_empty() && began.elapsed() < WAIT / 2 {
                // A server that does not wait is not asked without a pause.
                tokio::time::sleep(OWN).await;
            }
            // Large entries come one by one: together they may be more than an answer may have.
            let longest = found.iter().map(Entry::size).max().unwrap_or(0);
            most = (LARGE / longest.max(1)).clamp(1, READ);
            self.handle_all(found).await;
        }
    }

    async fn handle_all(&self, entries: Vec<Entry>) {
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
                _drivers: Arc::clone(&self.drivers),
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
            let entries = &self.subscription.entries;
            loop {
                let Some(id) = entries.handled.lock().last().cloned() else { break };
                acknowledge(&self.telling, &self.label.channel, &self.group.name, &id).await?;
                entries.handled.lock().retain(|other| *other != id);
            }
            if entries.failed.swap(false, Ordering::Relaxed)
                && self.look(true).await.inspect_err(|_| entries.look_soon())?
            {
                entries.look_soon();
            }
            if rounds.is_multiple_of(OTHERS.as_secs() / OWN.as_secs()) {
                self.look(false).await?;
            }
            rounds += 1;
        }
    }

    /// Looks through entries of this consumer, or of the others. Answers whether one is left that nobody has.
    async fn look(&self, own: bool) -> Result<bool, RedisError> {
        let timeout = self.subscription.current().component.spec.bireme.timeout;
        let mut command = cmd("XPENDING");
        command.arg(&self.label.channel).arg(&self.group.name);
        if !own {
            command.arg("IDLE").arg(given_up(timeout).as_millis() as u64);
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
                let fate = fate(entry, self.group, timeout);
                left |= entry.own && !under_way;
                let idle = pause(entry, timeout);
                match fate {
                    Fate::Leave => {}
                    Fate::Retry => {
                        if let Some(claimed) = self.claim(&found.id, idle).await? {
                            self.handle_all(vec![claimed]).await;
                        }
                    }
                    Fate::Bury => self.bury(&found.id, idle, entry.deliveries).await?,
                }
            }
            if !whole {
                return Ok(left);
            }
        }
    }

    fn claim_command(&self, id: &str, idle: Duration) -> redis::Cmd {
        let mut command = cmd("XCLAIM");
        command.arg(&self.label.channel).arg(&self.group.name).arg(&self.consumer).arg(idle.as_millis() as u64).arg(id);
        command
    }

    /// Has an entry delivered to this consumer again. `None` where another was faster, or the entry was removed from the stream
    /// and is none's any more.
    async fn claim(&self, id: &str, idle: Duration) -> Result<Option<Entry>, RedisError> {
        let reply: Value = self.claim_command(id, idle).query_async(&mut self.telling.clone()).await?;
        Ok(entries_of(reply).ok_or_else(nonsense)?.into_iter().next())
    }

    /// Puts an entry aside, with where it comes from, and acknowledges it. The server does so by itself: an entry may be what
    /// cannot be read here. Where it cannot be put aside, it is left.
    async fn bury(&self, id: &str, idle: Duration, attempts: u64) -> Result<(), RedisError> {
        let mut claim = self.claim_command(id, idle);
        let claimed: Vec<String> = claim.arg("JUSTID").query_async(&mut self.telling.clone()).await?;
        if claimed.is_empty() {
            return Ok(());
        }
        let (stream, dead) = (&self.label.channel, &self.group.dead);
        let script = Script::new(BURY);
        let mut call = script.key(stream);
        call.key(dead).arg(&self.group.name).arg(id);
        let buried: Result<Value, RedisError> = call.invoke_async(&mut self.telling.clone()).await;
        let text = match buried {
            Ok(_) => format!("bireme: entry {id} of {stream} was put aside in {dead} after {attempts} attempts"),
            Err(error) if error.is_io_error() || error.is_connection_dropped() => return Err(error),
            Err(error) => format!("bireme: entry {id} of {stream} cannot be put aside in {dead}: {error}"),
        };
        self.subscription.current().component.log.note(&text);
        Ok(())
    }
}

/// Adds the entry to the other stream, and only then acknowledges it: an error ends the script.
const BURY: &str = "
local entry = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])[1]
if entry then
    local fields = entry[2]
    table.insert(fields, 'bireme.stream')
    table.insert(fields, KEYS[1])
    table.insert(fields, 'bireme.id')
    table.insert(fields, ARGV[2])
    redis.call('XADD', KEYS[2], '*', unpack(fields))
end
return redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])";

/// The server said what no stream has.
fn nonsense() -> RedisError {
    RedisError::from((ErrorKind::UnexpectedReturnType, "the server's answer is none about a stream"))
}

/// What this machine is called: consumers of two machines are two, though their workloads are called alike.
pub(crate) fn machine() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| rustix::system::uname().nodename().to_string_lossy().into_owned())
}

/// Entries of which the longest is larger come one at a time, in bytes.
const LARGE: usize = 1 << 20;

/// Entries that wait for an instance: where nobody waits with them any more, they are none's.
struct Left<'a> {
    entries: &'a Entries,
    ids: HashSet<String>,
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        self.entries.under_way.lock().retain(|id| !self.ids.contains(id));
        if !self.ids.is_empty() {
            self.entries.look_soon();
        }
    }
}

/// One entry, and whom to tell of it.
struct Handling {
    entries: Arc<Entries>,
    telling: MultiplexedConnection,
    _drivers: Arc<JoinSet<()>>,
    stream: String,
    group: String,
}

impl Handling {
    /// The invocation counts as alive until the entry is acknowledged: whoever stops the workload waits for that.
    async fn handle(self, mut invocation: Invocation, entry: Entry) {
        let Self { entries, telling, stream, group, _drivers } = self;
        let id = entry.id.clone();
        match call::handle(&mut invocation, entry.payload()).await {
            Ok(()) => {
                if acknowledge(&telling, &stream, &group, &id).await.is_err() {
                    entries.handled.lock().push(id.clone());
                }
            }
            Err(text) => {
                let text = format!("bireme: entry {id} of {stream} failed: {text}");
                invocation.workload.component.log.note(&text);
            }
        }
        // In this order: whoever looks for what failed finds that nobody has it.
        entries.under_way.lock().remove(&id);
        entries.look_soon();
    }
}

async fn acknowledge(telling: &MultiplexedConnection, stream: &str, group: &str, id: &str) -> Result<(), RedisError> {
    cmd("XACK").arg(stream).arg(group).arg(id).query_async::<Value>(&mut telling.clone()).await.map(drop)
}
