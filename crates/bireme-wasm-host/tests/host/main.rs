//! The executor of components with real host processes, guests and servers.
//!
//! One binary, since each links the whole engine.

mod command;
mod common;
mod http;
mod network;
mod stores;
