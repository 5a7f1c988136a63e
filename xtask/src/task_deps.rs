//! `deps`: which crate of the workspace may use which, and that no files of one use each other in a circle. A new edge is a
//! decision: it is made here, in the open.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use serde_json::Value;

use crate::{circles, workspace};

/// The normal and build dependencies that are allowed between our crates. Tests may use what they like.
const MAY_USE: &[(&str, &[&str])] = &[
    ("bireme-core", &[]),
    ("bireme-sys", &[]),
    ("bireme-image", &["bireme-core"]),
    ("bireme-net", &["bireme-core", "bireme-sys"]),
    ("bireme-linux", &["bireme-core", "bireme-sys"]),
    ("bireme-runner", &["bireme-core", "bireme-linux", "bireme-sys"]),
    ("bireme-wasm", &["bireme-core", "bireme-sys"]),
    ("bireme-wasm-host", &["bireme-core", "bireme-sys", "bireme-wasm"]),
    ("bireme-engine", &["bireme-core", "bireme-image", "bireme-net", "bireme-sys"]),
    ("bireme-api", &["bireme-core"]),
    ("bireme-compose", &["bireme-api", "bireme-core"]),
    (
        "biremed",
        &[
            "bireme-api",
            "bireme-core",
            "bireme-engine",
            "bireme-image",
            "bireme-linux",
            "bireme-net",
            "bireme-sys",
            "bireme-wasm",
        ],
    ),
    ("bireme", &["bireme-api", "bireme-compose", "bireme-core"]),
    // Not part of the product: they may know more.
    ("bireme-benches", &["bireme-testing"]),
    ("bireme-testing", &["bireme-api", "bireme-core", "bireme-sys"]),
    ("bireme-tests", &["bireme-api", "bireme-core", "bireme-sys", "bireme-testing"]),
    ("whiskers-bots", &["bireme-api"]),
    ("xtask", &["bireme-core", "bireme-testing"]),
];

/// Crates with circles that are still to be opened.
const WITH_CIRCLES: &[&str] = &["bireme-image", "bireme-wasm-host"];

pub(crate) fn run() -> Result<()> {
    let metadata = workspace::output(&mut workspace::cargo(&["metadata", "--format-version=1", "--no-deps"]))?;
    let wrong = check(&serde_json::from_str(&metadata)?);
    if !wrong.is_empty() {
        bail!("crates do not use each other as the workspace allows:\n  {}", wrong.join("\n  "));
    }
    let mut wrong = Vec::new();
    for (name, _) in MAY_USE {
        let source = workspace::root().join("crates").join(name).join("src");
        if !source.is_dir() || WITH_CIRCLES.contains(name) {
            continue;
        }
        wrong.extend(circles::of(&source)?.iter().map(|circle| format!("{name}: {}", circle.join(", "))));
    }
    if !wrong.is_empty() {
        bail!("files use each other in a circle:\n  {}", wrong.join("\n  "));
    }
    println!("the crates and their files use each other as the workspace allows");
    Ok(())
}

/// What is wrong, a sentence each.
fn check(metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ours: BTreeMap<&str, &Value> = packages.iter().filter_map(|p| Some((p["name"].as_str()?, p))).collect();
    let mut wrong = Vec::new();
    for (name, package) in &ours {
        let Some((_, allowed)) = MAY_USE.iter().find(|(known, _)| known == name) else {
            wrong.push(format!("{name} is not in the table of task_deps.rs: decide what it may use"));
            continue;
        };
        let uses: BTreeSet<&str> = package["dependencies"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|dependency| dependency["kind"].as_str() != Some("dev"))
            .filter_map(|dependency| dependency["name"].as_str())
            .filter(|used| ours.contains_key(used))
            .collect();
        for used in uses.iter().filter(|used| !allowed.contains(used)) {
            wrong.push(format!("{name} uses {used}, but may use only: {}", allowed.join(", ")));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::check;

    #[test]
    fn an_edge_that_is_not_in_the_table_is_named() {
        let package = |name: &str, used: &str, kind: Option<&str>| {
            json!({ "packages": [
                { "name": "bireme-image", "dependencies": [] },
                { "name": name, "dependencies": [{ "name": used, "kind": kind }] },
            ] })
        };
        assert!(check(&package("bireme-core", "bireme-image", Some("dev"))).is_empty());
        assert!(check(&package("bireme-core", "serde", None)).is_empty());
        assert_eq!(check(&package("bireme-core", "bireme-image", None)).len(), 1);
        assert_eq!(check(&package("newcomer", "serde", None)).len(), 1);
    }
}
