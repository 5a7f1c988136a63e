//! The network mode, the networks with what is wanted on each, and names: links, DNS, further hosts.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bireme_api::models::{ContainerCreateBody, HostConfig};
use bireme_core::spec::Dns;
use bireme_engine::request::{CreateRequest, EndpointRequest, NetworkModeRequest};
use serde_json::Value;

use super::namespaces::of_workload;
use crate::convert::{Refusal, network};

/// Whether the default network is one of the user's: links there stand with the endpoints, and Docker passes over these.
pub(super) fn of_own_network(mode: &str) -> bool {
    !matches!(mode, "" | "default" | "bridge" | "host" | "none") && !mode.starts_with("container:")
}

/// The network mode, and the networks with what is wanted on each.
pub(super) fn networks(
    create: &mut CreateRequest,
    wire: &ContainerCreateBody,
    host: &HostConfig,
) -> Result<(), Refusal> {
    let mut endpoints: BTreeMap<String, EndpointRequest> = BTreeMap::new();
    let wanted = wire.networking_config.clone().unwrap_or_default().endpoints_config.unwrap_or_default();
    for (name, settings) in wanted {
        // The default network goes by two names.
        let name = if name == "default" { "bridge".to_owned() } else { name };
        let endpoint = network::endpoint(&name, settings)?;
        endpoints.insert(name, endpoint);
    }
    let mode = host.network_mode.as_deref().unwrap_or_default();
    let mode = if wire.network_disabled == Some(true) { "none" } else { mode };
    create.network_mode = match mode {
        "" | "default" => NetworkModeRequest::Default,
        "none" => NetworkModeRequest::None,
        "host" => NetworkModeRequest::Host,
        mode => match of_workload(mode, "network")? {
            Some(name) => NetworkModeRequest::Workload(name),
            None => {
                endpoints.entry(mode.to_owned()).or_default();
                NetworkModeRequest::Default
            }
        },
    };
    if create.network_mode != NetworkModeRequest::Default {
        // Docker's clients name the mode itself as a network here; it is none that one could be put on.
        endpoints.remove(mode);
        if let Some(other) = endpoints.keys().next() {
            return Err(Refusal::invalid(format!(
                "conflicting options: cannot attach both user-defined and non-user-defined network-modes: {mode} and {other}"
            )));
        }
    }
    // Deprecated since 1.44: the address stood beside the networks and was meant for the only one.
    if let Some(mac) = create.as_asked.get("MacAddress").and_then(Value::as_str).filter(|mac| !mac.is_empty()) {
        match create.network_mode {
            NetworkModeRequest::Default => {
                if endpoints.is_empty() {
                    endpoints.insert("bridge".to_owned(), EndpointRequest::default());
                }
                for endpoint in endpoints.values_mut().take(1) {
                    endpoint.mac.get_or_insert_with(|| mac.to_owned());
                }
            }
            _ => return Err(Refusal::invalid("conflicting options: mac-address and the network mode")),
        }
    }
    create.networks = endpoints;
    Ok(())
}

/// `name[:alias]`.
pub(super) fn links(list: Option<&[String]>) -> Result<Vec<(String, String)>, Refusal> {
    let one = |text: &String| match text.split(':').collect::<Vec<_>>()[..] {
        [name] if !name.is_empty() => Ok((name.to_owned(), name.trim_start_matches('/').to_owned())),
        // As inspect shows it, the alias has the workload's own name before it: `/db:/web/alias`.
        [name, alias] if !name.is_empty() && !alias.is_empty() => {
            Ok((name.to_owned(), alias.rsplit('/').next().unwrap_or(alias).to_owned()))
        }
        _ => Err(Refusal::invalid(format!("bad format for links: {text}"))),
    };
    list.into_iter().flatten().map(one).collect()
}

pub(super) fn extra_hosts(hosts: Vec<String>) -> Result<Vec<(String, String)>, Refusal> {
    hosts
        .into_iter()
        .map(|entry| {
            let malformed = || Refusal::invalid(format!("bad format for add-host: \"{entry}\": expected name:address"));
            let (name, address) = entry.split_once(['=', ':']).ok_or_else(malformed)?;
            let address = address.trim_start_matches('[').trim_end_matches(']');
            if name.is_empty() || address.is_empty() {
                return Err(malformed());
            }
            if address != "host-gateway" && address.parse::<IpAddr>().is_err() {
                return Err(Refusal::invalid(format!("invalid IP address in add-host: \"{address}\"")));
            }
            Ok((name.to_owned(), address.to_owned()))
        })
        .collect()
}

pub(super) fn dns(host: &HostConfig) -> Result<Dns, Refusal> {
    let servers = host.dns.iter().flatten().map(|server| {
        server.parse().map_err(|_| Refusal::invalid(format!("IP address is not correctly formatted: {server}")))
    });
    Ok(Dns {
        servers: servers.collect::<Result<_, _>>()?,
        search: host.dns_search.clone().unwrap_or_default(),
        options: host.dns_options.clone().unwrap_or_default(),
    })
}
