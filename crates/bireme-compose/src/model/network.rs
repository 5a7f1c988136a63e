//! Networks of the top level, and a service's place on one.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;
use serde_json::Value as Json;

use super::form::is_false;
use crate::read::value::{boolean, integer, list_of, string, strings, texts};
use crate::read::{Result, keyed};
use crate::yaml::Node;

keyed! {
    /// A network of the top level.
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    pub struct Network = "a network" {
        /// The engine's name for it: `<project>_<key>` unless given.
        pub name: String => later,
        /// Absent: `bridge`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub driver: Option<String> => opt(string),
        /// Options as the driver knows them.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub driver_opts: BTreeMap<String, String> => or_default(texts),
        /// Its address pools.
        pub ipam: Ipam => or_default(Ipam::read),
        /// Made by someone else: must exist, is never created or removed.
        #[serde(skip_serializing_if = "is_false")]
        pub external: bool => later,
        /// Has no way out of the machine.
        #[serde(skip_serializing_if = "is_false")]
        pub internal: bool => or_default(boolean),
        /// For Swarm; passed on.
        #[serde(skip_serializing_if = "is_false")]
        pub attachable: bool => or_default(boolean),
        /// Of the network, besides those that mark it as the project's.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub labels: BTreeMap<String, String> => or_default(texts),
        /// Absent: the engine's default, on.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub enable_ipv4: Option<bool> => opt(boolean),
        /// Absent: the engine's default, off.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub enable_ipv6: Option<bool> => opt(boolean),
        /// Every `x-…` key.
        #[serde(flatten)]
        pub extensions: BTreeMap<String, Json>,
    }
}

keyed! {
    /// How a network gives out addresses.
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    pub struct Ipam = "ipam" {
        /// Absent: `default`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub driver: Option<String> => opt(string),
        /// Its pools; empty: the engine chooses one.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub config: Vec<IpamPool> => or_default(list_of(IpamPool::read)),
        /// Options as the driver knows them.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub options: BTreeMap<String, String> => or_default(texts),
    }
}

keyed! {
    /// A range of addresses.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
    pub struct IpamPool = "an address pool" {
        /// In CIDR form, such as `172.28.0.0/16`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub subnet: Option<String> => opt(string),
        /// The part of the subnet from which containers get addresses, in CIDR form.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub ip_range: Option<String> => opt(string),
        /// The machine's own address on the network.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub gateway: Option<String> => opt(string),
        /// Addresses that no container gets, each under a name.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub aux_addresses: BTreeMap<String, String> => or_default(texts),
    }
}

keyed! {
    /// A service's place on one network.
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    pub struct ServiceNetwork = "a network of a service" {
        /// Names of the containers on this network, besides those of service and container.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub aliases: Vec<String> => or_default(strings),
        /// Options of the endpoint as the driver knows them.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub driver_opts: BTreeMap<String, String> => or_default(texts),
        /// The network of the highest one gives the default route.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub gw_priority: Option<i64> => opt(integer),
        /// A fixed address, which must be of one of its pools.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub ipv4_address: Option<String> => opt(address),
        /// A fixed address, which must be of one of its pools.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub ipv6_address: Option<String> => opt(address),
        /// Further addresses of the interface, beyond the pools.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub link_local_ips: Vec<String> => or_default(list_of(address)),
        /// Such as `02:42:ac:11:00:02`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub mac_address: Option<String> => opt(string),
        /// The network of the highest priority is connected first and is the container's network mode.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub priority: Option<i64> => opt(integer),
    }
    refused:
        "interface_name" => "interfaces are named by the engine; leave it out";
}

fn address(node: &Node, path: &str) -> Result<String> {
    let text = string(node, path)?;
    match text.parse::<IpAddr>() {
        Ok(_) => Ok(text),
        Err(_) => Err(node.invalid(path, format!("{text:?} is not an IP address"))),
    }
}
