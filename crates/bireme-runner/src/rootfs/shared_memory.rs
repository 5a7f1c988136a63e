//! The `/dev/shm` of another container, for one that joins its IPC namespace.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use bireme_sys::fds;
use bireme_sys::process::{self, Fork};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{MoveMountFlags, OpenTreeFlags};
use rustix::process::WaitOptions;

use super::tree::{self, MS_PRIVATE};

/// Mounts the `/dev/shm` of process `pid` at `at`.
///
/// A mount can only be copied from within its namespace, and its name is only to be looked up there: the container may have
/// put a link in its place. So a process of its own goes there, and sends the copy back.
pub(super) fn mount(pid: u32, at: &Path) -> io::Result<()> {
    let (ours, theirs) = UnixStream::pair()?;
    let tree = match process::fork()? {
        Fork::Child => {
            let told = match copy_of(pid) {
                Ok(tree) => fds::send(&theirs, &[0; 4], &[tree.as_fd()]),
                Err(error) => fds::send(&theirs, &error.raw_os_error().unwrap_or(libc::EIO).to_ne_bytes(), &[]),
            };
            std::process::exit(told.is_err().into())
        }
        Fork::Parent(helper) => {
            drop(theirs);
            let mut error = [0; 4];
            let received = fds::recv(&ours, &mut error);
            let _ = rustix::process::waitpid(rustix::process::Pid::from_raw(helper), WaitOptions::empty());
            match received? {
                (4, mut trees) if trees.len() == 1 => trees.remove(0),
                (4, _) => return Err(io::Error::from_raw_os_error(i32::from_ne_bytes(error))),
                _ => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    };
    tree::set_attributes(tree.as_fd(), 0, MS_PRIVATE)?;
    fs::create_dir_all(at)?;
    Ok(rustix::mount::move_mount(&tree, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Leaves this process in the mount namespace of `pid`.
fn copy_of(pid: u32) -> io::Result<OwnedFd> {
    nix::sched::setns(File::open(format!("/proc/{pid}/ns/mnt"))?, nix::sched::CloneFlags::CLONE_NEWNS)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let place = rustix::fs::openat2(CWD, "/dev/shm", flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(rustix::mount::open_tree(place, "", flags)?)
}
