//! The folders of key-value stores, as the daemon sees them.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use bireme_core::{SandboxId, StoreFolder};

/// Every folder of stores below `root`, none of them as in use.
pub(crate) fn list(root: &Path) -> Vec<StoreFolder> {
    let Ok(folders) = std::fs::read_dir(root) else { return Vec::new() };
    let mut found: Vec<StoreFolder> = folders
        .flatten()
        .filter(|folder| folder.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|folder| {
            let name = folder.file_name().into_string().ok().filter(|name| SandboxId::parse(name).is_ok())?;
            let mut store = StoreFolder { name, size: 0, changed: 0, in_use: false };
            // The files lie side by side; a link among them is looked at and not followed.
            for file in std::fs::read_dir(folder.path()).into_iter().flatten().flatten() {
                let Ok(metadata) = file.metadata() else { continue };
                store.size += metadata.blocks() * 512;
                let changed = metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec());
                store.changed = store.changed.max(changed);
            }
            Some(store)
        })
        .collect();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_listed_with_what_they_take_and_links_are_not_followed() {
        let root = std::env::temp_dir().join(format!("bireme-stores-{}", std::process::id()));
        assert_eq!(list(&root), []);
        std::fs::create_dir_all(root.join("app-shop")).unwrap();
        std::fs::write(root.join("app-shop/default.sqlite"), vec![1; 100_000]).unwrap();
        std::fs::write(root.join("file"), "x").unwrap();
        std::os::unix::fs::symlink("/usr", root.join("app-link")).unwrap();
        let found = list(&root);
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].name == "app-shop" && found[0].size >= 100_000 && found[0].changed > 0, "{found:?}");
    }
}
