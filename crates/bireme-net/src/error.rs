//! What can go wrong with networks.

use std::io;
use std::net::SocketAddr;

use bireme_core::{ErrorKind, SandboxId};
use bireme_sys::netlink::Refused;

use crate::NetworkId;

/// The network could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// [`crate::NetOptions::instance`] is malformed.
    #[error("instance {0:?} cannot name an engine: give eight lower-case hexadecimal digits")]
    Instance(String),
    /// A capability is missing.
    #[error(
        "{attempt} needs the capabilities CAP_NET_ADMIN and CAP_SYS_ADMIN: run biremed as root, or use the host's network"
    )]
    Permission {
        /// What was being done, as "making bridge x".
        attempt: String,
        /// Why it failed.
        source: Refused,
    },
    /// Netlink answered with an error.
    #[error("{attempt}: the kernel refused it")]
    Kernel {
        /// What was being done, as "making bridge x".
        attempt: String,
        /// Why it failed.
        source: Refused,
    },
    /// Something other than netlink failed: a file, a socket, a namespace.
    #[error("{attempt}")]
    Io {
        /// What was being done, as "making bridge x".
        attempt: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Nothing stands of this network.
    #[error("network {0} not found: it was removed or never made ready")]
    NoNetwork(NetworkId),
    /// The sandbox has no namespace.
    #[error("network namespace of {0} not found: it was removed, or the machine restarted; start the workload anew")]
    NoSandbox(SandboxId),
    /// The specification of a network is malformed.
    #[error("network {network}: {reason}")]
    InvalidNetwork {
        /// By its name.
        network: String,
        /// A sentence, with what to do where something helps.
        reason: String,
    },
    /// Something else is in the way of a network, or uses it.
    #[error("network {network}: {reason}")]
    NetworkConflict {
        /// By its name.
        network: String,
        /// A sentence, with what to do where something helps.
        reason: String,
    },
    /// The specification of an endpoint is malformed.
    #[error("endpoint of {sandbox} on network {network}: {reason}")]
    InvalidEndpoint {
        /// Whose endpoint it is.
        sandbox: SandboxId,
        /// By its name.
        network: String,
        /// A sentence, with what to do where something helps.
        reason: String,
    },
    /// Another endpoint is in the way.
    #[error("endpoint of {sandbox} on network {network}: {reason}")]
    EndpointConflict {
        /// Whose endpoint it is.
        sandbox: SandboxId,
        /// By its name.
        network: String,
        /// A sentence, with what to do where something helps.
        reason: String,
    },
    /// Nothing here can forward that.
    #[error("port {host}/{protocol} cannot be published to {target}: {reason}")]
    UnsupportedForward {
        /// Where the host was to listen.
        host: SocketAddr,
        /// `tcp`, `udp` or `sctp`.
        protocol: &'static str,
        /// Where the port was to lead.
        target: SocketAddr,
        /// A sentence, with what to do where something helps.
        reason: &'static str,
    },
    /// Another workload of ours has it. The words are Docker's.
    #[error(
        "driver failed programming external connectivity on endpoint {owner}: Bind for {host} failed: port is already allocated"
    )]
    PortAllocated {
        /// The workload that wanted the port: the first 12 characters of its ID.
        owner: String,
        /// Where the host was to listen.
        host: SocketAddr,
    },
    /// Some other program has it. The words are Docker's, the cause is told with them because clients look for it.
    #[error(
        "driver failed programming external connectivity on endpoint {owner}: failed to bind host port for {host}:{target}/{protocol}: {}",
        words(source)
    )]
    PortTaken {
        /// The workload that wanted the port: the first 12 characters of its ID.
        owner: String,
        /// Where the host was to listen.
        host: SocketAddr,
        /// Where the port was to lead.
        target: SocketAddr,
        /// `tcp`, `udp` or `sctp`.
        protocol: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The runtime that did the work ended under it.
    #[error("the work was cut off: the daemon is shutting down")]
    ShutDown,
}

fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "address already in use".into(),
        io::ErrorKind::AddrNotAvailable => "cannot assign requested address: the host has no such address".into(),
        io::ErrorKind::PermissionDenied => "permission denied: ports below 1024 need CAP_NET_BIND_SERVICE".into(),
        _ => error.to_string(),
    }
}

impl NetError {
    /// What class of failure it is, for whoever answers a client.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Permission { .. } => ErrorKind::Denied,
            Self::NoNetwork(_) | Self::NoSandbox(_) => ErrorKind::NotFound,
            Self::Instance(_) | Self::InvalidNetwork { .. } | Self::InvalidEndpoint { .. } => ErrorKind::Invalid,
            Self::NetworkConflict { .. } | Self::EndpointConflict { .. } | Self::PortAllocated { .. } => {
                ErrorKind::Conflict
            }
            Self::UnsupportedForward { .. } => ErrorKind::Unsupported,
            Self::PortTaken { source, .. } => match source.kind() {
                io::ErrorKind::AddrInUse => ErrorKind::Conflict,
                io::ErrorKind::AddrNotAvailable => ErrorKind::Invalid,
                io::ErrorKind::PermissionDenied => ErrorKind::Denied,
                _ => ErrorKind::Internal,
            },
            Self::ShutDown => ErrorKind::Unavailable,
            Self::Kernel { .. } | Self::Io { .. } => ErrorKind::Internal,
        }
    }

    /// That the machine failed at `attempt`, named as "making bridge x": `Denied` where `source` is for want of a
    /// permission, `Internal` otherwise.
    pub fn failed(attempt: impl Into<String>, source: io::Error) -> Self {
        Self::io(attempt)(source)
    }

    /// `attempt` as "making bridge x".
    pub(crate) fn kernel(attempt: impl Into<String>) -> impl FnOnce(Refused) -> Self {
        let attempt = attempt.into();
        |source| {
            if source.is_permission() { Self::Permission { attempt, source } } else { Self::Kernel { attempt, source } }
        }
    }

    pub(crate) fn io(attempt: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let attempt = attempt.into();
        |source| {
            if source.kind() == io::ErrorKind::PermissionDenied {
                Self::Permission { attempt, source: source.into() }
            } else {
                Self::Io { attempt, source }
            }
        }
    }
}
