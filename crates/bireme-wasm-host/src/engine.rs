//! The Wasm engines: the same configuration for the process that compiles and for those that run.
//!
//! There are two. Code of components that came before WASI 0.3 has one call under way at a time, and needs none of the tasks
//! that the other engine keeps for each call of a guest and of the host: a fifth of a small request.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use crate::diagnosis;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

/// How often running instances are interrupted to see whether they may go on.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Most bytes of one linear memory where nothing else is asked for, and that can be asked for: what 32-bit code can address.
pub(crate) use bireme_wasm::memory::{DEFAULT_LIMIT as DEFAULT_MEMORY, MAX_LIMIT as MAX_MEMORY};

/// How much is reserved: address space and bookkeeping, not memory.
#[derive(Clone, Copy)]
pub(crate) enum Size {
    /// Nothing will run.
    Compiling,
    /// `swapped` says whether memory of this process may be swapped out.
    Serving { swapped: bool },
}

/// Both engines. What one has compiled the other does not run.
#[derive(Clone)]
pub(crate) struct Engines {
    /// For core modules and for components without asynchronous functions.
    pub(crate) sequential: Engine,
    /// For all others.
    pub(crate) concurrent: Engine,
}

impl Engines {
    pub(crate) fn new(size: Size) -> wasmtime::Result<Self> {
        Ok(Self { sequential: new(size, false)?, concurrent: new(size, true)? })
    }

    /// That of code that is `concurrent` or not: [`Facts::concurrent`](bireme_wasm::protocol::Facts::concurrent).
    pub(crate) fn of(&self, concurrent: bool) -> &Engine {
        if concurrent { &self.concurrent } else { &self.sequential }
    }
}

fn new(size: Size, concurrent: bool) -> wasmtime::Result<Engine> {
    let (instances, swapped) = match size {
        Size::Compiling => (1, false),
        // 2,000 memories of 4 GiB and their guards are 8 TiB of the 128 TiB that a process can address.
        Size::Serving { swapped } => (2000, swapped),
    };
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(instances)
        .total_core_instances(instances * 8)
        .total_memories(instances)
        .total_tables(instances * 4)
        .total_stacks(instances)
        .max_memory_size(MAX_MEMORY as usize)
        .max_memories_per_component(8)
        .max_tables_per_component(32)
        .max_core_instances_per_component(64)
        .max_core_instance_size(2 << 20)
        .max_component_instance_size(2 << 20)
        .max_tables_per_module(8)
        .table_elements(100_000)
        // A slot that is used again keeps these bytes and has them set back by copying, which costs less than giving
        // them to the kernel and faulting them in again. Leaving out either more than halves the rate.
        .linear_memory_keep_resident(2 << 20)
        .table_keep_resident(64 << 10)
        .max_unused_warm_slots(128)
        // The kernel's list of pages that were written to leaves out those in swap, which would be seen by the next instance
        // (wasmtime's pull request 14357, not in 48).
        .pagemap_scan(if swapped { Enabled::No } else { Enabled::Auto });
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .epoch_interruption(true)
        .memory_init_cow(true)
        // Noted where an instance traps, and written where somebody asked for it.
        .coredump_on_trap(true)
        .concurrency_support(concurrent)
        .wasm_component_model_async(concurrent)
        .wasm_component_model_async_stackful(concurrent)
        // Compiled code reads nothing from the stack that it has not written, so what an earlier instance of the app left
        // there is out of reach. To clear it costs a seventh of a small request: a copy, a system call, and the faults
        // that follow.
        .async_stack_zeroing(false);
    Engine::new(&config)
}

/// Tells apart engine versions and settings whose compiled code is not interchangeable, in hexadecimal.
pub(crate) fn compatibility(engines: &Engines) -> String {
    // The seed of this hasher is fixed, unlike that of a hash map's.
    let mut hash = DefaultHasher::new();
    engines.sequential.precompile_compatibility_hash().hash(&mut hash);
    engines.concurrent.precompile_compatibility_hash().hash(&mut hash);
    env!("CARGO_PKG_VERSION").hash(&mut hash);
    format!("{:016x}", hash.finish())
}

/// Advances the engines' clocks for as long as the process lives.
pub(crate) fn tick(engines: &Engines) -> std::io::Result<()> {
    let weak = [engines.sequential.weak(), engines.concurrent.weak()];
    std::thread::Builder::new().name("epoch".to_owned()).spawn(move || {
        while let [Some(sequential), Some(concurrent)] = weak.each_ref().map(|engine| engine.upgrade()) {
            sequential.increment_epoch();
            concurrent.increment_epoch();
            drop((sequential, concurrent));
            std::thread::sleep(diagnosis::tick(TICK));
        }
    })?;
    Ok(())
}
