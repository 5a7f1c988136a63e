//! `bireme` beside `docker`, on the same engine: what it prints, copies and answers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod apps;
mod copy;
mod printing;
mod signals;

use std::path::{Path, PathBuf};

use bireme_testing::{Engine, Output, binaries};

fn engine() -> Engine {
    let engine = Engine::start();
    engine.load("busybox");
    engine
}

/// Runs `program` in `folder`.
fn within(engine: &Engine, folder: &Path, program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Output {
    let mut command = engine.command(program, args);
    command.current_dir(folder);
    engine.run(command)
}

fn bireme() -> PathBuf {
    binaries().join("bireme")
}
