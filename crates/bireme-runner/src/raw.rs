//! The one call for which no safe function can be offered.
#![expect(unsafe_code, reason = "inside a container fork cannot make sure that there is one thread")]

use std::io;

use bireme_sys::process::Fork;

/// Copies this process, inside a container: [`bireme_sys::process::fork`] counts the threads of its caller, but here `/proc` is
/// the container's, and its filter may refuse whatever would be asked.
pub(crate) fn fork() -> io::Result<Fork> {
    // SAFETY: a runner never starts a thread, and neither do its copies, so no lock can be held by one that the child lacks.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Child => Ok(Fork::Child),
        nix::unistd::ForkResult::Parent { child } => Ok(Fork::Parent(child.as_raw())),
    }
}
