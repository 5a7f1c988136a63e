//! Looking into an image's file tree without mounting it anywhere: volumes are filled from it.

use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags};

use crate::xattr;

/// Copies what an image has at `target` into the empty folder `into`, with owners, modes and times; the folder itself
/// takes those of the image's folder. An image without such a folder is no error.
///
/// Blocking. Links in the image cannot lead out of it.
pub(crate) fn copy_up(layers: &[PathBuf], target: &str, into: &Path) -> io::Result<()> {
    let root = open_merged(layers)?;
    let relative = target.trim_start_matches('/');
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let source = match bireme_sys::path::open(
        &root,
        if relative.is_empty() { "." } else { relative },
        flags,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    ) {
        Ok(source) => source,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let destination = fs::open(into, flags, Mode::empty())?;
    let mut copied = Copied { root: destination.as_fd(), linked: HashMap::new() };
    copy_folder(source.as_fd(), destination.as_fd(), Path::new(""), 0, &mut copied)
}

/// The image's tree as one folder. An overlay mount that is attached nowhere: it is gone when the descriptor closes.
pub(crate) fn open_merged(layers: &[PathBuf]) -> io::Result<OwnedFd> {
    // One alone is no overlay, which wants two.
    if let [only] = bireme_sys::mounts::topmost(layers)[..] {
        return Ok(fs::open(only, OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?);
    }
    bireme_sys::mounts::overlay(layers, None)
}

/// A container's tree as one folder that can be written to, on the same terms: what is written lands in `upper`.
pub(crate) fn open_writable(layers: &[PathBuf], upper: &Path, work: &Path) -> io::Result<OwnedFd> {
    bireme_sys::mounts::overlay(layers, Some((upper, work)))
}

/// Deeper than any real tree; keeps a hostile one from exhausting descriptors.
const DEEPEST: usize = 200;

/// Files with several names that are remembered; of more, each name gets a copy.
const MOST_LINKED: usize = 100_000;

/// Where files with several names were copied to first.
struct Copied<'a> {
    root: BorrowedFd<'a>,
    /// Below the root, by device and number of the file.
    linked: HashMap<(u64, u64), PathBuf>,
}

impl Copied<'_> {
    /// Gives the file that was copied to `first` another name; false where that cannot be, and it is to be copied again.
    ///
    /// A container that has the volume may have put a link in the place of a folder meanwhile: none is followed.
    fn link(&self, first: &Path, destination: BorrowedFd<'_>, name: &CStr) -> bool {
        let (Some(parent), Some(base)) = (first.parent(), first.file_name()) else { return false };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        bireme_sys::path::open(self.root, parent, flags, Mode::empty(), how)
            .and_then(|parent| fs::linkat(&parent, base, destination, name, AtFlags::empty()))
            .is_ok()
    }
}

fn copy_folder(
    source: BorrowedFd<'_>,
    destination: BorrowedFd<'_>,
    path: &Path,
    depth: usize,
    copied: &mut Copied<'_>,
) -> io::Result<()> {
    if depth > DEEPEST {
        return Err(io::Error::other("the image's tree is nested too deeply"));
    }
    for entry in fs::Dir::read_from(source)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let path = path.join(OsStr::from_bytes(name.to_bytes()));
        copy_entry(source, destination, name, &path, depth, copied)?;
    }
    copy_attributes(source, destination)
}

fn copy_entry(
    source: BorrowedFd<'_>,
    destination: BorrowedFd<'_>,
    name: &CStr,
    path: &Path,
    depth: usize,
    copied: &mut Copied<'_>,
) -> io::Result<()> {
    let stat = fs::statat(source, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(stat.st_mode);
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory && stat.st_nlink > 1 {
        let file = (stat.st_dev, stat.st_ino);
        if let Some(first) = copied.linked.get(&file)
            && copied.link(first, destination, name)
        {
            return Ok(());
        }
        if copied.linked.len() < MOST_LINKED
            && matches!(FileType::from_raw_mode(stat.st_mode), FileType::RegularFile | FileType::Symlink)
        {
            copied.linked.insert(file, path.to_owned());
        }
    }
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            fs::mkdirat(destination, name, Mode::RWXU)?;
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let from = fs::openat(source, name, flags, Mode::empty())?;
            let to = fs::openat(destination, name, flags, Mode::empty())?;
            copy_folder(from.as_fd(), to.as_fd(), path, depth + 1, copied)
        }
        FileType::RegularFile => {
            let from = fs::openat(source, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let to = fs::openat(destination, name, flags, Mode::RUSR | Mode::WUSR)?;
            io::copy(&mut std::fs::File::from(from.try_clone()?), &mut std::fs::File::from(to.try_clone()?))?;
            copy_attributes(from.as_fd(), to.as_fd())
        }
        FileType::Symlink => {
            let link = fs::readlinkat(source, name, Vec::new())?;
            fs::symlinkat(link, destination, name)?;
            let (user, group) = owner(&stat);
            Ok(fs::chownat(destination, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?)
        }
        FileType::Fifo => {
            fs::mknodat(destination, name, FileType::Fifo, mode, 0)?;
            let (user, group) = owner(&stat);
            Ok(fs::chownat(destination, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?)
        }
        // Sockets mean nothing without their process; devices are not taken over into volumes.
        _ => Ok(()),
    }
}

fn copy_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let stat = fs::fstat(from)?;
    let (user, group) = owner(&stat);
    fs::fchown(to, Some(user), Some(group))?;
    fs::fchmod(to, Mode::from_raw_mode(stat.st_mode))?;
    for (name, value) in xattr::of(from)? {
        xattr::give(to, &name, &value)?;
    }
    let time = |secs: i64, nanos: i64| rustix::time::Timespec { tv_sec: secs, tv_nsec: nanos };
    let times = fs::Timestamps {
        last_access: time(stat.st_atime as i64, stat.st_atime_nsec as i64),
        last_modification: time(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
    };
    Ok(fs::futimens(to, &times)?)
}

fn owner(stat: &fs::Stat) -> (fs::Uid, fs::Gid) {
    (fs::Uid::from_raw(stat.st_uid), fs::Gid::from_raw(stat.st_gid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    #[test]
    fn fills_from_the_merged_tree_and_follows_links_only_inside() {
        let temp = tempfile::tempdir().unwrap();
        let layer = |name: &str| {
            let path = temp.path().join(name);
            std::fs::create_dir_all(path.join("data")).unwrap();
            path
        };
        let (low, high) = (layer("low"), layer("high"));
        std::fs::write(low.join("data/a"), "low").unwrap();
        std::fs::write(low.join("data/b"), "low").unwrap();
        std::fs::write(high.join("data/b"), "high").unwrap();
        std::fs::create_dir(high.join("data/sub")).unwrap();
        std::fs::set_permissions(high.join("data"), std::fs::Permissions::from_mode(0o750)).unwrap();
        std::os::unix::fs::chown(high.join("data"), Some(999), Some(998)).unwrap();
        symlink("/data", high.join("alias")).unwrap();
        std::fs::hard_link(high.join("data/b"), high.join("data/sub/same")).unwrap();
        fs::setxattr(high.join("data/b"), "user.colour", b"blue", fs::XattrFlags::empty()).unwrap();
        symlink("../../../../etc", high.join("out")).unwrap();
        let into = temp.path().join("volume");
        std::fs::create_dir(&into).unwrap();
        copy_up(&[low.clone(), high.clone()], "/alias", &into).unwrap();
        assert_eq!(std::fs::read_to_string(into.join("a")).unwrap(), "low");
        assert_eq!(std::fs::read_to_string(into.join("b")).unwrap(), "high");
        assert!(into.join("sub").is_dir());
        let meta = std::fs::metadata(&into).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (999, 998, 0o750));
        let (one, two) =
            (std::fs::metadata(into.join("b")).unwrap(), std::fs::metadata(into.join("sub/same")).unwrap());
        assert_eq!((one.ino(), one.nlink()), (two.ino(), 2), "one file with two names stays one");
        let mut colour = [0_u8; 8];
        assert_eq!(fs::getxattr(into.join("b"), "user.colour", &mut colour).unwrap(), 4);
        let empty = temp.path().join("empty");
        std::fs::create_dir(&empty).unwrap();
        copy_up(&[low, high], "/out", &empty).unwrap();
        assert_eq!(
            std::fs::read_dir(&empty).unwrap().count(),
            0,
            "the link leads to /etc inside the image, which is absent"
        );
    }

    #[test]
    fn a_second_name_is_never_that_of_a_file_outside() {
        let temp = tempfile::tempdir().unwrap();
        let (volume, host) = (temp.path().join("volume"), temp.path().join("host"));
        std::fs::create_dir_all(volume.join("sub")).unwrap();
        std::fs::create_dir(&host).unwrap();
        std::fs::write(volume.join("sub/secret"), "copied").unwrap();
        std::fs::write(host.join("secret"), "the host's").unwrap();
        let root = fs::open(&volume, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let copied = Copied { root: root.as_fd(), linked: HashMap::new() };
        assert!(copied.link(Path::new("sub/secret"), root.as_fd(), c"one"));
        // As a container does that has the volume while it is filled.
        std::fs::rename(volume.join("sub"), volume.join("moved")).unwrap();
        symlink(&host, volume.join("sub")).unwrap();
        assert!(!copied.link(Path::new("sub/secret"), root.as_fd(), c"two"));
        assert!(!volume.join("two").exists());
        symlink("moved", volume.join("way")).unwrap();
        assert!(!copied.link(Path::new("way/secret"), root.as_fd(), c"three"), "no link at all is followed");
        assert_eq!(std::fs::metadata(host.join("secret")).unwrap().nlink(), 1);
    }
}
