//! The names of networks, as host processes are told of them.
//!
//! Each host is told once all names of the networks that its workloads are on, and after that what changes. Changes that
//! come while a host is being told go to it together; one that does not answer holds up nobody.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bireme_core::{ExecError, NamedNetwork, Names, NamesChange, SandboxId};
use parking_lot::Mutex;

use crate::host::Host;
use crate::protocol::Request;

/// How long a change waits for a host to know of it.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(crate) struct Tables {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// By network.
    tables: HashMap<String, Names>,
    hosts: HashMap<SandboxId, Arc<Told>>,
}

/// What one host process knows.
struct Told {
    host: Host,
    pid: u32,
    pending: Mutex<Pending>,
    /// One message at a time, so that an older one never follows a newer one.
    sending: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Pending {
    networks: HashSet<String>,
    changes: BTreeMap<String, NamesChange>,
}

impl Tables {
    /// Remembers a change and tells the hosts that know the network.
    pub(crate) async fn change(&self, network: &str, change: NamesChange) {
        let concerned: Vec<Arc<Told>> = {
            let mut inner = self.inner.lock();
            let table = inner.tables.entry(network.to_owned()).or_default();
            apply(table, change.clone());
            if table.is_empty() {
                inner.tables.remove(network);
            }
            let hosts = inner.hosts.values().filter(|told| {
                let mut pending = told.pending.lock();
                let concerned = pending.networks.contains(network);
                if concerned {
                    merge(&mut pending.changes, network, change.clone());
                }
                concerned
            });
            hosts.cloned().collect()
        };
        let told = concerned.into_iter().map(|told| async move {
            // On a task of its own: a host that takes longer is still told to the end.
            let sending = tokio::spawn(async move { told.send().await });
            let _ = tokio::time::timeout(PATIENCE, sending).await;
        });
        futures::future::join_all(told).await;
    }

    /// Has the process `pid` of a host know the names on `networks`, now and from now on.
    pub(crate) async fn follow(&self, host: &Host, pid: u32, networks: &[NamedNetwork]) -> Result<(), ExecError> {
        let told = {
            let mut inner = self.inner.lock();
            let Inner { tables, hosts } = &mut *inner;
            // A process that was started anew knows nothing.
            hosts.retain(|sandbox, told| *sandbox != host.sandbox || told.pid == pid);
            let told = hosts.entry(host.sandbox.clone()).or_insert_with(|| {
                Arc::new(Told { host: host.clone(), pid, pending: Mutex::default(), sending: Default::default() })
            });
            let mut pending = told.pending.lock();
            for network in networks {
                if pending.networks.insert(network.id.clone()) {
                    let all = tables.get(&network.id).cloned().unwrap_or_default();
                    pending.changes.insert(network.id.clone(), NamesChange::All(all));
                }
            }
            drop(pending);
            Arc::clone(told)
        };
        told.send().await
    }

    /// Forgets a host that is gone.
    pub(crate) fn forget(&self, sandbox: &SandboxId) {
        self.inner.lock().hosts.remove(sandbox);
    }
}

impl Told {
    /// Sends what is pending; at once when nothing is.
    async fn send(&self) -> Result<(), ExecError> {
        let _one_at_a_time = self.sending.lock().await;
        let changes = std::mem::take(&mut self.pending.lock().changes);
        if changes.is_empty() {
            return Ok(());
        }
        let networks: Vec<String> = changes.keys().cloned().collect();
        let sent = self.host.ask::<()>(&Request::Names { changes }, &[]).await;
        if let Err(error) = &sent {
            tracing::debug!(sandbox = %self.host.sandbox, %error, "a host process was not told of changed names");
            // Whatever it heard of them: the next that asks for these networks has all names sent.
            let mut pending = self.pending.lock();
            for network in networks {
                pending.networks.remove(&network);
                pending.changes.remove(&network);
            }
        }
        sent
    }
}

fn apply(table: &mut Names, change: NamesChange) {
    match change {
        NamesChange::All(names) => *table = names,
        NamesChange::Some(names) => {
            for (name, addresses) in names {
                if addresses.is_empty() {
                    table.remove(&name);
                } else {
                    table.insert(name, addresses);
                }
            }
        }
    }
}

/// Adds a change to those that were not sent yet.
fn merge(pending: &mut BTreeMap<String, NamesChange>, network: &str, change: NamesChange) {
    match (pending.get_mut(network), change) {
        (Some(NamesChange::All(all)), change) => apply(all, change),
        // A name without addresses has to be told as such.
        (Some(NamesChange::Some(names)), NamesChange::Some(more)) => names.extend(more),
        (_, change) => {
            pending.insert(network.to_owned(), change);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn change() -> impl Strategy<Value = NamesChange> {
        let names = prop::collection::btree_map("[ab]", prop::collection::vec(any::<std::net::IpAddr>(), 0..2), 0..3);
        (any::<bool>(), names).prop_map(|(all, mut names)| {
            if all {
                names.retain(|_, addresses: &mut Vec<_>| !addresses.is_empty());
                NamesChange::All(names)
            } else {
                NamesChange::Some(names)
            }
        })
    }

    proptest! {
        /// Changes sent together have the effect of changes sent one by one.
        #[test]
        fn merged_changes_have_the_effect_of_each(changes in prop::collection::vec(change(), 1..8), start in change()) {
            let mut one_by_one = Names::new();
            apply(&mut one_by_one, start);
            let mut together = one_by_one.clone();
            let mut pending = BTreeMap::new();
            for change in changes {
                apply(&mut one_by_one, change.clone());
                merge(&mut pending, "net", change);
            }
            apply(&mut together, pending.remove("net").unwrap());
            prop_assert_eq!(one_by_one, together);
        }
    }
}
