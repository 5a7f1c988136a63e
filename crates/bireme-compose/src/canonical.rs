//! Every short form → its long form, so that merging and decoding know only one; relative paths → absolute.
//!
//! What has an unexpected shape is left as it is: `decode` refuses it, knowing the path of the key.

use std::path::{Component, Path, PathBuf};

use crate::error::ComposeError;
use crate::local;
use crate::yaml::{Map, Node, Value};

/// Most ports that one file may publish: a range of few characters is as many values as it has ports.
const MAX_PORTS: usize = 70_000;

/// `path` below `base`, without `.` and `..`; `~` is the home folder if it is known.
pub(crate) fn absolute(base: &Path, path: &str, home: Option<&str>) -> PathBuf {
    let expanded = match (path.strip_prefix('~'), home) {
        (Some(""), Some(home)) => PathBuf::from(home),
        (Some(rest), Some(home)) if rest.starts_with('/') => PathBuf::from(format!("{home}{rest}")),
        _ => PathBuf::from(path),
    };
    let mut clean = PathBuf::new();
    for part in base.join(expanded).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            part => clean.push(part),
        }
    }
    clean
}

/// Where relative paths begin.
#[derive(Clone, Copy)]
pub(crate) struct Base<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) home: Option<&'a str>,
}

impl Base<'_> {
    fn resolve(&self, path: &str) -> String {
        absolute(self.folder, path, self.home).display().to_string()
    }
}

/// Brings a whole file into its long form.
///
/// # Errors
/// A short form that cannot be read.
pub(crate) fn document(root: &mut Node, base: Base<'_>) -> Result<(), ComposeError> {
    let mut published = 0;
    let Some(top) = root.as_map_mut() else { return Ok(()) };
    if let Some(services) = top.get_mut("services").and_then(Node::as_map_mut) {
        for (name, node) in services {
            service(node, &format!("services.{name}"), base, &mut published)?;
        }
    }
    for (section, keys) in
        [("networks", &["labels"][..]), ("volumes", &["labels"]), ("secrets", &["labels"]), ("configs", &["labels"])]
    {
        for node in top.get_mut(section).and_then(Node::as_map_mut).into_iter().flat_map(|map| map.values_mut()) {
            let Some(map) = node.as_map_mut() else { continue };
            for key in keys {
                each(map, key, |node| pairs(node, '='));
            }
            if matches!(section, "secrets" | "configs")
                && let Some(file) = map.get_mut("file")
                && let Some(path) = file.as_str()
            {
                *file = file.with(Value::Text(base.resolve(path)));
            }
        }
    }
    Ok(())
}

fn each(map: &mut Map, key: &str, change: impl FnOnce(&Node) -> Option<Value>) {
    if let Some(node) = map.get_mut(key)
        && let Some(value) = change(node)
    {
        *node = node.with(value);
    }
}

fn service(node: &mut Node, path: &str, base: Base<'_>, published: &mut usize) -> Result<(), ComposeError> {
    let Some(map) = node.as_map_mut() else { return Ok(()) };
    for key in ["environment", "labels", "annotations", "sysctls"] {
        each(map, key, |node| pairs(node, '='));
    }
    for key in ["dns", "dns_search", "tmpfs", "label_file"] {
        each(map, key, listed);
    }
    each(map, "label_file", |node| paths(node, base));
    each(map, "extra_hosts", hosts);
    each(map, "env_file", |node| env_files(node, base));
    each(map, "networks", |node| keyed(node, |_| Value::Null));
    each(map, "depends_on", |node| {
        keyed(node, |item| {
            Value::Map(Map::from([
                ("condition".to_owned(), item.text("service_started")),
                ("required".to_owned(), item.part(Value::Bool(true))),
            ]))
        })
    });
    each(map, "extends", |node| {
        node.as_str().map(|name| Value::Map(Map::from([("service".to_owned(), node.text(name))])))
    });
    for key in ["secrets", "configs"] {
        let secret = key == "secrets";
        each(map, key, |node| references(node, secret));
    }
    each(map, "devices", devices);
    each(map, "image", |node| {
        let image = node.as_str().filter(|image| local::is_component_file(image) || local::is_manifest_file(image))?;
        Some(Value::Text(base.resolve(image)))
    });
    each(map, "build", |node| {
        node.as_str().map(|context| Value::Map(Map::from([("context".to_owned(), node.text(context))])))
    });
    if let Some(build) = map.get_mut("build").and_then(Node::as_map_mut) {
        each(build, "args", |node| pairs(node, '='));
        each(build, "labels", |node| pairs(node, '='));
        each(build, "extra_hosts", hosts);
        each(build, "context", |node| {
            let context = node.as_str()?;
            let remote = context.contains("://") || context.starts_with("git@") || context.starts_with("github.com/");
            (!remote).then(|| Value::Text(base.resolve(context)))
        });
    }
    if let Some(deploy) = map.get_mut("deploy").and_then(Node::as_map_mut) {
        each(deploy, "labels", |node| pairs(node, '='));
    }
    if let Some(ports) = map.get_mut("ports")
        && let Value::List(items) = &ports.value
    {
        let mut long = Vec::new();
        for (index, item) in items.iter().enumerate() {
            if long.len() + *published > MAX_PORTS {
                return Err(item.invalid(
                    format!("{path}.ports[{index}]"),
                    format!("brings the file above {MAX_PORTS} published ports; publish fewer"),
                ));
            }
            long.extend(port(item, &format!("{path}.ports[{index}]"))?);
        }
        *published += long.len();
        *ports = ports.with(Value::List(long));
    }
    if let Some(volumes) = map.get_mut("volumes")
        && let Value::List(items) = &volumes.value
    {
        let mut long = Vec::new();
        for (index, item) in items.iter().enumerate() {
            long.push(mount(item, &format!("{path}.volumes[{index}]"), base)?);
        }
        *volumes = volumes.with(Value::List(long));
    }
    Ok(())
}

/// `["A=1", "B"]` → `{A: "1", B: null}`.
fn pairs(node: &Node, separator: char) -> Option<Value> {
    let Value::List(items) = &node.value else { return None };
    let mut map = Map::new();
    for item in items {
        let text = item.as_str()?;
        let (key, value) = match text.split_once(separator) {
            Some((key, value)) => (key, item.text(value)),
            None => (text, item.part(Value::Null)),
        };
        map.insert(key.to_owned(), value);
    }
    Some(Value::Map(map))
}

fn listed(node: &Node) -> Option<Value> {
    node.as_str().map(|text| Value::List(vec![node.text(text)]))
}

fn paths(node: &Node, base: Base<'_>) -> Option<Value> {
    let Value::List(items) = &node.value else { return None };
    items
        .iter()
        .map(|item| item.as_str().map(|path| item.text(base.resolve(path))))
        .collect::<Option<_>>()
        .map(Value::List)
}

/// `["a", "b"]` → `{a: …, b: …}`.
fn keyed(node: &Node, value: impl Fn(&Node) -> Value) -> Option<Value> {
    let Value::List(items) = &node.value else { return None };
    let mut map = Map::new();
    for item in items {
        map.insert(item.as_str()?.to_owned(), item.part(value(item)));
    }
    Some(Value::Map(map))
}

/// Both forms of `extra_hosts` → `["name=address"]`.
fn hosts(node: &Node) -> Option<Value> {
    let mut list = Vec::new();
    match &node.value {
        Value::List(items) => {
            for item in items {
                let text = item.as_str()?;
                // `name=address` first: an IPv6 address has colons of its own.
                let (name, address) = text.split_once('=').or_else(|| text.split_once(':'))?;
                list.push((name.trim().to_owned(), address.trim().to_owned(), item));
            }
        }
        Value::Map(map) => {
            for (name, value) in map {
                match &value.value {
                    Value::List(items) => {
                        for item in items {
                            list.push((name.clone(), item.as_str()?.to_owned(), item));
                        }
                    }
                    _ => list.push((name.clone(), value.as_str()?.to_owned(), value)),
                }
            }
        }
        _ => return None,
    }
    let bare = |address: &str| address.trim_start_matches('[').trim_end_matches(']').to_owned();
    Some(Value::List(
        list.into_iter().map(|(name, address, item)| item.text(format!("{name}={}", bare(&address)))).collect(),
    ))
}

fn env_files(node: &Node, base: Base<'_>) -> Option<Value> {
    let long = |item: &Node| -> Option<Node> {
        let mut map = match &item.value {
            Value::Text(path) => Map::from([("path".to_owned(), item.text(path.clone()))]),
            Value::Map(map) => map.clone(),
            _ => return None,
        };
        each(&mut map, "path", |node| node.as_str().map(|path| Value::Text(base.resolve(path))));
        map.entry("required".to_owned()).or_insert_with(|| item.part(Value::Bool(true)));
        Some(item.with(Value::Map(map)))
    };
    match &node.value {
        Value::Text(_) => Some(Value::List(vec![long(&node.part(node.value.clone()))?])),
        Value::List(items) => items.iter().map(long).collect::<Option<_>>().map(Value::List),
        _ => None,
    }
}

fn references(node: &Node, secret: bool) -> Option<Value> {
    let Value::List(items) = &node.value else { return None };
    let long = items.iter().map(|item| match &item.value {
        Value::Text(name) => {
            let mut map = Map::from([("source".to_owned(), item.text(name.clone()))]);
            if secret {
                map.insert("target".to_owned(), item.text(format!("/run/secrets/{name}")));
            }
            item.with(Value::Map(map))
        }
        _ => item.clone(),
    });
    Some(Value::List(long.collect()))
}

fn devices(node: &Node) -> Option<Value> {
    let Value::List(items) = &node.value else { return None };
    let long = items.iter().map(|item| {
        let Some(text) = item.as_str() else { return item.clone() };
        let mut parts = text.splitn(3, ':');
        let source = parts.next().unwrap_or_default();
        let target = parts.next().unwrap_or(source);
        let permissions = parts.next().unwrap_or("rwm");
        item.with(Value::Map(Map::from([
            ("source".to_owned(), item.text(source)),
            ("target".to_owned(), item.text(target)),
            ("permissions".to_owned(), item.text(permissions)),
        ])))
    });
    Some(Value::List(long.collect()))
}

/// One number or an inclusive range.
fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
    (first > 0 && first <= last).then_some((first, last))
}

/// `[[IP:]HOST:]CONTAINER[/PROTOCOL]`, with ranges → one long form per port.
fn port(item: &Node, path: &str) -> Result<Vec<Node>, ComposeError> {
    let text = match &item.value {
        Value::Text(text) => text.clone(),
        Value::Int(number) => number.to_string(),
        _ => return Ok(vec![item.clone()]),
    };
    let refuse = |why: &str| {
        item.invalid(path, format!("{text:?} {why}; write [[IP:]HOST:]CONTAINER[/PROTOCOL], such as \"8080:80\""))
    };
    let (ports, protocol) = text.split_once('/').unwrap_or((&text, "tcp"));
    if !matches!(protocol, "tcp" | "udp" | "sctp") {
        return Err(refuse("has a protocol that is none of tcp, udp, sctp"));
    }
    let (host, container) = match ports.rsplit_once(':') {
        Some((host, container)) => (Some(host), container),
        None => (None, ports),
    };
    let (address, published) = match host {
        None => (None, ""),
        Some(host) => match host.rsplit_once(':') {
            Some((address, published)) => (Some(address.trim_start_matches('[').trim_end_matches(']')), published),
            None => (None, host),
        },
    };
    if let Some(address) = address
        && address.parse::<std::net::IpAddr>().is_err()
    {
        return Err(refuse("has a host address that is not an IP address"));
    }
    let (first, last) = range(container).ok_or_else(|| refuse("has a container port that is not from 1 to 65535"))?;
    let count = last - first + 1;
    let published: Vec<Option<String>> = if published.is_empty() {
        vec![None; usize::from(count)]
    } else {
        // 0 asks for any free port, as an absent one does.
        let (low, high) = if published == "0" {
            (0, 0)
        } else {
            range(published).ok_or_else(|| refuse("has a host port that is not from 1 to 65535"))?
        };
        if count == 1 {
            vec![Some(published.to_owned())]
        } else if high - low + 1 == count {
            (low..=high).map(|port| Some(port.to_string())).collect()
        } else {
            return Err(refuse("has ranges of different lengths"));
        }
    };
    Ok((first..=last)
        .zip(published)
        .map(|(target, published)| {
            let mut map = Map::from([
                ("mode".to_owned(), item.text("ingress")),
                ("target".to_owned(), item.part(Value::Int(i64::from(target)))),
                ("protocol".to_owned(), item.text(protocol)),
            ]);
            if let Some(published) = published {
                map.insert("published".to_owned(), item.text(published));
            }
            if let Some(address) = address {
                map.insert("host_ip".to_owned(), item.text(address));
            }
            item.with(Value::Map(map))
        })
        .collect())
}

fn is_path(source: &str) -> bool {
    source.starts_with(['/', '.', '~'])
}

/// `[SOURCE:]TARGET[:OPTIONS]` → the long form; sources of binds become absolute.
fn mount(item: &Node, path: &str, base: Base<'_>) -> Result<Node, ComposeError> {
    let text = match &item.value {
        Value::Text(text) => text,
        Value::Map(map) => {
            let mut map = map.clone();
            let bind = map.get("type").and_then(Node::as_str) == Some("bind");
            if bind {
                each(&mut map, "source", |node| node.as_str().map(|source| Value::Text(base.resolve(source))));
            }
            return Ok(item.with(Value::Map(map)));
        }
        _ => return Ok(item.clone()),
    };
    let refuse = |why: &str| {
        item.invalid(path, format!("{text:?} {why}; write [SOURCE:]TARGET[:ro|rw], such as \"data:/var/lib/data\""))
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => (None, target, ""),
        [source, target] => (Some(source), target, ""),
        [source, target, options] => (Some(source), target, options),
        _ => return Err(refuse("has more than three parts")),
    };
    if target.is_empty() || source == Some("") {
        return Err(refuse("has an empty part"));
    }
    let mut map = Map::from([("target".to_owned(), item.text(target))]);
    let mut options_of_kind = Map::new();
    let bind = source.is_some_and(is_path);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => {
                map.insert("read_only".to_owned(), item.part(Value::Bool(true)));
            }
            "rw" => {}
            "nocopy" if !bind => {
                options_of_kind.insert("nocopy".to_owned(), item.part(Value::Bool(true)));
            }
            "z" | "Z" if bind => {
                options_of_kind.insert("selinux".to_owned(), item.text(option));
            }
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" if bind => {
                options_of_kind.insert("propagation".to_owned(), item.text(option));
            }
            "consistent" | "cached" | "delegated" => {
                map.insert("consistency".to_owned(), item.text(option));
            }
            _ => {
                return Err(refuse(&format!(
                    "has the option {option:?}, which is none of ro, rw, nocopy, z, Z or a propagation"
                )));
            }
        }
    }
    let kind = if bind { "bind" } else { "volume" };
    if bind {
        options_of_kind.insert("create_host_path".to_owned(), item.part(Value::Bool(true)));
    }
    if let Some(source) = source {
        map.insert("source".to_owned(), item.text(if bind { base.resolve(source) } else { source.to_owned() }));
    }
    map.insert("type".to_owned(), item.text(kind));
    map.insert(kind.to_owned(), item.part(Value::Map(options_of_kind)));
    Ok(item.with(Value::Map(map)))
}
