//! Refusals about networks, endpoints and published ports.

use std::io;
use std::net::{IpAddr, SocketAddr};

use bireme_core::ErrorKind;
use bireme_core::id::InvalidId;
use bireme_net::NetError;
use bireme_net::addresses::AddressError;
use ipnet::IpNet;

/// Why something is not done with a network, or with a workload on one. `network` is the network's name; `name` and `id` are
/// those of the workload, where they are not said to be the network's.
#[derive(Debug, thiserror::Error)]
pub enum NetworkRefusal {
    #[error("network {network} not found")]
    NotFound { network: String },
    #[error("network with name {network} already exists")]
    NameTaken { network: String },
    #[error("invalid name: name is empty")]
    NameEmpty,
    #[error("operation is not permitted on predefined {network} network ")]
    NamePredefined { network: String },
    #[error("{network} is a pre-defined network and cannot be removed")]
    Predefined { network: String },
    #[error("plugin \"{driver}\" not found: of the drivers for new networks, bridge is offered")]
    NoDriver { driver: String },
    #[error("gateway mode {mode} is not offered ({key}): leave it out for nat, or make the network internal")]
    GatewayMode { mode: String, key: &'static str },
    #[error("unknown gateway mode {mode}")]
    UnknownGatewayMode { mode: String },
    #[error("no subnet is free: name one")]
    NoSubnet,
    /// None of the default subnets is free.
    #[error("{0}")]
    Subnets(AddressError),
    #[error("Pool overlaps with other one on this address space: {subnet} is in use")]
    Overlap { subnet: IpNet },
    #[error("error while removing network: network {network} id {id} has active endpoints")]
    InUse { network: String, id: String },
    /// It could not be made when the engine started.
    #[error(
        "network {network} could not be made and is left out: {why}; mend that and start the container again, or remove the network"
    )]
    LeftOut { network: String, why: String },
    /// As [`Self::LeftOut`], and it could not be made now either.
    #[error(
        "network {network} could not be made and is left out: {source}; mend that and start the container again, or remove the network"
    )]
    StillLeftOut { network: String, source: Box<NetError> },
    /// What it is to be contradicts itself or cannot be read.
    #[error("network {network}: {fault}")]
    Fault { network: String, fault: NetworkFault },
    #[error("invalid MAC address {text:?}: write six bytes such as 02:42:ac:11:00:02")]
    Mac { text: String },

    #[error("network {network} cannot be combined with others: use it as the network mode alone")]
    NotCombinable { network: String },
    #[error(
        "invalid config for network {network}: invalid endpoint settings:\nno configured subnet or ip-range contain the IP address {address}: it has {}",
        subnets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    AddressOutside { network: String, address: IpAddr, subnets: Vec<IpNet> },
    #[error(
        "invalid config for network {network}: invalid endpoint settings:\ninvalid link-local IP address: {address}"
    )]
    NotLinkLocal { network: String, address: IpAddr },
    /// It has no address for the workload.
    #[error("network {network}: {source}")]
    Address { network: String, source: AddressError },
    #[error("container cannot be connected to multiple networks with one of the networks in private (none) mode")]
    NoneMode,
    #[error(
        "container sharing network namespace with another container or host cannot be connected to any other network"
    )]
    SharedNamespace,
    #[error(
        "container cannot be disconnected from host network or connected to host network: {network} is a network mode only"
    )]
    ModeOnly { network: String },
    #[error("endpoint with name {name} already exists in network {network}")]
    AlreadyConnected { name: String, network: String },
    #[error("container {id} is not connected to network {network}")]
    NotConnected { id: String, network: String },
    /// The ID that a record has is none.
    #[error("{0}")]
    Id(InvalidId),

    #[error(
        "driver failed programming external connectivity on endpoint {name}: failed to bind host port for {host}: {why}"
    )]
    Bind { name: String, host: SocketAddr, why: BindFailure },
    /// The first port of a range is beyond the last.
    #[error("an empty range of host ports")]
    NoPorts,
    #[error("{name} has no address to forward to")]
    NoAddress { name: String },
    #[error(
        "{name} is served on its published ports by way of network {network}, and no other of its networks has them published so: stop {name} first, or put it on one that has"
    )]
    ServedBy { name: String, network: String },
}

impl NetworkRefusal {
    /// What kind of failure this is for whoever asked.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } | Self::NoDriver { .. } => ErrorKind::NotFound,
            Self::NamePredefined { .. }
            | Self::Predefined { .. }
            | Self::Overlap { .. }
            | Self::InUse { .. }
            | Self::NoneMode
            | Self::SharedNamespace
            | Self::ModeOnly { .. }
            | Self::AlreadyConnected { .. }
            | Self::NotConnected { .. } => ErrorKind::Denied,
            Self::GatewayMode { .. } => ErrorKind::Unsupported,
            Self::NameTaken { .. }
            | Self::NoSubnet
            | Self::Subnets(_)
            | Self::LeftOut { .. }
            | Self::StillLeftOut { .. }
            | Self::Address { .. }
            | Self::Bind { .. }
            | Self::ServedBy { .. } => ErrorKind::Conflict,
            Self::NameEmpty
            | Self::UnknownGatewayMode { .. }
            | Self::Fault { .. }
            | Self::Mac { .. }
            | Self::NotCombinable { .. }
            | Self::AddressOutside { .. }
            | Self::NotLinkLocal { .. }
            | Self::Id(_)
            | Self::NoPorts
            | Self::NoAddress { .. } => ErrorKind::Invalid,
        }
    }
}

/// What of a network's addresses and options makes no network. `key` is the option's name, `text` what stands there.
#[derive(Debug, thiserror::Error)]
pub enum NetworkFault {
    #[error("{text:?} is not an address range such as 10.5.0.0/24")]
    Range { text: String },
    #[error("a pool needs a subnet")]
    PoolWithoutSubnet,
    #[error("invalid subnet {subnet}: it should be {}", subnet.trunc())]
    HostBits { subnet: IpNet },
    #[error("gateway {text:?} is not an address")]
    Gateway { text: String },
    #[error("no matching subnet for gateway {gateway}")]
    GatewayOutside { gateway: IpAddr },
    #[error("auxiliary address {text:?} is not an address")]
    Auxiliary { text: String },
    /// Its range or a reserved address is not within its subnet.
    #[error("{0}")]
    Addresses(AddressError),
    #[error("more than one subnet of one family is not offered")]
    TwoOfOneFamily,
    #[error("it needs an IPv4 subnet")]
    NoIpv4,
    #[error("{key} {text:?} is not a number")]
    Number { key: &'static str, text: String },
    #[error("{key} {text:?} is neither true nor false")]
    Switch { key: &'static str, text: String },
    #[error(
        "{key} {text:?} is not an address of this host such as 127.0.0.1: make the network anew with one, or without for every address"
    )]
    HostAddress { key: &'static str, text: String },
    /// The ID that its record has is none.
    #[error("{0}")]
    Id(InvalidId),
}

/// Why a component is not given a listening socket.
#[derive(Debug, thiserror::Error)]
pub enum BindFailure {
    #[error("address already in use: stop what listens there, or publish another port")]
    InUse,
    #[error(
        "port is already allocated to a component of another app: those of one app (a Compose project) share ports by their routes; publish another port, or give both the same label com.docker.compose.project"
    )]
    OfAnotherApp,
    /// The kernel's word for it.
    #[error("{0}")]
    Io(io::Error),
}
