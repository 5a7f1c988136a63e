//! What a client is told of an error of the kernel.

use std::io;

use bireme_core::ErrorKind;
use bireme_linux::protocol::Failure;

/// A failure at `what`, an attempt in words ("cannot …"). What is not there was the client's to name.
pub(crate) fn failed(what: &str, error: io::Error) -> Failure {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::Invalid,
        io::ErrorKind::PermissionDenied => ErrorKind::Denied,
        _ => ErrorKind::Internal,
    };
    Failure::new(kind, format!("{what}: {error}"))
}
