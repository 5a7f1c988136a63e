//! Networks of the engine: bridges, sandboxes, addresses, published ports, names.
//!
//! ```text
//!   host ──┬── bridge br<instance>xxxxx (gateway, DNS) ──┬── veth ── eth0 of a sandbox (network namespace)
//!          │                                             └── veth ── eth0 of another
//!          └── nf_tables tables bireme_<instance>: inet: isolation, masquerade, published ports; bridge: no spoofing
//! ```
//! [`Net`] does the work, all of it by netlink in this process. [`addresses`] chooses addresses and is pure. What is to
//! be remembered across restarts is the caller's: [`Net::sweep`] takes it and finds everything again, while workloads
//! go on undisturbed.
//!
//! Everything made in the kernel carries the instance in its name or alias, which is how leftovers are told from what
//! belongs to others.

pub mod addresses;
mod dns;
mod error;
mod flows;
mod forwarding;
mod guard;
mod inside;
mod places;
mod proxy;
mod rules;
pub mod spec;
mod state;
mod sweep;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bireme_core::{Names, SandboxId};
use bireme_sys::netlink::{Socket, Subsystem};
use bireme_sys::nft::{self, Removal, Watch};
use ipnet::IpNet;
use parking_lot::{Mutex, MutexGuard};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinSet;

pub use error::NetError;
pub use inside::DNS_INSIDE;
pub use spec::{Attached, Driver, Endpoint, Forward, Keep, NetOptions, NetworkId, NetworkSpec, Subnet, SweepReport};

use dns::Service;
use state::{Sandboxes, State};

/// Until rules that could not be made again are tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// The networks of one engine. Cheap to clone; all clones are one.
///
/// Dropping the last one leaves everything in the kernel as it is, except that published ports are no longer reserved
/// and the DNS falls silent, until [`Net::sweep`] of the next.
///
/// # Cancel safety
/// All work goes on to its end when the future is dropped.
#[derive(Clone)]
pub struct Net {
    inner: Arc<Inner>,
}

struct Inner {
    instance: String,
    /// Taken by [`Net::with_state`] alone, on a thread for blocking work: whoever holds it may wait for tasks of the runtime,
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

impl Net {
    /// Opens the networks of `options.instance`, in the network namespace of the caller.
    ///
    /// What an earlier daemon left is in force, unchanged: call [`Self::sweep`] before anything else.
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

    /// Makes the network's bridge, its rules and its DNS, and has the host forward packets if the network has a way out.
    /// Idempotent; a changed spec is applied as far as it concerns
    /// new endpoints.
    ///
    /// # Errors
    /// `Invalid` for a malformed spec, `Conflict` when its addresses overlap another network of ours or its bridge's
    /// name belongs to something else.
    pub async fn ensure_network(&self, network: &NetworkSpec) -> Result<(), NetError> {
        let network = network.clone();
        self.with_state(move |state| state.ensure_network(&network)).await
    }

    /// Whether another interface of the host has an address in `subnet` of this network: someone else chose the same in the
    /// same moment. Of two that ask after their networks are made, at least one is told.
    pub async fn shares_subnet(&self, id: &NetworkId, subnet: IpNet) -> Result<bool, NetError> {
        let id = id.clone();
        self.with_state(move |state| state.shares_subnet(&id, subnet)).await
    }

    /// Takes published ports that another program had when [`Self::sweep`] was to take them up again, as far as they are free
    /// now. Answers how many are left.
    pub async fn retake_ports(&self) -> Result<usize, NetError> {
        self.with_state(|state| Ok(state.retake())).await
    }

    /// Removes the network's bridge, rules and DNS. Idempotent.
    ///
    /// # Errors
    /// `Conflict` while endpoints are attached.
    pub async fn remove_network(&self, id: &NetworkId) -> Result<(), NetError> {
        let id = id.clone();
        self.with_state(move |state| state.remove_network(&id)).await
    }

    /// Makes the sandbox's network namespace, with `lo` up and ports below 1024 open to all users, as Docker does;
    /// answers the file it is bound to. Idempotent.
    pub async fn ensure_sandbox(&self, id: &SandboxId) -> Result<PathBuf, NetError> {
        let (sandboxes, id) = (self.inner.sandboxes.clone(), id.clone());
        // Without the lock: this is the slow part of a start, and nobody else's.
        tokio::task::spawn_blocking(move || sandboxes.ensure(&id)).await.map_err(|_| NetError::ShutDown)?
    }

    /// The network namespace of a sandbox in which something runs, for another workload to join. Where its file is gone,
    /// the namespace of its process `running` is bound to it again.
    ///
    /// # Errors
    /// `NotFound` where neither is there.
    pub async fn running_sandbox(&self, id: &SandboxId, running: Option<u32>) -> Result<PathBuf, NetError> {
        let (sandboxes, id) = (self.inner.sandboxes.clone(), id.clone());
        let found = tokio::task::spawn_blocking(move || sandboxes.of_running(&id, running));
        found.await.map_err(|_| NetError::ShutDown)?
    }

    /// Removes the sandbox's namespace and what is still attached to it. Processes still inside keep a namespace
    /// without a network. Idempotent.
    pub async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), NetError> {
        let id = id.clone();
        self.with_state(move |state| state.remove_sandbox(&id)).await
    }

    /// Puts a sandbox on a network, or adds the addresses of a further workload where it is on it already. Idempotent.
    ///
    /// # Errors
    /// `NotFound` when network or sandbox are not ready; `Invalid` for addresses outside the network; `Conflict` for an
    /// address in use. Nothing is left behind.
    pub async fn attach(&self, endpoint: &Endpoint) -> Result<Attached, NetError> {
        let (endpoint, concerned) = (endpoint.clone(), endpoint.clone());
        // Nothing that was begun with whoever had the addresses before comes to this one.
        self.with_clear_state(move |state| state.remembers(&concerned), move |state| state.attach(&endpoint)).await
    }

    /// Has the way out of a sandbox go over another network where the one it went over is gone: the first of `wanted` that
    /// it is on, or any that has one. Answers over which it goes now.
    pub async fn lead_out(&self, sandbox: &SandboxId, wanted: &[NetworkId]) -> Result<Option<NetworkId>, NetError> {
        let (sandbox, wanted) = (sandbox.clone(), wanted.to_vec());
        self.with_state(move |state| state.lead_out(&sandbox, &wanted)).await
    }

    /// Takes the endpoint's addresses away, and the published ports that lead to them; the last endpoint of a sandbox on a network takes the interface with it,
    /// which the kernel removes within some 30 ms after this returned. Idempotent.
    pub async fn detach(&self, endpoint: &Endpoint) -> Result<(), NetError> {
        let endpoint = endpoint.clone();
        self.with_state(move |state| state.detach(&endpoint)).await
    }

    /// Forwards a port of the host to a workload: from outside, from the host itself and from containers. Answers the
    /// address on the host, with the port chosen where 0 was asked for. Idempotent.
    ///
    /// Publish over the network that has the sandbox's default route, or answers take another way out.
    ///
    /// # Errors
    /// `Conflict` when another program or workload has the port; `Invalid` when the host has no such address;
    /// `Unsupported` for an internal network, for an IPv6 port of an IPv4 workload and the reverse.
    pub async fn publish(&self, forward: &Forward) -> Result<SocketAddr, NetError> {
        let (forward, concerned) = (forward.clone(), forward.clone());
        // What is to be forgotten of the port's last holder is not taken for this one's.
        self.with_clear_state(move |state| state.remembers_port(&concerned), move |state| state.publish(&forward)).await
    }

    /// Keeps internal networks from TCP ports of the host whose listening sockets are handed to workloads: each socket is
    /// told of once, before anybody serves it.
    pub async fn hand_over(&self, ports: &[u16]) -> Result<(), NetError> {
        let ports = ports.to_vec();
        self.with_state(move |state| state.hand_over(&ports)).await
    }

    /// That sockets told of by [`Self::hand_over`] are closed, each once.
    pub async fn take_back(&self, ports: &[u16]) -> Result<(), NetError> {
        let ports = ports.to_vec();
        self.with_state(move |state| state.take_back(&ports)).await
    }

    /// Takes back all that `owner` published. Idempotent.
    pub async fn unpublish(&self, owner: &str) -> Result<(), NetError> {
        let owner = owner.to_owned();
        self.with_state(move |state| state.unpublish(&owner)).await
    }

    /// Takes back one port of `owner`, by its address on the host. Idempotent.
    pub async fn unpublish_one(&self, owner: &str, host: SocketAddr) -> Result<(), NetError> {
        let owner = owner.to_owned();
        self.with_state(move |state| state.unpublish_one(&owner, host)).await
    }

    /// The servers that are asked, in their order, what is no name of ours for workloads in `sandbox`; those of the machine
    /// where there are none.
    pub fn set_upstream(&self, sandbox: &SandboxId, servers: &[IpAddr]) {
        self.inner.service.directory.set_upstream(sandbox, servers);
    }

    /// Answers at [`DNS_INSIDE`] for workloads in `sandbox`, until it is removed. Idempotent.
    pub async fn serve_inside(&self, sandbox: &SandboxId) -> Result<(), NetError> {
        let (path, id) = (self.inner.sandboxes.path(sandbox), sandbox.clone());
        let asked = id.clone();
        if self.with_state(move |state| Ok(state.inside.contains_key(&asked))).await? {
            return Ok(());
        }
        let attempt = format!("serving names inside {id}");
        // Without the lock: nobody else is waited for.
        let opened = tokio::task::spawn_blocking(move || inside::open(&path)).await.map_err(|_| NetError::ShutDown)?;
        let (udp, tcp) = opened.map_err(NetError::io(attempt))?;
        self.with_state(move |state| state.serve_inside(id, udp, tcp)).await
    }

    /// Tells the log of chains of others that drop what workloads send: a verdict of ours cannot take that back.
    pub async fn warn_of_firewalls(&self) {
        let look = || nft::dropping(&mut Socket::open(Subsystem::Netfilter)?).map_err(|refused| refused.errno.into());
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
    }

    /// Which names resolve to what for members of `network`, from now on; replaces those set before. Members of several
    /// networks see the names of each. `linked` are further names for single members, by their addresses there.
    ///
    /// With many members, use [`Self::change_network_names`] for what changes.
    pub fn set_network_names(&self, network: &NetworkId, names: Names, linked: HashMap<IpAddr, Names>) {
        self.inner.service.directory.set_names(network, names, linked);
    }

    /// Which of the names on `network` resolve to something else from now on; a name without addresses is gone. `linked`
    /// replaces what was set before.
    pub fn change_network_names(&self, network: &NetworkId, changed: &Names, linked: HashMap<IpAddr, Names>) {
        self.inner.service.directory.change_names(network, changed, linked);
    }

    /// What reverse lookups of `addresses`, which a workload has already, answer from now on.
    pub fn set_reverse_name(&self, addresses: &[IpAddr], name: &str) {
        self.inner.service.directory.set_reverse(addresses, Some(name));
    }

    /// The gateways at which `sandbox` reaches the DNS (port 53, UDP and TCP), in the order in which it was attached.
    pub fn dns_servers(&self, sandbox: &SandboxId) -> Vec<IpAddr> {
        self.inner.service.directory.servers(sandbox)
    }

    /// At start: takes what exists into care, makes again what is missing of networks, reservations of ports and DNS,
    /// and removes everything else of this instance. Running workloads notice nothing.
    ///
    /// # Errors
    /// Only when the kernel cannot be asked or the rules not be set; failures of single parts are in the report.
    pub async fn sweep(&self, keep: Keep) -> Result<SweepReport, NetError> {
        self.with_state(move |state| state.sweep(keep)).await
    }

    /// At the end, when nothing runs: removes everything of this instance, so that the machine is as it was before.
    /// Only [`Net::sweep`] may follow.
    pub async fn clear(&self) -> Result<SweepReport, NetError> {
        self.with_state(State::clear).await
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

/// Makes our tables again whenever somebody removes them, until the last [`Net`] is dropped.
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

/// What new subnets must not overlap: destinations of the host's routes, its addresses, its DNS servers.
///
/// Blocks for a fraction of a millisecond.
pub fn host_routes() -> Result<Vec<IpNet>, NetError> {
    state::host_routes()
}
