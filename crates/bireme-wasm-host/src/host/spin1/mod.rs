//! What core modules import that were built for Spin before it ran components (versions 0.1 to 1.4).
//!
//! ```text
//! abi      how their strings, lists and results lie in memory
//! http     wasi-outbound-http
//! kv       key-value
//! redis    outbound-redis
//! config   spin-config
//! ```
//!
//! Source: the interfaces in Spin's folder `wit/deps/spin@unversioned`, and the canonical ABI of wit-bindgen 0.2.

pub(crate) mod abi;
mod config;
mod http;
mod kv;
mod redis;

use bireme_wasm::protocol::Trigger;
use wasmtime::{ExternType, Linker, Module, ValType};

pub(crate) use self::http::{METHODS, PAIR, is_of_connection};
use crate::guest::Guest;

/// Defines an import: its arguments come as the numbers they are lowered to, the last of which is mostly the place for its
/// result.
macro_rules! import {
    ($linker:ident, $module:literal, $name:literal, ($($arg:ident),*), $call:ident => $body:expr) => {
        $linker.func_wrap_async(
            $module,
            $name,
            |caller: wasmtime::Caller<'_, crate::guest::Guest>, ($($arg,)*): ($(import!(@number $arg),)*)| {
                Box::new(async move {
                    let $call = crate::host::spin1::abi::Call::new(caller)?;
                    $body.await
                })
            },
        )?;
    };
    (@number $arg:ident) => { i32 };
}
use import;

/// Links all of them.
pub(crate) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    config::add_to_linker(linker)?;
    http::add_to_linker(linker)?;
    kv::add_to_linker(linker)?;
    redis::add_to_linker(linker)
}

/// What a module lacks of what its handler is called with, as the interface has it; `None` where it is all there, or nothing
/// of it is needed.
pub(crate) fn lacks(module: &Module, trigger: Trigger) -> Option<&'static str> {
    let (handler, arguments) = match trigger {
        Trigger::HttpSpin1 => ("handle-http-request", 10),
        Trigger::RedisSpin1 => ("handle-redis-message", 2),
        _ => return None,
    };
    let is_number = |ty: &ValType| matches!(ty, ValType::I32);
    let has = |name, arguments| match module.get_export(name) {
        Some(ExternType::Func(ty)) => {
            ty.params().len() == arguments
                && ty.results().len() == 1
                && ty.params().chain(ty.results()).all(|ty| is_number(&ty))
        }
        _ => false,
    };
    if !matches!(module.get_export("memory"), Some(ExternType::Memory(_))) {
        return Some("memory");
    }
    if !has(abi::REALLOC, 4) {
        return Some(abi::REALLOC);
    }
    (!has(handler, arguments)).then_some(handler)
}
