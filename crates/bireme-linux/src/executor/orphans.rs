//! What runs of this engine's containers and is held by nobody: found by the names of cgroups.

use std::collections::HashSet;
use std::io;

use bireme_core::{WorkloadId, WorkloadSpec};

use super::{LinuxExecutor, ending};
use crate::cgroup::{self, Cgroup};

impl LinuxExecutor {
    /// See [`bireme_core::Executor::sweep`]. Going through the cgroups blocks, and goes on where the future is dropped.
    pub(super) async fn sweep_now(&self, known: &[WorkloadId], resting: &[&WorkloadSpec]) {
        let parent = self.parent_cgroup();
        let keep: HashSet<String> = known.iter().map(|id| id.as_str().to_owned()).collect();
        // Those below a parent of their own, which is not ours to look through.
        let elsewhere = resting.iter().map(|spec| self.cgroup_path(spec));
        let elsewhere: Vec<String> = elsewhere.filter(|path| !path.starts_with(&format!("{parent}/"))).collect();
        let swept = tokio::task::spawn_blocking(move || {
            let ours = Cgroup::new(&parent).children().into_iter().filter(|name| !keep.contains(name));
            for path in ours.map(|name| format!("{parent}/{name}")).chain(elsewhere) {
                let cgroup = Cgroup::new(&path);
                if !cgroup.exists() {
                    continue;
                }
                match ending::end(&cgroup) {
                    Ok(()) => tracing::info!(cgroup = %path, "removed a container of an earlier run"),
                    Err(error) => {
                        tracing::warn!(cgroup = %path, %error, "cannot remove a container of an earlier run")
                    }
                }
            }
        });
        let _ = swept.await;
    }
}

/// Ends what runs in the cgroup `own`, and in every other called `id` that may be of the engine called `instance`: which
/// parent a workload named stands in its record alone, and that is lost. Blocking.
pub(super) fn end_all_of(id: &str, own: String, instance: &str) -> io::Result<()> {
    let elsewhere = cgroup::called(|called| called == id).into_iter();
    let mut all: Vec<String> = elsewhere.filter(|path| may_be_of(path, instance)).collect();
    all.push(own);
    all.iter().map(|path| Cgroup::new(path)).filter(Cgroup::exists).try_for_each(|cgroup| ending::end(&cgroup))
}

/// Whether a container of the engine called `instance` runs that has one of these IDs. Blocking.
pub fn runs(instance: &str, ids: &HashSet<String>) -> bool {
    cgroup::called(|name| ids.contains(name)).iter().any(|path| may_be_of(path, instance))
}

/// Whether a cgroup may be of the engine called `instance`: the parent of its own, or one that somebody has named. An engine on
/// a copy of the data root has containers with the same IDs.
fn may_be_of(path: &str, instance: &str) -> bool {
    let of_an_engine = |name: &str| name.strip_prefix("bireme-").filter(|rest| rest.len() == 8).map(str::to_owned);
    path.split('/').find_map(of_an_engine).is_none_or(|of| of == instance)
}
