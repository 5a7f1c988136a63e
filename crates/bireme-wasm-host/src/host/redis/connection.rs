//! A connection as a guest has it, and the commands that it may send.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands as _, ConnectionAddr, ErrorKind, IntoConnectionInfo as _, RedisError, Value};

use super::dial::connection;
use crate::component::{Component, Held};
use crate::host::net::Target;

/// A connection as a guest holds it: shared by all instances of the workload.
#[derive(Clone)]
#[expect(unreachable_pub, reason = "generated code re-exports it")]
pub struct Connection(MultiplexedConnection, #[expect(dead_code, reason = "held so that it counts as in use")] Held);

#[derive(Debug, thiserror::Error)]
pub(in crate::host) enum Failure {
    #[error("the address is not that of a Redis server, such as redis://host:6379")]
    InvalidAddress,
    #[error("what is there is of another type")]
    TypeError,
    #[error("{0}")]
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

pub(in crate::host) async fn open(component: &Arc<Component>, address: &str) -> Result<Connection, Failure> {
    let info = address.into_connection_info().map_err(|_| Failure::InvalidAddress)?;
    let ConnectionAddr::Tcp(host, port) = info.addr() else { return Err(Failure::InvalidAddress) };
    let target = Target { scheme: "redis", host: host.trim_matches(['[', ']']), port: *port };
    let note = |text: &str| component.log.note(&format!("bireme: {text}"));
    target.permit(component).map_err(|error| {
        note(&error.to_string());
        // As Spin says it of what is not permitted.
        Failure::InvalidAddress
    })?;
    let (open, held) = connection(component, address, false).await.map_err(|text| {
        note(&text);
        Failure::Other(text)
    })?;
    Ok(Connection(open, held))
}

/// One argument of `execute`.
pub(in crate::host) enum Argument {
    Number(i64),
    Bytes(Vec<u8>),
}

/// One value of its answer; nested answers are flattened, as Spin does.
pub(in crate::host) enum Answer {
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
    pub(in crate::host) async fn publish(mut self, channel: String, payload: Vec<u8>) -> Result<(), Failure> {
        let _: i64 = self.0.publish(channel, payload).await?;
        Ok(())
    }

    pub(in crate::host) async fn get(mut self, key: String) -> Result<Option<Vec<u8>>, Failure> {
        Ok(self.0.get(key).await?)
    }

    pub(in crate::host) async fn set(mut self, key: String, value: Vec<u8>) -> Result<(), Failure> {
        Ok(self.0.set(key, value).await?)
    }

    pub(in crate::host) async fn incr(mut self, key: String) -> Result<i64, Failure> {
        Ok(self.0.incr(key, 1).await?)
    }

    pub(in crate::host) async fn del(mut self, keys: Vec<String>) -> Result<u32, Failure> {
        if keys.is_empty() { Ok(0) } else { Ok(self.0.del(keys).await?) }
    }

    pub(in crate::host) async fn sadd(mut self, key: String, values: Vec<String>) -> Result<u32, Failure> {
        if values.is_empty() { Ok(0) } else { Ok(self.0.sadd(key, values).await?) }
    }

    pub(in crate::host) async fn smembers(mut self, key: String) -> Result<Vec<String>, Failure> {
        Ok(self.0.smembers(key).await?)
    }

    pub(in crate::host) async fn srem(mut self, key: String, values: Vec<String>) -> Result<u32, Failure> {
        if values.is_empty() { Ok(0) } else { Ok(self.0.srem(key, values).await?) }
    }

    pub(in crate::host) async fn execute(
        mut self,
        command: String,
        arguments: Vec<Argument>,
    ) -> Result<Vec<Answer>, Failure> {
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
}
