//! Linux containers through the `docker` command line, as a newcomer would try them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod files;
mod life;
mod network;
mod observed;
