//! The names that services use and the file must have.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{MountKind, Service};
use crate::read::Result;
use crate::yaml::Map;

/// The names that a service uses and the file must have.
pub(crate) fn check_references(
    services: &BTreeMap<String, Service>,
    nodes: &Map,
    declared: impl Fn(&str, &str) -> bool,
    all_services: &BTreeSet<String>,
) -> Result<()> {
    for (name, service) in services {
        let path = format!("services.{name}");
        let Some(node) = nodes.get(name) else { continue };
        let refuse = |key: &str, section: &str, missing: &str| {
            let at = node.get(key).unwrap_or(node);
            at.invalid(
                format!("{path}.{key}"),
                format!("names {missing:?}, which is not under `{section}`; add it there"),
            )
        };
        for network in service.networks.keys() {
            if network != "default" && !declared("networks", network) {
                return Err(refuse("networks", "networks", network));
            }
        }
        for mount in service.volumes.iter().filter(|mount| mount.kind == MountKind::Volume) {
            if let Some(source) = &mount.source
                && !declared("volumes", source)
            {
                return Err(refuse("volumes", "volumes", source));
            }
        }
        for (key, references) in [("secrets", &service.secrets), ("configs", &service.configs)] {
            for reference in references {
                if !declared(key, &reference.source) {
                    return Err(refuse(key, key, &reference.source));
                }
            }
        }
        for dependency in service.depends_on.keys().map(String::as_str) {
            if !all_services.contains(dependency) {
                let names = |entry: &String| entry.split(':').next() == Some(dependency);
                let key = match () {
                    () if service.links.iter().any(names) => "links",
                    () if service.volumes_from.iter().any(names) => "volumes_from",
                    () => "depends_on",
                };
                return Err(refuse(key, "services", dependency));
            }
            if dependency == name {
                return Err(node.invalid(format!("{path}.depends_on"), "names the service itself; remove it"));
            }
        }
    }
    Ok(())
}
