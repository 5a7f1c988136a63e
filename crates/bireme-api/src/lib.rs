//! What goes over the wire between the engine and its clients.
//!
//! Docker's own types come from [`models`], generated from Docker's API description. [`v1`] holds the few things
//! Docker has no word for, served under `/bireme/v1/`. [`client`] speaks both.

pub use bollard_stubs::models;

pub mod client;
pub mod v1;

pub use client::{ByteStream, Call, Client, ClientError, Hijacked, Host};
