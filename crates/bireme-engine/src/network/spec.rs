//! Networks as they are asked for: their addresses and options. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr as _;

use bireme_core::go::parse_bool;
use bireme_net::addresses::AddressPool;
use bireme_net::{Driver, NetworkId, NetworkSpec, Subnet};
use ipnet::IpNet;

use super::Bridge;
use crate::refusal::{NetworkFault, NetworkRefusal};
use crate::request::PoolRequest;
use crate::seal::{Seal, check};
use crate::state_store::Unread;
use crate::view::{Endpoint, Network};
use crate::{EngineError, unreadable};

/// Option of a network: whether members reach each other.
const ICC: &str = "com.docker.network.bridge.enable_icc";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
/// The address that ports are published on where none is asked for.
pub(super) const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
/// How members reach the world and are reached from it.
pub(super) const GATEWAY_MODES: [&str; 2] =
    ["com.docker.network.bridge.gateway_mode_ipv4", "com.docker.network.bridge.gateway_mode_ipv6"];

const MTU: &str = "com.docker.network.driver.mtu";

/// What stands behind a network on the machine; `None` for host and null.
pub(super) fn bridge(network: &Network) -> Result<Option<Bridge>, EngineError> {
    if network.driver != "bridge" {
        return Ok(None);
    }
    let invalid = |fault| NetworkRefusal::Fault { network: network.name.clone(), fault };
    let mut subnets = Vec::new();
    let (mut pool4, mut pool6) = (None, None);
    for pool in &network.pools {
        let parse =
            |text: &String| IpNet::from_str(text).map_err(|_| invalid(NetworkFault::Range { text: text.clone() }));
        let net =
            pool.subnet.as_ref().map(parse).transpose()?.ok_or_else(|| invalid(NetworkFault::PoolWithoutSubnet))?;
        if net != net.trunc() {
            return Err(invalid(NetworkFault::HostBits { subnet: net }).into());
        }
        let range = pool.ip_range.as_ref().map(parse).transpose()?;
        let gateway = match &pool.gateway {
            Some(text) => text.parse().map_err(|_| invalid(NetworkFault::Gateway { text: text.clone() }))?,
            None => AddressPool::default_gateway(net),
        };
        if !net.contains(&gateway) {
            return Err(invalid(NetworkFault::GatewayOutside { gateway }).into());
        }
        let mut reserved = vec![gateway];
        for text in pool.reserved.values() {
            reserved.push(text.parse().map_err(|_| invalid(NetworkFault::Auxiliary { text: text.clone() }))?);
        }
        let addresses =
            AddressPool::new(net, range, &reserved).map_err(|error| invalid(NetworkFault::Addresses(error)))?;
        let place = if net.addr().is_ipv4() { &mut pool4 } else { &mut pool6 };
        if place.replace(addresses).is_some() {
            return Err(invalid(NetworkFault::TwoOfOneFamily).into());
        }
        subnets.push(Subnet { net, gateway });
    }
    let pool = pool4.ok_or_else(|| invalid(NetworkFault::NoIpv4))?;
    // What an older version took and nobody can read keeps members apart.
    let switch =
        |key: &str, unread: bool| network.options.get(key).is_none_or(|value| parse_bool(value).unwrap_or(unread));
    let mtu = match network.options.get(MTU) {
        Some(text) => Some(text.parse().map_err(|_| invalid(NetworkFault::Number { key: MTU, text: text.clone() }))?),
        None => None,
    };
    let spec = NetworkSpec {
        id: NetworkId::parse(&network.id).map_err(|error| invalid(NetworkFault::Id(error)))?,
        name: network.name.clone(),
        driver: Driver::Bridge,
        subnets,
        internal: network.internal,
        icc: switch(ICC, false),
        mtu,
        bridge_name: network.options.get(BRIDGE_NAME).cloned(),
        masquerade: switch(MASQUERADE, true),
    };
    Ok(Some(Bridge { spec, pool, pool6 }))
}

/// Refuses options of a new network that would be taken for something else than was meant.
///
/// # Errors
/// `Invalid`, with the option and what can be written.
pub(super) fn check_options(name: &str, options: &BTreeMap<String, String>) -> Result<(), EngineError> {
    for key in [ICC, MASQUERADE] {
        if let Some(value) = options.get(key).filter(|value| parse_bool(value).is_none()) {
            let fault = NetworkFault::Switch { key, text: value.clone() };
            return Err(NetworkRefusal::Fault { network: name.to_owned(), fault }.into());
        }
    }
    match options.get(HOST_BINDING) {
        Some(value) => bound_to(name, value).map(drop),
        None => Ok(()),
    }
}

/// The address that [`HOST_BINDING`] says; `None` for every one of the host.
pub(super) fn bound_to(network: &str, text: &str) -> Result<Option<IpAddr>, EngineError> {
    let address: IpAddr = text.parse().map_err(|_| NetworkRefusal::Fault {
        network: network.to_owned(),
        fault: NetworkFault::HostAddress { key: HOST_BINDING, text: text.to_owned() },
    })?;
    Ok((!address.is_unspecified()).then_some(address))
}

/// A subnet of IPv6 that is a network's own, by its ID. Source: RFC 4193 for the prefix and its 40 random bits.
pub(super) fn unique_local(id: &str) -> String {
    let digits = |range| id.get(range).unwrap_or("0");
    format!("fd{}:{}:{}::/64", digits(0..2), digits(2..6), digits(6..10))
}

/// Whether the engine makes a network of this name by itself.
pub(crate) fn is_predefined(name: &str) -> bool {
    matches!(name, "bridge" | "host" | "none")
}

/// A network whose record cannot be read, as far as it can be, in the order in which it is to be tried: its addresses are those
/// of the record, or those that `endpoints` have of it. A record that was damaged is believed less than they are. What cannot
/// be read of who reaches whom is kept apart, but on the networks that the engine makes by itself.
pub(crate) fn as_far_as_it_goes(record: &Unread, endpoints: &[Endpoint]) -> Vec<Network> {
    let value = unreadable::parse(&record.record);
    let own = !is_predefined(&record.name);
    let mut pools: Vec<PoolRequest> = unreadable::list(&value, "pools");
    pools.retain(|pool| pool.subnet.as_ref().is_some_and(|subnet| subnet.parse::<IpNet>().is_ok()));
    let of_endpoints = || {
        let on_it = |endpoint: &&Endpoint| endpoint.network == record.key;
        let (address, length, gateway) = endpoints.iter().filter(on_it).find_map(|endpoint| {
            let (address, length) = endpoint.ipv4?;
            Some((address, length, endpoint.gateway))
        })?;
        let subnet = IpNet::new(address, length).ok()?.trunc();
        let gateway = gateway.map(|gateway| gateway.to_string());
        Some(vec![PoolRequest { subnet: Some(subnet.to_string()), gateway, ..PoolRequest::default() }])
    };
    let mut choices = vec![Some(pools).filter(|pools| !pools.is_empty()), of_endpoints()];
    if check(&record.key, &record.record) == Seal::Broken {
        choices.reverse();
    }
    let driver = match record.name.as_str() {
        "none" => "null",
        "host" => "host",
        _ => "bridge",
    };
    if driver != "bridge" {
        choices = vec![Some(Vec::new())];
    }
    let options: Option<BTreeMap<String, String>> =
        value.get("options").and_then(|options| serde_json::from_value(options.clone()).ok());
    let apart = || BTreeMap::from([(ICC.to_owned(), "false".to_owned())]);
    let network = |pools| Network {
        id: record.key.clone(),
        name: record.name.clone(),
        driver: driver.to_owned(),
        created: value["created"].as_i64().unwrap_or_default(),
        internal: own && value["internal"].as_bool().unwrap_or(true),
        attachable: false,
        ipv6: value["ipv6"].as_bool().unwrap_or_default(),
        pools,
        options: options.clone().unwrap_or_else(|| if own { apart() } else { BTreeMap::new() }),
        labels: BTreeMap::new(),
    };
    choices.into_iter().flatten().map(network).collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::request::EndpointRequest;
    use crate::seal::seal;
    use crate::view::DEFAULT_NETWORK as DEFAULT;

    #[test]
    fn options_that_cannot_be_read_are_refused_and_open_nothing() {
        let with = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        for (key, good, bad) in [
            (ICC, &["false", "0", "True"][..], &["no", "", "off"][..]),
            (MASQUERADE, &["true", "F"], &["yes"]),
            (HOST_BINDING, &["127.0.0.1", "0.0.0.0"], &["127.0.0.l", "", "localhost", "127.0.0.1:80"]),
        ] {
            for value in good {
                check_options("front", &with(key, value)).unwrap();
            }
            for value in bad {
                let refusal = check_options("front", &with(key, value)).unwrap_err().to_string();
                assert!(refusal.contains(key) && refusal.contains("front"), "{refusal}");
            }
        }
        assert_eq!(bound_to("front", "127.0.0.1").unwrap(), Some(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(bound_to("front", "0.0.0.0").unwrap(), None);
        assert!(bound_to("front", "127.0.0.l").is_err(), "also of a network of an older version");
    }

    #[test]
    fn a_network_is_known_by_its_record_or_by_who_is_on_it() {
        let record = |text: &str| Unread { key: "1".repeat(64), name: DEFAULT.to_owned(), record: text.to_owned() };
        let subnets = |record: &Unread, endpoints: &[Endpoint]| -> Vec<String> {
            let choices = as_far_as_it_goes(record, endpoints).into_iter();
            choices
                .flat_map(|network| {
                    assert!(bridge(&network).unwrap().is_some());
                    network.pools.into_iter().filter_map(|pool| pool.subnet)
                })
                .collect()
        };
        let pools =
            r#"{"labels":7,"pools":[{"subnet":"172.17.0.0/16","ip_range":null,"gateway":"172.17.0.1","reserved":{}}]}"#;
        assert_eq!(subnets(&record(pools), &[]), ["172.17.0.0/16"]);
        assert!(subnets(&record("nonsense"), &[]).is_empty());
        let mut on_it: Endpoint = serde_json::from_value(serde_json::json!({
            "network": "1".repeat(64), "network_name": "bridge", "endpoint_id": "", "request": EndpointRequest::default(),
            "ipv4": ["172.18.0.5", 16], "gateway": "172.18.0.1", "ipv6": null, "ipv6_gateway": null, "mac": null, "names": [],
        }))
        .unwrap();
        let one = std::slice::from_ref(&on_it);
        assert_eq!(subnets(&record("nonsense"), one), ["172.18.0.0/16"]);
        assert_eq!(subnets(&record(pools), one), ["172.17.0.0/16", "172.18.0.0/16"]);
        let damaged = seal(&"1".repeat(64), pools.to_owned()).replace("172.17.0.", "172.16.0.");
        assert_eq!(subnets(&record(&damaged), one), ["172.18.0.0/16", "172.16.0.0/16"]);
        on_it.network = "2".repeat(64);
        assert!(subnets(&record("nonsense"), &[on_it]).is_empty());
        let none = Unread { name: "none".to_owned(), ..record("nonsense") };
        assert_eq!(as_far_as_it_goes(&none, &[])[0].driver, "null");
        // What is not known of a network of somebody's opens nothing.
        let mine = |text: &str| as_far_as_it_goes(&Unread { name: "mine".to_owned(), ..record(text) }, &[]).remove(0);
        let closed = mine(&pools.replace("\"labels\":7", "\"internal\":7"));
        assert!(closed.internal && !bridge(&closed).unwrap().unwrap().spec.icc);
        let open = mine(&pools.replace("\"labels\":7", "\"labels\":7,\"internal\":false,\"options\":{}"));
        assert!(!open.internal && bridge(&open).unwrap().unwrap().spec.icc);
    }
}
