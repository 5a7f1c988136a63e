//! Folders that are cleared away in the background, all by one thread: one may hold millions of names, and whoever still has
//! it open may make further ones for as long as it likes.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bireme_sys::removal;
use parking_lot::{Mutex, MutexGuard};

/// How long the thread is at one folder before it is another's turn.
const TURN: Duration = Duration::from_secs(10);
/// Pause after a turn that did not suffice.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Clone, Default)]
pub(crate) struct Clearing(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    folders: VecDeque<PathBuf>,
    /// Whether there is a thread.
    works: bool,
}

impl Clearing {
    /// Has a folder that nothing uses cleared away.
    pub(crate) fn add(&self, folder: PathBuf) {
        tracing::info!(path = %folder.display(), "clearing away a folder that nothing remembered uses");
        let mut waiting = self.lock();
        waiting.folders.push_back(folder);
        if std::mem::replace(&mut waiting.works, true) {
            return;
        }
        drop(waiting);
        let clearing = self.clone();
        // Not of the runtime, which waits for its own at its end.
        let thread = std::thread::Builder::new().name("clearing".to_owned()).spawn(move || clearing.work(TURN));
        if let Err(error) = thread {
            tracing::warn!(%error, "leftover folders are cleared away with the next one, or at the next start");
            self.lock().works = false;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock()
    }

    fn next(&self) -> Option<PathBuf> {
        let mut waiting = self.lock();
        let next = waiting.folders.pop_front();
        waiting.works = next.is_some();
        next
    }

    fn work(&self, turn: Duration) {
        // Whoever waits for something else comes first.
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), 19);
        while let Some(folder) = self.next() {
            match clear(&folder, turn) {
                Ok(true) => {}
                Ok(false) => {
                    self.lock().folders.push_back(folder);
                    std::thread::sleep(PAUSE);
                }
                Err(error) => {
                    tracing::warn!(path = %folder.display(), %error, "a leftover folder could not be removed");
                }
            }
        }
    }
}

/// Answers whether the folder is gone.
fn clear(folder: &Path, turn: Duration) -> std::io::Result<bool> {
    if !removal::empty_tree_until(folder, Instant::now() + turn)? {
        return Ok(false);
    }
    match std::fs::remove_dir(folder) {
        Ok(()) => Ok(true),
        Err(error) => match error.kind() {
            std::io::ErrorKind::NotFound => Ok(true),
            // Something came into it meanwhile.
            std::io::ErrorKind::DirectoryNotEmpty => Ok(false),
            // It was none.
            std::io::ErrorKind::NotADirectory => std::fs::remove_file(folder).map(|()| true),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_clears_all_and_none_holds_up_the_others() {
        let root = tempfile::tempdir().unwrap();
        let folders: Vec<PathBuf> = (0..20).map(|number| root.path().join(number.to_string())).collect();
        for folder in &folders {
            std::fs::create_dir_all(folder.join("a/b")).unwrap();
            std::fs::write(folder.join("a/b/c"), "x").unwrap();
        }
        // Grows as fast as it is cleared.
        let (grows, stop) = (root.path().join("grows"), std::sync::atomic::AtomicBool::new(false));
        std::fs::create_dir(&grows).unwrap();
        let clearing = Clearing::default();
        clearing.lock().folders.extend([grows.clone()].into_iter().chain(folders.clone()));
        clearing.lock().works = true;
        std::thread::scope(|scope| {
            // Before anybody clears it away.
            let folder = std::fs::File::open(&grows).unwrap();
            let stop = &stop;
            scope.spawn(move || {
                for number in 0.. {
                    if stop.load(std::sync::atomic::Ordering::Relaxed) {
                        return;
                    }
                    let _ = rustix::fs::mkdirat(&folder, format!("{number}"), rustix::fs::Mode::RWXU);
                }
            });
            let worker = scope.spawn(|| clearing.work(Duration::from_millis(50)));
            let until = Instant::now() + Duration::from_secs(30);
            while folders.iter().any(|folder| folder.exists()) && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(10));
            }
            assert!(folders.iter().all(|folder| !folder.exists()), "one holds up the others");
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            worker.join().unwrap();
        });
        assert!(!grows.exists() && !clearing.lock().works);
    }
}
