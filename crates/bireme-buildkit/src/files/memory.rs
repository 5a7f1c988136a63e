//! A few files that come in, kept in memory: a `Dockerfile`, a `.dockerignore`.

use std::collections::{BTreeMap, HashMap};

use super::entry::{Entry, EntryKind};
use super::receive::{Content, Failure, Receive};

/// How many links are followed on the way to one file, as the kernel has it.
const MAX_LINKS: usize = 40;

/// Keeps files in memory. How much is set by the [`Limits`](super::Limits) of the transfer.
#[derive(Debug, Default)]
pub struct InMemory {
    names: HashMap<u32, String>,
    kept: FewFiles,
}

/// Files that were kept, and the links among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FewFiles {
    files: BTreeMap<String, Vec<u8>>,
    links: BTreeMap<String, String>,
}

impl FewFiles {
    /// The content of the file at `path`, found through links as they stand in the tree; none leads out of it.
    pub fn get(&self, path: &str) -> Option<&[u8]> {
        let mut left: Vec<String> = Vec::new();
        let push = |left: &mut Vec<String>, path: &str| left.extend(path.split('/').rev().map(str::to_owned));
        push(&mut left, path);
        let (mut at, mut followed) = (Vec::<String>::new(), 0);
        while let Some(name) = left.pop() {
            match name.as_str() {
                "" | "." => continue,
                ".." => {
                    at.pop();
                    continue;
                }
                _ => at.push(name),
            }
            if let Some(target) = self.links.get(&at.join("/")) {
                followed += 1;
                if followed > MAX_LINKS {
                    return None;
                }
                at.pop();
                if target.starts_with('/') {
                    at.clear();
                }
                push(&mut left, target);
            }
        }
        self.files.get(&at.join("/")).map(Vec::as_slice)
    }

    /// The paths of all files, links left out.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }
}

impl Receive for InMemory {
    type Done = FewFiles;

    fn entry(&mut self, index: u32, entry: &Entry) -> Result<Content, Failure> {
        match &entry.kind {
            EntryKind::File { .. } => {
                self.names.insert(index, entry.path.clone());
                self.kept.files.insert(entry.path.clone(), Vec::new());
            }
            EntryKind::Link { target } => {
                self.kept.links.insert(entry.path.clone(), target.clone());
            }
            EntryKind::HardLink { to } => {
                self.kept.links.insert(entry.path.clone(), format!("/{to}"));
            }
            _ => {}
        }
        Ok(Content::Want)
    }

    fn data(&mut self, index: u32, bytes: &[u8]) -> Result<(), Failure> {
        if let Some(content) = self.names.get(&index).and_then(|name| self.kept.files.get_mut(name)) {
            content.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn end(&mut self, _: u32) -> Result<(), Failure> {
        Ok(())
    }

    fn finish(self) -> Result<FewFiles, Failure> {
        Ok(self.kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_through_links_that_stay_in_the_tree() {
        let text = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
        };
        let files = text(&[("a/f", "in a"), ("f", "at the root")]);
        let links = text(&[
            ("b", "a"),
            ("a/up", "../f"),
            ("absolute", "/a/f"),
            ("out", "../../../f"),
            ("round", "round"),
            ("dangling", "gone"),
        ]);
        let few = FewFiles { files: files.into_iter().map(|(path, text)| (path, text.into_bytes())).collect(), links };
        let get = |path| few.get(path).map(|content| std::str::from_utf8(content).unwrap());
        for path in ["a/f", "./a//f", "b/f", "absolute"] {
            assert_eq!(get(path), Some("in a"), "{path}");
        }
        for path in ["f", "a/up", "b/up", "out", "../f", "a/../f"] {
            assert_eq!(get(path), Some("at the root"), "{path}");
        }
        for path in ["round", "dangling", "a", "", "nothing"] {
            assert_eq!(get(path), None, "{path}");
        }
    }
}
