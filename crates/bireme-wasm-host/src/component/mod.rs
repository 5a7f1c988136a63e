//! One loaded workload as its instances see it: what it was given, and what they share.

mod connections;
mod input;
mod looked_up;
mod sessions;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bireme_core::{AllowList, WorkloadSpec};
use bireme_wasm::memory;
use bireme_wasm::protocol::{self, Trigger};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Semaphore;
use tokio_rustls::rustls::ClientConfig;
use tokio_util::sync::CancellationToken;

use crate::budget::Budget;
use crate::diagnosis::Diagnosis;
use crate::embedded::Embedded;
use crate::engine::{DEFAULT_MEMORY, MAX_MEMORY};
use crate::log::LogHandle;
use crate::metrics::Metrics;
use crate::names::View;
use crate::neighbours::Neighbours;
use crate::stock::{Share, Stock};

pub(crate) use connections::{Connections, Entered, Held, IDLE};
pub(crate) use input::Input;
pub(crate) use looked_up::LookedUp;
pub(crate) use sessions::{Kinds, Lent, Session};

/// A folder that is preopened in each instance.
pub(crate) struct Folder {
    pub target: String,
    pub read_only: bool,
    /// The open folder, as a path that stays good without any right to the folder's real path.
    pub path: PathBuf,
    pub open: std::os::fd::OwnedFd,
}

/// How variables of apps of Spin are called among those of the environment. Source: Spin's documentation, "Environment Variable
/// Provider".
const VARIABLE: &str = "SPIN_VARIABLE_";

/// How often a component is told that work is turned away, or that it may open no more.
const BUSY_TOLD: Duration = Duration::from_secs(10);

/// What the components of one process share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub engine: wasmtime::Engine,
    pub embedded: Arc<Embedded>,
    pub neighbours: Arc<dyn Neighbours>,
    pub budget: Arc<Budget>,
    pub descriptors: Arc<Stock>,
    pub threads: Arc<Stock>,
    pub lookups: Arc<Semaphore>,
}

/// Questions of all components of a process to DNS at once.
pub(crate) const MOST_LOOKUPS_OF_ALL: usize = 128;
/// Questions of one component to DNS at once. A silent server holds each for tens of seconds, also when nobody waits for the
/// answer any more, and the threads are those that stores use.
const MOST_LOOKUPS: usize = 32;

/// Statements of one component to SQLite at once.
const MOST_STATEMENTS: usize = 16;

/// One workload as its instances see it.
pub(crate) struct Component {
    pub spec: WorkloadSpec,
    pub trigger: Trigger,
    pub engine: wasmtime::Engine,
    pub log: LogHandle,
    pub metrics: Metrics,
    pub env: Vec<(String, String)>,
    /// Variables of an app of Spin, by their names in lower case: they are asked for by an interface of their own and are no
    /// environment.
    pub variables: BTreeMap<String, String>,
    pub folders: Vec<Folder>,
    /// Its own in the sandbox, which it shares with others: where its connections come from.
    pub addresses: Vec<IpAddr>,
    pub allow: AllowList,
    pub memory_limit: u64,
    pub budget: Arc<Budget>,
    pub embedded: Arc<Embedded>,
    pub redis: Connections,
    pub sessions: Kinds,
    pub looked_up: LookedUp,
    /// Places for questions to DNS, each of which holds a thread until it is answered or given up.
    pub lookups: Arc<Semaphore>,
    /// The same of all components of the process.
    pub lookups_of_all: Arc<Semaphore>,
    /// Places for statements of SQLite, each of which holds a thread.
    pub statements: Arc<Semaphore>,
    /// What its instances and its connections may have open.
    pub descriptors: Arc<Share>,
    /// Threads that its instances may hold by reading too slowly.
    pub threads: Arc<Share>,
    pub tls: Arc<ClientConfig>,
    /// Those that answer HTTP in this very process.
    pub neighbours: Arc<dyn Neighbours>,
    /// Standard input of a command, where it was asked for.
    pub input: Option<Input>,
    /// As it is called now; `spec` has what it was called when it was loaded.
    name: RwLock<Arc<str>>,
    /// When it was last told that work is turned away, and how often it was since.
    busy: Mutex<(Option<Instant>, u64)>,
    /// When it was last told that its instances may open no more.
    told_descriptors: Mutex<Option<Instant>>,
    names: RwLock<Arc<View>>,
    /// What is looked into of its instances.
    pub diagnosis: Diagnosis,
    /// Cuts every invocation at once.
    pub cut: CancellationToken,
}

/// Where a component stands on its networks.
pub(crate) struct NetworkIdentity {
    pub addresses: Vec<IpAddr>,
    pub names: View,
    /// Whom it trusts there.
    pub tls: Arc<ClientConfig>,
}

impl Component {
    pub(crate) fn new(
        spec: WorkloadSpec,
        trigger: Trigger,
        log: LogHandle,
        folders: Vec<Folder>,
        standing: NetworkIdentity,
        shared: Shared,
    ) -> Self {
        let pairs = spec.env.iter().map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let (variables, env): (Vec<_>, Vec<_>) = pairs.partition(|(name, _)| name.starts_with(VARIABLE));
        let lower = |name: &str| name.strip_prefix(VARIABLE).unwrap_or(name).to_ascii_lowercase();
        Self {
            env: env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            variables: variables.into_iter().map(|(name, value)| (lower(name), value.to_owned())).collect(),
            trigger,
            engine: shared.engine,
            log,
            metrics: Metrics::default(),
            folders,
            addresses: standing.addresses,
            embedded: shared.embedded,
            neighbours: shared.neighbours,
            budget: shared.budget,
            redis: Connections::default(),
            sessions: Kinds::default(),
            looked_up: LookedUp::default(),
            lookups: Arc::new(Semaphore::new(MOST_LOOKUPS)),
            lookups_of_all: shared.lookups,
            statements: Arc::new(Semaphore::new(MOST_STATEMENTS)),
            descriptors: Share::new(&shared.descriptors),
            threads: Share::new(&shared.threads),
            tls: standing.tls,
            allow: spec.bireme.allow.clone().unwrap_or_default(),
            memory_limit: spec.resources.memory.unwrap_or(DEFAULT_MEMORY).min(MAX_MEMORY),
            input: spec.open_stdin.then(|| Input::new(spec.stdin_once)),
            name: RwLock::new(spec.name.as_str().into()),
            busy: Mutex::default(),
            told_descriptors: Mutex::default(),
            names: RwLock::new(Arc::new(standing.names)),
            diagnosis: Diagnosis::default(),
            cut: CancellationToken::new(),
            spec,
        }
    }

    pub(crate) fn name(&self) -> Arc<str> {
        Arc::clone(&self.name.read())
    }

    pub(crate) fn set_name(&self, name: &str) {
        *self.name.write() = name.into();
    }

    /// Counts one that was refused. How many were since that was last told, where it is time to tell it again.
    fn busy_now(&self) -> Option<u64> {
        let mut busy = self.busy.lock();
        if busy.0.is_some_and(|told| told.elapsed() < BUSY_TOLD) {
            busy.1 += 1;
            return None;
        }
        Some(std::mem::replace(&mut *busy, (Some(Instant::now()), 0)).1)
    }

    /// Tells in the log that `what` found no free instance: once in a while, with how often it came to that in between.
    pub(crate) fn note_busy(&self, what: &str) {
        let Some(more) = self.busy_now() else { return };
        let more = match more {
            0 => String::new(),
            more => format!(" ({more} more since this was last told)"),
        };
        let (instances, queue) = (self.spec.bireme.instances, self.spec.bireme.queue);
        self.log.note(&format!(
            "bireme: {what} was answered with 503: no instance came free (bireme.instances={instances}, \
             bireme.queue={queue}); raise them, or make answers faster{more}"
        ));
    }

    /// The same where there was no room in the process: components of one app have its 2,000 memories together.
    pub(crate) fn note_full(&self, what: &str) {
        if self.busy_now().is_some() {
            self.log.note(&format!(
                "bireme: {what} was answered with 503: the instances of all components of this app have the memories that its process can have; lower bireme.instances where requests are slow"
            ));
        }
    }

    /// Tells in the log, once in a while, that an instance was refused a descriptor.
    pub(crate) fn note_descriptors(&self) {
        let mut told = self.told_descriptors.lock();
        if told.is_some_and(|told| told.elapsed() < BUSY_TOLD) {
            return;
        }
        *told = Some(Instant::now());
        drop(told);
        let share = self.descriptors.limit();
        self.log.note(&format!(
            "bireme: an instance may open no more files, sockets or connections: this component may have {share} \
             descriptors of its host process, and one instance half of them; close what is not needed, or raise the limit \
             of open files that biremed is started with (ulimit -n, LimitNOFILE)"
        ));
    }

    pub(crate) fn names(&self) -> Arc<View> {
        Arc::clone(&self.names.read())
    }

    pub(crate) fn set_names(&self, names: View) {
        *self.names.write() = Arc::new(names);
    }

    /// Bytes that all its instances may have together, with what the engine keeps for the next.
    pub(crate) fn memory_most(&self) -> u64 {
        let instances = if self.trigger.is_alone() { 1 } else { u64::from(self.spec.bireme.instances) };
        memory::of_workload(self.memory_limit, instances)
    }

    /// What it used so far. `overhead` is what of the process's memory no instance accounts for and falls to it.
    pub(crate) fn usage(&self, overhead: u64) -> protocol::Usage {
        protocol::Usage {
            cpu: self.metrics.cpu.load(Relaxed),
            memory: self.metrics.memory.load(Relaxed) + overhead,
            memory_peak: self.metrics.memory_peak.load(Relaxed),
            memory_limit: memory::soft(self.memory_most(), memory::of_machine()),
            instances: self.metrics.alive.load(Relaxed),
        }
    }
}
