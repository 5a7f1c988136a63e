//! What is known of Docker's types, since JSON does not tell a struct from a map.

use serde_json::Value;

/// Fields of Docker's types that are maps: a key that is not in them is no mistake. Every other object is a struct,
/// whose fields are known. Source: moby's `api/types`.
pub(super) const MAPS: &[&str] = &[
    "Annotations",
    "Attributes",
    "AuxiliaryAddresses",
    "Containers",
    "Data",
    "DriverOpts",
    "ExposedPorts",
    "GenericResources",
    "IndexConfigs",
    "Labels",
    "LogOpts",
    "Networks",
    "OnBuild",
    "Options",
    "PortBindings",
    "Ports",
    "Runtimes",
    "Status",
    "StorageOpt",
    "Sysctls",
    "Tmpfs",
    "Volumes",
    "networks",
    "stats",
];

/// Fields that are lists: nothing in their place is an empty one.
pub(super) const LISTS: &[&str] = &[
    "Aliases",
    "Binds",
    "CapAdd",
    "CapDrop",
    "Cmd",
    "DNSNames",
    "DeviceCgroupRules",
    "DeviceRequests",
    "Devices",
    "Dns",
    "DnsOptions",
    "DnsSearch",
    "Entrypoint",
    "Env",
    "ExecIDs",
    "ExtraHosts",
    "GroupAdd",
    "Links",
    "MaskedPaths",
    "Mounts",
    "ReadonlyPaths",
    "RepoDigests",
    "RepoTags",
    "SecurityOpt",
    "Shell",
    "Ulimits",
    "VolumesFrom",
];

/// Fields that the engine leaves out when they are empty.
pub(super) const OPTIONAL: &[&str] = &["Health", "Healthcheck", "MacAddress", "Shell", "StopTimeout", "UsageData"];

/// A field of an object. Those of structs may be asked for as Go spells them: `ID` for `Id`.
pub(super) fn take(object: &mut serde_json::Map<String, Value>, field: &str, map: bool) -> Option<Value> {
    if let Some(value) = object.remove(field) {
        return Some(value);
    }
    let same = |key: &&String| key[..1] == field[..1] && key.eq_ignore_ascii_case(field);
    let spelt = object.keys().find(|key| !map && key.is_char_boundary(1) && field.is_char_boundary(1) && same(key));
    let spelt = spelt.cloned()?;
    object.remove(&spelt)
}
