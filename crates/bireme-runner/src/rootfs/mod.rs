//! The root filesystem: an overlay of the image's layers with the user's mounts in it, in a mount namespace of our own.
//!
//! All of it goes when the last process in the namespace does; nothing has to be taken down.
//!
//! The image and shared volumes may hold any links. So each target is looked up with openat2(2) inside the new root, and
//! from then on only its descriptor is used. libcontainer mounts `/proc`, `/dev` and `/sys` afterwards: whatever a link
//! leads a mount to, it cannot come to lie over the kernel's files.

mod mount;
mod overlay;
mod shared_memory;
mod target;
mod tree;

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use bireme_core::spec::{Mount, Propagation};
use bireme_core::{ErrorKind, Program};
use bireme_linux::protocol::{Failure, RunnerConfig};
use bireme_linux::spec;
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountPropagationFlags;

pub(crate) use self::tree::make_read_only;

use crate::failure::failed;

/// A root filesystem that stands.
pub(crate) struct Rootfs {
    pub(crate) path: PathBuf,
    pub(crate) fd: OwnedFd,
    /// Device nodes in mounts are of no use.
    nodev: bool,
}

/// Enters a mount namespace and puts everything together in it.
pub(crate) fn prepare(config: &RunnerConfig) -> Result<Rootfs, Failure> {
    let down = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    let separate = |error| failed("cannot make a mount namespace", error);
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).map_err(io::Error::from).map_err(separate)?;
    // Before the mounts here become slaves of the host's: only a peer of those passes on what is mounted inside.
    let shared = mount::shared_trees(&config.spec.mounts)?;
    rustix::mount::mount_change("/", down).map_err(io::Error::from).map_err(separate)?;
    if let Some(pid) = config.joins.ipc {
        shared_memory::mount(pid, &spec::shared_memory(&config.run_dir))
            .map_err(|error| failed("cannot share /dev/shm with the container whose IPC namespace is joined", error))?;
    }
    let Program::Layers { lower, upper, work } = &config.program else {
        return Err(Failure::new(ErrorKind::Invalid, "the runner was given something else than layers"));
    };
    let path = config.run_dir.join("rootfs");
    fs::create_dir_all(&path).map_err(|error| failed("cannot make the folder of the root filesystem", error))?;
    let nodev = !config.spec.security.privileged;
    overlay::mount(&config.run_dir, lower, upper, work, &path, nodev)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(&path, flags, Mode::empty())
        .map_err(|error| failed("cannot open the root filesystem", error.into()))?;
    let rootfs = Rootfs { path, fd, nodev };
    rootfs.make_real(&["dev", "proc", "sys"])?;
    // Fewer components first, so that a mount inside another finds it there.
    let mut own: Vec<&Mount> = config.spec.mounts.iter().filter(|mount| !spec::below_dev(&mount.target)).collect();
    own.sort_by_key(|mount| Path::new(&mount.target).components().count());
    for mount in own {
        rootfs.mount(mount, shared.get(mount.target.as_str()))?;
    }
    rootfs.etc(config)?;
    if config.spec.cwd.len() > 1 {
        rootfs.make_cwd(Path::new(&config.spec.cwd))?;
    }
    for path in config.spec.security.readonly_paths.iter().flatten().filter(|path| !spec::is_kernels(path)) {
        rootfs.read_only(Path::new(path))?;
    }
    rootfs.still_stands()?;
    Ok(rootfs)
}

impl Rootfs {
    /// Puts the files that the engine wrote at their places; a mount of the user's at the same place wins.
    fn etc(&self, config: &RunnerConfig) -> Result<(), Failure> {
        // On the disk, not in the run folder, which is memory: whoever is root in the container may write as much as it likes.
        let folder = config.state_dir.join("etc");
        fs::create_dir_all(&folder).map_err(|error| failed("cannot make a folder for /etc", error))?;
        for (at, (target, text)) in config.etc.iter().enumerate() {
            if config.spec.mounts.iter().any(|mount| Path::new(&mount.target) == target) {
                continue;
            }
            let file = folder.join(at.to_string());
            fs::write(&file, text)
                .and_then(|()| fs::set_permissions(&file, fs::Permissions::from_mode(0o644)))
                .map_err(|error| failed("cannot write a file of /etc", error))?;
            let place = self.make(target, false)?;
            let attributes = self.attributes(&file, config.spec.security.read_only_root);
            tree::bind(&file, place.as_fd(), false, Propagation::Private, attributes)
                .map_err(|error| failed(&format!("cannot mount {}", target.display()), error))?;
        }
        // By this file programs tell that they are in a container.
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.fd, ".dockerenv", flags, Mode::from_raw_mode(0o755)) {
            Ok(_) | Err(rustix::io::Errno::EXIST) => Ok(()),
            Err(error) => Err(failed("cannot make /.dockerenv", error.into())),
        }
    }
}
