//! Network namespaces.
//!
//! A namespace is kept alive by a bind mount of its file, and entered by path. Both happen on a thread of their own
//! that ends afterwards: a thread that failed to come back from another namespace would otherwise go on serving the
//! daemon from there.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::mount::{MountPropagationFlags, UnmountFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

/// Runs `work` on a new thread and waits for it. The thread ends afterwards, whatever namespaces it is then in.
///
/// # Errors
/// When no thread could be started. A panic of `work` continues in the caller.
pub fn on_own_thread<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(name.into()).stack_size(256 << 10).spawn_scoped(scope, work)?;
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Makes a network namespace, runs `prepare` inside it, and binds it to the file at `path`, which is created.
///
/// `lo` is down in it, as the kernel makes it. Nothing is left behind on error.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`; [`io::ErrorKind::AlreadyExists`] when `path` exists; whatever `prepare` answers.
pub fn create<T: Send>(path: &Path, prepare: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    File::create_new(path)?;
    let made = on_own_thread("netns-create", || {
        unshare(UnshareFlags::NEWNET)?;
        let answer = prepare()?;
        rustix::mount::mount_bind("/proc/thread-self/ns/net", path)?;
        Ok(answer)
    })
    .flatten();
    if made.is_err() {
        let _ = std::fs::remove_file(path);
    }
    made
}

/// Binds the namespace of the file `from`, such as `/proc/PID/ns/net`, to the file at `path`, which is created.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] when `path` exists, [`io::ErrorKind::NotFound`] when `from` does not; `EPERM` without
/// `CAP_SYS_ADMIN`. Nothing is left behind.
pub fn keep(from: &Path, path: &Path) -> io::Result<()> {
    File::create_new(path)?;
    let bound = rustix::mount::mount_bind(from, path);
    if bound.is_err() {
        let _ = std::fs::remove_file(path);
    }
    Ok(bound?)
}

/// Unbinds the namespace from `path` and removes the file. The namespace ends with its last process and socket.
/// Idempotent: an absent file, or one that is not a mount (left by a restart of the machine), is no error.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`; otherwise as umount2(2) and unlink(2).
pub fn remove(path: &Path) -> io::Result<()> {
    match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether a namespace is bound to `path` (after a restart of the machine only an empty file is left).
pub fn exists(path: &Path) -> bool {
    const NSFS_MAGIC: u64 = 0x6e73_6673;
    rustix::fs::statfs(path).is_ok_and(|found| found.f_type as u64 == NSFS_MAGIC)
}

/// Runs `work` inside the network namespace at `path`. Sockets that it opens stay there and may be returned.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] when nothing is at `path`; `EINVAL` when it is not a namespace; `EPERM` without
/// `CAP_SYS_ADMIN`.
pub fn run_in_netns<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let namespace = File::open(path)?;
    on_own_thread("netns", || {
        enter(&namespace)?;
        Ok(work())
    })
    .flatten()
}

/// Moves the calling thread into `namespace`, for threads and processes that shall stay there.
///
/// # Errors
/// `EINVAL` for what is no network namespace; `EPERM` without `CAP_SYS_ADMIN`.
pub fn enter(namespace: impl AsFd) -> io::Result<()> {
    Ok(rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// Moves the calling thread into a network namespace and a mount namespace of its own, from which no mount leaks out.
///
/// Threads it starts later are there too, and everything made there ends with the last of them: what tests stand on.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`.
pub fn isolate_thread() -> io::Result<()> {
    unshare(UnshareFlags::NEWNET | UnshareFlags::NEWNS)?;
    Ok(rustix::mount::mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?)
}

pub(crate) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    debug_assert!(!flags.contains(UnshareFlags::FILES));
    // SAFETY: unshare_unsafe is unsafe because of CLONE_FILES alone, which no caller in this module passes.
    #[expect(unsafe_code, reason = "rustix has no safe form for the flags that are safe")]
    unsafe {
        rustix::thread::unshare_unsafe(flags)?;
    }
    Ok(())
}
