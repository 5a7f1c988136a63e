//! The seam between the engine and whatever runs workloads.
//!
//! ```text
//!            engine                                executor                       outside the daemon
//!   create ──────────────> Executor::check        validates, compiles             (nothing runs yet)
//!   start  ──────────────> Executor::create       makes runner or host ready ───> process stands, waits
//!            attach pending clients ───────────── Workload::as_attach
//!          ──────────────> Workload::start        ─────────────────────────────── runs
//!   (biremed killed)                                                              goes on running
//!   restart of biremed ──> Executor::reattach     finds it, or how it ended
//!   stop   ──────────────> Workload::signal, wait
//!   end    ──────────────> Workload::delete       releases everything made by create
//! ```
//!
//! A workload of either kind runs in a process outside the daemon, writes its own log file ([`crate::log_line`]) and
//! leaves a record of how it ended, so that the daemon may be killed at any moment.

mod power;
mod prepared;
mod programs;
mod stats;
mod workload;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::power::Power;
pub use self::prepared::{
    Known, LayerFolders, Listener, LogTarget, NamedNetwork, Names, NetworkPlace, Prepared, Program,
};
pub use self::programs::{Interface, Programs};
pub use self::stats::{CoreDump, InterfaceStats, InvocationStats, ProcessTable, Profile, Stats};
pub use self::workload::{Attach, Diagnose, ExecInto, ExecSpec, ExecStarted, Invocations, Limits, Pause, Workload};
use crate::{BoxFuture, ErrorKind, ExecError, LabelError, Labels, SandboxId, WorkloadKind, WorkloadSpec};

/// Runs workloads of one kind. Must be able to find them again after the daemon restarts.
pub trait Executor: Send + Sync {
    /// The kind of workload it runs: of one executor always the same.
    fn kind(&self) -> WorkloadKind;

    /// Checks at create all that can be known before start, and does ahead what would otherwise slow it: unknown
    /// imports, bad users, seccomp profiles; compilation into the cache. Idempotent.
    ///
    /// # Errors
    /// `Invalid` or `Unsupported` with a sentence naming what is refused.
    fn check<'a>(&'a self, spec: &'a WorkloadSpec, program: &'a Program) -> BoxFuture<'a, Result<(), ExecError>>;

    /// What workloads of this kind have stored beside their volumes, and outlives them: one folder per sandbox. `known`
    /// are the sandboxes of all workloads there are.
    fn stores<'a>(&'a self, known: &'a [SandboxId]) -> BoxFuture<'a, Vec<StoreFolder>> {
        let _ = known;
        Box::pin(async { Vec::new() })
    }

    /// Removes such a folder. False where a workload has it after all, or it is not there.
    ///
    /// # Errors
    /// When the folder cannot be removed.
    fn remove_store<'a>(&'a self, name: &'a str, known: &'a [SandboxId]) -> BoxFuture<'a, Result<bool, ExecError>> {
        let _ = (name, known);
        Box::pin(async { Ok(false) })
    }

    /// Whether what `program` is can answer on published ports. Called where some are to be.
    ///
    /// # Errors
    /// `Invalid` where nothing would ever answer on them.
    fn check_ports<'a>(&'a self, spec: &'a WorkloadSpec, program: &'a Program) -> BoxFuture<'a, Result<(), ExecError>> {
        let _ = (spec, program);
        Box::pin(async { Ok(()) })
    }

    /// What of `spec` has no effect on this machine, or is likely to do harm; a sentence each, for whoever creates it.
    fn warnings(&self, spec: &WorkloadSpec) -> Vec<String> {
        let _ = spec;
        Vec::new()
    }

    /// The network place `spec` runs in. Pure.
    fn sandbox(&self, spec: &WorkloadSpec) -> SandboxId;

    /// Whether published TCP ports are handed over as listening sockets ([`Prepared::listeners`]). Otherwise the engine
    /// has the network forward them. When true, several workloads of one sandbox may share a host port if their routes
    /// differ.
    fn takes_listeners(&self) -> bool;

    /// Whether a workload may be started while the one whose place it takes still runs, and takes over from it: ports
    /// (`published`) and messages then find one of both at all times. Pure.
    fn takes_over(&self, spec: &WorkloadSpec, published: bool) -> bool {
        let _ = (spec, published);
        false
    }

    /// Whether its workloads offer [`Workload::as_exec`], known before any exists: health checks that run a command are
    /// refused at create where it is false.
    fn offers_exec(&self) -> bool;

    /// Whether a workload needs a command, of its image or of whoever creates it. Otherwise its program alone will do.
    fn needs_command(&self) -> bool;

    /// Whether a mount may be the root of a workload's file tree: where it has none of its own.
    fn mounts_at_root(&self) -> bool;

    /// Whether what [`Self::create`] began goes on to its end when nobody waits for it: whoever gives up waits for the end
    /// elsewhere, and deletes what came of it. Otherwise dropping the future undoes it.
    fn completes_create(&self) -> bool;

    /// The settings of Bireme among the labels of `image` and of `request`, who creates the workload. Pure.
    ///
    /// # Errors
    /// For a label of ours that cannot be read, or that an image may not set.
    fn labels(
        &self,
        image: &BTreeMap<String, String>,
        request: &BTreeMap<String, String>,
    ) -> Result<Labels, LabelError>;

    /// Why the workload called `name` lacks a power, and what to do instead: a refusal of kind `Unsupported`.
    fn lacks(&self, name: &str, power: Power) -> ExecError {
        ExecError::new(ErrorKind::Unsupported, format!("{name} cannot {power}"))
    }

    /// Says that [`Self::create`] is likely to follow in a moment: whatever can be got ready meanwhile is begun. Returns at once;
    /// nothing comes of it that would have to be undone.
    fn prewarm(&self) {}

    /// Makes everything ready so that [`Workload::start`] only has to let go. Nothing is left behind on error.
    fn create(&self, work: Prepared) -> BoxFuture<'_, Result<Box<dyn Workload>, ExecError>>;

    /// Finds a workload that an earlier daemon created, running or ended.
    ///
    /// # Errors
    /// `NotFound` when there is neither a process nor a record of an end: the machine restarted or the runner was
    /// killed together with the daemon.
    fn reattach<'a>(&'a self, known: Known<'a>) -> BoxFuture<'a, Result<Box<dyn Workload>, ExecError>>;

    /// Ends and clears away whatever belongs to this engine and is not in `known` (IDs of workloads that shall run).
    /// `resting` are those remembered that do not run: what a daemon that was killed in the middle of a start left of
    /// one is ended too, wherever it is. Called once when the daemon starts, after every `reattach` and before any
    /// `create`.
    fn sweep<'a>(&'a self, known: &'a [crate::WorkloadId], resting: &'a [&'a WorkloadSpec]) -> BoxFuture<'a, ()>;

    /// Ends whatever runs of a workload that cannot be found again, as nothing but its ID is known. Nothing is told of it.
    ///
    /// # Errors
    /// When it cannot be ended.
    fn end<'a>(&'a self, id: &'a crate::WorkloadId) -> BoxFuture<'a, Result<(), ExecError>>;

    /// Takes away what only served this engine and is empty. Called when the engine ends with nothing running; nothing is
    /// created after it.
    fn close(&self) {}

    /// It reads and prepares programs before there is a workload: only components.
    fn as_programs(&self) -> Option<&dyn Programs> {
        None
    }

    /// Its workloads resolve names by tables that it is told of, and not by the engine's DNS: only components.
    fn as_resolver(&self) -> Option<&dyn Resolver> {
        None
    }

    /// It replaces a run of a workload by another without a gap: only components.
    fn as_renew(&self) -> Option<&dyn Renew> {
        None
    }
}

/// Replaces runs by new ones, as a restart does, with somebody to answer at all times.
pub trait Renew: Send + Sync {
    /// Makes a new run of a workload ready beside the one there is, and has it take over: new work goes to the new run,
    /// the old one ends what it has begun, for as long as its stop timeout lets it. Listening sockets, the record of the
    /// end and the log go on; clients that are attached are told of an end. For [`Workload::wait`] it is one run.
    ///
    /// # Errors
    /// `Unsupported` or `Conflict` where it does not run, or cannot be replaced so; `NotFound` where its process is gone.
    /// What runs goes on as before.
    /// # Cancel safety
    /// What was begun goes on to its end; either run may be the one that is there.
    fn renew(&self, work: Prepared) -> BoxFuture<'_, Result<(), ExecError>>;
}

/// Keeps the names of networks for workloads that resolve names themselves.
pub trait Resolver: Send + Sync {
    /// The names on `network` changed. Called for each change in its order, also before any workload is there. Returns once
    /// every process concerned knows; one that does not answer within a second is told later and holds up nobody.
    fn names_changed<'a>(&'a self, network: &'a str, change: NamesChange) -> BoxFuture<'a, ()>;
}

/// What changed among the names of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamesChange {
    /// These are all names there are.
    All(Names),
    /// These have these addresses now; a name without addresses is gone. The others are as they were.
    Some(Names),
}

/// The key-value stores of one app or lone component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreFolder {
    /// `app-PROJECT`; 32 hexadecimal digits for a lone component or a long name.
    pub name: String,
    /// Bytes on disk.
    pub size: u64,
    /// Nanoseconds since 1970.
    pub changed: i64,
    /// Whether a workload has it, running or not.
    pub in_use: bool,
}
