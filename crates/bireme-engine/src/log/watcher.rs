//! When a log is looked at again: as inotify tells of it, or now and then where the kernel has no watch left.

use std::io::{self};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;

/// Tells when the folder of a log changed.
pub(super) enum Watch {
    Told(AsyncFd<OwnedFd>),
    /// The kernel has no watch left, of which a user has 128, containers' root among them: it is looked at now and then.
    Asked,
}

impl Watch {
    pub(super) fn new(folder: &Path) -> Self {
        Self::begin(folder).unwrap_or_else(|error| {
            tracing::debug!(folder = %folder.display(), %error, "a log is looked at now and then instead of watched");
            Self::Asked
        })
    }

    #[expect(
        deprecated,
        reason = "its unsafe successor wants the promise that an OwnedFd keeps its file, which it does by its type"
    )]
    pub(super) fn begin(folder: &Path) -> io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(
            &fd,
            folder,
            inotify::WatchFlags::MODIFY
                | inotify::WatchFlags::CREATE
                | inotify::WatchFlags::MOVED_TO
                | inotify::WatchFlags::DELETE_SELF
                | inotify::WatchFlags::ONLYDIR,
        )?;
        Ok(Self::Told(AsyncFd::new(fd)?))
    }

    /// Waits for the next change; several at once count as one.
    pub(super) async fn changed(&mut self) {
        let ready = match self {
            Self::Told(fd) => fd.readable_mut().await,
            Self::Asked => return tokio::time::sleep(LOOK_EVERY).await,
        };
        let Ok(mut ready) = ready else { return tokio::time::sleep(LOOK_EVERY).await };
        let mut buffer = [0u8; 4096];
        // Whoever writes faster than this is told of again.
        for _ in 0..16 {
            match rustix::io::read(ready.get_inner(), &mut buffer) {
                Ok(0) | Err(_) => return ready.clear_ready(),
                Ok(_) => {}
            }
        }
    }
}

/// How often a log is looked at where the kernel cannot tell of changes.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(250);
