//! A program that nobody changes, whoever runs it.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags};

/// Bytes of the largest program that is copied.
const MOST_BYTES: u64 = 1 << 30;

/// A copy of the program at `path` in memory, opened for reading, to be executed by `/proc/self/fd`. `name` is what its
/// processes show as their program.
///
/// It is the only file of a file system that is read-only and mounted nowhere. A sealed file (memfd_create(2)) would have
/// its bytes kept, but not its owner, mode, access control list and capabilities: one that is run inside a container belongs
/// to root there, who could take away the permission to execute it for all that are started later.
///
/// # Errors
/// Those of reading `path`; `EPERM` without `CAP_SYS_ADMIN`.
///
/// Source: fsopen(2), fsmount(2), Linux 5.2; CVE-2019-5736.
pub fn read_only_copy(path: &Path, name: &str) -> io::Result<OwnedFd> {
    let source = File::open(path)?;
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(context.as_fd(), "mode", "0500")?;
    rustix::mount::fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let root = rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let mut copy = File::from(rustix::fs::openat(&root, name, flags, Mode::RUSR | Mode::XUSR)?);
    io::copy(&mut source.take(MOST_BYTES), &mut copy)?;
    // What anyone has open for writing can neither be executed nor have its file system made read-only.
    drop(copy);
    make_read_only(&root)?;
    Ok(rustix::fs::openat(&root, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// How long something of a file system may be open for writing: a process that another thread of this one starts has all that
/// is open, until it executes its program.
const STARTING: Duration = Duration::from_secs(5);

/// Makes the file system of a mount that is attached nowhere read-only.
///
/// # Errors
/// `EBUSY` when something of it stays open for writing. Source: fspick(2).
fn make_read_only(root: &OwnedFd) -> io::Result<()> {
    let until = Instant::now() + STARTING;
    loop {
        // A context that has failed once does nothing any more.
        let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
        let context = rustix::mount::fspick(root, "", flags)?;
        rustix::mount::fsconfig_set_flag(context.as_fd(), "ro")?;
        match rustix::mount::fsconfig_reconfigure(context.as_fd()) {
            Err(rustix::io::Errno::BUSY) if Instant::now() < until => std::thread::sleep(Duration::from_millis(2)),
            done => return Ok(done?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_copy_is_executed_and_never_changed() {
        let copy = read_only_copy(Path::new("/bin/echo"), "copied").unwrap();
        let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
        for _ in 0..2 {
            let said = std::process::Command::new(&path).arg("here").output().unwrap();
            assert_eq!(said.stdout, b"here\n");
            assert_eq!(std::fs::read_link(&path).unwrap(), Path::new("/copied"));
            let stat = rustix::fs::fstat(&copy).unwrap();
            let (uid, gid) = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
            assert_eq!(rustix::fs::fchmod(&copy, Mode::empty()), Err(Errno::ROFS));
            assert_eq!(rustix::fs::fchown(&copy, Some(uid), Some(gid)), Err(Errno::ROFS));
            let attribute =
                rustix::fs::fsetxattr(&copy, "system.posix_acl_access", &[], rustix::fs::XattrFlags::empty());
            assert_eq!(attribute, Err(Errno::ROFS));
            let written = rustix::fs::open(&path, OFlags::WRONLY, Mode::empty());
            assert!(matches!(written, Err(Errno::ROFS | Errno::TXTBSY)), "{written:?}");
        }
        read_only_copy(Path::new("/nowhere"), "copied").unwrap_err();
    }

    /// Every process that is started has what is open in that moment, until it executes its program.
    #[test]
    fn processes_that_are_started_meanwhile_are_waited_for() {
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        // With something to do before it is executed, the standard library forks.
                        let mut command = std::process::Command::new("/bin/true");
                        std::os::unix::process::CommandExt::process_group(&mut command, 0);
                        command.current_dir("/").status().unwrap();
                    }
                });
            }
            let copies: Vec<_> = (0..200).map(|_| read_only_copy(Path::new("/bin/true"), "copied")).collect();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            for copy in copies {
                assert_eq!(rustix::fs::fchmod(copy.unwrap(), Mode::empty()), Err(Errno::ROFS));
            }
        });
    }
}
