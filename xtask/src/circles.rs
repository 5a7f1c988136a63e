//! Circles of files within a crate: one that uses another which uses it can be read, tried and changed only together with it.
//!
//! A module and those within it count as one: the head of a folder may name its files, and they its head.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use syn::visit::{self, Visit};

/// By the name of each module, those that it uses.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// The circles among the files below `source`, each as the names of its modules.
pub(crate) fn of(source: &Path) -> Result<Vec<Vec<String>>> {
    let mut texts = BTreeMap::new();
    read(source, "", &mut texts)?;
    let modules: BTreeSet<String> = texts.keys().cloned().collect();
    let mut graph = Graph::new();
    for (module, text) in texts {
        let file = syn::parse_file(&text).with_context(|| format!("cannot read {module} in {}", source.display()))?;
        let mut uses = Uses { module: &module, modules: &modules, found: BTreeSet::new() };
        uses.visit_file(&file);
        let found = uses.found;
        graph.insert(module, found);
    }
    Ok(circles(&graph))
}

fn read(folder: &Path, parent: &str, texts: &mut BTreeMap<String, String>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let joined = if parent.is_empty() { name.clone() } else { format!("{parent}::{name}") };
        if path.is_dir() {
            read(&path, &joined, texts)?;
        } else if path.extension().is_some_and(|ending| ending == "rs") && !matches!(name.as_str(), "lib" | "main") {
            let module = if name == "mod" { parent.to_owned() } else { joined };
            texts.insert(module, fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

/// Collects what one file uses of its crate, its tests left out.
struct Uses<'a> {
    module: &'a str,
    modules: &'a BTreeSet<String>,
    found: BTreeSet<String>,
}

impl Uses<'_> {
    /// Notes the module that a path leads to, where it is another file.
    fn note(&mut self, path: &[String]) {
        let mut at: Vec<&str> = self.module.split("::").filter(|part| !part.is_empty()).collect();
        let mut parts = path.iter().map(String::as_str).peekable();
        match parts.next() {
            Some("crate") => at.clear(),
            Some("super") => {
                at.pop();
            }
            Some("self") => {}
            _ => return,
        }
        while parts.next_if(|part| *part == "super").is_some() {
            at.pop();
        }
        at.extend(parts);
        while !at.is_empty() {
            let name = at.join("::");
            if self.modules.contains(&name) {
                let within =
                    |outer: &str, inner: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with("::"));
                if name != self.module && !within(&name, self.module) && !within(self.module, &name) {
                    self.found.insert(name);
                }
                return;
            }
            at.pop();
        }
    }

    fn note_tree(&mut self, before: &[String], tree: &syn::UseTree) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.note_tree(&with(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.note(&with(&name.ident)),
            syn::UseTree::Rename(name) => self.note(&with(&name.ident)),
            syn::UseTree::Glob(_) => self.note(before),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.note_tree(before, tree)),
        }
    }
}

impl<'ast> Visit<'ast> for Uses<'_> {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.note_tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.note(&parts);
        visit::visit_path(self, path);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let tests = |attribute: &syn::Attribute| {
            attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Ident>().is_ok_and(|what| what == "test")
        };
        if !item.attrs.iter().any(tests) {
            visit::visit_item_mod(self, item);
        }
    }
}

/// The strongly connected components of more than one module. Each pair of modules that reach each other is in one.
fn circles(graph: &Graph) -> Vec<Vec<String>> {
    let reached: BTreeMap<&String, BTreeSet<&String>> = graph.keys().map(|from| (from, reach(graph, from))).collect();
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for (from, there) in &reached {
        let circle: Vec<String> = there
            .iter()
            .filter(|to| reached.get(*to).is_some_and(|back| back.contains(*from)))
            .map(|to| (*to).clone())
            .collect();
        if circle.len() > 1 && circle.iter().all(|module| seen.insert(module.clone())) {
            found.push(circle);
        }
    }
    found
}

/// All that is used by `from`, and by what it uses. Itself only when a circle leads back.
fn reach<'g>(graph: &'g Graph, from: &String) -> BTreeSet<&'g String> {
    let mut found = BTreeSet::new();
    let mut open: Vec<&String> = graph.get(from).into_iter().flatten().collect();
    while let Some(module) = open.pop() {
        if found.insert(module) {
            open.extend(graph.get(module).into_iter().flatten());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_use_each_other_are_found_and_tests_are_not_asked() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("lib.rs", "mod a; mod b; mod c; mod deep; pub use a::A;");
        write("a.rs", "use crate::b::{B, other as that}; pub struct A;");
        write("b.rs", "pub struct B; #[cfg(test)] mod tests { use crate::a::A; }");
        write("c.rs", "pub fn c() { crate::deep::inner::run() }");
        write("deep/mod.rs", "mod inner; pub use self::inner::Inner;");
        write("deep/inner.rs", "use super::Deep; pub fn run() {}");
        assert!(of(folder.path()).unwrap().is_empty());
        write("deep/inner.rs", "pub fn run() { crate::c::c() }");
        write("b.rs", "pub struct B(crate::a::A);");
        assert_eq!(of(folder.path()).unwrap(), [["a", "b"], ["c", "deep::inner"]]);
    }
}
