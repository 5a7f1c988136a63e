//! An app of Spin as a Compose file.

use std::collections::BTreeMap;
use std::path::Path;

use bireme_core::nearest::nearest;

use super::allow;
use super::files::{self, Files, Program};
use super::manifest::{App, Component, Trigger, list, plain, table, text};
use super::variables::Variables;
use crate::error::ComposeError;
use crate::yaml::{Map, Node, Value};

type Result<T> = std::result::Result<T, ComposeError>;

/// Where an app listens that is told of no other place, as with Spin.
const LISTENS: &str = "127.0.0.1:3000";
/// Says another.
const LISTEN_ADDRESS: &str = "SPIN_HTTP_LISTEN_ADDR";

/// What a component may ask for and is not given.
const NOT_OFFERED: [(&str, &str); 2] = [
    ("ai_models", "language models are not offered"),
    ("dependencies", "dependencies are not composed here: compose the component before (wac plug), and name that"),
];

/// What else a component's table may have. Building, watching and tools are Spin's.
const KNOWN: [&str; 19] = [
    "id",
    "description",
    "source",
    "files",
    "exclude_files",
    "allowed_outbound_hosts",
    "allowed_http_hosts",
    "key_value_stores",
    "sqlite_databases",
    "environment",
    "variables",
    "config",
    "trigger",
    "build",
    "watch",
    "tool",
    "targets",
    "profile",
    "dependencies_inherit_configuration",
];

/// `folder` is that of the manifest.
///
/// # Errors
/// What is malformed or not offered, and variables that must be set and are not.
pub(super) fn compose(
    tree: &Node,
    app: &App<'_>,
    folder: &Path,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Node> {
    let variables = Variables::of(app, lookup);
    let listens = lookup(LISTEN_ADDRESS).filter(|address| !address.is_empty()).unwrap_or_else(|| LISTENS.to_owned());
    let (host, port) = listens.rsplit_once(':').ok_or_else(|| {
        tree.invalid(LISTEN_ADDRESS, format!("{listens:?} is not an address and a port, such as {LISTENS}"))
    })?;
    let published = format!("{host}:{port}:80");
    let mut services = Map::new();
    for component in &app.components {
        let service = service(app, component, folder, &variables, &published)?;
        services.insert(component.id.clone(), service);
    }
    let entries = [("name", plain(tree, &app.name)), ("services", tree.part(Value::Map(services)))];
    Ok(tree.part(Value::Map(entries.map(|(key, node)| (key.to_owned(), node)).into())))
}

fn texts(at: &Node, pairs: &BTreeMap<String, String>) -> Node {
    at.part(Value::Map(pairs.iter().map(|(key, value)| (key.clone(), plain(at, value))).collect()))
}

fn service(
    app: &App<'_>,
    component: &Component<'_>,
    folder: &Path,
    variables: &Variables<'_>,
    published: &str,
) -> Result<Node> {
    let (node, id) = (component.node, &component.id);
    let place = |key: &str| format!("component.{id}.{key}");
    for (key, why) in NOT_OFFERED {
        if let Some(asked) = node.get(key).filter(|asked| asked.count() > 1) {
            return Err(asked.unsupported(place(key), why));
        }
    }
    for (key, value) in table(Some(node), &format!("component.{id}"))? {
        if !KNOWN.contains(&key.as_str()) && !NOT_OFFERED.iter().any(|(known, _)| known == key) {
            let near = nearest(key, KNOWN).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            return Err(value.invalid(place(key), format!("is no key that a component has{near}")));
        }
    }
    let mut keys: BTreeMap<&str, Node> = BTreeMap::new();
    let (files, excluded) = files::read(node, id, folder)?;
    let source = Source::read(node, &place("source"))?;
    match files {
        Files::Copies(copies) => {
            let program = source.program(folder, &place("source"))?;
            let dockerfile = files::dockerfile(&program, &copies, &excluded, id)?;
            keys.extend(build(source.node, &program.context, &dockerfile));
        }
        Files::Mounts(mounts) => {
            keys.extend(source.keys(folder, &place("source"))?);
            if !mounts.is_empty() {
                keys.insert("volumes", node.part(Value::List(mounts)));
            }
        }
    }
    keys.insert("platform", node.text("wasi/wasm"));
    // `localhost` is this machine, as the app has it with Spin. See decision 21.
    keys.insert("network_mode", node.text("host"));

    let mut labels = BTreeMap::new();
    let allowed = allow::entries(node, id, app.version, variables)?;
    labels.insert("bireme.allow".to_owned(), allowed.join(","));
    let stores = list(node.get("key_value_stores"), &place("key_value_stores"))?.iter();
    let stores: Vec<&str> = stores.map(|store| text(store, &place("key_value_stores"))).collect::<Result<_>>()?;
    labels.insert("bireme.kv".to_owned(), stores.join(","));
    let databases = list(node.get("sqlite_databases"), &place("sqlite_databases"))?.iter();
    let databases: Vec<&str> = databases.map(|name| text(name, &place("sqlite_databases"))).collect::<Result<_>>()?;
    if !databases.is_empty() {
        labels.insert("bireme.sqlite".to_owned(), databases.join(","));
    }
    labels.extend(started(component, variables)?);
    if labels.get("bireme.http.route").is_some_and(|routes| routes != "none") {
        keys.insert("ports", node.part(Value::List(vec![plain(node, published)])));
    }
    keys.insert("labels", texts(node, &labels));

    let mut environment = BTreeMap::new();
    for (name, value) in table(node.get("environment"), &place("environment"))? {
        let text = value.scalar().ok_or_else(|| value.invalid(place("environment"), "must be strings"))?;
        environment.insert(name.clone(), variables.fill(&text, value, &place("environment"))?);
    }
    for key in ["variables", "config"] {
        for (name, value) in table(node.get(key), &place(key))? {
            let text = value.scalar().ok_or_else(|| value.invalid(place(key), "must be strings"))?;
            let filled = variables.fill(&text, value, &place(key))?;
            environment.insert(format!("SPIN_VARIABLE_{}", name.to_ascii_uppercase()), filled);
        }
    }
    keys.insert("environment", texts(node, &environment));
    Ok(node.part(Value::Map(keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())))
}

/// The labels that say what starts it.
fn started(component: &Component<'_>, variables: &Variables<'_>) -> Result<BTreeMap<String, String>> {
    let mut labels: BTreeMap<String, String> = BTreeMap::new();
    let (node, id) = (component.node, &component.id);
    let (mut routes, mut programs) = (Vec::new(), Vec::new());
    for trigger in &component.triggers {
        match trigger {
            Trigger::Http { route, wagi } => {
                routes.push(route.clone());
                programs.push(wagi.clone());
            }
            Trigger::Redis { address, channel } => {
                let filled = |node: &Node, what: &str| {
                    let place = format!("the {what} of {id}");
                    variables.fill(text(node, &place)?, node, &place)
                };
                let (address, channel) = (filled(address, "address")?, filled(channel, "channel")?);
                // Messages know no databases: the channel stands in the place of one.
                let begin = address.find("://").map_or(0, |at| at + 3);
                let server = address[begin..].find('/').map_or(address.as_str(), |end| &address[..begin + end]);
                let subscribed = format!("{server}/{channel}");
                if labels.insert("bireme.redis.subscribe".to_owned(), subscribed).is_some() {
                    return Err(node.unsupported(
                        format!("component.{id}"),
                        "listens on several channels: give each a component of its own",
                    ));
                }
            }
        }
    }
    if !routes.is_empty() && !labels.is_empty() {
        return Err(node.unsupported(
            format!("component.{id}"),
            "answers requests and messages: give each a component of its own",
        ));
    }
    if !routes.is_empty() {
        let public: Vec<String> = routes.into_iter().flatten().collect();
        let served = if public.is_empty() { "none".to_owned() } else { public.join(",") };
        labels.insert("bireme.http.route".to_owned(), served);
    }
    programs.dedup();
    match programs.as_slice() {
        [] | [None] => {}
        [Some(argv)] => drop(labels.insert("bireme.wagi".to_owned(), argv.clone())),
        _ => {
            return Err(node.unsupported(
                format!("component.{id}"),
                "is started in several ways: give each a component of its own",
            ));
        }
    }
    Ok(labels)
}

/// Where the component is.
struct Source<'a> {
    node: &'a Node,
    from: From<'a>,
}

enum From<'a> {
    File(&'a str),
    Fetched { url: &'a str, digest: &'a str },
}

impl<'a> Source<'a> {
    fn read(node: &'a Node, place: &str) -> Result<Self> {
        let source = node.get("source").ok_or_else(|| node.invalid(place, "is missing: it names the .wasm file"))?;
        if let Some(path) = source.as_str() {
            return Ok(Self { node: source, from: From::File(path) });
        }
        let (url, digest) = (source.get("url"), source.get("digest"));
        let (Some(url), Some(digest)) = (url.and_then(Node::as_str), digest.and_then(Node::as_str)) else {
            return Err(source.unsupported(
                place,
                "is neither a file nor {url, digest}: fetch the component first, and name its file here",
            ));
        };
        if [url, digest].iter().any(|text| text.bytes().any(|byte| byte <= b' ' || byte == b'"')) {
            return Err(source.invalid(place, "has a character that addresses and digests do not have"));
        }
        Ok(Self { node: source, from: From::Fetched { url, digest } })
    }

    /// How an image gets it.
    fn program(&self, folder: &Path, place: &str) -> Result<Program> {
        match self.from {
            // The digest says what is fetched: the builder keeps it, and fetches nothing twice.
            From::Fetched { url, digest } => Ok(Program::fetched(format!("ADD --checksum={digest} {url}"), folder)),
            From::File(path) if path.contains(|c: char| c.is_whitespace() || files::SPECIAL.contains(&c)) => {
                let text = format!("{path:?} has a character that a component with single files beside it cannot have");
                Err(self.node.unsupported(place, text))
            }
            From::File(path) => Ok(Program::file(path, folder)),
        }
    }

    /// Keys of the service, for a component without files of its image.
    fn keys(&self, folder: &Path, place: &str) -> Result<Vec<(&'static str, Node)>> {
        if let From::File(path) = self.from {
            return Ok(vec![("image", plain(self.node, &folder.join(path).to_string_lossy()))]);
        }
        let program = self.program(folder, place)?.instruction;
        let dockerfile = format!("FROM scratch\n{program} /component.wasm\nENTRYPOINT [\"/component.wasm\"]\n");
        Ok(build(self.node, folder, &dockerfile))
    }
}

/// Keys of a service whose image is built from a Dockerfile.
fn build(node: &Node, context: &Path, dockerfile: &str) -> Vec<(&'static str, Node)> {
    let context = plain(node, &context.to_string_lossy());
    let keys = [("context", context), ("dockerfile_inline", plain(node, dockerfile))];
    let keys = keys.map(|(key, value)| (key.to_owned(), value)).into();
    vec![("build", node.part(Value::Map(keys))), ("pull_policy", node.text("build"))]
}
