//! Trees of mounts by their descriptors: made or cloned, given their attributes, and attached.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use bireme_core::spec::Propagation;
use libcontainer::syscall::linux::{
    AT_EMPTY_PATH, AT_RECURSIVE, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, MountAttr,
};
use libcontainer::syscall::syscall::create_syscall;
use rustix::fs::CWD;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

pub(super) const MS_PRIVATE: u64 = 1 << 18;
const MS_SLAVE: u64 = 1 << 19;
/// The tree keeps the peers that it was cloned with.
pub(super) const UNCHANGED: u64 = 0;

/// A copy of what is mounted at `source`, attached nowhere yet.
pub(super) fn clone_tree(source: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(rustix::mount::open_tree(CWD, source, flags)?)
}

/// Mounts `source` at `target` too, with the attributes `attr_set` (`MOUNT_ATTR_*`).
pub(super) fn bind(
    source: &Path,
    target: BorrowedFd<'_>,
    recursive: bool,
    propagation: Propagation,
    attr_set: u64,
) -> io::Result<()> {
    let tree = clone_tree(source, recursive)?;
    let propagation = if propagation == Propagation::Slave { MS_SLAVE } else { MS_PRIVATE };
    set_attributes(tree.as_fd(), attr_set, propagation)?;
    attach(tree.as_fd(), target)
}

pub(super) fn tmpfs(
    target: BorrowedFd<'_>,
    size: Option<u64>,
    mode: Option<u32>,
    options: &[String],
    read_only: bool,
) -> io::Result<()> {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let fd = context.as_fd();
    rustix::mount::fsconfig_set_string(fd, "source", "tmpfs")?;
    let mut set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    if read_only {
        set |= MOUNT_ATTR_RDONLY;
    }
    if let Some(size) = size.filter(|size| *size > 0) {
        rustix::mount::fsconfig_set_string(fd, "size", size.to_string().as_str())?;
    }
    if let Some(mode) = mode {
        rustix::mount::fsconfig_set_string(fd, "mode", format!("{mode:o}").as_str())?;
    }
    for option in options {
        match option.as_str() {
            "exec" => set &= !MOUNT_ATTR_NOEXEC,
            "suid" => set &= !MOUNT_ATTR_NOSUID,
            "dev" => set &= !MOUNT_ATTR_NODEV,
            "ro" => set |= MOUNT_ATTR_RDONLY,
            "rw" | "noexec" | "nosuid" | "nodev" | "" => {}
            other => match other.split_once('=') {
                Some((name, value)) => rustix::mount::fsconfig_set_string(fd, name, value)?,
                None => rustix::mount::fsconfig_set_flag(fd, other)?,
            },
        }
    }
    rustix::mount::fsconfig_create(fd)?;
    let mount = rustix::mount::fsmount(fd, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    set_attributes(mount.as_fd(), set, MS_PRIVATE)?;
    attach(mount.as_fd(), target)
}

/// Has nobody write through any mount at or below `root`.
pub(crate) fn make_read_only(root: BorrowedFd<'_>) -> io::Result<()> {
    set_attributes(root, MOUNT_ATTR_RDONLY, UNCHANGED)
}

/// Sets the attributes `set` (`MOUNT_ATTR_*`) and the propagation of a tree of mounts, all those below its top too.
pub(super) fn set_attributes(tree: BorrowedFd<'_>, set: u64, propagation: u64) -> io::Result<()> {
    let attributes = MountAttr { attr_set: set, attr_clr: 0, propagation, userns_fd: 0 };
    create_syscall()
        .mount_setattr(tree, Path::new(""), AT_EMPTY_PATH | AT_RECURSIVE, &attributes, size_of::<MountAttr>())
        .map_err(io::Error::other)
}

/// Mounts a tree that is attached nowhere at `target`.
pub(super) fn attach(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(tree, "", target, "", flags)?)
}
