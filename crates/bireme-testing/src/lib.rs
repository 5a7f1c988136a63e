//! What end-to-end tests stand on: a private engine in temporary folders, its clients, and a look at what it left behind.
//!
//! ```no_run
//! let engine = bireme_testing::Engine::start();
//! engine.load("busybox");
//! assert_eq!(engine.docker(["run", "--rm", "busybox", "echo", "hi"]).stdout(), "hi\n");
//! engine.finish(); // ends it, and fails the test when anything of it remains
//! ```
//!
//! The binaries must be built (`./x test` does) and stand beside the tests' own; images come from `target/images`, guests
//! from `target/guests`.

#![warn(missing_docs)]

pub mod client;
pub mod conformance;
mod engine;
pub mod fake;
mod leftovers;
mod output;
mod registry;
mod subject;

pub use client::Answer;
pub use engine::Engine;
pub use output::Output;
pub use registry::Registry;
pub use subject::Subject;

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The root of the repository, where this crate was compiled.
pub fn workspace() -> PathBuf {
    let crates = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    crates.ancestors().nth(2).expect("this crate stands in crates/").to_owned()
}

/// The folder of the built binaries: the nearest one above that of the running test in which there is a `biremed`.
///
/// # Panics
/// When there is none: what a test of another package stands on, cargo does not build for it.
pub fn binaries() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let folder = test.ancestors().find(|folder| folder.join("biremed").is_file());
    folder.expect("biremed must be built first: run `./x test`, or `cargo build --workspace --bins`").to_owned()
}

/// The archive of the test image `name`, as `./x images` makes it.
///
/// # Panics
/// When it was not made yet.
pub fn image(name: &str) -> PathBuf {
    let path = workspace().join("target/images").join(format!("{name}.tar"));
    assert!(path.is_file(), "{} is missing: run `./x images`", path.display());
    path
}

/// The component of the test guest `name`, as `./x guests` builds it.
///
/// # Panics
/// When it was not built yet.
pub fn guest(name: &str) -> PathBuf {
    let path = workspace().join("target/guests").join(format!("{name}.wasm"));
    assert!(path.is_file(), "{} is missing: run `./x guests`", path.display());
    path
}

/// Waits until `condition` answers something, looking every 20 ms.
///
/// # Panics
/// After [`PATIENCE`], naming `what`.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what} did not come about in {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A TCP port of 127.0.0.1 that is free at this moment; another process may take it in the next.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("a bound socket has an address").port()
}
