//! The networks in the kernel: the lock that keeps their changes in order, the threads on which they are made, and two
//! things that go on beside them, connections that are to be forgotten and rules that others remove.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bireme_core::{BoxFuture, Names, SandboxId};
use bireme_sys::netlink::{Socket, Subsystem};
use bireme_sys::nft::{self, Removal, Watch};
use ipnet::IpNet;
use parking_lot::{Mutex, MutexGuard};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinSet;

use crate::dns::Service;
use crate::host_routes::host_routes;
use crate::state::{self, Sandboxes, State};
use crate::{
    Attached, Endpoint, Forward, Keep, Net, NetError, NetOptions, NetworkId, NetworkSpec, SweepReport, flows, inside,
};

/// Until rules that could not be made again are tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// The networks of one engine, in the kernel. Cheap to clone; all clones are one.
///
/// Dropping the last one leaves everything in the kernel as it is, except that published ports are no longer reserved
/// and the DNS falls silent, until [`Net::sweep`] of the next.
///
/// # Cancel safety
/// All work goes on to its end when the future is dropped.
#[derive(Clone)]
pub struct KernelNet {
    inner: Arc<Inner>,
}

struct Inner {
    instance: String,
    /// Taken by [`KernelNet::with_state`] alone, on a thread for blocking work: whoever holds it may wait for tasks of the runtime,
    /// whose own threads must not wait for it in turn.
    state: Mutex<State>,
    sandboxes: Sandboxes,
    service: Arc<Service>,
    /// Taken by whoever has the kernel forget connections; those who need that done wait here, and nobody else does.
    forgetting: Mutex<()>,
    /// Hears of tables that others remove; ends when dropped.
    watching: Mutex<JoinSet<()>>,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Has the kernel forget what is to be forgotten now. When this returns, what others were about to forget is forgotten
    /// too. Blocks.
    fn forget(&self) {
        let _one_at_a_time = self.forgetting.lock();
        let stale = self.state().begin_forgetting();
        let begin = Instant::now();
        flows::forget(&stale);
        self.state().forgot(begin.elapsed());
    }
}

impl KernelNet {
    /// Opens the networks of `options.instance`, in the network namespace of the caller.
    ///
    /// What an earlier daemon left is in force, unchanged: call [`Net::sweep`] before anything else.
    ///
    /// # Errors
    /// `Invalid` for an instance that is not eight hexadecimal digits; `Denied` without `CAP_NET_ADMIN`.
    pub async fn open(options: NetOptions) -> Result<Self, NetError> {
        Self::open_with(options, true).await
    }

    /// As [`Self::open`] on kernels before 6.9, where everybody with the right to may remove the rules. For tests.
    #[doc(hidden)]
    pub async fn open_as_before_6_9(options: NetOptions) -> Result<Self, NetError> {
        Self::open_with(options, false).await
    }

    async fn open_with(options: NetOptions, own_tables: bool) -> Result<Self, NetError> {
        let instance = &options.instance;
        if instance.len() != 8 || !instance.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(NetError::Instance(options.instance));
        }
        let runtime = tokio::runtime::Handle::current();
        let service = Arc::new(Service::new(options.upstream_dns.clone(), state::open_files()));
        let dns = Arc::clone(&service);
        let instance = options.instance.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let sandboxes = Sandboxes::open(&options.run_dir)?;
            let watch = Watch::open().map_err(NetError::io("listening for changes of nf_tables"))?;
            let state = State::open(&options.instance, sandboxes.clone(), dns, runtime, own_tables)?;
            Ok((sandboxes, state, watch))
        });
        let (sandboxes, state, watch) = opened.await.map_err(|_| NetError::ShutDown)??;
        let watch = readable(watch).map_err(NetError::io("listening for changes of nf_tables"))?;
        let state = Mutex::new(state);
        let (forgetting, watching) = Default::default();
        let inner = Arc::new(Inner { instance, state, sandboxes, service, forgetting, watching });
        let watching = mend_what_is_removed(watch, Arc::downgrade(&inner));
        inner.watching.lock().spawn(watching);
        Ok(Self { inner })
    }

    async fn with_state<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut State) -> Result<T, NetError> + Send + 'static,
    ) -> Result<T, NetError> {
        self.with_clear_state(|_| false, work).await
    }

    /// As [`Self::with_state`], once the kernel has forgotten what is of concern to it.
    async fn with_clear_state<T: Send + 'static>(
        &self,
        concerned: impl Fn(&State) -> bool + Send + 'static,
        work: impl FnOnce(&mut State) -> Result<T, NetError> + Send + 'static,
    ) -> Result<T, NetError> {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || changed(&inner, concerned, work)).await.map_err(|_| NetError::ShutDown)?
    }
}

impl Net for KernelNet {
    fn ensure_network<'a>(&'a self, network: &'a NetworkSpec) -> BoxFuture<'a, Result<(), NetError>> {
        let network = network.clone();
        Box::pin(self.with_state(move |state| state.ensure_network(&network)))
    }

    fn shares_subnet<'a>(&'a self, id: &'a NetworkId, subnet: IpNet) -> BoxFuture<'a, Result<bool, NetError>> {
        let id = id.clone();
        Box::pin(self.with_state(move |state| state.shares_subnet(&id, subnet)))
    }

    fn retake_ports(&self) -> BoxFuture<'_, Result<usize, NetError>> {
        Box::pin(self.with_state(|state| Ok(state.retake())))
    }

    fn remove_network<'a>(&'a self, id: &'a NetworkId) -> BoxFuture<'a, Result<(), NetError>> {
        let id = id.clone();
        Box::pin(self.with_state(move |state| state.remove_network(&id)))
    }

    fn ensure_sandbox<'a>(&'a self, id: &'a SandboxId) -> BoxFuture<'a, Result<PathBuf, NetError>> {
        Box::pin(async move {
            let (sandboxes, id) = (self.inner.sandboxes.clone(), id.clone());
            // Without the lock: this is the slow part of a start, and nobody else's.
            tokio::task::spawn_blocking(move || sandboxes.ensure(&id)).await.map_err(|_| NetError::ShutDown)?
        })
    }

    fn running_sandbox<'a>(
        &'a self,
        id: &'a SandboxId,
        running: Option<u32>,
    ) -> BoxFuture<'a, Result<PathBuf, NetError>> {
        Box::pin(async move {
            let (sandboxes, id) = (self.inner.sandboxes.clone(), id.clone());
            let found = tokio::task::spawn_blocking(move || sandboxes.of_running(&id, running));
            found.await.map_err(|_| NetError::ShutDown)?
        })
    }

    fn remove_sandbox<'a>(&'a self, id: &'a SandboxId) -> BoxFuture<'a, Result<(), NetError>> {
        let id = id.clone();
        Box::pin(self.with_state(move |state| state.remove_sandbox(&id)))
    }

    fn attach<'a>(&'a self, endpoint: &'a Endpoint) -> BoxFuture<'a, Result<Attached, NetError>> {
        let (endpoint, concerned) = (endpoint.clone(), endpoint.clone());
        // Nothing that was begun with whoever had the addresses before comes to this one.
        Box::pin(self.with_clear_state(move |state| state.remembers(&concerned), move |state| state.attach(&endpoint)))
    }

    fn lead_out<'a>(
        &'a self,
        sandbox: &'a SandboxId,
        wanted: &'a [NetworkId],
    ) -> BoxFuture<'a, Result<Option<NetworkId>, NetError>> {
        let (sandbox, wanted) = (sandbox.clone(), wanted.to_vec());
        Box::pin(self.with_state(move |state| state.lead_out(&sandbox, &wanted)))
    }

    fn detach<'a>(&'a self, endpoint: &'a Endpoint) -> BoxFuture<'a, Result<(), NetError>> {
        let endpoint = endpoint.clone();
        Box::pin(self.with_state(move |state| state.detach(&endpoint)))
    }

    fn publish<'a>(&'a self, forward: &'a Forward) -> BoxFuture<'a, Result<SocketAddr, NetError>> {
        let (forward, concerned) = (forward.clone(), forward.clone());
        // What is to be forgotten of the port's last holder is not taken for this one's.
        Box::pin(
            self.with_clear_state(move |state| state.remembers_port(&concerned), move |state| state.publish(&forward)),
        )
    }

    fn hand_over<'a>(&'a self, ports: &'a [u16]) -> BoxFuture<'a, Result<(), NetError>> {
        let ports = ports.to_vec();
        Box::pin(self.with_state(move |state| state.hand_over(&ports)))
    }

    fn take_back<'a>(&'a self, ports: &'a [u16]) -> BoxFuture<'a, Result<(), NetError>> {
        let ports = ports.to_vec();
        Box::pin(self.with_state(move |state| state.take_back(&ports)))
    }

    fn unpublish<'a>(&'a self, owner: &'a str) -> BoxFuture<'a, Result<(), NetError>> {
        let owner = owner.to_owned();
        Box::pin(self.with_state(move |state| state.unpublish(&owner)))
    }

    fn unpublish_one<'a>(&'a self, owner: &'a str, host: SocketAddr) -> BoxFuture<'a, Result<(), NetError>> {
        let owner = owner.to_owned();
        Box::pin(self.with_state(move |state| state.unpublish_one(&owner, host)))
    }

    fn set_upstream(&self, sandbox: &SandboxId, servers: &[IpAddr]) {
        self.inner.service.directory.set_upstream(sandbox, servers);
    }

    fn serve_inside<'a>(&'a self, sandbox: &'a SandboxId) -> BoxFuture<'a, Result<(), NetError>> {
        Box::pin(async move {
            let (path, id) = (self.inner.sandboxes.path(sandbox), sandbox.clone());
            let asked = id.clone();
            if self.with_state(move |state| Ok(state.serves_inside(&asked))).await? {
                return Ok(());
            }
            let attempt = format!("serving names inside {id}");
            // Without the lock: nobody else is waited for.
            let opened =
                tokio::task::spawn_blocking(move || inside::open(&path)).await.map_err(|_| NetError::ShutDown)?;
            let (udp, tcp) = opened.map_err(NetError::io(attempt))?;
            self.with_state(move |state| state.serve_inside(id, udp, tcp)).await
        })
    }

    fn warn_of_firewalls(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let look =
                || nft::dropping(&mut Socket::open(Subsystem::Netfilter)?).map_err(|refused| refused.errno.into());
            let found: io::Result<_> = match tokio::task::spawn_blocking(look).await {
                Ok(found) => found,
                Err(_) => return,
            };
            for chain in found.unwrap_or_default() {
                let bridges = format!("br{}*", self.inner.instance);
                let (table, chain, forwards) = (chain.table, chain.chain, chain.forwards);
                if !forwards {
                    tracing::warn!(
                        table,
                        chain,
                        bridges,
                        "the machine's firewall drops what is for the machine itself: on the default bridge and in builds no names are found, unless it accepts UDP and TCP at the ports 915 to 952 from the bridges (docs/firewalls.md)"
                    );
                    continue;
                }
                tracing::warn!(
                    table,
                    chain,
                    bridges,
                    "the machine's firewall drops what it is not told to forward: workloads reach nothing outside, and their published ports are not reached from there, until it lets through what comes from the bridges and goes to them (docs/firewalls.md)"
                );
            }
        })
    }

    fn set_network_names(&self, network: &NetworkId, names: Names, linked: HashMap<IpAddr, Names>) {
        self.inner.service.directory.set_names(network, names, linked);
    }

    fn change_network_names(&self, network: &NetworkId, changed: &Names, linked: HashMap<IpAddr, Names>) {
        self.inner.service.directory.change_names(network, changed, linked);
    }

    fn set_reverse_name(&self, addresses: &[IpAddr], name: &str) {
        self.inner.service.directory.set_reverse(addresses, Some(name));
    }

    fn dns_servers(&self, sandbox: &SandboxId) -> Vec<IpAddr> {
        self.inner.service.directory.servers(sandbox)
    }

    fn sweep(&self, keep: Keep) -> BoxFuture<'_, Result<SweepReport, NetError>> {
        Box::pin(self.with_state(move |state| state.sweep(keep)))
    }

    fn clear(&self) -> BoxFuture<'_, Result<SweepReport, NetError>> {
        Box::pin(self.with_state(State::clear))
    }

    fn host_routes(&self) -> Result<Vec<IpNet>, NetError> {
        host_routes()
    }
}

/// Does `work`, and sees to it that the kernel soon forgets the connections that it put an end to. Before, the kernel
/// forgets what is to be forgotten, while `concerned`.
fn changed<T>(inner: &Arc<Inner>, concerned: impl Fn(&State) -> bool, work: impl FnOnce(&mut State) -> T) -> T {
    let mut state = inner.state();
    while concerned(&state) {
        drop(state);
        inner.forget();
        state = inner.state();
    }
    let answer = work(&mut state);
    if let Some(time) = state.forget_in() {
        let inner = Arc::downgrade(inner);
        tokio::runtime::Handle::current().spawn(async move {
            tokio::time::sleep(time).await;
            let forget = move || inner.upgrade().into_iter().for_each(|inner| inner.forget());
            let _ = tokio::task::spawn_blocking(forget).await;
        });
    }
    answer
}

#[expect(
    deprecated,
    reason = "the socket is given over and stays open until the AsyncFd is dropped, which is what `register` wants unsafe code for"
)]
fn readable(watch: Watch) -> std::io::Result<AsyncFd<Watch>> {
    AsyncFd::new(watch)
}

/// Makes our tables again whenever somebody removes them, until the last [`KernelNet`] is dropped.
async fn mend_what_is_removed(mut watch: AsyncFd<Watch>, inner: Weak<Inner>) {
    loop {
        let heard = watch.async_io_mut(Interest::READABLE, Watch::removed).await;
        let removed: Vec<Removal> = match heard {
            Ok(removed) if removed.is_empty() => continue,
            Ok(removed) => removed,
            Err(error) => {
                // More than was kept for us: some of it may have been ours.
                tracing::debug!(%error, "changes of nf_tables were lost");
                tokio::time::sleep(Duration::from_millis(20)).await;
                vec![]
            }
        };
        loop {
            let (inner, removed) = (inner.clone(), removed.clone());
            let mend = move || {
                inner.upgrade().map_or(Ok(()), |inner| changed(&inner, |_| false, |state| state.mend(&removed)))
            };
            match tokio::task::spawn_blocking(mend).await {
                Ok(Err(error)) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::error!(%error, cause, "the rules that keep workloads apart are not in force");
                    tokio::time::sleep(AGAIN).await;
                }
                _ => break,
            }
        }
    }
}
