//! Paths inside a root: resolved by the kernel (`openat2`), so that none leads out of it.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags};

/// What stands at a path, without following a final link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathStat {
    /// The last part of the path that was asked for; `/` of the root.
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

pub(super) fn in_root(root: impl AsFd, path: impl AsRef<Path>, flags: OFlags) -> io::Result<OwnedFd> {
    let relative = path.as_ref().strip_prefix("/").unwrap_or(path.as_ref());
    let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(bireme_sys::path::open(root, relative, flags, Mode::empty(), how)?)
}

/// The folder that holds `path`, and its name there. What must be a folder, as it ends in `/` or `/.`, is resolved as one
/// and called `.`: a link at the end is followed then, as the kernel does.
pub(super) fn parent_of(root: &OwnedFd, path: &str) -> io::Result<(OwnedFd, OsString)> {
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
pub(super) fn without_parents(path: &str) -> Cow<'_, str> {
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
pub(super) fn not_of_the_kernel(folder: BorrowedFd<'_>) -> io::Result<()> {
    if bireme_sys::path::is_kernels(folder)? { Err(io::ErrorKind::NotFound.into()) } else { Ok(()) }
}

/// The last part of a path, as Go's `filepath.Base` has it.
pub(super) fn base_name(path: &str) -> String {
    match path.trim_end_matches('/').rsplit('/').next() {
        None | Some("") => "/".to_owned(),
        Some(base) => base.to_owned(),
    }
}

/// Links that are followed, as the kernel does.
pub(super) const MOST_LINKS: usize = 40;

/// Where `path` leads when every link on the way is followed inside `root`; as far as it goes, where one leads nowhere.
///
/// Source: `symlink.FollowSymlinkInScope` of moby.
pub(super) fn follow(root: &OwnedFd, path: &Path) -> io::Result<String> {
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
pub(super) fn parts_of(path: &Path) -> VecDeque<OsString> {
    let names = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    names.map(|part| part.as_os_str().to_owned()).collect()
}

pub(super) fn stat(parent: BorrowedFd<'_>, base: &OsStr) -> io::Result<PathStat> {
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
