//! Mount namespaces that nobody is in, and the layers of overlays.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

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

/// The folders of `layers`, which are given from the lowest to the topmost, as overlayfs takes them: the topmost first, and
/// none twice, which it refuses with `ELOOP`. Of one that is there several times the topmost alone counts: whatever the
/// others have at a path, that one has there too.
///
/// Source: the kernel's `fs/overlayfs/super.c`, `ovl_setup_trap`.
pub fn topmost(layers: &[PathBuf]) -> Vec<&Path> {
    let mut seen = HashSet::new();
    layers.iter().rev().map(PathBuf::as_path).filter(|layer| seen.insert(*layer)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_layer_that_is_there_twice_the_topmost_counts() {
        let of = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let top = |names: &[&str]| {
            topmost(&of(names)).iter().map(|path| path.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(top(&["a", "b", "a", "c", "b"]), ["b", "c", "a"]);
        assert_eq!(top(&["e", "e", "e"]), ["e"]);
        assert!(top(&[]).is_empty());
    }
}
