//! Runs WebAssembly components: the side of it that lives in the daemon.
//!
//! ```text
//!  biremed                                   one process per sandbox (an app, or a lone component)
//!  ┌──────────────┐  unix socket, JSON   ┌───────────────────────────────────────────────┐
//!  │ WasmExecutor ├─────────────────────>│ bireme-wasm-host serve                        │
//!  │  ComponentWorkload …│  + fds (SCM_RIGHTS)  │  wasmtime, triggers, logs, limits             │
//!  └──────┬───────┘                      └───────────────────────────────────────────────┘
//!         └── bireme-wasm-host compile ──> <data_root>/wasm/cache/<key>.cwasm   (one short process per component)
//! ```
//!
//! Nothing here links the Wasm engine: untrusted code is compiled and run only in processes of `bireme-wasm-host`. What a
//! component imports and exports is read here ([`interface`]), of bounded sections and by names alone. The
//! words the two speak are [`protocol`]; both sides come from one build.
//!
//! Layout below the two roots:
//!
//! ```text
//! <data_root>/wasm/cache/KEY.cwasm    compiled code, handed to hosts; KEY = verified digest + engine compatibility
//! <data_root>/wasm/cache/KEY.json     what the component imports and exports, and a checksum of the code
//! <data_root>/wasm/kv/SANDBOX/        embedded key-value stores, one SQLite file per name
//! <exec_root>/w/SANDBOX/host.sock     control socket of the running host
//! <exec_root>/w/SANDBOX/host.err      pipe for what the host process itself has to say
//! <exec_root>/w/SANDBOX/host.log      the first of that
//! <state_dir>/exit.json               how the workload ended; empty while it has not
//! ```

#![warn(missing_docs)]

pub mod cgroup;
mod compile;
mod complaints;
mod diagnose;
mod executor;
mod host;
mod image_files;
pub mod interface;
mod lacks;
pub mod memory;
mod mounts;
mod names;
mod places;
pub mod protocol;
mod roster;
mod spare;
mod state;
mod stores;
mod user;
mod workload;

pub use compile::{MAX_CODE, MOST_PROCESSOR_TIME, takes_too_much};
pub use executor::{WasmExecutor, WasmOptions, runs};
pub use user::{HOST_UID, RANGE as HOST_UIDS};
