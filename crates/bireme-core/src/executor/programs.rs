//! What an executor does with programs before any workload of them exists.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::Program;
use crate::{BoxFuture, ExecError};

/// Reads and prepares programs: only components, whose code is compiled and says what it needs.
pub trait Programs: Send + Sync {
    /// Does ahead what [`Executor::check`](super::Executor::check) of the first workload of `program` would take long for.
    /// Calls `begins` when that is more than a look at what is stored, also where another call does it at the moment.
    /// Idempotent.
    ///
    /// # Errors
    /// `Invalid` or `Unsupported` with a sentence when no workload can be made of it; `Unavailable` when it may be tried
    /// again.
    ///
    /// # Cancel safety
    /// Dropping the future ends the work; nothing half-made stays.
    fn prepare<'a>(
        &'a self,
        program: &'a Program,
        begins: &'a (dyn Fn() + Send + Sync),
    ) -> BoxFuture<'a, Result<(), ExecError>>;

    /// Forgets what was prepared of programs whose digests (`sha256:…`) are not among `kept`, unless that was within the last
    /// hour: an image that is on its way may want it. Idempotent; what is forgotten is prepared again where it is asked for.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the rest for the next call.
    fn retain<'a>(&'a self, kept: &'a HashSet<String>) -> BoxFuture<'a, ()>;

    /// What `program` exports and imports, by its own words: nothing is compiled and nothing is run.
    ///
    /// # Errors
    /// `Invalid` with a sentence when it cannot be read.
    ///
    /// # Cancel safety
    /// Dropping the future ends the reading.
    fn interface<'a>(&'a self, program: &'a Program) -> BoxFuture<'a, Result<Interface, ExecError>>;
}

/// What a program offers and what it asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// What starts its instances: `http`, `redis` or `command`; `None` where nothing would.
    pub trigger: Option<String>,
    /// Full names, such as `wasi:http/types@0.2.6`; of a core module `module.name`. In the order of the file.
    pub imports: Vec<String>,
    /// As `imports`.
    pub exports: Vec<String>,
    /// Why no workload can be made of it here; `None` where its names are no reason. Its types are looked at when it is
    /// compiled.
    pub refused: Option<String>,
}
