//! What `bireme config` prints.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::Project;
use crate::model::{MountKind, Service};

/// The order of the top level; everything below is in the order of the alphabet.
const TOP: [&str; 6] = ["name", "services", "networks", "volumes", "secrets", "configs"];

impl Project {
    /// The project as a Compose file, in the form of `docker compose config`: long forms, absolute paths, `$` doubled
    /// so
    /// that it can be loaded again.
    pub fn to_yaml(&self) -> String {
        let mut shown = self.clone();
        for (name, file) in &self.components {
            if let Some(service) = shown.services.get_mut(name) {
                service.image = Some(file.to_string_lossy().into_owned());
            }
        }
        let mut value = shown.to_value();
        omit_absent(&mut value);
        let mut out = String::new();
        if let Value::Object(map) = &value {
            let rest = map.keys().map(String::as_str).filter(|key| !TOP.contains(key)).collect::<BTreeSet<_>>();
            for key in TOP.into_iter().chain(rest) {
                if let Some(value) = map.get(key) {
                    member(&mut out, key, value, 0);
                }
            }
        }
        out
    }

    /// The same as [`Self::to_yaml`], as JSON.
    pub fn to_json(&self) -> String {
        format!("{:#}", self.to_value())
    }

    /// What both print: only what active services use.
    fn to_value(&self) -> Value {
        let used = self.used();
        let mut shown = self.clone();
        shown.networks.retain(|key, _| used.networks.contains(key.as_str()));
        shown.volumes.retain(|key, _| used.volumes.contains(key));
        shown.secrets.retain(|key, _| used.secrets.contains(key.as_str()));
        shown.configs.retain(|key, _| used.configs.contains(key.as_str()));
        let mut value = serde_json::to_value(&shown).unwrap_or_default();
        double_dollars(&mut value);
        value
    }
}

/// Docker's YAML, unlike its JSON, leaves out what is absent.
fn omit_absent(value: &mut Value) {
    for (section, keys) in [("services", &["command", "entrypoint"][..]), ("networks", &["ipam"])] {
        for member in value[section].as_object_mut().into_iter().flat_map(|all| all.values_mut()) {
            let Some(member) = member.as_object_mut() else { continue };
            for key in keys {
                if member.get(*key).is_some_and(|value| value.is_null() || *value == Value::Object(Map::new())) {
                    member.remove(*key);
                }
            }
        }
    }
}

fn double_dollars(value: &mut Value) {
    match value {
        Value::String(text) if text.contains('$') => *text = text.replace('$', "$$"),
        Value::Array(items) => items.iter_mut().for_each(double_dollars),
        Value::Object(map) => map.values_mut().for_each(double_dollars),
        _ => {}
    }
}

fn sorted(map: &Map<String, Value>) -> std::collections::BTreeMap<&String, &Value> {
    map.iter().collect()
}

fn member(out: &mut String, key: &str, value: &Value, depth: usize) {
    out.push_str(&"  ".repeat(depth));
    out.push_str(&text(key));
    out.push(':');
    below(out, value, depth);
}

/// The value after `key:` or `-`.
fn below(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(map) if map.is_empty() => out.push_str(" {}\n"),
        Value::Array(items) if items.is_empty() => out.push_str(" []\n"),
        Value::Object(map) => {
            out.push('\n');
            for (key, value) in sorted(map) {
                member(out, key, value, depth + 1);
            }
        }
        Value::Array(items) => {
            out.push('\n');
            for item in items {
                entry(out, item, depth + 1);
            }
        }
        Value::String(value) if value.contains('\n') && block_fits(value) => {
            out.push_str(if value.ends_with('\n') {
                if value.ends_with("\n\n") { " |+\n" } else { " |\n" }
            } else {
                " |-\n"
            });
            for line in value.strip_suffix('\n').unwrap_or(value).split('\n') {
                if !line.is_empty() {
                    out.push_str(&"  ".repeat(depth + 1));
                    out.push_str(line);
                }
                out.push('\n');
            }
        }
        Value::String(value) => {
            out.push(' ');
            out.push_str(&text(value));
            out.push('\n');
        }
        other => {
            out.push(' ');
            out.push_str(&other.to_string());
            out.push('\n');
        }
    }
}

fn entry(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            // The first key stands beside the dash, the others below it.
            let mut inner = String::new();
            for (key, value) in sorted(map) {
                member(&mut inner, key, value, depth + 1);
            }
            let indent = (depth + 1) * 2;
            out.push_str(&"  ".repeat(depth));
            out.push_str("- ");
            out.push_str(inner.get(indent..).unwrap_or(&inner));
        }
        value => {
            out.push_str(&"  ".repeat(depth));
            out.push('-');
            below(out, value, depth);
        }
    }
}

/// Whether a text of several lines can be a literal block without losing anything.
fn block_fits(text: &str) -> bool {
    !text.starts_with([' ', '\t', '\n'])
        && text.chars().all(|c| {
            c == '\n'
                || c == '\t'
                || (!c.is_control() && c != '\u{feff}' && c != '\u{85}' && c != '\u{2028}' && c != '\u{2029}')
        })
}

/// Plain where nothing else could be meant, else in double quotes (JSON's are YAML's).
fn text(value: &str) -> String {
    let first_fits =
        value.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '_' | '.' | '$' | '<' | '('));
    // `10.0.0.0/8` and `10m`, but no date, no `8080:80` and nothing that is a number.
    let digit_fits = value.starts_with(|c: char| c.is_ascii_digit())
        && value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '/'))
        && crate::yaml::plain_scalar(value) == crate::yaml::Value::Text(value.to_owned());
    // `-c`, but neither a dash alone nor what begins an entry of a list, a document or a number.
    let flag_fits = value.strip_prefix('-').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic()))
        && crate::yaml::plain_scalar(value) == crate::yaml::Value::Text(value.to_owned());
    let plain = (first_fits || digit_fits || flag_fits)
        && value.chars().all(|c| c.is_ascii_alphanumeric() || " /_.-$=:,+@()<>;'\"\\!%^~".contains(c))
        && !value.contains(": ")
        && !value.ends_with([':', ' '])
        && value != "<<"
        && !is_word(value)
        && !(value.starts_with('.') && value[1..].starts_with(|c: char| c.is_ascii_digit()))
        && !matches!(value.to_ascii_lowercase().as_str(), ".inf" | ".nan");
    if plain { value.to_owned() } else { Value::from(value).to_string() }
}

/// Words that some YAML reader takes for something else than a string.
fn is_word(value: &str) -> bool {
    matches!(
        value.to_ascii_lowercase().as_str(),
        "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null" | "~"
    )
}

impl Project {
    /// The networks, volumes, secrets and configs that the active services use.
    fn used(&self) -> Used<'_> {
        let services = || self.services.values();
        let volumes = |service: &'_ Service| -> Vec<String> {
            service
                .volumes
                .iter()
                .filter(|mount| mount.kind == MountKind::Volume)
                .filter_map(|mount| mount.source.clone())
                .collect()
        };
        Used {
            networks: services().flat_map(|service| service.networks.keys().map(String::as_str)).collect(),
            volumes: services().flat_map(volumes).collect(),
            secrets: services().flat_map(|service| service.secrets.iter().map(|one| one.source.as_str())).collect(),
            configs: services().flat_map(|service| service.configs.iter().map(|one| one.source.as_str())).collect(),
        }
    }
}

/// Keys in use, per section.
struct Used<'a> {
    networks: BTreeSet<&'a str>,
    volumes: BTreeSet<String>,
    secrets: BTreeSet<&'a str>,
    configs: BTreeSet<&'a str>,
}
