//! Where a path of a workload leads: into its own tree, or into what it has mounted there.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use bireme_core::executor::{LayerFolders, Power};
use bireme_core::spec::MountSource;
use rustix::fs::{self, AtFlags, Mode, OFlags};
use tokio::sync::OwnedMutexGuard;

use super::path::{base_name, without_parents};
use crate::EngineError;
use crate::container::Handle;
use crate::parts::Parts;
use crate::refusal::{ContainerRefusal, FilesRefusal};
use crate::rootfs;
use crate::standing::{self, Standing};
use crate::view::{MountKind, MountPoint, Status};

/// Where a path of a container leads.
pub(super) struct Place {
    pub(super) root: OwnedFd,
    /// In that root.
    pub(super) inside: String,
    /// What it is called in an archive: the last part of the path that was asked for.
    pub(super) called: String,
    pub(super) read_only: bool,
    /// The root is that of the container, so that a link can be followed from it.
    pub(super) whole: bool,
    /// Keeps a workload that rests from being started meanwhile, where its file tree is written to.
    pub(super) turn: Option<OwnedMutexGuard<()>>,
    /// Keeps what is mounted in the tree of a workload that rests.
    pub(super) _mounts: Option<OwnedFd>,
}

/// Where a path leads: into the container's own tree, or, where it does not run, into a volume or a folder of the
/// host that it would have there.
pub(super) async fn look_up(parts: &Parts, name: &str, path: &str, to_write: bool) -> Result<Place, EngineError> {
    let handle = parts.services.registry.find(name)?;
    let turn = if to_write { Some(handle.tree().await?) } else { None };
    let what = format!("{path} in container {name}");
    let path = path.to_owned();
    crate::patience::ask(&what, move || place_of(&handle, &path, turn)).await
}

/// Blocking, see [`look_up`]; with a `turn`, for writing.
pub(super) fn place_of(handle: &Handle, path: &str, turn: Option<OwnedMutexGuard<()>>) -> Result<Place, EngineError> {
    let (root, runs) = root_of(handle, turn.is_some())?;
    // What runs is written to through its own mount.
    let turn = turn.filter(|_| !runs);
    let path = &*without_parents(path);
    let clean = Path::new("/").join(path.trim_start_matches('/'));
    let called = base_name(path);
    let own = |root, turn, mounts| Place {
        root,
        inside: path.to_owned(),
        called: called.clone(),
        read_only: false,
        whole: true,
        turn,
        _mounts: mounts,
    };
    if runs {
        return Ok(own(root, turn, None));
    }
    // One layer alone is no mount that could refuse.
    let single = handle.config.program.layers().is_some_and(|layers| layers.lower.is_empty());
    if turn.is_some() && single && handle.config.spec.security.read_only_root {
        return Err(FilesRefusal::RootReadOnly.into());
    }
    let mounts: Vec<&MountPoint> = handle.config.mounts.iter().filter(|mount| mount.kind != MountKind::Tmpfs).collect();
    let part_of = |mount: &MountPoint| {
        handle.config.spec.mounts.iter().find_map(|asked| match &asked.source {
            MountSource::Subpath { volume, subpath } if asked.target == mount.target => Some((volume, subpath)),
            _ => None,
        })
    };
    let (root, missing, namespace) = match standing(handle, &root, &mounts, part_of) {
        Some(Standing { root, missing, namespace }) => (root, Some(missing), Some(namespace)),
        None => (root, None, None),
    };
    let over = mounts.iter().filter(|mount| clean.starts_with(&mount.target));
    let Some(mount) = over.max_by_key(|mount| mount.target.len()) else { return Ok(own(root, turn, namespace)) };
    if missing.is_some_and(|missing| !missing.contains(&mount.target)) {
        return Ok(Place { read_only: mount.read_only, ..own(root, turn, namespace) });
    }
    let part = part_of(mount);
    let inside = clean.strip_prefix(&mount.target).unwrap_or(Path::new("")).to_owned();
    let end = ["/.", "/"].into_iter().find(|end| path.ends_with(end)).unwrap_or_default();
    let as_folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = match part {
        None => fs::open(&mount.source, as_folder, Mode::empty()),
        Some((volume, subpath)) => {
            let found = bireme_sys::path::beneath(volume, subpath).map_err(|source| FilesRefusal::Subpath {
                volume: volume.clone(),
                subpath: subpath.clone(),
                source,
            })?;
            fs::openat(&found, ".", as_folder, Mode::empty())
        }
    };
    match folder {
        Ok(root) => Ok(Place {
            root,
            inside: format!("/{}{end}", inside.display()),
            called,
            read_only: mount.read_only,
            whole: false,
            turn,
            _mounts: None,
        }),
        // A single file: it is what stands there.
        Err(_) => Ok(own(root, turn, namespace)),
    }
}

/// The tree of a workload that rests with what is mounted in it. `None` where there is nothing to mount, or it cannot be: then
/// the words of a path tell what it leads into.
pub(super) fn standing<'h>(
    handle: &'h Handle,
    root: &OwnedFd,
    mounts: &[&MountPoint],
    part_of: impl Fn(&MountPoint) -> Option<(&'h PathBuf, &'h PathBuf)>,
) -> Option<Standing> {
    let LayerFolders { lower, upper, .. } = handle.config.program.layers()?;
    // One layer alone is not mounted.
    if mounts.is_empty() || lower.is_empty() {
        return None;
    }
    let mut all: Vec<standing::Mount> = mounts
        .iter()
        .map(|mount| {
            let (source, subpath) = match part_of(mount) {
                Some((volume, subpath)) => (volume.clone(), Some(subpath.clone())),
                None => (mount.source.clone(), None),
            };
            standing::Mount { source, subpath, target: mount.target.clone(), read_only: mount.read_only }
        })
        .collect();
    all.sort_by_key(|mount| mount.target.len());
    let stands = standing::stand(root, upper, &all);
    stands
        .inspect_err(|error| tracing::warn!(workload.id = handle.id(), %error, "the volumes of a workload that rests are not mounted"))
        .ok()
}

/// The root of a workload's file tree, and whether that is its process's. For reading, nothing is mounted that another
/// mount of it would suffer from.
pub(super) fn root_of(handle: &Handle, to_write: bool) -> Result<(OwnedFd, bool), EngineError> {
    let Some(LayerFolders { lower, upper, work }) = handle.config.program.layers() else {
        return Err(handle.lacks(Power::Copy));
    };
    let view = handle.view();
    let opened = match (view.state.status, view.state.pid) {
        (Status::Running | Status::Paused, Some(pid)) => root_of_process(pid).and_then(|root| {
            // Its number may have gone to another process since: then the state has changed, or is about to.
            let same = handle.view().state.pid == Some(pid);
            if same { Ok((root, true)) } else { Err(io::ErrorKind::NotFound.into()) }
        }),
        (Status::Removing | Status::Dead, _) => return Err(busy(handle)),
        // Its own tree refuses then, and its volumes do not.
        _ if to_write && !handle.config.spec.security.read_only_root => {
            rootfs::open_writable(lower, upper, work).map(|root| (root, false))
        }
        _ => {
            let layers: Vec<PathBuf> = lower.iter().cloned().chain([upper.to_owned()]).collect();
            rootfs::open_merged(&layers).map(|root| (root, false))
        }
    };
    opened.map_err(|source| match handle.view().state.status {
        // Its process, or its folder, went while it was looked for.
        status if status != view.state.status => ContainerRefusal::Changing { id: handle.id().to_owned() }.into(),
        _ => EngineError::File { path: upper.to_owned(), source },
    })
}

pub(super) fn busy(handle: &Handle) -> EngineError {
    ContainerRefusal::CopyWhileRemoved { id: handle.id().to_owned() }.into()
}

/// The root of a container's init. A process that shares the engine's own mounts is none.
pub(super) fn root_of_process(pid: u32) -> io::Result<OwnedFd> {
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // Stands for that one process: what is asked below it fails once the process is gone.
    let process = fs::open(format!("/proc/{pid}"), folder, Mode::empty())?;
    let mounts = fs::statat(&process, "ns/mnt", AtFlags::empty())?;
    let own = fs::stat("/proc/self/ns/mnt")?;
    if (mounts.st_dev, mounts.st_ino) == (own.st_dev, own.st_ino) {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the process of the container has ended"));
    }
    Ok(fs::openat(&process, "root", folder, Mode::empty())?)
}
