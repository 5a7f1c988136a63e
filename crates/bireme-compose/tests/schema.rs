//! Every key of the specification's schema is done or refused by name, and we know none that it does not have.

#![allow(clippy::unwrap_used, reason = "an unwrap that fails fails the test")]

use std::collections::BTreeSet;

use bireme_compose::schema::{self, Keys};
use serde_json::Value;

/// The keys of the first mapping at or below `value` that lists its properties.
fn properties(value: &Value) -> Option<BTreeSet<&str>> {
    if let Some(found) = value["properties"].as_object() {
        return Some(found.keys().map(String::as_str).collect());
    }
    let below = [&value["oneOf"], &value["anyOf"]].into_iter().filter_map(Value::as_array).flatten();
    let patterns = value["patternProperties"].as_object().into_iter().flat_map(|patterns| patterns.values());
    below.chain(value.get("items")).chain(patterns).find_map(properties)
}

#[test]
fn every_key_of_the_schema_is_done_or_refused() {
    let text = include_str!("data/compose-spec.json");
    let spec: Value = serde_json::from_str(text).unwrap();
    let service = "/definitions/service/properties";
    let deploy = "/definitions/deployment/properties";
    let tables: [(String, &Keys); 31] = [
        (String::new(), &schema::TOP),
        ("/definitions/include".into(), &schema::INCLUDE),
        ("/definitions/service".into(), &schema::SERVICE),
        (format!("{service}/blkio_config"), &schema::BLKIO),
        ("/definitions/blkio_limit".into(), &schema::BLKIO_LIMIT),
        (format!("{service}/extends"), &schema::EXTENDS),
        (format!("{service}/build"), &schema::BUILD),
        (format!("{service}/depends_on"), &schema::DEPENDENCY),
        ("/definitions/healthcheck".into(), &schema::HEALTHCHECK),
        ("/definitions/deployment".into(), &schema::DEPLOY),
        (format!("{deploy}/resources"), &schema::RESOURCES),
        (format!("{deploy}/resources/properties/limits"), &schema::LIMITS),
        (format!("{deploy}/resources/properties/reservations"), &schema::RESERVATIONS),
        (format!("{deploy}/restart_policy"), &schema::RESTART_POLICY),
        (format!("{service}/ports"), &schema::PORT),
        (format!("{service}/volumes"), &schema::MOUNT),
        (format!("{service}/volumes/items/oneOf/1/properties/bind"), &schema::BIND),
        (format!("{service}/volumes/items/oneOf/1/properties/volume"), &schema::VOLUME_OPTIONS),
        (format!("{service}/volumes/items/oneOf/1/properties/tmpfs"), &schema::TMPFS),
        (format!("{service}/networks"), &schema::SERVICE_NETWORK),
        ("/definitions/service_config_or_secret".into(), &schema::FILE_REFERENCE),
        ("/definitions/env_file".into(), &schema::ENV_FILE),
        (format!("{service}/devices"), &schema::DEVICE),
        (format!("{service}/logging"), &schema::LOGGING),
        ("/definitions/ulimits".into(), &schema::ULIMIT),
        ("/definitions/network".into(), &schema::NETWORK),
        ("/definitions/network/properties/ipam".into(), &schema::IPAM),
        ("/definitions/network/properties/ipam/properties/config".into(), &schema::IPAM_POOL),
        ("/definitions/volume".into(), &schema::VOLUME),
        ("/definitions/secret".into(), &schema::SECRET),
        ("/definitions/config".into(), &schema::CONFIG),
    ];
    for (pointer, keys) in tables {
        let at = spec.pointer(&pointer).unwrap_or_else(|| panic!("the schema has no {pointer}"));
        let theirs = properties(at).unwrap_or_else(|| panic!("{pointer} lists no properties"));
        let ours: BTreeSet<&str> = keys.done.iter().copied().chain(keys.refused.iter().map(|(key, _)| *key)).collect();
        assert_eq!(ours.len(), keys.done.len() + keys.refused.len(), "{pointer}: a key is in both columns");
        assert_eq!(ours, theirs, "{pointer}");
    }
}
