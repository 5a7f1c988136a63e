//! What a runner has to say: lines on its standard error, which is `runner.log` in its folder.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::OnceLock;

static LOG: OnceLock<OwnedFd> = OnceLock::new();

/// Keeps a copy of standard error: in the process that becomes init, the number itself is soon the container's.
pub(crate) fn open() {
    if let Ok(copy) = std::io::stderr().as_fd().try_clone_to_owned() {
        let _ = LOG.set(copy);
    }
}

/// Writes one line.
pub(crate) fn note(text: impl std::fmt::Display) {
    if let Some(copy) = LOG.get().and_then(|fd| fd.try_clone().ok()) {
        let _ = writeln!(File::from(copy), "{text}");
    }
}
