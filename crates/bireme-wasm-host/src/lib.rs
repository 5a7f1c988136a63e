//! One process that runs the components of one sandbox: an app, or a lone component.
//!
//! ```text
//!  spare: engine, unless there is swap -> configuration comes, and then as
//!  serve: confine (cgroup, network, mounts, uid, seccomp) -> "ready" -> control socket until the last is deleted
//!
//!  control ──> Workload (one component's life: what is let in, and what is under way)
//!                 ^            ^             ^
//!        trigger/http   trigger/redis   trigger/command      each makes fresh instances: Invocation
//!                 │
//!                 v
//!  Program (compiled, linked) -> Guest (state of one instance) + host/* (what it may call)
//!                                  -> Component (what its instances see: spec, limits, log, metrics)
//! ```
//!
//! Each uses what stands below it, and nothing above. Where a component asks another of this process, it does so through
//! `neighbours`, which the HTTP trigger answers.
//!
//! Requests never wait for a lock that another request holds for long, a file or a compilation: what they need was
//! prepared when the workload was loaded.

mod account;
mod body;
mod budget;
mod clients;
pub mod compile;
mod component;
mod confine;
mod control;
mod diagnosis;
mod embedded;
mod engine;
mod fence;
mod frames;
mod guarded;
mod guest;
mod host;
mod linker;
mod log;
mod metrics;
mod names;
mod neighbours;
mod program;
mod stock;
mod trigger;
mod turns;
mod watch;
mod workload;

pub use confine::hold_user_namespace;
pub use control::{serve, serve_when_told};

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
