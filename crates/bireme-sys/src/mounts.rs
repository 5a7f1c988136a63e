//! Mount namespaces that nobody is in.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::UnshareFlags;

use crate::netns;

/// Runs `work` on a thread of its own in a copy of this process's mount namespace, from which nothing comes back: what it
/// mounts there is seen by nobody. Answers what it does, and the namespace: what is mounted is there for as long as that is
/// open, and is reached by descriptors that `work` opened.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`; whatever `work` answers.
pub fn in_private_namespace<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<(T, OwnedFd)> {
    netns::on_own_thread("mounts", || {
        // A thread shares its root and working folder with all others of the process, and none of these may move.
        netns::unshare(UnshareFlags::FS | UnshareFlags::NEWNS)?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        // Before what `work` may mount in front of it.
        let namespace = File::open("/proc/thread-self/ns/mnt")?;
        Ok((work()?, namespace.into()))
    })
    .flatten()
}
