//! Opens what a component is given of the file system, before any of its code runs.
//!
//! Each mount becomes a detached copy of the mount, made read-only by the kernel where that is asked for (the second
//! layer beside the engine's own check), and is handed to the host as a descriptor: the host needs no path and no right
//! to mount.

use std::os::fd::OwnedFd;

use bireme_core::spec::{Mount, MountSource};
use bireme_core::{ErrorKind, ExecError};
use rustix::fs::{CWD, FileType};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};

use crate::HOST_UID;

/// Opens the source of `mount` as a folder on a mount of its own.
///
/// # Errors
/// `Invalid` when the source is not a folder; `NotFound` when it is not there.
pub(crate) fn open(mount: &Mount) -> Result<OwnedFd, ExecError> {
    match &mount.source {
        MountSource::Bind { path, recursive, .. } => {
            let refuse = |error: rustix::io::Errno| {
                let kind = if error == rustix::io::Errno::NOENT { ErrorKind::NotFound } else { ErrorKind::Internal };
                let text = format!("cannot mount {} at {}", path.display(), mount.target);
                ExecError::new(kind, text).caused_by(std::io::Error::from(error))
            };
            let stat = rustix::fs::stat(path).map_err(refuse)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                let text = format!(
                    "cannot mount {} at {}: it is a file, and a component can only be given folders; mount the folder \
                     it is in",
                    path.display(),
                    mount.target
                );
                return Err(ExecError::new(ErrorKind::Invalid, text));
            }
            if !rustix::process::geteuid().is_root() {
                use rustix::fs::{Mode, OFlags};
                return rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                    .map_err(refuse);
            }
            let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            flags.set(OpenTreeFlags::AT_RECURSIVE, *recursive);
            let tree = rustix::mount::open_tree(CWD, path, flags).map_err(refuse)?;
            if mount.read_only {
                make_read_only(&tree, *recursive).map_err(refuse)?;
            }
            Ok(tree)
        }
        MountSource::Tmpfs { size, mode, .. } => tmpfs(*size, *mode, mount.read_only).map_err(|error| {
            ExecError::new(ErrorKind::Internal, format!("cannot make a memory folder for {}", mount.target))
                .caused_by(std::io::Error::from(error))
        }),
    }
}

fn tmpfs(size: Option<u64>, mode: Option<u32>, read_only: bool) -> rustix::io::Result<OwnedFd> {
    use rustix::mount::{fsconfig_create, fsconfig_set_string, fsmount, fsopen};
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    if let Some(size) = size {
        fsconfig_set_string(&fs, "size", size.to_string())?;
    }
    fsconfig_set_string(&fs, "mode", format!("{:o}", mode.unwrap_or(0o1777)))?;
    fsconfig_set_string(&fs, "uid", HOST_UID.to_string())?;
    fsconfig_set_string(&fs, "gid", HOST_UID.to_string())?;
    fsconfig_create(&fs)?;
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, read_only);
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Makes every mount of a detached tree read-only.
#[expect(unsafe_code, reason = "mount_setattr(2) has no safe wrapper in the libraries at hand")]
fn make_read_only(tree: &OwnedFd, recursive: bool) -> rustix::io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let attributes = libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the descriptor is open, the path is an empty C string, and the pointer and size describe `attributes`,
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
    if result == 0 {
        Ok(())
    } else {
        Err(rustix::io::Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(rustix::io::Errno::IO))
    }
}
