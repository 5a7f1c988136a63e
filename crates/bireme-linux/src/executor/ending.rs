//! Ends what is in a cgroup, and removes it. All of it blocks.

use std::io;
use std::time::Duration;

use crate::cgroup::Cgroup;

/// How often a cgroup with very many below it is gone through, some seconds each time.
const MOST_ROUNDS: usize = 1000;

/// Ends all that is in a cgroup, and removes it. Blocking.
pub(super) fn end(cgroup: &Cgroup) -> io::Result<()> {
    cgroup.kill(Duration::from_secs(10)).and_then(|()| remove(cgroup))
}

/// As [`end`], and nothing goes on in the background. Blocking.
pub(super) fn end_whole(cgroup: &Cgroup) -> io::Result<()> {
    cgroup.kill(Duration::from_secs(10))?;
    let until = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        match cgroup.remove() {
            Err(error) if error.kind() == io::ErrorKind::TimedOut && std::time::Instant::now() < until => {}
            other => return other,
        }
    }
}

/// Removes a cgroup that nothing is in. Where it has very many below it, that goes on in the background. Blocking.
fn remove(cgroup: &Cgroup) -> io::Result<()> {
    match cgroup.remove() {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            let cgroup = cgroup.clone();
            let on = move || {
                for _ in 0..MOST_ROUNDS {
                    if !cgroup.remove().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut) {
                        return;
                    }
                }
            };
            std::thread::Builder::new().name("clearing".to_owned()).spawn(on).map(drop)
        }
        other => other,
    }
}
