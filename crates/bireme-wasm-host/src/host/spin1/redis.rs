//! `outbound-redis`: each call names its server.

use std::sync::Arc;

use wasmtime::Linker;

use super::abi::{Call, Slice, lowered, raised};
use super::import;
use crate::guest::Guest;
use crate::host::redis::connection::{Answer, Argument, Connection, Failure, open};

/// Bytes of a parameter or a result of `execute`: which it is, and eight bytes on a number or a slice.
const VALUE: usize = 16;
const PARAMETER_NUMBER: u8 = 0;

pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    import!(linker, "outbound-redis", "publish", (at, length, channel, named, payload, size, out), call =>
        publish(call, (at, length), (channel, named), (payload, size), out));
    import!(linker, "outbound-redis", "get", (at, length, key, named, out), call =>
        get(call, (at, length), (key, named), out));
    import!(linker, "outbound-redis", "set", (at, length, key, named, value, size, out), call =>
        set(call, (at, length), (key, named), (value, size), out));
    import!(linker, "outbound-redis", "incr", (at, length, key, named, out), call =>
        incr(call, (at, length), (key, named), out));
    import!(linker, "outbound-redis", "del", (at, length, keys, count, out), call =>
        del(call, (at, length), (keys, count), out));
    import!(linker, "outbound-redis", "sadd", (at, length, key, named, values, count, out), call =>
        sadd(call, (at, length), (key, named), (values, count), out));
    import!(linker, "outbound-redis", "srem", (at, length, key, named, values, count, out), call =>
        srem(call, (at, length), (key, named), (values, count), out));
    import!(linker, "outbound-redis", "smembers", (at, length, key, named, out), call =>
        smembers(call, (at, length), (key, named), out));
    import!(linker, "outbound-redis", "execute", (at, length, command, named, arguments, count, out), call =>
        execute(call, (at, length), (command, named), (arguments, count), out));
    Ok(())
}

/// Asks the server at `address`, if it may be asked.
async fn asked<T, F>(
    call: &mut Call<'_>,
    address: Slice,
    work: impl FnOnce(Connection) -> F,
) -> wasmtime::Result<Result<T, Failure>>
where
    F: Future<Output = Result<T, Failure>>,
{
    let address = call.text(address)?;
    let component = Arc::clone(&call.caller.data().component);
    Ok(match open(&component, &address).await {
        Ok(connection) => work(connection).await,
        Err(failure) => Err(failure),
    })
}

/// The interface has one error, which says nothing: the log does. It stands where the answer would, `at` bytes on: as far as
/// that is aligned.
fn fail(call: &mut Call<'_>, out: i32, at: usize, failure: &Failure) -> wasmtime::Result<()> {
    const ERROR: u8 = 1;
    call.caller.data().component.log.note(&format!("bireme: outbound-redis: {failure}"));
    call.put(out, 0, &[1])?;
    call.put(out, at, &[ERROR])
}

fn done(call: &mut Call<'_>, out: i32, result: Result<(), Failure>) -> wasmtime::Result<()> {
    match result {
        Ok(()) => call.put(out, 0, &[0]),
        Err(failure) => fail(call, out, 1, &failure),
    }
}

fn counted(call: &mut Call<'_>, out: i32, result: Result<i64, Failure>) -> wasmtime::Result<()> {
    match result {
        Ok(count) => {
            call.put(out, 0, &[0])?;
            call.put(out, 8, &count.to_le_bytes())
        }
        Err(failure) => fail(call, out, 8, &failure),
    }
}

async fn publish(mut call: Call<'_>, address: Slice, channel: Slice, payload: Slice, out: i32) -> wasmtime::Result<()> {
    let (channel, payload) = (call.text(channel)?, call.bytes(payload)?);
    let result = asked(&mut call, address, |redis| redis.publish(channel, payload)).await?;
    done(&mut call, out, result)
}

async fn get(mut call: Call<'_>, address: Slice, key: Slice, out: i32) -> wasmtime::Result<()> {
    let key = call.text(key)?;
    let result = asked(&mut call, address, |redis| redis.get(key)).await?;
    match result {
        // The interface does not tell a key that is not there from an empty one.
        Ok(value) => call.answer_text(out, &value.unwrap_or_default()).await,
        Err(failure) => fail(&mut call, out, 4, &failure),
    }
}

async fn set(mut call: Call<'_>, address: Slice, key: Slice, value: Slice, out: i32) -> wasmtime::Result<()> {
    let (key, value) = (call.text(key)?, call.bytes(value)?);
    let result = asked(&mut call, address, |redis| redis.set(key, value)).await?;
    done(&mut call, out, result)
}

async fn incr(mut call: Call<'_>, address: Slice, key: Slice, out: i32) -> wasmtime::Result<()> {
    let key = call.text(key)?;
    let result = asked(&mut call, address, |redis| redis.incr(key)).await?;
    counted(&mut call, out, result)
}

async fn del(mut call: Call<'_>, address: Slice, keys: Slice, out: i32) -> wasmtime::Result<()> {
    let keys = call.texts(keys)?;
    let result = asked(&mut call, address, |redis| redis.del(keys)).await?.map(i64::from);
    counted(&mut call, out, result)
}

async fn sadd(mut call: Call<'_>, address: Slice, key: Slice, values: Slice, out: i32) -> wasmtime::Result<()> {
    let (key, values) = (call.text(key)?, call.texts(values)?);
    let result = asked(&mut call, address, |redis| redis.sadd(key, values)).await?.map(i64::from);
    counted(&mut call, out, result)
}

async fn srem(mut call: Call<'_>, address: Slice, key: Slice, values: Slice, out: i32) -> wasmtime::Result<()> {
    let (key, values) = (call.text(key)?, call.texts(values)?);
    let result = asked(&mut call, address, |redis| redis.srem(key, values)).await?.map(i64::from);
    counted(&mut call, out, result)
}

async fn smembers(mut call: Call<'_>, address: Slice, key: Slice, out: i32) -> wasmtime::Result<()> {
    let key = call.text(key)?;
    let result = asked(&mut call, address, |redis| redis.smembers(key)).await?;
    match result {
        Ok(members) => call.answer_texts(out, &members).await,
        Err(failure) => fail(&mut call, out, 4, &failure),
    }
}

async fn execute(
    mut call: Call<'_>,
    address: Slice,
    command: Slice,
    arguments: Slice,
    out: i32,
) -> wasmtime::Result<()> {
    let command = call.text(command)?;
    call.pay(arguments.1)?;
    let elements: Vec<[u8; VALUE]> =
        call.abi.elements(&call.caller, arguments, VALUE)?.filter_map(|element| element.try_into().ok()).collect();
    let mut lifted = Vec::with_capacity(elements.len());
    for element in elements {
        lifted.push(match element[0] {
            PARAMETER_NUMBER => Argument::Number(i64::from_le_bytes(element[8..].try_into().unwrap_or_default())),
            _ => Argument::Bytes(call.bytes(raised(&element, 8))?),
        });
    }
    let result = asked(&mut call, address, |redis| redis.execute(command, lifted)).await?;
    match result {
        Ok(answers) => {
            let mut list = Vec::with_capacity(answers.len() * VALUE);
            for answer in &answers {
                let (variant, value) = match answer {
                    Answer::Nil => (0, [0; 8]),
                    Answer::Status(text) => (1, lowered(call.abi.give_text(&mut call.caller, text.as_bytes()).await?)),
                    Answer::Number(number) => (2, number.to_le_bytes()),
                    Answer::Bytes(bytes) => (3, lowered(call.abi.give_text(&mut call.caller, bytes).await?)),
                };
                list.extend([variant, 0, 0, 0, 0, 0, 0, 0]);
                list.extend(value);
            }
            let at = call.abi.give(&mut call.caller, &list, 8).await?;
            call.put(out, 0, &[0])?;
            call.put(out, 4, &lowered((at, answers.len() as i32)))
        }
        Err(failure) => fail(&mut call, out, 4, &failure),
    }
}
