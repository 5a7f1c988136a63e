//! Linux containers for real: `LinuxExecutor` drives the built `bireme-runner`, with busybox as the image.
//!
//! Needs root, namespaces, cgroups and `/bin/busybox`, linked statically.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bench;
mod io;
mod life;
mod limits;
mod run;
mod security;
