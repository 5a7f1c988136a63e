//! Places inside the root, looked up and made without being led out of it, nor over the kernel's files.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use bireme_core::ErrorKind;
use bireme_linux::protocol::Failure;
use bireme_linux::spec;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags};

use super::Rootfs;
use crate::failure::failed;

/// Where the kernel's own files are.
const KERNELS: [&str; 2] = ["/proc", "/sys"];

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
    pub(super) fn make_real(&self, names: &[&str]) -> Result<(), Failure> {
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

    pub(super) fn resolve(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
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
    pub(super) fn make_cwd(&self, target: &Path) -> Result<(), Failure> {
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
    pub(super) fn make(&self, target: &Path, folder: bool) -> Result<OwnedFd, Failure> {
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
    pub(super) fn outside_of(&self, found: &OwnedFd, target: &Path, kernels: &[&str]) -> Result<(), Failure> {
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
    pub(super) fn still_stands(&self) -> Result<(), Failure> {
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
}

/// The mount, device and file that a descriptor stands for.
fn identity(file: &OwnedFd) -> io::Result<(u64, u32, u32, u64)> {
    let flags = StatxFlags::MNT_ID | StatxFlags::INO;
    let found = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW, flags)?;
    Ok((found.stx_mnt_id, found.stx_dev_major, found.stx_dev_minor, found.stx_ino))
}
