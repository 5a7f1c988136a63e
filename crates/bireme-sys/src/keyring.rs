//! Keys that the kernel keeps for a session.
#![expect(unsafe_code, reason = "keyctl has no safe wrapper")]

use std::io;

/// Gives this process, and all that it starts, a session keyring of its own, with nothing in it. What it had may hold keys of
/// whoever logged in, and every other process that came from there has the same.
///
/// Where the kernel has no keyrings, or forbids their calls, there is nothing to share. Where the user has as many keys as it
/// may (`/proc/sys/kernel/keys/root_maxkeys`), which any container may have seen to, it goes on with what it had: no container
/// would start otherwise, and the default filter keeps all from keyrings.
///
/// # Errors
/// Any other of the kernel.
///
/// Source: keyctl(2), `KEYCTL_JOIN_SESSION_KEYRING`; session-keyring(7).
pub fn join_new_session() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    let unnamed = std::ptr::null::<libc::c_char>();
    // SAFETY: the name may be absent, and nothing else of ours is read or written.
    if unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, unnamed) } >= 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        error if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM | libc::EDQUOT)) => Ok(()),
        error => Err(error),
    }
}
