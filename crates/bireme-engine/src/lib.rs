//! The brain: what exists, what may follow what, and what is remembered.
//!
//! ```text
//!  biremed's handlers ──> Engine ──┬─ one actor (task) per workload ─> Executor / Workload (bireme-core)
//!                                  ├─ Networks ─────────────────────> bireme-net
//!                                  ├─ Volumes, images ──────────────> folders, bireme-image
//!                                  └─ StateStore (SQLite) and Events
//! ```
//!
//! Requests come in as the plain types of [`request`], answers go out as those of [`view`]; neither is ever sent to a
//! client as it stands. The engine never learns which kind a workload is beyond choosing its executor once, at create.
//! Decisions are pure and live in their own modules: [`lifecycle`] (what may follow what), [`restart`] (policies and
//! back-off), [`update`] (limits that change), `resolve` (request and image to specification). What is not done is a type
//! of [`refusal`], with its sentence.

#![warn(missing_docs)]

mod actor;
mod archive;
mod attach;
pub mod bounds;
mod build;
mod changes;
mod claims;
mod clearing;
mod command;
mod commit;
mod container;
mod dirs;
mod engine;
mod error;
mod event;
mod exec;
mod frames;
mod health;
mod layer;
pub mod lifecycle;
mod link;
mod log;
mod log_details;
mod log_options;
mod name_table;
mod names;
mod network;
mod parts;
mod patience;
mod platform;
mod preparing;
mod programs;
mod purge;
mod record;
pub mod refusal;
mod registry;
pub mod request;
mod resolve;
pub mod restart;
mod rootfs;
mod seal;
mod services;
mod size;
mod standing;
mod state_store;
mod stubs;
mod tasks;
#[cfg(test)]
mod testing;
mod unreadable;
pub mod update;
pub mod view;
mod volume;
mod volume_source;
mod xattr;

pub use archive::{PathStat, Unpack};
pub use attach::AttachSession;
pub use build::{build, solve};
pub use changes::{Change, ChangeKind};
pub use commit::CommitRequest;
pub use engine::{Created, Engine};
pub use error::EngineError;
pub use event::{Event, EventQuery};
pub use exec::{ExecAttach, ExecSession, ExecView};
pub use log::LogStream;
pub use preparing::{OnPreparation, Preparation, PreparationStep};
pub use services::EngineOptions;
