//! Linux containers for real: `LinuxExecutor` drives the built `bireme-runner`, with busybox as the image.
//!
//! Needs root, namespaces, cgroups and `/bin/busybox`, linked statically.

mod bench;
mod io;
mod life;
mod limits;
mod run;
mod security;
