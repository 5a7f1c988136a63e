//! Nodes in their long form → the typed model. Every refusal names the key's path; nothing is skipped.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use bireme_core::{LabelError, Labels};
use serde_json::Value as Json;

use crate::error::ComposeError;
use crate::model::{
    BindOptions, BlkioConfig, Build, Condition, Dependency, Deploy, DeployRestart, Device, DeviceRate, FileObject,
    FileReference, Healthcheck, Ipam, IpamPool, Logging, Mount, MountKind, Network, Port, Resource, Resources, Service,
    ServiceNetwork, TmpfsOptions, Ulimit, Volume, VolumeOptions,
};
use crate::scalar::{parse_bytes, parse_duration, split_command};
use crate::schema::{self, Keys, check_keys};
use crate::yaml::{Map, Node, Value};

type Result<T> = std::result::Result<T, ComposeError>;

/// A mapping being read: the checks of its keys are done.
struct Reader<'a> {
    map: &'a Map,
    path: &'a str,
}

impl<'a> Reader<'a> {
    fn new(node: &'a Node, keys: &Keys, path: &'a str) -> Result<Self> {
        let map = node.as_map().ok_or_else(|| wrong(node, path, "a mapping"))?;
        check_keys(map, keys, path)?;
        Ok(Self { map, path })
    }

    /// The value of `key`, if it is there and not empty.
    fn opt<T>(&self, key: &str, read: impl FnOnce(&Node, &str) -> Result<T>) -> Result<Option<T>> {
        match self.map.get(key) {
            None => Ok(None),
            Some(node) if node.value == Value::Null => Ok(None),
            Some(node) => read(node, &format!("{}.{key}", self.path)).map(Some),
        }
    }

    fn or_default<T: Default>(&self, key: &str, read: impl FnOnce(&Node, &str) -> Result<T>) -> Result<T> {
        self.opt(key, read).map(Option::unwrap_or_default)
    }

    fn extensions(&self) -> BTreeMap<String, Json> {
        extensions(self.map)
    }
}

/// The `x-…` keys of a mapping.
pub(crate) fn extensions(map: &Map) -> BTreeMap<String, Json> {
    map.iter().filter(|(key, _)| key.starts_with("x-")).map(|(key, node)| (key.clone(), json(node))).collect()
}

fn json(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::from(*value),
        Value::Int(value) => Json::from(*value),
        Value::Float(value) => Json::from(*value),
        Value::Text(value) => Json::from(value.as_str()),
        Value::List(items) => Json::Array(items.iter().map(json).collect()),
        Value::Map(map) => Json::Object(map.iter().map(|(key, value)| (key.clone(), json(value))).collect()),
    }
}

fn wrong(node: &Node, path: &str, expected: &str) -> ComposeError {
    node.invalid(path, format!("must be {expected}, but is {}", node.kind()))
}

pub(crate) fn string(node: &Node, path: &str) -> Result<String> {
    node.as_str().map(str::to_owned).ok_or_else(|| wrong(node, path, "a string (put it in quotes)"))
}

/// A string, number or boolean, as text.
fn scalar(node: &Node, path: &str) -> Result<String> {
    node.scalar().ok_or_else(|| wrong(node, path, "a single value"))
}

fn boolean(node: &Node, path: &str) -> Result<bool> {
    match &node.value {
        Value::Bool(value) => Ok(*value),
        Value::Text(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "y" | "yes" | "on" | "1" => Ok(true),
            "false" | "n" | "no" | "off" | "0" => Ok(false),
            _ => Err(node.invalid(path, format!("must be true or false, but is {text:?}"))),
        },
        _ => Err(wrong(node, path, "true or false")),
    }
}

fn integer(node: &Node, path: &str) -> Result<i64> {
    match &node.value {
        Value::Int(value) => Ok(*value),
        Value::Text(text) => {
            text.trim().parse().map_err(|_| node.invalid(path, format!("must be a whole number, but is {text:?}")))
        }
        _ => Err(wrong(node, path, "a whole number")),
    }
}

fn count(node: &Node, path: &str) -> Result<u32> {
    let value = integer(node, path)?;
    u32::try_from(value).map_err(|_| node.invalid(path, format!("must be from 0 to {}, but is {value}", u32::MAX)))
}

fn number(node: &Node, path: &str) -> Result<f64> {
    let value = match &node.value {
        #[expect(clippy::cast_precision_loss, reason = "bounded below to far less than 2^53")]
        Value::Int(value) => *value as f64,
        Value::Float(value) => *value,
        Value::Text(text) => {
            text.trim().parse().map_err(|_| node.invalid(path, format!("must be a number, but is {text:?}")))?
        }
        _ => return Err(wrong(node, path, "a number")),
    };
    if (0.0..=1_000_000.0).contains(&value) {
        Ok(value)
    } else {
        Err(node.invalid(path, format!("must be a number of processors from 0 to 1000000, but is {value}")))
    }
}

fn bytes(node: &Node, path: &str) -> Result<i64> {
    match &node.value {
        Value::Int(value) if *value >= -1 => Ok(*value),
        Value::Int(value) => Err(node.invalid(path, format!("must not be negative, but is {value}"))),
        Value::Text(text) => parse_bytes(text).map_err(|reason| node.invalid(path, reason)),
        _ => Err(wrong(node, path, "a size such as 512m")),
    }
}

fn duration(node: &Node, path: &str) -> Result<Duration> {
    let text = string(node, path)?;
    parse_duration(&text).map_err(|reason| node.invalid(path, reason))
}

fn list<'a>(node: &'a Node, path: &str) -> Result<&'a [Node]> {
    match &node.value {
        Value::List(items) => Ok(items),
        _ => Err(wrong(node, path, "a list")),
    }
}

fn each<T>(node: &Node, path: &str, read: impl Fn(&Node, &str) -> Result<T>) -> Result<Vec<T>> {
    list(node, path)?.iter().enumerate().map(|(index, item)| read(item, &format!("{path}[{index}]"))).collect()
}

fn strings(node: &Node, path: &str) -> Result<Vec<String>> {
    each(node, path, string)
}

fn scalars(node: &Node, path: &str) -> Result<Vec<String>> {
    each(node, path, |node, path| match node.value {
        Value::Bool(_) => Err(wrong(node, path, "a string or number")),
        _ => scalar(node, path),
    })
}

fn members<'a>(node: &'a Node, path: &str) -> Result<&'a Map> {
    node.as_map().ok_or_else(|| wrong(node, path, "a mapping"))
}

fn each_member<T>(node: &Node, path: &str, read: impl Fn(&Node, &str) -> Result<T>) -> Result<BTreeMap<String, T>> {
    members(node, path)?
        .iter()
        .map(|(key, value)| read(value, &format!("{path}.{key}")).map(|value| (key.clone(), value)))
        .collect()
}

/// Values may be absent: then they are empty, as in labels.
fn texts(node: &Node, path: &str) -> Result<BTreeMap<String, String>> {
    each_member(
        node,
        path,
        |value, path| if value.value == Value::Null { Ok(String::new()) } else { scalar(value, path) },
    )
}

fn maybe_texts(node: &Node, path: &str) -> Result<BTreeMap<String, Option<String>>> {
    each_member(
        node,
        path,
        |value, path| if value.value == Value::Null { Ok(None) } else { scalar(value, path).map(Some) },
    )
}

fn one_of(node: &Node, path: &str, words: &[&str]) -> Result<String> {
    let word = string(node, path)?;
    if words.contains(&word.as_str()) {
        return Ok(word);
    }
    let hint = bireme_core::nearest::nearest(&word, words.iter().copied())
        .map(|near| format!("; did you mean {near:?}?"))
        .unwrap_or_default();
    Err(node.invalid(path, format!("must be one of {}, but is {word:?}{hint}", words.join(", "))))
}

fn command(node: &Node, path: &str) -> Result<Vec<String>> {
    match &node.value {
        Value::Text(line) => split_command(line).map_err(|reason| node.invalid(path, reason)),
        _ => strings(node, path),
    }
}

/// What a service's `env_file`s and `label_file`s hold, and the variables its environment may pass on.
pub(crate) struct Surroundings<'a> {
    /// Reads the variables of a file: path, whether it is `format: raw`.
    #[allow(clippy::type_complexity, reason = "used in this one place")]
    pub(crate) read: &'a dyn Fn(&str, bool) -> std::result::Result<Option<BTreeMap<String, String>>, String>,
    pub(crate) lookup: &'a dyn Fn(&str) -> Option<String>,
}

pub(crate) fn service(name: &str, node: &Node, path: &str, around: &Surroundings<'_>) -> Result<Service> {
    let r = Reader::new(node, &schema::SERVICE, path)?;
    let mut service = Service {
        name: name.to_owned(),
        profiles: r.or_default("profiles", strings)?.into_iter().collect(),
        annotations: r.or_default("annotations", texts)?,
        attach: r.opt("attach", boolean)?,
        blkio_config: r.opt("blkio_config", blkio)?,
        build: r.opt("build", |node, path| build(node, path, around.lookup))?,
        cap_add: r.or_default("cap_add", strings)?,
        cap_drop: r.or_default("cap_drop", strings)?,
        cgroup: r.opt("cgroup", |node, path| one_of(node, path, &["host", "private"]))?,
        cgroup_parent: r.opt("cgroup_parent", string)?,
        command: r.opt("command", command)?,
        configs: r.or_default("configs", |node, path| each(node, path, file_reference))?,
        container_name: r.opt("container_name", container_name)?,
        cpu_period: r.opt("cpu_period", integer)?,
        cpu_quota: r.opt("cpu_quota", integer)?,
        cpu_shares: r.opt("cpu_shares", integer)?,
        cpus: r.opt("cpus", number)?,
        cpuset: r.opt("cpuset", string)?,
        depends_on: r.or_default("depends_on", |node, path| each_member(node, path, dependency))?,
        deploy: r.opt("deploy", deploy)?,
        device_cgroup_rules: r.or_default("device_cgroup_rules", strings)?,
        devices: r.or_default("devices", |node, path| each(node, path, device))?,
        dns: r.or_default("dns", strings)?,
        dns_opt: r.or_default("dns_opt", strings)?,
        dns_search: r.or_default("dns_search", strings)?,
        domainname: r.opt("domainname", string)?,
        entrypoint: r.opt("entrypoint", command)?,
        environment: BTreeMap::new(),
        expose: r.or_default("expose", |node, path| each(node, path, exposed))?,
        external_links: r.or_default("external_links", strings)?,
        extra_hosts: r.or_default("extra_hosts", strings)?,
        group_add: r.or_default("group_add", scalars)?,
        healthcheck: r.opt("healthcheck", healthcheck)?,
        hostname: r.opt("hostname", string)?,
        image: r.opt("image", string)?,
        init: r.opt("init", boolean)?,
        ipc: r.opt("ipc", string)?,
        labels: BTreeMap::new(),
        links: r.or_default("links", strings)?,
        logging: r.opt("logging", logging)?,
        mac_address: r.opt("mac_address", string)?,
        mem_limit: r.opt("mem_limit", bytes)?,
        mem_reservation: r.opt("mem_reservation", bytes)?,
        mem_swappiness: r.opt("mem_swappiness", integer)?,
        memswap_limit: r.opt("memswap_limit", bytes)?,
        network_mode: r.opt("network_mode", string)?,
        networks: r.or_default("networks", |node, path| {
            each_member(node, path, |node, path| match node.value {
                Value::Null => Ok(None),
                _ => service_network(node, path).map(Some),
            })
        })?,
        oom_kill_disable: r.or_default("oom_kill_disable", boolean)?,
        oom_score_adj: r.opt("oom_score_adj", |node, path| bounded(node, path, -1000, 1000))?,
        pid: r.opt("pid", string)?,
        pids_limit: r.opt("pids_limit", integer)?,
        platform: r.opt("platform", string)?,
        ports: r.or_default("ports", |node, path| each(node, path, port))?,
        privileged: r.or_default("privileged", boolean)?,
        pull_policy: r.opt("pull_policy", pull_policy)?,
        read_only: r.or_default("read_only", boolean)?,
        restart: r.opt("restart", restart)?,
        runtime: r.opt("runtime", string)?,
        scale: r.opt("scale", count)?,
        secrets: r.or_default("secrets", |node, path| each(node, path, file_reference))?,
        security_opt: r.or_default("security_opt", strings)?,
        shm_size: r.opt("shm_size", bytes)?,
        stdin_open: r.or_default("stdin_open", boolean)?,
        stop_grace_period: r.opt("stop_grace_period", duration)?,
        stop_signal: r.opt("stop_signal", string)?,
        sysctls: r.or_default("sysctls", texts)?,
        tmpfs: r.or_default("tmpfs", strings)?,
        tty: r.or_default("tty", boolean)?,
        ulimits: r.or_default("ulimits", |node, path| each_member(node, path, ulimit))?,
        user: r.opt("user", string)?,
        userns_mode: r.opt("userns_mode", string)?,
        uts: r.opt("uts", string)?,
        volumes: r.or_default("volumes", |node, path| each(node, path, mount))?,
        volumes_from: r.or_default("volumes_from", |node, path| each(node, path, volumes_from))?,
        working_dir: r.opt("working_dir", string)?,
        extensions: r.extensions(),
    };
    service.extra_hosts.sort();
    // Whoever shares the namespaces of another service comes after it and is renewed with it.
    let modes = [&service.network_mode, &service.ipc, &service.pid];
    let shared: Vec<String> =
        modes.into_iter().flatten().filter_map(|mode| mode.strip_prefix("service:")).map(str::to_owned).collect();
    for other in shared {
        service.depends_on.entry(other).or_insert(Dependency {
            condition: Condition::ServiceStarted,
            restart: true,
            required: true,
        });
    }
    // So does whoever links to it; who uses its volumes comes after it.
    let linked = service.links.iter().filter_map(|link| link.split(':').next()).map(|name| (name.to_owned(), true));
    let used = service
        .volumes_from
        .iter()
        .filter(|entry| !entry.starts_with("container:"))
        .filter_map(|entry| entry.split(':').next())
        .map(|name| (name.to_owned(), false));
    let implied: Vec<(String, bool)> = linked.chain(used).collect();
    for (other, restart) in implied {
        service.depends_on.entry(other).or_insert(Dependency {
            condition: Condition::ServiceStarted,
            restart,
            required: true,
        });
    }
    environment(&mut service, &r, around)?;
    service_labels(&mut service, &r, around)?;
    agree(&service, node, path)?;
    Ok(service)
}

fn environment(service: &mut Service, r: &Reader<'_>, around: &Surroundings<'_>) -> Result<()> {
    for (index, node) in
        r.opt("env_file", |node, path| list(node, path).map(<[Node]>::to_vec))?.unwrap_or_default().iter().enumerate()
    {
        let path = format!("{}.env_file[{index}]", r.path);
        let file = Reader::new(node, &schema::ENV_FILE, &path)?;
        let name = file.opt("path", string)?.ok_or_else(|| node.invalid(&path, "has no path; name the file"))?;
        let required = file.opt("required", boolean)?.unwrap_or(true);
        let raw = file.opt("format", |node, path| one_of(node, path, &["raw"]))?.is_some();
        match (around.read)(&name, raw).map_err(|reason| node.invalid(&path, reason))? {
            Some(found) => service.environment.extend(found.into_iter().map(|(key, value)| (key, Some(value)))),
            None if required => {
                return Err(
                    node.invalid(&path, format!("file {name} does not exist; create it or set `required: false`"))
                );
            }
            None => {}
        }
    }
    for (key, value) in r.or_default("environment", maybe_texts)? {
        let value = value.or_else(|| (around.lookup)(&key));
        service.environment.insert(key, value);
    }
    Ok(())
}

fn service_labels(service: &mut Service, r: &Reader<'_>, around: &Surroundings<'_>) -> Result<()> {
    let mut labels = BTreeMap::new();
    if let Some(node) = r.map.get("label_file").filter(|node| node.value != Value::Null) {
        let path = format!("{}.label_file", r.path);
        for file in strings(node, &path)? {
            let found = (around.read)(&file, false).map_err(|reason| node.invalid(&path, reason))?;
            labels.extend(found.ok_or_else(|| node.invalid(&path, format!("file {file} does not exist; create it")))?);
        }
    }
    labels.extend(r.or_default("labels", texts)?);
    if let Err(error) = Labels::parse(&labels) {
        let key = match &error {
            LabelError::Unknown { key, .. } => key.as_str(),
            LabelError::Malformed { key, .. } | LabelError::NotOffered { key, .. } => key,
        };
        let path = format!("{}.labels", r.path);
        let whole = r.map.get("labels").or_else(|| r.map.get("label_file"));
        let at = r.map.get("labels").and_then(|labels| labels.get(key)).or(whole);
        let kind = error.kind();
        let Some(node) = at else { return Err(ComposeError::invalid(path, error.to_string())) };
        return Err(match kind {
            bireme_core::ErrorKind::Unsupported => node.unsupported(path, error.to_string()),
            _ => node.invalid(path, error.to_string()),
        });
    }
    service.labels = labels;
    Ok(())
}

/// What two keys say must not differ.
fn agree(service: &Service, node: &Node, path: &str) -> Result<()> {
    if service.image.is_none() && service.build.is_none() {
        return Err(node.invalid(path, "has neither an image nor a build; give it one of them"));
    }
    if service.network_mode.is_some() && !service.networks.is_empty() {
        return Err(node.invalid(path, "has both network_mode and networks; keep one of them"));
    }
    if let Some(mode) = &service.network_mode
        && (mode.starts_with("service:") || mode.starts_with("container:"))
        && !service.ports.is_empty()
    {
        return Err(node.invalid(
            path,
            format!("shares the network of another ({mode}) and cannot publish ports; publish them there"),
        ));
    }
    let Some(deploy) = &service.deploy else { return Ok(()) };
    let limits = deploy.resources.limits.clone().unwrap_or_default();
    let reservations = deploy.resources.reservations.clone().unwrap_or_default();
    let differ = |one: bool, short: &str, long: &str| match one {
        true => Err(node.invalid(path, format!("{short} and deploy.{long} say different things; keep one of them"))),
        false => Ok(()),
    };
    fn differs<T: PartialEq>(short: Option<T>, long: Option<T>) -> bool {
        short.is_some() && long.is_some() && short != long
    }
    differ(differs(service.scale, deploy.replicas), "scale", "replicas")?;
    differ(differs(service.cpus, limits.cpus), "cpus", "resources.limits.cpus")?;
    differ(differs(service.mem_limit, limits.memory), "mem_limit", "resources.limits.memory")?;
    differ(differs(service.pids_limit, limits.pids), "pids_limit", "resources.limits.pids")?;
    differ(differs(service.mem_reservation, reservations.memory), "mem_reservation", "resources.reservations.memory")
}

fn blkio(node: &Node, path: &str) -> Result<BlkioConfig> {
    let r = Reader::new(node, &schema::BLKIO, path)?;
    let rates = |node: &Node, path: &str| {
        each(node, path, |node, path| {
            let r = Reader::new(node, &schema::BLKIO_LIMIT, path)?;
            let missing = |what: &str| node.invalid(path, format!("has no {what}; write `path` and `rate`"));
            Ok(DeviceRate {
                path: r.opt("path", string)?.ok_or_else(|| missing("path"))?,
                rate: Some(r.opt("rate", bytes)?.ok_or_else(|| missing("rate"))?),
            })
        })
    };
    Ok(BlkioConfig {
        weight: r
            .opt("weight", |node, path| bounded(node, path, 0, 1000))?
            .map(|weight| u16::try_from(weight).unwrap_or_default()),
        device_read_bps: r.or_default("device_read_bps", rates)?,
        device_read_iops: r.or_default("device_read_iops", rates)?,
        device_write_bps: r.or_default("device_write_bps", rates)?,
        device_write_iops: r.or_default("device_write_iops", rates)?,
    })
}

/// `SERVICE[:ro|rw]` or `container:NAME[:ro|rw]`.
fn volumes_from(node: &Node, path: &str) -> Result<String> {
    let text = string(node, path)?;
    let rest = text.strip_prefix("container:").unwrap_or(&text);
    let (name, mode) = rest.split_once(':').unwrap_or((rest, "rw"));
    if !name.is_empty() && matches!(mode, "ro" | "rw") {
        Ok(text)
    } else {
        Err(node.invalid(path, format!("{text:?} is not SERVICE[:ro] or container:NAME[:ro]")))
    }
}

fn bounded(node: &Node, path: &str, least: i64, most: i64) -> Result<i64> {
    let value = integer(node, path)?;
    if (least..=most).contains(&value) {
        Ok(value)
    } else {
        Err(node.invalid(path, format!("must be from {least} to {most}, but is {value}")))
    }
}

fn container_name(node: &Node, path: &str) -> Result<String> {
    let name = string(node, path)?;
    let fits = name.len() > 1
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if fits {
        Ok(name)
    } else {
        Err(node
            .invalid(path, format!("{name:?} is not a container name; use letters, digits, _, . and -, two or more")))
    }
}

fn exposed(node: &Node, path: &str) -> Result<String> {
    let text = scalar(node, path)?;
    let (ports, protocol) = text.split_once('/').unwrap_or((&text, "tcp"));
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let fits = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    if fits(first) && fits(last) && matches!(protocol, "tcp" | "udp" | "sctp") {
        Ok(text)
    } else {
        Err(node.invalid(path, format!("{text:?} is not a port such as 80, 80/udp or 80-82")))
    }
}

fn pull_policy(node: &Node, path: &str) -> Result<String> {
    let word = string(node, path)?;
    if matches!(word.as_str(), "refresh" | "daily" | "weekly") || word.starts_with("every_") {
        return Err(
            node.unsupported(path, format!("{word:?}: refreshing images by age is not offered; use always or missing"))
        );
    }
    one_of(node, path, &["always", "never", "missing", "if_not_present", "build"])
}

fn restart(node: &Node, path: &str) -> Result<String> {
    // A bare `no` is a string to this reader, and so is "no"; `false` is what other readers make of it.
    if node.value == Value::Bool(false) {
        return Ok("no".to_owned());
    }
    let word = string(node, path)?;
    if word.strip_prefix("on-failure:").is_some_and(|count| count.parse::<u32>().is_ok()) {
        return Ok(word);
    }
    one_of(node, path, &["no", "always", "unless-stopped", "on-failure"])
}

fn build(node: &Node, path: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Build> {
    let r = Reader::new(node, &schema::BUILD, path)?;
    let inline = r.opt("dockerfile_inline", string)?;
    let dockerfile = r.opt("dockerfile", string)?;
    if inline.is_some() && dockerfile.is_some() {
        return Err(node.invalid(path, "has both dockerfile and dockerfile_inline; keep one of them"));
    }
    Ok(Build {
        context: r
            .opt("context", string)?
            .ok_or_else(|| node.invalid(path, "has no context; name the folder to build from"))?,
        dockerfile: dockerfile.or_else(|| inline.is_none().then(|| "Dockerfile".to_owned())),
        dockerfile_inline: inline,
        // An argument without a value takes the variable of that name, or is not given at all.
        args: r
            .or_default("args", maybe_texts)?
            .into_iter()
            .filter_map(|(key, value)| value.or_else(|| lookup(&key)).map(|value| (key, value)))
            .collect(),
        cache_from: r.or_default("cache_from", strings)?,
        extra_hosts: r.or_default("extra_hosts", strings)?,
        labels: r.or_default("labels", texts)?,
        network: r.opt("network", string)?,
        no_cache: r.or_default("no_cache", boolean)?,
        platforms: r.or_default("platforms", strings)?,
        pull: r.or_default("pull", boolean)?,
        shm_size: r.opt("shm_size", bytes)?,
        tags: r.or_default("tags", strings)?,
        target: r.opt("target", string)?,
    })
}

fn dependency(node: &Node, path: &str) -> Result<Dependency> {
    let r = Reader::new(node, &schema::DEPENDENCY, path)?;
    let words = ["service_started", "service_healthy", "service_completed_successfully"];
    let condition = r
        .opt("condition", |node, path| one_of(node, path, &words))?
        .ok_or_else(|| node.invalid(path, format!("has no condition; write one of {}", words.join(", "))))?;
    Ok(Dependency {
        condition: match condition.as_str() {
            "service_healthy" => Condition::ServiceHealthy,
            "service_completed_successfully" => Condition::ServiceCompletedSuccessfully,
            _ => Condition::ServiceStarted,
        },
        restart: r.or_default("restart", boolean)?,
        required: r.opt("required", boolean)?.unwrap_or(true),
    })
}

fn healthcheck(node: &Node, path: &str) -> Result<Healthcheck> {
    let r = Reader::new(node, &schema::HEALTHCHECK, path)?;
    let test = r.or_default("test", |node, path| match &node.value {
        Value::Text(line) => Ok(vec!["CMD-SHELL".to_owned(), line.clone()]),
        _ => {
            let words = strings(node, path)?;
            match words.first().map(String::as_str) {
                None | Some("NONE" | "CMD" | "CMD-SHELL") => Ok(words),
                Some(word) => {
                    Err(node.invalid(path, format!("must begin with NONE, CMD or CMD-SHELL, but begins with {word:?}")))
                }
            }
        }
    })?;
    Ok(Healthcheck {
        disable: r.or_default("disable", boolean)?,
        test,
        interval: r.opt("interval", duration)?,
        timeout: r.opt("timeout", duration)?,
        retries: r.opt("retries", count)?,
        start_period: r.opt("start_period", duration)?,
        start_interval: r.opt("start_interval", duration)?,
    })
}

fn deploy(node: &Node, path: &str) -> Result<Deploy> {
    let r = Reader::new(node, &schema::DEPLOY, path)?;
    let mode = r.opt("mode", |node, path| match node.as_str() {
        Some("global" | "replicated-job" | "global-job") => {
            Err(node.unsupported(path, "belongs to Swarm; write `replicated` or leave it out"))
        }
        _ => one_of(node, path, &["replicated"]),
    })?;
    Ok(Deploy {
        mode,
        labels: r.or_default("labels", texts)?,
        replicas: r.opt("replicas", count)?,
        resources: r.or_default("resources", |node, path| {
            let r = Reader::new(node, &schema::RESOURCES, path)?;
            Ok(Resources {
                limits: r.opt("limits", |node, path| resource(node, path, &schema::LIMITS))?,
                reservations: r.opt("reservations", |node, path| resource(node, path, &schema::RESERVATIONS))?,
            })
        })?,
        restart_policy: r.opt("restart_policy", |node, path| {
            let r = Reader::new(node, &schema::RESTART_POLICY, path)?;
            Ok(DeployRestart {
                condition: r.opt("condition", |node, path| one_of(node, path, &["none", "on-failure", "any"]))?,
                max_attempts: r.opt("max_attempts", count)?,
            })
        })?,
    })
}

fn resource(node: &Node, path: &str, keys: &Keys) -> Result<Resource> {
    let r = Reader::new(node, keys, path)?;
    Ok(Resource { cpus: r.opt("cpus", number)?, memory: r.opt("memory", bytes)?, pids: r.opt("pids", integer)? })
}

fn device(node: &Node, path: &str) -> Result<Device> {
    let r = Reader::new(node, &schema::DEVICE, path)?;
    let source =
        r.opt("source", string)?.ok_or_else(|| node.invalid(path, "has no source; name a device such as /dev/fuse"))?;
    if !source.starts_with('/') {
        return Err(
            node.unsupported(path, format!("{source:?} is not the path of a device; CDI names are not offered"))
        );
    }
    Ok(Device {
        target: r.opt("target", string)?.unwrap_or_else(|| source.clone()),
        permissions: r.opt("permissions", string)?.unwrap_or_else(|| "rwm".to_owned()),
        source,
    })
}

fn logging(node: &Node, path: &str) -> Result<Logging> {
    let r = Reader::new(node, &schema::LOGGING, path)?;
    Ok(Logging { driver: r.opt("driver", string)?, options: r.or_default("options", texts)? })
}

fn ulimit(node: &Node, path: &str) -> Result<Ulimit> {
    if node.as_map().is_none() {
        return integer(node, path).map(Ulimit::Single);
    }
    let r = Reader::new(node, &schema::ULIMIT, path)?;
    match (r.opt("soft", integer)?, r.opt("hard", integer)?) {
        (Some(soft), Some(hard)) if soft > hard && hard != -1 => {
            Err(node.invalid(path, format!("has a soft limit ({soft}) above the hard one ({hard}); lower it")))
        }
        (Some(soft), Some(hard)) => Ok(Ulimit::Pair { soft, hard }),
        _ => Err(node.invalid(path, "must have both soft and hard, or be one number")),
    }
}

fn port(node: &Node, path: &str) -> Result<Port> {
    let r = Reader::new(node, &schema::PORT, path)?;
    let target = r
        .opt("target", |node, path| bounded(node, path, 1, 65_535))?
        .ok_or_else(|| node.invalid(path, "has no target; name the container's port"))?;
    let published = r.opt("published", |node, path| {
        let text = scalar(node, path)?;
        let (first, last) = text.split_once('-').unwrap_or((&text, &text));
        match (first.parse::<u16>(), last.parse::<u16>()) {
            (Ok(first), Ok(last)) if first <= last => Ok(text),
            _ => Err(node.invalid(path, format!("{text:?} is not a port or a range such as 8080-8089"))),
        }
    })?;
    let host_ip = r.opt("host_ip", |node, path| {
        let text = string(node, path)?;
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        bare.parse::<std::net::IpAddr>()
            .map(|_| bare.to_owned())
            .map_err(|_| node.invalid(path, format!("{text:?} is not an IP address")))
    })?;
    Ok(Port {
        name: r.opt("name", string)?,
        mode: r
            .opt("mode", |node, path| one_of(node, path, &["ingress", "host"]))?
            .unwrap_or_else(|| "ingress".to_owned()),
        host_ip,
        target: u16::try_from(target).unwrap_or_default(),
        published: published.filter(|text| !text.is_empty()),
        protocol: r
            .opt("protocol", |node, path| one_of(node, path, &["tcp", "udp", "sctp"]))?
            .unwrap_or_else(|| "tcp".to_owned()),
        app_protocol: r.opt("app_protocol", string)?,
    })
}

fn mount(node: &Node, path: &str) -> Result<Mount> {
    let r = Reader::new(node, &schema::MOUNT, path)?;
    let kind = r
        .opt("type", |node, path| match node.as_str() {
            Some(word @ ("npipe" | "cluster" | "image")) => {
                Err(node.unsupported(path, format!("mounts of type {word} are not offered; use bind, volume or tmpfs")))
            }
            _ => one_of(node, path, &["bind", "volume", "tmpfs"]),
        })?
        .ok_or_else(|| node.invalid(path, "has no type; write bind, volume or tmpfs"))?;
    let source = r.opt("source", string)?;
    let target = r.opt("target", string)?.filter(|target| !target.is_empty());
    let target = target.ok_or_else(|| node.invalid(path, "has no target; name the folder in the container"))?;
    if !target.starts_with('/') {
        return Err(node.invalid(path, format!("target {target:?} is not an absolute path; begin it with /")));
    }
    let bind = r.opt("bind", |node, path| {
        let r = Reader::new(node, &schema::BIND, path)?;
        let propagations = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];
        Ok(BindOptions {
            propagation: r.opt("propagation", |node, path| one_of(node, path, &propagations))?,
            create_host_path: r.or_default("create_host_path", boolean)?,
            recursive: r
                .opt("recursive", |node, path| one_of(node, path, &["enabled", "disabled", "writable", "readonly"]))?,
            selinux: r.opt("selinux", |node, path| one_of(node, path, &["z", "Z"]))?,
        })
    })?;
    let volume = r.opt("volume", |node, path| {
        let r = Reader::new(node, &schema::VOLUME_OPTIONS, path)?;
        Ok(VolumeOptions {
            labels: r.or_default("labels", texts)?,
            nocopy: r.or_default("nocopy", boolean)?,
            subpath: r.opt("subpath", string)?,
        })
    })?;
    let tmpfs = r.opt("tmpfs", |node, path| {
        let r = Reader::new(node, &schema::TMPFS, path)?;
        Ok(TmpfsOptions { size: r.opt("size", bytes)?, mode: r.opt("mode", mode)? })
    })?;
    let kind = match kind.as_str() {
        "bind" => MountKind::Bind,
        "tmpfs" => MountKind::Tmpfs,
        _ => MountKind::Volume,
    };
    match (kind, &source) {
        (MountKind::Bind, None) => {
            return Err(node.invalid(path, "is a bind without a source; name the folder of the host"));
        }
        (MountKind::Tmpfs, Some(_)) => return Err(node.invalid(path, "is a tmpfs with a source; remove the source")),
        _ => {}
    }
    Ok(Mount {
        kind,
        source,
        target,
        read_only: r.or_default("read_only", boolean)?,
        consistency: r.opt("consistency", string)?,
        bind,
        volume,
        tmpfs,
    })
}

/// Permission bits: a number that YAML has read (`0440`), or octal digits in a string.
fn mode(node: &Node, path: &str) -> Result<u32> {
    let mode = match &node.value {
        Value::Int(value) => u32::try_from(*value).ok(),
        Value::Text(text) => u32::from_str_radix(text.trim_start_matches("0o"), 8).ok(),
        _ => None,
    };
    mode.filter(|mode| *mode <= 0o7777).ok_or_else(|| node.invalid(path, "must be permission bits such as 0440"))
}

fn service_network(node: &Node, path: &str) -> Result<ServiceNetwork> {
    let r = Reader::new(node, &schema::SERVICE_NETWORK, path)?;
    let address = |node: &Node, path: &str| {
        let text = string(node, path)?;
        text.parse::<std::net::IpAddr>()
            .map(|_| text.clone())
            .map_err(|_| node.invalid(path, format!("{text:?} is not an IP address")))
    };
    Ok(ServiceNetwork {
        aliases: r.or_default("aliases", strings)?,
        driver_opts: r.or_default("driver_opts", texts)?,
        gw_priority: r.opt("gw_priority", integer)?,
        ipv4_address: r.opt("ipv4_address", address)?,
        ipv6_address: r.opt("ipv6_address", address)?,
        link_local_ips: r.or_default("link_local_ips", |node, path| each(node, path, address))?,
        mac_address: r.opt("mac_address", string)?,
        priority: r.opt("priority", integer)?,
    })
}

fn file_reference(node: &Node, path: &str) -> Result<FileReference> {
    let r = Reader::new(node, &schema::FILE_REFERENCE, path)?;
    Ok(FileReference {
        source: r
            .opt("source", string)?
            .ok_or_else(|| node.invalid(path, "has no source; name one of the top level"))?,
        target: r.opt("target", string)?,
        uid: r.opt("uid", scalar)?,
        gid: r.opt("gid", scalar)?,
        mode: r.opt("mode", mode)?,
    })
}

/// `external`, and the name that its old form (`external: {name: …}`) gives.
fn external(r: &Reader<'_>) -> Result<(bool, Option<String>)> {
    match r.map.get("external") {
        Some(node) if node.as_map().is_some() => {
            let path = format!("{}.external", r.path);
            let inner = Reader::new(node, &Keys { what: "external", done: &["name"], refused: &[] }, &path)?;
            Ok((true, inner.opt("name", string)?))
        }
        _ => Ok((r.or_default("external", boolean)?, None)),
    }
}

/// What an external network or volume may not have.
fn only_name(r: &Reader<'_>, node: &Node) -> Result<()> {
    match r.map.iter().find(|(key, value)| {
        !matches!(key.as_str(), "name" | "external")
            && !key.starts_with("x-")
            && value.value != Value::Null
            && value.as_map().is_none_or(|map| !map.is_empty())
    }) {
        None => Ok(()),
        Some((key, _)) => {
            Err(node
                .invalid(r.path, format!("is external and has {key:?}; whoever made it decides that, so remove it")))
        }
    }
}

pub(crate) fn network(key: &str, node: &Node, path: &str, project: &str) -> Result<Network> {
    if node.value == Value::Null {
        return Ok(Network { name: format!("{project}_{key}"), ..Network::default() });
    }
    let r = Reader::new(node, &schema::NETWORK, path)?;
    let (external, old_name) = external(&r)?;
    if external {
        only_name(&r, node)?;
    }
    let name = r.opt("name", string)?.or(old_name);
    Ok(Network {
        name: name.unwrap_or_else(|| if external { key.to_owned() } else { format!("{project}_{key}") }),
        driver: r.opt("driver", string)?,
        driver_opts: r.or_default("driver_opts", texts)?,
        ipam: r.or_default("ipam", ipam)?,
        external,
        internal: r.or_default("internal", boolean)?,
        attachable: r.or_default("attachable", boolean)?,
        labels: r.or_default("labels", texts)?,
        enable_ipv4: r.opt("enable_ipv4", boolean)?,
        enable_ipv6: r.opt("enable_ipv6", boolean)?,
        extensions: r.extensions(),
    })
}

fn ipam(node: &Node, path: &str) -> Result<Ipam> {
    let r = Reader::new(node, &schema::IPAM, path)?;
    Ok(Ipam {
        driver: r.opt("driver", string)?,
        options: r.or_default("options", texts)?,
        config: r.or_default("config", |node, path| {
            each(node, path, |node, path| {
                let r = Reader::new(node, &schema::IPAM_POOL, path)?;
                Ok(IpamPool {
                    subnet: r.opt("subnet", string)?,
                    ip_range: r.opt("ip_range", string)?,
                    gateway: r.opt("gateway", string)?,
                    aux_addresses: r.or_default("aux_addresses", texts)?,
                })
            })
        })?,
    })
}

pub(crate) fn volume(key: &str, node: &Node, path: &str, project: &str) -> Result<Volume> {
    if node.value == Value::Null {
        return Ok(Volume { name: format!("{project}_{key}"), ..Volume::default() });
    }
    let r = Reader::new(node, &schema::VOLUME, path)?;
    let (external, old_name) = external(&r)?;
    if external {
        only_name(&r, node)?;
    }
    let name = r.opt("name", string)?.or(old_name);
    Ok(Volume {
        name: name.unwrap_or_else(|| if external { key.to_owned() } else { format!("{project}_{key}") }),
        driver: r.opt("driver", string)?,
        driver_opts: r.or_default("driver_opts", texts)?,
        external,
        labels: r.or_default("labels", texts)?,
        extensions: r.extensions(),
    })
}

/// A secret (`config` false) or a config.
pub(crate) fn file_object(
    key: &str,
    node: &Node,
    path: &str,
    project: &str,
    config: bool,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<FileObject> {
    let r = Reader::new(node, if config { &schema::CONFIG } else { &schema::SECRET }, path)?;
    let object = FileObject {
        name: r.opt("name", string)?.unwrap_or_else(|| format!("{project}_{key}")),
        file: r.opt("file", string)?.map(PathBuf::from),
        environment: r.opt("environment", string)?,
        content: r.opt("content", string)?,
        labels: r.or_default("labels", texts)?,
        environment_value: None,
        extensions: r.extensions(),
    };
    let sources = [object.file.is_some(), object.environment.is_some(), object.content.is_some()];
    if sources.into_iter().filter(|there| *there).count() != 1 {
        let choice = if config { "file, environment or content" } else { "file or environment" };
        return Err(node.invalid(path, format!("must have exactly one of {choice}")));
    }
    let environment_value = object.environment.as_deref().and_then(lookup);
    Ok(FileObject { environment_value, ..object })
}

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
