//! `key-value`.

use wasmtime::Linker;
use wasmtime::component::Resource;

use super::abi::{Call, Slice};
use super::import;
use crate::account::Payer;
use crate::guest::Guest;
use crate::host::store::{OpenError, Store};

/// Variants of its error.
const TABLE_FULL: u8 = 0;
const ACCESS_DENIED: u8 = 2;
const INVALID_STORE: u8 = 3;
const NO_SUCH_KEY: u8 = 4;
const IO: u8 = 5;

pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    import!(linker, "key-value", "open", (name, length, out), call => open(call, (name, length), out));
    import!(linker, "key-value", "get", (store, key, length, out), call => get(call, store, (key, length), out));
    import!(linker, "key-value", "set", (store, key, length, value, size, out), call =>
        set(call, store, (key, length), (value, size), out));
    import!(linker, "key-value", "delete", (store, key, length, out), call => delete(call, store, (key, length), out));
    import!(linker, "key-value", "exists", (store, key, length, out), call => exists(call, store, (key, length), out));
    import!(linker, "key-value", "get-keys", (store, out), call => keys(call, store, out));
    import!(linker, "key-value", "close", (store), call => close(call, store));
    Ok(())
}

/// The store behind a handle.
fn find(call: &mut Call<'_>, store: i32) -> Option<Store> {
    let handle = Resource::<Store>::new_borrow(store.cast_unsigned());
    call.caller.data().table.get(&handle).ok().cloned()
}

async fn fail(call: &mut Call<'_>, out: i32, why: &str) -> wasmtime::Result<()> {
    call.answer_variant(out, IO, why).await
}

async fn invalid(call: &mut Call<'_>, out: i32) -> wasmtime::Result<()> {
    call.answer_variant(out, INVALID_STORE, "").await
}

async fn open(mut call: Call<'_>, name: Slice, out: i32) -> wasmtime::Result<()> {
    let name = call.text(name)?;
    let component = std::sync::Arc::clone(&call.caller.data().component);
    match Store::open(&component, &name).await {
        Ok(store) => match call.caller.data_mut().table.push(store) {
            Ok(handle) => {
                call.put(out, 0, &[0])?;
                call.put(out, 4, &handle.rep().to_le_bytes())
            }
            Err(_) => call.answer_variant(out, TABLE_FULL, "").await,
        },
        Err(OpenError::AccessDenied) => call.answer_variant(out, ACCESS_DENIED, "").await,
        Err(OpenError::Other(why)) => fail(&mut call, out, &why).await,
    }
}

async fn get(mut call: Call<'_>, store: i32, key: Slice, out: i32) -> wasmtime::Result<()> {
    let key = call.text(key)?;
    let Some(store) = find(&mut call, store) else { return invalid(&mut call, out).await };
    let payer = Payer::new(&call.caller.data().account);
    match store.get(key, payer).await {
        Ok(Some(value)) => call.answer_text(out, &value).await,
        Ok(None) => call.answer_variant(out, NO_SUCH_KEY, "").await,
        Err(why) => fail(&mut call, out, &why).await,
    }
}

async fn set(mut call: Call<'_>, store: i32, key: Slice, value: Slice, out: i32) -> wasmtime::Result<()> {
    let (key, value) = (call.text(key)?, call.bytes(value)?);
    let Some(store) = find(&mut call, store) else { return invalid(&mut call, out).await };
    match store.set(key, value).await {
        Ok(()) => call.put(out, 0, &[0]),
        Err(why) => fail(&mut call, out, &why).await,
    }
}

async fn delete(mut call: Call<'_>, store: i32, key: Slice, out: i32) -> wasmtime::Result<()> {
    let key = call.text(key)?;
    let Some(store) = find(&mut call, store) else { return invalid(&mut call, out).await };
    match store.delete(key).await {
        Ok(()) => call.put(out, 0, &[0]),
        Err(why) => fail(&mut call, out, &why).await,
    }
}

async fn exists(mut call: Call<'_>, store: i32, key: Slice, out: i32) -> wasmtime::Result<()> {
    let key = call.text(key)?;
    let Some(store) = find(&mut call, store) else { return invalid(&mut call, out).await };
    match store.exists(key).await {
        Ok(there) => {
            call.put(out, 0, &[0])?;
            call.put(out, 4, &[u8::from(there)])
        }
        Err(why) => fail(&mut call, out, &why).await,
    }
}

async fn keys(mut call: Call<'_>, store: i32, out: i32) -> wasmtime::Result<()> {
    let Some(store) = find(&mut call, store) else { return invalid(&mut call, out).await };
    let payer = Payer::new(&call.caller.data().account);
    match store.keys(payer).await {
        Ok(keys) => call.answer_texts(out, &keys).await,
        Err(why) => fail(&mut call, out, &why).await,
    }
}

async fn close(mut call: Call<'_>, store: i32) -> wasmtime::Result<()> {
    // One that is closed twice is no fault.
    let _ = call.caller.data_mut().table.delete(Resource::<Store>::new_own(store.cast_unsigned()));
    Ok(())
}
