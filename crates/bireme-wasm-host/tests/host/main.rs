//! The executor of components with real host processes, guests and servers.
//!
//! One binary, since each links the whole engine.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod advisories;
mod command;
mod common;
mod compile;
mod databases;
mod descriptors;
mod diagnose;
mod fence;
mod hostile;
mod http;
mod messages;
mod network;
mod servers;
mod sockets;
mod spare;
mod spin1;
mod sqlite;
mod stores;
