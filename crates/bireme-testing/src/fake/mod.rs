//! A machine in memory: an executor and networks that do what the real ones answer for, without root and in no time.
//!
//! ```text
//!  engine ──> FakeExecutor ──┐
//!         ──> FakeNet ───────┼──> Machine: processes, network namespaces, addresses, forwards
//!  test ─────────────────────┘    outlives the engine; any call can be made to fail, or to be the engine's last
//! ```
//!
//! What a caller must never do (run a workload twice, give an address to two) is noted as a breach.

mod executor;
mod machine;
mod net;

pub use executor::FakeExecutor;
pub use machine::{Fault, Machine, World};
pub use net::FakeNet;
