//! Addresses that the host has a use for already.

use bireme_sys::netlink::{Socket, Subsystem};
use bireme_sys::route;
use ipnet::IpNet;

use crate::NetError;
use crate::dns::system_servers;

pub(crate) fn host_routes() -> Result<Vec<IpNet>, NetError> {
    let failed = || NetError::kernel("reading the host's routes");
    let mut socket = Socket::open(Subsystem::Route).map_err(NetError::io("opening a netlink socket"))?;
    let mut found = route::destinations(&mut socket).map_err(failed())?;
    found.extend(route::addresses(&mut socket).map_err(failed())?.into_iter().map(|(_, prefix)| prefix));
    let mut nets: Vec<_> = found
        .into_iter()
        .filter_map(|(address, length)| IpNet::new(address, length).ok())
        .map(|net| net.trunc())
        .collect();
    let servers = Vec::from_iter(system_servers().into_iter().map(|server| IpNet::from(server.ip())));
    nets.extend(servers);
    nets.sort();
    nets.dedup();
    Ok(nets)
}
