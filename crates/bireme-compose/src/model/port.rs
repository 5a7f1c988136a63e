//! Ports: published ones, and those that are only named.

use std::net::IpAddr;

use serde::Serialize;

use crate::read::value::{bounded, one_of, scalar, string};
use crate::read::{Result, keyed};
use crate::yaml::Node;

keyed! {
    /// One published (or, without `published` and `host_ip`, freely mapped) port.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
    pub struct Port = "a port" {
        /// For people; the engine does not have it.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub name: Option<String> => opt(string),
        /// `ingress` or `host`: the same on one machine.
        pub mode: String => or(one_of(&["ingress", "host"]), "ingress".to_owned()),
        /// Address of the machine on which it is published, an IPv6 one without brackets; absent: all.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub host_ip: Option<String> => opt(host_ip),
        /// The port in the container.
        pub target: u16 => required(target, "has no target; name the container's port"),
        /// A port or a range of ports to choose from; absent: any free one.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub published: Option<String> => opt(published),
        /// `tcp`, `udp` or `sctp`.
        pub protocol: String => or(one_of(&["tcp", "udp", "sctp"]), "tcp".to_owned()),
        /// Such as `http`, for people and other programs; the engine does not have it.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub app_protocol: Option<String> => opt(string),
    }
}

fn target(node: &Node, path: &str) -> Result<u16> {
    bounded(1, 65_535)(node, path).map(|port| u16::try_from(port).unwrap_or_default())
}

fn published(node: &Node, path: &str) -> Result<String> {
    let text = scalar(node, path)?;
    let (first, last) = text.split_once('-').unwrap_or((&text, &text));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) if first <= last => Ok(text),
        _ => Err(node.invalid(path, format!("{text:?} is not a port or a range such as 8080-8089"))),
    }
}

/// An address, an IPv6 one with or without its brackets.
fn host_ip(node: &Node, path: &str) -> Result<String> {
    let text = string(node, path)?;
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>()
        .map(|_| bare.to_owned())
        .map_err(|_| node.invalid(path, format!("{text:?} is not an IP address")))
}

/// A port of `expose`: with a protocol, and perhaps a range.
pub(super) fn exposed(node: &Node, path: &str) -> Result<String> {
    let text = scalar(node, path)?;
    let (ports, protocol) = text.split_once('/').unwrap_or((&text, "tcp"));
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let fits = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    if fits(first) && fits(last) && matches!(protocol, "tcp" | "udp" | "sctp") {
        Ok(text)
    } else {
        Err(node.invalid(path, format!("{text:?} is not a port such as 80, 80/udp or 80-82")))
    }
}
