//! Spin's Redis client: `fermyon:spin/redis@2.0.0` and `spin:redis/redis@3.0.0`; and the connections behind it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex as StdMutex;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncCommands as _, AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo as _,
    RedisError, Value,
};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use wasmtime::component::{Accessor, HasSelf, Resource};

use super::bindings::concurrent::spin::redis::redis as v3;
use super::bindings::sync::fermyon::spin2_0_0::redis as v2;
use super::net::Target;
use super::resp::{Backlog, Measured, UnderWay};
use crate::component::Component;
use crate::guest::Guest;

/// Longest time to connect, and to wait for one answer.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(30);

/// Most connections of one workload at once: guests choose the addresses, and each costs the server and us.
const MAX_CONNECTIONS: usize = 32;
/// How long the closing of an idle connection is waited for where its place is needed.
const CLOSING: Duration = Duration::from_secs(1);
/// How long a connection that nobody holds is kept for the next instance.
const IDLE: Duration = Duration::from_secs(60);

/// A connection as a guest holds it: shared by all instances of the workload.
#[derive(Clone)]
#[expect(unreachable_pub, reason = "generated code re-exports it")]
pub struct Connection(MultiplexedConnection, #[expect(dead_code, reason = "held so that it counts as in use")] Held);

/// The open connections of one workload, one per URL. One that breaks is forgotten, and made anew at the next use; one that
/// nobody used for a while is closed.
#[derive(Clone, Default)]
pub(crate) struct Connections {
    open: Arc<StdMutex<HashMap<String, Open>>>,
    /// Places for connections, each of which is taken until its socket is closed: one that was forgotten may still be used.
    places: Places,
    under_way: UnderWay,
}

#[derive(Clone)]
struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_CONNECTIONS)))
    }
}

/// The place of one connection.
type Permit = Arc<OwnedSemaphorePermit>;

/// Counts who uses a connection.
pub(crate) type Held = Arc<()>;

struct Open {
    /// Kept here until the connection is made, which keeps it then.
    permit: Permit,
    /// Filled by the first who asks; the others wait for that.
    connection: Arc<OnceCell<MultiplexedConnection>>,
    held: Held,
    /// When it was last asked for.
    used: Instant,
    /// Tells a connection from the one that took its place.
    number: u64,
}

impl Open {
    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.held) == 1
    }

    /// Counts whoever asks as one who uses it.
    fn enter(&mut self) -> Entered {
        self.used = Instant::now();
        let (cell, held, permit) = (Arc::clone(&self.connection), Arc::clone(&self.held), Arc::clone(&self.permit));
        Entered { cell, held, permit, number: self.number }
    }
}

/// A connection of [`Connections`] as one who asks for it has it.
struct Entered {
    /// Filled by the first who asks; the others wait for that.
    cell: Arc<OnceCell<MultiplexedConnection>>,
    held: Held,
    permit: Permit,
    number: u64,
}

/// Reads a Redis URL and connects to where its name leads now, from the component's own address.
///
/// # Errors
/// A sentence when it is not a Redis URL, the name is not known or nobody answers. The URL itself, which may hold a
/// password, is left out.
///
/// `named` is whether a label names the server: then the name may lead into private networks, which is where servers are.
/// What is read waits in `backlog`, where there is one, until it is taken from there.
pub(crate) async fn dial(
    component: &Component,
    url: &str,
    named: bool,
    backlog: Option<Arc<Backlog>>,
) -> Result<(ConnectionInfo, Measured), String> {
    let info = url.into_connection_info().map_err(|error| format!("this is not a Redis address: {error}"))?;
    let (host, port) = match info.addr() {
        ConnectionAddr::Tcp(host, port) => (host.clone(), *port),
        ConnectionAddr::TcpTls { .. } => return Err("rediss:// (TLS) is not offered; use redis://".to_owned()),
        _ => return Err("only redis://host:port addresses are offered".to_owned()),
    };
    let host = host.trim_matches(['[', ']']);
    let mut found = super::net::lookup(component, host).await;
    let Some(first) = found.first().copied() else { return Err(format!("the name {host} is not known")) };
    if !named {
        let covers = |address| component.allow.covers("redis", host, address, port);
        found = super::net::covered(component, host, found, covers);
    }
    if found.is_empty() {
        return Err(super::net::leads_inside(host, first));
    }
    let addresses: Vec<SocketAddr> = found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
    // What a label subscribes to is the host's own, and not what guests may leave no room for.
    let place = if backlog.is_some() { None } else { Some(take_place(component)?) };
    let stream = tokio::time::timeout(CONNECT, super::net::dial(component, &addresses)).await;
    let stream = stream.map_err(|_| format!("{host} does not answer"))?.map_err(|error| format!("{host}: {error}"))?;
    let under_way = component.redis.under_way.clone();
    let stream = Measured::new(stream, host, component.memory_limit, under_way, backlog, component.log.clone(), place);
    Ok((info, stream))
}

fn take_place(component: &Component) -> Result<crate::stock::Place, String> {
    component.descriptors.take().ok_or_else(|| {
        component.note_descriptors();
        "the component has as many files, sockets and connections open as it may".to_owned()
    })
}

impl Connections {
    /// The connection to `url`, made if there is none. Whether the workload may is the caller's to know. It counts as in use
    /// for as long as what comes with it is kept.
    ///
    /// # Errors
    /// A sentence, also when too many are in use.
    pub(crate) async fn get(
        &self,
        component: &Component,
        url: &str,
        named: bool,
    ) -> Result<(MultiplexedConnection, Held), String> {
        let Entered { cell, held, permit, number } = match self.known(url) {
            Some(known) => known,
            None => {
                let permit = self.permit().await?;
                self.enter(url, permit)
            }
        };
        let made = cell
            .get_or_try_init(async || {
                let (info, stream) = dial(component, url, named, None).await?;
                let config = AsyncConnectionConfig::new().set_response_timeout(Some(ANSWER));
                let made = MultiplexedConnection::new_with_config(info.redis_settings(), stream, config);
                let made = tokio::time::timeout(CONNECT, made).await.map_err(|_| "Redis does not answer".to_owned())?;
                let (connection, driver) = made.map_err(|error| error.to_string())?;
                let (all, url) = (self.clone(), url.to_owned());
                let users = Arc::downgrade(&held);
                // Ends when the connection breaks, or when nobody holds it any more. The library waits then for answers
                // that are still to come, which may be for ever.
                tokio::spawn(async move {
                    let _permit = permit;
                    {
                        let mut driver = std::pin::pin!(driver);
                        while users.strong_count() > 0 && tokio::time::timeout(IDLE / 2, driver.as_mut()).await.is_err()
                        {
                            all.close_idle();
                        }
                    }
                    all.remove(&url, number);
                });
                Ok::<_, String>(connection)
            })
            .await
            .cloned();
        if made.is_err() {
            self.remove(url, number);
        }
        Ok((made?, held))
    }

    /// The connection to `url`, made or being made, if there is one.
    fn known(&self, url: &str) -> Option<Entered> {
        self.lock().get_mut(url).map(Open::enter)
    }

    /// A place for one more connection: the oldest that nobody uses is closed for it.
    ///
    /// # Errors
    /// A sentence when all are in use.
    ///
    /// # Cancel safety
    /// At most an idle connection was closed.
    async fn permit(&self) -> Result<Permit, String> {
        let full = || format!("{MAX_CONNECTIONS} connections are in use, and no component may have more");
        if let Ok(permit) = Arc::clone(&self.places.0).try_acquire_owned() {
            return Ok(Arc::new(permit));
        }
        {
            let mut open = self.lock();
            let idle = open.iter().filter(|(_, known)| known.is_idle()).min_by_key(|(_, known)| known.used);
            let oldest = idle.map(|(url, _)| url.clone()).ok_or_else(full)?;
            open.remove(&oldest);
        }
        let closed = tokio::time::timeout(CLOSING, Arc::clone(&self.places.0).acquire_owned()).await;
        closed.ok().and_then(Result::ok).map(Arc::new).ok_or_else(full)
    }

    /// Enters a connection that is to be made; `permit` is given back where another has done so meanwhile.
    fn enter(&self, url: &str, permit: Permit) -> Entered {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let mut open = self.lock();
        let new = || Open {
            permit,
            connection: Arc::default(),
            held: Held::default(),
            used: Instant::now(),
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
        };
        open.entry(url.to_owned()).or_insert_with(new).enter()
    }

    fn lock(&self) -> parking_lot::MutexGuard<'_, HashMap<String, Open>> {
        self.open.lock()
    }

    fn remove(&self, url: &str, number: u64) {
        let mut open = self.lock();
        if open.get(url).is_some_and(|known| known.number == number) {
            open.remove(url);
        }
    }

    fn close_idle(&self) {
        self.lock().retain(|_, known| !known.is_idle() || known.used.elapsed() < IDLE);
    }

    /// Forgets connections, so that the next use looks their names up again.
    pub(crate) fn forget(&self) {
        self.lock().clear();
    }
}

#[derive(Debug)]
enum Failure {
    InvalidAddress,
    TypeError,
    Other(String),
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        let text = error.to_string();
        let wrong_type = text.contains("WRONGTYPE") || text.contains("not an integer");
        if wrong_type || matches!(error.kind(), ErrorKind::UnexpectedReturnType) {
            Self::TypeError
        } else {
            Self::Other(text)
        }
    }
}

async fn open(component: &Arc<Component>, address: &str) -> Result<Connection, Failure> {
    let info = address.into_connection_info().map_err(|_| Failure::InvalidAddress)?;
    let ConnectionAddr::Tcp(host, port) = info.addr() else { return Err(Failure::InvalidAddress) };
    let target = Target { scheme: "redis", host: host.trim_matches(['[', ']']), port: *port };
    let refused = |text: String| {
        component.log.note(&format!("bireme: {text}"));
        Failure::Other(text)
    };
    target.permit(component).map_err(|error| refused(error.to_string()))?;
    let (connection, held) = component.redis.get(component, address, false).await.map_err(refused)?;
    Ok(Connection(connection, held))
}

/// One argument of `execute`.
enum Argument {
    Number(i64),
    Bytes(Vec<u8>),
}

/// One value of its answer; nested answers are flattened, as Spin does.
enum Answer {
    Nil,
    Status(String),
    Number(i64),
    Bytes(Vec<u8>),
}

fn flatten(value: Value, out: &mut Vec<Answer>) -> Result<(), Failure> {
    match value {
        Value::Nil => out.push(Answer::Nil),
        Value::Int(n) => out.push(Answer::Number(n)),
        Value::BulkString(bytes) => out.push(Answer::Bytes(bytes)),
        Value::SimpleString(text) => out.push(Answer::Status(text)),
        Value::Okay => out.push(Answer::Status("OK".to_owned())),
        Value::Boolean(yes) => out.push(Answer::Number(i64::from(yes))),
        Value::Double(n) => out.push(Answer::Bytes(n.to_string().into_bytes())),
        Value::VerbatimString { text, .. } => out.push(Answer::Bytes(text.into_bytes())),
        Value::Array(values) | Value::Set(values) => {
            for value in values {
                flatten(value, out)?;
            }
        }
        Value::Map(pairs) => {
            for (key, value) in pairs {
                flatten(key, out)?;
                flatten(value, out)?;
            }
        }
        other => return Err(Failure::Other(format!("the answer {other:?} has no form in this interface"))),
    }
    Ok(())
}

/// Why a command cannot be sent; `None` for most. The connection is shared by all instances: what changes its state would
/// change it under the others, and what waits would have them wait.
fn refused(command: &str, arguments: &[Argument]) -> Option<&'static str> {
    const STATE: &str = "instances share one connection, which it would take over";
    const WAITS: &str = "instances share one connection, and it would have them all wait";
    let words = |argument: &Argument| match argument {
        Argument::Number(n) => n.to_string(),
        Argument::Bytes(bytes) => String::from_utf8_lossy(bytes).to_ascii_uppercase(),
    };
    match command.to_ascii_uppercase().as_str() {
        "AUTH" | "HELLO" | "SELECT" | "SUBSCRIBE" | "PSUBSCRIBE" | "SSUBSCRIBE" | "UNSUBSCRIBE" | "PUNSUBSCRIBE"
        | "SUNSUBSCRIBE" | "MONITOR" | "SYNC" | "PSYNC" | "REPLCONF" | "MULTI" | "EXEC" | "DISCARD" | "WATCH"
        | "UNWATCH" | "RESET" | "QUIT" | "CLIENT" | "READONLY" | "READWRITE" | "ASKING" => Some(STATE),
        "BLPOP" | "BRPOP" | "BLMOVE" | "BRPOPLPUSH" | "BZPOPMIN" | "BZPOPMAX" | "BLMPOP" | "BZMPOP" | "WAIT"
        | "WAITAOF" | "DEBUG" => Some(WAITS),
        "XREAD" | "XREADGROUP" => {
            let mut rest = arguments.iter().map(words);
            while let Some(word) = rest.next() {
                match word.as_str() {
                    "BLOCK" => return Some(WAITS),
                    // What follows are names.
                    "STREAMS" => break,
                    "GROUP" => drop((rest.next(), rest.next())),
                    _ => {}
                }
            }
            None
        }
        "SCRIPT" if arguments.first().is_some_and(|first| words(first) == "DEBUG") => Some(STATE),
        _ => None,
    }
}

impl Connection {
    async fn publish(mut self, channel: String, payload: Vec<u8>) -> Result<(), Failure> {
        let _: i64 = self.0.publish(channel, payload).await?;
        Ok(())
    }

    async fn get(mut self, key: String) -> Result<Option<Vec<u8>>, Failure> {
        Ok(self.0.get(key).await?)
    }

    async fn set(mut self, key: String, value: Vec<u8>) -> Result<(), Failure> {
        Ok(self.0.set(key, value).await?)
    }

    async fn incr(mut self, key: String) -> Result<i64, Failure> {
        Ok(self.0.incr(key, 1).await?)
    }

    async fn del(mut self, keys: Vec<String>) -> Result<u32, Failure> {
        if keys.is_empty() { Ok(0) } else { Ok(self.0.del(keys).await?) }
    }

    async fn sadd(mut self, key: String, values: Vec<String>) -> Result<u32, Failure> {
        if values.is_empty() { Ok(0) } else { Ok(self.0.sadd(key, values).await?) }
    }

    async fn smembers(mut self, key: String) -> Result<Vec<String>, Failure> {
        Ok(self.0.smembers(key).await?)
    }

    async fn srem(mut self, key: String, values: Vec<String>) -> Result<u32, Failure> {
        if values.is_empty() { Ok(0) } else { Ok(self.0.srem(key, values).await?) }
    }

    async fn execute(mut self, command: String, arguments: Vec<Argument>) -> Result<Vec<Answer>, Failure> {
        if let Some(why) = refused(&command, &arguments) {
            return Err(Failure::Other(format!("{} is not offered: {why}", command.to_ascii_uppercase())));
        }
        let mut call = redis::cmd(&command);
        for argument in arguments {
            match argument {
                Argument::Number(n) => call.arg(n),
                Argument::Bytes(bytes) => call.arg(bytes),
            };
        }
        let mut out = Vec::new();
        flatten(call.query_async(&mut self.0).await?, &mut out)?;
        Ok(out)
    }
}

/// Conversions to the types of one version.
macro_rules! version {
    ($v:ident) => {
        impl From<Failure> for $v::Error {
            fn from(failure: Failure) -> Self {
                match failure {
                    Failure::InvalidAddress => Self::InvalidAddress,
                    Failure::TypeError => Self::TypeError,
                    Failure::Other(text) => Self::Other(text),
                }
            }
        }

        impl From<$v::RedisParameter> for Argument {
            fn from(parameter: $v::RedisParameter) -> Self {
                match parameter {
                    $v::RedisParameter::Int64(n) => Self::Number(n),
                    $v::RedisParameter::Binary(bytes) => Self::Bytes(bytes),
                }
            }
        }

        impl From<Answer> for $v::RedisResult {
            fn from(answer: Answer) -> Self {
                match answer {
                    Answer::Nil => Self::Nil,
                    Answer::Status(text) => Self::Status(text),
                    Answer::Number(n) => Self::Int64(n),
                    Answer::Bytes(bytes) => Self::Binary(bytes),
                }
            }
        }
    };
}
version!(v2);
version!(v3);

fn find(guest: &mut Guest, connection: &Resource<Connection>) -> Result<Connection, Failure> {
    guest.table.get(connection).cloned().map_err(|error| Failure::Other(error.to_string()))
}

impl v2::Host for Guest {}

impl v2::HostConnection for Guest {
    async fn open(&mut self, address: String) -> Result<Resource<Connection>, v2::Error> {
        let connection = open(&self.component, &address).await?;
        self.table.push(connection).map_err(|_| v2::Error::TooManyConnections)
    }

    async fn publish(
        &mut self,
        connection: Resource<Connection>,
        channel: String,
        payload: Vec<u8>,
    ) -> Result<(), v2::Error> {
        Ok(find(self, &connection)?.publish(channel, payload).await?)
    }

    async fn get(&mut self, connection: Resource<Connection>, key: String) -> Result<Option<Vec<u8>>, v2::Error> {
        Ok(find(self, &connection)?.get(key).await?)
    }

    async fn set(&mut self, connection: Resource<Connection>, key: String, value: Vec<u8>) -> Result<(), v2::Error> {
        Ok(find(self, &connection)?.set(key, value).await?)
    }

    async fn incr(&mut self, connection: Resource<Connection>, key: String) -> Result<i64, v2::Error> {
        Ok(find(self, &connection)?.incr(key).await?)
    }

    async fn del(&mut self, connection: Resource<Connection>, keys: Vec<String>) -> Result<u32, v2::Error> {
        Ok(find(self, &connection)?.del(keys).await?)
    }

    async fn sadd(
        &mut self,
        connection: Resource<Connection>,
        key: String,
        values: Vec<String>,
    ) -> Result<u32, v2::Error> {
        Ok(find(self, &connection)?.sadd(key, values).await?)
    }

    async fn smembers(&mut self, connection: Resource<Connection>, key: String) -> Result<Vec<String>, v2::Error> {
        Ok(find(self, &connection)?.smembers(key).await?)
    }

    async fn srem(
        &mut self,
        connection: Resource<Connection>,
        key: String,
        values: Vec<String>,
    ) -> Result<u32, v2::Error> {
        Ok(find(self, &connection)?.srem(key, values).await?)
    }

    async fn execute(
        &mut self,
        connection: Resource<Connection>,
        command: String,
        arguments: Vec<v2::RedisParameter>,
    ) -> Result<Vec<v2::RedisResult>, v2::Error> {
        let arguments = arguments.into_iter().map(Argument::from).collect();
        let answers = find(self, &connection)?.execute(command, arguments).await?;
        Ok(answers.into_iter().map(Into::into).collect())
    }

    async fn drop(&mut self, connection: Resource<Connection>) -> wasmtime::Result<()> {
        self.table.delete(connection)?;
        Ok(())
    }
}

impl v3::Host for Guest {}

impl v3::HostConnection for Guest {
    fn drop(&mut self, connection: Resource<Connection>) -> wasmtime::Result<()> {
        self.table.delete(connection)?;
        Ok(())
    }
}

fn find3<T: Send>(
    guest: &Accessor<T, HasSelf<Guest>>,
    connection: &Resource<Connection>,
) -> Result<Connection, Failure> {
    guest.with(|mut access| find(access.get(), connection))
}

impl<T: Send> v3::HostConnectionWithStore<T> for HasSelf<Guest> {
    async fn open(guest: &Accessor<T, Self>, address: String) -> Result<Resource<Connection>, v3::Error> {
        let component = guest.with(|mut access| Arc::clone(&access.get().component));
        let connection = open(&component, &address).await?;
        guest.with(|mut access| access.get().table.push(connection)).map_err(|_| v3::Error::TooManyConnections)
    }

    async fn publish(
        guest: &Accessor<T, Self>,
        connection: Resource<Connection>,
        channel: String,
        payload: Vec<u8>,
    ) -> Result<(), v3::Error> {
        Ok(find3(guest, &connection)?.publish(channel, payload).await?)
    }

    async fn get(
        guest: &Accessor<T, Self>,
        connection: Resource<Connection>,
        key: String,
    ) -> Result<Option<Vec<u8>>, v3::Error> {
        Ok(find3(guest, &connection)?.get(key).await?)
    }

    async fn set(
        guest: &Accessor<T, Self>,
        connection: Resource<Connection>,
        key: String,
        value: Vec<u8>,
    ) -> Result<(), v3::Error> {
        Ok(find3(guest, &connection)?.set(key, value).await?)
    }

    async fn incr(guest: &Accessor<T, Self>, connection: Resource<Connection>, key: String) -> Result<i64, v3::Error> {
        Ok(find3(guest, &connection)?.incr(key).await?)
    }

    async fn del(
        guest: &Accessor<T, Self>,
        connection: Resource<Connection>,
        keys: Vec<String>,
    ) -> Result<u32, v3::Error> {
        Ok(find3(guest, &connection)?.del(keys).await?)
    }

    async fn sadd(
        guest: &Accessor<T, Self>,
        connection: Resource<Connection>,
        key: String,
        values: Vec<String>,
    ) -> Result<u32, v3::Error> {
        Ok(find3(guest, &connection)?.sadd(key, values).await?)
    }

    async fn smembers(
        guest: &Accessor<T, Self>,
        connection: Resource<Connection>,
        key: String,
    ) -> Result<Vec<String>, v3::Error> {
        Ok(find3(guest, &connection)?.smembers(key).await?)
    }

    async fn srem(
        guest: &Accessor<T, Self>,
        connection: Resource<Connection>,
        key: String,
        values: Vec<String>,
    ) -> Result<u32, v3::Error> {
        Ok(find3(guest, &connection)?.srem(key, values).await?)
    }

    async fn execute(
        guest: &Accessor<T, Self>,
        connection: Resource<Connection>,
        command: String,
        arguments: Vec<v3::RedisParameter>,
    ) -> Result<Vec<v3::RedisResult>, v3::Error> {
        let arguments = arguments.into_iter().map(Argument::from).collect();
        let answers = find3(guest, &connection)?.execute(command, arguments).await?;
        Ok(answers.into_iter().map(Into::into).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_that_take_the_connection_over_are_refused() {
        let is_refused = |line: &str| {
            let mut words = line.split(' ');
            let command = words.next().unwrap();
            let arguments: Vec<Argument> = words.map(|word| Argument::Bytes(word.as_bytes().to_vec())).collect();
            refused(command, &arguments).is_some()
        };
        for line in [
            "SYNC",
            "psync ? -1",
            "MONITOR",
            "Subscribe a",
            "UNSUBSCRIBE",
            "BLPOP a 0",
            "WAIT 1 0",
            "WAITAOF 1 1 0",
            "XREAD BLOCK 0 STREAMS a $",
            "xread count 1 block 0 streams a $",
            "XREADGROUP GROUP g c BLOCK 0 STREAMS a >",
            "MULTI",
            "EXEC",
            "CLIENT REPLY OFF",
            "DEBUG SLEEP 100",
            "SCRIPT DEBUG YES",
            "SELECT 1",
            "HELLO 3",
        ] {
            assert!(is_refused(line), "{line}");
        }
        for line in [
            "GET a",
            "XREAD COUNT 1 STREAMS block 0",
            "XREADGROUP GROUP block block STREAMS a >",
            "SET block block",
            "SCRIPT LOAD x",
            "LPOP a",
            "EVAL x 0",
        ] {
            assert!(!is_refused(line), "{line}");
        }
    }

    #[tokio::test]
    async fn a_component_has_few_connections_and_those_in_use_stay() {
        let all = Connections::default();
        let mut held = Vec::new();
        for n in 0..MAX_CONNECTIONS {
            held.push(all.enter(&format!("redis://{n}"), all.permit().await.unwrap()).held);
        }
        assert!(all.permit().await.unwrap_err().contains("32 connections are in use"));
        assert!(all.known("redis://0").is_some(), "one that is open is shared");
        held.remove(0);
        all.enter("redis://one-more", all.permit().await.expect("the idle one makes room"));
        assert_eq!(all.lock().len(), MAX_CONNECTIONS);
        assert!(!all.lock().contains_key("redis://0"));
        for open in all.lock().values_mut() {
            open.used -= IDLE * 2;
        }
        all.close_idle();
        assert_eq!(all.lock().len(), MAX_CONNECTIONS - 1, "what is in use is not closed, the idle one is");
    }

    #[tokio::test]
    async fn connections_that_were_forgotten_count_until_they_are_closed() {
        let all = Connections::default();
        let mut driven = Vec::new();
        for n in 0..MAX_CONNECTIONS {
            driven.push(all.enter(&format!("redis://{n}"), all.permit().await.unwrap()).permit);
        }
        all.forget();
        assert!(all.known("redis://0").is_none(), "its name is looked up again");
        assert!(all.permit().await.is_err());
        driven.pop();
        assert!(all.permit().await.is_ok());
    }
}
