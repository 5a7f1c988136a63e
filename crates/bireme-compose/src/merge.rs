//! An override file over what is there, and `!reset` and `!override`.
//!
//! Both sides are in their long form. Mappings merge by key, lists are appended, everything else is replaced; what the
//! specification says otherwise stands in the two functions at the end.

use std::collections::BTreeMap;

use crate::yaml::{Map, Mark, Node, Value};

/// `over` on top of `base`, both at `path` (keys from the root, names of services and the like as `*`).
pub(crate) fn merge(base: &mut Node, over: Node, path: &[&str]) {
    if over.mark == Mark::Override || replaced(path) {
        if !matches!(over.value, Value::Null) || over.mark == Mark::Override {
            *base = clean(over);
        }
        return;
    }
    match (&mut base.value, over.value) {
        // A key without a value changes nothing.
        (_, Value::Null) => {}
        (Value::Map(base), Value::Map(over)) => merge_maps(base, over, path),
        (Value::List(items), Value::List(more)) => {
            for item in more {
                if item.mark == Mark::Reset {
                    continue;
                }
                let item = clean(item);
                let same = identity(path, &item)
                    .and_then(|id| items.iter().position(|other| identity(path, other).as_ref() == Some(&id)));
                match same {
                    Some(at) => merge_item(&mut items[at], item, path),
                    None => items.push(item),
                }
            }
        }
        (into, value) => {
            *into = value;
            base.line = over.line;
            base.file = over.file;
        }
    }
}

fn merge_maps(base: &mut Map, over: Map, path: &[&str]) {
    // Options of one log driver mean nothing to another.
    if path == ["services", "*", "logging"]
        && let (Some(old), Some(new)) = (base.get("driver"), over.get("driver"))
        && old != new
    {
        base.remove("options");
    }
    for (key, value) in over {
        if value.mark == Mark::Reset {
            base.remove(&key);
            continue;
        }
        let mut below: Vec<&str> = path.to_vec();
        let named = matches!(path, ["services" | "networks" | "volumes" | "secrets" | "configs"])
            || path == ["services", "*", "networks"]
            || path == ["services", "*", "ulimits"];
        below.push(if named { "*" } else { &key });
        match base.get_mut(&key) {
            Some(there) => merge(there, value, &below),
            None => {
                base.insert(key.clone(), clean(value));
            }
        }
    }
}

/// Two entries of a list with the same identity.
fn merge_item(base: &mut Node, over: Node, path: &[&str]) {
    match (&mut base.value, over.value) {
        (Value::Map(into), Value::Map(from)) if path.last() == Some(&"config") => {
            merge_maps(into, from, &[path, &["*"]].concat());
        }
        (into, value) => *into = value,
    }
}

/// `node` without marks: what is marked `!reset` inside it is gone.
pub(crate) fn clean(mut node: Node) -> Node {
    node.mark = Mark::Merge;
    node.value = match node.value {
        Value::Map(map) => Value::Map(
            map.into_iter()
                .filter(|(_, value)| value.mark != Mark::Reset)
                .map(|(key, value)| (key, clean(value)))
                .collect(),
        ),
        Value::List(items) => {
            Value::List(items.into_iter().filter(|item| item.mark != Mark::Reset).map(clean).collect())
        }
        other => other,
    };
    node
}

/// Takes repeated entries out of lists whose entries have an identity; the later one stays, in the earlier's place.
pub(crate) fn unique(node: &mut Node, path: &[&str]) {
    match &mut node.value {
        Value::Map(map) => {
            let named = matches!(path, ["services" | "networks" | "volumes" | "secrets" | "configs"])
                || path == ["services", "*", "networks"];
            for (key, value) in map {
                let mut below: Vec<&str> = path.to_vec();
                below.push(if named { "*" } else { key });
                unique(value, &below);
            }
        }
        Value::List(items) => {
            let mut seen: BTreeMap<String, usize> = BTreeMap::new();
            let mut kept: Vec<Node> = Vec::with_capacity(items.len());
            for item in std::mem::take(items) {
                match identity(path, &item) {
                    Some(id) => match seen.get(&id) {
                        Some(at) => kept[*at] = item,
                        None => {
                            seen.insert(id, kept.len());
                            kept.push(item);
                        }
                    },
                    None => kept.push(item),
                }
            }
            *items = kept;
        }
        _ => {}
    }
}

/// Values that an override replaces as a whole.
fn replaced(path: &[&str]) -> bool {
    matches!(
        path,
        ["services", "*", "command" | "entrypoint"]
            | ["services", "*", "healthcheck", "test"]
            | ["services", "*", "ulimits", "*"]
    )
}

/// What makes two entries of a list the same one; `None`: every entry stays.
fn identity(path: &[&str], item: &Node) -> Option<String> {
    let part = |key: &str| item.get(key).and_then(Node::scalar);
    match path {
        ["services", "*", "ports"] => Some(format!(
            "{}:{}:{}/{}",
            part("host_ip").unwrap_or_default(),
            part("published").unwrap_or_default(),
            part("target")?,
            part("protocol").unwrap_or_else(|| "tcp".to_owned())
        )),
        ["services", "*", "volumes" | "devices"] => part("target").or_else(|| part("source")),
        ["services", "*", "secrets" | "configs"] => {
            part("target").or_else(|| part("source").map(|source| format!("/{source}")))
        }
        ["services", "*", "env_file"] => part("path"),
        ["networks", "*", "ipam", "config"] => part("subnet"),
        [
            "services",
            "*",
            "cap_add" | "cap_drop" | "dns" | "dns_opt" | "dns_search" | "expose" | "extra_hosts" | "label_file"
            | "links" | "profiles" | "tmpfs",
        ]
        | ["services", "*", "build", "tags" | "platforms" | "extra_hosts"]
        | ["services", "*", "networks", "*", "aliases" | "link_local_ips"] => item.scalar(),
        _ => None,
    }
}
