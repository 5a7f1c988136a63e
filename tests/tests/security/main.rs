//! Attacks, each by name: what someone with a container, a network, an image, a component or a local account may try.
//! [SECURITY.md](../../../SECURITY.md) says which fence each of them meets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod api;
mod archive;
mod component;
mod container;
mod image;
mod network;
mod rights;
mod state;
