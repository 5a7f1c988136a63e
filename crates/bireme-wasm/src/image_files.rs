//! What an image holds beside its component, as folders that the component's instances read.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use bireme_core::{ErrorKind, ExecError};
use bireme_sys::mounts::{in_private_namespace, overlay, set_attributes, topmost};
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount};

use crate::mounts::NO_DEVICES;

/// Folders at the top of an image that are handed over one by one at most.
const MOST_FOLDERS: usize = 32;

/// The folders and the paths at which instances see them: the whole tree at `/`; where the component works in a folder of its
/// own, `cwd`, the folders at the top of it, as guests take either `/` or `.` for what relative paths begin at.
///
/// `layers`: unpacked, lowest first. `namespace`: in which files of the workload's user are the host's; where that cannot be,
/// the rights of others count.
///
/// # Errors
/// `Internal` where the layers cannot be opened, or there are more folders at the top than any file system tree has.
pub(crate) fn open(
    layers: &[PathBuf],
    namespace: Option<BorrowedFd<'_>>,
    cwd: &str,
) -> Result<Vec<(OwnedFd, String)>, ExecError> {
    let failed = |error: std::io::Error| {
        ExecError::new(ErrorKind::Internal, "cannot open the files of the image").caused_by(error)
    };
    let root = tree(layers, namespace).map_err(failed)?;
    if cwd.is_empty() || cwd == "/" {
        return Ok(vec![(root, "/".to_owned())]);
    }
    let root = rustix::fs::openat(&root, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    folders_of(root.map_err(|error| failed(error.into()))?.as_fd()).map_err(|error| failed(error.into()))
}

/// The layers as one folder on a mount of its own.
fn tree(layers: &[PathBuf], namespace: Option<BorrowedFd<'_>>) -> std::io::Result<OwnedFd> {
    let flags = NO_DEVICES | libc::MOUNT_ATTR_RDONLY;
    match topmost(layers)[..] {
        [only] if !rustix::process::geteuid().is_root() => {
            Ok(rustix::fs::open(only, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
        }
        [only] => {
            let tree =
                rustix::mount::open_tree(CWD, only, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
            set_attributes(tree.as_fd(), flags, None, false)?;
            if let Some(namespace) = namespace
                && let Err(error) = set_attributes(tree.as_fd(), 0, Some(namespace), false)
            {
                tracing::debug!(source = %only.display(), %error, "owners cannot be mapped on this file system");
            }
            Ok(tree)
        }
        _ => {
            let mapped = namespace.map(|namespace| mapped_overlay(layers, namespace));
            let tree = match mapped {
                Some(Ok(tree)) => tree,
                Some(Err(error)) => {
                    tracing::debug!(%error, "owners cannot be mapped in the layers of an image");
                    overlay(layers, None)?
                }
                None => overlay(layers, None)?,
            };
            set_attributes(tree.as_fd(), flags, None, false)?;
            Ok(tree)
        }
    }
}

/// The overlay of layers whose owners are mapped by `namespace`: each is mounted so over itself, where nobody else looks.
///
/// Source: the kernel's `Documentation/filesystems/overlayfs.rst`, Linux 5.19: layers may be mapped, the overlay may not.
fn mapped_overlay(layers: &[PathBuf], namespace: BorrowedFd<'_>) -> std::io::Result<OwnedFd> {
    let mounted = in_private_namespace(|| {
        for layer in topmost(layers) {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            let tree = rustix::mount::open_tree(CWD, layer, flags)?;
            set_attributes(tree.as_fd(), 0, Some(namespace), false)?;
            move_mount(&tree, "", CWD, layer, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        }
        overlay(layers, None)
    });
    // The overlay has mounts of its own of the layers: the namespace need not stay.
    mounted.map(|(tree, _namespace)| tree)
}

fn folders_of(root: BorrowedFd<'_>) -> rustix::io::Result<Vec<(OwnedFd, String)>> {
    let mut folders = Vec::new();
    for entry in Dir::read_from(root)? {
        let entry = entry?;
        let name = entry.file_name();
        let Ok(text) = name.to_str() else { continue };
        if matches!(text, "." | "..") || !matches!(entry.file_type(), FileType::Directory | FileType::Unknown) {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(root, name, flags, Mode::empty()) {
            Ok(folder) => folders.push((folder, Path::new("/").join(text).to_string_lossy().into_owned())),
            Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {}
            Err(error) => return Err(error),
        }
        if folders.len() > MOST_FOLDERS {
            return Err(rustix::io::Errno::TOOBIG);
        }
    }
    folders.sort_by(|one, other| one.1.cmp(&other.1));
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use rustix::fs::StatVfsMountFlags as Flags;

    use super::*;

    fn layer(root: &Path, name: &str, files: &[&str]) -> PathBuf {
        let folder = root.join(name);
        for file in files {
            let path = folder.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, name).unwrap();
        }
        folder
    }

    fn read(folder: &OwnedFd, path: &str) -> std::io::Result<String> {
        let file = rustix::fs::openat(folder, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        std::io::read_to_string(std::fs::File::from(file))
    }

    #[test]
    fn the_layers_of_an_image_are_one_tree_that_is_only_read() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let low = layer(dir.path(), "low", &["app.wasm", "assets/a", "assets/b"]);
        let high = layer(dir.path(), "high", &["assets/b", "www/index.html"]);
        for (layers, b) in [(vec![low.clone()], "low"), (vec![low.clone(), high.clone()], "high")] {
            for cwd in ["", "/"] {
                let opened = open(&layers, None, cwd).unwrap();
                let [(root, at)] = &opened[..] else { panic!("{}", opened.len()) };
                assert_eq!((at.as_str(), read(root, "assets/b").unwrap().as_str()), ("/", b));
                assert_eq!(read(root, "assets/a").unwrap(), "low");
                let flags = rustix::fs::fstatvfs(root).unwrap().f_flag;
                assert!(flags.contains(Flags::RDONLY | Flags::NODEV | Flags::NOSUID | Flags::NOEXEC), "{flags:?}");
            }
        }
        let opened = open(&[low, high], None, "/data").unwrap();
        let at: Vec<&str> = opened.iter().map(|(_, at)| at.as_str()).collect();
        assert_eq!(at, ["/assets", "/www"]);
        assert_eq!(read(&opened[0].0, "b").unwrap(), "high");
    }
}
