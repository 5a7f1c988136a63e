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
mod stock;
mod trigger;
mod watch;

pub use confine::hold_user_namespace;
pub use control::serve;

/// Bytes that a process may complain of in its life: its file lies in memory, and a full disk is cause for endless complaint.
const MOST_COMPLAINTS: usize = 1 << 20;

/// Writes one line to standard error: the only voice of this process before and beside its control socket. Nobody may
/// listen, as while no daemon runs.
pub fn complain(text: &str) {
    use std::io::Write as _;
    static SAID: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let before = SAID.fetch_add(text.len() + 1, std::sync::atomic::Ordering::Relaxed);
    if before < MOST_COMPLAINTS {
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}
