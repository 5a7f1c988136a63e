//! By what a change in the file is noticed: hashes of what was asked for, kept in labels.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::model::{Deploy, Project, Service};

/// The stable fingerprint of what a service asks for, as the label `com.docker.compose.config-hash` has it: equal
/// fingerprints mean that a container need not be made anew. Scale, build, dependencies, pull policy and profiles do
/// not take part, since a change in them changes no container; what is put into the container (inline configs, secrets
/// from variables) does.
pub fn config_hash(project: &Project, service: &Service) -> String {
    let mut lasting = service.clone();
    lasting.build = None;
    lasting.scale = None;
    lasting.depends_on = BTreeMap::new();
    lasting.pull_policy = None;
    lasting.profiles.clear();
    lasting.attach = None;
    lasting.extensions.clear();
    if let Some(deploy) = &mut lasting.deploy {
        deploy.replicas = None;
        deploy.mode = None;
        deploy.labels.clear();
    }
    if lasting.deploy == Some(Deploy::default()) {
        lasting.deploy = None;
    }
    let value = serde_json::to_value(&lasting).unwrap_or_default();
    let mut hash = Sha256::new();
    hash.update(canonical_json(&value));
    let secrets = service.secrets.iter().filter_map(|reference| project.secrets.get(&reference.source));
    let configs = service.configs.iter().filter_map(|reference| project.configs.get(&reference.source));
    for object in secrets.chain(configs) {
        hash.update([0]);
        hash.update(object.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default());
        hash.update(
            object.content.as_ref().or(object.environment_value.as_ref()).map(String::as_str).unwrap_or_default(),
        );
    }
    hex::encode(hash.finalize())
}

/// The same for a network or volume, so that a change in the file is noticed.
pub(super) fn fingerprint(declared: &impl serde::Serialize) -> String {
    let mut value = serde_json::to_value(declared).unwrap_or_default();
    if let Some(map) = value.as_object_mut() {
        map.retain(|key, _| !key.starts_with("x-"));
    }
    hex::encode(Sha256::digest(canonical_json(&value)))
}

/// JSON with sorted keys, whether or not the JSON library keeps an order.
fn canonical_json(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<_, _> = map.iter().collect();
            let members: Vec<String> = sorted
                .into_iter()
                .map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), canonical_json(value)))
                .collect();
            format!("{{{}}}", members.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical_json).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}
