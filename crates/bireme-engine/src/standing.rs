//! The file tree of a workload that rests, with its volumes and folders of the host where it would have them: a path leads
//! where it will lead once it runs, through whatever links.
//!
//! Source: `containerfs_linux.go` of moby, which does the same.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{
    MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_remount, move_mount, open_tree, unmount,
};

/// Something that is mounted.
pub(crate) struct Mount {
    pub(crate) source: PathBuf,
    /// Below the source, and nowhere else.
    pub(crate) subpath: Option<PathBuf>,
    pub(crate) target: String,
    pub(crate) read_only: bool,
}

/// A tree whose mounts are there for as long as this is.
pub(crate) struct Standing {
    pub(crate) root: OwnedFd,
    /// Targets for which the tree has no place: what is there is told by the path alone.
    pub(crate) missing: Vec<String>,
    pub(crate) namespace: OwnedFd,
}

/// Mounts all of `mounts`, in order, in the tree that is mounted at `root` and attached nowhere. `at` is a folder that is not
/// needed for that. Where the tree can be written to, folders that lack are made, as the start will. Blocking, for as long as
/// the servers of the sources like.
///
/// # Errors
/// Those of mounting; a source or a target that is not there is left out.
pub(crate) fn stand(root: &OwnedFd, at: &Path, mounts: &[Mount]) -> io::Result<Standing> {
    let ((root, missing), namespace) = bireme_sys::mounts::in_private_namespace(|| {
        let whole = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        // In this namespace: what is mounted at a descriptor from another one cannot be cloned here.
        let sources: Vec<_> = mounts.iter().map(|mount| (mount, clone_of(mount))).collect();
        move_mount(root, "", CWD, at, whole)?;
        let root = fs::open(at, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let mut missing = Vec::new();
        for (mount, source) in sources {
            let placed = source.and_then(|source| place(&root, &source, mount));
            if let Err(error) = placed {
                tracing::debug!(target = mount.target, %error, "nothing is mounted where a workload that rests would have it");
                missing.push(mount.target.clone());
            }
        }
        // Nothing but this tree is in the namespace from here on: whoever reads slowly from it would keep all other mounts of
        // the machine. Both names are the new root, see pivot_root(2), NOTES.
        rustix::process::fchdir(&root_folder(&root)?)?;
        rustix::process::pivot_root(".", ".")?;
        unmount(".", UnmountFlags::DETACH)?;
        Ok((root, missing))
    })?;
    Ok(Standing { root, missing, namespace })
}

fn root_folder(root: &OwnedFd) -> io::Result<OwnedFd> {
    Ok(fs::openat(root, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn clone_of(mount: &Mount) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    match &mount.subpath {
        None => Ok(open_tree(CWD, &mount.source, flags)?),
        Some(subpath) => {
            let found = bireme_sys::path::beneath(&mount.source, subpath)?;
            Ok(open_tree(&found, "", flags | OpenTreeFlags::AT_EMPTY_PATH)?)
        }
    }
}

fn is_folder(about: fs::Stat) -> bool {
    fs::FileType::from_raw_mode(about.st_mode) == fs::FileType::Directory
}

/// Makes the folders of a path that are not there, through whatever links are, inside `root`.
fn make_folders(root: &OwnedFd, path: &Path) -> io::Result<()> {
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let open = |path: &Path| {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        bireme_sys::path::open(
            root.as_fd(),
            path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            how,
        )
    };
    let (mut so_far, mut folder) = (PathBuf::new(), open(Path::new(""))?);
    for part in path.components() {
        so_far.push(part);
        folder = match open(&so_far) {
            Err(rustix::io::Errno::NOENT) => {
                fs::mkdirat(&folder, part.as_os_str(), Mode::from_raw_mode(0o755))?;
                open(&so_far)?
            }
            found => found?,
        };
    }
    Ok(())
}

fn place(root: &OwnedFd, source: &OwnedFd, mount: &Mount) -> io::Result<()> {
    let relative = mount.target.trim_start_matches('/');
    let find = || {
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        bireme_sys::path::open(root.as_fd(), relative, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how)
    };
    let target = match find() {
        Err(rustix::io::Errno::NOENT) if fs::statat(source, "", AtFlags::EMPTY_PATH).is_ok_and(is_folder) => {
            make_folders(root, Path::new(relative))?;
            find()?
        }
        found => found?,
    };
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(source, "", &target, "", flags)?;
    if mount.read_only {
        // What is mounted there now, not what was.
        let mounted = find()?;
        mount_remount(format!("/proc/self/fd/{}", mounted.as_raw_fd()), MountFlags::BIND | MountFlags::RDONLY, "")?;
    }
    Ok(())
}
