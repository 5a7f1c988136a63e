//! Opens what a component is given of the file system, before any of its code runs.
//!
//! Each mount becomes a detached copy of the mount, made read-only by the kernel where that is asked for (the second
//! layer beside the engine's own check), and is handed to the host as a descriptor: the host needs no path and no right
//! to mount. Files of the user that the workload runs as (root, if it names none) appear on it as the host's own, and
//! what it makes is stored as that user's: the host process stays nobody, and volumes look as a container leaves them.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use bireme_core::spec::{Mount, MountSource};
use bireme_core::{ErrorKind, ExecError};
use bireme_sys::mounts::set_attributes;
use rustix::fs::{CWD, FileType};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};

use crate::memory;

/// The user and group, by number, that files belong to; from Docker's `user[:group]`. Names mean nothing in a component:
/// they count as root, as does an empty text.
pub(crate) fn owner(user: &str) -> (u32, u32) {
    let (uid, gid) = user.split_once(':').unwrap_or((user, ""));
    (uid.parse().unwrap_or(0), gid.parse().unwrap_or(0))
}

/// The lines of a map in which files of `id` appear as those of the user `host`, and all others as themselves.
fn id_map(id: u32, host: u32) -> String {
    let mut lines = format!("{id} {host} 1\n");
    // What lies between the two that are taken out: the owner's own number, and the host's.
    let (low, high) = (id.min(host), id.max(host));
    for (from, to) in [(0, low), (low + 1, high), (high.saturating_add(1), u32::MAX)] {
        if from < to {
            lines.push_str(&format!("{from} {from} {}\n", to - from));
        }
    }
    lines
}

/// Makes a user namespace whose maps turn files of `owner` into those of the user `host`. It holds no process for long.
///
/// # Errors
/// Those of starting `program`, the host binary, and of writing the maps.
pub(crate) async fn user_namespace(program: &Path, owner: (u32, u32), host: u32) -> std::io::Result<OwnedFd> {
    use tokio::io::AsyncReadExt as _;
    let mut child = tokio::process::Command::new(program)
        .arg("user-namespace")
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdout = child.stdout.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
    // One byte says that it stands in its new namespace.
    stdout.read_exact(&mut [0]).await?;
    let process = format!("/proc/{}", child.id().ok_or(std::io::ErrorKind::NotFound)?);
    std::fs::write(format!("{process}/uid_map"), id_map(owner.0, host))?;
    std::fs::write(format!("{process}/gid_map"), id_map(owner.1, host))?;
    let namespace = std::fs::File::open(format!("{process}/ns/user"))?;
    child.kill().await?;
    Ok(namespace.into())
}

/// Opens the source of `mount` as a folder on a mount of its own, with the owners of `namespace`; what is made in memory
/// is the user `host`'s, and has `memory` bytes where the mount does not say how many.
///
/// # Errors
/// `Invalid` when the source is not a folder; `NotFound` when it is not there.
pub(crate) fn open(
    mount: &Mount,
    namespace: Option<BorrowedFd<'_>>,
    host: u32,
    memory: u64,
) -> Result<OwnedFd, ExecError> {
    match &mount.source {
        MountSource::Subpath { volume, subpath } => {
            let found = bireme_sys::path::beneath(volume, subpath).map_err(|error| {
                let text = bireme_sys::path::not_accessible(volume, subpath, &error);
                ExecError::new(ErrorKind::Invalid, text).caused_by(error)
            })?;
            let stat = rustix::fs::fstat(&found).map_err(std::io::Error::from);
            if stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) != FileType::Directory) {
                return Err(a_file(subpath, &mount.target));
            }
            // By its descriptor: what the name stands for may change, what was found does not.
            let path = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
            let source = MountSource::Bind { path, propagation: Default::default(), recursive: true };
            open(&Mount { source, ..mount.clone() }, namespace, host, memory)
        }
        MountSource::Layers { .. } => Err(ExecError::new(
            ErrorKind::Unsupported,
            format!(
                "the files of an image cannot be mounted at {}: a component takes folders and volumes",
                mount.target
            ),
        )),
        MountSource::Bind { path, recursive, .. } => {
            let refuse = |error: std::io::Error| {
                let absent = error.kind() == std::io::ErrorKind::NotFound;
                let kind = if absent { ErrorKind::NotFound } else { ErrorKind::Internal };
                let text = format!("cannot mount {} at {}", path.display(), mount.target);
                ExecError::new(kind, text).caused_by(error)
            };
            let stat = rustix::fs::stat(path).map_err(|error| refuse(error.into()))?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                return Err(a_file(path, &mount.target));
            }
            if !rustix::process::geteuid().is_root() {
                use rustix::fs::{Mode, OFlags};
                return rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                    .map_err(|error| refuse(error.into()));
            }
            let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            flags.set(OpenTreeFlags::AT_RECURSIVE, *recursive);
            let tree = rustix::mount::open_tree(CWD, path, flags).map_err(|error| refuse(error.into()))?;
            if !mount.read_only {
                bounded_in_memory(&tree, &mount.target, memory)?;
            }
            let read_only = if mount.read_only { libc::MOUNT_ATTR_RDONLY } else { 0 };
            set_attributes(tree.as_fd(), NO_DEVICES | read_only, None, *recursive).map_err(refuse)?;
            if let Some(namespace) = namespace
                && let Err(error) = set_attributes(tree.as_fd(), 0, Some(namespace), *recursive)
            {
                // Not every file system can; then the plain rights of others count.
                tracing::debug!(source = %path.display(), %error, "owners cannot be mapped on this file system");
            }
            Ok(tree)
        }
        MountSource::Tmpfs { size, mode, .. } => {
            let size = memory::of_tmpfs(*size, memory);
            tmpfs(size, *mode, mount.read_only, host).map_err(|error| {
                ExecError::new(ErrorKind::Internal, format!("cannot make a memory folder for {}", mount.target))
                    .caused_by(std::io::Error::from(error))
            })
        }
    }
}

/// Files that every folder in memory may hold.
const LEAST_FILES: u64 = 1024;

/// What holds for all that a host is given: containers that share a volume may make device nodes and setuid programs in it,
/// whose own fences do not hold for the host.
pub(crate) const NO_DEVICES: u64 = libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;

fn a_file(path: &Path, target: &str) -> ExecError {
    let text = format!(
        "cannot mount {} at {target}: it is a file, and a component can only be given folders; mount the folder it is in",
        path.display()
    );
    ExecError::new(ErrorKind::Invalid, text)
}

/// That a folder to write to is not one in memory with more than `most` bytes: what is written there counts as its host's, and
/// the kernel would end that with all components of the app.
fn bounded_in_memory(tree: &OwnedFd, target: &str, most: u64) -> Result<(), ExecError> {
    const TMPFS: u64 = 0x0102_1994;
    let Ok(found) = rustix::fs::fstatfs(tree) else { return Ok(()) };
    let kind = u64::try_from(found.f_type).unwrap_or_default();
    let size = found.f_blocks.saturating_mul(u64::try_from(found.f_bsize).unwrap_or_default());
    if kind != TMPFS || size <= most {
        return Ok(());
    }
    let text = format!(
        "cannot mount at {target}: the folder is in memory and may take {} MiB, more than an instance of the component may have ({} MiB); mount it read-only, give the volume a size (docker volume create -o type=tmpfs -o o=size=16m), or raise the memory limit",
        size >> 20,
        most >> 20
    );
    Err(ExecError::new(ErrorKind::Invalid, text))
}

/// Of `size` bytes, with a file for each page of them: names take memory too.
fn tmpfs(size: u64, mode: Option<u32>, read_only: bool, host: u32) -> rustix::io::Result<OwnedFd> {
    use rustix::mount::{fsconfig_create, fsconfig_set_string, fsmount, fsopen};
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&fs, "size", size.to_string())?;
    fsconfig_set_string(&fs, "nr_inodes", (size / 4096).max(LEAST_FILES).to_string())?;
    fsconfig_set_string(&fs, "mode", format!("{:o}", mode.unwrap_or(0o1777)))?;
    fsconfig_set_string(&fs, "uid", host.to_string())?;
    fsconfig_set_string(&fs, "gid", host.to_string())?;
    fsconfig_create(&fs)?;
    let mut attributes =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, read_only);
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_change_places_with_the_host() {
        for (id, expected) in [
            (0, "0 64530 1\n1 1 64529\n64531 64531 4294902764\n"),
            (1000, "1000 64530 1\n0 0 1000\n1001 1001 63529\n64531 64531 4294902764\n"),
            (64530, "64530 64530 1\n0 0 64530\n64531 64531 4294902764\n"),
        ] {
            assert_eq!(id_map(id, 64_530), expected);
        }
        assert_eq!((owner(""), owner("1000:7"), owner("app"), owner("5")), ((0, 0), (1000, 7), (0, 0), (5, 0)));
    }

    /// As the kernel tells of the mount that `fd` is on.
    fn flags(fd: &OwnedFd) -> rustix::fs::StatVfsMountFlags {
        rustix::fs::fstatvfs(fd).unwrap().f_flag
    }

    /// Its pages count against the host's process, and the kernel would end that with all components of the app.
    #[test]
    fn a_folder_in_memory_takes_no_more_than_an_instance_may() {
        use rustix::fs::{Mode, OFlags};
        if !rustix::process::geteuid().is_root() {
            return;
        }
        for (size, most) in [(None, 4 << 20), (Some(0), 4 << 20), (Some(8 << 20), 8 << 20)] {
            let source = MountSource::Tmpfs { size, mode: None, options: Vec::new() };
            let mount = Mount { source, target: "/t".to_owned(), read_only: false };
            let tree = open(&mount, None, 64_530, 4 << 20).unwrap();
            let file = rustix::fs::openat(&tree, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
            let block = vec![1; 1 << 20];
            let mut written = 0;
            let end = loop {
                match rustix::io::write(&file, &block) {
                    Ok(count) => written += count,
                    Err(error) => break error,
                }
            };
            assert_eq!((end, written), (rustix::io::Errno::NOSPC, most), "{size:?}");
            let files = (0..).take_while(|n| {
                rustix::fs::openat(&tree, n.to_string(), OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).is_ok()
            });
            assert!(files.count() <= 2048);
        }
    }

    #[test]
    fn a_volume_in_memory_has_a_bound_too() {
        use rustix::mount::{MountFlags, UnmountFlags};
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        rustix::mount::mount("volume", dir.path(), "tmpfs", MountFlags::empty(), Some(c"size=8m")).unwrap();
        let bind = MountSource::Bind { path: dir.path().to_owned(), propagation: Default::default(), recursive: true };
        for (limit, read_only, taken) in [(8 << 20, false, true), (4 << 20, true, true), (4 << 20, false, false)] {
            let mount = Mount { source: bind.clone(), target: "/v".to_owned(), read_only };
            let opened = open(&mount, None, 64_530, limit);
            assert_eq!(opened.is_ok(), taken, "{limit} {read_only}");
            if let Err(refused) = opened {
                let text = refused.to_string();
                assert!(text.contains("may take 8 MiB") && text.contains("o=size="), "{text}");
            }
        }
        rustix::mount::unmount(dir.path(), UnmountFlags::DETACH).unwrap();
    }

    #[test]
    fn no_mount_of_a_component_has_devices_at_any_depth() {
        use rustix::fs::{Mode, OFlags, StatVfsMountFlags as Flags};
        use rustix::mount::{MountFlags, UnmountFlags};
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (volume, inner) = (dir.path().join("volume"), dir.path().join("volume/part/inner"));
        std::fs::create_dir_all(&inner).unwrap();
        rustix::mount::mount("inner", &inner, "tmpfs", MountFlags::empty(), None).unwrap();
        let device = rustix::fs::makedev(1, 5);
        for folder in [&volume, &volume.join("part"), &inner] {
            let mode = Mode::from_raw_mode(0o666);
            rustix::fs::mknodat(CWD, folder.join("zero"), FileType::CharacterDevice, mode, device).unwrap();
        }
        let bind = |recursive| MountSource::Bind { path: volume.clone(), propagation: Default::default(), recursive };
        let sources = [
            (bind(true), vec!["zero", "part/zero", "part/inner/zero"]),
            (bind(false), vec!["zero", "part/zero"]),
            (
                MountSource::Subpath { volume: volume.clone(), subpath: PathBuf::from("part") },
                vec!["zero", "inner/zero"],
            ),
            (MountSource::Tmpfs { size: None, mode: None, options: Vec::new() }, vec![]),
        ];
        for (source, nodes) in sources {
            for read_only in [false, true] {
                let mount = Mount { source: source.clone(), target: "/v".to_owned(), read_only };
                let tree = open(&mount, None, 64_530, 1 << 40).unwrap();
                let set = flags(&tree);
                assert!(set.contains(Flags::NODEV | Flags::NOSUID | Flags::NOEXEC), "{mount:?}: {set:?}");
                assert_eq!(set.contains(Flags::RDONLY), read_only, "{mount:?}");
                for node in &nodes {
                    let opened = rustix::fs::openat(&tree, *node, OFlags::RDONLY, Mode::empty());
                    assert_eq!(opened.err(), Some(rustix::io::Errno::ACCESS), "{node} in {mount:?}");
                }
            }
        }
        rustix::mount::unmount(&inner, UnmountFlags::DETACH).unwrap();
    }
}
