//! Whether a walk is one: names that stay below the root, each folder before what is in it, names of a folder in order.
//!
//! fsutil's receiver demands the same (`validator.go`, `hardlinks.go`); a receiver may rely on it: no path comes twice, none
//! leaves the tree or passes through a link.

use std::collections::HashSet;

use super::entry::{Entry, EntryKind};

/// The longest path, in bytes.
pub(crate) const MAX_PATH: usize = 4096;
/// The longest name within one, in bytes.
const MAX_NAME: usize = 255;
/// The most bytes of extended attributes of one entry.
const MAX_XATTRS: usize = 64 << 10;

/// What was passed so far.
#[derive(Default)]
pub(crate) struct Order {
    /// The folders from the root to where the walk is, below the root itself.
    open: Vec<Level>,
    /// The last name at the root.
    last: String,
    /// Files that a hard link may name.
    files: HashSet<String>,
}

struct Level {
    path: String,
    last: String,
}

impl Order {
    /// Takes the next entry of the walk.
    ///
    /// # Errors
    /// When it has no place in it; the text says why.
    pub(crate) fn accept(&mut self, entry: &Entry) -> Result<(), String> {
        let path = entry.path.as_str();
        check_path(path)?;
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        while self.open.last().is_some_and(|level| level.path != folder) {
            self.open.pop();
        }
        if self.open.is_empty() && !folder.is_empty() {
            return Err(format!("{path:?} is in no folder that came before it"));
        }
        let last = self.open.last_mut().map_or(&mut self.last, |level| &mut level.last);
        if last.as_str() >= name {
            return Err(format!("{path:?} is out of order: it comes after {last:?}"));
        }
        name.clone_into(last);
        match &entry.kind {
            EntryKind::Folder => self.open.push(Level { path: path.to_owned(), last: String::new() }),
            EntryKind::File { .. } => {
                self.files.insert(path.to_owned());
            }
            EntryKind::HardLink { to } if !self.files.contains(to) => {
                return Err(format!("{path:?} is a hard link to {to:?}, which is no file that came before it"));
            }
            EntryKind::Link { target } if target.is_empty() || target.len() > MAX_PATH || target.contains('\0') => {
                return Err(format!("{path:?} is a link to nowhere"));
            }
            _ => {}
        }
        if entry.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > MAX_XATTRS {
            return Err(format!("{path:?} has more than {MAX_XATTRS} bytes of extended attributes"));
        }
        Ok(())
    }
}

fn check_path(path: &str) -> Result<(), String> {
    let shown = || path.chars().take(100).collect::<String>();
    if path.len() > MAX_PATH {
        return Err(format!("a path is longer than {MAX_PATH} bytes: {:?}…", shown()));
    }
    if path.contains('\0') {
        return Err(format!("{:?} has a NUL byte", shown()));
    }
    for name in path.split('/') {
        match name {
            "" | "." | ".." => return Err(format!("{:?} is no path below the root of the tree", shown())),
            name if name.len() > MAX_NAME => {
                return Err(format!("a name is longer than {MAX_NAME} bytes: {:?}…", shown()));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: EntryKind) -> Entry {
        Entry { path: path.to_owned(), kind, mode: 0o644, uid: 0, gid: 0, modified: 0, xattrs: Default::default() }
    }

    /// Feeds a walk, a folder with a slash at its end, and answers with the first refusal.
    fn walk(paths: &[&str]) -> Result<(), String> {
        let mut order = Order::default();
        paths.iter().try_for_each(|path| {
            order.accept(&match path.strip_suffix('/') {
                Some(folder) => entry(folder, EntryKind::Folder),
                None => entry(path, EntryKind::File { size: 0 }),
            })
        })
    }

    #[test]
    fn a_walk_in_order_passes() {
        assert_eq!(walk(&["a", "sub/", "sub/a", "sub/b/", "sub/b/c", "sub/d", "sub.txt", "z"]), Ok(()));
        assert_eq!(walk(&["sub/", "sub/x", "sub-a", "sub0"]), Ok(()));
        assert_eq!(walk(&[]), Ok(()));
    }

    #[test]
    fn what_is_no_walk_is_refused_by_name() {
        let cases: [(&[&str], &str); 15] = [
            (&["b", "a"], "out of order"),
            (&["a", "a"], "out of order"),
            (&["a/", "a"], "out of order"),
            (&["sub/a"], "in no folder"),
            (&["sub", "sub/a"], "in no folder"),
            (&["a/", "b/", "a/x"], "in no folder"),
            (&["a/", "a/b", "a/b/c"], "in no folder"),
            (&["a/", "a/z", "a/b"], "out of order"),
            (&[".."], "no path below"),
            (&["../a"], "no path below"),
            (&["a/", "a/../../b"], "no path below"),
            (&["/etc"], "no path below"),
            (&["./a"], "no path below"),
            (&[""], "no path below"),
            (&["a\0b"], "NUL"),
        ];
        for (paths, expected) in cases {
            let refused = walk(paths).expect_err(expected);
            assert!(refused.contains(expected), "{paths:?}: {refused}");
        }
        assert!(walk(&[&"a".repeat(256)]).unwrap_err().contains("name is longer"));
        assert!(walk(&[&"a/".repeat(3000)]).unwrap_err().contains("path is longer"));
    }

    #[test]
    fn nothing_passes_below_a_link() {
        let mut order = Order::default();
        order.accept(&entry("l", EntryKind::Link { target: "/etc".to_owned() })).unwrap();
        assert!(order.accept(&entry("l/passwd", EntryKind::File { size: 0 })).unwrap_err().contains("in no folder"));
    }

    #[test]
    fn a_hard_link_names_an_earlier_file() {
        let mut order = Order::default();
        let link = |path: &str, to: &str| entry(path, EntryKind::HardLink { to: to.to_owned() });
        order.accept(&entry("a", EntryKind::File { size: 0 })).unwrap();
        order.accept(&link("b", "a")).unwrap();
        assert!(order.accept(&link("c", "b")).unwrap_err().contains("no file that came before"));
        assert!(order.accept(&link("d", "../etc/passwd")).unwrap_err().contains("no file that came before"));
        assert!(order.accept(&link("e", "z")).unwrap_err().contains("no file that came before"));
    }

    #[test]
    fn links_and_attributes_have_bounds() {
        let mut order = Order::default();
        assert!(order.accept(&entry("a", EntryKind::Link { target: String::new() })).is_err());
        let mut fat = entry("b", EntryKind::File { size: 0 });
        fat.xattrs.insert("user.x".to_owned(), vec![0; MAX_XATTRS]);
        assert!(order.accept(&fat).unwrap_err().contains("extended attributes"));
    }
}
