//! Where `unsafe` stands outside the crate that is its home: only in files that the table of ARCHITECTURE.md gives a reason for.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use syn::visit::{self, Visit};

/// The crate that may have any.
const HOME: &str = "bireme-sys";
/// How the head of the table begins.
const HEAD: &str = "| `unsafe` in | ";

/// What is wrong, a sentence each: files below the folders of `crates`, which are given with their names, that have `unsafe`
/// and no row in the table of `page`, and rows of files that have none. Rows name files by their paths below `root`.
pub(crate) fn check(root: &Path, page: &str, crates: &[(String, &Path)]) -> Result<Vec<String>> {
    let reasoned = rows(page)?;
    let mut found = BTreeSet::new();
    for (_, folder) in crates.iter().filter(|(name, _)| name != HOME) {
        read(root, folder, &mut found)?;
    }
    let missing =
        found.difference(&reasoned).map(|file| format!("{file} has no row: move it to {HOME}, or say why not"));
    let stale = reasoned.difference(&found).map(|file| format!("{file} has a row, but no `unsafe`"));
    Ok(missing.chain(stale).collect())
}

/// The files that the table names.
fn rows(page: &str) -> Result<BTreeSet<String>> {
    let mut lines = page.lines().skip_while(|line| !line.starts_with(HEAD)).peekable();
    if lines.peek().is_none() {
        bail!("no table begins with {HEAD:?}");
    }
    let rows = lines.skip(2).take_while(|line| line.starts_with('|'));
    Ok(rows.filter_map(|row| Some(row.split('|').nth(1)?.trim().trim_matches('`').to_owned())).collect())
}

/// Notes the files with `unsafe` below `folder`. What a build made is passed over, as is what is no crate of this workspace.
fn read(root: &Path, folder: &Path, found: &mut BTreeSet<String>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            if !path.join("Cargo.toml").exists() && path.file_name().is_some_and(|name| name != "target") {
                read(root, &path, found)?;
            }
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let file = syn::parse_file(&text).with_context(|| format!("cannot parse {}", path.display()))?;
            if has_unsafe(&file) {
                found.insert(path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned());
            }
        }
    }
    Ok(())
}

fn has_unsafe(file: &syn::File) -> bool {
    let mut seen = Seen(false);
    seen.visit_file(file);
    seen.0
}

/// Whether any `unsafe` was seen.
struct Seen(bool);

impl<'ast> Visit<'ast> for Seen {
    fn visit_expr_unsafe(&mut self, _: &'ast syn::ExprUnsafe) {
        self.0 = true;
    }

    /// Of functions, whether of traits, implementations or neither.
    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        self.0 |= signature.unsafety.is_some();
        visit::visit_signature(self, signature);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        self.0 |= item.unsafety.is_some();
        visit::visit_item_impl(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.0 |= item.unsafety.is_some();
        visit::visit_item_trait(self, item);
    }

    fn visit_item_foreign_mod(&mut self, _: &'ast syn::ItemForeignMod) {
        self.0 = true;
    }

    /// `#[unsafe(…)]`; and what lifts the lint, which sees into macros, where syn does not.
    fn visit_meta_list(&mut self, list: &'ast syn::MetaList) {
        let lifts = ["allow", "expect", "warn", "cfg_attr"].iter().any(|name| list.path.is_ident(name));
        self.0 |= list.path.is_ident("unsafe") || lifts && list.tokens.to_string().contains("unsafe_code");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_unsafe_is_seen() {
        for text in [
            "fn f() { let g = || loop { unsafe { h() } }; }",
            "unsafe fn f() {}",
            "struct S; impl S { unsafe fn f() {} }",
            "trait T { unsafe fn f(); }",
            "unsafe trait T {}",
            "struct S; unsafe impl Send for S {}",
            "unsafe extern \"C\" { safe fn f(); }",
            "#[unsafe(no_mangle)] fn f() {}",
            "mod inner { #![expect(unsafe_code, reason = \"a macro\")] }",
            "#[cfg_attr(test, allow(unsafe_code))] fn f() {}",
        ] {
            assert!(has_unsafe(&syn::parse_file(text).unwrap()), "{text}");
        }
        let without = "//! unsafe\n#![deny(unsafe_code)] #[expect(deprecated, reason = \"unsafe\")] fn f() { let _ = \"unsafe {}\"; }";
        assert!(!has_unsafe(&syn::parse_file(without).unwrap()));
    }

    #[test]
    fn a_file_needs_its_row_and_a_row_its_file() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("crates/bireme-sys/src/lib.rs", "unsafe fn f() {}");
        write("crates/a/src/lib.rs", "mod deep;");
        write("crates/a/src/deep/mod.rs", "unsafe fn f() {}");
        write("crates/a/target/made.rs", "unsafe fn f() {}");
        write("crates/a/tests/a.rs", "#[test] fn f() { unsafe { g() } }");
        write("crates/a/other/Cargo.toml", "");
        write("crates/a/other/src/lib.rs", "unsafe fn f() {}");
        let folders = ["a", "bireme-sys"].map(|name| (name.to_owned(), root.path().join("crates").join(name)));
        let crates: Vec<(String, &Path)> = folders.iter().map(|(name, path)| (name.clone(), path.as_path())).collect();
        let wrong = |rows: &str| {
            let page = format!(
                "Text.\n\n| `unsafe` in | why |\n|---|---|\n{rows}\n| word | meaning |\n|---|---|\n| other | table |\n"
            );
            check(root.path(), &page, &crates).unwrap()
        };
        assert!(wrong("| `crates/a/src/deep/mod.rs` | a reason |\n| `crates/a/tests/a.rs` | another |\n").is_empty());
        assert_eq!(
            wrong("| `crates/a/src/deep/mod.rs` | a reason |\n| `crates/a/src/gone.rs` | another |\n"),
            [
                "crates/a/tests/a.rs has no row: move it to bireme-sys, or say why not",
                "crates/a/src/gone.rs has a row, but no `unsafe`"
            ]
        );
        assert!(check(root.path(), "no table", &crates).is_err());
    }
}
