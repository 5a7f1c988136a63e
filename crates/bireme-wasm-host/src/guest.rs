//! The state of one instance: what the host functions it calls work on.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bireme_core::log_line::Stream;
use bireme_wasm::protocol::Trigger;
use wasmtime::{ResourceLimiter, Store};
use wasmtime_wasi::cli::AsyncStdinStream;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{FsPerms, ResourceTable, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::component::{Component, Input};
use crate::host::http::Outgoing;

/// Most handles (streams, requests, files, …) that one instance holds at once.
const MAX_HANDLES: usize = 100_000;
/// Most random bytes of one call.
const MAX_RANDOM: u64 = 16 << 20;
/// Most bytes that one call may make the host copy; wasmtime's advisory on unbounded copies.
const HOSTCALL_FUEL: usize = 128 << 20;

pub(crate) struct Guest {
    pub table: ResourceTable,
    pub wasi: WasiCtx,
    /// Only for core modules.
    pub p1: Option<WasiP1Ctx>,
    http: WasiHttpCtx,
    outgoing: Outgoing,
    limits: Limits,
    pub component: Arc<Component>,
}

/// The limits on memory and tables, and the account of what is used.
struct Limits {
    component: Arc<Component>,
    memory: u64,
}

impl ResourceLimiter for Limits {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current) as u64;
        if self.memory + more > self.component.memory_limit {
            return Ok(false);
        }
        if !self.component.budget.take(more) {
            self.component.log.note(&format!(
                "bireme: an instance was refused {} KiB of memory: all instances of this app together would have more \
                 than {} MiB, three quarters of the machine's; lower bireme.instances or the memory limit",
                more >> 10,
                self.component.budget.limit() >> 20
            ));
            return Ok(false);
        }
        self.memory += more;
        let metrics = &self.component.metrics;
        metrics.memory.fetch_add(more, Relaxed);
        if self.memory > metrics.memory_peak.load(Relaxed) {
            metrics.memory_peak.fetch_max(self.memory, Relaxed);
        }
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= 100_000)
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        self.component.budget.give(self.memory);
        self.component.metrics.memory.fetch_sub(self.memory, Relaxed);
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.outgoing, table: &mut self.table, ctx: &mut self.http }
    }
}

impl Guest {
    /// A store with the state of a fresh instance of `component`. `depth` counts the components of
    /// this host that the request at hand has been in already.
    ///
    /// # Errors
    /// When a folder of the workload cannot be opened any more.
    pub(crate) fn store(component: &Arc<Component>, depth: u32) -> wasmtime::Result<Store<Self>> {
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_HANDLES);
        let mut builder = wasi(component)?;
        if component.trigger != Trigger::CommandP1 {
            give_input(&mut builder, component);
        }
        let guest = Self {
            table,
            wasi: builder.build(),
            p1: None,
            http: WasiHttpCtx::new(),
            outgoing: Outgoing::new(component, depth),
            limits: Limits { component: Arc::clone(component), memory: 0 },
            component: Arc::clone(component),
        };
        Ok(Self::limited(guest))
    }

    /// The same for a core module that speaks WASI preview 1.
    pub(crate) fn store_p1(component: &Arc<Component>) -> wasmtime::Result<Store<Self>> {
        let mut store = Self::store(component, 0)?;
        let mut builder = wasi(component)?;
        give_input(&mut builder, component);
        store.data_mut().p1 = Some(builder.build_p1());
        Ok(store)
    }

    fn limited(guest: Self) -> Store<Self> {
        let engine = guest.component.engine.clone();
        let mut store = Store::new(&engine, guest);
        store.limiter(|guest| &mut guest.limits);
        store.set_hostcall_fuel(HOSTCALL_FUEL);
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        store
    }
}

fn give_input(builder: &mut WasiCtxBuilder, component: &Component) {
    if let Some(input) = component.input.as_ref().and_then(Input::take) {
        builder.stdin(AsyncStdinStream::new(input));
    }
}

fn wasi(component: &Arc<Component>) -> wasmtime::Result<WasiCtxBuilder> {
    let mut builder = WasiCtxBuilder::new();
    builder
        .envs(&component.env)
        .args(&component.spec.args)
        .stdout(component.log.stream(Stream::Stdout))
        .stderr(component.log.stream(Stream::Stderr))
        .max_random_size(MAX_RANDOM)
        .allow_blocking_current_thread(false);
    if component.spec.cwd != "/" && !component.spec.cwd.is_empty() {
        builder.initial_cwd(&component.spec.cwd);
    }
    for folder in &component.folders {
        let perms = if folder.read_only { FsPerms::ReadOnly } else { FsPerms::ReadWrite };
        builder.preopened_dir(&folder.path, &folder.target, perms)?;
    }
    crate::host::sockets::permit(&mut builder, component);
    Ok(builder)
}
