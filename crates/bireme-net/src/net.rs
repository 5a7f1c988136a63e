//! What the engine asks of the networks, as a trait: [`crate::KernelNet`] does it in the kernel, a fake in memory.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use bireme_core::{BoxFuture, Names, SandboxId};
use ipnet::IpNet;

use crate::{Attached, Endpoint, Forward, Keep, NetError, NetworkId, NetworkSpec, SweepReport};

/// The networks of one engine.
///
/// All methods may be called at any time and concurrently. What is to be remembered across restarts is the caller's:
/// [`Self::sweep`] takes it, comes before anything else, and finds everything again.
///
/// # Cancel safety
/// All work that was begun goes on to its end when a future is dropped.
pub trait Net: Send + Sync + 'static {
    /// At start: takes what exists into care, makes again what is missing of networks, reservations of ports and DNS,
    /// and removes everything else of this instance. Running workloads notice nothing.
    ///
    /// # Errors
    /// Only when the kernel cannot be asked or the rules not be set; failures of single parts are in the report.
    fn sweep(&self, keep: Keep) -> BoxFuture<'_, Result<SweepReport, NetError>>;

    /// At the end, when nothing runs: removes everything of this instance, so that the machine is as it was before.
    /// Only [`Self::sweep`] may follow.
    ///
    /// # Errors
    /// As [`Self::sweep`].
    fn clear(&self) -> BoxFuture<'_, Result<SweepReport, NetError>>;

    /// Tells the log of firewall chains of others that drop what workloads send: a verdict of ours cannot take that back.
    fn warn_of_firewalls(&self) -> BoxFuture<'_, ()>;

    /// What new subnets must not overlap: destinations of the host's routes, its addresses, its DNS servers.
    ///
    /// Blocks for a fraction of a millisecond.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    fn host_routes(&self) -> Result<Vec<IpNet>, NetError>;

    /// Makes the network's bridge, its rules and its DNS, and has the host forward packets if the network has a way out.
    /// Idempotent; a changed spec is applied as far as it concerns new endpoints.
    ///
    /// # Errors
    /// `Invalid` for a malformed spec, `Conflict` when its addresses overlap another network of ours or its bridge's
    /// name belongs to something else.
    fn ensure_network<'a>(&'a self, network: &'a NetworkSpec) -> BoxFuture<'a, Result<(), NetError>>;

    /// Whether another interface of the host has an address in `subnet` of this network: someone else chose the same in the
    /// same moment. Of two that ask after their networks are made, at least one is told.
    ///
    /// # Errors
    /// `NotFound` when the network is not ready.
    fn shares_subnet<'a>(&'a self, id: &'a NetworkId, subnet: IpNet) -> BoxFuture<'a, Result<bool, NetError>>;

    /// Removes the network's bridge, rules and DNS. Idempotent.
    ///
    /// # Errors
    /// `Conflict` while endpoints are attached.
    fn remove_network<'a>(&'a self, id: &'a NetworkId) -> BoxFuture<'a, Result<(), NetError>>;

    /// Makes the sandbox's network namespace, with `lo` up and ports below 1024 open to all users, as Docker does;
    /// answers the file it is bound to. Idempotent.
    ///
    /// # Errors
    /// When the kernel refuses it.
    fn ensure_sandbox<'a>(&'a self, id: &'a SandboxId) -> BoxFuture<'a, Result<PathBuf, NetError>>;

    /// The network namespace of a sandbox in which something runs, for another workload to join. Where its file is gone,
    /// the namespace of its process `running` is bound to it again.
    ///
    /// # Errors
    /// `NotFound` where neither is there.
    fn running_sandbox<'a>(
        &'a self,
        id: &'a SandboxId,
        running: Option<u32>,
    ) -> BoxFuture<'a, Result<PathBuf, NetError>>;

    /// Removes the sandbox's namespace and what is still attached to it. Processes still inside keep a namespace
    /// without a network. Idempotent.
    ///
    /// # Errors
    /// When the kernel refuses it.
    fn remove_sandbox<'a>(&'a self, id: &'a SandboxId) -> BoxFuture<'a, Result<(), NetError>>;

    /// Puts a sandbox on a network, or adds the addresses of a further workload where it is on it already. Idempotent.
    ///
    /// # Errors
    /// `NotFound` when network or sandbox are not ready; `Invalid` for addresses outside the network; `Conflict` for an
    /// address in use. Nothing is left behind.
    fn attach<'a>(&'a self, endpoint: &'a Endpoint) -> BoxFuture<'a, Result<Attached, NetError>>;

    /// Takes the endpoint's addresses away, and the published ports that lead to them; the last endpoint of a sandbox on
    /// a network takes the interface with it, which the kernel removes within some 30 ms after this returned. Idempotent.
    ///
    /// # Errors
    /// When the kernel refuses it.
    fn detach<'a>(&'a self, endpoint: &'a Endpoint) -> BoxFuture<'a, Result<(), NetError>>;

    /// Has the way out of a sandbox go over another network where the one it went over is gone: the first of `wanted` that
    /// it is on, or any that has one. Answers over which it goes now.
    ///
    /// # Errors
    /// When the kernel refuses it.
    fn lead_out<'a>(
        &'a self,
        sandbox: &'a SandboxId,
        wanted: &'a [NetworkId],
    ) -> BoxFuture<'a, Result<Option<NetworkId>, NetError>>;

    /// Forwards a port of the host to a workload: from outside, from the host itself and from containers. Answers the
    /// address on the host, with the port chosen where 0 was asked for. Idempotent.
    ///
    /// Publish over the network that has the sandbox's default route, or answers take another way out.
    ///
    /// # Errors
    /// `Conflict` when another program or workload has the port; `Invalid` when the host has no such address;
    /// `Unsupported` for an internal network, for an IPv6 port of an IPv4 workload and the reverse.
    fn publish<'a>(&'a self, forward: &'a Forward) -> BoxFuture<'a, Result<SocketAddr, NetError>>;

    /// Takes back all that `owner` published. Idempotent.
    ///
    /// # Errors
    /// When the kernel refuses it.
    fn unpublish<'a>(&'a self, owner: &'a str) -> BoxFuture<'a, Result<(), NetError>>;

    /// Takes back one port of `owner`, by its address on the host. Idempotent.
    ///
    /// # Errors
    /// When the kernel refuses it.
    fn unpublish_one<'a>(&'a self, owner: &'a str, host: SocketAddr) -> BoxFuture<'a, Result<(), NetError>>;

    /// Takes published ports that another program had when [`Self::sweep`] was to take them up again, as far as they are
    /// free now. Answers how many are left.
    ///
    /// # Errors
    /// When the daemon is shutting down.
    fn retake_ports(&self) -> BoxFuture<'_, Result<usize, NetError>>;

    /// Keeps internal networks from TCP ports of the host whose listening sockets are handed to workloads: each socket is
    /// told of once, before anybody serves it.
    ///
    /// # Errors
    /// When the kernel refuses it; what was told of is to be taken back all the same.
    fn hand_over<'a>(&'a self, ports: &'a [u16]) -> BoxFuture<'a, Result<(), NetError>>;

    /// That sockets told of by [`Self::hand_over`] are closed, each once.
    ///
    /// # Errors
    /// When the kernel refuses it.
    fn take_back<'a>(&'a self, ports: &'a [u16]) -> BoxFuture<'a, Result<(), NetError>>;

    /// Answers at [`crate::DNS_INSIDE`] for workloads in `sandbox`, until it is removed. Idempotent.
    ///
    /// # Errors
    /// When there is no such sandbox or the kernel refuses it.
    fn serve_inside<'a>(&'a self, sandbox: &'a SandboxId) -> BoxFuture<'a, Result<(), NetError>>;

    /// The gateways at which `sandbox` reaches the DNS (port 53, UDP and TCP), in the order in which it was attached.
    fn dns_servers(&self, sandbox: &SandboxId) -> Vec<IpAddr>;

    /// The servers that are asked, in their order, what is no name of ours for workloads in `sandbox`; those of the machine
    /// where there are none.
    fn set_upstream(&self, sandbox: &SandboxId, servers: &[IpAddr]);

    /// Which names resolve to what for members of `network`, from now on; replaces those set before. Members of several
    /// networks see the names of each. `linked` are further names for single members, by their addresses there.
    ///
    /// With many members, use [`Self::change_network_names`] for what changes.
    fn set_network_names(&self, network: &NetworkId, names: Names, linked: HashMap<IpAddr, Names>);

    /// Which of the names on `network` resolve to something else from now on; a name without addresses is gone. `linked`
    /// replaces what was set before.
    fn change_network_names(&self, network: &NetworkId, changed: &Names, linked: HashMap<IpAddr, Names>);

    /// What reverse lookups of `addresses`, which a workload has already, answer from now on.
    fn set_reverse_name(&self, addresses: &[IpAddr], name: &str);
}
