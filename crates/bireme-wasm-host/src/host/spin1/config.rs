//! `spin-config`.

use wasmtime::Linker;

use super::abi::{Call, Slice};
use super::import;
use crate::guest::Guest;
use crate::host::variables::Missing;

/// Variants of its error.
const INVALID_KEY: u8 = 1;
const OTHER: u8 = 3;

pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    import!(linker, "spin-config", "get-config", (key, length, out), call => get(call, (key, length), out));
    Ok(())
}

async fn get(mut call: Call<'_>, key: Slice, out: i32) -> wasmtime::Result<()> {
    let key = call.text(key)?;
    match call.caller.data().variable(&key) {
        Ok(value) => call.answer_text(out, value.as_bytes()).await,
        Err(Missing::InvalidName(why)) => call.answer_variant(out, INVALID_KEY, &why).await,
        Err(Missing::Undefined(why)) => call.answer_variant(out, OTHER, &why).await,
    }
}
