//! The vocabulary of Bireme and the seam between the engine and its executors.
//!
//! Nothing here touches the world but to read the clock: no I/O, no runtime. What stands here is what every other crate means by
//! its words:
//!
//! - [`WorkloadSpec`]: one *workload* (a Linux container or a WebAssembly component) as it shall run;
//! - [`Executor`] and [`Workload`]: the only way anything is run. The engine never learns which kind it talks to; powers
//!   that one kind lacks are optional views (`as_exec`, `as_pause`, …);
//! - [`Labels`]: the `bireme.*` keys, parsed and checked in one place;
//! - [`Route`] and [`Allow`]: which requests a component serves and where a workload may connect to, as pure decisions;
//! - [`ErrorKind`]: the seven ways in which a request can fail, turned into HTTP status, ttrpc and exit codes elsewhere;
//! - [`log_line`]: the one format of log files, written by runners and hosts and read by the engine;
//! - [`glob`], [`ignore`], [`size`], [`duration`], [`detach_keys`]: Docker's small languages, which daemon, engine and command
//!   line have to read alike; [`go`]: words as Go writes them; [`linux_names`]: those of the kernel.

#![warn(missing_docs)]

pub mod allow;
pub mod clock;
pub mod detach_keys;
pub mod duration;
pub mod env;
pub mod error;
pub mod executor;
pub mod glob;
pub mod go;
pub mod id;
pub mod ignore;
pub mod labels;
pub mod linux_names;
pub mod log_line;
pub mod nearest;
pub mod replaced;
pub mod route;
pub mod size;
pub mod spec;

pub use allow::{Allow, AllowList};
pub use error::{ErrorKind, ExecError};
pub use executor::{
    Attach, CoreDump, Diagnose, ExecInto, ExecSpec, ExecStarted, Executor, InvocationStats, Invocations, LayerFolders,
    Limits, Listener, NamedNetwork, Names, NamesChange, NetworkPlace, Pause, Power, Prepared, ProcessTable, Profile,
    Program, Renew, Resolver, Stats, StoreFolder, Workload,
};
pub use id::{SandboxId, WorkloadId};
pub use labels::{LabelError, Labels};
pub use route::{Route, RouteTable};
pub use spec::{Exit, WorkloadKind, WorkloadSpec};

/// A boxed future that may be sent between threads; what the object-safe traits of this crate return.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
