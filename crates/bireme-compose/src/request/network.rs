//! The networks that a container is on, its links and its ports.

use std::collections::HashMap;

use bollard_stubs::models::{EndpointIpamConfig, EndpointSettings, NetworkingConfig, PortBinding};

use super::{Replica, some_map, some_vec};
use crate::model::{Project, Service, ServiceNetwork};

pub(super) fn networking(
    project: &Project,
    service: &Service,
    replica: &Replica,
    name: &str,
) -> (Option<String>, Option<NetworkingConfig>) {
    if let Some(mode) = &service.network_mode {
        return (Some(namespace(mode, replica)), None);
    }
    let mut by_priority: Vec<(&String, &Option<ServiceNetwork>)> = service.networks.iter().collect();
    by_priority.sort_by_key(|(_, at)| std::cmp::Reverse(at.as_ref().and_then(|at| at.priority).unwrap_or(0)));
    let links = links(project, service, replica);
    let mut endpoints = HashMap::new();
    let mut mode = None;
    for (key, at) in by_priority {
        let Some(network) = project.networks.get(key) else { continue };
        let at = at.clone().unwrap_or_default();
        let mut aliases = vec![name.to_owned()];
        if !replica.one_off {
            aliases.push(service.name.clone());
        }
        aliases.extend(at.aliases.iter().cloned());
        let addressed = at.ipv4_address.is_some() || at.ipv6_address.is_some() || !at.link_local_ips.is_empty();
        let first = mode.is_none();
        endpoints.insert(
            network.name.clone(),
            EndpointSettings {
                aliases: Some(aliases),
                links: some_vec(links.clone()),
                ipam_config: addressed.then(|| EndpointIpamConfig {
                    ipv4_address: at.ipv4_address.clone(),
                    ipv6_address: at.ipv6_address.clone(),
                    link_local_ips: some_vec(at.link_local_ips.clone()),
                }),
                driver_opts: some_map(&at.driver_opts),
                gw_priority: at.gw_priority,
                mac_address: at.mac_address.clone().or_else(|| service.mac_address.clone().filter(|_| first)),
                ..EndpointSettings::default()
            },
        );
        mode.get_or_insert_with(|| network.name.clone());
    }
    let mode = mode.or_else(|| Some("none".to_owned()));
    let config = (!endpoints.is_empty()).then_some(NetworkingConfig { endpoints_config: Some(endpoints) });
    (mode, config)
}

/// `CONTAINER:ALIAS` for everything that the service links to. Source: Compose's `getLinks`.
fn links(project: &Project, service: &Service, replica: &Replica) -> Vec<String> {
    let mut all = Vec::new();
    for link in &service.links {
        let (linked, alias) = link.split_once(':').unwrap_or((link, link));
        for name in replica.names.get(linked).into_iter().flatten() {
            all.push(format!("{name}:{alias}"));
            all.push(format!("{name}:{linked}-{}", replica.number));
            all.push(format!("{name}:{}-{linked}-{}", project.name, replica.number));
        }
    }
    for link in &service.external_links {
        let (name, alias) = link.split_once(':').unwrap_or((link, link));
        all.push(format!("{name}:{alias}"));
    }
    all
}

/// `service:NAME` becomes `container:ID`; everything else is the API's word already.
pub(super) fn namespace(mode: &str, replica: &Replica) -> String {
    match mode.strip_prefix("service:").and_then(|service| replica.containers.get(service)) {
        Some(id) => format!("container:{id}"),
        None => mode.to_owned(),
    }
}

#[allow(clippy::type_complexity, reason = "the wire's own types")]
pub(super) fn ports(service: &Service) -> (Vec<String>, HashMap<String, Option<Vec<PortBinding>>>) {
    let mut exposed: Vec<String> = Vec::new();
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in &service.expose {
        let (range, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        // Decoding has seen to it that these are ports.
        if let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) {
            exposed.extend((first..=last).map(|port| format!("{port}/{protocol}")));
        }
    }
    for port in &service.ports {
        let key = format!("{}/{}", port.target, port.protocol);
        exposed.push(key.clone());
        bindings.entry(key).or_insert_with(|| Some(Vec::new())).get_or_insert_default().push(PortBinding {
            host_ip: Some(port.host_ip.clone().unwrap_or_default()),
            host_port: Some(port.published.clone().unwrap_or_default()),
        });
    }
    exposed.sort();
    exposed.dedup();
    (exposed, bindings)
}
