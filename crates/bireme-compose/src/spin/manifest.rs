//! What a manifest says, of either version.

use std::collections::BTreeMap;

use crate::error::ComposeError;
use crate::yaml::{Map, Node, Value};

type Result<T> = std::result::Result<T, ComposeError>;

/// An app.
pub(super) struct App<'a> {
    pub(super) name: String,
    pub(super) variables: BTreeMap<String, Variable<'a>>,
    pub(super) components: Vec<Component<'a>>,
    /// Hosts of version 1 are other words than those of version 2.
    pub(super) version: u8,
}

/// A variable of the app.
pub(super) struct Variable<'a> {
    pub(super) default: Option<String>,
    pub(super) node: &'a Node,
}

/// A component and what starts it.
pub(super) struct Component<'a> {
    pub(super) id: String,
    /// Its table in the manifest.
    pub(super) node: &'a Node,
    pub(super) triggers: Vec<Trigger<'a>>,
}

pub(super) enum Trigger<'a> {
    Http {
        /// As it was written, with the base of version 1 before it; none where it is private.
        route: Option<String>,
        /// The command line of a program that answers as a CGI program.
        wagi: Option<String>,
    },
    Redis {
        address: &'a Node,
        channel: &'a Node,
    },
}

/// The arguments of a CGI program that says none.
const WAGI: &str = "${SCRIPT_NAME} ${ARGS}";

/// # Errors
/// What is malformed or not offered.
pub(super) fn read(tree: &Node) -> Result<App<'_>> {
    let version = ["spin_manifest_version", "spin_version"].iter().find_map(|key| tree.get(key));
    let version = version.ok_or_else(|| {
        tree.invalid("spin_manifest_version", "is missing: a manifest says spin_manifest_version = 2, or \"1\"")
    })?;
    match version.scalar().as_deref() {
        Some("1") => version1(tree),
        Some("2") => version2(tree),
        other => Err(version.unsupported(
            "spin_manifest_version",
            format!("is {}: manifests of versions 1 and 2 are read", other.unwrap_or("no number")),
        )),
    }
}

/// A key that must be there, as text.
fn wanted<'a>(of: &'a Node, key: &str, place: &str) -> Result<&'a str> {
    let node = of.get(key).ok_or_else(|| of.invalid(place, format!("has no {key}")))?;
    text(node, &format!("{place}.{key}"))
}

pub(super) fn text<'a>(node: &'a Node, place: &str) -> Result<&'a str> {
    node.as_str().ok_or_else(|| node.invalid(place, format!("must be a string, but is {}", node.kind())))
}

/// Text that nothing is filled into any more.
pub(super) fn plain(at: &Node, text: &str) -> Node {
    at.text(text.replace('$', "$$"))
}

pub(super) fn list<'a>(node: Option<&'a Node>, place: &str) -> Result<&'a [Node]> {
    match node.map(|node| (&node.value, node)) {
        None => Ok(&[]),
        Some((Value::List(items), _)) => Ok(items),
        Some((_, node)) => Err(node.invalid(place, format!("must be a list, but is {}", node.kind()))),
    }
}

/// A table, empty where it is not there.
pub(super) fn table<'a>(node: Option<&'a Node>, place: &str) -> Result<&'a Map> {
    static NONE: Map = Map::new();
    match node {
        None => Ok(&NONE),
        Some(node) => {
            node.as_map().ok_or_else(|| node.invalid(place, format!("must be a table, but is {}", node.kind())))
        }
    }
}

fn variables(tree: &Node) -> Result<BTreeMap<String, Variable<'_>>> {
    let all = table(tree.get("variables"), "variables")?.iter().map(|(name, node)| {
        let default = match node.get("default") {
            None => None,
            Some(default) => Some(default.scalar().ok_or_else(|| {
                default.invalid(
                    format!("variables.{name}.default"),
                    format!("must be a string, but is {}", default.kind()),
                )
            })?),
        };
        Ok((name.clone(), Variable { default, node }))
    });
    all.collect()
}

fn version1(tree: &Node) -> Result<App<'_>> {
    let name = wanted(tree, "name", "name")?.to_owned();
    let trigger = tree.get("trigger").ok_or_else(|| tree.invalid("trigger", "is missing"))?;
    let kind = wanted(trigger, "type", "trigger")?;
    let base = trigger.get("base").map(|base| text(base, "trigger.base")).transpose()?.unwrap_or("/");
    let mut components = Vec::new();
    for node in list(tree.get("component"), "component")? {
        let id = wanted(node, "id", "component")?.to_owned();
        let own = node.get("trigger").ok_or_else(|| node.invalid(format!("component.{id}.trigger"), "is missing"))?;
        let place = format!("component.{id}.trigger");
        let trigger = match kind {
            "http" => http(own, &place, base)?,
            "redis" => Trigger::Redis {
                address: trigger
                    .get("address")
                    .ok_or_else(|| trigger.invalid("trigger.address", "is missing: it says where Redis is"))?,
                channel: own.get("channel").ok_or_else(|| own.invalid(&place, "has no channel"))?,
            },
            other => return Err(no_trigger(trigger, "trigger.type", other)),
        };
        components.push(Component { id, node, triggers: vec![trigger] });
    }
    Ok(App { name, variables: variables(tree)?, components, version: 1 })
}

fn no_trigger(node: &Node, place: &str, kind: &str) -> ComposeError {
    node.unsupported(place, format!("{kind:?} is no trigger that is offered: http and redis are"))
}

/// What a trigger may say. What is not known may be what keeps strangers out, as middleware is.
const OF_TRIGGERS: [&str; 6] = ["address", "channel", "component", "executor", "id", "route"];

fn version2(tree: &Node) -> Result<App<'_>> {
    let application = tree.get("application").ok_or_else(|| tree.invalid("application", "is missing"))?;
    let name = wanted(application, "name", "application")?.to_owned();
    let tables = table(tree.get("component"), "component")?;
    let mut components: Vec<Component<'_>> = Vec::new();
    for (kind, triggers) in table(tree.get("trigger"), "trigger")? {
        for (number, trigger) in list(Some(triggers), &format!("trigger.{kind}"))?.iter().enumerate() {
            let place = format!("trigger.{kind}[{number}]");
            if !matches!(kind.as_str(), "http" | "redis") {
                return Err(no_trigger(trigger, &place, kind));
            }
            if let Some(answer) = trigger.get("static_response") {
                return Err(answer.unsupported(
                    format!("{place}.static_response"),
                    "is not offered: answer that from a component, or from a container",
                ));
            }
            for (key, value) in table(Some(trigger), &place)? {
                if !OF_TRIGGERS.contains(&key.as_str()) {
                    let text = "is not offered for triggers: leave it out, or do in the component what it asks for";
                    return Err(value.unsupported(format!("{place}.{key}"), text));
                }
            }
            let named = trigger.get("component").ok_or_else(|| trigger.invalid(&place, "has no component"))?;
            let (id, node) = match named.as_str() {
                Some(id) => {
                    let node = tables.get(id).ok_or_else(|| {
                        named.invalid(format!("{place}.component"), format!("{id:?} is no component of this manifest"))
                    })?;
                    (id.to_owned(), node)
                }
                // It is written where it is used.
                None => (
                    trigger.get("id").and_then(Node::as_str).map_or_else(|| format!("{kind}-{number}"), str::to_owned),
                    named,
                ),
            };
            let read = match kind.as_str() {
                "http" => http(trigger, &place, "/")?,
                _ => redis(trigger, &place, application)?,
            };
            match components.iter_mut().find(|known| known.id == id) {
                Some(known) => known.triggers.push(read),
                None => components.push(Component { id, node, triggers: vec![read] }),
            }
        }
    }
    Ok(App { name, variables: variables(tree)?, components, version: 2 })
}

fn redis<'a>(trigger: &'a Node, place: &str, application: &'a Node) -> Result<Trigger<'a>> {
    let shared = ["trigger", "redis", "address"].iter().try_fold(application, |node, key| node.get(key));
    let address = trigger.get("address").or(shared).ok_or_else(|| {
        trigger.invalid(place, "has no address, and application.trigger.redis.address is not there either")
    })?;
    let channel = trigger.get("channel").ok_or_else(|| trigger.invalid(place, "has no channel"))?;
    Ok(Trigger::Redis { address, channel })
}

fn http<'a>(trigger: &'a Node, place: &str, base: &str) -> Result<Trigger<'a>> {
    let route = trigger.get("route").ok_or_else(|| trigger.invalid(place, "has no route"))?;
    let is_private = route.get("private").is_some_and(|private| private.value == Value::Bool(true));
    let route = if is_private {
        None
    } else {
        let path = text(route, &format!("{place}.route"))?;
        let route = format!("{}/{}", base.trim_end_matches('/'), path.trim_start_matches('/'));
        Some(if route == "/" { route } else { route.trim_end_matches('/').to_owned() })
    };
    let wagi = match trigger.get("executor") {
        None => None,
        Some(executor) => match wanted(executor, "type", &format!("{place}.executor"))? {
            "wagi" => {
                if let Some(entry) = executor.get("entrypoint").filter(|entry| entry.as_str() != Some("_start")) {
                    return Err(
                        entry.unsupported(format!("{place}.executor.entrypoint"), "must be _start, or left out")
                    );
                }
                let argv =
                    executor.get("argv").map(|argv| text(argv, &format!("{place}.executor.argv"))).transpose()?;
                Some(argv.unwrap_or(WAGI).to_owned())
            }
            "http" | "spin" | "wasi" | "wasi_http" => None,
            other => {
                return Err(executor.unsupported(
                    format!("{place}.executor"),
                    format!("{other:?} is no executor that is offered: http and wagi are"),
                ));
            }
        },
    };
    Ok(Trigger::Http { route, wagi })
}
