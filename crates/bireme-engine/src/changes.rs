//! What a container changed of its image's files, and all of its files as one archive.
//!
//! ```text
//! lower layers (read-only) ─┐
//!                           ├─> what the container sees
//! upper folder ─────────────┘   a file here: added or modified; a character device 0/0: deleted
//! ```
//!
//! Source: Docker Engine API, `ContainerChanges` and `ContainerExport`; the kernel's overlayfs.rst on whiteouts.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use bireme_core::executor::Power;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};

use crate::archive;
use crate::error::EngineError;
use crate::registry::Registry;
use crate::rootfs;
use crate::services::Services;

/// What became of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// The image has it, and it is another file now, or has other content, attributes or entries.
    Modified,
    /// The image has nothing there.
    Added,
    /// The image has it, and the container has nothing there.
    Deleted,
}

/// One path that differs from the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// From the container's root, with a leading slash. Names in it are bytes, and need be no text.
    pub path: PathBuf,
    /// Compared with the image.
    pub kind: ChangeKind,
}

/// What every container gets from the engine: no change of its own. Docker has these in a layer below.
const GIVEN: &[&str] = &[
    "/.dockerenv",
    "/dev",
    "/dev/console",
    "/dev/pts",
    "/dev/shm",
    "/etc",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/mtab",
    "/etc/resolv.conf",
    "/proc",
    "/sys",
];

/// Deeper than any real tree.
const DEEPEST: usize = 200;

/// Every path that a container added, modified or deleted, in order.
///
/// # Errors
/// `NotFound` for the container; `Unsupported` for a component.
pub(crate) async fn changes(registry: &Registry, name: &str) -> Result<Vec<Change>, EngineError> {
    let (lower, upper) = folders_of(registry, name)?;
    archive::blocking(move || changes_of(&lower, &upper).map_err(|source| EngineError::File { path: upper, source }))
        .await
}

/// Writes all files of a container to `out`, without those of its volumes and mounts.
///
/// # Errors
/// As [`changes`].
pub(crate) async fn export(
    services: &Services,
    name: &str,
    out: impl Write + Send + 'static,
) -> Result<(), EngineError> {
    let (mut layers, upper) = folders_of(&services.registry, name)?;
    layers.push(upper.clone());
    services.registry.find(name)?.emit(&services.events, "export", []);
    archive::blocking(move || {
        let write = || -> io::Result<()> {
            // The container may be running on the same folders: read as layers, they are never written to.
            let root = open_listed(&layers)?;
            let mut archive = archive::Packer::new(out);
            for entry in fs::Dir::read_from(&root)? {
                let entry = entry?;
                if let Some(name) = named(&entry) {
                    archive.append(root.as_fd(), name, Path::new(name), 1)?;
                }
            }
            archive.finish()
        };
        write().map_err(|source| EngineError::File { path: upper, source })
    })
    .await
}

/// Whether [`export`] would begin.
///
/// # Errors
/// Those that [`export`] begins with.
pub(crate) fn can_export(registry: &Registry, name: &str) -> Result<(), EngineError> {
    folders_of(registry, name).map(drop)
}

pub(crate) fn folders_of(registry: &Registry, name: &str) -> Result<(Vec<PathBuf>, PathBuf), EngineError> {
    let handle = registry.find(name)?;
    match handle.config.program.layers() {
        Some(layers) => Ok((layers.lower.to_vec(), layers.upper.to_owned())),
        None => Err(handle.lacks(Power::Changes)),
    }
}

const LISTED: OFlags = OFlags::DIRECTORY.union(OFlags::RDONLY).union(OFlags::CLOEXEC);

/// The merged tree, open for listing.
fn open_listed(layers: &[PathBuf]) -> io::Result<OwnedFd> {
    let root = rootfs::open_merged(layers)?;
    Ok(fs::openat(&root, ".", LISTED, Mode::empty())?)
}

/// Every path that `upper` adds to, modifies in or deletes from `lower`, in order.
pub(crate) fn changes_of(lower: &[PathBuf], upper: &Path) -> io::Result<Vec<Change>> {
    let below = open_listed(lower)?;
    let above = match fs::open(upper, LISTED, Mode::empty()) {
        Ok(above) => above,
        Err(rustix::io::Errno::NOENT) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found = Found::default();
    compare(above.as_fd(), Some(below.as_fd()), Path::new("/"), 0, &mut found)?;
    Ok(found.in_order())
}

/// The name of an entry; `None` for the folder itself and the one above.
///
/// Entries are looked at one by one, and never all of a folder held: a container makes as many as it likes.
fn named(entry: &fs::DirEntry) -> Option<&OsStr> {
    let name = entry.file_name().to_bytes();
    (name != b"." && name != b"..").then(|| OsStr::from_bytes(name))
}

/// Bytes of all paths that are told, and what each costs beside its text.
const MOST_BYTES: usize = 256 << 20;
const BESIDE: usize = 64;

#[derive(Default)]
struct Found {
    changes: Vec<Change>,
    bytes: usize,
}

impl Found {
    /// # Errors
    /// `QuotaExceeded` beyond [`MOST_BYTES`]: a container makes as many files as it likes, below names as long as it likes.
    fn add(&mut self, at: usize, path: &Path, kind: ChangeKind) -> io::Result<()> {
        self.bytes += path.as_os_str().len() + BESIDE;
        if self.bytes > MOST_BYTES {
            let what = format!(
                "the paths of its changed files take more than {} MiB: remove some, or keep them in a volume",
                MOST_BYTES >> 20
            );
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, what));
        }
        self.changes.insert(at, Change { path: path.to_owned(), kind });
        Ok(())
    }

    fn push(&mut self, path: &Path, kind: ChangeKind) -> io::Result<()> {
        self.add(self.changes.len(), path, kind)
    }

    fn in_order(mut self) -> Vec<Change> {
        self.changes.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        self.changes
    }
}

/// Adds what `above` changes of `below`; true when it changed anything.
fn compare(
    above: BorrowedFd<'_>,
    below: Option<BorrowedFd<'_>>,
    path: &Path,
    depth: usize,
    found: &mut Found,
) -> io::Result<bool> {
    if depth > DEEPEST {
        return Err(io::Error::other("the tree is nested too deeply"));
    }
    let before = found.changes.len();
    let folder = |at: BorrowedFd<'_>, name: &OsStr| {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        fs::openat(at, name, flags, Mode::empty())
    };
    for entry in fs::Dir::read_from(above)? {
        let entry = entry?;
        let Some(name) = named(&entry) else { continue };
        let full = path.join(name);
        let now = match fs::statat(above, name, AtFlags::SYMLINK_NOFOLLOW) {
            // It went meanwhile: the container may be running.
            Err(rustix::io::Errno::NOENT) => continue,
            other => other?,
        };
        let kind = FileType::from_raw_mode(now.st_mode);
        let was = below.and_then(|below| fs::statat(below, name, AtFlags::SYMLINK_NOFOLLOW).ok());
        if kind == FileType::CharacterDevice && now.st_rdev == 0 {
            if was.is_some() {
                found.push(&full, ChangeKind::Deleted)?;
            }
            continue;
        }
        let given = GIVEN.iter().any(|given| full == Path::new(given));
        let was_folder = was.is_some_and(|was| FileType::from_raw_mode(was.st_mode) == FileType::Directory);
        if kind != FileType::Directory {
            if !(given && was.is_none()) {
                let kind = if was.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
                found.push(&full, kind)?;
            }
            continue;
        }
        let inside = folder(above, name)?;
        let under: Option<OwnedFd> = if was_folder { below.and_then(|below| folder(below, name).ok()) } else { None };
        let at = found.changes.len();
        let changed = compare(inside.as_fd(), under.as_ref().map(OwnedFd::as_fd), &full, depth + 1, found)?;
        let differs = was.is_none_or(|was| {
            !was_folder || (was.st_mode, was.st_uid, was.st_gid) != (now.st_mode, now.st_uid, now.st_gid)
        });
        if changed || (differs && !(given && was.is_none())) {
            let kind = if was.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
            found.add(at, &full, kind)?;
        }
    }
    // A folder that was removed and made anew hides all that was in it.
    if let Some(below) = below
        && opaque(above)
    {
        for entry in fs::Dir::read_from(below)? {
            let entry = entry?;
            let Some(name) = named(&entry) else { continue };
            if let Err(rustix::io::Errno::NOENT) = fs::statat(above, name, AtFlags::SYMLINK_NOFOLLOW) {
                found.push(&path.join(name), ChangeKind::Deleted)?;
            }
        }
    }
    Ok(found.changes.len() > before)
}

fn opaque(folder: BorrowedFd<'_>) -> bool {
    let mut value = [0u8; 4];
    fs::fgetxattr(folder, "trusted.overlay.opaque", &mut value[..]).is_ok_and(|length| value[..length] == *b"y")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(make: impl Fn(&Path, &Path)) -> Vec<String> {
        let temp = tempfile::tempdir().unwrap();
        let (lower, upper) = (temp.path().join("lower"), temp.path().join("upper"));
        for folder in ["lower/etc", "lower/data/deep", "upper"] {
            std::fs::create_dir_all(temp.path().join(folder)).unwrap();
        }
        std::fs::write(lower.join("etc/passwd"), "root").unwrap();
        std::fs::write(lower.join("data/one"), "1").unwrap();
        make(&lower, &upper);
        let open = |path: &Path| fs::open(path, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
        let mut found = Found::default();
        compare(open(&upper).as_fd(), Some(open(&lower).as_fd()), Path::new("/"), 0, &mut found).unwrap();
        found
            .in_order()
            .into_iter()
            .map(|one| format!("{} {}", &format!("{:?}", one.kind)[..1], one.path.display()))
            .collect()
    }

    #[test]
    fn added_modified_and_deleted_are_told_apart() {
        let found = changes(|_, upper| {
            std::fs::create_dir_all(upper.join("etc")).unwrap();
            std::fs::write(upper.join("etc/passwd"), "other").unwrap();
            std::fs::create_dir_all(upper.join("new/folder")).unwrap();
            std::fs::write(upper.join("new/folder/file"), "x").unwrap();
            std::fs::create_dir_all(upper.join("data")).unwrap();
            let device = fs::makedev(0, 0);
            fs::mknodat(fs::CWD, upper.join("data/one"), FileType::CharacterDevice, Mode::empty(), device).unwrap();
        });
        assert_eq!(
            found,
            ["M /data", "D /data/one", "M /etc", "M /etc/passwd", "A /new", "A /new/folder", "A /new/folder/file"]
        );
    }

    #[test]
    fn what_the_engine_gives_is_no_change_and_a_copied_up_folder_neither() {
        let found = changes(|_, upper| {
            std::fs::create_dir_all(upper.join("data/deep")).unwrap();
            std::fs::create_dir_all(upper.join("proc")).unwrap();
            std::fs::create_dir_all(upper.join("dev/pts")).unwrap();
            std::fs::create_dir_all(upper.join("etc")).unwrap();
            std::fs::write(upper.join("etc/hosts"), "").unwrap();
        });
        assert_eq!(found, Vec::<String>::new());
        let bare = changes(|lower, upper| {
            std::fs::remove_dir_all(lower.join("etc")).unwrap();
            std::fs::create_dir_all(upper.join("etc")).unwrap();
            std::fs::write(upper.join("etc/resolv.conf"), "").unwrap();
        });
        assert_eq!(bare, Vec::<String>::new(), "an image without /etc gets one for what the engine mounts there");
    }

    #[test]
    fn a_folder_that_took_the_place_of_another_hides_it() {
        let found = changes(|_, upper| {
            std::fs::create_dir_all(upper.join("data")).unwrap();
            let folder = fs::open(upper.join("data"), OFlags::RDONLY, Mode::empty()).unwrap();
            fs::fsetxattr(&folder, "trusted.overlay.opaque", b"y", fs::XattrFlags::empty()).unwrap();
            std::fs::write(upper.join("data/two"), "2").unwrap();
        });
        assert_eq!(found, ["M /data", "D /data/deep", "D /data/one", "A /data/two"]);
    }

    #[test]
    fn a_folder_of_a_hundred_thousand_names_costs_no_memory() {
        let temp = tempfile::tempdir().unwrap();
        let (lower, upper) = (temp.path().join("lower"), temp.path().join("upper"));
        std::fs::create_dir(&lower).unwrap();
        std::fs::create_dir(&upper).unwrap();
        let full = fs::open(&upper, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
        // Deletions of what was not there: looked at, and nothing to tell of.
        for number in 0..100_000 {
            let (kind, device) = (FileType::CharacterDevice, fs::makedev(0, 0));
            fs::mknodat(&full, format!("{number:0>250}"), kind, Mode::empty(), device).unwrap();
        }
        let look = || {
            let below = fs::open(&lower, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
            let mut found = Found::default();
            compare(full.as_fd(), Some(below.as_fd()), Path::new("/"), 0, &mut found).unwrap();
            assert!(found.changes.is_empty());
        };
        let grown = crate::testing::peak(look);
        assert!(grown < 8 << 20, "{} MiB", grown >> 20);
    }
}
