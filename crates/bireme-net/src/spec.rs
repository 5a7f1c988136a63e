//! What is asked of the network: networks, endpoints and forwards as data.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use bireme_core::SandboxId;
use bireme_core::spec::Protocol;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// How [`crate::KernelNet::open`] shall work.
#[derive(Clone, Debug)]
pub struct NetOptions {
    /// Eight lower-case hexadecimal digits, different for every engine of the machine and the same at every start of
    /// this one. Everything made in the kernel carries it.
    pub instance: String,
    /// Where namespaces are bound, as `netns/<sandbox>`. Made if absent; emptied by a restart of the machine.
    pub run_dir: PathBuf,
    /// DNS servers asked for names that are not ours. `None`: those of `/etc/resolv.conf`, read again when it changes.
    pub upstream_dns: Option<Vec<SocketAddr>>,
}

/// Identifies one network: 64 lower-case hexadecimal digits, as Docker's network IDs.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NetworkId(String);

impl NetworkId {
    /// # Errors
    /// When `text` is not 64 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, bireme_core::id::InvalidId> {
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            Ok(Self(text.to_owned()))
        } else {
            Err(bireme_core::id::InvalidId(text.to_owned()))
        }
    }

    /// The 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for NetworkId {
    type Error = bireme_core::id::InvalidId;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<NetworkId> for String {
    fn from(id: NetworkId) -> String {
        id.0
    }
}

/// One network as it shall be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// By this the network is known from then on, and found again in the aliases of its links.
    pub id: NetworkId,
    /// For messages.
    pub name: String,
    /// What the network is made of.
    pub driver: Driver,
    /// At least one of IPv4, where the DNS listens; at most one of each family.
    pub subnets: Vec<Subnet>,
    /// No way out and no published ports: only its members reach each other.
    pub internal: bool,
    /// Whether members reach each other at all (Docker's `com.docker.network.bridge.enable_icc`). Without it they reach
    /// each other's published ports only where `net.bridge.bridge-nf-call-iptables` is 0.
    pub icc: bool,
    /// Bytes; `None` for 1500.
    pub mtu: Option<u32>,
    /// The bridge's name on the host, at most 15 bytes; `None` for one of ours.
    pub bridge_name: Option<String>,
    /// Whether traffic to the outside takes the host's address.
    pub masquerade: bool,
}

/// What a network is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A bridge on the host, and a pair of virtual interfaces for each endpoint.
    #[default]
    Bridge,
}

/// A range of addresses and the one the host has in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// With its host bits zero.
    pub net: IpNet,
    /// An address in `net`.
    pub gateway: IpAddr,
}

/// One workload's place on one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Whose namespace gets the interface.
    pub sandbox: SandboxId,
    /// A network that is ready.
    pub network: NetworkId,
    /// With the prefix length of the subnet. Link-local ones may be among them, in addition.
    pub addresses: Vec<IpNet>,
    /// `None`: made from the first address. Ignored when the sandbox is on the network already.
    pub mac: Option<[u8; 6]>,
    /// Whether the way out of the sandbox goes over this network; without effect on an internal one. At most one
    /// network of a sandbox.
    pub default_route: bool,
    /// Whether it may have further addresses and pass on packets of others: whoever has `CAP_NET_ADMIN`. Addresses of
    /// others here are nobody's but theirs.
    #[serde(default)]
    pub routes: bool,
    /// What a reverse lookup of the addresses answers to members of the network.
    #[serde(default)]
    pub name: Option<String>,
    /// The workload; one owner has at most one endpoint per sandbox and network.
    pub owner: String,
}

/// What an endpoint became.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// Inside the sandbox, such as `eth0`.
    pub interface: String,
    /// As Docker writes it: `02:42:ac:11:00:02`.
    pub mac: String,
    /// On the host.
    pub host_interface: String,
}

/// A port of the host that leads to a port of a workload.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Forward {
    /// The ID of the workload.
    pub owner: String,
    /// Of both ports.
    pub protocol: Protocol,
    /// Where the host listens: an unspecified address means all of its addresses, port 0 lets the kernel choose.
    pub host: SocketAddr,
    /// The workload's address on `network`, and the port on which it listens.
    pub target: SocketAddr,
    /// The network over which it leads.
    pub network: NetworkId,
}

/// What shall be left by [`crate::Net::sweep`].
#[derive(Clone, Debug, Default)]
pub struct Keep {
    /// Networks that shall stand.
    pub networks: Vec<NetworkSpec>,
    /// Sandboxes without an endpoint (`--network none`); those of `endpoints` need not be named.
    pub sandboxes: Vec<SandboxId>,
    /// Sandboxes of which nothing else is known: they and their interfaces stay as they are.
    pub untouched: Vec<SandboxId>,
    /// IDs of networks of which nothing else is known: their bridges and all on them stay as they are.
    pub untouched_networks: Vec<String>,
    /// Endpoints of workloads that run.
    pub endpoints: Vec<Endpoint>,
    /// Published ports of workloads that run, as [`crate::Net::publish`] answered them.
    pub forwards: Vec<Forward>,
    /// TCP ports of the host whose listening sockets workloads were handed, once for each socket.
    pub handed: Vec<u16>,
}

/// What [`crate::Net::sweep`] found.
#[derive(Clone, Debug, Default)]
pub struct SweepReport {
    /// Endpoints found as they were, and again under our care.
    pub adopted: Vec<Endpoint>,
    /// Endpoints whose sandbox or interface is gone: their workload must be started anew.
    pub lost: Vec<Endpoint>,
    /// Of these, the ones whose sandbox and network are there: to be attached again.
    pub detached: Vec<Endpoint>,
    /// Forwards whose port another program has, and which: the kernel forwards where it did, and [`crate::Net::retake_ports`]
    /// takes the port once it is free.
    pub taken: Vec<(Forward, String)>,
    /// Forwards that could not be taken up again, and why.
    pub refused: Vec<(Forward, String)>,
    /// Networks that could not be made, and why: nothing of theirs is there.
    pub left_out: Vec<(NetworkId, String)>,
    /// Leftovers that were removed: names of links, namespaces.
    pub removed: Vec<String>,
}
