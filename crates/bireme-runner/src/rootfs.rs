//! The root filesystem: an overlay of the image's layers with the user's mounts in it, in a mount namespace of our own.
//!
//! All of it goes when the last process in the namespace does; nothing has to be taken down.
//!
//! The image and shared volumes may hold any links. So each target is looked up with openat2(2) inside the new root, and
//! from then on only its descriptor is used. libcontainer mounts `/proc`, `/dev` and `/sys` afterwards: whatever a link
//! leads a mount to, it cannot come to lie over the kernel's files.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use bireme_core::spec::{Mount, MountSource, Propagation};
use bireme_core::{ErrorKind, Program};
use bireme_linux::protocol::{Failure, RunnerConfig};
use bireme_linux::spec;
use bireme_sys::fds;
use bireme_sys::mounts::topmost;
use libcontainer::syscall::linux::{
    AT_EMPTY_PATH, AT_RECURSIVE, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, MountAttr,
};
use libcontainer::syscall::syscall::create_syscall;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
};
use rustix::process::WaitOptions;

use crate::raw;

/// Where the kernel's own files are.
const KERNELS: [&str; 2] = ["/proc", "/sys"];

const MS_PRIVATE: u64 = 1 << 18;
const MS_SLAVE: u64 = 1 << 19;
/// The tree keeps the peers that it was cloned with.
const UNCHANGED: u64 = 0;

/// A root filesystem that stands.
pub(crate) struct Rootfs {
    pub(crate) path: PathBuf,
    pub(crate) fd: OwnedFd,
    /// Device nodes in mounts are of no use.
    nodev: bool,
}

fn failed(what: &str, error: io::Error) -> Failure {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::Invalid,
        io::ErrorKind::PermissionDenied => ErrorKind::Denied,
        _ => ErrorKind::Internal,
    };
    Failure::new(kind, format!("{what}: {error}"))
}

/// Enters a mount namespace and puts everything together in it.
pub(crate) fn prepare(config: &RunnerConfig) -> Result<Rootfs, Failure> {
    let down = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    let separate = |error| failed("cannot make a mount namespace", error);
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).map_err(io::Error::from).map_err(separate)?;
    // Before the mounts here become slaves of the host's: only a peer of those passes on what is mounted inside.
    let shared = shared_trees(&config.spec.mounts)?;
    rustix::mount::mount_change("/", down).map_err(io::Error::from).map_err(separate)?;
    if let Some(pid) = config.joins.ipc {
        shared_memory(pid, &spec::shared_memory(&config.run_dir))
            .map_err(|error| failed("cannot share /dev/shm with the container whose IPC namespace is joined", error))?;
    }
    let Program::Layers { lower, upper, work } = &config.program else {
        return Err(Failure::new(ErrorKind::Invalid, "the runner was given something else than layers"));
    };
    let path = config.run_dir.join("rootfs");
    fs::create_dir_all(&path).map_err(|error| failed("cannot make the folder of the root filesystem", error))?;
    let nodev = !config.spec.security.privileged;
    overlay(&config.run_dir, lower, upper, work, &path, nodev)?;
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

fn overlay(
    run_dir: &Path,
    lower: &[PathBuf],
    upper: &Path,
    work: &Path,
    at: &Path,
    nodev: bool,
) -> Result<(), Failure> {
    let empty = [run_dir.join("empty")];
    let lower = if lower.is_empty() {
        fs::create_dir_all(&empty[0]).map_err(|error| failed("cannot make an empty layer", error))?;
        &empty[..]
    } else {
        lower
    };
    for path in lower.iter().map(PathBuf::as_path).chain([upper, work]) {
        if !path.is_dir() {
            let message = format!("layer folder {} is missing; pull the image again", path.display());
            return Err(Failure::new(ErrorKind::Internal, message));
        }
    }
    match overlay_by_handle(lower, upper, work, at, nodev) {
        // Before Linux 6.8 there is no lowerdir+.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => {
            overlay_by_options(&run_dir.join("layers"), lower, upper, work, at, nodev)
        }
        other => other,
    }
    .map_err(|error| failed("cannot mount the overlay of the image's layers", error))
}

/// Layer by layer, so that their number is not limited by the size of a page.
fn overlay_by_handle(lower: &[PathBuf], upper: &Path, work: &Path, at: &Path, nodev: bool) -> io::Result<()> {
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let fd = context.as_fd();
    rustix::mount::fsconfig_set_string(fd, "source", "overlay")?;
    for path in topmost(lower) {
        rustix::mount::fsconfig_set_string(fd, "lowerdir+", path)?;
    }
    rustix::mount::fsconfig_set_string(fd, "upperdir", upper)?;
    rustix::mount::fsconfig_set_string(fd, "workdir", work)?;
    // What changed is read from the upper folder: a kernel built to leave notes there in place of files must not.
    rustix::mount::fsconfig_set_string(fd, "redirect_dir", "off")?;
    rustix::mount::fsconfig_set_string(fd, "metacopy", "off")?;
    rustix::mount::fsconfig_create(fd)?;
    let attributes = if nodev { MountAttrFlags::MOUNT_ATTR_NODEV } else { MountAttrFlags::empty() };
    let mount = rustix::mount::fsmount(fd, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    Ok(rustix::mount::move_mount(&mount, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// The options must fit into a page, so each layer is given a short name: a link in the folder `links`, which is there for
/// as long as it takes to mount.
fn overlay_by_options(
    links: &Path,
    lower: &[PathBuf],
    upper: &Path,
    work: &Path,
    at: &Path,
    nodev: bool,
) -> io::Result<()> {
    fs::create_dir_all(links)?;
    let lower = topmost(lower);
    for (number, layer) in lower.iter().enumerate() {
        std::os::unix::fs::symlink(layer, links.join(number.to_string()))?;
    }
    let before = rustix::fs::open(".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let layers = (0..lower.len()).map(|number| number.to_string()).collect::<Vec<_>>().join(":");
    let options = format!("lowerdir={layers},upperdir={},workdir={}", upper.display(), work.display());
    let options = std::ffi::CString::new(options)?;
    rustix::process::chdir(links)?;
    let flags = if nodev { MountFlags::NODEV } else { MountFlags::empty() };
    let mounted = rustix::mount::mount("overlay", at, "overlay", flags, options.as_c_str());
    rustix::process::fchdir(before)?;
    fs::remove_dir_all(links)?;
    Ok(mounted?)
}

/// The mount, device and file that a descriptor stands for.
fn identity(file: &OwnedFd) -> io::Result<(u64, u32, u32, u64)> {
    let flags = StatxFlags::MNT_ID | StatxFlags::INO;
    let found = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW, flags)?;
    Ok((found.stx_mnt_id, found.stx_dev_major, found.stx_dev_minor, found.stx_ino))
}

/// Links to nothing that are followed at a mount's target, as the kernel follows others.
const MOST_LINKS: usize = 40;

/// What came of an attempt to make a mount's target.
enum Made {
    Found(OwnedFd),
    /// A link to nothing is on the way, and this is the path that it makes of the whole.
    Link(PathBuf),
}

impl Rootfs {
    /// Has each of these names in the root stand for a folder. Whatever else an image has there is replaced: libcontainer
    /// joins paths below them to the root as text, from outside, and a link of the image would lead it out to the host's
    /// files (decision 0010).
    fn make_real(&self, names: &[&str]) -> Result<(), Failure> {
        let failed =
            |name: &str, error: rustix::io::Errno| failed(&format!("cannot make /{name} a folder"), error.into());
        for name in names {
            match rustix::fs::statat(&self.fd, *name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(found) if FileType::from_raw_mode(found.st_mode).is_dir() => continue,
                Ok(_) => {
                    rustix::fs::unlinkat(&self.fd, *name, AtFlags::empty()).map_err(|error| failed(name, error))?
                }
                Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(failed(name, error)),
            }
            rustix::fs::mkdirat(&self.fd, *name, Mode::from_raw_mode(0o755)).map_err(|error| failed(name, error))?;
        }
        Ok(())
    }

    fn resolve(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let inside = path.strip_prefix("/").unwrap_or(path);
        let inside = if inside.as_os_str().is_empty() { Path::new(".") } else { inside };
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        Ok(bireme_sys::path::open(&self.fd, inside, flags, Mode::empty(), how)?)
    }

    /// Makes the working directory if it is not there.
    ///
    /// What an image has below its `/proc` and `/sys` is looked at here, and the kernel's files are there when the directory
    /// is entered. So this is no fence against a way through `/proc/self/fd` (CVE-2024-21626): that is in
    /// `Payload::validate`.
    ///
    /// # Errors
    /// `Invalid` for one among the kernel's own files.
    fn make_cwd(&self, target: &Path) -> Result<(), Failure> {
        let plain = spec::plain(target);
        if KERNELS.iter().any(|kernel| plain.starts_with(kernel)) {
            let message = format!("the working directory {} is among the kernel's own files", target.display());
            return Err(Failure::new(ErrorKind::Invalid, format!("{message}; choose a folder of the container")));
        }
        let found = self.find_or_make(target, true)?;
        self.outside_of(&found, target, &KERNELS)
    }

    /// Opens the place of a mount inside the root, made as a folder or an empty file if it is not there.
    ///
    /// # Errors
    /// `Invalid` when links lead to the kernel's own files or to the root itself.
    fn make(&self, target: &Path, folder: bool) -> Result<OwnedFd, Failure> {
        let what = || format!("cannot make {} in the container", target.display());
        let parent = self.find_or_make(target, folder)?;
        self.outside_of(&parent, target, &["/proc", "/sys", "/dev"])?;
        // By what it is, whatever it is called: a link to `/` in a volume or in the image would have the volume take the
        // root's place, with a `/dev` and a `/proc` of its own.
        if identity(&parent)
            .and_then(|found| Ok(found == identity(&self.fd)?))
            .map_err(|error| failed(&what(), error))?
        {
            let message =
                format!("{} leads to /, over the whole root filesystem; choose another path", target.display());
            return Err(Failure::new(ErrorKind::Invalid, message));
        }
        Ok(parent)
    }

    /// Checks where links led to, which may be elsewhere than the name says.
    fn outside_of(&self, found: &OwnedFd, target: &Path, kernels: &[&str]) -> Result<(), Failure> {
        let real = fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd()))
            .map_err(|error| failed(&format!("cannot look at {} in the container", target.display()), error))?;
        let Ok(inside) = real.strip_prefix(&self.path) else {
            let message = format!("{} leads out of the container's root filesystem", target.display());
            return Err(Failure::new(ErrorKind::Denied, message));
        };
        let inside = Path::new("/").join(inside);
        if !kernels.iter().any(|kernel| inside.starts_with(kernel)) {
            return Ok(());
        }
        let message = format!(
            "{} leads to {}, over the kernel's own files; choose another path",
            target.display(),
            inside.display()
        );
        Err(Failure::new(ErrorKind::Invalid, message))
    }

    /// What stands at `target`, made with the folders above it where nothing does. A link to nothing is followed, as the
    /// root file systems of distributions have one for `/etc/resolv.conf`: its end is made.
    fn find_or_make(&self, target: &Path, folder: bool) -> Result<OwnedFd, Failure> {
        let mut path = target.to_owned();
        for _ in 0..MOST_LINKS {
            match self
                .try_make(&path, folder)
                .map_err(|error| failed(&format!("cannot make {} in the container", target.display()), error))?
            {
                Made::Found(found) => return Ok(found),
                Made::Link(end) => path = end,
            }
        }
        let message = format!("cannot make {} in the container: too many links lead from it", target.display());
        Err(Failure::new(ErrorKind::Invalid, message))
    }

    /// One attempt, up to the first link to nothing.
    fn try_make(&self, path: &Path, folder: bool) -> io::Result<Made> {
        let mut so_far = PathBuf::from("/");
        let mut parent = self.resolve(&so_far, OFlags::PATH)?;
        let mut parts = path.components().skip(1);
        while let Some(part) = parts.next() {
            so_far.push(part);
            parent = match self.resolve(&so_far, OFlags::PATH) {
                Ok(found) => found,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let name: &Path = part.as_ref();
                    let made = if parts.clone().next().is_none() && !folder {
                        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
                        rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)
                    } else {
                        rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))
                    };
                    match made {
                        Ok(()) => {}
                        Err(rustix::io::Errno::EXIST) => {
                            let end = rustix::fs::readlinkat(&parent, name, Vec::new())?;
                            let real = fs::read_link(format!("/proc/self/fd/{}", parent.as_raw_fd()))?;
                            let Ok(inside) = real.strip_prefix(&self.path) else {
                                return Err(io::Error::other("it leads out of the root filesystem"));
                            };
                            let end = Path::new("/").join(inside).join(OsStr::from_bytes(end.to_bytes()));
                            return Ok(Made::Link(parts.fold(end, |path, part| path.join(part))));
                        }
                        Err(error) => return Err(error.into()),
                    }
                    self.resolve(&so_far, OFlags::PATH)?
                }
                Err(error) => return Err(error),
            };
        }
        Ok(Made::Found(parent))
    }

    /// Checks that the root's name stands for what was prepared: libcontainer goes by the name.
    ///
    /// # Errors
    /// `Denied` when a mount took its place.
    fn still_stands(&self) -> Result<(), Failure> {
        let look = || -> io::Result<bool> {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let named = rustix::fs::open(&self.path, flags, Mode::empty())?;
            Ok(identity(&named)? == identity(&self.fd)?)
        };
        if look().map_err(|error| failed("cannot look at the root filesystem", error))? {
            return self.make_real(&["dev", "proc", "sys"]);
        }
        let message = "a mount took the place of the whole root filesystem; look at the links at its targets";
        Err(Failure::new(ErrorKind::Denied, message))
    }

    /// `shared`: the tree of a bind with shared propagation.
    fn mount(&self, mount: &Mount, shared: Option<&OwnedFd>) -> Result<(), Failure> {
        spec::check_target(&mount.target)?;
        let target = Path::new(&mount.target);
        let what = || format!("cannot mount at {}", mount.target);
        match &mount.source {
            MountSource::Bind { path, propagation, recursive } => {
                let meta = source(path)?;
                let target = self.make(target, meta.is_dir())?;
                match shared {
                    Some(tree) => {
                        let attr_set = self.attributes(path, mount.read_only);
                        let attributes = MountAttr { attr_set, attr_clr: 0, propagation: UNCHANGED, userns_fd: 0 };
                        set_attributes(tree.as_fd(), &attributes).and_then(|()| attach(tree.as_fd(), target.as_fd()))
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
                let folder = rustix::fs::fstat(&found).map_err(|error| failed(&what(), error.into()))?;
                let folder = FileType::from_raw_mode(folder.st_mode) == FileType::Directory;
                let target = self.make(target, folder)?;
                // By its descriptor: what the name stands for may change, what was found does not.
                let found = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
                let attributes = self.attributes(volume, mount.read_only);
                bind(&found, target.as_fd(), true, Propagation::Private, attributes)
                    .map_err(|error| failed(&what(), error))
            }
            MountSource::Tmpfs { size, mode, options } => {
                let target = self.make(target, true)?;
                tmpfs(target.as_fd(), *size, *mode, options, mount.read_only).map_err(|error| failed(&what(), error))
            }
        }
    }

    /// Has nobody write at `path`, if anything is there. What can be done there otherwise stays so: libcontainer would take
    /// the right to execute with it.
    fn read_only(&self, path: &Path) -> Result<(), Failure> {
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
    fn attributes(&self, source: &Path, read_only: bool) -> u64 {
        let mut set = 0;
        if read_only {
            set |= MOUNT_ATTR_RDONLY;
        }
        if self.nodev && !spec::brings_devices(source) {
            set |= MOUNT_ATTR_NODEV;
        }
        set
    }

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
            bind(&file, place.as_fd(), false, Propagation::Private, attributes)
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
fn shared_trees(mounts: &[Mount]) -> Result<HashMap<&str, OwnedFd>, Failure> {
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

fn clone_tree(source: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(rustix::mount::open_tree(CWD, source, flags)?)
}

fn bind(
    source: &Path,
    target: BorrowedFd<'_>,
    recursive: bool,
    propagation: Propagation,
    attr_set: u64,
) -> io::Result<()> {
    let tree = clone_tree(source, recursive)?;
    let mut attributes = MountAttr { attr_set, attr_clr: 0, propagation: MS_PRIVATE, userns_fd: 0 };
    if propagation == Propagation::Slave {
        attributes.propagation = MS_SLAVE;
    }
    set_attributes(tree.as_fd(), &attributes)?;
    attach(tree.as_fd(), target)
}

fn tmpfs(
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
    set_attributes(mount.as_fd(), &MountAttr { attr_set: set, attr_clr: 0, propagation: MS_PRIVATE, userns_fd: 0 })?;
    attach(mount.as_fd(), target)
}

/// Has nobody write through any mount at or below `root`.
pub(crate) fn make_read_only(root: BorrowedFd<'_>) -> io::Result<()> {
    set_attributes(root, &MountAttr { attr_set: MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 })
}

fn set_attributes(tree: BorrowedFd<'_>, attributes: &MountAttr) -> io::Result<()> {
    create_syscall()
        .mount_setattr(tree, Path::new(""), AT_EMPTY_PATH | AT_RECURSIVE, attributes, size_of::<MountAttr>())
        .map_err(io::Error::other)
}

fn attach(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(tree, "", target, "", flags)?)
}

/// Mounts the `/dev/shm` of process `pid` at `at`.
///
/// A mount can only be copied from within its namespace, and its name is only to be looked up there: the container may have
/// put a link in its place. So a process of its own goes there, and sends the copy back.
fn shared_memory(pid: u32, at: &Path) -> io::Result<()> {
    let (ours, theirs) = UnixStream::pair()?;
    let tree = match raw::fork()? {
        raw::Fork::Child => {
            let told = match copy_of_shared_memory(pid) {
                Ok(tree) => fds::send(&theirs, &[0; 4], &[tree.as_fd()]),
                Err(error) => fds::send(&theirs, &error.raw_os_error().unwrap_or(libc::EIO).to_ne_bytes(), &[]),
            };
            std::process::exit(told.is_err().into())
        }
        raw::Fork::Parent(helper) => {
            drop(theirs);
            let mut error = [0; 4];
            let received = fds::recv(&ours, &mut error);
            let _ = rustix::process::waitpid(rustix::process::Pid::from_raw(helper.as_raw()), WaitOptions::empty());
            match received? {
                (4, mut trees) if trees.len() == 1 => trees.remove(0),
                (4, _) => return Err(io::Error::from_raw_os_error(i32::from_ne_bytes(error))),
                _ => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    };
    set_attributes(tree.as_fd(), &MountAttr { attr_set: 0, attr_clr: 0, propagation: MS_PRIVATE, userns_fd: 0 })?;
    fs::create_dir_all(at)?;
    Ok(rustix::mount::move_mount(&tree, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Leaves this process in the mount namespace of `pid`.
fn copy_of_shared_memory(pid: u32) -> io::Result<OwnedFd> {
    nix::sched::setns(File::open(format!("/proc/{pid}/ns/mnt"))?, nix::sched::CloneFlags::CLONE_NEWNS)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let place = rustix::fs::openat2(CWD, "/dev/shm", flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(rustix::mount::open_tree(place, "", flags)?)
}

/// Makes a network namespace with nothing but a loopback that is up. This process does not stay in it: libcontainer takes
/// the namespace it is in itself for the host's.
pub(crate) fn fresh_network() -> Result<File, Failure> {
    let own = || File::open("/proc/self/ns/net");
    let made = own().and_then(|before| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
        Ok((before, own()?))
    });
    let (before, fresh) = made.map_err(|error| failed("cannot make a network namespace", error))?;
    let client = libcontainer::network::wrapper::create_network_client();
    let raised = libcontainer::network::link::LinkClient::new(client).and_then(|mut links| {
        // The loopback is the first interface of every namespace.
        links.set_up(1)
    });
    raised
        .map_err(|error| Failure::new(ErrorKind::Internal, format!("cannot raise the loopback interface: {error}")))?;
    nix::sched::setns(before, nix::sched::CloneFlags::CLONE_NEWNET)
        .map_err(|error| failed("cannot leave a network namespace", error.into()))?;
    Ok(fresh)
}

/// `/dev/null`, for streams that lead nowhere.
pub(crate) fn null() -> io::Result<OwnedFd> {
    Ok(File::options().read(true).write(true).open("/dev/null")?.into())
}
