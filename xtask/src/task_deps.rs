//! `deps`: which crate of the workspace may use which, that no files of one use each other in a circle, and where `unsafe`
//! stands. A new edge is a decision, as is `unsafe` that does not go where it is at home: they are made in the tables of
//! ARCHITECTURE.md, which are read here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{circles, unsafe_code, workspace};

/// The page with the table, and how the head of that begins.
const PAGE: &str = "ARCHITECTURE.md";
const HEAD: &str = "| crate | ";

/// By the name of each crate, those of ours that it may use: normal and build dependencies. Tests may use what they like.
type MayUse = BTreeMap<String, BTreeSet<String>>;

pub(crate) fn run() -> Result<()> {
    let page = workspace::read(&workspace::root().join(PAGE))?;
    let may_use = read(&page).with_context(|| format!("cannot read {PAGE}"))?;
    let metadata = workspace::output(&mut workspace::cargo(&["metadata", "--format-version=1", "--no-deps"]))?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let wrong = check(&may_use, &metadata);
    if !wrong.is_empty() {
        bail!("crates do not use each other as the table of {PAGE} allows:\n  {}", wrong.join("\n  "));
    }
    let mut wrong = Vec::new();
    for name in may_use.keys() {
        let source = workspace::root().join("crates").join(name).join("src");
        if source.is_dir() {
            wrong.extend(circles::of(&source)?.iter().map(|circle| format!("{name}: {}", circle.join(", "))));
        }
    }
    if !wrong.is_empty() {
        bail!("files use each other in a circle:\n  {}", wrong.join("\n  "));
    }
    let wrong = unsafe_code::check(&workspace::root(), &page, &folders(&metadata))
        .with_context(|| format!("cannot compare the files with {PAGE}"))?;
    if !wrong.is_empty() {
        bail!("`unsafe` does not stand where the table of {PAGE} gives a reason for it:\n  {}", wrong.join("\n  "));
    }
    println!("the crates and their files use each other as the workspace allows, and `unsafe` stands where it may");
    Ok(())
}

/// The table: a row for each crate, whose name is the first cell and whose last names what it may use, `bireme-` left out.
fn read(page: &str) -> Result<MayUse> {
    let rows = page.lines().skip_while(|line| !line.starts_with(HEAD)).skip(2).take_while(|line| line.starts_with('|'));
    let rows: Vec<(&str, &str)> = rows
        .map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            match cells[..] {
                [name, .., used] => Ok((name.trim_matches('`'), used)),
                _ => bail!("a row without columns: {row}"),
            }
        })
        .collect::<Result<_>>()?;
    if rows.is_empty() {
        bail!("no table begins with {HEAD:?}");
    }
    let whole = |short: &str| {
        let names = || rows.iter().map(|(name, _)| *name);
        let found = names().find(|name| name.strip_prefix("bireme-") == Some(short));
        found.or_else(|| names().find(|name| *name == short)).map(str::to_owned)
    };
    rows.iter()
        .map(|(name, used)| {
            let used = used.split(", ").filter(|used| *used != "nothing");
            let used = used.map(|used| whole(used).with_context(|| format!("{name} may use {used}, which has no row")));
            Ok(((*name).to_owned(), used.collect::<Result<_>>()?))
        })
        .collect()
}

/// The crates of the workspace, each with its folder.
fn folders(metadata: &Value) -> Vec<(String, &Path)> {
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    packages
        .iter()
        .filter_map(|package| {
            let manifest = Path::new(package["manifest_path"].as_str()?);
            Some((package["name"].as_str()?.to_owned(), manifest.parent()?))
        })
        .collect()
}

/// What is wrong, a sentence each.
fn check(may_use: &MayUse, metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ours: BTreeMap<&str, &Value> = packages.iter().filter_map(|p| Some((p["name"].as_str()?, p))).collect();
    let gone = may_use.keys().filter(|name| !ours.contains_key(name.as_str()));
    let mut wrong: Vec<String> =
        gone.map(|name| format!("{name} has a row, but is no crate of the workspace")).collect();
    for (name, package) in &ours {
        let Some(allowed) = may_use.get(*name) else {
            wrong.push(format!("{name} has no row: decide what it may use"));
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
        for used in uses.iter().filter(|used| !allowed.contains(**used)) {
            let allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
            wrong.push(format!("{name} uses {used}, but may use only: {}", allowed.join(", ")));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use serde_json::json;

    use super::*;

    const TABLE: &str = "Text.\n\n| crate | what it is for | may use (of ours) |\n|---|---|---|\n\
        | `bireme-core` | words | nothing |\n| `bireme-image` | images | core |\n| `bireme` | commands | core, image |\n\n\
        | word | meaning |\n|---|---|\n| other | table |\n";

    #[test]
    fn the_table_is_read() {
        let table = read(TABLE).unwrap();
        let used = |name: &str| table[name].iter().map(String::as_str).collect::<Vec<_>>();
        assert_eq!(table.len(), 3);
        assert_eq!(used("bireme"), ["bireme-core", "bireme-image"]);
        assert!(used("bireme-core").is_empty());
        assert!(read("no table").is_err());
        assert!(read(&TABLE.replace("core, image", "core, imagination")).is_err());
    }

    #[test]
    fn an_edge_that_is_not_in_the_table_is_named_and_so_are_names_of_one_side_alone() {
        let table = read(TABLE).unwrap();
        let wrong = |name: &str, used: &str, kind: Option<&str>| {
            let packages = ["bireme-core", "bireme-image", "bireme"].into_iter().filter(|other| *other != name);
            let mut packages: Vec<Value> = packages.map(|other| json!({ "name": other, "dependencies": [] })).collect();
            packages.push(json!({ "name": name, "dependencies": [{ "name": used, "kind": kind }] }));
            check(&table, &json!({ "packages": packages }))
        };
        assert!(wrong("bireme-core", "bireme-image", Some("dev")).is_empty());
        assert!(wrong("bireme-core", "serde", None).is_empty());
        assert!(wrong("bireme", "bireme-image", None).is_empty());
        assert_eq!(wrong("bireme-core", "bireme-image", None).len(), 1);
        assert_eq!(wrong("newcomer", "serde", None), ["newcomer has no row: decide what it may use"]);
        assert_eq!(check(&table, &json!({ "packages": [] })).len(), 3);
    }
}
