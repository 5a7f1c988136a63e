//! The overlay of an image's layers with the container's own folder on top.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use bireme_core::ErrorKind;
use bireme_linux::protocol::Failure;
use bireme_sys::mounts::topmost;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags};

use crate::failure::failed;

pub(super) fn mount(
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
    mount_at(run_dir, lower, upper, work, at, nodev)
        .map_err(|error| failed("cannot mount the overlay of the image's layers", error))
}

/// Mounts layers with a folder on top at `at`. For a moment, links to the layers may be made in `folder`.
pub(super) fn mount_at(
    folder: &Path,
    lower: &[PathBuf],
    upper: &Path,
    work: &Path,
    at: &Path,
    nodev: bool,
) -> io::Result<()> {
    match by_handle(lower, upper, work, at, nodev) {
        // Before Linux 6.8 there is no lowerdir+.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => {
            by_options(&folder.join("layers"), lower, upper, work, at, nodev)
        }
        other => other,
    }
}

/// Layer by layer, so that their number is not limited by the size of a page.
fn by_handle(lower: &[PathBuf], upper: &Path, work: &Path, at: &Path, nodev: bool) -> io::Result<()> {
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
fn by_options(links: &Path, lower: &[PathBuf], upper: &Path, work: &Path, at: &Path, nodev: bool) -> io::Result<()> {
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
