//! Mount namespaces that nobody is in, attributes of mounts, and the layers of overlays.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen, mount_change,
};
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

/// Sets attributes on the mount that `tree` is the root of, and on all within it where `recursive` says so. `set`:
/// `MOUNT_ATTR_*`. `idmap`: a user namespace by whose maps files appear to belong to others, for mounts that were never
/// attached.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] for `MOUNT_ATTR_IDMAP` in `set`, which follows from `idmap`; `EINVAL` when the file system
/// cannot map owners, or `tree` is no root of a mount; `EPERM` without `CAP_SYS_ADMIN`.
///
/// Source: mount_setattr(2), Linux 5.12.
#[expect(unsafe_code, reason = "rustix has no mount_setattr")]
pub fn set_attributes(
    tree: BorrowedFd<'_>,
    set: u64,
    idmap: Option<BorrowedFd<'_>>,
    recursive: bool,
) -> io::Result<()> {
    if set & libc::MOUNT_ATTR_IDMAP != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "owners are mapped by a user namespace"));
    }
    let (mapped, userns_fd) = match idmap {
        Some(namespace) => (libc::MOUNT_ATTR_IDMAP, u64::from(namespace.as_raw_fd().unsigned_abs())),
        None => (0, 0),
    };
    let attributes = libc::mount_attr { attr_set: set | mapped, attr_clr: 0, propagation: 0, userns_fd };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the descriptors are open, the path is an empty C string, and the pointer and size describe `attributes`,
    // which the kernel only reads.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
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

/// The tree that `layers`, from the lowest to the topmost, make up: an overlay mount that is attached nowhere and is gone when
/// the descriptor closes. What is written lands in the first folder of `writable`, whose second is overlayfs's work folder on
/// the same file system; without them the mount is only read.
///
/// # Errors
/// `EINVAL` for one layer alone that is only read, which is no overlay; `EPERM` without `CAP_SYS_ADMIN`; those of
/// fsconfig(2) and fsmount(2).
pub fn overlay(layers: &[PathBuf], writable: Option<(&Path, &Path)>) -> io::Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for layer in topmost(layers) {
        fsconfig_set_string(context.as_fd(), "lowerdir+", layer)?;
    }
    if let Some((upper, work)) = writable {
        fsconfig_set_string(context.as_fd(), "upperdir", upper)?;
        fsconfig_set_string(context.as_fd(), "workdir", work)?;
    }
    fsconfig_create(context.as_fd())?;
    let attributes = if writable.is_some() { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_RDONLY };
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_a_mount_becomes_read_only_and_nothing_else_does() {
        use rustix::fs::{CWD, StatVfsMountFlags, fstatvfs, statvfs};
        use rustix::mount::OpenTreeFlags;
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = rustix::mount::open_tree(CWD, folder.path(), flags).unwrap();
        let before = statvfs(folder.path()).unwrap().f_flag;
        let set = |set| set_attributes(tree.as_fd(), set, None, false);
        set(libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID).unwrap();
        let both = StatVfsMountFlags::RDONLY | StatVfsMountFlags::NOSUID;
        assert!(fstatvfs(&tree).unwrap().f_flag.contains(both));
        assert_eq!(statvfs(folder.path()).unwrap().f_flag, before);
        assert_eq!(set(libc::MOUNT_ATTR_IDMAP).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

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
