//! The daemon: settings, wiring, and the Docker Engine API over HTTP.
//!
//! ```text
//!  main ── settings ── daemon ──┬── lock, sockets (start)
//!                               ├── Engine (bireme-engine) with both executors, images, networks
//!                               └── server ── routes/<resource> ── convert ── Engine
//! ```
//!
//! - [`settings`]: flags over environment over file over default;
//! - [`daemon`]: parse, validate, build, bind, announce; stop accepting, drain, report;
//! - [`server`] and [`hijack`]: HTTP, and connections that are taken over from it;
//! - [`routes`]: a file per resource, without decisions;
//! - `buildkit`: what its clients ask for is built by the engine;
//! - [`convert`]: between Docker's wire and the engine's types, pure;
//! - [`error`]: the one table from kinds of failure to status.

// `json!` of the largest answers.
#![recursion_limit = "256"]

pub mod app;
mod build_cache;
mod buildkit;
pub mod convert;
pub mod daemon;
pub mod drain_body;
pub mod error;
pub mod extract;
pub mod hijack;
mod home;
pub mod host;
mod json;
pub mod routes;
pub mod server;
pub mod settings;
pub mod socket;
pub mod stream;
pub mod version;
mod websocket;
pub mod work;
