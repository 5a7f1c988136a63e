//! What the component in an image offers and asks for, beside what `docker inspect` tells of an image.

use std::collections::BTreeMap;

use bireme_api::v1::{Component, Permission};
use bireme_core::executor::Interface;

/// The key in `GET /images/{name}/json`, which Docker's clients pass over.
pub const KEY: &str = "Bireme";

/// What components may use, the beginnings of the imports by which they do, and the label that grants it.
///
/// An interface alone says little of what is done with it: languages with a runtime import all that their standard library
/// can use.
const USES: &[(&str, &[&str], Option<&str>)] = &[
    ("http", &["wasi:http/outgoing-handler@", "wasi:http/client@", "wasi:http/handler@"], Some("bireme.allow")),
    (
        "sockets",
        &["wasi:sockets/tcp", "wasi:sockets/udp", "wasi:sockets/types@", "wasi:sockets/ip-name-lookup@"],
        Some("bireme.allow"),
    ),
    ("redis", &["fermyon:spin/redis@", "spin:redis/redis@"], Some("bireme.allow")),
    ("key-value", &["fermyon:spin/key-value@", "spin:key-value/", "wasi:keyvalue/"], Some("bireme.kv")),
    ("files", &["wasi:filesystem/", "wasi_snapshot_preview1.path_open"], None),
];

/// `labels` are the image's.
pub fn component(interface: Interface, labels: &BTreeMap<String, String>) -> Component {
    let Interface { trigger, imports, exports, refused } = interface;
    let mut permissions: Vec<Permission> = Vec::new();
    for (name, starts, label) in USES {
        let uses = |import: &&String| starts.iter().any(|start| import.starts_with(start));
        let interfaces: Vec<String> = imports.iter().filter(uses).cloned().collect();
        if !interfaces.is_empty() {
            permissions.push(permission(name, interfaces, *label, labels));
        }
    }
    if trigger.as_deref() == Some("redis") {
        let interfaces = exports.iter().filter(|export| export.contains("/inbound-redis")).cloned().collect();
        permissions.push(permission("messages", interfaces, Some("bireme.redis.subscribe"), labels));
    }
    Component { trigger, exports, imports, permissions, refused }
}

fn permission(
    name: &str,
    interfaces: Vec<String>,
    label: Option<&str>,
    labels: &BTreeMap<String, String>,
) -> Permission {
    let requested = label.and_then(|label| labels.get(label)).cloned();
    Permission { name: name.to_owned(), interfaces, label: label.map(str::to_owned), requested }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_imports_and_what_its_image_requests_stand_side_by_side() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let interface = Interface {
            trigger: Some("redis".to_owned()),
            imports: names(&[
                "wasi:http/types@0.2.6",
                "wasi:http/outgoing-handler@0.2.6",
                "wasi:sockets/tcp-create-socket@0.2.6",
                "wasi:sockets/network@0.2.6",
                "wasi:keyvalue/store@0.2.0-draft2",
                "wasi:clocks/wall-clock@0.2.6",
            ]),
            exports: names(&["fermyon:spin/inbound-redis"]),
            refused: None,
        };
        let labels = BTreeMap::from([("bireme.allow".to_owned(), "https://example.com".to_owned())]);
        let told = component(interface, &labels);
        let line = |one: &Permission| {
            let (label, requested) = (one.label.as_deref(), one.requested.as_deref());
            format!("{} {} {} {}", one.name, one.interfaces.join(","), label.unwrap_or("-"), requested.unwrap_or("-"))
        };
        let lines: Vec<String> = told.permissions.iter().map(line).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        http wasi:http/outgoing-handler@0.2.6 bireme.allow https://example.com
        sockets wasi:sockets/tcp-create-socket@0.2.6 bireme.allow https://example.com
        key-value wasi:keyvalue/store@0.2.0-draft2 bireme.kv -
        messages fermyon:spin/inbound-redis bireme.redis.subscribe -
        ");
    }

    #[test]
    fn what_only_answers_requests_asks_for_nothing() {
        let imports = vec!["wasi:http/types@0.2.6".to_owned(), "wasi:cli/stdout@0.2.6".to_owned()];
        let interface = Interface { trigger: Some("http".to_owned()), imports, exports: Vec::new(), refused: None };
        assert_eq!(component(interface, &BTreeMap::new()).permissions, []);
    }
}
