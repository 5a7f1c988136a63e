//! The sockets of the API, and the locks that keep a second engine out of a data root and an exec root.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, flock};
use tokio::net::UnixListener;

/// Makes a folder that nobody else may enter, and closes one that an older version left open.
///
/// What is stored in it are programs of strangers, some of them setuid, and secrets of those who run them. Source:
/// CVE-2021-41091 of moby.
pub fn make_closed_folder(path: &Path) -> anyhow::Result<()> {
    make_own_folder(path, 0o700)
}

/// Makes a folder that only we write to, and mends the mode of one that was there.
///
/// # Errors
/// When it is another user's: that user could put anything in our files' place.
pub fn make_own_folder(path: &Path, mode: u32) -> anyhow::Result<()> {
    let failed = || format!("cannot make the folder {}", path.display());
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(path).with_context(failed)?;
    let found = std::fs::metadata(path).with_context(failed)?;
    if found.uid() != rustix::process::geteuid().as_raw() {
        bail!(
            "the folder {} belongs to user {} and not to the one that biremed runs as, who alone may write to it: give it to that user, or choose another folder",
            path.display(),
            found.uid()
        );
    }
    std::fs::set_permissions(path, Permissions::from_mode(mode)).with_context(failed)
}

/// Makes a folder of ours, which others may pass through and not look into.
pub fn make_folder(path: &Path) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(path)
        .with_context(|| format!("cannot make the folder {}", path.display()))
}

/// What is locked for one engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    Data,
    /// Where two would end each other's workloads and take each other's sockets.
    Exec,
}

impl Root {
    fn file(self) -> &'static str {
        match self {
            Self::Data => "engine.lock",
            Self::Exec => "exec.lock",
        }
    }

    fn flag(self) -> &'static str {
        match self {
            Self::Data => "--data-root",
            Self::Exec => "--exec-root",
        }
    }
}

/// Held as long as this engine has a root.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Takes a root, or says who has it.
pub fn lock(root: Root, folder: &Path) -> anyhow::Result<Lock> {
    let path = folder.join(root.file());
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot open the lock {}", path.display()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut owner = String::new();
        let _ = file.read_to_string(&mut owner);
        bail!(
            "another engine (process {}) uses {}: stop it, or give this one a {} of its own",
            owner.trim(),
            folder.display(),
            root.flag()
        );
    }
    // The lock is held all the same; a full disk is no reason not to start.
    if let Err(error) = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())) {
        tracing::warn!(path = %path.display(), %error, "cannot write the process ID into the lock");
    }
    Ok(Lock { _file: file })
}

/// A socket that is listened on, removed when dropped.
#[derive(Debug)]
pub struct Socket {
    pub listener: UnixListener,
    pub file: SocketFile,
}

/// The path of a socket; dropping it removes the file.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::debug!(path = %self.0.display(), %error, "cannot remove the socket");
        }
    }
}

/// Listens on `path`, in the place of a socket that nobody answers on.
///
/// Readable and writable by owner and group only, from its first moment: it is made aside and renamed into place.
pub fn listen(path: &Path, group: Option<&str>) -> anyhow::Result<Socket> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    make_folder(folder)?;
    match std::fs::symlink_metadata(path) {
        Ok(found) => {
            use std::os::unix::fs::FileTypeExt as _;
            if !found.file_type().is_socket() {
                bail!(
                    "cannot listen on {}: there is a file that is no socket; remove it or choose another path",
                    path.display()
                );
            }
            if UnixStream::connect(path).is_ok() {
                bail!(
                    "cannot listen on {}: another engine answers there; stop it or choose another path",
                    path.display()
                );
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot look at {}", path.display())),
    }
    let name = path.file_name().with_context(|| format!("{} is no path of a socket", path.display()))?;
    let aside = folder.join(format!(".{}.new", name.to_string_lossy()));
    let _ = std::fs::remove_file(&aside);
    let failed = || format!("cannot listen on {}", path.display());
    let listener = UnixListener::bind(&aside).with_context(failed)?;
    std::fs::set_permissions(&aside, Permissions::from_mode(0o660)).with_context(failed)?;
    if let Some(group) = group {
        let id = nix::unistd::Group::from_name(group)
            .with_context(|| format!("cannot look up the group {group:?}"))?
            .with_context(|| {
                format!("there is no group {group:?} to give the socket to: make it, or name another with -G")
            })?
            .gid;
        std::os::unix::fs::chown(&aside, None, Some(id.as_raw())).with_context(failed)?;
    }
    std::fs::rename(&aside, path).with_context(failed)?;
    Ok(Socket { listener, file: SocketFile(path.to_owned()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let socket = listen(&path, None).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        let refused = listen(&path, None).unwrap_err().to_string();
        assert!(refused.contains("another engine answers there"), "{refused}");
        drop(socket);
        assert!(!path.exists());
        std::fs::write(&path, "").unwrap();
        let refused = listen(&path, None).unwrap_err().to_string();
        assert!(refused.contains("a file that is no socket"), "{refused}");
    }

    #[test]
    fn a_root_has_one_engine() {
        let root = tempfile::tempdir().unwrap();
        for (kind, flag) in [(Root::Data, "--data-root"), (Root::Exec, "--exec-root")] {
            let held = lock(kind, root.path()).unwrap();
            let refused = lock(kind, root.path()).unwrap_err().to_string();
            assert!(refused.contains(&format!("another engine (process {})", std::process::id())), "{refused}");
            assert!(refused.contains(flag), "{refused}");
            drop(held);
            lock(kind, root.path()).unwrap();
        }
        let _both = [Root::Data, Root::Exec].map(|kind| lock(kind, root.path()).unwrap());
    }

    #[test]
    fn a_folder_of_ours_is_closed_and_never_another_users() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b");
        make_closed_folder(&path).unwrap();
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(), 0o700);
        std::fs::set_permissions(&path, Permissions::from_mode(0o1777)).unwrap();
        make_own_folder(&path, 0o711).unwrap();
        assert_eq!(mode(), 0o711);
        std::os::unix::fs::chown(&path, Some(65_533), None).expect("tests run as root");
        let refused = make_closed_folder(&path).unwrap_err().to_string();
        assert!(refused.contains("belongs to user 65533"), "{refused}");
    }
}
