//! `Mounts`: what is mounted, as lists and inspections show it.

use std::collections::{HashMap, HashSet};

use bireme_engine::view::{MountKind, MountPoint, WorkloadView};
use serde_json::{Map, Value, json};

use crate::convert::mounts::clean_target;

/// `Mounts`, as lists and inspections show them. What was asked for by `--tmpfs` stands in the host configuration alone.
pub fn mounts(container: &WorkloadView) -> Value {
    let by_option = &container.config.as_asked["HostConfig"]["Tmpfs"];
    let by_option = by_option.as_object().into_iter().flat_map(Map::keys);
    let by_option: HashSet<String> = by_option.filter_map(|target| clean_target(target).ok()).collect();
    let shown = container
        .config
        .mounts
        .iter()
        .filter(|mount| mount.kind != MountKind::Tmpfs || !by_option.contains(&mount.target));
    let asked = container.config.as_asked["HostConfig"]["Binds"].as_array();
    let modes: HashMap<String, &str> = asked
        .into_iter()
        .flatten()
        .filter_map(|bind| {
            let (_, rest) = bind.as_str()?.split_once(':')?;
            let (target, mode) = rest.split_once(':')?;
            Some((clean_target(target).ok()?, mode))
        })
        .collect();
    shown.map(|point| mount(point, modes.get(&point.target).copied())).collect()
}

/// `mode` is what stood behind the last colon of `-v`.
fn mount(mount: &MountPoint, mode: Option<&str>) -> Value {
    let mut wire = Map::new();
    let mut put = |key: &str, value: Value| wire.insert(key.to_owned(), value);
    put(
        "Type",
        json!(match mount.kind {
            MountKind::Bind => "bind",
            MountKind::Volume => "volume",
            MountKind::Tmpfs => "tmpfs",
        }),
    );
    if mount.kind == MountKind::Volume {
        put("Name", json!(mount.name));
        put("Driver", json!("local"));
    }
    put("Source", json!(mount.source));
    put("Destination", json!(mount.target));
    put(
        "Mode",
        json!(mode.unwrap_or(match mount.kind {
            // One of the image's, by `Volumes` or of another workload, is as it comes.
            MountKind::Volume if !(mount.inherited || mount.anonymous && mount.declared) => "z",
            _ => "",
        })),
    );
    put("RW", json!(!mount.read_only));
    put("Propagation", json!(mount.propagation));
    Value::Object(wire)
}
