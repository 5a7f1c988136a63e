//! What an earlier daemon has left: hosts that go on, and workloads in them that somebody knows or nobody does.

use std::sync::Arc;
use std::time::Duration;

use bireme_core::{NamedNetwork, SandboxId, WorkloadId, executor::Known};
use futures::StreamExt as _;
use tokio::time::Instant;

use super::{MEMORY, WasmExecutor};
use crate::host::{self, Host};
use crate::names::Tables;
use crate::protocol::{HostState, Request, WorkloadState};
use crate::roster::Roster;
use crate::{cgroup, memory};

/// How long hosts are asked in the background for what they should not have.
pub(super) const STRAYS: Duration = Duration::from_secs(15);
/// How often a host that did not answer when the daemon started is asked again, a minute each time.
const ASKED_AGAIN: u32 = 30;
/// Hosts that are looked at in one go when the daemon starts.
pub(super) const AT_ONCE: usize = 64;

impl WasmExecutor {
    /// The sandboxes of all hosts of this engine that there may be: the folder of one may be gone while its processes are
    /// not, and the other way about.
    pub(super) fn sandboxes(&self) -> Vec<SandboxId> {
        let mut names = cgroup::children(&host::parent_cgroup(&self.options.instance));
        let folders = std::fs::read_dir(self.options.exec_root.join("w")).into_iter().flatten().flatten();
        names.extend(folders.filter_map(|folder| folder.file_name().into_string().ok()));
        names.iter().filter_map(|name| SandboxId::parse(name).ok()).collect()
    }

    /// The process and whether it was started, of a workload that an earlier daemon has loaded.
    pub(super) async fn find(&self, host: &Host, known: &Known<'_>) -> Option<(u32, bool)> {
        let id = &known.spec.id;
        let started = host.ask::<Option<bool>>(&Request::Known { id: id.clone() }, &[]).await.ok()??;
        let pid = host.pid().await.ok()?;
        if let Err(error) = self.tables.follow(host, pid, &known.networks).await {
            tracing::warn!(workload.id = %id, %error, "a component was not told of changed names");
        }
        Some((pid, started))
    }

    /// Ends whatever nobody knows of in a host that an earlier daemon has started. What there should be is known by now, and
    /// not asked of the host. What is not done by `until` goes on in the background, and what is started or ended in this
    /// host meanwhile waits for that.
    pub(super) async fn sweep_host(&self, sandbox: SandboxId, known: &[WorkloadId], until: Instant) {
        let host = self.host_of(sandbox);
        let mut roster = self.turn(&host).lock_owned().await;
        if roster.is_empty()
            && !known.is_empty()
            && let Ok(Ok(state)) = tokio::time::timeout_at(until, host.state()).await
        {
            take_up(&mut roster, &state, known);
        }
        if roster.is_empty() {
            host.kill().await;
            host.clear(&self.kv_dir(&host)).await;
            self.tables.forget(&host.sandbox);
            return;
        }
        host.limit_memory(roster.memory());
        let known = known.to_vec();
        let cleared = tokio::spawn(async move {
            // All of it in one time: whoever has taken it over may name strays without end.
            if tokio::time::timeout(STRAYS, delete_strays(&host, &mut roster, &known)).await.is_err() {
                tracing::warn!(sandbox = %host.sandbox, "a host process does not tell what it runs; it goes on");
            }
        });
        let _ = tokio::time::timeout_at(until, cleared).await;
    }
}

/// Puts those of `known` on the roster of a host that it runs and that are on none, as their records cannot be read.
fn take_up(roster: &mut Roster, state: &HostState, known: &[WorkloadId]) {
    for workload in &state.workloads {
        if known.contains(&workload.id) && !roster.has(&workload.id) {
            // What it may have stands in its record.
            roster.add(workload.id.clone(), u64::MAX);
        }
    }
}

/// Has a host delete what is neither on its roster nor `known`.
async fn delete_strays(host: &Host, roster: &mut Roster, known: &[WorkloadId]) {
    let state = match host.state().await {
        Ok(state) => state,
        Err(error) => {
            return tracing::warn!(sandbox = %host.sandbox, %error, "a host process does not tell what it runs");
        }
    };
    take_up(roster, &state, known);
    host.limit_memory(roster.memory());
    let strays = state.workloads.into_iter().filter(|workload| !roster.has(&workload.id));
    let delete = |stray: WorkloadState| async move {
        let _ = host.ask::<()>(&Request::Delete { id: stray.id }, &[]).await;
    };
    futures::stream::iter(strays).for_each_concurrent(AT_ONCE, delete).await;
}

/// Has the process `pid` of a host that did not answer in time know the names on `networks`, once it does.
pub(super) async fn follow_later(tables: Arc<Tables>, host: Host, pid: u32, networks: Vec<NamedNetwork>) {
    for _ in 0..ASKED_AGAIN {
        if host.process().await != Some(pid) {
            return;
        }
        match tables.follow(&host, pid, &networks).await {
            Ok(()) => return,
            Err(error) => tracing::debug!(sandbox = %host.sandbox, %error, "a host process is not told of names yet"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Bytes that a workload of an earlier daemon may have.
pub(super) fn memory_of(known: &Known<'_>) -> u64 {
    let most = memory::of_spec(known.spec, false);
    let recorded = std::fs::read_to_string(known.run_dir.join(MEMORY)).ok().and_then(|text| text.parse().ok());
    recorded.unwrap_or(most).min(most)
}
