//! Networks of the engine: bridges, sandboxes, addresses, published ports, names.
//!
//! ```text
//!   host ──┬── bridge br<instance>xxxxx (gateway, DNS) ──┬── veth ── eth0 of a sandbox (network namespace)
//!          │                                             └── veth ── eth0 of another
//!          └── nf_tables tables bireme_<instance>: inet: isolation, masquerade, published ports; bridge: no spoofing
//! ```
//! [`Net`] is what may be asked of them; [`KernelNet`] does it, all of it by netlink in this process. [`addresses`]
//! chooses addresses and is pure. What is to be remembered across restarts is the caller's: [`Net::sweep`] takes it and
//! finds everything again, while workloads go on undisturbed.
//!
//! Everything made in the kernel carries the instance in its name or alias, which is how leftovers are told from what
//! belongs to others.

#![warn(missing_docs)]

pub mod addresses;
mod dns;
mod error;
mod flows;
mod forwarding;
mod guard;
mod host_routes;
mod inside;
mod kernel;
mod net;
mod places;
mod proxy;
mod rules;
pub mod spec;
mod state;

pub use error::NetError;
pub use inside::DNS_INSIDE;
pub use kernel::KernelNet;
pub use net::Net;
pub use spec::{Attached, Driver, Endpoint, Forward, Keep, NetOptions, NetworkId, NetworkSpec, Subnet, SweepReport};
