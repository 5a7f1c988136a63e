//! Copying into and out of a workload's file tree: Docker's archive requests.
//!
//! A running container's tree is reached through its init's root, a stopped one's through an overlay mount that is
//! attached nowhere. Every path is resolved by the kernel inside that root (`openat2`), component by component for what
//! an archive names, so that no link of the container or of the archive leads out of it.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bireme_core::Program;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags};
use tar::EntryType;

use crate::EngineError;
use crate::container::Handle;
use crate::engine::Engine;
use crate::rootfs;
use crate::view::{MountKind, Status};

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
    /// Where a link leads; empty for anything else.
    pub link: String,
}

/// Where a path of a container leads.
struct Place {
    root: OwnedFd,
    /// In that root.
    inside: String,
    /// What it is called, where that is not the last part of the path.
    called: Option<String>,
    read_only: bool,
}

/// More entries than any copy by hand; keeps a hostile archive from filling the tree with nothing.
const MOST_ENTRIES: usize = 1_000_000;

impl Engine {
    /// What stands at `path`.
    ///
    /// # Errors
    /// `NotFound` for the workload or the path; `Unsupported` for kinds without a file tree.
    pub async fn stat_path(&self, name: &str, path: &str) -> Result<PathStat, EngineError> {
        let Place { root, inside, called, .. } = self.place_of(name, path)?;
        let (name, path) = (name.to_owned(), path.to_owned());
        blocking(move || {
            let (parent, base) = parent_of(&root, &inside).map_err(|error| at_path(&name, &path, error))?;
            let found = stat(parent.as_fd(), &base).map_err(|error| at_path(&name, &path, error))?;
            Ok(PathStat { name: called.unwrap_or(found.name), ..found })
        })
        .await
    }

    /// Writes what stands at `path` to `out` as an archive whose entries begin with its base name.
    pub async fn read_archive(
        &self,
        name: &str,
        path: &str,
        out: impl Write + Send + 'static,
    ) -> Result<(), EngineError> {
        let Place { root, inside, called, .. } = self.place_of(name, path)?;
        self.find(name)?.emit(self, "archive-path", []);
        let (name, path) = (name.to_owned(), path.to_owned());
        blocking(move || {
            let copy = || {
                let (parent, base) = parent_of(&root, &inside)?;
                let mut archive = tar::Builder::new(out);
                let as_name = called.as_ref().map_or(Path::new(&base), Path::new);
                append(&mut archive, parent.as_fd(), &base, as_name, 0)?;
                archive.into_inner()?.flush()
            };
            copy().map_err(|error| at_path(&name, &path, error))
        })
        .await
    }

    /// Unpacks an archive into the folder at `path`. Owners are those of the archive.
    ///
    /// # Errors
    /// `NotFound` when `path` is no folder; `Invalid` for an archive that is damaged or names paths outside.
    pub async fn write_archive(
        &self,
        name: &str,
        path: &str,
        archive: impl Read + Send + 'static,
    ) -> Result<(), EngineError> {
        let Place { root, inside, read_only, .. } = self.place_of(name, path)?;
        if read_only {
            return Err(EngineError::Denied { message: "mounted volume is marked read-only".to_owned() });
        }
        let handle = self.find(name)?;
        let (name, path) = (name.to_owned(), path.to_owned());
        let unpack = move || {
            match in_root(&root, &inside, OFlags::DIRECTORY | OFlags::RDONLY) {
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                    return Err(EngineError::invalid("extraction point is not a directory"));
                }
                other => drop(other.map_err(|error| at_path(&name, &path, error))?),
            }
            extract(&root, Path::new(&inside), archive).map_err(|error| at_path(&name, &path, error))
        };
        blocking(unpack).await?;
        handle.emit(self, "extract-to-dir", []);
        Ok(())
    }

    /// Where a path leads: into the container's own tree, or, where it does not run, into a volume or a folder of the
    /// host that it would have there.
    fn place_of(&self, name: &str, path: &str) -> Result<Place, EngineError> {
        let root = self.root_of(name)?;
        let handle = self.find(name)?;
        let status = handle.view().state.status;
        let clean = Path::new("/").join(path.trim_start_matches('/'));
        let own = || Place { root, inside: path.to_owned(), called: None, read_only: false };
        if matches!(status, Status::Running | Status::Paused) || clean.components().any(|c| c == Component::ParentDir) {
            return Ok(own());
        }
        let mounts = handle.fixed.mounts.iter().filter(|mount| mount.kind != MountKind::Tmpfs);
        let over = mounts.filter(|mount| clean.starts_with(&mount.target));
        let Some(mount) = over.max_by_key(|mount| mount.target.len()) else { return Ok(own()) };
        let inside = clean.strip_prefix(&mount.target).unwrap_or(Path::new("")).to_owned();
        // The root of a volume is called as it is in the container.
        let called = inside.as_os_str().is_empty().then(|| clean.file_name()).flatten();
        let folder = fs::open(&mount.source, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        match folder {
            Ok(root) => Ok(Place {
                root,
                inside: format!("/{}", inside.display()),
                called: called.map(|called| called.to_string_lossy().into_owned()),
                read_only: mount.read_only,
            }),
            // A single file: it is what stands there.
            Err(_) => Ok(own()),
        }
    }

    fn root_of(&self, name: &str) -> Result<OwnedFd, EngineError> {
        let handle = self.find(name)?;
        let Program::Layers { lower, upper, work } = &handle.fixed.program else {
            return Err(EngineError::unsupported(format!(
                "{} is a WebAssembly component and has no file tree to copy from or to: copy to the folder it mounts instead",
                handle.view().name
            )));
        };
        let view = handle.view();
        let opened = match (view.state.status, view.state.pid) {
            (Status::Running | Status::Paused, Some(pid)) => root_of_process(pid),
            (Status::Removing | Status::Dead, _) => return Err(busy(&handle)),
            _ => rootfs::open_writable(lower, upper, work),
        };
        opened.map_err(|source| EngineError::File { path: upper.clone(), source })
    }
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| EngineError::Stopping)?
}

fn busy(handle: &Arc<Handle>) -> EngineError {
    EngineError::conflict(format!("container {} is marked for removal and cannot be copied from or to", handle.id()))
}

fn at_path(name: &str, path: &str, error: io::Error) -> EngineError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            EngineError::NotFound { message: format!("Could not find the file {path} in container {name}") }
        }
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => {
            EngineError::invalid(format!("the archive for {path} in container {name} cannot be unpacked: {error}"))
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            EngineError::Denied { message: "container rootfs is marked read-only".to_owned() }
        }
        _ => EngineError::File { path: PathBuf::from(path), source: error },
    }
}

fn root_of_process(pid: u32) -> io::Result<OwnedFd> {
    Ok(fs::open(format!("/proc/{pid}/root"), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn in_root(root: impl AsFd, path: impl AsRef<Path>, flags: OFlags) -> io::Result<OwnedFd> {
    let relative = path.as_ref().strip_prefix("/").unwrap_or(path.as_ref());
    let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
    Ok(fs::openat2(
        root,
        relative,
        flags | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )?)
}

/// The folder that holds `path`, and its name there; the name of the root is `.`.
fn parent_of(root: &OwnedFd, path: &str) -> io::Result<(OwnedFd, std::ffi::OsString)> {
    let clean: PathBuf = Path::new(path).components().filter(|part| !matches!(part, Component::CurDir)).collect();
    match (clean.parent(), clean.file_name()) {
        (Some(parent), Some(base)) => Ok((in_root(root, parent, OFlags::PATH | OFlags::DIRECTORY)?, base.to_owned())),
        // `/`, or ends in `..`: resolved as a folder.
        _ => Ok((in_root(root, &clean, OFlags::PATH | OFlags::DIRECTORY)?, OsStr::new(".").to_owned())),
    }
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

pub(crate) fn append<W: Write>(
    archive: &mut tar::Builder<W>,
    parent: BorrowedFd<'_>,
    base: &OsStr,
    as_name: &Path,
    depth: usize,
) -> io::Result<()> {
    if depth > DEEPEST {
        return Err(io::Error::other("the tree is nested too deeply to copy"));
    }
    let stat = fs::statat(parent, base, AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let mut header = header(&stat, EntryType::Directory);
            // A slash at the end, as Go's writer has it and some readers look for.
            archive.append_data(&mut header, as_name.join(""), io::empty())?;
            let folder =
                fs::openat(parent, base, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            for entry in fs::Dir::read_from(&folder)? {
                let entry = entry?;
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                if name != "." && name != ".." {
                    append(archive, folder.as_fd(), name, &as_name.join(name), depth + 1)?;
                }
            }
            Ok(())
        }
        // Sockets and devices are not copied out, as they mean nothing elsewhere.
        _ => append_one(archive, parent, base, as_name, &stat),
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
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = std::fs::File::from(fs::openat(parent, base, flags, Mode::empty())?);
            let size = file.metadata()?.len();
            let mut header = header(stat, EntryType::Regular);
            header.set_size(size);
            // A file that shrinks meanwhile is filled up, one that grows is cut: the header's size holds.
            archive.append_data(&mut header, as_name, file.take(size).chain(io::repeat(0)).take(size))
        }
        FileType::Symlink => {
            let target = fs::readlinkat(parent, base, Vec::new())?;
            archive.append_link(&mut header(stat, EntryType::Symlink), as_name, OsStr::from_bytes(target.to_bytes()))
        }
        FileType::Fifo => archive.append_data(&mut header(stat, EntryType::Fifo), as_name, io::empty()),
        _ => Ok(()),
    }
}

/// `archive` may be compressed, as Docker takes it.
fn extract(root: &OwnedFd, folder: &Path, archive: impl Read) -> io::Result<()> {
    let mut archive = tar::Archive::new(bireme_image::open_any(archive)?);
    for (count, entry) in archive.entries()?.enumerate() {
        if count >= MOST_ENTRIES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it has more than {MOST_ENTRIES} entries")));
        }
        let mut entry = entry?;
        let name = entry.path()?.into_owned();
        let inside = plain(&name)?;
        if inside.as_os_str().is_empty() {
            continue;
        }
        let (parent, base) = make_parents(root, folder, &inside)?;
        place(root, folder, &mut entry, parent.as_fd(), &base)?;
    }
    Ok(())
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

fn make_parents(root: &OwnedFd, folder: &Path, inside: &Path) -> io::Result<(OwnedFd, std::ffi::OsString)> {
    let base = inside.file_name().unwrap_or_default().to_owned();
    let mut path = folder.to_owned();
    let mut parent = in_root(root, &path, OFlags::PATH | OFlags::DIRECTORY)?;
    for part in inside.parent().unwrap_or(Path::new("")).components() {
        path.push(part);
        parent = match in_root(root, &path, OFlags::PATH | OFlags::DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
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
    parent: BorrowedFd<'_>,
    base: &OsStr,
) -> io::Result<()> {
    let header = entry.header();
    let kind = header.entry_type();
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
    let clear = |kind: EntryType| match fs::unlinkat(parent, base, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(rustix::io::Errno::ISDIR) if kind == EntryType::Directory => Ok(()),
        Err(error) => Err(io::Error::from(error)),
    };
    match kind {
        EntryType::Directory => {
            let exists = fs::statat(parent, base, AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory);
            if !exists {
                clear(kind)?;
                fs::mkdirat(parent, base, Mode::RWXU)?;
            }
            let made = fs::openat(parent, base, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            fs::fchown(&made, user, group)?;
            Ok(fs::fchmod(&made, mode)?)
        }
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            clear(kind)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = std::fs::File::from(fs::openat(parent, base, flags, Mode::RUSR | Mode::WUSR)?);
            io::copy(entry, &mut file)?;
            fs::fchown(&file, user, group)?;
            fs::fchmod(&file, mode)?;
            let time = rustix::time::Timespec { tv_sec: i64::try_from(modified).unwrap_or(0), tv_nsec: 0 };
            Ok(fs::futimens(&file, &fs::Timestamps { last_access: time, last_modification: time })?)
        }
        EntryType::Symlink => {
            let target = entry
                .link_name()?
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a link without a target"))?;
            clear(kind)?;
            fs::symlinkat(target.as_ref(), parent, base)?;
            Ok(fs::chownat(parent, base, user, group, AtFlags::SYMLINK_NOFOLLOW)?)
        }
        EntryType::Link => {
            let target = entry
                .link_name()?
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a link without a target"))?;
            let target = folder.join(plain(&target)?);
            clear(kind)?;
            let (dir, name) = parent_of(root, &target.to_string_lossy())?;
            Ok(fs::linkat(&dir, &name, parent, base, AtFlags::empty())?)
        }
        EntryType::Fifo => {
            clear(kind)?;
            Ok(fs::mknodat(parent, base, FileType::Fifo, mode, 0)?)
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

    #[test]
    fn what_goes_in_comes_out_and_nothing_lands_outside() {
        let (temp, root) = folder();
        let tar = archive(&[("a/b.txt", EntryType::Regular, "hello"), ("a/link", EntryType::Symlink, "b.txt")]);
        extract(&root, Path::new("/etc"), tar.as_slice()).unwrap();
        assert_eq!(std::fs::read_to_string(temp.path().join("root/etc/a/link")).unwrap(), "hello");
        let (parent, base) = parent_of(&root, "/etc/a").unwrap();
        let mut builder = tar::Builder::new(Vec::new());
        append(&mut builder, parent.as_fd(), &base, Path::new(&base), 0).unwrap();
        let out = builder.into_inner().unwrap();
        let mut names: Vec<String> = tar::Archive::new(out.as_slice())
            .entries()
            .unwrap()
            .map(|e| e.unwrap().path().unwrap().display().to_string())
            .collect();
        names.sort();
        assert_eq!(names, ["a/", "a/b.txt", "a/link"]);

        let mut packed = std::process::Command::new("gzip")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        packed.stdin.take().unwrap().write_all(&archive(&[("zipped", EntryType::Regular, "small")])).unwrap();
        let packed = packed.wait_with_output().unwrap().stdout;
        extract(&root, Path::new("/"), packed.as_slice()).unwrap();
        assert_eq!(std::fs::read_to_string(temp.path().join("root/zipped")).unwrap(), "small");

        let climbing = archive(&[("../../outside/x", EntryType::Regular, "no")]);
        assert_eq!(
            extract(&root, Path::new("/etc"), climbing.as_slice()).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        symlink(temp.path().join("outside"), temp.path().join("root/etc/way")).unwrap();
        let through = archive(&[("way/x", EntryType::Regular, "no")]);
        // The link's target is looked for inside the root, where it is not.
        assert!(extract(&root, Path::new("/etc"), through.as_slice()).is_err());
        let planted = archive(&[("out", EntryType::Symlink, "../../outside"), ("out/x", EntryType::Regular, "no")]);
        let _ = extract(&root, Path::new("/etc"), planted.as_slice());
        assert_eq!(std::fs::read_dir(temp.path().join("outside")).unwrap().count(), 0);
        let device = archive(&[("null", EntryType::Char, "")]);
        assert!(extract(&root, Path::new("/etc"), device.as_slice()).is_err());
    }
}
