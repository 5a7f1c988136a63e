//! The state of one instance: what the host functions it calls work on.

mod cgi;
mod open;

use std::sync::Arc;

use bireme_core::log_line::Stream;
use wasmtime::component::Resource;
use wasmtime::error::Context as _;
use wasmtime::{ResourceLimiter, Store, StoreContextMut, UpdateDeadline, WasmBacktrace};
use wasmtime_wasi::cli::AsyncStdinStream;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{FsPerms, ResourceTable, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::account::{Account, Bounds};
use crate::component::{Component, Folder, Input};
use crate::frames::stack;
use crate::host::http::Outgoing;
use crate::host::permit::permit;
use crate::stock::Place;

pub(crate) use cgi::Cgi;
pub(crate) use open::Open;

/// Most random bytes of one call.
const MAX_RANDOM: u64 = 1 << 20;
/// Most handles in the tables of the component model itself, where each call and borrow takes one for a while: this many
/// times what the host's own table may hold.
const HANDLES_OF_CALLS: usize = 4;

pub(crate) struct Guest {
    pub table: ResourceTable,
    pub wasi: WasiCtx,
    /// Only for core modules.
    pub p1: Option<WasiP1Ctx>,
    /// It is asked for memory in this moment: a core module of Spin.
    pub gives_memory: bool,
    http: WasiHttpCtx,
    outgoing: Outgoing,
    limits: Limits,
    pub component: Arc<Component>,
    pub account: Arc<Account>,
    /// What it has open, and what of its host's that takes.
    pub open: Open,
    /// Of the folders that were opened for it.
    folders: Vec<Place>,
}

/// The limits on memory and tables, and what of the account is linear memory.
struct Limits {
    account: Arc<Account>,
    memory: u64,
}

impl ResourceLimiter for Limits {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current) as u64;
        if !self.account.take(more) {
            return Ok(false);
        }
        self.memory += more;
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= 100_000)
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        self.account.give(self.memory);
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
    /// What stands behind a handle of the host's table, shared with it.
    ///
    /// # Errors
    /// A sentence where nothing does.
    pub(crate) fn held<T: Clone + 'static>(&self, handle: &Resource<T>) -> Result<T, String> {
        self.table.get(handle).cloned().map_err(|error| error.to_string())
    }

    /// A store with the state of a fresh instance that `account` pays for. `depth` counts the components of this host
    /// that the request at hand has been in already.
    ///
    /// # Errors
    /// When a folder of the workload cannot be opened any more.
    pub(crate) fn store(account: &Arc<Account>, depth: u32) -> wasmtime::Result<Store<Self>> {
        Self::store_of(account, depth, false)
    }

    /// A core module (`module`) has a state of its own, with its own folders.
    fn store_of(account: &Arc<Account>, depth: u32, module: bool) -> wasmtime::Result<Store<Self>> {
        let component = &account.component;
        let bounds = Bounds::of(component.memory_limit);
        let mut table = ResourceTable::new();
        table.set_max_capacity(bounds.handles);
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(bounds.fields);
        let folders = if module { &[] } else { component.folders.as_slice() };
        let (mut builder, folders) = wasi(account, folders, None)?;
        if !module {
            give_input(&mut builder, component);
        }
        let guest = Self {
            table,
            wasi: builder.build(),
            p1: None,
            gives_memory: false,
            http,
            outgoing: Outgoing::new(account, depth),
            limits: Limits { account: Arc::clone(account), memory: 0 },
            component: Arc::clone(component),
            account: Arc::clone(account),
            open: Open::default(),
            folders,
        };
        Ok(Self::limited(guest, bounds))
    }

    /// The same for a core module that speaks WASI preview 1, which may be given a request as CGI programs are.
    pub(crate) fn store_p1(account: &Arc<Account>, depth: u32, cgi: Option<Cgi>) -> wasmtime::Result<Store<Self>> {
        let mut store = Self::store_of(account, depth, true)?;
        let component = &account.component;
        let (mut builder, folders) = wasi(account, &component.folders, cgi.as_ref())?;
        match cgi {
            Some(cgi) => drop(builder.stdin(cgi.input())),
            None => give_input(&mut builder, component),
        }
        let mut p1 = builder.build_p1();
        p1.ctx().table.set_max_capacity(Bounds::of(component.memory_limit).handles);
        let guest = store.data_mut();
        guest.p1 = Some(p1);
        guest.folders = folders;
        Ok(store)
    }

    /// How many components of this host its request has been in before.
    pub(crate) fn depth(&self) -> u32 {
        self.outgoing.depth()
    }

    fn limited(guest: Self, bounds: Bounds) -> Store<Self> {
        let engine = guest.component.engine.clone();
        let mut store = Store::new(&engine, guest);
        store.limiter(|guest| &mut guest.limits);
        store.set_hostcall_fuel(bounds.call);
        store.set_max_component_handles(bounds.handles * HANDLES_OF_CALLS);
        if let Some(table) = store.concurrent_resource_table() {
            table.set_max_capacity(bounds.handles * HANDLES_OF_CALLS);
        }
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(interrupted);
        store
    }
}

/// What is done where the clock interrupts an instance: others have their turn.
fn interrupted(store: StoreContextMut<'_, Guest>) -> wasmtime::Result<UpdateDeadline> {
    let diagnosis = &store.data().component.diagnosis;
    if diagnosis.is_profiled() {
        diagnosis.sample(stack(WasmBacktrace::force_capture(&store).frames()));
    }
    Ok(UpdateDeadline::Yield(1))
}

fn give_input(builder: &mut WasiCtxBuilder, component: &Component) {
    if let Some(input) = component.input.as_ref().and_then(Input::take) {
        builder.stdin(AsyncStdinStream::new(input));
    }
}

/// What an instance is given, with `folders` opened for it, and the places that those take.
fn wasi(
    account: &Arc<Account>,
    folders: &[Folder],
    cgi: Option<&Cgi>,
) -> wasmtime::Result<(WasiCtxBuilder, Vec<Place>)> {
    let component = &account.component;
    let mut places = Vec::with_capacity(folders.len());
    // A command is the one instance of its workload.
    let alone = component.trigger.is_alone();
    let mut builder = WasiCtxBuilder::new();
    builder.envs(&component.env);
    match cgi {
        Some(cgi) => builder.envs(cgi.env()).args(cgi.args()).stdout(cgi.output()),
        None => builder.args(&component.spec.args).stdout(component.log.stream(Stream::Stdout, alone)),
    };
    builder
        .stderr(component.log.stream(Stream::Stderr, alone))
        .max_random_size(MAX_RANDOM)
        .allow_blocking_current_thread(false);
    if component.spec.cwd != "/" && !component.spec.cwd.is_empty() {
        builder.initial_cwd(&component.spec.cwd);
    }
    for folder in folders {
        let place = account.descriptor();
        places.push(place.context("its folders cannot be opened: the component has as many files open as it may")?);
        let perms = if folder.read_only { FsPerms::ReadOnly } else { FsPerms::ReadWrite };
        builder.preopened_dir(&folder.path, &folder.target, perms)?;
    }
    permit(&mut builder, component, ());
    Ok((builder, places))
}
