//! Connections of clients: so many that they leave memory and descriptors for what instances need.
//!
//! What a connection buffers belongs to no instance, so no account has it. The kernel would end the process, with every
//! component in it, for what half-sent requests hold, and requests that wait with others sent behind them. So there are
//! only so many, and those that no instance serves are closed first when memory runs short.

mod share;
pub(crate) mod socket;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use bireme_wasm::memory;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::AbortHandle;

use share::Share;

static CONNECTIONS: Semaphore = Semaphore::const_new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

/// Lets there be as many connections as a quarter of the memory is for, when all workloads of this process may have
/// `workloads` bytes together; never fewer than before. Half of the descriptors at most, so that instances have the others.
pub(crate) fn allow(workloads: u64) {
    let most = most(workloads, memory::of_machine(), crate::stock::connections());
    let before = MOST.fetch_max(most, Ordering::Relaxed);
    CONNECTIONS.add_permits(most.saturating_sub(before));
}

fn most(workloads: u64, machine: u64, by_descriptors: usize) -> usize {
    let by_memory = memory::clients(workloads, machine) / memory::CONNECTION;
    by_descriptors.min(usize::try_from(by_memory).unwrap_or(usize::MAX))
}

/// Waits until one more connection may be accepted.
pub(crate) async fn place() -> Option<SemaphorePermit<'static>> {
    // Never closed.
    CONNECTIONS.acquire().await.ok()
}

/// One more connection of a client; `None` where it has half of all.
pub(crate) fn share(client: IpAddr) -> Option<Share> {
    Share::take(client, MOST.load(Ordering::Relaxed))
}

/// One connection, as what closes it knows it.
#[derive(Default)]
pub(crate) struct Connection {
    /// Instances that work for it.
    served: AtomicUsize,
}

tokio::task_local! {
    static CONNECTION: Arc<Connection>;
}

/// Connections by their numbers, with what ends each.
type Connections = HashMap<u64, (Arc<Connection>, AbortHandle)>;

/// Every connection there is.
static ALL: LazyLock<Mutex<Connections>> = LazyLock::new(Mutex::default);
static NUMBERS: AtomicU64 = AtomicU64::new(0);

/// Takes a connection off the list when it ends, however it does.
struct Listed(u64);

impl Drop for Listed {
    fn drop(&mut self) {
        ALL.lock().remove(&self.0);
    }
}

/// Has a task of its own serve a connection, which may be closed when memory runs short.
pub(crate) fn spawn(serving: impl Future<Output = ()> + Send + 'static) {
    let (number, connection) = (NUMBERS.fetch_add(1, Ordering::Relaxed), Arc::new(Connection::default()));
    // Under the lock, so that it is on the list before it takes itself off.
    let mut all = ALL.lock();
    let serving = CONNECTION.scope(Arc::clone(&connection), serving);
    let task = tokio::spawn(async move {
        let _listed = Listed(number);
        serving.await;
    });
    all.insert(number, (connection, task.abort_handle()));
}

/// That an instance works for a connection, until this is dropped.
pub(crate) struct Served(Arc<Connection>);

impl Drop for Served {
    fn drop(&mut self) {
        self.0.served.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Notes that an instance works for the connection that the caller serves; `None` for what comes by none.
pub(crate) fn served() -> Option<Served> {
    CONNECTION
        .try_with(|connection| {
            connection.served.fetch_add(1, Ordering::Relaxed);
            Served(Arc::clone(connection))
        })
        .ok()
}

/// Bytes that a connection holds which is worth closing.
const HELD: u64 = 64 << 10;

/// Closes some of those connections that no instance works for, the oldest first: a quarter of them, or as many as may hold
/// `excess` bytes. Answers how many.
pub(crate) fn shed(excess: u64) -> usize {
    let all = ALL.lock();
    let mut idle: Vec<(u64, &AbortHandle)> = all
        .iter()
        .filter(|(_, (connection, _))| connection.served.load(Ordering::Relaxed) == 0)
        .map(|(number, (_, task))| (*number, task))
        .collect();
    idle.sort_unstable_by_key(|(number, _)| *number);
    let enough = usize::try_from(excess / HELD).unwrap_or(usize::MAX);
    idle.truncate((idle.len() / 4).max(16).max(enough));
    idle.iter().for_each(|(_, task)| task.abort());
    idle.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_served_is_closed_for_nobody() {
        let wait = |served: bool| {
            let (ended, end) = tokio::sync::oneshot::channel::<()>();
            spawn(async move {
                let _ended = ended;
                let _served = served.then(|| super::served().unwrap());
                std::future::pending::<()>().await;
            });
            end
        };
        assert!(served().is_none(), "here is no connection");
        let (mut busy, idle): (_, Vec<_>) = (wait(true), (0..20).map(|_| wait(false)).collect());
        tokio::task::yield_now().await;
        let mut closed = 0;
        while ALL.lock().len() > 1 {
            closed += shed(0);
            tokio::task::yield_now().await;
        }
        assert_eq!(closed, 20);
        for end in idle {
            assert!(end.await.is_err());
        }
        assert_eq!(shed(1 << 30), 0);
        assert!(busy.try_recv() == Err(tokio::sync::oneshot::error::TryRecvError::Empty));
    }

    #[test]
    fn connections_take_a_quarter_of_what_the_process_may_have() {
        let machine = 64 << 30;
        let of = |limit, instances| most(memory::of_workload(limit, instances), machine, 16_384);
        assert_eq!(of(16 << 20, 2), 1024, "a small component");
        assert!((1500..2500).contains(&of(64 << 20, 16)), "{}", of(64 << 20, 16));
        assert_eq!(of(256 << 20, 1000), 16_384);
        assert_eq!(most(u64::MAX, machine, 64), 64, "few descriptors");
        // What they hold does not reach what the kernel allows, beside the process itself and its instances.
        for (limit, instances) in [(1 << 20, 1), (4 << 20, 1), (16 << 20, 2), (64 << 20, 16)] {
            let held = of(limit, instances) as u64 * memory::CONNECTION;
            let workloads = memory::of_workload(limit, instances);
            assert!(workloads + memory::BASE + held < memory::hard(workloads, machine), "{limit} {instances}");
        }
    }
}
