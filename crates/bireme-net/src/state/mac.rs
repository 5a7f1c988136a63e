//! Hardware addresses of bridges and interfaces.

use std::net::IpAddr;

use crate::Endpoint;

/// The one asked for, or one made from the first address.
pub(super) fn mac_for(endpoint: &Endpoint) -> [u8; 6] {
    let first = endpoint.addresses.iter().find_map(|address| match address.addr() {
        IpAddr::V4(address) => Some(address.octets()),
        IpAddr::V6(_) => None,
    });
    endpoint.mac.unwrap_or_else(|| mac_of(first.unwrap_or_default()))
}

/// Docker's way: the same address always has the same MAC, so that neighbours need not learn anew.
pub(super) fn mac_of(address: [u8; 4]) -> [u8; 6] {
    let [a, b, c, d] = address;
    [0x02, 0x42, a, b, c, d]
}

pub(super) fn mac_text(mac: &[u8]) -> String {
    mac.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}
