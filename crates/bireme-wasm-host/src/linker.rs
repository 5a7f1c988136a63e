//! Everything a component may import.

use bireme_wasm::interface::traps;
use wasmtime::Engine;
use wasmtime::component::{Component, InstancePre, Linker};

use crate::guest::Guest;
use crate::host;

/// Links every host interface. Once per process.
pub(crate) fn new(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi::p3::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    host::sockets::add_to_linker(&mut linker)?;
    host::open::add_to_linker(&mut linker)?;
    host::add_to_linker(&mut linker)?;
    Ok(linker)
}

/// Links a component. What it imports of interfaces that are not offered and may be imported all the same, traps.
///
/// # Errors
/// When an import has another type than it has here.
pub(crate) fn link(linker: &Linker<Guest>, component: &Component) -> wasmtime::Result<InstancePre<Guest>> {
    let ty = component.component_type();
    if !ty.imports(linker.engine()).any(|(name, _)| traps(name)) {
        return linker.instantiate_pre(component);
    }
    // Others are not to find there what this one lacks.
    let mut linker = linker.clone();
    linker.define_unknown_imports_as_traps(component)?;
    linker.instantiate_pre(component)
}

/// The linker of core modules that speak WASI preview 1.
pub(crate) fn new_p1(engine: &Engine) -> wasmtime::Result<wasmtime::Linker<Guest>> {
    let mut linker = wasmtime::Linker::new(engine);
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, |guest: &mut Guest| {
        guest.p1.as_mut().expect("stores of core modules are made by Guest::store_p1")
    })?;
    // The WASI crate takes codes above 125 for a failure of the guest; for a process they are codes like others.
    linker.allow_shadowing(true);
    linker.func_wrap("wasi_snapshot_preview1", "proc_exit", |code: i32| -> wasmtime::Result<()> {
        Err(wasmtime::Error::from(wasmtime_wasi::I32Exit(code & 0xff)))
    })?;
    host::open::add_to_linker_p1(&mut linker)?;
    host::spin1::add_to_linker(&mut linker)?;
    linker.allow_shadowing(false);
    Ok(linker)
}
