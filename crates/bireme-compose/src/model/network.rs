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
        #[serde(skip_serializing_if = "Option::is_none")]
        pub driver: Option<String> => opt(string),
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub driver_opts: BTreeMap<String, String> => or_default(texts),
        pub ipam: Ipam => or_default(Ipam::read),
        /// Made by someone else: must exist, is never created or removed.
        #[serde(skip_serializing_if = "is_false")]
        pub external: bool => later,
        #[serde(skip_serializing_if = "is_false")]
        pub internal: bool => or_default(boolean),
        #[serde(skip_serializing_if = "is_false")]
        pub attachable: bool => or_default(boolean),
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub labels: BTreeMap<String, String> => or_default(texts),
        #[serde(skip_serializing_if = "Option::is_none")]
        pub enable_ipv4: Option<bool> => opt(boolean),
        #[serde(skip_serializing_if = "Option::is_none")]
        pub enable_ipv6: Option<bool> => opt(boolean),
        #[serde(flatten)]
        pub extensions: BTreeMap<String, Json>,
    }
}

keyed! {
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    pub struct Ipam = "ipam" {
        #[serde(skip_serializing_if = "Option::is_none")]
        pub driver: Option<String> => opt(string),
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub config: Vec<IpamPool> => or_default(list_of(IpamPool::read)),
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub options: BTreeMap<String, String> => or_default(texts),
    }
}

keyed! {
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
    pub struct IpamPool = "an address pool" {
        #[serde(skip_serializing_if = "Option::is_none")]
        pub subnet: Option<String> => opt(string),
        #[serde(skip_serializing_if = "Option::is_none")]
        pub ip_range: Option<String> => opt(string),
        #[serde(skip_serializing_if = "Option::is_none")]
        pub gateway: Option<String> => opt(string),
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub aux_addresses: BTreeMap<String, String> => or_default(texts),
    }
}

keyed! {
    /// A service's place on one network.
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    pub struct ServiceNetwork = "a network of a service" {
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub aliases: Vec<String> => or_default(strings),
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub driver_opts: BTreeMap<String, String> => or_default(texts),
        #[serde(skip_serializing_if = "Option::is_none")]
        pub gw_priority: Option<i64> => opt(integer),
        #[serde(skip_serializing_if = "Option::is_none")]
        pub ipv4_address: Option<String> => opt(address),
        #[serde(skip_serializing_if = "Option::is_none")]
        pub ipv6_address: Option<String> => opt(address),
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub link_local_ips: Vec<String> => or_default(list_of(address)),
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
