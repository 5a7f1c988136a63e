//! How many bytes lie in a folder, as `docker ps -s` and `docker system df` count them.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::Path;

use bireme_sys::walk;
use tokio::sync::Semaphore;

/// Folders that are counted at once: of a volume whose server is silent, counting may never end.
static COUNTING: Semaphore = Semaphore::const_new(8);

/// Bytes of the files below a folder, each file with several names once. What cannot be read, goes meanwhile, is
/// mounted there, or lies deeper than [`walk::DEEPEST`], is not counted.
///
/// Source: `directory.Size` of containerd's `fs` and moby's `directory`.
pub(crate) async fn of(folder: &Path) -> u64 {
    let folder = folder.to_owned();
    let Ok(place) = COUNTING.acquire().await else { return 0 };
    // A task that was cut short at the end of the runtime has counted nothing.
    let count = tokio::task::spawn_blocking(move || {
        let _place = place;
        below(&folder)
    });
    count.await.unwrap_or_default()
}

/// Bytes of `/etc/hosts` and the like, which lie beside a container's own files: those that the container made large.
pub(crate) async fn beside(folder: &Path) -> u64 {
    let folder = folder.to_owned();
    let sizes = tokio::task::spawn_blocking(move || {
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        files.filter_map(|file| Some(file.metadata().ok()?.len())).filter(|size| *size > OURS).sum()
    });
    sizes.await.unwrap_or_default()
}

/// What the engine itself writes into one of those files is less.
const OURS: u64 = 64 << 10;

fn below(folder: &Path) -> u64 {
    let mut total = 0;
    let mut several = HashSet::new();
    // A container may put a link in a folder's place at any moment: the walk does not go by paths.
    let _ = walk::files(
        folder,
        |about| {
            if about.st_nlink < 2 || several.insert((about.st_dev, about.st_ino)) {
                total += u64::try_from(about.st_size).unwrap_or(0);
            }
            ControlFlow::<()>::Continue(())
        },
        || ControlFlow::Continue(()),
    );
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_count_once_and_folders_not() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(temp.path().join("a/b")).unwrap();
        std::fs::write(temp.path().join("a/b/one"), "12345").unwrap();
        std::fs::hard_link(temp.path().join("a/b/one"), temp.path().join("two")).unwrap();
        std::os::unix::fs::symlink("1234567", temp.path().join("three")).unwrap();
        assert_eq!(of(temp.path()).await, 5 + 7);
        assert_eq!(of(&temp.path().join("nowhere")).await, 0);
    }
}
