//! `Config`: the request and the image merged, from the specification.

use std::collections::BTreeMap;

use bireme_engine::request::HealthCheck;
use bireme_engine::view::{MountPoint, WorkloadView};
use serde_json::{Map, Value, json};

use crate::convert::ports;

/// The environment, with the names alone that were asked for: they take a variable of the image away, and are shown.
fn environment(env: &[String], asked: &Value) -> Vec<String> {
    let asked = asked.as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut names = asked.enumerate().filter(|(_, entry)| !entry.contains('=')).peekable();
    let mut env = env.iter();
    let mut shown = Vec::new();
    loop {
        let name = names.next_if(|(at, _)| *at <= shown.len()).map(|(_, name)| name.to_owned());
        match name.or_else(|| env.next().cloned()).or_else(|| names.next().map(|(_, name)| name.to_owned())) {
            Some(entry) => shown.push(entry),
            None => return shown,
        }
    }
}

/// What it was created with, the image's part included.
pub fn merged_config(container: &WorkloadView) -> Value {
    let config = &container.config;
    let (spec, asked) = (&config.spec, &config.as_asked);
    let flag = |field: &str| asked[field].as_bool().unwrap_or(false);
    let list = |words: &[String]| if words.is_empty() { Value::Null } else { json!(words) };
    let mut wire = json!({
        "Hostname": spec.hostname,
        "Domainname": spec.domainname,
        "User": spec.user,
        "AttachStdin": flag("AttachStdin"),
        "AttachStdout": flag("AttachStdout"),
        "AttachStderr": flag("AttachStderr"),
        "Tty": spec.tty,
        "OpenStdin": spec.open_stdin,
        "StdinOnce": spec.stdin_once,
        "Env": environment(&spec.env, &asked["Env"]),
        "Cmd": list(&config.command),
        "Image": spec.image,
        "Volumes": volumes(&config.mounts, &asked["Volumes"]),
        "WorkingDir": if spec.cwd == "/" { "" } else { spec.cwd.as_str() },
        "Entrypoint": list(&config.entrypoint),
        "OnBuild": null,
        "Labels": spec.labels,
    });
    if !spec.ports.is_empty() {
        wire["ExposedPorts"] = ports::set(&spec.ports);
        // As they were asked for: `80` stays `80`.
        for asked in asked["ExposedPorts"].as_object().into_iter().flat_map(|asked| asked.keys()) {
            if let Some(shown) = wire["ExposedPorts"].as_object_mut().filter(|_| !asked.contains('/')) {
                shown.remove(&format!("{asked}/tcp"));
                shown.insert(asked.clone(), json!({}));
            }
        }
    }
    if let Some(health) = &config.health {
        wire["Healthcheck"] = healthcheck(health);
    }
    if spec.stop_signal != bireme_core::spec::Signal::TERM
        || asked["StopSignal"].as_str().is_some_and(|s| !s.is_empty())
    {
        wire["StopSignal"] = json!(spec.stop_signal.name().unwrap_or_else(|| spec.stop_signal.0.to_string()));
    }
    if let Some(seconds) = asked["StopTimeout"].as_i64() {
        wire["StopTimeout"] = json!(seconds);
    }
    wire
}

fn healthcheck(health: &HealthCheck) -> Value {
    let mut wire = Map::new();
    if !health.test.is_empty() {
        wire.insert("Test".to_owned(), json!(health.test));
    }
    for (key, span) in [
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ] {
        if !span.is_zero() {
            wire.insert(key.to_owned(), json!(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)));
        }
    }
    if health.retries > 0 {
        wire.insert("Retries".to_owned(), json!(health.retries));
    }
    Value::Object(wire)
}

/// Paths that were declared to be volumes, by the image or by the request.
fn volumes(mounts: &[MountPoint], asked: &Value) -> Value {
    let mut paths: BTreeMap<&str, Value> =
        asked.as_object().into_iter().flatten().map(|(path, _)| (path.as_str(), json!({}))).collect();
    paths.extend(mounts.iter().filter(|mount| mount.declared).map(|mount| (mount.target.as_str(), json!({}))));
    if paths.is_empty() { Value::Null } else { json!(paths) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_a_value_are_shown_where_they_were_asked_for() {
        let env = ["A=1", "B=2", "PATH=/bin"].map(str::to_owned);
        assert_eq!(environment(&env, &json!(["A=1", "HOME", "B=2"])), ["A=1", "HOME", "B=2", "PATH=/bin"]);
        assert_eq!(environment(&env, &json!(["X", "Y"])), ["X", "Y", "A=1", "B=2", "PATH=/bin"]);
        assert_eq!(environment(&env, &Value::Null), env);
    }
}
