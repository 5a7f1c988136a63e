//! What goes over the wire between the engine and its clients.
//!
//! Docker's own types come from [`models`], generated from Docker's API description; what a client reads of the answers of
//! any engine is in [`answers`]. [`v1`] holds the few things Docker has no word for, served under `/bireme/v1/`. [`client`]
//! speaks both.

#![warn(missing_docs)]

pub use bollard_stubs::models;

pub mod answers;
pub mod client;
pub mod v1;

pub use client::{ByteStream, Call, Client, ClientError, Hijacked, Host, HostError};
