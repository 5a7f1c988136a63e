//! Copying into and out of a workload's file tree: Docker's archive requests.
//!
//! A running container's tree is reached through its init's root, a stopped one's through an overlay mount that is
//! attached nowhere. Every path is resolved by the kernel inside that root (`openat2`), component by component for what
//! an archive names, so that no link of the container or of the archive leads out of it.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bireme_core::executor::{LayerFolders, Power};
use bireme_core::spec::MountSource;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags};
use tar::EntryType;
use tokio::sync::OwnedMutexGuard;

use crate::EngineError;
use crate::container::Handle;
use crate::parts::Parts;
use crate::refusal::{ContainerRefusal, FilesRefusal};
use crate::rootfs;
use crate::standing::{self, Standing};
use crate::view::{MountKind, MountPoint, Status};
use crate::xattr;
use bireme_image::Wanted;
use bireme_image::content::{self, Sparse};
use bireme_image::tar_bounds::Bounded;

/// What stands at a path, without following a final link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathStat {
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// `st_mode`, type bits included.
    pub mode: u32,
    /// Seconds and nanoseconds since the Unix epoch.
    pub modified: (i64, u32),
    /// Where a link leads in the end, from the container's root; empty for anything else.
    pub link: String,
}

/// Where a path of a container leads.
struct Place {
    root: OwnedFd,
    /// In that root.
    inside: String,
    /// What it is called in an archive: the last part of the path that was asked for.
    called: String,
    read_only: bool,
    /// The root is that of the container, so that a link can be followed from it.
    whole: bool,
    /// Keeps a workload that rests from being started meanwhile, where its file tree is written to.
    turn: Option<OwnedMutexGuard<()>>,
    /// Keeps what is mounted in the tree of a workload that rests.
    _mounts: Option<OwnedFd>,
}

/// How an archive is unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpack {
    /// A folder is not replaced by what is none, nor the other way round.
    pub keep_kinds: bool,
}

/// Bytes of a file that an archive tells to be mostly zeros.
const LONGEST_SPARSE: u64 = 128 << 30;

/// More entries than any copy by hand; keeps a hostile archive from filling the tree with nothing.
const MOST_ENTRIES: usize = 1_000_000;

/// What stands at `path`.
///
/// # Errors
/// `NotFound` for the workload or the path; `Unsupported` for kinds without a file tree.
pub(crate) async fn stat_path(parts: &Arc<Parts>, name: &str, path: &str) -> Result<PathStat, EngineError> {
    let (of, name, path) = (Arc::clone(parts), name.to_owned(), path.to_owned());
    let handle = parts.services.registry.find(&name)?;
    parts.volumes.with_mounted(&handle, async move { stat_mounted(&of, &name, &path).await }).await
}

async fn stat_mounted(parts: &Parts, name: &str, path: &str) -> Result<PathStat, EngineError> {
    let Place { root, inside, called, whole, _mounts: mounts, .. } = look_up(parts, name, path, false).await?;
    let handle = parts.services.registry.find(name)?;
    let (name, path) = (name.to_owned(), path.to_owned());
    let look = move || {
        let _mounts = mounts;
        let look = || {
            let (parent, base) = parent_of(&root, &inside)?;
            not_of_the_kernel(parent.as_fd())?;
            let mut found = stat(parent.as_fd(), &base)?;
            if whole && !found.link.is_empty() {
                found.link = follow(&root, Path::new(&inside))?;
            }
            Ok(PathStat { name: called, ..found })
        };
        look().map_err(|error| at_path(&name, &path, error))
    };
    handle.copying(look).await
}

/// Writes what stands at `path` to `out` as an archive whose entries begin with its base name.
pub(crate) async fn read_archive(
    parts: &Arc<Parts>,
    name: &str,
    path: &str,
    out: impl Write + Send + 'static,
) -> Result<(), EngineError> {
    let (of, name, path) = (Arc::clone(parts), name.to_owned(), path.to_owned());
    let handle = parts.services.registry.find(&name)?;
    parts.volumes.with_mounted(&handle, async move { read_mounted(&of, &name, &path, out).await }).await
}

async fn read_mounted(
    parts: &Parts,
    name: &str,
    path: &str,
    out: impl Write + Send + 'static,
) -> Result<(), EngineError> {
    let Place { root, inside, called, _mounts: mounts, .. } = look_up(parts, name, path, false).await?;
    let handle = parts.services.registry.find(name)?;
    handle.emit(&parts.services.events, "archive-path", []);
    let (name, path) = (name.to_owned(), path.to_owned());
    let copy = move || {
        let _mounts = mounts;
        let copy = || {
            let (parent, base) = parent_of(&root, &inside)?;
            not_of_the_kernel(parent.as_fd())?;
            let mut archive = Packer::new(out);
            archive.append(parent.as_fd(), &base, Path::new(&called), 0)?;
            archive.finish()
        };
        copy().map_err(|error| at_path(&name, &path, error))
    };
    handle.copying(copy).await
}

/// Unpacks an archive into the folder at `path`. Owners are those of the archive.
///
/// # Errors
/// `NotFound` when `path` is no folder; `Invalid` for an archive that is damaged or names paths outside.
pub(crate) async fn write_archive(
    parts: &Arc<Parts>,
    name: &str,
    path: &str,
    archive: impl Read + Send + 'static,
    how: Unpack,
) -> Result<(), EngineError> {
    let (of, name, path) = (Arc::clone(parts), name.to_owned(), path.to_owned());
    let handle = parts.services.registry.find(&name)?;
    parts.volumes.with_mounted(&handle, async move { write_mounted(&of, &name, &path, archive, how).await }).await
}

async fn write_mounted(
    parts: &Parts,
    name: &str,
    path: &str,
    archive: impl Read + Send + 'static,
    how: Unpack,
) -> Result<(), EngineError> {
    let Place { root, inside, read_only, turn, _mounts: mounts, .. } = look_up(parts, name, path, true).await?;
    if read_only {
        return Err(FilesRefusal::MountReadOnly.into());
    }
    let handle = parts.services.registry.find(name)?;
    let (name, path) = (name.to_owned(), path.to_owned());
    let (wanted, _waiting) = bireme_image::Wanted::until_dropped();
    let unpack = move || {
        let (_turn, _mounts) = (turn, mounts);
        match in_root(&root, &inside, OFlags::DIRECTORY | OFlags::RDONLY) {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(FilesRefusal::NotAFolder.into());
            }
            other => drop(other.map_err(|error| at_path(&name, &path, error))?),
        }
        extract(&root, Path::new(&inside), archive, how, &wanted).map_err(|error| at_path(&name, &path, error))
    };
    handle.copying(unpack).await?;
    handle.emit(&parts.services.events, "extract-to-dir", []);
    Ok(())
}

/// Where a path leads: into the container's own tree, or, where it does not run, into a volume or a folder of the
/// host that it would have there.
async fn look_up(parts: &Parts, name: &str, path: &str, to_write: bool) -> Result<Place, EngineError> {
    let handle = parts.services.registry.find(name)?;
    let turn = if to_write { Some(handle.tree().await?) } else { None };
    let what = format!("{path} in container {name}");
    let path = path.to_owned();
    crate::patience::ask(&what, move || place_of(&handle, &path, turn)).await
}

/// Blocking, see [`look_up`]; with a `turn`, for writing.
fn place_of(handle: &Handle, path: &str, turn: Option<OwnedMutexGuard<()>>) -> Result<Place, EngineError> {
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
fn standing<'h>(
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
fn root_of(handle: &Handle, to_write: bool) -> Result<(OwnedFd, bool), EngineError> {
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

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| EngineError::Stopping)?
}

fn busy(handle: &Handle) -> EngineError {
    ContainerRefusal::CopyWhileRemoved { id: handle.id().to_owned() }.into()
}

fn at_path(name: &str, path: &str, error: io::Error) -> EngineError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            FilesRefusal::NotFound { path: path.to_owned(), container: name.to_owned() }.into()
        }
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => {
            FilesRefusal::Archive { path: path.to_owned(), container: name.to_owned(), source: error }.into()
        }
        io::ErrorKind::ReadOnlyFilesystem => FilesRefusal::RootReadOnly.into(),
        _ => EngineError::File { path: PathBuf::from(path), source: error },
    }
}

/// The root of a container's init. A process that shares the engine's own mounts is none.
fn root_of_process(pid: u32) -> io::Result<OwnedFd> {
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

fn in_root(root: impl AsFd, path: impl AsRef<Path>, flags: OFlags) -> io::Result<OwnedFd> {
    let relative = path.as_ref().strip_prefix("/").unwrap_or(path.as_ref());
    let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(bireme_sys::path::open(root, relative, flags, Mode::empty(), how)?)
}

/// The folder that holds `path`, and its name there. What must be a folder, as it ends in `/` or `/.`, is resolved as one
/// and called `.`: a link at the end is followed then, as the kernel does.
fn parent_of(root: &OwnedFd, path: &str) -> io::Result<(OwnedFd, OsString)> {
    let clean: PathBuf = Path::new(path).components().filter(|part| !matches!(part, Component::CurDir)).collect();
    let folder = path.ends_with('/') || path.ends_with("/.");
    match (clean.parent(), clean.file_name()) {
        (Some(parent), Some(base)) if !folder => {
            Ok((in_root(root, parent, OFlags::PATH | OFlags::DIRECTORY)?, base.to_owned()))
        }
        // `/`, or ends in `..`: a folder, too.
        _ => Ok((in_root(root, &clean, OFlags::PATH | OFlags::DIRECTORY)?, OsStr::new(".").to_owned())),
    }
}

/// Takes `..` and what stands before it out of a path, as its words say and whatever links there are; what comes at the end
/// of a path stays. Source: `filepath.Join("/", path)` and `PreserveTrailingDotOrSeparator` of moby.
fn without_parents(path: &str) -> Cow<'_, str> {
    if !Path::new(path).components().any(|part| part == Component::ParentDir) {
        return Cow::Borrowed(path);
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    let end = ["/.", "/"].into_iter().find(|end| !parts.is_empty() && path.ends_with(end)).unwrap_or_default();
    Cow::Owned(format!("/{}{end}", parts.join("/")))
}

/// Refuses what lies among the kernel's own files: they have no length, and say of the machine what the container need not
/// know. Docker's engine has none of them mounted when it copies.
fn not_of_the_kernel(folder: BorrowedFd<'_>) -> io::Result<()> {
    if bireme_sys::path::is_kernels(folder)? { Err(io::ErrorKind::NotFound.into()) } else { Ok(()) }
}

/// The last part of a path, as Go's `filepath.Base` has it.
fn base_name(path: &str) -> String {
    match path.trim_end_matches('/').rsplit('/').next() {
        None | Some("") => "/".to_owned(),
        Some(base) => base.to_owned(),
    }
}

/// Links that are followed, as the kernel does.
const MOST_LINKS: usize = 40;

/// Where `path` leads when every link on the way is followed inside `root`; as far as it goes, where one leads nowhere.
///
/// Source: `symlink.FollowSymlinkInScope` of moby.
fn follow(root: &OwnedFd, path: &Path) -> io::Result<String> {
    let mut left: VecDeque<OsString> = parts_of(path);
    let mut done = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = left.pop_front() {
        if part == ".." {
            done.pop();
            continue;
        }
        let link = in_root(root, &done, OFlags::PATH | OFlags::DIRECTORY)
            .and_then(|parent| Ok(fs::readlinkat(&parent, &part, Vec::new())?));
        let Ok(link) = link else {
            done.push(part);
            continue;
        };
        links += 1;
        if links > MOST_LINKS {
            return Err(rustix::io::Errno::LOOP.into());
        }
        let link = Path::new(OsStr::from_bytes(link.to_bytes()));
        if link.is_absolute() {
            done = PathBuf::from("/");
        }
        for part in parts_of(link).into_iter().rev() {
            left.push_front(part);
        }
    }
    Ok(done.to_string_lossy().into_owned())
}

/// The names of a path, `..` among them.
fn parts_of(path: &Path) -> VecDeque<OsString> {
    let names = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    names.map(|part| part.as_os_str().to_owned()).collect()
}

fn stat(parent: BorrowedFd<'_>, base: &OsStr) -> io::Result<PathStat> {
    let stat = fs::statat(parent, base, AtFlags::SYMLINK_NOFOLLOW)?;
    let link = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => fs::readlinkat(parent, base, Vec::new())?.to_string_lossy().into_owned(),
        _ => String::new(),
    };
    Ok(PathStat {
        name: if base == "." { "/".to_owned() } else { base.to_string_lossy().into_owned() },
        size: stat.st_size.max(0) as u64,
        mode: stat.st_mode,
        modified: (stat.st_mtime as i64, stat.st_mtime_nsec as u32),
        link,
    })
}

const DEEPEST: usize = 200;

/// Where files with several names were written first, as far as [`MOST_LINKED`] bytes of paths go; of more, each name
/// gets a copy. A container makes paths as long and names as many as it likes.
#[derive(Default)]
pub(crate) struct Linked {
    first: HashMap<(u64, u64), PathBuf>,
    bytes: usize,
}

/// Bytes of paths, and what each costs beside its text.
const MOST_LINKED: usize = 16 << 20;

impl Linked {
    /// Under which name the file was written before; otherwise `name` is remembered.
    pub(crate) fn before(&mut self, stat: &fs::Stat, name: &Path) -> Option<&Path> {
        let key = (stat.st_dev, stat.st_ino);
        // Asked twice, as what is given back is borrowed for as long as the answer.
        if !self.first.contains_key(&key) {
            let bytes = name.as_os_str().len() + size_of::<((u64, u64), PathBuf)>();
            if self.bytes + bytes <= MOST_LINKED {
                self.bytes += bytes;
                self.first.insert(key, name.to_owned());
            }
            return None;
        }
        self.first.get(&key).map(PathBuf::as_path)
    }
}

/// Packs trees of a container into one archive.
pub(crate) struct Packer<W: Write> {
    archive: tar::Builder<W>,
    linked: Linked,
}

impl<W: Write> Packer<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { archive: tar::Builder::new(out), linked: Linked::default() }
    }

    pub(crate) fn finish(self) -> io::Result<()> {
        self.archive.into_inner()?.flush()
    }

    /// Adds what stands at `base`, with all below it. What vanishes meanwhile is left out, but for the first.
    pub(crate) fn append(
        &mut self,
        parent: BorrowedFd<'_>,
        base: &OsStr,
        as_name: &Path,
        depth: usize,
    ) -> io::Result<()> {
        if depth > DEEPEST {
            return Err(io::Error::other("the tree is nested too deeply to copy"));
        }
        let stat = match fs::statat(parent, base, AtFlags::SYMLINK_NOFOLLOW) {
            Err(rustix::io::Errno::NOENT) if depth > 0 => return Ok(()),
            other => other?,
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            if stat.st_nlink > 1
                && let Some(first) = self.linked.before(&stat, as_name)
            {
                let mut header = header(&stat, EntryType::Link);
                return add(&mut self.archive, &mut header, as_name, first.as_os_str().as_bytes(), io::empty());
            }
            if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                append_attributes(&mut self.archive, parent, base)?;
            }
            // Sockets and devices are not copied out, as they mean nothing elsewhere.
            return append_one(&mut self.archive, parent, base, as_name, &stat);
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = match fs::openat(parent, base, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) if depth > 0 => return Ok(()),
            other => other?,
        };
        append_attributes(&mut self.archive, parent, base)?;
        let mut header = header(&stat, EntryType::Directory);
        // A slash at the end, as Go's writer has it and some readers look for.
        add(&mut self.archive, &mut header, &as_name.join(""), &[], io::empty())?;
        // What is on another file system than its parent may be the kernel's.
        if fs::fstat(parent)?.st_dev != stat.st_dev && bireme_sys::path::is_kernels(folder.as_fd())? {
            return Ok(());
        }
        for entry in fs::Dir::read_from(&folder)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                self.append(folder.as_fd(), name, &as_name.join(name), depth + 1)?;
            }
        }
        Ok(())
    }
}

/// What an archive says of a file, its size aside.
pub(crate) fn header(stat: &fs::Stat, kind: EntryType) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(u64::from(stat.st_uid));
    header.set_gid(u64::from(stat.st_gid));
    header.set_mtime(stat.st_mtime.max(0) as u64);
    header.set_size(0);
    header
}

/// Adds the extended attributes that go with what stands at `base`, for the entry that follows.
pub(crate) fn append_attributes<W: Write>(
    archive: &mut tar::Builder<W>,
    parent: BorrowedFd<'_>,
    base: &OsStr,
) -> io::Result<()> {
    let attributes = match xattr::at(parent, base) {
        // It vanished: nothing follows.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    if attributes.is_empty() {
        return Ok(());
    }
    let named: Vec<_> =
        attributes.iter().map(|(name, value)| (format!("{}{name}", xattr::PAX_PREFIX), value.as_slice())).collect();
    archive.append_pax_extensions(named.iter().map(|(name, value)| (name.as_str(), *value)))
}

/// Adds an entry whose name and link stand in the archive byte for byte: `./a` is not `a`.
fn add<W: Write>(
    archive: &mut tar::Builder<W>,
    header: &mut tar::Header,
    name: &Path,
    link: &[u8],
    content: impl Read,
) -> io::Result<()> {
    let name = name.as_os_str().as_bytes();
    for (kind, text) in [(EntryType::GNULongLink, link), (EntryType::GNULongName, name)] {
        if text.len() > 100 {
            let mut long = tar::Header::new_gnu();
            long.set_entry_type(kind);
            long.set_mode(0o644);
            put(&mut long, b"././@LongLink", &[]);
            long.set_size(text.len() as u64 + 1);
            long.set_cksum();
            archive.append(&long, text.chain(&[0_u8][..]))?;
        }
    }
    put(header, name, link);
    header.set_cksum();
    archive.append(header, content)
}

/// Writes as much of a name and a link as a header has room for.
fn put(header: &mut tar::Header, name: &[u8], link: &[u8]) {
    let old = header.as_old_mut();
    for (field, text) in [(&mut old.name, name), (&mut old.linkname, link)] {
        let length = text.len().min(field.len());
        field[..length].copy_from_slice(&text[..length]);
    }
}

/// Adds a file, link or pipe; what is none of these is left out.
pub(crate) fn append_one<W: Write>(
    archive: &mut tar::Builder<W>,
    parent: BorrowedFd<'_>,
    base: &OsStr,
    as_name: &Path,
    stat: &fs::Stat,
) -> io::Result<()> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let Some(file) = open_file(parent, base)? else { return Ok(()) };
            let size = file.metadata()?.len();
            let mut header = header(stat, EntryType::Regular);
            header.set_size(size);
            // A file that shrinks meanwhile is filled up, one that grows is cut: the header's size holds.
            add(archive, &mut header, as_name, &[], file.take(size).chain(io::repeat(0)).take(size))
        }
        FileType::Symlink => {
            let target = fs::readlinkat(parent, base, Vec::new())?;
            add(archive, &mut header(stat, EntryType::Symlink), as_name, target.to_bytes(), io::empty())
        }
        FileType::Fifo => add(archive, &mut header(stat, EntryType::Fifo), as_name, &[], io::empty()),
        _ => Ok(()),
    }
}

/// A file to be read; `None` for what is no file any more. Something else may have taken its place since it was looked
/// at: a device must not even be opened.
fn open_file(parent: BorrowedFd<'_>, base: &OsStr) -> io::Result<Option<std::fs::File>> {
    let stands = match fs::openat(parent, base, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        other => other?,
    };
    if FileType::from_raw_mode(fs::fstat(&stands)?.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    let path = format!("/proc/self/fd/{}", stands.as_raw_fd());
    let file = fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    Ok(Some(file.into()))
}

/// `archive` may be compressed, as Docker takes it.
fn extract(root: &OwnedFd, folder: &Path, archive: impl Read, how: Unpack, wanted: &Wanted) -> io::Result<()> {
    let mut archive = tar::Archive::new(Bounded::new(bireme_image::open_bounded(archive)?));
    let mut folders = FolderTimes::default();
    let mut made = 0;
    for entry in archive.entries()? {
        count(&mut made)?;
        wanted.check()?;
        let mut entry = entry?;
        let records = records_of(&mut entry)?;
        let name = match records.sparse.name() {
            Some(name) => PathBuf::from(OsStr::from_bytes(name)),
            None => entry.path()?.into_owned(),
        };
        let inside = plain(&name)?;
        if inside.as_os_str().is_empty() {
            continue;
        }
        let (parent, base) = make_parents(root, folder, &inside, &mut made)?;
        place(root, folder, &mut entry, &records, (parent.as_fd(), &base), how, wanted)?;
        if entry.header().entry_type() == EntryType::Directory {
            folders.remember(folder.join(&inside), entry.header().mtime().unwrap_or(0));
        }
    }
    folders.set(root);
    Ok(())
}

/// Counts an entry, or a folder that no entry names.
fn count(made: &mut usize) -> io::Result<()> {
    *made += 1;
    if *made > MOST_ENTRIES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it has more than {MOST_ENTRIES} entries")));
    }
    Ok(())
}

/// Times of folders, which what is put into them changes: set at the end.
#[derive(Default)]
struct FolderTimes {
    folders: Vec<(PathBuf, u64)>,
    bytes: usize,
}

impl FolderTimes {
    /// Bytes of paths that are remembered. Folders beyond keep the time at which they were filled.
    const MOST: usize = 16 << 20;

    fn remember(&mut self, path: PathBuf, modified: u64) {
        self.bytes += path.as_os_str().len() + size_of::<(PathBuf, u64)>();
        if self.bytes <= Self::MOST {
            self.folders.push((path, modified));
        }
    }

    fn set(self, root: &OwnedFd) {
        for (path, modified) in self.folders {
            // One that a later entry replaced has no time to be set.
            let set = in_root(root, &path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW)
                .and_then(|folder| Ok(fs::futimens(&folder, &times(modified))?));
            if let Err(error) = set {
                tracing::debug!(path = %path.display(), %error, "the time of a folder is not set");
            }
        }
    }
}

/// Seconds since the Unix epoch, for both times of a file.
fn times(modified: u64) -> fs::Timestamps {
    let time = rustix::time::Timespec { tv_sec: i64::try_from(modified).unwrap_or(0), tv_nsec: 0 };
    fs::Timestamps { last_access: time, last_modification: time }
}

/// How often a folder is emptied into which a container goes on putting files.
const MOST_ROUNDS: usize = 64;

/// Removes what stands at `base`, a folder with all that is in it. What is mounted there, or below, is not touched.
fn remove(parent: BorrowedFd<'_>, base: &OsStr, depth: usize) -> io::Result<()> {
    match fs::unlinkat(parent, base, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(rustix::io::Errno::ISDIR) => {}
        Err(error) => return Err(error.into()),
    }
    if depth > DEEPEST {
        return Err(io::Error::other("a folder to be replaced is nested too deeply"));
    }
    let folder = fs::openat(parent, base, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let mount = |of: BorrowedFd<'_>| fs::statx(of, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).map(|s| s.stx_mnt_id);
    if mount(parent)? != mount(folder.as_fd())? {
        return Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            format!("{} is mounted there and is not replaced", base.display()),
        ));
    }
    for _ in 0..MOST_ROUNDS {
        // Removing while reading may skip entries: read anew until there is none. Never all names at once: a container
        // makes as many as it likes.
        let mut any = false;
        for entry in fs::Dir::read_from(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                remove(folder.as_fd(), OsStr::from_bytes(name), depth + 1)?;
                any = true;
            }
        }
        if !any {
            break;
        }
    }
    Ok(fs::unlinkat(parent, base, AtFlags::REMOVEDIR)?)
}

/// What extended headers say of an entry.
struct Records {
    /// Extended attributes.
    attributes: Vec<(String, Vec<u8>)>,
    sparse: Sparse,
}

fn records_of<R: Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<Records> {
    let (mut attributes, mut sparse) = (Vec::new(), Sparse::default());
    let Some(records) = entry.pax_extensions()? else { return Ok(Records { attributes, sparse }) };
    for record in records {
        let record = record?;
        if let Ok(key) = record.key() {
            sparse.note(key, record.value_bytes())?;
        }
        let name = record.key().ok().and_then(|key| key.strip_prefix(xattr::PAX_PREFIX));
        if let Some(name) = name.filter(|name| xattr::travels(name)) {
            attributes.push((name.to_owned(), record.value_bytes().to_vec()));
        }
    }
    Ok(Records { attributes, sparse })
}

/// The path without its root and `.`; `..` is refused.
fn plain(path: &Path) -> io::Result<PathBuf> {
    let mut inside = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => inside.push(part),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            Component::ParentDir => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{} leads out of the folder", path.display()),
                ));
            }
        }
    }
    Ok(inside)
}

fn make_parents(root: &OwnedFd, folder: &Path, inside: &Path, made: &mut usize) -> io::Result<(OwnedFd, OsString)> {
    let base = inside.file_name().unwrap_or_default().to_owned();
    let mut path = folder.to_owned();
    let mut parent = in_root(root, &path, OFlags::PATH | OFlags::DIRECTORY)?;
    for part in inside.parent().unwrap_or(Path::new("")).components() {
        path.push(part);
        parent = match in_root(root, &path, OFlags::PATH | OFlags::DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                count(made)?;
                fs::mkdirat(&parent, part.as_os_str(), Mode::from_raw_mode(0o755))?;
                in_root(root, &path, OFlags::PATH | OFlags::DIRECTORY)?
            }
            other => other?,
        };
    }
    Ok((parent, base))
}

fn place<R: Read>(
    root: &OwnedFd,
    folder: &Path,
    entry: &mut tar::Entry<'_, R>,
    records: &Records,
    (parent, base): (BorrowedFd<'_>, &OsStr),
    how: Unpack,
    wanted: &Wanted,
) -> io::Result<()> {
    let header = entry.header();
    let folder_of_old = bireme_image::header_is_oldest(header) && entry.path_bytes().ends_with(b"/");
    let kind = if folder_of_old { EntryType::Directory } else { header.entry_type() };
    let bad = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    // What a writer left out is 0, as for Go's reader.
    let number = |field: &[u8], read: io::Result<u64>| match read {
        Err(error) if !bireme_image::blank(field) => Err(bad(error.to_string())),
        read => Ok(read.unwrap_or(0)),
    };
    let old = header.as_old();
    let mode = number(&old.mode, header.mode().map(u64::from))?;
    let mode = Mode::from_raw_mode(u32::try_from(mode & 0o7777).unwrap_or(0));
    let owner = |value: u64| u32::try_from(value).map_err(|_| bad("an owner out of range".to_owned()));
    let (user, group) = (owner(number(&old.uid, header.uid())?)?, owner(number(&old.gid, header.gid())?)?);
    let modified = number(&old.mtime, header.mtime())?;
    let (user, group) = (Some(fs::Uid::from_raw(user)), Some(fs::Gid::from_raw(group)));
    let stands = fs::statat(parent, base, AtFlags::SYMLINK_NOFOLLOW).ok();
    let folder_stands = stands.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
    let folder_comes = kind == EntryType::Directory;
    if how.keep_kinds && stands.is_some() && folder_stands != folder_comes && kind != EntryType::XGlobalHeader {
        let (old, new) = if folder_stands { ("directory", "non-directory") } else { ("non-directory", "directory") };
        return Err(bad(format!("cannot overwrite {old} {:?} with {new}", base.display())));
    }
    let clear = || remove(parent, base, 0);
    let give =
        |file: BorrowedFd<'_>| records.attributes.iter().try_for_each(|(name, value)| xattr::give(file, name, value));
    match kind {
        EntryType::Directory => {
            if !folder_stands {
                clear()?;
                fs::mkdirat(parent, base, Mode::RWXU)?;
            }
            let made = fs::openat(parent, base, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            fs::fchown(&made, user, group)?;
            fs::fchmod(&made, mode)?;
            give(made.as_fd())
        }
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            clear()?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = std::fs::File::from(fs::openat(parent, base, flags, Mode::RUSR | Mode::WUSR)?);
            let is_sparse = kind == EntryType::GNUSparse || records.sparse.is_sparse();
            // Zeros that the archive only tells of are no reading from which to notice that nobody waits any more.
            let mut look = |length: u64| {
                if is_sparse && length > LONGEST_SPARSE {
                    return Err(bad(format!("a sparse file is longer than {LONGEST_SPARSE} bytes")));
                }
                wanted.check()
            };
            look(entry.size())?;
            content::write(entry, &records.sparse, &mut file, &mut look)?;
            fs::fchown(&file, user, group)?;
            fs::fchmod(&file, mode)?;
            // After the owner, whose change takes a file's capabilities away.
            give(file.as_fd())?;
            Ok(fs::futimens(&file, &times(modified))?)
        }
        EntryType::Symlink => {
            let target = entry
                .link_name()?
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a link without a target"))?;
            clear()?;
            fs::symlinkat(target.as_ref(), parent, base)?;
            Ok(fs::chownat(parent, base, user, group, AtFlags::SYMLINK_NOFOLLOW)?)
        }
        EntryType::Link => {
            let target = entry
                .link_name()?
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a link without a target"))?;
            let target = folder.join(plain(&target)?);
            let (dir, name) = parent_of(root, &target.to_string_lossy())?;
            let file = fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            if stands.is_some_and(|stat| (stat.st_dev, stat.st_ino) == (file.st_dev, file.st_ino)) {
                return Ok(());
            }
            clear()?;
            Ok(fs::linkat(&dir, &name, parent, base, AtFlags::empty())?)
        }
        EntryType::Fifo => {
            clear()?;
            fs::mknodat(parent, base, FileType::Fifo, mode, 0)?;
            fs::chownat(parent, base, user, group, AtFlags::SYMLINK_NOFOLLOW)?;
            // The umask took from it. By its descriptor: a container may put a link in its place meanwhile.
            let made = fs::openat(parent, base, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            match FileType::from_raw_mode(fs::fstat(&made)?.st_mode) {
                FileType::Fifo => Ok(fs::chmod(format!("/proc/self/fd/{}", made.as_raw_fd()), mode)?),
                _ => Ok(()),
            }
        }
        EntryType::XGlobalHeader => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} is a device or of an unknown type", base.to_string_lossy()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn folder() -> (tempfile::TempDir, OwnedFd) {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(temp.path().join("root/etc")).unwrap();
        std::fs::create_dir(temp.path().join("outside")).unwrap();
        let root = fs::open(temp.path().join("root"), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        (temp, root)
    }

    fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(1);
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            if *kind == EntryType::Symlink {
                header.set_size(0);
                header.set_link_name(content).unwrap();
                header.set_cksum();
                builder.append(&header, io::empty()).unwrap();
            } else {
                header.set_size(content.len() as u64);
                header.set_cksum();
                builder.append(&header, content.as_bytes()).unwrap();
            }
        }
        builder.into_inner().unwrap()
    }

    fn packed(parent: BorrowedFd<'_>, base: &OsStr, name: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let mut packer = Packer::new(&mut out);
        packer.append(parent, base, Path::new(name), 0).unwrap();
        packer.finish().unwrap();
        out
    }

    fn names_of(archive: &[u8]) -> Vec<String> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| String::from_utf8_lossy(&entry.unwrap().path_bytes()).into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_path_that_ends_as_a_folder_is_one_and_its_link_is_followed() {
        let (temp, root) = folder();
        std::fs::write(temp.path().join("root/etc/f"), "x").unwrap();
        symlink("etc", temp.path().join("root/link")).unwrap();
        let entries = |path: &str| {
            let (parent, base) = parent_of(&root, path)?;
            Ok::<_, io::Error>(names_of(&packed(parent.as_fd(), &base, &base_name(path))))
        };
        assert_eq!(entries("/link").unwrap(), ["link"]);
        assert_eq!(entries("/link/.").unwrap(), ["./", "./f"]);
        assert_eq!(entries("/link/").unwrap(), ["link/", "link/f"]);
        assert_eq!(entries("/etc/f/").unwrap_err().kind(), io::ErrorKind::NotADirectory);
        assert_eq!(entries("/etc/f/.").unwrap_err().kind(), io::ErrorKind::NotADirectory);
    }

    #[test]
    fn links_are_followed_to_their_end_and_never_out() {
        let (temp, root) = folder();
        let at = |name: &str| temp.path().join("root").join(name);
        std::fs::create_dir(at("etc/deep")).unwrap();
        symlink("/etc/deep", at("way")).unwrap();
        symlink("../../../../b", at("etc/deep/a")).unwrap();
        symlink("etc/nothing", at("b")).unwrap();
        symlink("loop", at("loop")).unwrap();
        assert_eq!(follow(&root, Path::new("/way/a")).unwrap(), "/etc/nothing");
        assert_eq!(follow(&root, Path::new("/way/./x/../y")).unwrap(), "/etc/deep/y");
        assert!(follow(&root, Path::new("/loop")).is_err());
    }

    #[test]
    fn hard_links_and_attributes_survive_the_way_out_and_in() {
        use std::os::unix::fs::MetadataExt as _;
        let (temp, root) = folder();
        let from = temp.path().join("root/etc");
        std::fs::write(from.join("one"), "x").unwrap();
        std::fs::hard_link(from.join("one"), from.join("two")).unwrap();
        fs::setxattr(from.join("one"), "user.colour", b"blue", fs::XattrFlags::empty()).unwrap();
        fs::setxattr(&from, "user.kind", b"folder", fs::XattrFlags::empty()).unwrap();
        // cap_net_raw, permitted, revision 2.
        let mut capability = [0_u8; 20];
        (capability[3], capability[5]) = (2, 0x20);
        fs::setxattr(from.join("one"), "security.capability", &capability, fs::XattrFlags::empty()).unwrap();
        let long = "n".repeat(120);
        std::fs::write(from.join(&long), "y").unwrap();
        let (parent, base) = parent_of(&root, "/etc").unwrap();
        let archive = packed(parent.as_fd(), &base, "copy");
        extract(&root, Path::new("/"), archive.as_slice(), Unpack::default(), &Wanted::default()).unwrap();
        let to = temp.path().join("root/copy");
        let (one, two) = (std::fs::metadata(to.join("one")).unwrap(), std::fs::metadata(to.join("two")).unwrap());
        assert_eq!((one.ino(), one.nlink()), (two.ino(), 2));
        let attribute = |path: &Path, name: &str| {
            let mut value = [0_u8; 64];
            let length = fs::getxattr(path, name, &mut value).unwrap();
            value[..length].to_vec()
        };
        assert_eq!(attribute(&to.join("two"), "user.colour"), b"blue");
        assert_eq!(attribute(&to, "user.kind"), b"folder");
        assert_eq!(attribute(&to.join("one"), "security.capability"), capability);
        assert_eq!(std::fs::read_to_string(to.join(&long)).unwrap(), "y");
        let (was, is) = (std::fs::metadata(&from).unwrap(), std::fs::metadata(&to).unwrap());
        assert_eq!(was.mtime(), is.mtime(), "a folder keeps its time");
    }

    #[test]
    fn an_archive_cannot_plant_attributes_of_the_overlay() {
        let (temp, root) = folder();
        let mut builder = tar::Builder::new(Vec::new());
        let names = ["trusted.overlay.redirect", "user.overlay.opaque", "user.mine"];
        let named: Vec<String> = names.iter().map(|name| format!("SCHILY.xattr.{name}")).collect();
        builder.append_pax_extensions(named.iter().map(|name| (name.as_str(), b"y".as_slice()))).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(EntryType::Directory);
        header.set_size(0);
        header.set_mode(0o755);
        builder.append_data(&mut header, "planted/", io::empty()).unwrap();
        let archive = builder.into_inner().unwrap();
        extract(&root, Path::new("/"), archive.as_slice(), Unpack::default(), &Wanted::default()).unwrap();
        let mut found = [0_u8; 200];
        let length = fs::listxattr(temp.path().join("root/planted"), &mut found).unwrap();
        let found = String::from_utf8_lossy(&found[..length]).into_owned();
        assert!(found.contains("user.mine") && !found.contains("overlay"), "{found:?}");
    }

    #[test]
    fn kinds_are_replaced_unless_they_are_to_be_kept() {
        let (temp, root) = folder();
        std::fs::create_dir_all(temp.path().join("root/etc/d/deep")).unwrap();
        std::fs::write(temp.path().join("root/etc/d/deep/f"), "x").unwrap();
        std::fs::write(temp.path().join("root/etc/f"), "x").unwrap();
        let file = archive(&[("d", EntryType::Regular, "now a file")]);
        let tree = archive(&[("f", EntryType::Directory, "")]);
        let kept = Unpack { keep_kinds: true };
        for (tar, words) in [
            (&file, "cannot overwrite directory \"d\" with non-directory"),
            (&tree, "cannot overwrite non-directory \"f\" with directory"),
        ] {
            let refused = extract(&root, Path::new("/etc"), tar.as_slice(), kept, &Wanted::default()).unwrap_err();
            assert!(refused.to_string().contains(words), "{refused}");
        }
        extract(&root, Path::new("/etc"), file.as_slice(), Unpack::default(), &Wanted::default()).unwrap();
        extract(&root, Path::new("/etc"), tree.as_slice(), Unpack::default(), &Wanted::default()).unwrap();
        assert_eq!(std::fs::read_to_string(temp.path().join("root/etc/d")).unwrap(), "now a file");
        assert!(temp.path().join("root/etc/f").is_dir());
    }

    #[test]
    fn a_folder_of_a_hundred_thousand_names_is_replaced_at_no_cost_in_memory() {
        let (temp, root) = folder();
        let full = temp.path().join("root/etc/d");
        std::fs::create_dir(&full).unwrap();
        let folder = fs::open(&full, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
        for number in 0..100_000 {
            fs::mknodat(&folder, format!("{number:0>250}"), FileType::Fifo, Mode::empty(), 0).unwrap();
        }
        let tar = archive(&[("d", EntryType::Regular, "now a file")]);
        let grown = crate::testing::peak(|| {
            extract(&root, Path::new("/etc"), tar.as_slice(), Unpack::default(), &Wanted::default()).unwrap();
        });
        assert_eq!(std::fs::read_to_string(full).unwrap(), "now a file");
        assert!(grown < 8 << 20, "{} MiB", grown >> 20);
    }

    #[test]
    fn names_of_files_with_several_are_remembered_up_to_a_bound() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        std::fs::write(&path, "").unwrap();
        let about = fs::stat(&path).unwrap();
        let mut linked = Linked::default();
        let long = PathBuf::from("d/".repeat(25_000));
        let mut numbered = |number: u64| {
            let mut stat = about;
            stat.st_ino = number;
            linked.before(&stat, &long).is_none() && linked.before(&stat, &long).is_some()
        };
        assert!(numbered(0));
        let kept = (1..10_000).filter(|number| numbered(*number)).count();
        assert!((100..1000).contains(&kept), "{kept}");
    }

    #[test]
    fn what_is_mounted_is_never_emptied_by_a_replacement() {
        let (temp, root) = folder();
        let kept = temp.path().join("outside/kept");
        std::fs::write(&kept, "x").unwrap();
        std::fs::create_dir_all(temp.path().join("root/etc/d/volume")).unwrap();
        let at = temp.path().join("root/etc/d/volume");
        if rustix::mount::mount_bind(temp.path().join("outside"), &at).is_err() {
            // Not root: there is nothing to mount with.
            assert!(!rustix::process::geteuid().is_root());
            return;
        }
        let file = archive(&[("d", EntryType::Regular, "now a file")]);
        let refused = extract(&root, Path::new("/etc"), file.as_slice(), Unpack::default(), &Wanted::default());
        rustix::mount::unmount(&at, rustix::mount::UnmountFlags::DETACH).unwrap();
        assert!(refused.unwrap_err().to_string().contains("mounted there"));
        assert!(kept.exists());
    }

    #[test]
    fn a_device_that_took_a_files_place_is_not_opened() {
        let (temp, root) = folder();
        let path = temp.path().join("root/etc/f");
        std::fs::write(&path, "x").unwrap();
        let (parent, base) = parent_of(&root, "/etc/f").unwrap();
        let seen = fs::statat(&parent, &base, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        std::fs::remove_file(&path).unwrap();
        symlink(temp.path().join("outside"), &path).unwrap();
        let mut out = tar::Builder::new(Vec::new());
        append_one(&mut out, parent.as_fd(), &base, Path::new("f"), &seen).unwrap();
        assert!(names_of(&out.into_inner().unwrap()).is_empty());
    }

    #[test]
    fn a_process_with_our_own_mounts_is_no_container() {
        assert_eq!(root_of_process(std::process::id()).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_goes_in_comes_out_and_nothing_lands_outside() {
        let (temp, root) = folder();
        let tar = archive(&[("a/b.txt", EntryType::Regular, "hello"), ("a/link", EntryType::Symlink, "b.txt")]);
        extract(&root, Path::new("/etc"), tar.as_slice(), Unpack::default(), &Wanted::default()).unwrap();
        assert_eq!(std::fs::read_to_string(temp.path().join("root/etc/a/link")).unwrap(), "hello");
        let (parent, base) = parent_of(&root, "/etc/a").unwrap();
        let out = packed(parent.as_fd(), &base, "a");
        assert_eq!(names_of(&out), ["a/", "a/b.txt", "a/link"]);

        let mut packed = std::process::Command::new("gzip")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        packed.stdin.take().unwrap().write_all(&archive(&[("zipped", EntryType::Regular, "small")])).unwrap();
        let packed = packed.wait_with_output().unwrap().stdout;
        extract(&root, Path::new("/"), packed.as_slice(), Unpack::default(), &Wanted::default()).unwrap();
        assert_eq!(std::fs::read_to_string(temp.path().join("root/zipped")).unwrap(), "small");

        let climbing = archive(&[("../../outside/x", EntryType::Regular, "no")]);
        assert_eq!(
            extract(&root, Path::new("/etc"), climbing.as_slice(), Unpack::default(), &Wanted::default())
                .unwrap_err()
                .kind(),
            io::ErrorKind::InvalidData
        );
        symlink(temp.path().join("outside"), temp.path().join("root/etc/way")).unwrap();
        let through = archive(&[("way/x", EntryType::Regular, "no")]);
        // The link's target is looked for inside the root, where it is not.
        assert!(extract(&root, Path::new("/etc"), through.as_slice(), Unpack::default(), &Wanted::default()).is_err());
        let planted = archive(&[("out", EntryType::Symlink, "../../outside"), ("out/x", EntryType::Regular, "no")]);
        let _ = extract(&root, Path::new("/etc"), planted.as_slice(), Unpack::default(), &Wanted::default());
        assert_eq!(std::fs::read_dir(temp.path().join("outside")).unwrap().count(), 0);
        let device = archive(&[("null", EntryType::Char, "")]);
        assert!(extract(&root, Path::new("/etc"), device.as_slice(), Unpack::default(), &Wanted::default()).is_err());
    }
}
