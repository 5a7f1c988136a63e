//! The user's mounts, and which attributes and propagation they have.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use bireme_core::ErrorKind;
use bireme_core::spec::{Mount, MountSource, Propagation};
use bireme_linux::protocol::Failure;
use bireme_linux::spec;
use libcontainer::syscall::linux::{AT_EMPTY_PATH, MOUNT_ATTR_NODEV, MOUNT_ATTR_RDONLY, MountAttr};
use libcontainer::syscall::syscall::create_syscall;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags};

use super::tree::{MS_PRIVATE, UNCHANGED, attach, bind, clone_tree, set_attributes, tmpfs};
use super::{Rootfs, overlay};
use crate::failure::failed;

impl Rootfs {
    /// `shared`: the tree of a bind with shared propagation.
    pub(super) fn mount(&self, mount: &Mount, shared: Option<&OwnedFd>) -> Result<(), Failure> {
        spec::check_target(&mount.target)?;
        let target = Path::new(&mount.target);
        let what = || format!("cannot mount at {}", mount.target);
        // By its descriptor: what the name stands for may change, what was found does not.
        let bind_found = |found: BorrowedFd<'_>, of: &Path, recursive: bool| {
            let folder = rustix::fs::fstat(found).map_err(|error| failed(&what(), error.into()))?;
            let folder = FileType::from_raw_mode(folder.st_mode) == FileType::Directory;
            let target = self.make(target, folder)?;
            let found = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
            let attributes = self.attributes(of, mount.read_only);
            bind(&found, target.as_fd(), recursive, Propagation::Private, attributes)
                .map_err(|error| failed(&what(), error))
        };
        match &mount.source {
            MountSource::Bind { path, propagation, recursive } => {
                let meta = source(path)?;
                let target = self.make(target, meta.is_dir())?;
                match shared {
                    Some(tree) => {
                        let attr_set = self.attributes(path, mount.read_only);
                        set_attributes(tree.as_fd(), attr_set, UNCHANGED)
                            .and_then(|()| attach(tree.as_fd(), target.as_fd()))
                    }
                    None => {
                        if *propagation == Propagation::Slave {
                            propagates(path, false)?;
                        }
                        bind(path, target.as_fd(), *recursive, *propagation, self.attributes(path, mount.read_only))
                    }
                }
                .map_err(|error| failed(&what(), error))
            }
            MountSource::Subpath { volume, subpath } => {
                let found = bireme_sys::path::beneath(volume, subpath).map_err(|error| {
                    Failure::new(ErrorKind::Invalid, bireme_sys::path::not_accessible(volume, subpath, &error))
                })?;
                bind_found(found.as_fd(), volume, true)
            }
            MountSource::Layers { lower, scratch, subpath } => {
                let tree = layers(lower, scratch).map_err(|error| failed(&what(), error))?;
                let found = find(tree.as_fd(), subpath).map_err(|error| {
                    let text = format!("cannot mount /{} at {}: {error}", subpath.display(), mount.target);
                    Failure::new(ErrorKind::Invalid, text)
                })?;
                bind_found(found.as_fd(), scratch, false)
            }
            MountSource::Tmpfs { size, mode, options } => {
                let target = self.make(target, true)?;
                tmpfs(target.as_fd(), *size, *mode, options, mount.read_only).map_err(|error| failed(&what(), error))
            }
        }
    }

    /// Has nobody write at `path`, if anything is there. What can be done there otherwise stays so: libcontainer would take
    /// the right to execute with it.
    pub(super) fn read_only(&self, path: &Path) -> Result<(), Failure> {
        let what = |error| failed(&format!("cannot make {} read-only", path.display()), error);
        let found = match self.resolve(path, OFlags::PATH) {
            Ok(found) => found,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            Err(error) => return Err(what(error)),
        };
        self.outside_of(&found, path, &["/proc", "/sys", "/dev"])?;
        let source = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
        let attributes = MountAttr { attr_set: MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: MS_PRIVATE, userns_fd: 0 };
        clone_tree(&source, true)
            .and_then(|tree| {
                // First: where this is in a shared bind, the machine has the mount too, and may go on writing.
                attach(tree.as_fd(), found.as_fd())?;
                // What is mounted below stays as it is, as with runc.
                create_syscall()
                    .mount_setattr(tree.as_fd(), Path::new(""), AT_EMPTY_PATH, &attributes, size_of::<MountAttr>())
                    .map_err(io::Error::other)
            })
            .map_err(what)
    }

    /// What a bind of `source` is mounted with. A container may make device nodes, and its device rules keep it from using
    /// them: but another with the same volume, a component or a local account through `/proc/PID/root` is not bound by those
    /// rules. What is brought from the machine's `/dev` was meant to be used, also where all of the machine is brought.
    pub(super) fn attributes(&self, source: &Path, read_only: bool) -> u64 {
        let mut set = 0;
        if read_only {
            set |= MOUNT_ATTR_RDONLY;
        }
        if self.nodev && !spec::brings_devices(source) {
            set |= MOUNT_ATTR_NODEV;
        }
        set
    }
}

/// Layers as one tree, mounted where nobody looks: what is written lands in `scratch`.
fn layers(lower: &[PathBuf], scratch: &Path) -> io::Result<OwnedFd> {
    let part = |name: &str, mode| -> io::Result<PathBuf> {
        let path = scratch.join(name);
        fs::DirBuilder::new().recursive(true).mode(mode).create(&path)?;
        Ok(path)
    };
    let (upper, work, at) = (part("upper", 0o755)?, part("work", 0o700)?, part("merged", 0o700)?);
    overlay::mount_at(scratch, lower, &upper, &work, &at, false)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(&at, flags, Mode::empty())?)
}

/// What stands at `subpath` in a tree whose root no link leads out of.
fn find(tree: BorrowedFd<'_>, subpath: &Path) -> io::Result<OwnedFd> {
    let subpath = if subpath.as_os_str().is_empty() { Path::new(".") } else { subpath };
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(bireme_sys::path::open(tree, subpath, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how)?)
}

/// What a bind mounts.
///
/// # Errors
/// `Invalid`, in Docker's words, when it is not there.
fn source(path: &Path) -> Result<fs::Metadata, Failure> {
    fs::metadata(path).map_err(|error| {
        let message = match error.kind() {
            io::ErrorKind::NotFound => {
                format!("invalid mount config for type \"bind\": bind source path does not exist: {}", path.display())
            }
            _ => format!("cannot use {} as a mount: {error}", path.display()),
        };
        Failure::new(ErrorKind::Invalid, message)
    })
}

/// Clones the trees of binds with shared propagation, by target.
///
/// # Errors
/// `Invalid` when the mount that a source lies on is not shared.
pub(super) fn shared_trees(mounts: &[Mount]) -> Result<HashMap<&str, OwnedFd>, Failure> {
    let mut trees = HashMap::new();
    for mount in mounts {
        let MountSource::Bind { path, propagation: Propagation::Shared, recursive } = &mount.source else { continue };
        source(path)?;
        propagates(path, true)?;
        let tree = clone_tree(path, *recursive)
            .map_err(|error| failed(&format!("cannot mount at {}", mount.target), error))?;
        trees.insert(mount.target.as_str(), tree);
    }
    Ok(trees)
}

/// Checks that the mount `path` lies on takes part in propagation: as a peer where `shared`, or also as a slave.
///
/// Source: `ensureShared` and `ensureSharedOrSlave` of moby.
fn propagates(path: &Path, shared: bool) -> Result<(), Failure> {
    let look = || -> io::Result<Option<String>> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::empty())?;
        let id = rustix::fs::statx(&file, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?.stx_mnt_id;
        let table = fs::read_to_string("/proc/self/mountinfo")?;
        Ok(lacks_propagation(&table, id, shared))
    };
    match look().map_err(|error| failed(&format!("cannot look up the mount of {}", path.display()), error))? {
        None => Ok(()),
        Some(at) => {
            let wanted = if shared { "shared" } else { "shared or slave" };
            let message = format!("path {} is mounted on {at} but it is not a {wanted} mount", path.display());
            Err(Failure::new(ErrorKind::Invalid, message))
        }
    }
}

/// Where the mount with the number `id` is, if it takes no part in propagation. Source: proc_pid_mountinfo(5).
fn lacks_propagation(table: &str, id: u64, shared: bool) -> Option<String> {
    let line = table.lines().find(|line| line.split(' ').next() == Some(id.to_string().as_str()))?;
    let mut fields = line.split(' ').skip(4);
    let at = fields.next().unwrap_or_default().to_owned();
    let optional = fields.skip(1).take_while(|field| *field != "-");
    let takes = |field: &str| field.starts_with("shared:") || (!shared && field.starts_with("master:"));
    (!optional.into_iter().any(takes)).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_that_take_no_part_in_propagation_are_named() {
        let table = "21 1 0:20 / / rw,noatime shared:1 - ext4 /dev/sda rw\n\
                     30 21 0:21 / /private rw - tmpfs none rw\n\
                     31 21 0:22 / /slave rw master:1 - tmpfs none rw\n";
        for (id, shared, expected) in [
            (21, true, None),
            (21, false, None),
            (30, true, Some("/private")),
            (30, false, Some("/private")),
            (31, true, Some("/slave")),
            (31, false, None),
            (2, true, None),
        ] {
            assert_eq!(lacks_propagation(table, id, shared).as_deref(), expected, "{id} {shared}");
        }
    }
}
