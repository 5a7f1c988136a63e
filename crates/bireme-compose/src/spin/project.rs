//! An app of Spin as a Compose file.

use std::collections::BTreeMap;
use std::path::Path;

use bireme_core::nearest::nearest;

use super::allow;
use super::manifest::{App, Component, Trigger, list, table, text};
use super::variables::Variables;
use crate::error::ComposeError;
use crate::yaml::{Map, Node, Value};

type Result<T> = std::result::Result<T, ComposeError>;

/// Where an app listens that is told of no other place, as with Spin.
const LISTENS: &str = "127.0.0.1:3000";
/// Says another.
const LISTEN_ADDRESS: &str = "SPIN_HTTP_LISTEN_ADDR";

/// What a component may ask for and is not given.
const NOT_OFFERED: [(&str, &str); 3] = [
    (
        "exclude_files",
        "files are not left out of folders here: put what the component may see into a folder of its own",
    ),
    ("ai_models", "language models are not offered"),
    ("dependencies", "dependencies are not composed here: compose the component before (wac plug), and name that"),
];

/// What else a component's table may have. Building, watching and tools are Spin's.
const KNOWN: [&str; 18] = [
    "id",
    "description",
    "source",
    "files",
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

/// Text that nothing is filled into any more.
fn plain(at: &Node, text: &str) -> Node {
    at.text(text.replace('$', "$$"))
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
        // Templates name what is left out of no files.
        let is_idle = key == "exclude_files" && node.get("files").is_none_or(|files| files.count() <= 1);
        if let Some(asked) = node.get(key).filter(|asked| asked.count() > 1 && !is_idle) {
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
    keys.extend(source(node, folder, &place("source"))?);
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
    let files = list(node.get("files"), &place("files"))?.iter().map(|files| mount(files, folder, &place("files")));
    let files: Vec<Node> = files.collect::<Result<_>>()?;
    let target = |files: &Node| files.get("target").and_then(Node::as_str).map(str::to_owned);
    for (at, one) in files.iter().enumerate() {
        if files[..at].iter().any(|other| target(other) == target(one)) {
            let text = format!(
                "two folders are to be seen at {}: put what the component may see into one folder",
                target(one).unwrap_or_default()
            );
            return Err(node.unsupported(place("files"), text));
        }
    }
    if !files.is_empty() {
        keys.insert("volumes", node.part(Value::List(files)));
    }
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
fn source(node: &Node, folder: &Path, place: &str) -> Result<Vec<(&'static str, Node)>> {
    let source = node.get("source").ok_or_else(|| node.invalid(place, "is missing: it names the .wasm file"))?;
    if let Some(path) = source.as_str() {
        return Ok(vec![("image", plain(source, &folder.join(path).to_string_lossy()))]);
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
    // The digest says what is fetched: the builder keeps it, and fetches nothing twice.
    let dockerfile =
        format!("FROM scratch\nADD --checksum={digest} {url} /component.wasm\nENTRYPOINT [\"/component.wasm\"]\n");
    let build =
        [("context", plain(source, &folder.to_string_lossy())), ("dockerfile_inline", plain(source, &dockerfile))];
    let build = build.map(|(key, value)| (key.to_owned(), value)).into();
    Ok(vec![("build", source.part(Value::Map(build))), ("pull_policy", source.text("build"))])
}

/// A folder that the component sees.
fn mount(files: &Node, folder: &Path, place: &str) -> Result<Node> {
    let (source, target) = match files.as_str() {
        Some(pattern) => {
            let whole = ["/**/*", "/**", "/*"].iter().find_map(|ending| pattern.strip_suffix(ending));
            let source = whole.filter(|source| !source.contains(['*', '?', '['])).ok_or_else(|| {
                files.unsupported(
                    place,
                    format!(
                        "{pattern:?} is not a whole folder, such as \"assets/**/*\" or {{ source = \"assets\", destination = \
                         \"/assets\" }}: put what it needs into a folder"
                    ),
                )
            })?;
            (source.to_owned(), format!("/{}", source.trim_start_matches("./").trim_start_matches('/')))
        }
        None => {
            let part = |key: &str| {
                let node = files.get(key).ok_or_else(|| files.invalid(place, format!("has no {key}")))?;
                text(node, &format!("{place}.{key}"))
            };
            let target = part("destination")?;
            let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
            (part("source")?.to_owned(), target)
        }
    };
    let source = folder.join(source);
    if source.is_file() {
        let text = format!("{} is a file: a component is given folders, so put it into one", source.display());
        return Err(files.unsupported(place, text));
    }
    let source = source.to_string_lossy();
    // A folder that is missing is not made in the user's.
    let bind = Value::Map([("create_host_path".to_owned(), files.part(Value::Bool(false)))].into());
    let keys = [
        ("bind", files.part(bind)),
        ("type", files.text("bind")),
        ("source", plain(files, &source)),
        ("target", plain(files, &target)),
        ("read_only", files.part(Value::Bool(true))),
    ];
    Ok(files.part(Value::Map(keys.map(|(key, value)| (key.to_owned(), value)).into())))
}
