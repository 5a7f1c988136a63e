//! Networks and volumes of a project.

use bollard_stubs::models::{Ipam as WireIpam, IpamConfig, NetworkCreateRequest, VolumeCreateRequest};

use super::fingerprint::fingerprint;
use super::{labels, some_map, some_vec};
use crate::model::{Ipam, Project};

/// What creates the network under `key`; `None` when it is external or the project has none of that key.
pub fn network_request(project: &Project, key: &str) -> Option<NetworkCreateRequest> {
    let network = project.networks.get(key).filter(|network| !network.external)?;
    let mut all = network.labels.clone();
    all.insert(labels::PROJECT.to_owned(), project.name.clone());
    all.insert(labels::NETWORK.to_owned(), key.to_owned());
    all.insert(labels::FINGERPRINT.to_owned(), fingerprint(network));
    all.insert(labels::VERSION.to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    let pools: Vec<IpamConfig> = network
        .ipam
        .config
        .iter()
        .map(|pool| IpamConfig {
            subnet: pool.subnet.clone(),
            ip_range: pool.ip_range.clone(),
            gateway: pool.gateway.clone(),
            auxiliary_addresses: some_map(&pool.aux_addresses),
        })
        .collect();
    let has_ipam = network.ipam != Ipam::default();
    Some(NetworkCreateRequest {
        name: network.name.clone(),
        driver: network.driver.clone().or_else(|| Some("bridge".to_owned())),
        internal: Some(network.internal),
        attachable: Some(network.attachable),
        enable_ipv4: network.enable_ipv4,
        enable_ipv6: network.enable_ipv6,
        options: some_map(&network.driver_opts),
        ipam: has_ipam.then(|| WireIpam {
            driver: network.ipam.driver.clone(),
            config: some_vec(pools),
            options: some_map(&network.ipam.options),
        }),
        labels: Some(all.into_iter().collect()),
        ..NetworkCreateRequest::default()
    })
}

/// What creates the volume under `key`; `None` when it is external or the project has none of that key.
pub fn volume_request(project: &Project, key: &str) -> Option<VolumeCreateRequest> {
    let volume = project.volumes.get(key).filter(|volume| !volume.external)?;
    let mut all = volume.labels.clone();
    all.insert(labels::PROJECT.to_owned(), project.name.clone());
    all.insert(labels::VOLUME.to_owned(), key.to_owned());
    all.insert(labels::FINGERPRINT.to_owned(), fingerprint(volume));
    all.insert(labels::VERSION.to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    Some(VolumeCreateRequest {
        name: Some(volume.name.clone()),
        driver: volume.driver.clone(),
        driver_opts: some_map(&volume.driver_opts),
        labels: Some(all.into_iter().collect()),
        ..VolumeCreateRequest::default()
    })
}
