//! From a [`WorkloadSpec`] to an OCI runtime specification, Docker's defaults included.

use bireme_core::{ErrorKind, WorkloadSpec};

use crate::protocol::Failure;

/// Checks all of `spec` that can be known without its root filesystem.
///
/// # Errors
/// `Invalid` or `Unsupported` with a sentence naming what is refused.
pub fn check(spec: &WorkloadSpec) -> Result<(), Failure> {
    if spec.args.is_empty() {
        return Err(Failure::new(ErrorKind::Invalid, "no command specified"));
    }
    Ok(())
}
