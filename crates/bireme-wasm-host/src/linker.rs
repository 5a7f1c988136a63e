//! Everything a component may import.

use std::sync::OnceLock;

use bireme_wasm::interface::traps;
use wasmtime::Engine;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, InstancePre, Linker, ResourceType};

use crate::engine::Engines;
use crate::guest::Guest;
use crate::host;

/// What components of each engine may import. Each is made when the first component needs it.
#[derive(Default)]
pub(crate) struct Linkers {
    sequential: OnceLock<Linker<Guest>>,
    concurrent: OnceLock<Linker<Guest>>,
}

impl Linkers {
    pub(crate) fn of(&self, engines: &Engines, concurrent: bool) -> wasmtime::Result<&Linker<Guest>> {
        let linker = if concurrent { &self.concurrent } else { &self.sequential };
        match linker.get() {
            Some(linker) => Ok(linker),
            None => {
                let made = new(engines.of(concurrent), concurrent)?;
                Ok(linker.get_or_init(|| made))
            }
        }
    }
}

/// Links every host interface. Those with asynchronous functions are for the concurrent engine alone.
pub(crate) fn new(engine: &Engine, concurrent: bool) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    host::relative::add_to_linker(&mut linker)?;
    host::add_to_linker(&mut linker)?;
    if concurrent {
        wasmtime_wasi::p3::add_to_linker(&mut linker)?;
        wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
        host::add_concurrent_to_linker(&mut linker)?;
    }
    host::sockets::add_to_linker(&mut linker, concurrent)?;
    host::open::add_to_linker(&mut linker, concurrent)?;
    Ok(linker)
}

/// Links a component. What it imports of interfaces that are not offered and may be imported all the same, traps.
///
/// # Errors
/// When an import has another type than it has here.
pub(crate) fn link(linker: &Linker<Guest>, component: &Component) -> wasmtime::Result<InstancePre<Guest>> {
    let (ty, engine) = (component.component_type(), linker.engine().clone());
    if !ty.imports(&engine).any(|(name, _)| traps(name)) {
        return linker.instantiate_pre(component);
    }
    // Others are not to find there what this one lacks.
    let mut linker = linker.clone();
    for (name, item) in ty.imports(&engine).filter(|(name, _)| traps(name)) {
        let ComponentItem::ComponentInstance(interface) = item.ty else { continue };
        let mut instance = linker.instance(name)?;
        for (function, export) in interface.exports(&engine) {
            let text = format!("{name} is not offered ({function})");
            match export.ty {
                ComponentItem::ComponentFunc(ty) if ty.async_() => {
                    instance.func_new_concurrent(function, move |_, _, _, _| {
                        let text = text.clone();
                        Box::pin(async move { wasmtime::bail!(text) })
                    })?
                }
                ComponentItem::ComponentFunc(_) => {
                    instance.func_new(function, move |_, _, _, _| wasmtime::bail!(text.clone()))?;
                }
                ComponentItem::Resource(_) => {
                    instance.resource(function, ResourceType::host::<()>(), |_, _| Ok(()))?;
                }
                _ => {}
            }
        }
    }
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
