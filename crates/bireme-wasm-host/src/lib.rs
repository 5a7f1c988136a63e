//! One process that runs the components of one sandbox: an app, or a lone component.
//!
//! ```text
//!  serve: confine (cgroup, network, mounts, uid, seccomp) -> "ready" -> control socket until the last is deleted
//!
//!  control ──> Component (one workload: limits, log, metrics)
//!                 ^            ^             ^
//!        trigger/http   trigger/redis   trigger/command      each makes fresh instances: Invocation
//!                                                            │
//!                                                  Guest (state of one instance) + host/* (what it may call)
//! ```
//!
//! Requests never wait for a lock that another request holds for long, a file or a compilation: what they need was
//! prepared when the workload was loaded.

mod account;
mod budget;
pub mod compile;
mod component;
mod confine;
mod control;
mod engine;
mod fence;
mod guest;
mod host;
mod linker;
mod log;
mod metrics;
mod names;
mod trigger;

pub use confine::hold_user_namespace;
pub use control::serve;

/// Writes one line to standard error: the only voice of this process before and beside its control socket.
#[expect(clippy::print_stderr, reason = "standard error of a host process is its host.log")]
pub fn complain(text: &str) {
    eprintln!("{text}");
}
