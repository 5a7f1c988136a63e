//! Networks and places on them.

use std::collections::BTreeMap;

use bireme_api::models::{EndpointSettings, Ipam, NetworkCreateRequest};
use bireme_engine::request::{CreateNetwork, EndpointRequest, PoolRequest};
use bireme_engine::view::{Endpoint, Network, NetworkMember};
use serde_json::{Map, Value, json};

use super::{Refusal, time};
use crate::version::ApiVersion;

/// A network to be created.
pub fn create(wire: NetworkCreateRequest) -> Result<CreateNetwork, Refusal> {
    if wire.name.trim().is_empty() {
        return Err(Refusal::invalid("network name cannot be empty"));
    }
    let refuse = |what: &str, instead: &str| Err(Refusal::unsupported(format!("{what} is not offered: {instead}")));
    if wire.ingress == Some(true) {
        return refuse("Ingress", "this engine is not part of a swarm");
    }
    if wire.config_only == Some(true) || wire.config_from.as_ref().is_some_and(|from| from.network.is_some_and_text()) {
        return refuse("ConfigOnly and ConfigFrom", "give the configuration with the network itself");
    }
    if wire.scope.as_deref().is_some_and(|scope| !matches!(scope, "" | "local")) {
        return refuse("Scope other than local", "this engine is not part of a swarm");
    }
    if wire.enable_ipv4 == Some(false) {
        return refuse("EnableIPv4=false", "leave IPv4 on; EnableIPv6 adds IPv6");
    }
    let Ipam { driver, config, options } = wire.ipam.unwrap_or_default();
    if driver.as_deref().is_some_and(|driver| !matches!(driver, "" | "default")) {
        return refuse(&format!("IPAM driver {}", driver.unwrap_or_default()), "leave it out for the built-in one");
    }
    if options.is_some_and(|options| !options.is_empty()) {
        return refuse("IPAM.Options", "leave them out");
    }
    let text = |text: Option<String>| text.filter(|text| !text.is_empty());
    let pools = config.unwrap_or_default().into_iter().map(|pool| PoolRequest {
        subnet: text(pool.subnet),
        ip_range: text(pool.ip_range),
        gateway: text(pool.gateway),
        reserved: pool.auxiliary_addresses.unwrap_or_default().into_iter().collect(),
    });
    Ok(CreateNetwork {
        name: wire.name,
        driver: wire.driver.filter(|driver| driver != "default").unwrap_or_default(),
        internal: wire.internal == Some(true),
        attachable: wire.attachable == Some(true),
        ipv6: wire.enable_ipv6 == Some(true),
        pools: pools.filter(|pool| *pool != PoolRequest::default()).collect(),
        options: wire.options.unwrap_or_default().into_iter().collect(),
        labels: wire.labels.unwrap_or_default().into_iter().collect(),
    })
}

trait IsText {
    fn is_some_and_text(&self) -> bool;
}
impl IsText for Option<String> {
    fn is_some_and_text(&self) -> bool {
        self.as_ref().is_some_and(|text| !text.is_empty())
    }
}

/// How a workload shall stand on a network.
pub fn endpoint(network: &str, wire: EndpointSettings) -> Result<EndpointRequest, Refusal> {
    let refuse = |what: &str, instead: &str| {
        Err(Refusal::unsupported(format!("network {network}: {what} is not offered: {instead}")))
    };
    if wire.gw_priority.is_some_and(|priority| priority != 0) {
        return refuse("GwPriority", "the first network in the order of their names leads out");
    }
    let ipam = wire.ipam_config.unwrap_or_default();
    let address = |text: Option<String>, field: &str| match text.as_deref() {
        None | Some("") => Ok(None),
        Some(text) => match text.parse() {
            Ok(address) => Ok(Some(address)),
            Err(_) => Err(Refusal::invalid(format!(
                "invalid endpoint settings:\ninvalid {field} address: {text:?} of network {network}"
            ))),
        },
    };
    let further = ipam.link_local_ips.unwrap_or_default();
    let further = further.iter().map(|text| address(Some(text.clone()), "link-local IP"));
    let link_local: Vec<Option<std::net::IpAddr>> = further.collect::<Result<_, _>>()?;
    Ok(EndpointRequest {
        link_local: link_local.into_iter().flatten().collect(),
        aliases: wire.aliases.unwrap_or_default().into_iter().filter(|alias| !alias.is_empty()).collect(),
        ipv4: address(ipam.ipv4_address, "IPv4")?,
        ipv6: address(ipam.ipv6_address, "IPv6")?,
        mac: wire.mac_address.filter(|mac| !mac.is_empty()),
        links: wire.links.unwrap_or_default().iter().map(|link| self::link(link)).collect::<Result<_, _>>()?,
        driver_options: wire.driver_opts.unwrap_or_default().into_iter().collect(),
    })
}

/// `name:alias`, or a name that is its own alias.
fn link(text: &str) -> Result<(String, String), Refusal> {
    let (name, alias) = text.split_once(':').unwrap_or((text, text));
    if name.is_empty() || alias.is_empty() || alias.contains(':') {
        return Err(Refusal::invalid(format!("bad format for links: {text}")));
    }
    Ok((alias.trim_start_matches('/').to_owned(), name.trim_start_matches('/').to_owned()))
}

/// The version whose networks may be without IPv4, and whose endpoints have an order.
pub const SINCE_28: ApiVersion = ApiVersion(48);

/// A network as lists and inspections show it; `members` is `None` in lists, where Docker leaves them out.
pub fn show(network: &Network, members: Option<&[NetworkMember]>, version: ApiVersion) -> Value {
    let pools: Vec<Value> = network.pools.iter().map(pool).collect();
    let containers: Map<String, Value> =
        members.unwrap_or_default().iter().map(|member| (member.workload_id.clone(), self::member(member))).collect();
    let mut options = network.options.clone();
    if network.name == "bridge" {
        // What Docker tells of its own, and clients look for.
        for (key, value) in [
            ("com.docker.network.bridge.default_bridge", "true"),
            ("com.docker.network.bridge.enable_icc", "true"),
            ("com.docker.network.bridge.enable_ip_masquerade", "true"),
            ("com.docker.network.bridge.host_binding_ipv4", "0.0.0.0"),
            ("com.docker.network.driver.mtu", "1500"),
        ] {
            options.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        }
    }
    let mut wire = json!({
        "Name": network.name,
        "Id": network.id,
        "Created": time::rfc3339(network.created),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv4": true,
        "EnableIPv6": network.ipv6,
        "IPAM": { "Driver": "default", "Options": null, "Config": (network.driver == "bridge").then_some(pools) },
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": containers,
        "Options": options,
        "Labels": network.labels,
    });
    if version < SINCE_28 {
        wire.as_object_mut().map(|wire| wire.remove("EnableIPv4"));
    }
    wire
}

fn pool(pool: &PoolRequest) -> Value {
    let mut wire = Map::new();
    for (key, value) in [("Subnet", &pool.subnet), ("IPRange", &pool.ip_range), ("Gateway", &pool.gateway)] {
        if let Some(value) = value {
            wire.insert(key.to_owned(), json!(value));
        }
    }
    if !pool.reserved.is_empty() {
        wire.insert("AuxiliaryAddresses".to_owned(), json!(pool.reserved));
    }
    Value::Object(wire)
}

fn member(member: &NetworkMember) -> Value {
    let with_length = |address: Option<(std::net::IpAddr, u8)>| {
        address.map(|(address, length)| format!("{address}/{length}")).unwrap_or_default()
    };
    json!({
        "Name": member.name,
        "EndpointID": member.endpoint.endpoint_id,
        "MacAddress": member.endpoint.mac.clone().unwrap_or_default(),
        "IPv4Address": with_length(member.endpoint.ipv4),
        "IPv6Address": with_length(member.endpoint.ipv6),
    })
}

/// `NetworkSettings.Networks` of a workload.
pub fn endpoints(endpoints: &[Endpoint]) -> BTreeMap<&str, Value> {
    endpoints.iter().map(|endpoint| (endpoint.network_name.as_str(), self::show_endpoint(endpoint))).collect()
}

fn show_endpoint(endpoint: &Endpoint) -> Value {
    let request = &endpoint.request;
    let address = |address: Option<(std::net::IpAddr, u8)>| match address {
        Some((address, length)) => (address.to_string(), length),
        None => (String::new(), 0),
    };
    let gateway = |gateway: Option<std::net::IpAddr>| gateway.map(|gateway| gateway.to_string()).unwrap_or_default();
    let (ipv4, ipv4_length) = address(endpoint.ipv4);
    let (ipv6, ipv6_length) = address(endpoint.ipv6);
    let links = |request: &EndpointRequest| -> Vec<String> {
        request.links.iter().map(|(alias, name)| format!("{name}:{alias}")).collect()
    };
    let mut ipam = Map::new();
    for (key, value) in [("IPv4Address", request.ipv4), ("IPv6Address", request.ipv6)] {
        if let Some(value) = value {
            ipam.insert(key.to_owned(), json!(value.to_string()));
        }
    }
    if !request.link_local.is_empty() {
        ipam.insert("LinkLocalIPs".to_owned(), json!(request.link_local));
    }
    // Of one that does not run, Docker shows what was asked for.
    let mac = endpoint.mac.as_ref().or(request.mac.as_ref());
    json!({
        "IPAMConfig": (!ipam.is_empty()).then_some(ipam),
        "Links": (!request.links.is_empty()).then(|| links(request)),
        "Aliases": (!request.aliases.is_empty()).then_some(&request.aliases),
        "MacAddress": mac.cloned().unwrap_or_default(),
        "DriverOpts": (!request.driver_options.is_empty()).then_some(&request.driver_options),
        "GwPriority": 0,
        "NetworkID": endpoint.network,
        "EndpointID": endpoint.endpoint_id,
        "Gateway": gateway(endpoint.gateway),
        "IPAddress": ipv4,
        "IPPrefixLen": ipv4_length,
        "IPv6Gateway": gateway(endpoint.ipv6_gateway),
        "GlobalIPv6Address": ipv6,
        "GlobalIPv6PrefixLen": ipv6_length,
        "DNSNames": (!endpoint.names.is_empty()).then_some(&endpoint.names),
    })
}

/// An endpoint without an address, as Docker shows it for the networks `host` and `none`.
pub fn nowhere() -> Value {
    show_endpoint(&Endpoint {
        network: String::new(),
        network_name: String::new(),
        endpoint_id: String::new(),
        request: EndpointRequest::default(),
        preferred: Vec::new(),
        ipv4: None,
        gateway: None,
        ipv6: None,
        ipv6_gateway: None,
        mac: None,
        names: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn check(text: &str, expected: Result<(), &str>) {
        let got = create(serde_json::from_str(text).unwrap()).map(|_| ());
        assert_eq!(got.as_ref().copied().map_err(|refusal| refusal.message.as_str()), expected, "{text}");
    }

    #[test]
    fn what_is_not_offered_is_refused_by_name() {
        check(
            r#"{"Name":"n","Driver":"bridge","IPAM":{"Driver":"default","Config":[{}],"Options":{}},"ConfigFrom":{"Network":""}}"#,
            Ok(()),
        );
        check(r#"{"Name":" "}"#, Err("network name cannot be empty"));
        check(r#"{"Name":"n","Ingress":true}"#, Err("Ingress is not offered: this engine is not part of a swarm"));
        check(
            r#"{"Name":"n","IPAM":{"Driver":"dhcp"}}"#,
            Err("IPAM driver dhcp is not offered: leave it out for the built-in one"),
        );
        check(
            r#"{"Name":"n","ConfigOnly":true}"#,
            Err("ConfigOnly and ConfigFrom is not offered: give the configuration with the network itself"),
        );
    }

    #[test]
    fn endpoints_are_read_and_checked() {
        let read = |text: &str| endpoint("n", serde_json::from_str(text).unwrap());
        let good = read(r#"{"Aliases":["a","b"],"IPAMConfig":{"IPv4Address":"10.0.0.5"},"MacAddress":""}"#).unwrap();
        assert_eq!(good.ipv4, Some("10.0.0.5".parse().unwrap()));
        assert_eq!((good.aliases.len(), good.mac), (2, None));
        let further = read(r#"{"IPAMConfig":{"LinkLocalIPs":["169.254.3.4","fe80::7"]}}"#).unwrap();
        assert_eq!(further.link_local, ["169.254.3.4".parse::<IpAddr>().unwrap(), "fe80::7".parse().unwrap()]);
        assert!(
            read(r#"{"IPAMConfig":{"LinkLocalIPs":["x"]}}"#).unwrap_err().message.contains("invalid link-local IP")
        );
        assert!(read(r#"{"IPAMConfig":{"IPv4Address":"ten"}}"#).unwrap_err().message.contains("invalid IPv4 address"));
        assert_eq!(
            read(r#"{"Links":["/a:b","c"]}"#).unwrap().links.into_iter().collect::<Vec<_>>(),
            [("b".to_owned(), "a".to_owned()), ("c".to_owned(), "c".to_owned())]
        );
        assert_eq!(read(r#"{"Links":["a:"]}"#).unwrap_err().message, "bad format for links: a:");
    }
}
