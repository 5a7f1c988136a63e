//! Which addresses an endpoint has, of which kind, and how a MAC address is read. Pure.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::EngineError;
use crate::refusal::NetworkRefusal;
use crate::view::Endpoint;

pub(super) fn addresses_of(endpoint: &Endpoint) -> Vec<IpNet> {
    [endpoint.ipv4, endpoint.ipv6].into_iter().flatten().filter_map(|(ip, bits)| IpNet::new(ip, bits).ok()).collect()
}

/// What the interface has: the addresses by which it is found, and those asked for beside them.
pub(super) fn all_addresses_of(endpoint: &Endpoint) -> Vec<IpNet> {
    let mut addresses = addresses_of(endpoint);
    if !addresses.is_empty() {
        let length = |address: IpAddr| if address.is_ipv4() { 16 } else { 64 };
        let further = endpoint.request.link_local.iter();
        addresses.extend(further.filter_map(|address| IpNet::new(*address, length(*address)).ok()));
    }
    addresses
}

pub(super) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

pub(super) fn parse_mac(text: &str) -> Result<[u8; 6], EngineError> {
    let mut mac = [0u8; 6];
    let mut parts = text.split([':', '-']);
    let mut ok = true;
    for byte in &mut mac {
        ok &= parts.next().and_then(|part| u8::from_str_radix(part, 16).ok()).map(|value| *byte = value).is_some();
    }
    if ok && parts.next().is_none() && mac[0] & 1 == 0 {
        return Ok(mac);
    }
    Err(NetworkRefusal::Mac { text: text.to_owned() }.into())
}
