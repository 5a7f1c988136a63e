//! The interface inside a sandbox: its addresses and its routes.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use bireme_core::SandboxId;
use bireme_sys::netlink::{Refused, Socket, Subsystem};
use bireme_sys::{netns, route};
use ipnet::IpNet;
use rustix::io::Errno;

use super::set_sysctl;
use crate::{Endpoint, NetError};

/// Gives the interface inside its addresses and the sandbox its way out.
pub(super) fn configure(
    path: &Path,
    endpoint: &Endpoint,
    network: &str,
    interface: &str,
    addresses: &[IpNet],
    gateways: &[IpAddr],
) -> Result<(), NetError> {
    let work = || -> Result<(), Refused> {
        let mut socket = Socket::open(Subsystem::Route)?;
        let link = route::link(&mut socket, interface)?.ok_or(Errno::NODEV)?;
        if addresses.iter().any(|address| address.addr().is_ipv6()) {
            set_sysctl(&format!("net/ipv6/conf/{interface}/disable_ipv6"), "0")?;
        }
        let mut messages = vec![route::raise(link.index)];
        messages.extend(addresses.iter().map(|net| route::add_address(link.index, (net.addr(), net.prefix_len()))));
        let families: BTreeSet<_> = addresses.iter().map(|address| address.addr().is_ipv4()).collect();
        let ways = gateways.iter().filter(|gateway| families.contains(&gateway.is_ipv4()));
        messages.extend(ways.map(|gateway| route::add_default_route(link.index, *gateway)));
        match socket.request(&messages) {
            // A further workload of the sandbox asks for the way out that is there.
            Err(refused) if refused.errno == Errno::EXIST && refused.index > addresses.len() => Ok(()),
            answer => answer,
        }
    };
    let attempt = format!("configuring {interface} of {} on network {network}", endpoint.sandbox);
    let answer = netns::run_in_netns(path, work).map_err(NetError::io(attempt.clone()))?;
    answer.map_err(NetError::kernel(attempt))
}

/// Gives a sandbox its way out over an interface that it has already.
pub(super) fn lead(path: &Path, sandbox: &SandboxId, interface: &str, gateways: &[IpAddr]) -> Result<(), NetError> {
    let attempt = format!("leading {sandbox} out by {interface}");
    let answer = netns::run_in_netns(path, || -> Result<(), Refused> {
        let mut socket = Socket::open(Subsystem::Route)?;
        let link = route::link(&mut socket, interface)?.ok_or(Errno::NODEV)?;
        for gateway in gateways {
            match socket.request(&[route::add_default_route(link.index, *gateway)]) {
                // A workload with the right to may have made one itself.
                Err(refused) if refused.errno == Errno::EXIST => {}
                answer => answer?,
            }
        }
        Ok(())
    });
    answer.map_err(NetError::io(attempt.clone()))?.map_err(NetError::kernel(attempt))
}

/// What is gone already is no error.
pub(super) fn take_addresses(
    path: &Path,
    sandbox: &SandboxId,
    interface: &str,
    addresses: &[IpNet],
) -> Result<(), NetError> {
    let failed = || format!("taking addresses from {interface} of {sandbox}");
    let answer = netns::run_in_netns(path, || -> Result<(), Refused> {
        let mut socket = Socket::open(Subsystem::Route)?;
        let Some(link) = route::link(&mut socket, interface)? else { return Ok(()) };
        for address in addresses {
            let remove = route::delete_address(link.index, (address.addr(), address.prefix_len()));
            match socket.request(&[remove]) {
                Err(refused) if refused.errno != Errno::ADDRNOTAVAIL => return Err(refused),
                _ => {}
            }
        }
        Ok(())
    });
    match answer {
        Ok(answer) => answer.map_err(NetError::kernel(failed())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // The file of a namespace that a restart of the machine ended.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        Err(error) => Err(NetError::io(failed())(error)),
    }
}
